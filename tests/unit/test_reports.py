"""Reports are sums and distincts over tallies; what must reconcile does, whatever the tallies."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from oscar_metrics import figures, groupings, reports
from oscar_metrics.facts import (
    CallKey,
    CountryFrom,
    Inventory,
    Kind,
    LogStream,
    Membership,
    NamespaceOwner,
    Result,
    Roster,
    RosterUser,
    Service,
    ServiceKey,
    Tallies,
    Usage,
)
from oscar_metrics.ledger.seals import Restated, SealKind
from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Measure,
    Ok,
    Partial,
    SealedPart,
)
from oscar_metrics.reports import Calls
from oscar_metrics.sums import of_tallies
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span
from oscar_metrics.wire import GroupBy, Metric, ServiceItem, SourceName, SourceState
from tests.unit.reporting import ASKED, GONE, NOW, PLAIN, call, calls, log, plain, source

EXECUTIONS: dict[CallKey, int] = {
    call(): 5,
    call(user="oscar", result=Result.CLIENT_ERROR): 2,
    call(kind=Kind.ASYNC, country="FR"): 3,
    call("other", user="", country=""): 4,
    call("other", user="bob", country="FR", namespace="two", result=Result.SERVER_ERROR): 1,
}
EXPOSED: dict[CallKey, int] = {call("web", user="", kind=Kind.EXPOSED): 7}
INVENTORY = Ok(
    facts=Inventory(
        services=(
            Service(namespace="ns", name="svc", owner="ana@x", owner_name="Ana_B"),
            Service(namespace="two", name="svc", owner="zed"),
        ),
        owners=(NamespaceOwner(namespace="ns", owner="ana@x"),),
    ),
    origin="kubernetes",
)
USAGE = Ok(
    facts=Usage(
        cpu_seconds={
            ServiceKey("ns", "svc"): 3600.0,
            ServiceKey("two", "svc"): 1800.0,
            ServiceKey("ns", ""): 900.0,
            ServiceKey("ns", "quiet"): 36.0,
        },
        gpu_seconds={},
    ),
    origin="prometheus",
)


def test_a_summary_adds_up_what_was_said() -> None:
    summary = reports.summary(
        ASKED, NOW, INVENTORY, USAGE, calls(log(EXECUTIONS), log(EXPOSED)), privacy=PLAIN
    )
    assert plain(summary.totals) == {
        "services_count_active": 2,
        "services_count_total": 3,
        "cpu_hours_total": 1.76,
        "gpu_hours_total": 0.0,
        "requests_count_total": 15,
        "requests_count_sync": 12,
        "requests_count_async": 3,
        "requests_count_exposed": 7,
        "countries_count": 2,
        "countries": [
            {"country": "ES", "request_count": 7},
            {"country": "FR", "request_count": 4},
        ],
        "users_count": 3,
        "users": ["ana", "bob", "oscar"],
        "failed_count": 3,
        "unknown_country_count": 4,
    }
    assert [s.name for s in summary.sources] == list(SourceName)


@pytest.mark.parametrize(
    ("lost", "null"),
    [
        ("inventory", {"services_count_active"}),
        ("usage", {"cpu_hours_total", "gpu_hours_total"}),
        ("exposed", {"requests_count_exposed", "services_count_total"}),
        (
            "executions",
            {
                "services_count_total",
                "requests_count_total",
                "requests_count_sync",
                "requests_count_async",
                "countries_count",
                "users_count",
                "failed_count",
                "unknown_country_count",
            },
        ),
    ],
)
def test_a_number_is_null_exactly_when_a_source_of_it_is_missing(lost: str, null: set[str]) -> None:
    given_: dict[str, Any] = {
        "inventory": INVENTORY,
        "usage": USAGE,
        "executions": log(EXECUTIONS),
        "exposed": log(EXPOSED),
    }
    given_[lost] = GONE
    summary = reports.summary(
        ASKED,
        NOW,
        given_["inventory"],
        given_["usage"],
        calls(given_["executions"], given_["exposed"]),
        privacy=PLAIN,
    )
    totals = plain(summary.totals)
    assert {name for name, value in totals.items() if value is None} == null
    missing = [s for s in summary.sources if s.status is SourceState.MISSING]
    assert null <= {field for s in missing for field in s.affects}
    assert all(s.notes for s in missing)


def test_only_the_measure_in_doubt_is_affected() -> None:
    usage = Partial(
        facts=Usage(cpu_seconds={}, gpu_seconds=None),
        origin="prometheus",
        notes=("nothing measures GPUs",),
        measures=frozenset({Measure.GPU}),
    )
    summary = reports.summary(ASKED, NOW, INVENTORY, usage, calls(log({}), log({})), privacy=PLAIN)
    assert source(summary.sources, SourceName.USAGE).affects == ("gpu_hours_total",)
    assert (summary.totals.cpu_hours_total, summary.totals.gpu_hours_total) == (0.0, None)


def test_coverage_and_gaps_are_told() -> None:
    executions = Partial(
        facts=log({}).facts,
        origin="loki",
        notes=("6 h missing",),
        gaps=(Gap(span=Span(0, DAY_NS // 4), reason=GapReason.RETENTION),),
    )
    said = source(
        reports.summary(
            ASKED, NOW, INVENTORY, USAGE, calls(executions, log({})), privacy=PLAIN
        ).sources,
        SourceName.REQUEST_LOGS,
    )
    assert (said.coverage, said.notes, said.origin) == (0.75, "6 h missing", "loki")
    assert plain(said.gaps) == [
        {
            "start": "1970-01-01T00:00:00Z",
            "end": "1970-01-01T06:00:00Z",
            "reason": "older than the source keeps",
        }
    ]


def test_each_source_says_what_of_it_came_from_the_ledger() -> None:
    sealed = SealedPart(
        spans=(Span(0, DAY_NS // 2),),
        first_sealed_at_ns=HOUR_NS,
        last_sealed_at_ns=NOW,
        provisional_ns=HOUR_NS // 2,
    )
    executions = msgspec.structs.replace(log(EXECUTIONS), sealed=sealed)
    report = reports.summary(
        ASKED, NOW, INVENTORY, USAGE, calls(executions, log({})), privacy=PLAIN
    )
    for name in SourceName:
        said = source(report.sources, name)
        if name in (SourceName.REQUEST_LOGS, SourceName.COUNTRIES):
            assert plain(said.ledger) == {
                "coverage": 0.5,
                "first_sealed_at": "1970-01-01T01:00:00Z",
                "last_sealed_at": "1970-01-03T00:00:00Z",
                "provisional_hours": 0.5,
            }
        else:
            assert said.ledger is UNSET
    # As of noon the half that is sealed was all there was.
    report = reports.summary(
        ASKED, DAY_NS // 2, INVENTORY, USAGE, calls(executions, log({})), privacy=PLAIN
    )
    said = source(report.sources, SourceName.REQUEST_LOGS)
    assert plain(said.ledger)["coverage"] == 1.0


def test_what_was_restated_is_listed_only_where_it_was_asked() -> None:
    asked = msgspec.structs.replace(ASKED, as_of="c", as_of_ns=NOW)
    report = reports.summary(asked, NOW, INVENTORY, USAGE, calls(log({}), log({})), privacy=PLAIN)
    assert (report.as_of, report.restated) == ("c", UNSET)
    assert reports.with_restated(report, []).restated == ()
    hours = [
        Restated(kind=kind, span=Span(0, HOUR_NS), sealed_at_ns=NOW, was=6.0, now=12.5)
        for kind in SealKind
    ]
    rows = plain(reports.with_restated(report, hours).restated)
    assert [row["source"] for row in rows] == [
        "request-logs",
        "exposed-request-logs",
        "usage-metrics",
        "service-inventory",
    ]
    assert list(rows[0].items())[1:] == [
        ("start", "1970-01-01T00:00:00Z"),
        ("end", "1970-01-01T01:00:00Z"),
        ("sealed_at", "1970-01-03T00:00:00Z"),
        ("was", 6),
        ("now", 12),
    ]
    assert (str(rows[0]["was"]), rows[2]["now"]) == ("6", 12.5)


def test_services_of_one_name_are_one_row_that_names_its_namespaces() -> None:
    report = reports.service_breakdown(
        ASKED,
        NOW,
        calls(log(EXECUTIONS), log(EXPOSED)),
        group_by="Service",
        include_users=True,
        privacy=PLAIN,
    )
    rows = {item.key: item for item in report.items}
    assert list(rows) == ["other", "svc", "web"]
    assert rows["other"].namespaces == ("ns", "two")
    assert rows["other"].users == ("bob",)
    assert rows["web"].requests_count_total == 0
    assert rows["web"].requests_count_exposed == 7
    assert report.group_by == "Service"
    assert not {s.name for s in report.sources} & {SourceName.USAGE, SourceName.INVENTORY}


def test_usage_rows_add_up_to_the_total_with_what_nothing_claims() -> None:
    report = reports.service_breakdown(
        ASKED,
        NOW,
        calls(log(EXECUTIONS), log(EXPOSED)),
        group_by="service",
        include_users=False,
        inventory=INVENTORY,
        usage=USAGE,
        privacy=PLAIN,
    )
    hours = {item.key: item.cpu_hours for item in report.items}
    assert hours == {"": 0.25, "other": 0.0, "quiet": 0.01, "svc": 1.5, "web": 0.0}
    assert [item.key for item in report.items if item.unattributed is True] == [""]


def test_a_missing_request_log_leaves_its_fields_null_and_the_rest_exact() -> None:
    report = reports.service_breakdown(
        ASKED,
        NOW,
        calls(GONE, log(EXPOSED)),
        group_by="service",
        include_users=False,
        privacy=PLAIN,
    )
    (row,) = report.items
    assert (row.key, row.requests_count_exposed) == ("web", 7)
    assert row.requests_count_total is None
    assert row.unique_users_count is None


def test_no_request_log_at_all_is_no_row_and_says_so() -> None:
    for make in (reports.user_breakdown, reports.country_breakdown):
        report = make(ASKED, NOW, calls(GONE, GONE), group_by="g", privacy=PLAIN)
        assert report.items == ()
        assert "items" in source(report.sources, SourceName.REQUEST_LOGS).affects


def test_membership_is_the_rosters_word_else_the_rule() -> None:
    tallies = {call(user=user): 1 for user in ("ana", "eve", "nil", "oscar", "minio", "")}
    roster = Roster(
        users={
            "eve": RosterUser(id="eve", membership=Membership.EXTERNAL),
            "ana": RosterUser(id="ana", country="ES"),
        }
    )
    report = reports.user_breakdown(
        ASKED,
        NOW,
        calls(log(tallies), GONE, Ok(facts=roster, origin="file")),
        group_by="user",
        privacy=PLAIN,
    )
    assert {item.key: item.membership for item in report.items} == {
        "": "unknown",
        "ana": "member",
        "eve": "external",
        "minio": "unknown",
        "nil": "external",
        "oscar": "unknown",
    }
    assert "3 of 5 users are not people" in str(source(report.sources, SourceName.ROSTER).notes)


def test_no_country_is_the_row_unknown_and_never_inside_a_list() -> None:
    report = reports.country_breakdown(
        ASKED, NOW, calls(log(EXECUTIONS), GONE), group_by="country", privacy=PLAIN
    )
    assert [(i.key, i.executions_count, i.unique_users_count) for i in report.items] == [
        ("ES", 7, 2),
        ("FR", 4, 2),
        ("unknown", 4, 0),
    ]
    assert report.items[2].countries[0].country == "unknown"
    said = source(report.sources, SourceName.COUNTRIES)
    assert said.status is SourceState.PARTIAL
    assert "4 of 15 have no country" in str(said.notes)


@pytest.mark.parametrize(
    ("metric", "expected", "unit"),
    [
        (Metric.REQUESTS_SYNC, 7, None),
        (Metric.REQUESTS_ASYNC, 3, None),
        (Metric.USERS_PER_SERVICE, 2, None),
        (Metric.CPU_HOURS, 1.5, "hours"),
        (Metric.GPU_HOURS, 0.0, "hours"),
    ],
)
def test_a_value_is_one_figure_of_one_source(
    metric: Metric, expected: float, unit: str | None
) -> None:
    of_one = Counter({key: count for key, count in EXECUTIONS.items() if key.service == "svc"})
    sums = of_tallies(of_one, groupings.ONE_SERVICE[LogStream.EXECUTIONS])
    counted = figures.service_count(Ok(facts=sums, origin="log-files"))
    outcome = USAGE if metric in (Metric.CPU_HOURS, Metric.GPU_HOURS) else counted
    figure = figures.service_metric(ASKED, NOW, "svc", metric, outcome, privacy=PLAIN)
    value = plain(figures.value(ASKED, "svc", figure))
    assert (value["value"], value.get("unit")) == (expected, unit)
    assert len(value["sources"]) == 1
    nothing = figures.service_metric(ASKED, NOW, "svc", metric, GONE, privacy=PLAIN)
    assert nothing.value is None
    assert nothing.sources[0].affects == ("value",)


KEYS = st.builds(
    call,
    st.sampled_from(["a", "b", "c"]),
    user=st.sampled_from(["", "u", "v", "oscar"]),
    country=st.sampled_from(["", "ES", "FR"]),
    kind=st.sampled_from([Kind.SYNC, Kind.ASYNC]),
    result=st.sampled_from(list(Result)),
    namespace=st.sampled_from(["", "n", "m"]),
)


def test_the_note_on_countries_counts_every_way_to_one() -> None:
    ways = {
        call()._replace(country="" if how is CountryFrom.NOTHING else "ES", country_from=how): n
        for n, how in enumerate(CountryFrom, 1)
    }
    report = reports.country_breakdown(
        ASKED, NOW, calls(log(ways), log({})), group_by="country", privacy=PLAIN
    )
    said = source(report.sources, SourceName.COUNTRIES)
    assert said.origin == "label+geoip+claim+roster"
    assert str(said.notes).startswith(
        "1 of 15 by a label of the log; 2 of 15 by the caller's address; "
        "3 of 15 by a claim of the user's log-in; 4 of 15 by the user roster; "
        "5 of 15 have no country"
    )


@given(st.dictionaries(KEYS, st.integers(1, 9), max_size=20))
def test_breakdowns_reconcile_with_the_summary(tallies: dict[CallKey, int]) -> None:
    exposed: Tallies = Counter(
        {key._replace(kind=Kind.EXPOSED, user=""): count for key, count in tallies.items()}
    )
    both = calls(log(tallies), log(dict(exposed)))
    totals = reports.summary(ASKED, NOW, INVENTORY, USAGE, both, privacy=PLAIN).totals
    services = reports.service_breakdown(
        ASKED, NOW, both, group_by="service", include_users=True, privacy=PLAIN
    ).items
    users = reports.user_breakdown(ASKED, NOW, both, group_by="user", privacy=PLAIN).items
    countries = reports.country_breakdown(ASKED, NOW, both, group_by="country", privacy=PLAIN).items

    def column(name: str, rows: tuple[ServiceItem, ...] = services) -> int:
        return sum(getattr(row, name) for row in rows)

    total = totals.requests_count_total
    assert total == (totals.requests_count_sync or 0) + (totals.requests_count_async or 0)
    assert column("requests_count_total") == total
    assert column("requests_count_exposed") == totals.requests_count_exposed
    assert column("failed_count") == totals.failed_count
    assert sum(row.executions_count for row in users) == total
    assert sum(row.executions_count for row in countries) == total
    assert {u for row in services for u in row.users or ()} == set(totals.users)
    assert (
        sum(c.request_count for c in totals.countries) + (totals.unknown_country_count or 0)
        == total
    )
    assert totals.services_count_total == len(services)


@given(st.dictionaries(KEYS, st.integers(1, 9), max_size=20))
def test_each_report_is_the_same_from_no_more_than_it_asks_for(tallies: dict[CallKey, int]) -> None:
    def least(needs: groupings.Needs) -> Calls:
        executions, exposed = (
            Ok(facts=of_tallies(Counter(tallies), needs[stream]), origin="log-files")
            if stream in needs
            else GONE
            for stream in LogStream
        )
        return calls(executions, exposed)

    both = calls(log(tallies), log(tallies))
    summaries = [
        reports.summary(ASKED, NOW, INVENTORY, USAGE, said, privacy=PLAIN)
        for said in (both, least(groupings.SUMMARY))
    ]
    assert summaries[0] == summaries[1]
    services = [
        reports.service_breakdown(
            ASKED, NOW, said, group_by="service", include_users=True, privacy=PLAIN
        )
        for said in (both, least(groupings.BREAKDOWNS[GroupBy.SERVICE]))
    ]
    assert services[0] == services[1]
    users = [
        reports.user_breakdown(ASKED, NOW, said, group_by="user", privacy=PLAIN)
        for said in (both, least(groupings.BREAKDOWNS[GroupBy.USER]))
    ]
    assert users[0] == users[1]
    countries = [
        reports.country_breakdown(ASKED, NOW, said, group_by="country", privacy=PLAIN)
        for said in (both, least(groupings.BREAKDOWNS[GroupBy.COUNTRY]))
    ]
    assert countries[0] == countries[1]
