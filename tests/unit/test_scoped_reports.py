"""What a caller with a scope is told adds up, and shows nobody who called what is not theirs."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from oscar_metrics import affiliation_reports, figures, groupings, reports
from oscar_metrics.completeness import NOT_SHOWN
from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    CallKey,
    CallLog,
    HiddenUser,
    Inventory,
    Kind,
    LogStream,
    NamespaceOwner,
    Result,
    Roster,
    RosterUser,
    Service,
    ServiceKey,
    Usage,
)
from oscar_metrics.ledger.seals import Owned, Owns
from oscar_metrics.outcome import Ok
from oscar_metrics.ownership import Ownership
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.scope import Access, Scope, open_to
from oscar_metrics.scoped_facts import Sight
from oscar_metrics.timerange import Span
from oscar_metrics.wire import GroupBy, SourceName
from tests.unit.reporting import (
    ASKED,
    EVERYTHING,
    NOW,
    PLAIN,
    SMALL,
    call,
    calls,
    log,
    plain,
    source,
)

ME = "me"
DEPLOYED = Ok(facts=Inventory(services=()), origin="kubernetes")
NO_USAGE = Ok(facts=Usage(cpu_seconds={}, gpu_seconds={}), origin="prometheus")


def hide(key: CallKey) -> CallKey:
    return key._replace(user=HiddenUser(key.user))  # type: ignore[arg-type]


SEEN: dict[CallKey, int] = {
    call(user="ana"): 5,
    call(user="oscar"): 1,
    call(user="", country=""): 2,
    hide(call("open", user="ana", namespace="theirs")): 3,
    hide(call("open", user="bob", namespace="theirs", country="FR", result=Result.OK)): 4,
    hide(call("open", user="minio", namespace="theirs", country="")): 6,
    call("open", user="", namespace="theirs", country=""): 7,
}


def test_who_is_hidden_is_counted_and_nowhere_shown() -> None:
    said = calls(log(SEEN), log({}))
    summary = reports.summary(ASKED, NOW, DEPLOYED, NO_USAGE, said, privacy=PLAIN)
    assert (summary.totals.users_count, summary.totals.users) == (4, ("ana", "oscar"))
    roster = str(source(summary.sources, SourceName.ROSTER).notes)
    assert roster == f"1 of 2 users shown are not people (oscar); {NOT_SHOWN}"
    services = reports.service_breakdown(
        ASKED, NOW, said, group_by="service", include_users=True, privacy=PLAIN
    )
    assert [(row.key, row.unique_users_count, row.users) for row in services.items] == [
        ("open", 3, ()),
        ("svc", 2, ("ana", "oscar")),
    ]
    assert source(services.sources, SourceName.REQUEST_LOGS).notes == NOT_SHOWN
    unlisted = reports.service_breakdown(
        ASKED, NOW, said, group_by="service", include_users=False, privacy=PLAIN
    )
    assert source(unlisted.sources, SourceName.REQUEST_LOGS).notes is UNSET
    countries = reports.country_breakdown(ASKED, NOW, said, group_by="country", privacy=PLAIN)
    assert [(row.key, row.unique_users_count) for row in countries.items] == [
        ("ES", 2),
        ("FR", 1),
        ("unknown", 1),
    ]
    for report in (summary, services, countries):
        assert "bob" not in str(plain(report))
        assert "minio" not in str(plain(report))


def test_calls_of_who_is_hidden_are_in_the_blank_row() -> None:
    roster = {name: RosterUser(id=name, country="ES") for name in ("ana", "bob", "minio")}
    said = calls(log(SEEN), log({}), Ok(facts=Roster(users=roster), origin="file"))
    report = reports.user_breakdown(ASKED, NOW, said, group_by="user", privacy=PLAIN)
    assert plain(report.items) == [
        {
            "key": "",
            "membership": "unknown",
            "executions_count": 22,
            "countries": [
                {"country": "ES", "request_count": 3},
                {"country": "FR", "request_count": 4},
            ],
            "failed_count": 0,
        },
        {
            "key": "ana",
            "membership": "member",
            "executions_count": 5,
            "countries": [{"country": "ES", "request_count": 5}],
            "failed_count": 0,
        },
        {
            "key": "oscar",
            "membership": "unknown",
            "executions_count": 1,
            "countries": [{"country": "ES", "request_count": 1}],
            "failed_count": 0,
        },
    ]
    assert str(source(report.sources, SourceName.REQUEST_LOGS).notes) == NOT_SHOWN
    assert str(source(report.sources, SourceName.ROSTER).notes).endswith(NOT_SHOWN)


def test_where_nobody_is_hidden_no_note_says_so() -> None:
    said = calls(log({call(user="ana"): 1}), log({}))
    for report in (
        reports.summary(ASKED, NOW, DEPLOYED, NO_USAGE, said, privacy=PLAIN),
        reports.user_breakdown(ASKED, NOW, said, group_by="user", privacy=PLAIN),
    ):
        assert NOT_SHOWN not in str(plain(report.sources))


def test_users_and_namespaces_are_shown_as_pseudonyms_everywhere() -> None:
    privacy = Privacy(pseudonym_key="k")
    roster = {"ana": RosterUser(id="ana", membership=None), "me": RosterUser(id="me")}
    inventory = Ok(
        facts=Inventory(services=()),
        origin="kubernetes",
        notes=("unreadable: oscar-svc-ana/cow",),
    )
    tallies = {
        call(user="ana", namespace="oscar-svc-ana"): 1,
        call(user="zoe", namespace="oscar-svc"): 1,
        call(user="nil"): 1,
        call(user="", namespace=""): 1,
    }
    said = calls(log(tallies), log({}), Ok(facts=Roster(users=roster), origin="file"))
    pseudonyms = sorted([privacy.user("ana"), privacy.user("zoe"), "nil"])
    summary = reports.summary(ASKED, NOW, inventory, NO_USAGE, said, privacy=privacy)
    assert list(summary.totals.users) == pseudonyms
    services = reports.service_breakdown(
        ASKED, NOW, said, group_by="service", include_users=True, privacy=privacy
    )
    (row,) = services.items
    assert list(row.users or ()) == pseudonyms
    assert list(row.namespaces) == sorted(
        [privacy.namespace("oscar-svc-ana"), privacy.namespace("ns"), "oscar-svc"]
    )
    users = reports.user_breakdown(ASKED, NOW, said, group_by="user", privacy=privacy)
    assert [row.key for row in users.items] == sorted(["", *pseudonyms])
    membership = {row.key: row.membership for row in users.items}
    assert (membership["nil"], membership[privacy.user("ana")]) == ("external", "member")
    text = str([plain(report) for report in (summary, services, users)])
    assert not [word for word in ("ana", "zoe") if word in text]


NAMESPACES = st.sampled_from(["", "mine", "theirs", "oscar-svc"])
PEOPLE = st.sampled_from([ME, "you", "", CLUSTER_ADMIN])
INVENTORIES = st.builds(
    Inventory,
    services=st.lists(
        st.builds(
            Service,
            namespace=st.sampled_from(["mine", "theirs", "oscar-svc"]),
            name=st.sampled_from(["s", "t"]),
            owner=PEOPLE,
            visibility=st.sampled_from(["private", "public", "restricted"]),
            allowed_users=st.sampled_from([(), (ME,)]),
        ),
        max_size=6,
    ).map(tuple),
    owners=st.just(
        (
            NamespaceOwner(namespace="mine", owner=ME),
            NamespaceOwner(namespace="theirs", owner="you"),
            NamespaceOwner(namespace="oscar-svc", owner=CLUSTER_ADMIN),
        )
    ),
    cut=st.sampled_from([UNSET, True]),
)
PASTS = st.none() | st.builds(
    Owned,
    owners=st.frozensets(
        st.builds(
            Owns,
            st.sampled_from(["mine", "theirs", "oscar-svc"]),
            st.sampled_from(["", "s", "t"]),
            st.sampled_from([ME, "you"]),
        ),
        max_size=4,
    ),
    known=st.sampled_from([(), (Span(0, NOW),), (Span(NOW, 2 * NOW),)]),
)
TALLIES = st.dictionaries(
    st.builds(
        call,
        st.sampled_from(["s", "t", "deleted"]),
        user=st.sampled_from(["", ME, "x", "y", "oscar"]),
        country=st.sampled_from(["", "ES", "FR"]),
        kind=st.sampled_from([Kind.SYNC, Kind.ASYNC]),
        result=st.sampled_from(list(Result)),
        namespace=NAMESPACES,
    ),
    st.integers(1, 9),
    max_size=20,
)
SECONDS = st.dictionaries(
    st.builds(ServiceKey, NAMESPACES, st.sampled_from(["", "s", "t"])),
    st.integers(0, 99).map(lambda whole: whole * 3600.0),
    max_size=6,
)


VOS = {ME: "vo.one", "x": "vo.one", "y": "vo.two"}


@given(
    INVENTORIES, PASTS, TALLIES, TALLIES, SECONDS, st.sampled_from([PLAIN, SMALL]), st.booleans()
)
def test_reports_of_a_scope_reconcile(
    inventory: Inventory,
    past: Owned | None,
    executed: dict[CallKey, int],
    reached: dict[CallKey, int],
    seconds: dict[ServiceKey, float],
    privacy: Privacy,
    looks_around: bool,
) -> None:
    others = open_to(ME, inventory) if looks_around else frozenset()
    scope = Scope(Ownership(inventory, past), ME, others=others)
    sight = Sight(scope, ())
    used = sight.usage(
        Ok(facts={0: Usage(cpu_seconds=seconds, gpu_seconds=None)}, origin="prometheus"), None
    )
    usage: Ok[Usage] = Ok(facts=_facts(used)[0], origin="prometheus")
    said = _seen(sight, executed, reached)
    deployed = Ok(facts=scope.inventory(inventory), origin="kubernetes")

    totals = reports.summary(ASKED, NOW, deployed, usage, said, privacy=privacy).totals
    services = reports.service_breakdown(
        ASKED,
        NOW,
        said,
        group_by="service",
        include_users=True,
        privacy=privacy,
        inventory=deployed,
        usage=usage,
    ).items
    users = reports.user_breakdown(ASKED, NOW, said, group_by="user", privacy=privacy).items
    countries = reports.country_breakdown(
        ASKED, NOW, said, group_by="country", privacy=privacy
    ).items

    vos = affiliation_reports.affiliation_breakdown(
        ASKED, NOW, said, by=GroupBy.VO, group_by="vo", privacy=privacy
    ).items

    seen = (Access.OWN, Access.VISIBLE)
    of_scope = {key: count for key, count in executed.items() if scope.of(_service(key)) in seen}
    total = sum(of_scope.values())
    assert totals.requests_count_total == total
    assert (totals.requests_count_sync or 0) + (totals.requests_count_async or 0) == total
    assert sum(row.requests_count_total or 0 for row in services) == total
    assert sum(row.executions_count for row in users) == total
    assert sum(row.executions_count for row in vos) == total
    assert totals.requests_count_exposed == sum(
        count for key, count in reached.items() if scope.of(_service(key)) in seen
    )
    assert sum(row.requests_count_exposed or 0 for row in services) == (
        totals.requests_count_exposed
    )
    assert sum(row.failed_count or 0 for row in services) == totals.failed_count
    assert sum(row.cpu_hours or 0.0 for row in services) == totals.cpu_hours_total
    if privacy is PLAIN:
        assert sum(row.executions_count for row in countries) == total
        assert totals.countries_count == len(totals.countries)

    assert totals.users_count == len({key.user for key in of_scope} - {""})
    shown = {key.user for key in of_scope if scope.of(_service(key)) is Access.OWN} - {""}
    assert set(totals.users) == shown
    assert {user for row in services for user in row.users or ()} == shown
    assert {row.key for row in users} - {""} == shown
    # The VO of who is only counted is nobody's to know.
    assert {row.key for row in vos} - {""} == {VOS[user] for user in shown & VOS.keys()}
    shown_in = Counter[str]()
    for key, count in of_scope.items():
        if scope.of(_service(key)) is Access.OWN:
            shown_in[VOS.get(key.user, "")] += count
    assert {row.key: row.executions_count for row in vos if row.key} == {
        vo: count for vo, count in shown_in.items() if vo
    }
    for row in services:
        callers = {key.user for key in of_scope if key.service == row.key} - {""}
        assert row.unique_users_count == len(callers)
        # A service value is the row's own figure.
        asked = groupings.ONE_SERVICE[LogStream.EXECUTIONS]
        counted = figures.service_count(sight.calls(_log(executed), asked, None, row.key))
        assert _facts(counted).users == {key.user for key in of_scope if key.service == row.key}


def _seen(sight: Sight, executed: dict[CallKey, int], reached: dict[CallKey, int]) -> Calls:
    exposed = {key._replace(kind=Kind.EXPOSED): count for key, count in reached.items()}
    return calls(
        sight.calls(_log(executed), EVERYTHING, None),
        sight.calls(_log(exposed), EVERYTHING, None),
        Ok(facts=Roster(users={u: RosterUser(id=u, vo=vo) for u, vo in VOS.items()}), origin="r"),
    )


def _log(tallies: dict[CallKey, int]) -> Ok[CallLog]:
    return Ok(
        facts=CallLog(tallies=Counter(tallies), lines_seen=0, lines_understood=0), origin="loki"
    )


def _service(key: CallKey) -> ServiceKey:
    return ServiceKey(key.namespace, key.service)


def _facts(outcome: Any) -> Any:
    return outcome.facts
