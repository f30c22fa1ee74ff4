"""Rows per owner add up to the cluster's totals, whoever owns what and whatever cannot be told."""

from __future__ import annotations

import io
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from rich.console import Console

from oscar_metrics import owner_reports, reports
from oscar_metrics.command_requests import AskBreakdown, AskedRange
from oscar_metrics.commands import result_type
from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    CallKey,
    Inventory,
    Kind,
    NamespaceOwner,
    Result,
    Service,
    ServiceKey,
    Usage,
)
from oscar_metrics.handlers.csv import breakdown_csv, file_name
from oscar_metrics.ledger.seals import Owned
from oscar_metrics.outcome import Ok, Outcome, Partial
from oscar_metrics.ownership import Ownership
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.tables import as_table
from oscar_metrics.timerange import Span
from oscar_metrics.wire import GroupBy, OwnerBreakdown, SourceName, SourceState
from tests.unit.reporting import ASKED, GONE, NOW, PLAIN, call, calls, log, plain, source

INVENTORY = Inventory(
    services=(
        Service(namespace="ns-ana", name="cow", owner="ana@x", owner_name="Ana_B"),
        Service(namespace="oscar-svc", name="cow", owner="bob"),
        Service(namespace="oscar-svc", name="sheep", owner="ana@x", owner_name="Ana_B"),
        Service(namespace="two", name="cat", owner="bob"),
        Service(namespace="two", name="cat", owner="ana@x"),
    ),
    owners=(
        NamespaceOwner(namespace="ns-ana", owner="ana@x"),
        NamespaceOwner(namespace="oscar-svc", owner=CLUSTER_ADMIN),
    ),
)
DEPLOYED = Ok(facts=INVENTORY, origin="kubernetes")
EXECUTIONS: dict[CallKey, int] = {
    call("cow", namespace="ns-ana", user="u"): 5,
    call("gone", namespace="ns-ana", user="v", country="FR", kind=Kind.ASYNC): 1,
    call("sheep", namespace="", user="u", result=Result.SERVER_ERROR): 2,
    call("sheep", namespace="oscar-svc", user="", country=""): 3,
    call("cow", namespace="oscar-svc", user="u"): 7,
    call("cow", namespace="", user="w"): 4,
    call("cat", namespace="two", user="w"): 6,
}
EXPOSED: dict[CallKey, int] = {
    call("web", namespace="ns-ana", user="", kind=Kind.EXPOSED): 8,
    call("odd", namespace="oscar-svc", user="", kind=Kind.EXPOSED): 9,
}
USAGE = Ok(
    facts=Usage(
        cpu_seconds={
            ServiceKey("ns-ana", ""): 3600.0,
            ServiceKey("ns-ana", "cow"): 1800.0,
            ServiceKey("two", ""): 360.0,
            ServiceKey("oscar-svc", "quiet"): 36.0,
        },
        gpu_seconds=None,
    ),
    origin="prometheus",
)


def breakdown(
    said: Calls | None = None,
    *,
    inventory: Outcome[Inventory] = DEPLOYED,
    ownership: Ownership | None = None,
    privacy: Privacy = PLAIN,
    usage: Outcome[Usage] | None = None,
) -> OwnerBreakdown:
    if ownership is None and inventory is not GONE:
        ownership = Ownership(INVENTORY, None)
    return owner_reports.owner_breakdown(
        ASKED,
        NOW,
        said or calls(log(EXECUTIONS), log(EXPOSED)),
        inventory,
        ownership,
        group_by="Owner",
        privacy=privacy,
        usage=usage,
    )


def test_rows_are_by_whose_a_service_is() -> None:
    report = breakdown()
    assert report.group_by == "Owner"
    rows = {row.key: row for row in report.items}
    assert list(rows) == ["", "ana@x", "bob", "cluster_admin"]
    assert plain(rows["ana@x"]) == {
        "key": "ana@x",
        "name": "Ana B",
        # cow, gone, web and the one sheep, whose namespace some records leave out.
        "services_count": 4,
        "requests_count_total": 11,
        "requests_count_sync": 10,
        "requests_count_async": 1,
        "requests_count_exposed": 8,
        "unique_users_count": 2,
        "countries": [
            {"country": "ES", "request_count": 7},
            {"country": "FR", "request_count": 1},
        ],
        "failed_count": 2,
    }
    assert (rows["bob"].name, rows["bob"].requests_count_total) == ("bob", 7)
    admin = rows["cluster_admin"]
    assert (admin.name, admin.requests_count_total, admin.requests_count_exposed) == ("oscar", 0, 9)
    # Two owners of one service, and a name that two services have.
    nobody = rows[""]
    assert (nobody.name, nobody.unattributed, nobody.services_count) == ("", True, 2)
    assert nobody.requests_count_total == 10
    assert [row.unattributed for row in report.items[1:]] == [UNSET] * 3
    assert [said.name for said in report.sources] == [
        SourceName.INVENTORY,
        SourceName.REQUEST_LOGS,
        SourceName.EXPOSED_REQUEST_LOGS,
        SourceName.COUNTRIES,
    ]


def test_hours_are_by_namespace_where_no_service_was_found() -> None:
    report = breakdown(usage=USAGE)
    assert {row.key: row.cpu_hours for row in report.items} == {
        "": 0.1,
        "ana@x": 1.5,
        "bob": 0.0,
        "cluster_admin": 0.01,
    }
    assert {row.gpu_hours for row in report.items} == {None}
    only_used = breakdown(calls(log({}), log({})), usage=USAGE)
    assert [row.key for row in only_used.items] == ["", "ana@x", "cluster_admin"]
    assert only_used.items[1].services_count == 0
    assert source(report.sources, SourceName.USAGE).status is SourceState.OK


def test_without_an_inventory_there_is_no_row_and_it_says_so() -> None:
    report = breakdown(inventory=GONE, usage=USAGE)
    assert report.items == ()
    said = source(report.sources, SourceName.INVENTORY)
    assert (said.status, said.affects) == (SourceState.MISSING, ("items", "key", "name"))
    assert file_name(report).endswith("-partial.csv")


def test_an_inventory_that_is_cut_short_puts_rows_in_doubt() -> None:
    inventory = Partial(facts=INVENTORY, origin="kubernetes", notes=("too many",))
    report = breakdown(inventory=inventory)
    assert source(report.sources, SourceName.INVENTORY).affects == ("items", "key", "name")
    assert len(report.items) == 4
    assert file_name(report).endswith("-partial.csv")


@pytest.mark.parametrize(
    ("said", "null"),
    [
        (
            calls(GONE, log(EXPOSED)),
            {
                "services_count",
                "requests_count_total",
                "requests_count_sync",
                "requests_count_async",
                "unique_users_count",
                "failed_count",
            },
        ),
        (calls(log(EXECUTIONS), GONE), {"services_count", "requests_count_exposed"}),
    ],
)
def test_a_missing_log_leaves_its_fields_null(said: Calls, null: set[str]) -> None:
    report = breakdown(said)
    assert report.items
    for row in plain(report.items):
        assert {name for name, value in row.items() if value is None} == null
    affected = {name for status in report.sources for name in status.affects}
    assert null <= affected


def test_owners_are_named_and_the_administrator_is_always_there() -> None:
    ownership = Ownership(INVENTORY, None)
    assert plain(owner_reports.owners(ownership, PLAIN).owners) == [
        {"id": "ana@x", "name": "Ana B", "namespace": "ns-ana"},
        {"id": "bob", "name": "bob", "namespace": "oscar-svc"},
        {"id": "cluster_admin", "name": "oscar", "namespace": "oscar-svc"},
    ]


def test_owners_are_pseudonyms_of_the_same_users_in_the_list_and_in_the_rows() -> None:
    privacy = Privacy(pseudonym_key="k")
    listed = owner_reports.owners(Ownership(INVENTORY, None), privacy).owners
    report = breakdown(privacy=privacy, usage=USAGE)
    ana, bob = privacy.user("ana@x"), privacy.user("bob")
    assert {(row.id, row.name, row.namespace) for row in listed} == {
        (ana, ana, privacy.namespace("ns-ana")),
        (bob, bob, "oscar-svc"),
        ("cluster_admin", "oscar", "oscar-svc"),
    }
    assert [row.name for row in listed] == sorted(row.name for row in listed)
    assert [row.key for row in report.items] == sorted(["", "cluster_admin", ana, bob])
    names = {row.key: row.name for row in report.items}
    assert names == {"": "", "cluster_admin": "oscar", ana: ana, bob: bob}
    text = str(plain(listed)) + str(plain(report)) + breakdown_csv(report)
    assert not [word for word in ("ana@x", "Ana B", "bob", "ns-ana") if word in text]


def test_csv_has_a_column_for_each_field() -> None:
    header = (
        "key,name,services_count,requests_count_total,requests_count_sync,requests_count_async,"
        "requests_count_exposed,unique_users_count,countries"
    )
    assert breakdown_csv(breakdown()) == (
        f"{header}\n"
        ",,2,10,10,0,0,1,ES:10\n"
        "ana@x,Ana B,4,11,10,1,8,2,ES:7|FR:1\n"
        "bob,bob,1,7,7,0,0,1,ES:7\n"
        "cluster_admin,oscar,1,0,0,0,9,0,\n"
    )
    with_hours = breakdown_csv(breakdown(usage=USAGE)).splitlines()
    assert with_hours[0] == f"{header},cpu_hours,gpu_hours"
    assert with_hours[2].endswith(",1.5,")


NAMESPACES = st.sampled_from(["", "a", "b", "oscar-svc"])
NAMES = st.sampled_from(["", "s", "t"])
PEOPLE = st.sampled_from(["", "u", "v", CLUSTER_ADMIN])
SERVICES = st.builds(Service, namespace=NAMESPACES, name=st.sampled_from(["s", "t"]), owner=PEOPLE)
INVENTORIES = st.builds(
    Inventory,
    services=st.lists(SERVICES, max_size=6).map(tuple),
    owners=st.lists(st.builds(NamespaceOwner, namespace=NAMESPACES, owner=PEOPLE)).map(tuple),
    cut=st.sampled_from([UNSET, True]),
)
PASTS = st.none() | st.builds(
    Owned,
    owners=st.frozensets(st.tuples(NAMESPACES, NAMES, st.sampled_from(["u", "v", "w"]))),
    known=st.sampled_from([(), (Span(0, NOW),), (Span(NOW, 2 * NOW),)]),
)
CALLS = st.dictionaries(
    st.builds(
        call,
        st.sampled_from(["s", "t", "deleted"]),
        user=st.sampled_from(["", "x", "y"]),
        country=st.sampled_from(["", "ES", "FR"]),
        kind=st.sampled_from([Kind.SYNC, Kind.ASYNC]),
        result=st.sampled_from(list(Result)),
        namespace=NAMESPACES,
    ),
    st.integers(1, 9),
    max_size=15,
)
SECONDS = st.dictionaries(
    st.builds(ServiceKey, NAMESPACES, NAMES), st.integers(0, 99).map(lambda hours: hours * 3600.0)
)


@given(INVENTORIES, PASTS, CALLS, CALLS, SECONDS)
def test_rows_add_up_to_the_totals_whoever_owns_what(
    inventory: Inventory,
    past: Owned | None,
    executions: dict[CallKey, int],
    exposed: dict[CallKey, int],
    seconds: dict[ServiceKey, float],
) -> None:
    usage = Ok(facts=Usage(cpu_seconds=seconds, gpu_seconds=seconds), origin="prometheus")
    said = calls(log(executions), log(exposed))
    deployed = Ok(facts=inventory, origin="kubernetes")
    ownership = Ownership(inventory, past)
    report = breakdown(said, inventory=deployed, ownership=ownership, usage=usage)
    totals = reports.summary(ASKED, NOW, deployed, usage, said, privacy=PLAIN).totals

    def column(name: str) -> float:
        return float(sum(getattr(row, name) for row in report.items))

    for name in (
        "requests_count_total",
        "requests_count_sync",
        "requests_count_async",
        "requests_count_exposed",
        "failed_count",
    ):
        assert column(name) == getattr(totals, name)
    assert column("cpu_hours") == totals.cpu_hours_total
    assert column("gpu_hours") == totals.gpu_hours_total
    countries: Counter[str] = Counter()
    for row in report.items:
        countries.update({entry.country: entry.request_count for entry in row.countries})
    assert countries == {entry.country: entry.request_count for entry in totals.countries}
    assert column("unique_users_count") >= (totals.users_count or 0)
    keys = [row.key for row in report.items]
    assert keys == sorted(set(keys))
    assert set(keys) <= {"", *ownership.owners}
    assert [row.unattributed for row in report.items] == [UNSET if key else True for key in keys]


def test_a_report_is_the_same_after_it_came_over_a_socket() -> None:
    request = AskBreakdown(
        asked=AskedRange(), group_by=GroupBy.OWNER, include_users=False, include_usage=True
    )
    report = breakdown(usage=USAGE)
    received = msgspec.json.decode(msgspec.json.encode(report), type=result_type(request))
    assert received == report


def test_a_terminal_shows_it() -> None:
    console = Console(file=io.StringIO(), width=250)
    for table in as_table(breakdown(usage=USAGE)):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in ("services count", "Ana B", "cluster_admin", "ES:7|FR:1", "unattributed", "1.5"):
        assert part in text


def test_as_of_is_echoed() -> None:
    asked = msgspec.structs.replace(ASKED, as_of="then", as_of_ns=1)
    report = owner_reports.owner_breakdown(
        asked,
        NOW,
        calls(log({}), log({})),
        DEPLOYED,
        Ownership(INVENTORY, None),
        group_by="owner",
        privacy=PLAIN,
    )
    assert (report.as_of, report.items, report.periods) == ("then", (), UNSET)
