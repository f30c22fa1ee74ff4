"""Reports in pieces are the reports, byte for byte."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from oscar_metrics import wire
from oscar_metrics.handlers.csv import PIECE_BYTES as CSV_BYTES
from oscar_metrics.handlers.csv import csv_pieces
from oscar_metrics.handlers.pieces import PIECE_BYTES, json_pieces, rows_of

START, END = "2026-04-01T00:00:00Z", "2026-04-30T23:59:59Z"
MANY = 20_000

_TEXT = st.text(max_size=5)
_MAYBE_COUNT = st.none() | st.integers(0, 2**63)
_HOURS = st.none() | st.just(UNSET) | st.floats(0, 1e9)
_COUNTRIES = st.lists(
    st.builds(wire.CountryCount, country=_TEXT, request_count=st.integers(0, 9)), max_size=3
).map(tuple)
_NAMES = st.lists(_TEXT, max_size=3).map(tuple)
_SOURCES = st.lists(
    st.builds(
        wire.SourceStatus,
        name=st.sampled_from(wire.SourceName),
        status=st.sampled_from(wire.SourceState),
        notes=st.just(UNSET) | _TEXT,
        origin=_TEXT,
        coverage=st.floats(0, 1),
        gaps=st.lists(
            st.builds(wire.WireGap, start=_TEXT, end=_TEXT, reason=_TEXT), max_size=2
        ).map(tuple),
        affects=_NAMES,
        ledger=st.just(UNSET)
        | st.builds(
            wire.LedgerPart,
            coverage=st.floats(0, 1),
            first_sealed_at=_TEXT,
            last_sealed_at=_TEXT,
            provisional_hours=st.floats(0, 9),
        ),
    ),
    max_size=2,
).map(tuple)
_RESTATED = st.just(UNSET) | st.lists(
    st.builds(
        wire.Restatement,
        source=st.sampled_from(wire.SourceName),
        start=_TEXT,
        end=_TEXT,
        sealed_at=_TEXT,
        was=st.integers(0, 9) | st.floats(0, 9),
        now=st.integers(0, 9),
    ),
    max_size=2,
).map(tuple)
_TOTALS = st.builds(
    wire.Totals,
    **{
        name: _MAYBE_COUNT
        for name in wire.Totals.__struct_fields__
        if name not in {"countries", "users", "cpu_hours_total", "gpu_hours_total"}
    },
    cpu_hours_total=st.none() | st.floats(0, 1e9),
    gpu_hours_total=st.none() | st.floats(0, 1e9),
    countries=_COUNTRIES,
    users=_NAMES,
)
_COUNTS = {
    "requests_count_total": _MAYBE_COUNT,
    "requests_count_sync": _MAYBE_COUNT,
    "requests_count_async": _MAYBE_COUNT,
    "requests_count_exposed": _MAYBE_COUNT,
    "unique_users_count": _MAYBE_COUNT,
    "countries": _COUNTRIES,
    "failed_count": _MAYBE_COUNT,
    "cpu_hours": _HOURS,
    "gpu_hours": _HOURS,
    "unattributed": st.sampled_from([UNSET, True]),
}
_SERVICE = st.builds(
    wire.ServiceItem, key=_TEXT, users=st.just(UNSET) | _NAMES, namespaces=_NAMES, **_COUNTS
)
_OWNER = st.builds(wire.OwnerItem, key=_TEXT, name=_TEXT, services_count=_MAYBE_COUNT, **_COUNTS)
_USER = st.builds(
    wire.UserItem,
    key=_TEXT,
    membership=_TEXT,
    executions_count=st.integers(0, 9),
    countries=_COUNTRIES,
    failed_count=st.integers(0, 9),
)
_COUNTRY = st.builds(
    wire.CountryItem,
    key=_TEXT,
    executions_count=st.integers(0, 9),
    unique_users_count=st.integers(0, 9),
    countries=_COUNTRIES,
)


def of_rows(
    report: type[wire.Breakdown], period: type[msgspec.Struct], item: st.SearchStrategy[object]
) -> st.SearchStrategy[wire.Breakdown]:
    items = st.lists(item, max_size=3).map(tuple)
    incomplete = st.just((wire.SourceName.USAGE,))
    periods = st.lists(
        st.builds(period, period=_TEXT, start=_TEXT, end=_TEXT, items=items, incomplete=incomplete),
        max_size=3,
    ).map(tuple)
    built: st.SearchStrategy[wire.Breakdown] = st.builds(
        report,
        start=_TEXT,
        end=_TEXT,
        as_of=st.just(UNSET) | _TEXT,
        group_by=_TEXT,
        items=items,
        periods=st.just(UNSET) | periods,
        sources=_SOURCES,
        restated=_RESTATED,
    )
    return built


_SUMMARY = st.builds(
    wire.Summary,
    start=_TEXT,
    end=_TEXT,
    as_of=st.just(UNSET) | _TEXT,
    totals=_TOTALS,
    periods=st.just(UNSET)
    | st.lists(
        st.builds(
            wire.SummaryPeriod,
            period=_TEXT,
            start=_TEXT,
            end=_TEXT,
            totals=_TOTALS,
            incomplete=st.just(()),
        ),
        max_size=2,
    ).map(tuple),
    sources=_SOURCES,
    restated=_RESTATED,
)
_REPORTS = (
    _SUMMARY
    | of_rows(wire.ServiceBreakdown, wire.ServicePeriod, _SERVICE)
    | of_rows(wire.UserBreakdown, wire.UserPeriod, _USER)
    | of_rows(wire.CountryBreakdown, wire.CountryPeriod, _COUNTRY)
    | of_rows(wire.OwnerBreakdown, wire.OwnerPeriod, _OWNER)
)


@settings(max_examples=200)
@given(_REPORTS)
def test_pieces_are_the_report(report: wire.Breakdown | wire.Summary) -> None:
    assert b"".join(json_pieces(report)) == msgspec.json.encode(report)


def user(number: int, countries: int = 1) -> wire.UserItem:
    return wire.UserItem(
        key=f"user-{number}@egi.eu",
        membership="member",
        executions_count=number,
        countries=tuple(
            wire.CountryCount(country=f"{country}", request_count=1) for country in range(countries)
        ),
        failed_count=0,
    )


def users(*items: wire.UserItem, periods: tuple[wire.UserPeriod, ...] = ()) -> wire.UserBreakdown:
    return wire.UserBreakdown(
        start=START, end=END, group_by="user", items=items, periods=periods or UNSET, sources=()
    )


def a_period(*items: wire.UserItem) -> wire.UserPeriod:
    return wire.UserPeriod(period="2026-04", start=START, end=END, items=items, incomplete=())


def a_service(users_: int) -> wire.ServiceItem:
    return wire.ServiceItem(
        key="cowsay",
        requests_count_total=1,
        requests_count_sync=1,
        requests_count_async=0,
        requests_count_exposed=0,
        unique_users_count=users_,
        users=tuple(f"user-{number}@egi.eu" for number in range(users_)),
        countries=(),
        namespaces=("oscar-svc",),
        failed_count=0,
    )


def services(*items: wire.ServiceItem) -> wire.ServiceBreakdown:
    return wire.ServiceBreakdown(start=START, end=END, group_by="service", items=items, sources=())


def summary(users_: int) -> wire.Summary:
    totals = wire.Totals(
        services_count_active=1,
        services_count_total=1,
        cpu_hours_total=1.5,
        gpu_hours_total=None,
        requests_count_total=1,
        requests_count_sync=1,
        requests_count_async=0,
        requests_count_exposed=0,
        countries_count=1,
        countries=(wire.CountryCount(country="ES", request_count=1),),
        users_count=users_,
        users=tuple(f"user-{number}@egi.eu" for number in range(users_)),
        failed_count=0,
        unknown_country_count=0,
    )
    return wire.Summary(start=START, end=END, totals=totals, sources=())


# What is large in it, and how many rows it says it has.
LARGE = [
    (users(*map(user, range(MANY))), MANY),
    (users(user(0), periods=tuple(a_period(user(0)) for _ in range(MANY))), MANY + 1),
    (users(periods=(a_period(*map(user, range(MANY))), a_period())), MANY),
    (users(*(user(number, countries=200) for number in range(500))), 500),
    (services(a_service(2), a_service(MANY), a_service(0)), MANY + 5),
    (summary(MANY), MANY + 2),
]


@pytest.mark.parametrize(
    ("report", "rows"),
    LARGE,
    ids=["rows", "periods", "a period", "countries", "users of a service", "users"],
)
def test_whatever_is_large_comes_in_pieces(
    report: wire.Breakdown | wire.Summary, rows: int
) -> None:
    pieces = list(json_pieces(report))
    assert b"".join(pieces) == msgspec.json.encode(report)
    assert len(pieces) > 5
    assert all(PIECE_BYTES <= len(piece) < 2 * PIECE_BYTES for piece in pieces[:-1])
    assert rows_of(report) == rows


@pytest.mark.parametrize("report", [report for report, _ in LARGE[:4]])
def test_csv_comes_in_pieces_too(report: wire.Breakdown) -> None:
    pieces = list(csv_pieces(report))
    assert len(pieces) > 5
    assert all(CSV_BYTES <= len(piece) < 3 * CSV_BYTES for piece in pieces[:-1])


def test_a_small_report_is_one_piece() -> None:
    assert len(list(json_pieces(users(user(1))))) == len(list(csv_pieces(users(user(1))))) == 1
    assert rows_of(users(user(1), periods=(a_period(user(1)),))) == 2
    assert rows_of(users()) == 0
