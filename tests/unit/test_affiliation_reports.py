"""Rows per VO or project add up to the cluster's totals, and no roster is not no calls."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from rich.console import Console

from oscar_metrics import groupings, reports
from oscar_metrics.affiliation_reports import Affiliation, affiliation_breakdown
from oscar_metrics.command_requests import AskBreakdown, AskedRange
from oscar_metrics.commands import result_type
from oscar_metrics.completeness import NOT_SHOWN
from oscar_metrics.facts import (
    CallKey,
    CallLog,
    HiddenUser,
    Inventory,
    Kind,
    LogStream,
    Result,
    Roster,
    RosterUser,
    SlotPart,
    Usage,
)
from oscar_metrics.handlers.csv import breakdown_csv, file_name
from oscar_metrics.handlers.pieces import json_pieces
from oscar_metrics.outcome import Ok, Outcome, Partial
from oscar_metrics.periods import with_periods
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.sums import of_slots
from oscar_metrics.tables import as_table
from oscar_metrics.timerange import DAY_NS, SLOT_NS, ReportRange, parse_instant, report_range
from oscar_metrics.wire import AffiliationBreakdown, GroupBy, SourceName, SourceState
from tests.unit.reporting import ASKED, GONE, NOW, PLAIN, call, calls, log, plain, source

PEOPLE = {
    "ana": RosterUser(id="ana", vo="vo.one", project="p"),
    "bob": RosterUser(id="bob", vo="vo.one"),
    "eve": RosterUser(id="eve", project="p"),
    "oscar": RosterUser(id="oscar"),
}


def of_rules(user: str) -> RosterUser | None:
    return RosterUser(id=user, vo="vo.rules") if user.endswith("@rules") else None


KNOWN: Outcome[Roster] = Ok(facts=Roster(users=PEOPLE, of_id=of_rules), origin="roster")
EXECUTIONS: dict[CallKey, int] = {
    call(user="ana"): 5,
    call("other", user="ana", country="FR", result=Result.CLIENT_ERROR): 2,
    call(user="bob", kind=Kind.ASYNC): 1,
    call(user="eve", country=""): 3,
    call(user="oscar"): 4,
    call(user="x@rules"): 6,
    call(user="nobody-knows"): 7,
    call(user="", country="PT"): 8,
}


def breakdown(
    said: Calls | None = None,
    *,
    by: Affiliation = GroupBy.VO,
    privacy: Privacy = PLAIN,
    asked: ReportRange = ASKED,
) -> AffiliationBreakdown:
    said = said or calls(log(EXECUTIONS), log({}), KNOWN)
    return affiliation_breakdown(asked, NOW, said, by=by, group_by="VO", privacy=privacy)


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        (
            GroupBy.VO,
            {"": (22, 3, "ES:11|PT:8", 0), "vo.one": (8, 2, "ES:6|FR:2", 2)}
            | {"vo.rules": (6, 1, "ES:6", 0)},
        ),
        (GroupBy.PROJECT, {"": (26, 4, "ES:18|PT:8", 0), "p": (10, 2, "ES:5|FR:2", 2)}),
    ],
)
def test_rows_are_by_what_the_roster_says_of_the_caller(
    by: Affiliation, rows: dict[str, tuple[int, int, str, int]]
) -> None:
    report = breakdown(by=by)
    assert report.group_by == "VO"
    assert {
        row.key: (
            row.executions_count,
            row.unique_users_count,
            "|".join(f"{c.country}:{c.request_count}" for c in row.countries),
            row.failed_count,
        )
        for row in report.items
    } == rows
    assert list(plain(report.items)[0]) == [
        "key",
        "executions_count",
        "unique_users_count",
        "countries",
        "failed_count",
    ]
    assert [said.name for said in report.sources] == [
        SourceName.REQUEST_LOGS,
        SourceName.COUNTRIES,
        SourceName.ROSTER,
    ]
    assert source(report.sources, SourceName.ROSTER).status is SourceState.OK


def test_who_is_only_counted_is_in_the_blank_row() -> None:
    hidden = call(user="ana")._replace(user=HiddenUser("ana"))  # type: ignore[arg-type]
    said = calls(log({call(user="bob"): 1, hidden: 4}), log({}), KNOWN)
    report = breakdown(said)
    assert {row.key: (row.executions_count, row.unique_users_count) for row in report.items} == {
        "": (4, 1),
        "vo.one": (1, 1),
    }
    for name in (SourceName.ROSTER, SourceName.REQUEST_LOGS):
        assert NOT_SHOWN in str(source(report.sources, name).notes)
    # Neither a project nor a VO of theirs.
    assert [row.key for row in breakdown(said, by=GroupBy.PROJECT).items] == [""]


def test_without_a_roster_there_is_no_row_and_it_says_so() -> None:
    for asked in (ASKED, DAYS):
        said = by_day([EXECUTIONS, EXECUTIONS], GONE)
        report = breakdown(said if asked is DAYS else calls(log(EXECUTIONS), log({}), GONE))
        assert report.items == ()
        status = source(report.sources, SourceName.ROSTER)
        assert (status.status, status.affects) == (SourceState.MISSING, ("items",))
        assert file_name(report).endswith("-partial.csv")
    periods = breakdown(by_day([EXECUTIONS, {}], GONE), asked=DAYS).periods
    assert periods is not UNSET
    assert [period.items for period in periods] == [(), ()]


def test_a_roster_in_doubt_puts_rows_in_doubt() -> None:
    doubtful = Partial(facts=Roster(users=PEOPLE), origin="roster", notes=("it is old",))
    report = breakdown(calls(log(EXECUTIONS), log({}), doubtful))
    status = source(report.sources, SourceName.ROSTER)
    assert (status.status, status.affects) == (SourceState.PARTIAL, ("items",))
    assert "it is old" in str(status.notes)
    assert [row.key for row in report.items] == ["", "vo.one"]
    assert file_name(report).endswith("-partial.csv")
    assert not file_name(breakdown()).endswith("-partial.csv")


def test_without_a_log_there_is_no_row_and_it_says_so() -> None:
    report = breakdown(calls(GONE, log({}), KNOWN))
    assert report.items == ()
    status = source(report.sources, SourceName.REQUEST_LOGS)
    assert status.status is SourceState.MISSING
    assert set(status.affects) == {"items", *plain(breakdown().items)[0]} - {"key"}


def test_a_pseudonym_has_the_vo_of_who_it_stands_for() -> None:
    report = breakdown(privacy=Privacy(pseudonym_key="k"))
    assert report == breakdown()
    assert "ana" not in str(plain(report)) + breakdown_csv(report)


def test_csv_has_a_column_for_each_field() -> None:
    assert breakdown_csv(breakdown()) == (
        "key,executions_count,unique_users_count,countries\n"
        ",22,3,ES:11|PT:8\n"
        "vo.one,8,2,ES:6|FR:2\n"
        "vo.rules,6,1,ES:6\n"
    )
    periods = breakdown_csv(breakdown(by_day([EXECUTIONS, {}], KNOWN), asked=DAYS)).splitlines()
    assert periods[0] == "period,key,executions_count,unique_users_count,countries"
    assert [line.partition(",")[0] for line in periods[1:]] == ["2026-04-01"] * 3 + ["total"] * 3


START, END = "2026-04-01T00:00:00Z", "2026-04-02T23:59:59Z"
DAYS = with_periods(report_range(START, END, parse_instant("2026-05-01T00:00:00Z")), "day", None, 9)


def by_day(days: list[dict[CallKey, int]], roster: Outcome[Roster]) -> Calls:
    first_ns = parse_instant(START)
    parts = {
        SlotPart((first_ns + day * DAY_NS) // SLOT_NS, first=False): CallLog(
            tallies=Counter(tallies), lines_seen=0, lines_understood=0
        )
        for day, tallies in enumerate(days)
    }
    needs = groupings.of_a_series(groupings.of_breakdown(GroupBy.VO, PLAIN))
    bounds = [first_ns + day * DAY_NS for day in range(3)]
    sums = of_slots(parts, needs[LogStream.EXECUTIONS], bounds)
    return calls(Ok(facts=sums, origin="x"), GONE, roster)


KEYS = st.builds(
    call,
    st.sampled_from(["a", "b"]),
    user=st.sampled_from(["", *PEOPLE, "x@rules", "else"]),
    country=st.sampled_from(["", "ES", "FR"]),
    kind=st.sampled_from([Kind.SYNC, Kind.ASYNC]),
    result=st.sampled_from(list(Result)),
)
TALLIES = st.dictionaries(KEYS, st.integers(1, 9), max_size=15)
BY: st.SearchStrategy[Affiliation] = st.sampled_from((GroupBy.VO, GroupBy.PROJECT))


@given(TALLIES, BY)
def test_rows_add_up_to_the_totals(tallies: dict[CallKey, int], by: Affiliation) -> None:
    said = calls(log(tallies), log({}), KNOWN)
    nothing = Ok(facts=Inventory(services=()), origin="kubernetes")
    unused = Ok(facts=Usage(cpu_seconds={}, gpu_seconds={}), origin="prometheus")
    totals = reports.summary(ASKED, NOW, nothing, unused, said, privacy=PLAIN).totals
    rows = breakdown(said, by=by).items

    assert sum(row.executions_count for row in rows) == totals.requests_count_total
    assert sum(row.failed_count for row in rows) == totals.failed_count
    # A user is of one VO, so that here users add up too.
    assert sum(row.unique_users_count for row in rows) == totals.users_count
    countries: Counter[str] = Counter()
    for row in rows:
        countries.update({entry.country: entry.request_count for entry in row.countries})
    assert countries == {entry.country: entry.request_count for entry in totals.countries}
    assert [row.key for row in rows] == sorted({row.key for row in rows})


@given(TALLIES, TALLIES, BY)
def test_periods_add_up_to_the_range(
    one: dict[CallKey, int], two: dict[CallKey, int], by: Affiliation
) -> None:
    report = breakdown(by_day([one, two], KNOWN), by=by, asked=DAYS)
    whole = breakdown(calls(log(Counter(one) + Counter(two)), log({}), KNOWN), by=by)
    assert report.items == whole.items
    assert report.periods is not UNSET
    added: Counter[str] = Counter()
    for period, tallies in zip(report.periods, (one, two), strict=True):
        assert period.items == breakdown(calls(log(tallies), log({}), KNOWN), by=by).items
        added.update({row.key: row.executions_count for row in period.items})
    assert added == {row.key: row.executions_count for row in report.items}


def test_a_report_is_the_same_after_it_came_over_a_socket() -> None:
    for by in (GroupBy.VO, GroupBy.PROJECT):
        request = AskBreakdown(
            asked=AskedRange(), group_by=by, include_users=False, include_usage=False
        )
        report: Any = breakdown(by=by)
        whole = msgspec.json.encode(report)
        assert msgspec.json.decode(whole, type=result_type(request)) == report
        assert b"".join(json_pieces(report)) == whole


def test_a_terminal_shows_it() -> None:
    console = Console(file=io.StringIO(), width=200)
    for table in as_table(breakdown()):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in ("unique users count", "vo.rules", "ES:6|FR:2"):
        assert part in text


def test_as_of_is_echoed() -> None:
    asked = msgspec.structs.replace(ASKED, as_of="then", as_of_ns=1)
    report = breakdown(calls(log({}), log({}), KNOWN), asked=asked)
    assert (report.as_of, report.items, report.periods) == ("then", (), UNSET)
