from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest
from msgspec import UNSET

from oscar_metrics.discretion import IN_DOUBT, NOT_ALL_KNOWN, WITHHELD
from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    HiddenUser,
    Inventory,
    Kind,
    NamespaceOwner,
    Result,
    Service,
    ServiceKey,
    SlotPart,
    Usage,
)
from oscar_metrics.ledger.seals import Owned
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.ownership import Ownership
from oscar_metrics.scope import Scope
from oscar_metrics.scoped_facts import Only, Sight
from oscar_metrics.sums import CallSums, Grouping, of_slots, of_tallies
from oscar_metrics.timerange import SLOT_NS, Span

SPAN = Span(0, 4 * SLOT_NS)
GROUPINGS: tuple[Grouping, ...] = (("service", "user"), ("kind",))
# Alice's, one that Bob opened to her, one that he did not, and one that either may have.
MINE, OPENED, CLOSED, EITHERS = (
    ServiceKey("ns-a", "mine"),
    ServiceKey("ns-b", "opened"),
    ServiceKey("ns-b", "closed"),
    ServiceKey("ns-x", "old"),
)


def scope(*, visible: bool = False, discreet: bool = True, cut: bool = False) -> Scope:
    inventory = Inventory(
        services=(
            Service(namespace="ns-b", name="opened", owner="bob", visibility="public"),
            Service(namespace="ns-b", name="closed", owner="bob"),
            Service(namespace="ns-x", name="bobs", owner="bob"),
            Service(namespace="ns-a", name="mine", owner="alice"),
        ),
        owners=(
            NamespaceOwner(namespace="ns-a", owner="alice"),
            NamespaceOwner(namespace="ns-b", owner="bob"),
            NamespaceOwner(namespace="ns-x", owner="alice"),
        ),
        cut=True if cut else UNSET,
    )
    ownership = Ownership(inventory, Owned(owners=frozenset(), known=(SPAN,)))
    others = frozenset({OPENED}) if visible else frozenset[ServiceKey]()
    return Scope(ownership, "alice", others=others, discreet=discreet)


def call(service: ServiceKey, user: str, kind: Kind = Kind.SYNC) -> CallKey:
    return CallKey(*service, user, "ES", CountryFrom.LABEL, kind, Result.OK)


def log(*keys: CallKey) -> CallLog:
    return CallLog(tallies=Counter(keys), lines_seen=len(keys), lines_understood=len(keys))


ALL = (
    call(MINE, "ann"),
    call(MINE, "ann", Kind.ASYNC),
    call(OPENED, "ann"),
    call(OPENED, "ben"),
    call(OPENED, ""),
    call(CLOSED, "eve"),
    call(EITHERS, "eve"),
)
OWN_USERS: dict[object, int] = {("mine", "ann"): 2}
NOBODY: dict[object, int] = {}
HIDDEN: dict[object, int] = {
    ("opened", HiddenUser("ann")): 1,
    ("opened", HiddenUser("ben")): 1,
    ("opened", ""): 1,
}


def said(*keys: CallKey) -> Ok[CallLog]:
    return Ok(facts=log(*keys), origin="loki", notes=("ns-b/closed is odd",))


def sums(outcome: Outcome[CallSums]) -> CallSums:
    assert not isinstance(outcome, Unavailable)
    return outcome.facts


@pytest.mark.parametrize(
    ("keys", "visible", "users", "withheld"),
    [
        (ALL, False, OWN_USERS, True),
        (ALL, True, {**OWN_USERS, **HIDDEN}, True),
        (ALL[:-1], False, OWN_USERS, False),
        (ALL[:-1], True, {**OWN_USERS, **HIDDEN}, False),
        (ALL[2:-1], False, NOBODY, False),
        (ALL[-1:], True, NOBODY, True),
        ((), True, NOBODY, False),
    ],
)
async def test_calls_are_those_of_the_scope_live_and_stored(
    keys: tuple[CallKey, ...], visible: bool, users: dict[object, int], withheld: bool
) -> None:
    sight = Sight(scope(visible=visible), ())

    async def read(wanted: Collection[Grouping], only: Only | None) -> Outcome[CallSums]:
        assert only is not None
        kept = [key for key in keys if only(ServiceKey(key.namespace, key.service))]
        return Ok(facts=of_tallies(Counter(kept), wanted), origin="ledger", notes=("odd",))

    part = SlotPart(1, first=False)
    slotted = Ok(facts={part: log(*keys)}, origin="loki")
    for outcome in (
        sight.calls(said(*keys), GROUPINGS, None),
        sight.calls(slotted, GROUPINGS, None),
        await sight.stored_calls(read, GROUPINGS, None),
    ):
        assert dict(sums(outcome).groups["service", "user"]) == users
        assert sums(outcome).groups[("kind",)].total() == sum(users.values())
        assert outcome.notes == ((WITHHELD,) if withheld else ())
        assert isinstance(outcome, Partial) is withheld


async def test_without_a_scope_everything_is_as_it_is_said() -> None:
    sight = Sight(None, ())
    everything = sight.calls(said(*ALL), GROUPINGS, None)
    assert sums(everything) == of_tallies(Counter(ALL), GROUPINGS)
    assert everything.notes == ("ns-b/closed is odd",)
    usage = Ok(facts={0: Usage(cpu_seconds={CLOSED: 1.0}, gpu_seconds=None)}, origin="prometheus")
    assert sight.usage(usage, None) is usage
    assert sight.told(usage) is usage

    async def read(wanted: Collection[Grouping], only: Only | None) -> Outcome[CallSums]:
        assert only is None
        return Ok(facts=of_tallies(Counter(ALL), wanted), origin="ledger")

    assert sums(await sight.stored_calls(read, GROUPINGS, None)) == sums(everything)


def test_one_service_name_is_all_that_counts_where_one_is_asked_about() -> None:
    sight = Sight(scope(visible=True), ())
    opened = sight.calls(said(*ALL), GROUPINGS, None, "opened")
    assert dict(sums(opened).groups["service", "user"]) == HIDDEN
    assert opened.notes == ()
    old = sight.calls(said(*ALL), GROUPINGS, None, "old")
    assert not any(sums(old).groups.values())
    assert old.notes == (WITHHELD,)


def test_periods_are_kept_apart() -> None:
    early, late = SlotPart(0, first=False), SlotPart(2, first=True)
    slotted = {early: log(*ALL), late: log(ALL[0], ALL[5])}
    groupings = [("period", "service")]
    bounds_ns = (0, 2 * SLOT_NS, 4 * SLOT_NS)
    outcome = Sight(scope(), bounds_ns).calls(Ok(facts=slotted, origin="loki"), groupings, None)
    mine = {early: log(*ALL[:2]), late: log(ALL[0])}
    assert sums(outcome) == of_slots(mine, groupings, bounds_ns)


@pytest.mark.parametrize(
    ("cpu", "gpu", "service", "seen", "withheld"),
    [
        ({MINE: 1.0, CLOSED: 2.0}, {}, None, ({MINE: 1.0}, {}), False),
        ({MINE: 1.0, CLOSED: 2.0}, None, None, ({MINE: 1.0}, None), False),
        (None, {CLOSED: 2.0}, None, (None, {}), False),
        ({MINE: 1.0, EITHERS: 2.0}, None, None, ({MINE: 1.0}, None), True),
        ({}, {EITHERS: 2.0}, None, ({}, {}), True),
        ({EITHERS: 0.0}, None, None, ({}, None), False),
        # Of no known service, in her namespace, in one they share, in his.
        ({ServiceKey("ns-a", ""): 3.0}, None, None, ({ServiceKey("ns-a", ""): 3.0}, None), False),
        ({ServiceKey("ns-x", ""): 3.0}, None, None, ({}, None), True),
        ({ServiceKey("ns-b", ""): 3.0}, None, None, ({}, None), False),
        # What is withheld of another name is nothing to the one asked about.
        ({MINE: 1.0, EITHERS: 2.0}, None, "mine", ({MINE: 1.0}, None), False),
        ({MINE: 1.0, EITHERS: 2.0}, None, "old", ({}, None), True),
        ({MINE: 1.0, ServiceKey("ns-x", ""): 2.0}, None, "mine", ({MINE: 1.0}, None), False),
    ],
)
def test_usage_is_that_of_the_scope(
    cpu: dict[ServiceKey, float] | None,
    gpu: dict[ServiceKey, float] | None,
    service: str | None,
    seen: tuple[dict[ServiceKey, float] | None, dict[ServiceKey, float] | None],
    withheld: bool,
) -> None:
    outcome = Ok(facts={4: Usage(cpu_seconds=cpu, gpu_seconds=gpu)}, origin="prometheus")
    told = Sight(scope(), ()).usage(outcome, None, service)
    assert not isinstance(told, Unavailable)
    assert told.facts == {4: Usage(cpu_seconds=seen[0], gpu_seconds=seen[1])}
    assert told.notes == ((WITHHELD,) if withheld else ())


def test_the_administrator_hears_what_sources_say_of_a_scope_and_users_do_not() -> None:
    doubtful = Partial(facts=log(*ALL), origin="loki", notes=("ns-b/closed is odd",))
    administrators = Sight(scope(discreet=False), ()).calls(doubtful, GROUPINGS, None)
    assert administrators.notes == (WITHHELD, "ns-b/closed is odd")
    assert Sight(scope(), ()).calls(doubtful, GROUPINGS, None).notes == (WITHHELD, IN_DOUBT)
    missing = Unavailable(origin="loki", notes=("ns-b/closed is odd",))
    for discreet in (True, False):
        sight = Sight(scope(discreet=discreet), ())
        for outcome in (
            sight.calls(missing, GROUPINGS, None),
            sight.usage(missing, None),
            sight.told(missing),
        ):
            assert isinstance(outcome, Unavailable)
            assert ("ns-b" in str(outcome.notes)) is not discreet


async def test_what_the_ledger_cannot_say_of_a_part_it_says_of_nothing() -> None:
    async def read(wanted: Collection[Grouping], only: Only | None) -> Outcome[CallSums]:
        assert only is not None
        if only(EITHERS):
            return Unavailable(origin="ledger", notes=("it broke",))
        return Ok(facts=of_tallies(Counter(), wanted), origin="ledger")

    outcome = await Sight(scope(), ()).stored_calls(read, GROUPINGS, None)
    assert isinstance(outcome, Unavailable)


def test_of_an_inventory_that_was_cut_short_everything_is_in_doubt() -> None:
    told = Sight(scope(cut=True), ()).told(Ok(facts=1, origin="kubernetes"))
    assert isinstance(told, Partial)
    assert told.notes == (NOT_ALL_KNOWN,)
