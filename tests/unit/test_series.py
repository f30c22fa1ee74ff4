"""A series: a row for each period beside the true total, and missing is not zero in any of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from oscar_metrics import affiliation_reports, groupings, owner_reports, reports
from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    LogStream,
    Result,
    Roster,
    Service,
    ServiceKey,
    SlotPart,
    Tallies,
    Usage,
)
from oscar_metrics.groupings import Needs
from oscar_metrics.outcome import Gap, GapReason, Measure, Ok, Outcome, Partial, Unavailable
from oscar_metrics.ownership import Ownership
from oscar_metrics.periods import with_periods
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.sums import CallSums, of_slots
from oscar_metrics.timerange import DAY_NS, SLOT_NS, Span, parse_instant, report_range
from oscar_metrics.wire import (
    GroupBy,
    ServiceBreakdown,
    ServicePeriod,
    SourceName,
    Summary,
    SummaryPeriod,
    Totals,
)

START, END = "2026-04-01T00:00:00Z", "2026-04-03T23:59:59Z"
NOW = parse_instant("2026-05-01T00:00:00Z")
PLAIN = Privacy()
FIRST = parse_instant(START)
DAYS = [Span(FIRST + day * DAY_NS, FIRST + (day + 1) * DAY_NS) for day in range(3)]
ASKED = with_periods(report_range(START, END, NOW), "day", None, 10)
BOUNDS = (*(day.start_ns for day in DAYS), DAYS[-1].stop_ns)
INVENTORY = Ok(
    facts=Inventory(services=(Service(namespace="ns", name="svc", owner="eve"),)),
    origin="kubernetes",
)
GONE = Unavailable(origin="x", notes=("gone",))
NO_USAGE = Ok(facts=Usage(cpu_seconds={}, gpu_seconds={}), origin="prometheus")

# Tallies by day.
ByDay = dict[int, Tallies]


def call(user: str, kind: Kind = Kind.SYNC, service: str = "svc", country: str = "ES") -> CallKey:
    how = CountryFrom.LABEL if country else CountryFrom.NOTHING
    return CallKey("ns", service, user, country, how, kind, Result.OK)


def sums(by_day: ByDay, stream: LogStream, needs: Needs) -> CallSums:
    parts = {
        SlotPart(DAYS[day].start_ns // SLOT_NS + 5, first=False): CallLog(
            tallies=tallies, lines_seen=tallies.total(), lines_understood=tallies.total()
        )
        for day, tallies in by_day.items()
    }
    return of_slots(parts, groupings.of_a_series(needs)[stream], BOUNDS)


def calls(
    executions: ByDay, needs: Needs, exposed: ByDay | None = None, *gaps: Gap, lost: bool = False
) -> Calls:
    facts = sums(executions, LogStream.EXECUTIONS, needs)
    said: Outcome[CallSums] = Ok(facts=facts, origin="loki")
    if gaps:
        said = Partial(facts=facts, origin="loki", notes=("gaps",), gaps=gaps)
    gateway: Outcome[CallSums] = GONE
    if LogStream.EXPOSED in needs:
        gateway = Ok(facts=sums(exposed or {}, LogStream.EXPOSED, needs), origin="loki")
    return Calls(
        executions=GONE if lost else said,
        exposed=gateway,
        geoip=Ok(facts=None, origin="geoip"),
        roster=Ok(facts=Roster(), origin="file"),
    )


def gap(*days: int) -> list[Gap]:
    return [Gap(span=DAYS[day], reason=GapReason.RETENTION) for day in days]


def summary(
    given_calls: Calls,
    usage: Outcome[Usage] = NO_USAGE,
    by_period: dict[int, Usage] | None = None,
    now_ns: int = NOW,
) -> tuple[Totals, list[SummaryPeriod]]:
    report = reports.summary(
        ASKED, now_ns, INVENTORY, usage, given_calls, usage_by_period=by_period, privacy=PLAIN
    )
    assert isinstance(report, Summary)
    assert report.periods is not UNSET
    return report.totals, list(report.periods)


def column(name: str, periods: list[SummaryPeriod]) -> list[Any]:
    return [getattr(period.totals, name) for period in periods]


THREE_DAYS: ByDay = {
    0: Counter({call("ana"): 2, call("bob", Kind.ASYNC): 1}),
    2: Counter({call("ana"): 4}),
}


def test_users_are_distinct_in_each_period_and_over_them_all() -> None:
    totals, periods = summary(calls(THREE_DAYS, groupings.SUMMARY))
    assert [period.period for period in periods] == ["2026-04-01", "2026-04-02", "2026-04-03"]
    assert column("users_count", periods) == [2, 0, 1]
    assert column("users", periods) == [("ana", "bob"), (), ("ana",)]
    assert totals.users_count == 2
    assert column("requests_count_total", periods) == [3, 0, 4]
    assert totals.requests_count_total == 7
    assert column("services_count_total", periods) == [1, 0, 1]
    assert totals.services_count_total == 1
    assert totals.services_count_active == 1
    assert column("services_count_active", periods) == [None] * 3
    assert [period.incomplete for period in periods] == [()] * 3


def test_a_period_says_which_range_it_is_the_answer_to() -> None:
    asked = report_range("2026-04-01T10:00:00.5Z", "2026-04-02T00:00:00Z", NOW)
    asked = with_periods(asked, "day", None, 10)
    given_calls = calls({}, groupings.SUMMARY)
    periods = reports.summary(asked, NOW, INVENTORY, NO_USAGE, given_calls, privacy=PLAIN).periods
    assert periods is not UNSET
    assert [(p.start, p.end) for p in periods] == [
        ("2026-04-01T10:00:00.5Z", "2026-04-01T23:59:59Z"),
        ("2026-04-02T00:00:00Z", "2026-04-02T00:00:00Z"),
    ]
    again = [report_range(p.start, p.end, NOW).span for p in periods]
    assert again == [period.span for period in asked.periods]


@pytest.mark.parametrize("group_by", list(GroupBy))
def test_there_are_no_periods_where_none_were_asked_for(group_by: GroupBy) -> None:
    asked = report_range(START, END, NOW)
    whole = calls(THREE_DAYS, groupings.SUMMARY)
    assert "periods" not in plain(
        reports.summary(asked, NOW, INVENTORY, NO_USAGE, whole, privacy=PLAIN)
    )
    assert "periods" not in plain(breakdown(asked, group_by, THREE_DAYS))


def test_a_period_that_is_a_gap_is_null_and_one_that_holds_a_gap_says_so() -> None:
    hour = Gap(span=Span(DAYS[0].start_ns, DAYS[0].start_ns + SLOT_NS), reason=GapReason.FAILED)
    totals, periods = summary(calls(THREE_DAYS, groupings.SUMMARY, {}, hour, *gap(1)))
    assert column("requests_count_total", periods) == [3, None, 4]
    assert column("users_count", periods) == [2, None, 1]
    assert column("services_count_total", periods) == [1, None, 1]
    assert column("requests_count_exposed", periods) == [0, 0, 0]
    assert column("countries", periods)[1] == ()
    logs = (SourceName.REQUEST_LOGS,)
    assert [period.incomplete for period in periods] == [logs, logs, ()]
    assert totals.requests_count_total == 7


def test_what_was_read_within_a_gap_is_reported() -> None:
    _, periods = summary(calls(THREE_DAYS, groupings.SUMMARY, {}, *gap(0, 1)))
    assert column("requests_count_total", periods) == [3, None, 4]
    assert [bool(period.incomplete) for period in periods] == [True, True, False]


def test_the_future_is_no_gap() -> None:
    now_ns = DAYS[1].start_ns
    _, periods = summary(calls({}, groupings.SUMMARY, {}, *gap(0)), now_ns=now_ns)
    assert column("requests_count_total", periods) == [None, 0, 0]


def test_a_missing_log_is_missing_in_every_period() -> None:
    totals, periods = summary(calls({}, groupings.SUMMARY, lost=True))
    assert totals.requests_count_total is None
    assert column("requests_count_total", periods) == [None] * 3
    assert column("requests_count_exposed", periods) == [0] * 3
    assert {period.incomplete for period in periods} == {(SourceName.REQUEST_LOGS,)}


SVC = ServiceKey("ns", "svc")


def test_usage_of_a_period_is_missing_where_nothing_measured_it() -> None:
    usage = Partial(
        facts=Usage(cpu_seconds={SVC: 7200.0}, gpu_seconds={}),
        origin="prometheus",
        notes=("a day is missing",),
        gaps=tuple(gap(1)),
    )
    by_period = {0: Usage(cpu_seconds={SVC: 7200.0}, gpu_seconds=None)}
    totals, periods = summary(calls({}, groupings.SUMMARY), usage, by_period)
    assert (totals.cpu_hours_total, totals.gpu_hours_total) == (2.0, 0.0)
    assert column("cpu_hours_total", periods) == [2.0, None, 0.0]
    assert column("gpu_hours_total", periods) == [None, None, 0.0]
    assert [period.incomplete for period in periods] == [
        (SourceName.USAGE,),
        (SourceName.USAGE,),
        (),
    ]


def test_a_gap_of_one_measure_leaves_the_other_alone() -> None:
    usage = Partial(
        facts=Usage(cpu_seconds={}, gpu_seconds={}),
        origin="prometheus",
        notes=("no GPU exporter",),
        gaps=tuple(gap(1)),
        measures=frozenset({Measure.GPU}),
    )
    _, periods = summary(calls({}, groupings.SUMMARY), usage, {})
    assert column("cpu_hours_total", periods) == [0.0, 0.0, 0.0]
    assert column("gpu_hours_total", periods) == [0.0, None, 0.0]


def plain(report: Any) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(report))
    return decoded


def breakdown(asked: Any, group_by: GroupBy, executions: ByDay, *gaps: Gap) -> Any:
    needs = groupings.BREAKDOWNS[group_by]
    given_calls = calls(executions, needs, {1: Counter({call("", Kind.EXPOSED, "web"): 5})}, *gaps)
    match group_by:
        case GroupBy.SERVICE:
            return reports.service_breakdown(
                asked, NOW, given_calls, group_by="service", include_users=True, privacy=PLAIN
            )
        case GroupBy.USER:
            return reports.user_breakdown(asked, NOW, given_calls, group_by="user", privacy=PLAIN)
        case GroupBy.OWNER:
            return owner_reports.owner_breakdown(
                asked,
                NOW,
                given_calls,
                INVENTORY,
                Ownership(INVENTORY.facts, None),
                group_by="owner",
                privacy=PLAIN,
            )
        case GroupBy.COUNTRY:
            return reports.country_breakdown(
                asked, NOW, given_calls, group_by="country", privacy=PLAIN
            )
        case GroupBy.VO | GroupBy.PROJECT:
            return affiliation_reports.affiliation_breakdown(
                asked, NOW, given_calls, by=group_by, group_by="vo", privacy=PLAIN
            )


@pytest.mark.parametrize(
    ("group_by", "rows"),
    [
        (GroupBy.SERVICE, [["svc"], ["web"], ["svc"]]),
        (GroupBy.USER, [["ana", "bob"], [], ["ana"]]),
        (GroupBy.COUNTRY, [["ES"], [], ["ES"]]),
        (GroupBy.OWNER, [["eve"], [""], ["eve"]]),
        (GroupBy.VO, [[""], [], [""]]),
    ],
)
def test_a_period_has_the_rows_of_what_was_called_in_it(
    group_by: GroupBy, rows: list[list[str]]
) -> None:
    report = plain(breakdown(ASKED, group_by, THREE_DAYS))
    assert [[row["key"] for row in p["items"]] for p in report["periods"]] == rows
    assert {row["key"] for row in report["items"]} == {key for keys in rows for key in keys}
    assert list(report["periods"][0]) == ["period", "start", "end", "items", "incomplete"]


def test_rows_of_a_gap_have_no_numbers_and_rows_of_users_are_not_there() -> None:
    services: ServiceBreakdown = breakdown(ASKED, GroupBy.SERVICE, THREE_DAYS, *gap(1))
    assert services.periods is not UNSET
    period: ServicePeriod = services.periods[1]
    (row,) = period.items
    assert (row.key, row.requests_count_total, row.requests_count_exposed) == ("web", None, 5)
    assert period.incomplete == (SourceName.REQUEST_LOGS,)
    users = breakdown(ASKED, GroupBy.USER, THREE_DAYS, *gap(1))
    assert (users.periods[1].items, users.periods[1].incomplete) == (
        (),
        (SourceName.REQUEST_LOGS,),
    )


def test_usage_rows_of_periods_add_up_to_those_of_the_total() -> None:
    needs = groupings.BREAKDOWNS[GroupBy.SERVICE]
    unclaimed = ServiceKey("ns", "")
    by_period = {
        0: Usage(cpu_seconds={SVC: 3600.0}, gpu_seconds={}),
        2: Usage(cpu_seconds={SVC: 1800.0, unclaimed: 900.0}, gpu_seconds={}),
    }
    usage = Ok(
        facts=Usage(cpu_seconds={SVC: 5400.0, unclaimed: 900.0}, gpu_seconds={}),
        origin="prometheus",
    )
    report = reports.service_breakdown(
        ASKED,
        NOW,
        calls({}, needs),
        group_by="service",
        include_users=False,
        inventory=INVENTORY,
        usage=usage,
        usage_by_period=by_period,
        privacy=PLAIN,
    )
    assert report.periods is not UNSET
    assert [{row.key: row.cpu_hours for row in p.items} for p in report.periods] == [
        {"svc": 1.0},
        {},
        {"": 0.25, "svc": 0.5},
    ]
    assert {row.key: row.cpu_hours for row in report.items} == {"": 0.25, "svc": 1.5}


KEYS = st.builds(
    call,
    st.sampled_from(["", "u", "v", "w"]),
    st.sampled_from([Kind.SYNC, Kind.ASYNC]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "ES"]),
)
TALLIES = st.dictionaries(KEYS, st.integers(1, 9), max_size=8).map(Counter)


@given(st.dictionaries(st.sampled_from([0, 1, 2]), TALLIES))
def test_counts_add_up_over_periods_and_people_are_counted_once(by_day: ByDay) -> None:
    totals, periods = summary(calls(by_day, groupings.SUMMARY))
    for name in ("requests_count_total", "requests_count_async", "unknown_country_count"):
        assert sum(column(name, periods)) == getattr(totals, name)
    assert {user for users in column("users", periods) for user in users} == set(totals.users)
    for group_by, field in (
        (GroupBy.SERVICE, "requests_count_total"),
        (GroupBy.USER, "executions_count"),
        (GroupBy.COUNTRY, "executions_count"),
        (GroupBy.OWNER, "requests_count_total"),
        (GroupBy.VO, "executions_count"),
        (GroupBy.PROJECT, "executions_count"),
    ):
        report = plain(breakdown(ASKED, group_by, by_day))
        summed: Counter[str] = Counter()
        for period in report["periods"]:
            summed.update({row["key"]: row[field] for row in period["items"]})
        assert summed == Counter({row["key"]: row[field] for row in report["items"]})
