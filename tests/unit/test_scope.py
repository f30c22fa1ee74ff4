from __future__ import annotations

import pytest

from oscar_metrics.auth.caller import ADMINISTRATOR, Caller
from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    Inventory,
    NamespaceOwner,
    Service,
    ServiceKey,
)
from oscar_metrics.ledger.seals import Owned, Owns
from oscar_metrics.ownership import Ownership
from oscar_metrics.scope import Access, Scope, Viewer, open_to
from oscar_metrics.timerange import HOUR_NS, Span

SHARED = "oscar-svc"
ALICE, BOB, CAROL, DAVE = "alice", "bob", "carol", "dave"
SINCE_NS = 100 * HOUR_NS
# Nobody looked at what was deployed then.
OLDER_NS = SINCE_NS - HOUR_NS
OWN, SEEN, DOUBT, FOREIGN = Access.OWN, Access.VISIBLE, Access.DOUBT, Access.FOREIGN


def deployed(namespace: str, name: str, owner: str, visibility: str = "", *allowed: str) -> Service:
    return Service(
        namespace=namespace,
        name=name,
        owner=owner,
        visibility=visibility,
        allowed_users=allowed,
    )


# `once` was bob's before it was alice's, `ns-x` both had; `gone` was only called.
INVENTORY = Inventory(
    services=(
        deployed("ns-a", "cowsay", ALICE, "private", BOB),
        deployed("ns-a", "open", ALICE, "public"),
        deployed("ns-b", "cowsay", BOB, "restricted", CAROL, ALICE),
        deployed(SHARED, "tool", ALICE, "restricted", BOB),
        deployed(SHARED, "once", ALICE, "public"),
        deployed(SHARED, "admins", CLUSTER_ADMIN, "public"),
        deployed(SHARED, "odd", ""),
        deployed("ns-x", "mine", ALICE),
        deployed("ns-x", "theirs", BOB),
        deployed(SHARED, "steady", ALICE),
    ),
    owners=(
        NamespaceOwner(namespace="ns-a", owner=ALICE),
        NamespaceOwner(namespace="ns-b", owner=BOB),
        NamespaceOwner(namespace="ns-x", owner=BOB),
        NamespaceOwner(namespace=SHARED, owner=CLUSTER_ADMIN),
    ),
    created_ns={f"{SHARED}/steady": OLDER_NS, f"{SHARED}/tool": OLDER_NS + 1},
)
PAST = Owned(
    owners=frozenset(
        {Owns(SHARED, "once", BOB), Owns("ns-b", "old", BOB), Owns("ns-c", "", CAROL)}
    ),
    known=(Span(SINCE_NS, SINCE_NS + HOUR_NS),),
)
OWNERSHIP = Ownership(INVENTORY, PAST, recorded=[ServiceKey("ns-c", "gone")])


def scope(user: str, *, visible: bool = False) -> Scope:
    others = open_to(user, INVENTORY) if visible else frozenset[ServiceKey]()
    return Scope(OWNERSHIP, user, others=others)


@pytest.mark.parametrize(
    ("namespace", "name", "alice", "bob", "carol", "dave"),
    [
        ("ns-a", "cowsay", OWN, FOREIGN, FOREIGN, FOREIGN),
        ("ns-a", "deleted", OWN, FOREIGN, FOREIGN, FOREIGN),
        ("ns-a", "", OWN, FOREIGN, FOREIGN, FOREIGN),
        ("ns-b", "cowsay", FOREIGN, OWN, FOREIGN, FOREIGN),
        ("ns-c", "anything", FOREIGN, FOREIGN, OWN, FOREIGN),
        (SHARED, "tool", OWN, FOREIGN, FOREIGN, FOREIGN),
        (SHARED, "admins", FOREIGN, FOREIGN, FOREIGN, FOREIGN),
        (SHARED, "once", DOUBT, DOUBT, FOREIGN, FOREIGN),
        (SHARED, "never", FOREIGN, FOREIGN, FOREIGN, FOREIGN),
        (SHARED, "odd", DOUBT, DOUBT, FOREIGN, FOREIGN),
        (SHARED, "", DOUBT, DOUBT, FOREIGN, FOREIGN),
        ("ns-x", "mine", OWN, FOREIGN, FOREIGN, FOREIGN),
        ("ns-x", "theirs", FOREIGN, OWN, FOREIGN, FOREIGN),
        ("ns-x", "deleted", DOUBT, DOUBT, FOREIGN, FOREIGN),
        ("ns-x", "", DOUBT, DOUBT, FOREIGN, FOREIGN),
        ("ns-?", "cowsay", FOREIGN, FOREIGN, FOREIGN, FOREIGN),
        ("", "cowsay", DOUBT, DOUBT, FOREIGN, FOREIGN),
        ("", "open", OWN, FOREIGN, FOREIGN, FOREIGN),
        ("", "old", FOREIGN, OWN, FOREIGN, FOREIGN),
        ("", "gone", FOREIGN, FOREIGN, OWN, FOREIGN),
        ("", "once", DOUBT, DOUBT, FOREIGN, FOREIGN),
        ("", "never", FOREIGN, FOREIGN, FOREIGN, FOREIGN),
        ("", "", FOREIGN, FOREIGN, FOREIGN, FOREIGN),
    ],
)
def test_what_is_seen_of_a_service(
    namespace: str, name: str, alice: Access, bob: Access, carol: Access, dave: Access
) -> None:
    key = ServiceKey(namespace, name)
    seen = [scope(user).of(key) for user in (ALICE, BOB, CAROL, DAVE)]
    assert seen == [alice, bob, carol, dave]


@pytest.mark.parametrize(
    ("namespace", "name", "alice", "dave"),
    [
        # What nothing is known of may have been anyone's before the first inventory.
        (SHARED, "never", DOUBT, DOUBT),
        (SHARED, "odd", DOUBT, DOUBT),
        ("ns-?", "cowsay", DOUBT, DOUBT),
        ("", "never", DOUBT, DOUBT),
        ("ns-x", "deleted", DOUBT, DOUBT),
        # What somebody is known to have owned, or may have, is not anyone's.
        ("ns-a", "deleted", OWN, FOREIGN),
        ("ns-c", "anything", FOREIGN, FOREIGN),
        # One that was there all the time cannot have been another's.
        (SHARED, "steady", OWN, FOREIGN),
        # Else one of that name may have been there before it, and be gone.
        (SHARED, "tool", DOUBT, DOUBT),
        (SHARED, "once", DOUBT, DOUBT),
        ("", "cowsay", DOUBT, DOUBT),
        ("", "steady", DOUBT, DOUBT),
        ("", "", FOREIGN, FOREIGN),
    ],
)
def test_before_the_first_inventory_what_is_unknown_may_be_anyones(
    namespace: str, name: str, alice: Access, dave: Access
) -> None:
    key = ServiceKey(namespace, name)
    assert [scope(user).of(key, OLDER_NS) for user in (ALICE, DAVE)] == [alice, dave]


@pytest.mark.parametrize(
    ("user", "namespace", "name", "expected"),
    [
        (BOB, "ns-a", "open", SEEN),
        (DAVE, "ns-a", "open", SEEN),
        (DAVE, SHARED, "admins", SEEN),
        (BOB, SHARED, "tool", SEEN),
        (CAROL, SHARED, "tool", FOREIGN),
        (CAROL, "ns-b", "cowsay", SEEN),
        # That a private service names somebody opens nothing to them.
        (BOB, "ns-a", "cowsay", FOREIGN),
        # What is open and one's own is one's own.
        (ALICE, "ns-a", "open", OWN),
        (ALICE, SHARED, "tool", OWN),
        (ALICE, "ns-b", "cowsay", SEEN),
        # Its namespace is not open with it, nor what carries its name elsewhere.
        (BOB, "ns-a", "deleted", FOREIGN),
        (BOB, "ns-a", "", FOREIGN),
        (BOB, "ns-?", "open", FOREIGN),
        # Of two owners only the present one opened it: what is whose cannot be told.
        (DAVE, SHARED, "once", DOUBT),
        (BOB, SHARED, "once", DOUBT),
        # A record without a namespace is of the one service of its name.
        (BOB, "", "open", SEEN),
        (CAROL, "", "cowsay", DOUBT),
        (DAVE, "", "cowsay", FOREIGN),
        (ALICE, "", "cowsay", DOUBT),
    ],
)
def test_what_others_opened_is_seen_where_that_is_the_rule(
    user: str, namespace: str, name: str, expected: Access
) -> None:
    assert scope(user, visible=True).of(ServiceKey(namespace, name)) is expected
    theirs = user == ALICE or (user == BOB and name == "once")
    closed = expected if theirs and expected is not SEEN else FOREIGN
    assert scope(user).of(ServiceKey(namespace, name)) is closed


@pytest.mark.parametrize(
    ("service", "owned_by", "with_open"),
    [
        ("cowsay", {ALICE, BOB}, {ALICE, BOB, CAROL}),
        ("open", {ALICE}, {ALICE, BOB, CAROL, DAVE}),
        ("old", {BOB}, {BOB}),
        ("gone", {CAROL}, {CAROL}),
        ("admins", set(), {ALICE, BOB, CAROL, DAVE}),
        # What is, or was, somebody's is known to them, also where its numbers are withheld.
        ("once", {ALICE, BOB}, {ALICE, BOB, CAROL, DAVE}),
        # What may merely be somebody's is not.
        ("odd", set(), set()),
        ("never", set(), set()),
        ("", set(), set()),
    ],
)
def test_a_service_is_known_of_where_any_of_its_name_is_seen(
    service: str, owned_by: set[str], with_open: set[str]
) -> None:
    users = (ALICE, BOB, CAROL, DAVE)
    assert {user for user in users if scope(user).has_service(service)} == owned_by
    seen = {u for u in users if scope(u, visible=True).has_service(service)}
    assert seen == with_open


def test_an_inventory_is_cut_to_the_scope_and_names_no_owners() -> None:
    def names(of: Scope) -> set[tuple[str, str]]:
        seen = of.inventory(INVENTORY)
        assert seen.owners == ()
        return {(service.namespace, service.name) for service in seen.services}

    opened = {("ns-a", "open"), (SHARED, "admins"), (SHARED, "once")}
    assert names(scope(DAVE)) == set()
    assert names(scope(BOB)) == {("ns-b", "cowsay"), ("ns-x", "theirs")}
    assert names(scope(DAVE, visible=True)) == opened
    # Deployed by her, and once by somebody else: hers, though its numbers are withheld.
    assert (SHARED, "once") in names(scope(ALICE))
    cut = Inventory(services=INVENTORY.services, cut=True)
    assert not scope(BOB).inventory(cut).whole


def test_owners_that_an_administrator_narrows_a_report_to_are_users_and_the_administrator() -> None:
    admins = Scope(OWNERSHIP, CLUSTER_ADMIN, discreet=False)
    assert admins.of(ServiceKey(SHARED, "admins")) is OWN
    assert admins.of(ServiceKey(SHARED, "never")) is OWN
    assert admins.of(ServiceKey(SHARED, "")) is OWN
    assert admins.of(ServiceKey(SHARED, "tool")) is FOREIGN
    assert admins.of(ServiceKey("ns-a", "cowsay")) is FOREIGN
    assert admins.of(ServiceKey(SHARED, "odd")) is DOUBT


def test_a_scope_is_somebodys() -> None:
    with pytest.raises(ValueError, match="somebody"):
        Scope(OWNERSHIP, "")


def test_viewers_that_see_different_things_are_different_keys() -> None:
    viewers = {
        Viewer(caller=ADMINISTRATOR),
        Viewer(caller=ADMINISTRATOR, owner=ALICE),
        Viewer(caller=ADMINISTRATOR, owner=BOB),
        Viewer(caller=Caller(user=ALICE)),
        Viewer(caller=Caller(user=BOB)),
        Viewer(caller=Caller(user=ALICE, administrator=True)),
    }
    assert len(viewers) == 6
    assert Viewer(caller=Caller(user=ALICE)) in viewers
