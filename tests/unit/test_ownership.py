from __future__ import annotations

import msgspec
import pytest

from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    Inventory,
    NamespaceOwner,
    Service,
    ServiceKey,
)
from oscar_metrics.ledger.seals import Owned, Owns
from oscar_metrics.ownership import Ownership, Whose
from oscar_metrics.timerange import HOUR_NS, Span, merge

SHARED = "oscar-svc"
ALICE, BOB, CAROL = "alice", "bob", "carol"
NOBODYS = Whose()


def service(namespace: str, name: str, owner: str) -> Service:
    return Service(namespace=namespace, name=name, owner=owner)


def inventory(*services: Service, cut: bool = False, **namespaces: str) -> Inventory:
    """Services, and namespaces by owner (`ns_a="alice"`); the shared one has always its own."""
    owners = {name.replace("_", "-"): owner for name, owner in namespaces.items()}
    return Inventory(
        services=services,
        owners=tuple(
            NamespaceOwner(namespace=namespace, owner=owner)
            for namespace, owner in {**owners, SHARED: CLUSTER_ADMIN}.items()
        ),
        cut=True if cut else msgspec.UNSET,
    )


def past(*owners: tuple[str, str, str], known: tuple[Span, ...] = ()) -> Owned:
    return Owned(owners=frozenset(Owns(*one) for one in owners), known=known)


def perhaps(*users: str, unrecorded: bool = True) -> Whose:
    """Nobody's, and it might be one of these users', or, if `unrecorded`, was anybody's."""
    return Whose(perhaps=frozenset(users), unrecorded=unrecorded)


def of(owner: str) -> Whose:
    return Whose(owner=owner)


NOTHING = inventory()
ALICES = inventory(service("ns-a", "cowsay", ALICE), ns_a=ALICE)
# The annotation is the last writer's, and both have services in it.
COLLIDED = inventory(service("ns-a", "cowsay", ALICE), service("ns-a", "demo", BOB), ns_a=BOB)
IN_SHARED = inventory(service(SHARED, "cowsay", ALICE), service(SHARED, "demo", BOB))
TWO_COWSAYS = inventory(
    service("ns-a", "cowsay", ALICE), service("ns-b", "cowsay", BOB), ns_a=ALICE, ns_b=BOB
)


@pytest.mark.parametrize(
    ("now", "before", "namespace", "name", "expected"),
    [
        # A namespace that only ever was one user's is theirs whole.
        (ALICES, None, "ns-a", "cowsay", of(ALICE)),
        (ALICES, None, "ns-a", "deleted", of(ALICE)),
        (ALICES, None, "ns-a", "", of(ALICE)),
        (inventory(ns_a=ALICE), None, "ns-a", "deleted", of(ALICE)),
        (NOTHING, past(("ns-a", "", ALICE)), "ns-a", "deleted", of(ALICE)),
        (ALICES, past(("ns-a", "", ALICE), ("ns-a", "gone", ALICE)), "ns-a", "gone", of(ALICE)),
        # A definition that cannot be read says nothing against its namespace's owner.
        (inventory(service("ns-a", "odd", ""), ns_a=ALICE), None, "ns-a", "odd", of(ALICE)),
        (ALICES, past(("ns-a", "odd", "")), "ns-a", "other", of(ALICE)),
        (inventory(ns_a=""), past(("ns-a", "", ALICE)), "ns-a", "cowsay", of(ALICE)),
        # Of an inventory that was cut short another's services may be missing.
        (inventory(ns_a=ALICE, cut=True), None, "ns-a", "deleted", perhaps(ALICE)),
        (msgspec.structs.replace(ALICES, cut=True), None, "ns-a", "cowsay", of(ALICE)),
        # The shared namespace: a service is its owner's, deleted ones too; the rest is the
        # administrator's, unless it is older than what is known.
        (IN_SHARED, None, SHARED, "cowsay", of(ALICE)),
        (IN_SHARED, None, SHARED, "demo", of(BOB)),
        (NOTHING, past((SHARED, "cowsay", ALICE)), SHARED, "cowsay", of(ALICE)),
        (IN_SHARED, None, SHARED, "scan", Whose(owner=CLUSTER_ADMIN, unrecorded=True)),
        (IN_SHARED, None, SHARED, "", Whose(owner=CLUSTER_ADMIN, perhaps=frozenset({ALICE, BOB}))),
        (
            NOTHING,
            past((SHARED, "gone", CAROL)),
            SHARED,
            "",
            Whose(owner=CLUSTER_ADMIN, perhaps=frozenset({CAROL})),
        ),
        (NOTHING, None, SHARED, "", of(CLUSTER_ADMIN)),
        (inventory(service(SHARED, "x", CLUSTER_ADMIN)), None, SHARED, "x", of(CLUSTER_ADMIN)),
        # There, a definition that cannot be read may be of any who have services there.
        (
            inventory(service(SHARED, "odd", ""), service(SHARED, "cowsay", ALICE)),
            None,
            SHARED,
            "odd",
            perhaps(CLUSTER_ADMIN, ALICE),
        ),
        (
            inventory(service(SHARED, "odd", "")),
            past((SHARED, "odd", BOB)),
            SHARED,
            "odd",
            of(BOB),
        ),
        # Of two owners one after the other it is neither's.
        (
            IN_SHARED,
            past((SHARED, "cowsay", BOB)),
            SHARED,
            "cowsay",
            perhaps(ALICE, BOB, unrecorded=False),
        ),
        (
            COLLIDED,
            past(("ns-a", "cowsay", BOB)),
            "ns-a",
            "cowsay",
            perhaps(ALICE, BOB, unrecorded=False),
        ),
        # A namespace that two users share, or had one after the other.
        (COLLIDED, None, "ns-a", "cowsay", of(ALICE)),
        (COLLIDED, None, "ns-a", "demo", of(BOB)),
        (COLLIDED, None, "ns-a", "deleted", perhaps(ALICE, BOB)),
        (COLLIDED, None, "ns-a", "", perhaps(ALICE, BOB)),
        (inventory(ns_a=BOB), past(("ns-a", "", ALICE)), "ns-a", "cowsay", perhaps(ALICE, BOB)),
        (
            inventory(service("ns-a", "cowsay", BOB), ns_a=BOB),
            past(("ns-a", "", ALICE)),
            "ns-a",
            "cowsay",
            of(BOB),
        ),
        (inventory(ns_a=BOB), past(("ns-a", "gone", ALICE)), "ns-a", "gone", of(ALICE)),
        (inventory(ns_a=BOB), past(("ns-a", "gone", ALICE)), "ns-a", "x", perhaps(ALICE, BOB)),
        (
            inventory(service("ns-a", "odd", ""), service("ns-a", "cowsay", ALICE), ns_a=BOB),
            None,
            "ns-a",
            "odd",
            perhaps(ALICE, BOB),
        ),
        # The administrator's own service in a user's namespace makes it one of two.
        (
            inventory(service("ns-a", "theirs", CLUSTER_ADMIN), ns_a=ALICE),
            None,
            "ns-a",
            "deleted",
            perhaps(ALICE, CLUSTER_ADMIN),
        ),
        # Nobody's namespace.
        (inventory(service("ns-x", "cowsay", ALICE)), None, "ns-x", "cowsay", of(ALICE)),
        (inventory(service("ns-x", "cowsay", ALICE)), None, "ns-x", "other", perhaps(ALICE)),
        (NOTHING, None, "ns-x", "cowsay", perhaps()),
        (NOTHING, None, "ns-x", "", perhaps()),
        # Records without a namespace: of the one service of that name, now or ever.
        (ALICES, None, "", "cowsay", of(ALICE)),
        (NOTHING, past(("ns-a", "", ALICE), ("ns-a", "cowsay", ALICE)), "", "cowsay", of(ALICE)),
        (IN_SHARED, None, "", "demo", of(BOB)),
        (ALICES, None, "", "other", perhaps()),
        (ALICES, None, "", "", NOBODYS),
        (TWO_COWSAYS, None, "", "cowsay", perhaps(ALICE, BOB, unrecorded=False)),
        (
            ALICES,
            past(("ns-b", "", BOB), ("ns-b", "cowsay", BOB)),
            "",
            "cowsay",
            perhaps(ALICE, BOB, unrecorded=False),
        ),
        # One user's two services are two.
        (
            inventory(service("ns-a", "cowsay", ALICE), service(SHARED, "cowsay", ALICE)),
            None,
            "",
            "cowsay",
            perhaps(ALICE, unrecorded=False),
        ),
        # The one service had two owners.
        (
            IN_SHARED,
            past((SHARED, "cowsay", BOB)),
            "",
            "cowsay",
            perhaps(ALICE, BOB, unrecorded=False),
        ),
        # There may be another that was not listed.
        (
            msgspec.structs.replace(ALICES, cut=True),
            None,
            "",
            "cowsay",
            perhaps(ALICE, unrecorded=False),
        ),
    ],
)
def test_whose_a_fact_is(
    now: Inventory, before: Owned | None, namespace: str, name: str, expected: Whose
) -> None:
    assert Ownership(now, before).whose(ServiceKey(namespace, name)) == expected


@pytest.mark.parametrize(
    ("recorded", "expected"),
    [
        # That it was called shows that it was there.
        ([("ns-b", "cowsay")], perhaps(ALICE, BOB, unrecorded=False)),
        ([("ns-gone", "cowsay")], perhaps(ALICE)),
        ([(SHARED, "cowsay")], perhaps(ALICE, CLUSTER_ADMIN)),
        # These are no other services of that name.
        ([("ns-a", "cowsay")], of(ALICE)),
        ([("ns-b", "other")], of(ALICE)),
        ([("", "cowsay")], of(ALICE)),
        ([("ns-b", "")], of(ALICE)),
    ],
)
def test_a_namesake_may_be_known_from_its_calls_alone(
    recorded: list[tuple[str, str]], expected: Whose
) -> None:
    now = inventory(service("ns-a", "cowsay", ALICE), ns_a=ALICE, ns_b=BOB)
    ownership = Ownership(now, None, recorded=[ServiceKey(*key) for key in recorded])
    assert ownership.whose(ServiceKey("", "cowsay")) == expected


def test_the_only_service_of_a_name_may_be_known_from_its_calls_alone() -> None:
    ownership = Ownership(inventory(ns_b=BOB), None, recorded=[ServiceKey("ns-b", "gone")])
    assert ownership.whose(ServiceKey("", "gone")) == of(BOB)
    assert ownership.namesakes("gone") == [ServiceKey("ns-b", "gone")]


@pytest.mark.parametrize(
    ("before", "span", "expected"),
    [
        (None, (2, 3), False),
        (past(), (2, 3), False),
        (past(known=(Span(HOUR_NS, 9 * HOUR_NS),)), (1, 2), True),
        (past(known=(Span(HOUR_NS, 9 * HOUR_NS),)), (0, 2), False),
        # The last hours are known by the current inventory.
        (past(known=(Span(HOUR_NS, 9 * HOUR_NS),)), (2, 13), True),
        (past(known=(Span(HOUR_NS, 8 * HOUR_NS),)), (2, 9), False),
        # Nobody looked in between.
        (past(known=(Span(0, HOUR_NS), Span(9 * HOUR_NS, 20 * HOUR_NS))), (0, 20), False),
        (past(known=(Span(0, HOUR_NS), Span(9 * HOUR_NS, 20 * HOUR_NS))), (10, 20), True),
    ],
)
def test_what_was_deployed_is_known_where_inventories_were_sealed(
    before: Owned | None, span: tuple[int, int], expected: bool
) -> None:
    hours = Span(span[0] * HOUR_NS, span[1] * HOUR_NS)
    ownership = Ownership(NOTHING, before, now_ns=12 * HOUR_NS)
    known, unknown = ownership.known_apart(hours)
    assert (not unknown) is expected
    assert merge([*known, *unknown]) == [hours]


def test_who_was_forgotten_owns_by_pseudonym_what_the_ledger_and_the_cluster_know() -> None:
    now = inventory(service("ns-a", "cowsay", ALICE), service(SHARED, "tool", ALICE), ns_a=ALICE)
    before = past(("ns-a", "", "forgotten-1"), (SHARED, "gone", "forgotten-1"))
    ownership = Ownership(now, before, known_as={ALICE: "forgotten-1"})
    for key in (
        ("ns-a", "cowsay"),
        ("ns-a", "x"),
        (SHARED, "tool"),
        (SHARED, "gone"),
        ("", "gone"),
    ):
        assert ownership.whose(ServiceKey(*key)) == of("forgotten-1")
    assert ownership.owners == {"forgotten-1", CLUSTER_ADMIN}


def test_owners_are_all_that_ever_were() -> None:
    before = past(("ns-c", "", CAROL), ("ns-d", "x", "dave"), (SHARED, "odd", ""))
    assert Ownership(COLLIDED, before).owners == {ALICE, BOB, CAROL, "dave", CLUSTER_ADMIN}
    assert Ownership(Inventory(services=()), None).owners == {CLUSTER_ADMIN}
