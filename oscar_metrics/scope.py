"""What one caller may see, decided once per request and applied before anything is summed. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from oscar_metrics.auth.caller import Caller
from oscar_metrics.facts import Inventory, Service, ServiceKey
from oscar_metrics.ownership import Ownership


class ScopeMode(StrEnum):
    """Whether callers see their own services only, or also what others let them see."""

    OWNED = "owned"
    VISIBLE = "visible"


class Access(StrEnum):
    """What a caller sees of a service's facts: `doubt` may be theirs, which cannot be told."""

    OWN = "own"
    VISIBLE = "visible"
    DOUBT = "doubt"
    FOREIGN = "foreign"


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a report is for, and with `owner` whose services an administrator narrows it to.

    Two viewers that are equal see the same; nothing may be shared between others.
    """

    caller: Caller
    owner: str = ""


def open_to(user: str, inventory: Inventory) -> frozenset[ServiceKey]:
    """The deployed services that are public, or that name the user among those allowed."""
    return frozenset(
        ServiceKey(service.namespace, service.name)
        for service in inventory.services
        if service.visibility == "public"
        or (service.visibility == "restricted" and user in service.allowed_users)
    )


class Scope:
    """What of a cluster is seen by a user, or by an administrator of that user's.

    `user` is as the ledger knows them. `others` are services that the user may see the
    numbers of, also where they are somebody else's. `discreet` is for callers who may not
    learn what a source says of the rest.
    """

    def __init__(
        self,
        ownership: Ownership,
        user: str,
        *,
        others: frozenset[ServiceKey] = frozenset(),
        discreet: bool = True,
    ) -> None:
        if not user:
            raise ValueError("a scope is somebody's")
        self.discreet = discreet
        self.ownership = ownership
        self._user = user
        self._others = others
        self._decided: dict[tuple[ServiceKey, int | None], Access] = {}

    def of(self, key: ServiceKey, unknown_since_ns: int | None = None) -> Access:
        """What is seen of the facts of a key.

        With `unknown_since_ns` of those of hours, from that instant on, that nobody looked at
        what was deployed in.
        """
        access = self._decided.get((key, unknown_since_ns))
        if access is None:
            access = self._decide(key, unknown_since_ns)
            self._decided[key, unknown_since_ns] = access
        return access

    def only(self, access: Access, unknown_since_ns: int | None) -> Callable[[ServiceKey], bool]:
        """Whether a key is seen so."""
        return lambda key: self.of(key, unknown_since_ns) is access

    @property
    def whole(self) -> bool:
        """Whether everything that is the user's is known to be."""
        return self.ownership.inventory.whole

    @property
    def sees_others(self) -> bool:
        """Whether there are services of others in it."""
        return bool(self._others)

    def has_service(self, service: str) -> bool:
        """Whether a service of this name is known to exist, or to have existed, in the scope.

        Also one whose numbers are withheld, since two had it one after the other.
        """
        return any(
            self.of(key) in _SEEN or key in self._others or self.ownership.was_of(key, self._user)
            for key in self.ownership.namesakes(service)
        )

    def inventory(self, inventory: Inventory) -> Inventory:
        """What of an inventory is seen: also services whose numbers are withheld."""
        return Inventory(
            services=tuple(filter(self._is_seen, inventory.services)), cut=inventory.cut
        )

    def _is_seen(self, service: Service) -> bool:
        key = ServiceKey(service.namespace, service.name)
        is_theirs = self.ownership.known_as(service.owner) == self._user
        return is_theirs or key in self._others or self.of(key) in _SEEN

    def _decide(self, key: ServiceKey, unknown_since_ns: int | None) -> Access:
        whose = self.ownership.whose(key, unknown_since_ns)
        if whose.owner == self._user:
            return Access.OWN
        if not self._others.isdisjoint(self._may_be(key)):
            # Of two owners one after the other only one has opened it.
            return Access.VISIBLE if whose.owner else Access.DOUBT
        if self._user in whose.perhaps or (whose.unrecorded and unknown_since_ns is not None):
            return Access.DOUBT
        return Access.FOREIGN

    def _may_be(self, key: ServiceKey) -> list[ServiceKey]:
        """The services that the facts of a key may be of."""
        placed = self.ownership.placed(key)
        return self.ownership.namesakes(key.service) if placed is None else [placed]


_SEEN = (Access.OWN, Access.VISIBLE)
