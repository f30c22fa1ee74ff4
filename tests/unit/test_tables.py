from __future__ import annotations

import csv
import io

import msgspec
import pytest
from rich.console import Console

from oscar_metrics import wire
from oscar_metrics.findings import Finding, Level
from oscar_metrics.tables import Report, as_csv, as_table, findings_table

SOURCE = wire.SourceStatus(
    name=wire.SourceName.REQUEST_LOGS,
    status=wire.SourceState.PARTIAL,
    notes="[bold]5 h missing[/]",
    origin="loki",
    coverage=0.5,
    gaps=(),
    affects=("value",),
)
TOTALS = wire.Totals(
    services_count_active=None,
    services_count_total=2,
    cpu_hours_total=1234.56789,
    gpu_hours_total=0.0,
    requests_count_total=3,
    requests_count_sync=2,
    requests_count_async=1,
    requests_count_exposed=0,
    countries_count=2,
    countries=(
        wire.CountryCount(country="ES", request_count=2),
        wire.CountryCount(country="FR", request_count=1),
    ),
    users_count=30,
    users=("=1+1", *(f"user-{i}" for i in range(29))),
    failed_count=0,
    unknown_country_count=0,
)
SUMMARY = wire.Summary(start="a", end="b", totals=TOTALS, sources=(SOURCE,))
VALUE = wire.Value(
    service_id="svc",
    metric=wire.Metric.CPU_HOURS,
    start="a",
    end="b",
    value=0.1234567890123,
    unit="hours",
    sources=(SOURCE,),
)
USERS = wire.UserBreakdown(
    start="a",
    end="b",
    group_by="user",
    items=(
        wire.UserItem(
            key="ana [admin]",
            membership="member",
            executions_count=3,
            countries=TOTALS.countries,
            failed_count=1,
        ),
    ),
    sources=(SOURCE,),
)


JANUARY = wire.SummaryPeriod(
    period="2026-01",
    start="a",
    end="m",
    totals=msgspec.structs.replace(TOTALS, requests_count_total=None, users=("ana",)),
    incomplete=(wire.SourceName.REQUEST_LOGS,),
)
SERIES = msgspec.structs.replace(SUMMARY, periods=(JANUARY,), as_of="t")
USER_SERIES = msgspec.structs.replace(
    USERS,
    periods=(
        wire.UserPeriod(period="2026-W01", start="a", end="m", items=USERS.items, incomplete=()),
        wire.UserPeriod(period="2026-W02", start="m", end="b", items=(), incomplete=()),
    ),
)
FROM_LEDGER = msgspec.structs.replace(
    VALUE,
    sources=(
        msgspec.structs.replace(
            SOURCE,
            ledger=wire.LedgerPart(
                coverage=0.25, first_sealed_at="s", last_sealed_at="s", provisional_hours=1.0
            ),
        ),
    ),
    restated=(
        wire.Restatement(
            source=wire.SourceName.USAGE, start="h", end="i", sealed_at="later", was=1.5, now=2
        ),
    ),
)


def shown(report: Report, *, columns: int = 200) -> str:
    console = Console(file=io.StringIO(), width=columns)
    for table in as_table(report):
        console.print(table)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (SUMMARY, ["services_count_active", "missing", "1234.57", "ES:2|FR:1", "and 18 more"]),
        (VALUE, ["svc: cpu-hours", "0.123457 hours"]),
        (USERS, ["ana [admin]", "member", "ES:2|FR:1"]),
        (msgspec.structs.replace(USERS, items=()), ["no rows"]),
        (SUMMARY, ["request-logs", "partial", "50.00%", "[bold]5 h missing[/]"]),
        (SERIES, ["a to b as of t", "by period", "2026-01", "missing", "request-logs"]),
        (USER_SERIES, ["period", "2026-W01", "total", "ana [admin]"]),
        (FROM_LEDGER, ["from ledger", "25.00%", "restated", "later", "1.5"]),
    ],
)
def test_a_terminal_shows_figures_and_sources_as_they_are(
    report: Report, expected: list[str]
) -> None:
    text = shown(report)
    assert [part for part in expected if part not in text] == []


def test_what_is_wide_is_broken_between_words_and_neither_a_title_nor_a_period_is() -> None:
    lines = shown(SERIES, columns=79).splitlines()
    assert lines[0].strip() == "a to b as of t"
    assert any(line.startswith("2026-01 ") for line in lines)
    narrow = shown(msgspec.structs.replace(VALUE, start="2026-01-01T00:00:00Z" * 2))
    assert narrow.splitlines()[0].strip() == f"{'2026-01-01T00:00:00Z' * 2} to b"


def test_a_count_that_came_as_json_is_written_without_a_fraction() -> None:
    counted = msgspec.structs.replace(VALUE, value=6539)
    body = msgspec.json.encode(counted)
    received = msgspec.json.decode(body, type=wire.Value)
    assert msgspec.json.encode(received) == body
    assert as_csv(received).splitlines()[1] == "svc,cpu-hours,a,b,6539,hours"


def test_csv_of_a_summary_is_whole_and_safe() -> None:
    header, row = csv.reader(as_csv(SUMMARY).splitlines())
    cells = dict(zip(header, row, strict=True))
    assert header == ["start", "end", *wire.Totals.__struct_fields__]
    assert cells["cpu_hours_total"] == "1234.56789"
    assert cells["services_count_active"] == ""
    assert cells["users"].startswith("'=1+1|user-0|")
    assert cells["users"].count("|") == 29


def test_csv_of_a_series_has_the_total_last() -> None:
    header, *rows = csv.reader(as_csv(SERIES).splitlines())
    assert header == ["period", "start", "end", *wire.Totals.__struct_fields__, "as_of"]
    cells = [dict(zip(header, row, strict=True)) for row in rows]
    assert [(row["period"], row["start"], row["end"], row["as_of"]) for row in cells] == [
        ("2026-01", "a", "m", "t"),
        ("total", "a", "b", "t"),
    ]
    assert [row["requests_count_total"] for row in cells] == ["", "3"]
    assert cells[0]["users"] == "ana"


def test_csv_of_a_value_keeps_every_digit() -> None:
    assert as_csv(VALUE).splitlines()[1] == "svc,cpu-hours,a,b,0.1234567890123,hours"


def test_findings_are_shown_with_what_to_change() -> None:
    console = Console(file=io.StringIO(), width=200)
    finding = Finding(source="loki", level=Level.PROBLEM, says="[x] gone", change="start it")
    console.print(findings_table([finding]))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert file.getvalue().split()[-6:] == ["problem", "loki", "[x]", "gone", "start", "it"]


def test_a_terminal_obeys_nobody_who_is_named() -> None:
    named = "\x1b]0;title\x07\x9b31mred\r\n"
    found = Finding(source="loki", level=Level.OK, says=named)
    console = Console(file=io.StringIO(), width=200, force_terminal=False)
    console.print(findings_table([found]))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "]0;title" in shown
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(shown)
