"""Clusters made by dice: what is and was deployed, who called what, and what sources say of it.

A `World` is facts; a `Frame` is everything else about a test, the same for two worlds whose
answers are compared. Hours are numbered from the first with facts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping

import msgspec
from msgspec import UNSET

from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    CallKey,
    CountryFrom,
    Inventory,
    Kind,
    LogStream,
    NamespaceOwner,
    Result,
    Service,
    ServiceKey,
)
from oscar_metrics.privacy import Privacy
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, parse_instant

ME = "me"
SHARED = "oscar-svc"
OWNERS = (ME, "olga", "otto", "mixed")
NAMESPACES = ("ns-me", "ns-olga", "ns-otto", "ns-mixed", SHARED)
NAMES = ("cowsay", "grayify", "yolo", "demo", "fish")
USERS = (ME, "ann", "ben", "olga", "nil", "")
COUNTRIES = ("ES", "FR", "Atlantis", "")
VOS = ("vo.one", "vo.two", "")
PROJECTS = ("sea", "")
# In every text of what the caller may not know.
MARK = "zz9"

HOURS = 3
FIRST_NS = parse_instant("2026-03-01T10:00:00Z")
NOW_NS = FIRST_NS + HOURS * HOUR_NS + 30 * 60 * 10**9
# All hours are sealed early with some of what there is, and again with all of it.
EARLY_NS, LATE_NS = NOW_NS - 20 * 60 * 10**9, NOW_NS - 10 * 60 * 10**9


class Called(msgspec.Struct, frozen=True, order=True):
    """Calls in one slot; `first` in its first nanosecond; `late` once the hour was sealed."""

    slot: int
    first: bool
    late: bool
    key: CallKey
    count: int

    @property
    def at_ns(self) -> int:
        return FIRST_NS + self.slot * SLOT_NS + (0 if self.first else 450 * 10**9)

    @property
    def stream(self) -> LogStream:
        return LogStream.EXPOSED if self.key.kind is Kind.EXPOSED else LogStream.EXECUTIONS

    @property
    def service(self) -> ServiceKey:
        return ServiceKey(self.key.namespace, self.key.service)


class Used(msgspec.Struct, frozen=True, order=True):
    """Usage in one slot, in whole seconds so that no sum depends on its order."""

    slot: int
    service: ServiceKey
    cpu_seconds: int
    gpu_seconds: int

    @property
    def at_ns(self) -> int:
        return FIRST_NS + self.slot * SLOT_NS


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The facts: `past` are the inventories in the ledger, one after the other.

    `affiliations` are the VO and the project of users that the roster knows.
    """

    now: Inventory
    past: tuple[Inventory, ...]
    called: tuple[Called, ...]
    used: tuple[Used, ...]
    affiliations: Mapping[str, tuple[str, str]]
    notes: Mapping[str, tuple[str, ...]]

    @property
    def inventories(self) -> tuple[Inventory, ...]:
        return (self.now, *self.past)


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What is no fact of anyone's.

    `sealed` are the hours in the ledger, None without one. Inventories were sealed of the hours
    from `past_from` until `past_until`. `states` says of each source `ok`, `partial` or `missing`.
    """

    sealed: frozenset[int] | None
    past_from: int
    past_until: int
    states: Mapping[str, str]
    visible: bool
    has_gpu: bool
    forgets: str
    twice: bool
    privacy: Privacy


SOURCES = (
    "kubernetes",
    "prometheus",
    "roster",
    LogStream.EXECUTIONS.value,
    LogStream.EXPOSED.value,
)


def frame_of(dice: random.Random, *, visible: bool, whole: bool = False) -> Frame:
    """A frame; `whole` is one in which every source has spoken, and nobody is forgotten."""
    states = {
        source: "ok" if whole else dice.choice(("ok", "ok", "ok", "partial", "missing"))
        for source in SOURCES
    }
    sealed = dice.choice(
        (
            None,
            frozenset(range(HOURS)),
            frozenset(range(HOURS)),
            frozenset(hour for hour in range(HOURS) if dice.random() < 0.6),
        )
    )
    if states["kubernetes"] == "missing" and dice.random() < 0.8:
        states["kubernetes"] = "partial"  # else every answer is the same 503
    past_from = dice.choice((-22, -22, 0, 1))
    pseudonym_key = "" if whole else dice.choice(("", "", "0123456789abcdef"))
    return Frame(
        sealed=sealed,
        past_from=past_from,
        past_until=dice.choice((-8, HOURS, HOURS, HOURS)) if past_from < 0 else HOURS,
        states=states,
        visible=visible,
        has_gpu=dice.random() < 0.7,
        # The ledger's own pseudonyms are chance, and those made of them would be.
        forgets="" if whole or pseudonym_key else dice.choice(("", "", "", ME, "olga", "ann")),
        twice=not whole and dice.random() < 0.3,
        privacy=Privacy(
            pseudonym_key=pseudonym_key,
            country_users_least=0 if whole else dice.choice((0, 0, 2)),
        ),
    )


def world_of(dice: random.Random, size: int, frame: Frame) -> World:
    """A world of some `size` facts of each kind."""
    cut = dice.random() < 0.1
    now = inventory_of(dice, dice.randrange(1 + size), cut=cut)
    past: tuple[Inventory, ...] = ()
    if frame.sealed is not None:
        past = tuple(
            inventory_of(dice, dice.randrange(1 + size // 2)) for _ in range(dice.randrange(3))
        )
        if dice.random() < 0.7:  # mostly nothing changes hands
            past = tuple(with_owners(one, now) for one in past)
    return World(
        now=now,
        past=past,
        called=tuple(sorted(called_of(dice) for _ in range(dice.randrange(1 + 3 * size)))),
        used=tuple(sorted(used_of(dice) for _ in range(dice.randrange(1 + size)))),
        affiliations={user: affiliation_of(dice) for user in USERS if user and dice.random() < 0.8},
        notes={source: notes_of(dice) for source in SOURCES},
    )


def inventory_of(dice: random.Random, services: int, *, cut: bool = False) -> Inventory:
    """Services anywhere, mostly of who their namespace is named after."""
    deployed = {}
    for _ in range(services):
        one = service_of(dice)
        deployed[one.namespace, one.name] = one
    annotations = {
        space: _usual_owner(space) if dice.random() < 0.8 else dice.choice(OWNERS)
        for space in NAMESPACES
        if space != SHARED and dice.random() < 0.8
    }
    annotations[SHARED] = CLUSTER_ADMIN
    return Inventory(
        services=tuple(deployed[key] for key in sorted(deployed)),
        owners=tuple(NamespaceOwner(namespace=n, owner=o) for n, o in annotations.items()),
        cut=True if cut else UNSET,
    )


def service_of(dice: random.Random) -> Service:
    space = dice.choice(NAMESPACES)
    owner = _usual_owner(space) if dice.random() < 0.8 else dice.choice((*OWNERS, ""))
    if space == SHARED and dice.random() < 0.8:
        owner = dice.choice(OWNERS)
    return Service(
        namespace=space,
        name=dice.choice(NAMES),
        owner=owner,
        owner_name=f"{owner}_example",
        visibility=dice.choice(("", "private", "restricted", "public")),
        allowed_users=tuple(dice.sample(OWNERS, dice.randrange(3))),
    )


def called_of(dice: random.Random) -> Called:
    kind = dice.choice((Kind.SYNC, Kind.SYNC, Kind.ASYNC, Kind.EXPOSED))
    country = dice.choice(COUNTRIES)
    key = CallKey(
        dice.choice((*NAMESPACES, "", "")),
        dice.choice(NAMES),
        "" if kind is Kind.EXPOSED else dice.choice(USERS),
        country,
        CountryFrom.LABEL if country else CountryFrom.NOTHING,
        kind,
        dice.choice(tuple(Result)),
    )
    late = dice.random() < 0.3
    return Called(dice.randrange(4 * HOURS), dice.random() < 0.1, late, key, dice.randrange(1, 9))


def used_of(dice: random.Random) -> Used:
    service = ServiceKey(dice.choice(NAMESPACES), dice.choice((*NAMES, "")))
    return Used(dice.randrange(4 * HOURS), service, dice.randrange(1, 7200), dice.randrange(3))


def affiliation_of(dice: random.Random) -> tuple[str, str]:
    return dice.choice(VOS), dice.choice(PROJECTS)


def notes_of(dice: random.Random) -> tuple[str, ...]:
    """What a source has to say, of others: sometimes more than a report keeps."""
    count = dice.choice((1, 1, 2, 20))
    return tuple(f"{MARK}: {dice.choice(NAMESPACES)}/{number} is odd" for number in range(count))


def with_owners(past: Inventory, now: Inventory) -> Inventory:
    """The same services and namespaces, of the owners they have now."""
    services = {(one.namespace, one.name): one.owner for one in now.services}
    spaces = {one.namespace: one.owner for one in now.owners}
    return Inventory(
        services=tuple(
            msgspec.structs.replace(
                one, owner=services.get((one.namespace, one.name), _usual_owner(one.namespace))
            )
            for one in past.services
        ),
        owners=tuple(
            msgspec.structs.replace(one, owner=spaces.get(one.namespace, one.owner))
            for one in past.owners
        ),
    )


Renamed = Callable[[str], str]


def renamed(world: World, *, name: Renamed, namespace: Renamed) -> World:
    """The same world in which services and namespaces are called otherwise."""

    def inventory(of: Inventory) -> Inventory:
        services = (
            msgspec.structs.replace(one, namespace=namespace(one.namespace), name=name(one.name))
            for one in of.services
        )
        owners = (
            msgspec.structs.replace(one, namespace=namespace(one.namespace)) for one in of.owners
        )
        return msgspec.structs.replace(of, services=tuple(services), owners=tuple(owners))

    def key(of: CallKey) -> CallKey:
        return of._replace(namespace=namespace(of.namespace), service=name(of.service))

    return msgspec.structs.replace(
        world,
        now=inventory(world.now),
        past=tuple(map(inventory, world.past)),
        called=tuple(msgspec.structs.replace(one, key=key(one.key)) for one in world.called),
        used=tuple(
            msgspec.structs.replace(
                one, service=ServiceKey(namespace(one.service.namespace), name(one.service.service))
            )
            for one in world.used
        ),
    )


def of_services(inventory: Inventory, services: Iterable[Service]) -> Inventory:
    """An inventory with other services; one of a name in a namespace."""
    by_key = {(one.namespace, one.name): one for one in services}
    return msgspec.structs.replace(inventory, services=tuple(by_key[key] for key in sorted(by_key)))


def _usual_owner(namespace: str) -> str:
    return CLUSTER_ADMIN if namespace == SHARED else namespace.removeprefix("ns-")
