"""Whose a fact is: (namespace, service) → its owner, by all that is and was deployed. Pure.

A namespace that only ever was one user's is that user's whole, deleted services included. In
any other (the shared one, and those that two users came to share) what belongs to a service
is its owner's. What cannot be told is nobody's, and it is known whose it might be.

Owners are not told apart by time: a service of one namespace and name that had two of them,
one after the other, is neither's. But of hours that nobody looked at what was deployed in
(before the ledger began, while the server was down) only what cannot have been another's is
somebody's: else who deploys a service named like one that is no more would get its callers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import msgspec

from oscar_metrics.facts import CLUSTER_ADMIN, Inventory, ServiceKey
from oscar_metrics.ledger.seals import UNKNOWN_MOST_NS, Owned
from oscar_metrics.timerange import Span, subtract

_NOBODY: frozenset[str] = frozenset()
_FOR_EVER_NS = 2**63 - 1


class Whose(msgspec.Struct, frozen=True, kw_only=True):
    """Whose something is, or might be.

    `owner` is blank where that cannot be told. It might be of one of `perhaps`; with
    `unrecorded` of anyone, if nobody looked at what was deployed at the time.
    """

    owner: str = ""
    perhaps: frozenset[str] = _NOBODY
    unrecorded: bool = False


class Ownership:
    """Whose each fact is, from the current inventory and what the ledger knows of the past.

    `past` is None without a ledger. `recorded` are services that the ledger holds calls or
    usage of: they existed, even where no inventory names them. `known_as` gives the
    pseudonyms of users that were forgotten, which the past knows them by.
    """

    def __init__(
        self,
        inventory: Inventory,
        past: Owned | None,
        *,
        recorded: Collection[ServiceKey] = (),
        known_as: Mapping[str, str] | None = None,
        now_ns: int = 0,
    ) -> None:
        self._names = known_as or {}
        self.inventory = inventory
        self._known = () if past is None else _until_now(past.known, now_ns)
        self._of_namespace: defaultdict[str, set[str]] = defaultdict(set)
        self._of_service: defaultdict[ServiceKey, set[str]] = defaultdict(set)
        for owns in inventory.owners:
            self._of_namespace[owns.namespace].add(self.known_as(owns.owner))
        for service in inventory.services:
            key = ServiceKey(service.namespace, service.name)
            self._of_service[key].add(self.known_as(service.owner))
        for namespace, name, owner in () if past is None else past.owners:
            if name:
                self._of_service[ServiceKey(namespace, name)].add(owner)
            else:
                self._of_namespace[namespace].add(owner)
        self._within: defaultdict[str, set[str]] = defaultdict(set)
        for key, owners in self._of_service.items():
            owners.discard("")
            self._within[key.namespace] |= owners
        for owners in self._of_namespace.values():
            owners.discard("")
        self._namespaces_of: defaultdict[str, set[str]] = defaultdict(set)
        for key in (*self._of_service, *recorded):
            if key.service and key.namespace:
                self._namespaces_of[key.service].add(key.namespace)

    @property
    def owners(self) -> frozenset[str]:
        """Everyone who owns, or owned, a namespace or a service."""
        everyone = (*self._of_namespace.values(), *self._of_service.values())
        return frozenset({CLUSTER_ADMIN}.union(*everyone))

    def known_as(self, owner: str) -> str:
        """An owner named by the cluster as the past knows them."""
        return self._names.get(owner, owner)

    def was_of(self, key: ServiceKey, user: str) -> bool:
        """Whether a service is, or was, known as a user's, if perhaps not theirs alone."""
        return user in self._of_service.get(key, ())

    def known_apart(self, span: Span) -> tuple[list[Span], list[Span]]:
        """What of a span it was looked at in, and the rest of it."""
        known = [part for one in self._known if (part := one.clip(span)).length_ns]
        return known, list(subtract(span, known))

    def namesakes(self, service: str) -> list[ServiceKey]:
        """Every service of a name that is known to exist or to have existed."""
        spaces = self._namespaces_of.get(service, ())
        return [ServiceKey(namespace, service) for namespace in sorted(spaces)]

    def placed(self, key: ServiceKey) -> ServiceKey | None:
        """The service a record is of; None where it names no namespace and that is not certain.

        Of a record without a namespace it is certain where there is, and ever was, exactly
        one service of its name, and the inventory was not cut short.
        """
        if key.namespace:
            return key
        same = self.namesakes(key.service)
        return same[0] if len(same) == 1 and self.inventory.whole else None

    def whose(self, key: ServiceKey, unknown_since_ns: int | None = None) -> Whose:
        """Whose the facts of a key are.

        With `unknown_since_ns` those of hours, from that instant on, that nobody looked at
        what was deployed in.
        """
        whose = self._whose(key)
        if unknown_since_ns is None or self._outlasts(key, unknown_since_ns):
            return whose
        perhaps = (whose.perhaps | {whose.owner}) - {""}
        return Whose(perhaps=perhaps, unrecorded=bool(key.namespace or key.service))

    def _outlasts(self, key: ServiceKey, since_ns: int) -> bool:
        """Whether a service, or its owner's namespace, is known to have been there since then."""
        if not key.namespace:
            return False
        created_ns = self.inventory.since_ns(key.namespace, key.service)
        return self._has_one_owner(key.namespace) or (
            created_ns is not None and created_ns <= since_ns
        )

    def _has_one_owner(self, namespace: str) -> bool:
        by_namespace = self._of_namespace.get(namespace, set())
        within = self._within.get(namespace, set())
        one_owner = len(by_namespace) == 1 and within <= by_namespace
        # Of an inventory that was cut short another's services may be missing.
        return one_owner and self.inventory.whole and CLUSTER_ADMIN not in by_namespace

    def _whose(self, key: ServiceKey) -> Whose:
        placed = self.placed(key)
        if placed is None:
            return self._of_any(self.namesakes(key.service), or_unrecorded=bool(key.service))
        by_namespace = self._of_namespace.get(placed.namespace, set())
        within = self._within.get(placed.namespace, set())
        if self._has_one_owner(placed.namespace):
            return Whose(owner=next(iter(by_namespace)))
        if by_service := self._of_service.get(placed, set()):
            if len(by_service) == 1:
                return Whose(owner=next(iter(by_service)))
            return Whose(perhaps=frozenset(by_service))
        if by_namespace == {CLUSTER_ADMIN} and placed not in self._of_service:
            # The shared namespace: what is of no known service is the administrator's. Usage
            # that no service could be found for may be of any that is, or was, there.
            perhaps = _NOBODY if placed.service else frozenset(within)
            return Whose(owner=CLUSTER_ADMIN, perhaps=perhaps, unrecorded=bool(placed.service))
        return Whose(perhaps=frozenset(by_namespace | within), unrecorded=True)

    def _of_any(self, keys: Iterable[ServiceKey], *, or_unrecorded: bool) -> Whose:
        found = [self._whose(key) for key in keys]
        perhaps = {name for whose in found for name in (whose.owner, *whose.perhaps)}
        return Whose(
            perhaps=frozenset(perhaps - {""}),
            unrecorded=or_unrecorded if not found else any(whose.unrecorded for whose in found),
        )


def _until_now(known: tuple[Span, ...], now_ns: int) -> tuple[Span, ...]:
    """The same, the last of them without an end where the current inventory goes on with it."""
    if not known or now_ns > known[-1].stop_ns + UNKNOWN_MOST_NS:
        return known
    return (*known[:-1], Span(known[-1].start_ns, _FOR_EVER_NS))
