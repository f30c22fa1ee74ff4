"""Breakdowns as CSV, byte for byte."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs

from oscar_metrics.handlers.csv import breakdown_csv, completeness_header, file_name
from oscar_metrics.wire import (
    CountryBreakdown,
    CountryCount,
    CountryItem,
    LedgerPart,
    ServiceBreakdown,
    ServiceItem,
    ServicePeriod,
    SourceName,
    SourceState,
    SourceStatus,
    UserBreakdown,
    UserItem,
    UserPeriod,
)

START, END = "2026-04-01T00:00:00Z", "2026-04-30T23:59:59+02:00"
SPAIN = CountryCount(country="ES", request_count=3)
FRANCE = CountryCount(country="FR", request_count=1)


def source(
    name: SourceName = SourceName.REQUEST_LOGS,
    status: SourceState = SourceState.OK,
    notes: str = "",
    coverage: float = 1.0,
) -> SourceStatus:
    return SourceStatus(
        name=name,
        status=status,
        notes=notes or UNSET,
        origin="loki",
        coverage=coverage,
        gaps=(),
        affects=(),
    )


def users(*items: UserItem, sources: tuple[SourceStatus, ...] = ()) -> UserBreakdown:
    return UserBreakdown(start=START, end=END, group_by="User", items=items, sources=sources)


def user(key: str, *, membership: str = "member") -> UserItem:
    return UserItem(
        key=key,
        membership=membership,
        executions_count=4,
        countries=(SPAIN, FRANCE),
        failed_count=1,
    )


def services(*items: ServiceItem, sources: tuple[SourceStatus, ...] = ()) -> ServiceBreakdown:
    return ServiceBreakdown(start=START, end=END, group_by="service", items=items, sources=sources)


SERVICE = ServiceItem(
    key="cowsay",
    requests_count_total=4,
    requests_count_sync=3,
    requests_count_async=1,
    requests_count_exposed=7,
    unique_users_count=2,
    users=("a", "b"),
    countries=(SPAIN,),
    namespaces=("oscar-svc",),
    failed_count=1,
)
SERVICE_HEADER = (
    "key,membership,requests_count_total,requests_count_sync,requests_count_async,"
    "requests_count_exposed,unique_users_count,countries"
)


def test_rows_per_user() -> None:
    report = users(user("", membership="unknown"), user("a@egi.eu"))
    assert breakdown_csv(report) == (
        "key,membership,executions_count,countries\n"
        ",unknown,4,ES:3|FR:1\n"
        "a@egi.eu,member,4,ES:3|FR:1\n"
    )


def test_rows_per_service_leave_membership_blank_and_list_no_users() -> None:
    assert breakdown_csv(services(SERVICE)) == f"{SERVICE_HEADER}\ncowsay,,4,3,1,7,2,ES:3\n"


def test_usage_columns_come_last_and_only_when_usage_was_asked() -> None:
    row = structs.replace(SERVICE, cpu_hours=1.5, gpu_hours=None)
    asked = (source(), source(SourceName.USAGE, SourceState.PARTIAL))
    assert breakdown_csv(services(row, sources=asked)) == (
        f"{SERVICE_HEADER},cpu_hours,gpu_hours\ncowsay,,4,3,1,7,2,ES:3,1.5,\n"
    )
    assert breakdown_csv(services(sources=asked)) == f"{SERVICE_HEADER},cpu_hours,gpu_hours\n"


def test_rows_per_country() -> None:
    item = CountryItem(key="ES", executions_count=3, unique_users_count=2, countries=(SPAIN,))
    report = CountryBreakdown(
        start=START, end=END, group_by="country", items=(item,), sources=(source(),)
    )
    assert breakdown_csv(report) == (
        "key,membership,executions_count,unique_users_count,countries\nES,,3,2,ES:3\n"
    )


def test_what_is_not_known_is_an_empty_cell() -> None:
    row = structs.replace(
        SERVICE,
        requests_count_total=None,
        requests_count_sync=None,
        requests_count_async=None,
        unique_users_count=None,
        countries=(),
    )
    assert breakdown_csv(services(row)) == f"{SERVICE_HEADER}\ncowsay,,,,,7,,\n"


@pytest.mark.parametrize(
    ("key", "cell", "raw_cell"),
    [
        ("=1+1", "'=1+1", "=1+1"),
        ("+34", "'+34", "+34"),
        ("-x", "'-x", "-x"),
        ("@SUM(A1)", "'@SUM(A1)", "@SUM(A1)"),
        ("\tx", "'\tx", "\tx"),
        ("\rx", '"\'\rx"', '"\rx"'),
        ('=a,"b"', '"\'=a,""b"""', '"=a,""b"""'),
        ("a=b", "a=b", "a=b"),
        ("a,b", '"a,b"', '"a,b"'),
        ('a"b', '"a""b"', '"a""b"'),
        ("a\nb", '"a\nb"', '"a\nb"'),
        (" a b ", " a b ", " a b "),
        ("añb", "añb", "añb"),
    ],
)
def test_text_cells(key: str, cell: str, raw_cell: str) -> None:
    header = "key,membership,executions_count,countries\n"
    tail = ",member,4,ES:3|FR:1\n"
    assert breakdown_csv(users(user(key))) == header + cell + tail
    assert breakdown_csv(users(user(key)), raw=True) == header + raw_cell + tail


def test_a_country_nobody_could_map_is_guarded_too() -> None:
    odd = structs.replace(user("a"), countries=(CountryCount(country="=X", request_count=1),))
    assert breakdown_csv(users(odd)).endswith("a,member,4,'=X:1\n")


@settings(max_examples=100)
@given(st.lists(st.text(st.characters(codec="utf-8"))))
def test_a_csv_reader_gets_every_raw_key_back(keys: list[str]) -> None:
    text = breakdown_csv(users(*map(user, keys)), raw=True)
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[0] for row in rows[1:]] == keys


@settings(max_examples=100)
@given(st.text(st.characters(codec="utf-8")))
def test_no_guarded_cell_begins_a_formula(key: str) -> None:
    text = breakdown_csv(users(user(key)))
    cell = list(csv.reader(io.StringIO(text, newline="")))[1][0]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_a_series_is_a_block_per_period_and_the_total_last() -> None:
    def period(name: str, *items: UserItem) -> UserPeriod:
        return UserPeriod(period=name, start=START, end=END, items=items, incomplete=())

    report = structs.replace(
        users(user("a"), user("=b")),
        periods=(period("2026-04-01", user("a"), user("=b")), period("2026-04-02", user("a"))),
    )
    assert breakdown_csv(report) == (
        "period,key,membership,executions_count,countries\n"
        "2026-04-01,a,member,4,ES:3|FR:1\n"
        "2026-04-01,'=b,member,4,ES:3|FR:1\n"
        "2026-04-02,a,member,4,ES:3|FR:1\n"
        "total,a,member,4,ES:3|FR:1\n"
        "total,'=b,member,4,ES:3|FR:1\n"
    )
    empty = structs.replace(users(), periods=())
    assert breakdown_csv(empty) == "period,key,membership,executions_count,countries\n"


def test_usage_columns_stand_in_every_period() -> None:
    row = structs.replace(SERVICE, cpu_hours=1.5, gpu_hours=None)
    period = ServicePeriod(
        period="2026-W14", start=START, end=END, items=(row,), incomplete=(SourceName.USAGE,)
    )
    report = structs.replace(services(row, sources=(source(SourceName.USAGE),)), periods=(period,))
    assert breakdown_csv(report) == (
        f"period,{SERVICE_HEADER},cpu_hours,gpu_hours\n"
        "2026-W14,cowsay,,4,3,1,7,2,ES:3,1.5,\n"
        "total,cowsay,,4,3,1,7,2,ES:3,1.5,\n"
    )


@pytest.mark.parametrize(
    ("sources", "name"),
    [
        ((source(),), "oscar-metrics-user-2026-04-01T000000Z-2026-04-30T235959+0200.csv"),
        (
            (source(status=SourceState.PARTIAL),),
            "oscar-metrics-user-2026-04-01T000000Z-2026-04-30T235959+0200-partial.csv",
        ),
        (
            (source(status=SourceState.MISSING),),
            "oscar-metrics-user-2026-04-01T000000Z-2026-04-30T235959+0200-partial.csv",
        ),
        (
            (source(), source(SourceName.COUNTRIES, SourceState.PARTIAL)),
            "oscar-metrics-user-2026-04-01T000000Z-2026-04-30T235959+0200.csv",
        ),
    ],
)
def test_the_file_name_says_when_numbers_are_not_whole(
    sources: tuple[SourceStatus, ...], name: str
) -> None:
    assert file_name(users(sources=sources)) == name


def test_completeness_is_one_line_of_bounded_ascii() -> None:
    header = completeness_header(
        [
            source(),
            source(SourceName.COUNTRIES, SourceState.PARTIAL, 'a "b"\\\r\nñ', coverage=0.97),
            source(SourceName.ROSTER, SourceState.MISSING, "x" * 1000, coverage=0.0),
        ]
    )
    assert header == (
        "request-logs;status=ok;coverage=1.000, "
        'country-attribution;status=partial;coverage=0.970;notes="a \\"b\\"\\\\???", '
        'user-roster;status=missing;coverage=0.000;notes="' + "x" * 237 + '..."'
    )


def test_completeness_says_how_much_came_from_the_ledger() -> None:
    sealed = LedgerPart(
        coverage=0.98749, first_sealed_at=START, last_sealed_at=END, provisional_hours=0.0
    )
    header = completeness_header([structs.replace(source(notes="odd"), ledger=sealed), source()])
    assert header == (
        'request-logs;status=ok;coverage=1.000;ledger=0.987;notes="odd", '
        "request-logs;status=ok;coverage=1.000"
    )
