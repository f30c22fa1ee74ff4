"""What a caller must see, written from the contract ("Auth") and docs/access.md, by hand.

It is asked for one fact after the other and remembers nothing; the product decides the same
with other means.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

from oscar_metrics.facts import CLUSTER_ADMIN, HiddenUser, Service, ServiceKey
from oscar_metrics.timerange import HOUR_NS
from tests.scope.worlds import FIRST_NS, ME, NOW_NS, SHARED, Called, Frame, Used, World


class Seen(Enum):
    MINE = "mine"
    OPEN = "open"  # somebody else's, who lets me see its numbers
    WITHHELD = "withheld"  # perhaps mine
    NOT = "not"


MINE = (Seen.MINE, Seen.OPEN)


class Model:
    """One world as I, or as an administrator for somebody, see it."""

    def __init__(self, world: World, frame: Frame, me: str = ME) -> None:
        self.world = world
        self.frame = frame
        self.me = me
        self.visible = frame.visible and me == ME
        self.cut = world.now.cut is True
        sealed = frame.sealed or frozenset()
        inventories = world.inventories
        self.deployed = [one for inventory in inventories for one in inventory.services]
        self.annotated = [one for inventory in inventories for one in inventory.owners]
        recorded = [one.service for one in world.called if one.slot // 4 in sealed]
        recorded += [one.service for one in world.used if one.slot // 4 in sealed]
        known = {ServiceKey(one.namespace, one.name) for one in self.deployed} | set(recorded)
        self.existed = {key for key in known if key.namespace and key.service}

    def seen(self, one: Called | Used) -> Seen:
        """How much of a fact, which is of a service and a time."""
        return self.of(one.service, recent=self.looked_at(one.at_ns))

    def looked_at(self, at_ns: int) -> bool:
        """Whether an inventory was sealed of the hour, or the last of them leads up to now."""
        first_ns, stop_ns = (
            FIRST_NS + hour * HOUR_NS for hour in (self.frame.past_from, self.frame.past_until)
        )
        goes_on = stop_ns + 3 * HOUR_NS >= NOW_NS
        return bool(self.world.past) and first_ns <= at_ns and (goes_on or at_ns < stop_ns)

    def of(self, key: ServiceKey, *, recent: bool) -> Seen:
        """How much of a fact of a service; `recent` where somebody looked at what was deployed."""
        owner, perhaps, anyones = self.whose(key)
        if not recent and not self.is_one_users(key.namespace):
            # Another of that namespace and name, or of that name, may be gone.
            owner, perhaps, anyones = "", perhaps | {owner} - {""}, any(key)
        if owner == self.me:
            return Seen.MINE
        may_be = {key} if key.namespace else self.same_name(key.service)
        if any(self.is_open(one) for one in may_be):
            return Seen.OPEN if owner else Seen.WITHHELD
        if self.me in perhaps or (anyones and not recent):
            return Seen.WITHHELD
        return Seen.NOT

    def whose(self, key: ServiceKey) -> tuple[str, set[str], bool]:
        """The owner, or blank and who else it might be; and whether it might be anyone."""
        space, name = key
        if not space:
            same = self.same_name(name)
            if len(same) == 1 and not self.cut:
                return self.whose(next(iter(same)))
            each = [self.whose(one) for one in same]
            perhaps = {one for owner, others, _ in each for one in (owner, *others)} - {""}
            return "", perhaps, any(a for *_, a in each) if same else bool(name)
        spaces_owners, in_it = self.owners_in(space)
        if self.is_one_users(space):
            return spaces_owners.pop(), set(), False
        definitions = [one for one in self.deployed if (one.namespace, one.name) == key]
        owners = {one.owner for one in definitions} - {""}
        if owners:
            return (owners.pop(), set(), False) if len(owners) == 1 else ("", owners, False)
        if space == SHARED and not definitions:
            return CLUSTER_ADMIN, set() if name else in_it, bool(name)
        return "", spaces_owners | in_it, True

    def owners_in(self, space: str) -> tuple[set[str], set[str]]:
        """Whom annotations of a namespace name, and who owns services in it."""
        annotated = {one.owner for one in self.annotated if one.namespace == space} - {""}
        in_it = {one.owner for one in self.deployed if one.namespace == space} - {""}
        return annotated, in_it

    def is_one_users(self, space: str) -> bool:
        """Whether a namespace only ever was one user's."""
        annotated, in_it = self.owners_in(space)
        one = len(annotated) == 1 and in_it <= annotated and not self.cut
        return bool(space) and space != SHARED and one

    def same_name(self, name: str) -> set[ServiceKey]:
        return {key for key in self.existed if key.service == name}

    def is_open(self, key: ServiceKey) -> bool:
        return self.visible and any(
            one.visibility == "public"
            or (one.visibility == "restricted" and self.me in one.allowed_users)
            for one in self.world.now.services
            if (one.namespace, one.name) == key
        )

    def knows(self, name: str) -> bool:
        """Whether a service of this name is, or was, one that I may know of."""
        return any(
            self.of(key, recent=True) in MINE
            or self.is_open(key)
            or any((d.namespace, d.name, d.owner) == (*key, self.me) for d in self.deployed)
            for key in self.same_name(name)
        )

    def counts(self, one: Service) -> bool:
        """Whether a deployed service is one of those in my scope."""
        key = ServiceKey(one.namespace, one.name)
        seen = self.of(key, recent=True) in MINE
        return one.owner == self.me or self.is_open(key) or seen

    def view(self) -> Any:
        """Everything an answer to me may depend on; equal views must have equal answers."""
        called = [(self.seen(one), one) for one in self.world.called]
        used = [(self.seen(one), one) for one in self.world.used]
        return (
            self.cut,
            self.affiliations(one.key.user for seen, one in called if seen is Seen.MINE),
            [
                sorted((s.namespace, s.name) for s in inventory.services if self.counts(s))
                for inventory in self.world.inventories
            ],
            sorted({n for _, n in self.everything() if self.knows(n)}),
            [
                (seen.value, one.slot, one.first, one.late, self.shown(one.key, seen), one.count)
                for seen, one in called
                if seen in MINE
            ],
            [one for seen, one in used if seen in MINE],
            {
                (one.stream, one.slot, one.first, one.late, one.key.service)
                for seen, one in called
                if seen is Seen.WITHHELD
            },
            {(one.slot, one.service.service) for seen, one in used if seen is Seen.WITHHELD},
        )

    def affiliations(self, users: Iterable[str]) -> dict[str, tuple[str, str]]:
        """The VO and the project of users, who are those that may be shown."""
        return {user: self.world.affiliations.get(user, ("", "")) for user in users}

    def everything(self) -> Iterable[ServiceKey]:
        """Every service that any fact is of."""
        yield from self.existed
        yield from (one.service for one in self.world.called)
        yield from (one.service for one in self.world.used)

    def shown(self, key: Any, seen: Seen) -> Any:
        """What may be shown of a call: of others' neither the user nor the namespace."""
        if seen is not Seen.OPEN:
            return key
        return key._replace(user=HiddenUser(key.user) if key.user else "", namespace="")
