"""What of sources' facts is in a scope: calls, usage, and what is withheld. Pure.

Nothing is summed before it has been here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec

from oscar_metrics.discretion import NOT_ALL_KNOWN, WITHHELD, discreet
from oscar_metrics.facts import CallLog, HiddenUser, ServiceKey, Tallies, Usage
from oscar_metrics.outcome import Outcome, Unavailable, with_doubts, with_facts
from oscar_metrics.scope import Access, Scope
from oscar_metrics.sums import CallSums, Grouping, of_slots, of_tallies, together
from oscar_metrics.usage_sums import UsageByPeriod

F = TypeVar("F")

# Whether the facts of a service are wanted.
Only = Callable[[ServiceKey], bool]
# Reads the sums of calls by some groupings, of some services or of all.
Read = Callable[[Collection[Grouping], Only | None], Awaitable[Outcome[CallSums]]]


class Sight:
    """Facts as one report's caller sees them; everything without a scope.

    `bounds_ns` are those of the report's periods.
    """

    def __init__(self, scope: Scope | None, bounds_ns: Sequence[int]) -> None:
        self._scope = scope
        self._bounds_ns = bounds_ns

    def told(self, outcome: Outcome[F]) -> Outcome[F]:
        """An outcome in words that the caller may read."""
        if self._scope is None:
            return outcome
        if not self._scope.whole:
            outcome = with_doubts(outcome, [NOT_ALL_KNOWN])
        return self._discreet(outcome)

    def calls(
        self, log: Outcome[Any], groupings: Collection[Grouping], service: str | None = None
    ) -> Outcome[CallSums]:
        """The sums of a CallLog or a SlottedLog, of one service name or of all."""
        if isinstance(log, Unavailable):
            return self._discreet(log)
        own = with_facts(log, self._sums(log.facts, groupings, Access.OWN, service))
        if self._scope is None:
            return own
        others = None
        if self._scope.sees_others:
            others = self._sums(log.facts, groupings, Access.VISIBLE, service)
        doubtful = self._sums(log.facts, [()], Access.DOUBT, service)
        return self._together(own, others, doubtful, groupings)

    async def stored_calls(self, read: Read, groupings: Collection[Grouping]) -> Outcome[CallSums]:
        """The same of what `read` gives."""
        scope = self._scope
        if scope is None:
            return await read(groupings, None)
        own = await read(groupings, scope.only(Access.OWN))
        others = doubtful = None
        if scope.sees_others:
            others = await read(groupings, scope.only(Access.VISIBLE))
        doubtful = await read([()], scope.only(Access.DOUBT))
        for outcome in (own, others, doubtful):
            if isinstance(outcome, Unavailable):
                return self._discreet(outcome)
        return self._together(own, _facts(others), _facts(doubtful), groupings)

    def usage(
        self, outcome: Outcome[UsageByPeriod], service: str | None = None
    ) -> Outcome[UsageByPeriod]:
        """The usage of services that are seen, of one service name or of all."""
        if self._scope is None or isinstance(outcome, Unavailable):
            return self._discreet(outcome)
        wanted = {period: _of_service(usage, service) for period, usage in outcome.facts.items()}
        seen = {period: self._seen(usage) for period, usage in wanted.items()}
        doubtful = any(self._may_lack(usage) for usage in wanted.values())
        return self._discreet(with_doubts(with_facts(outcome, seen), [WITHHELD] * doubtful))

    def _discreet(self, outcome: Outcome[F]) -> Outcome[F]:
        # Of every stretch before they are joined: only so many sentences of a range are kept,
        # and what others' stretches have to say must not take the place of what is withheld.
        if self._scope is None or not self._scope.discreet:
            return outcome
        return discreet(outcome)

    def _together(
        self,
        own: Outcome[CallSums],
        others: CallSums | None,
        doubtful: CallSums | None,
        groupings: Collection[Grouping],
    ) -> Outcome[CallSums]:
        if isinstance(own, Unavailable):
            return own
        if others is not None:
            both = together([own.facts, _with_hidden_users(others)], groupings)
            own = with_facts(own, both)
        withheld = doubtful is not None and any(doubtful.groups.values())
        return self._discreet(with_doubts(own, [WITHHELD] * withheld))

    def _sums(
        self, log: Any, groupings: Collection[Grouping], access: Access, service: str | None
    ) -> CallSums:
        if isinstance(log, CallLog):
            return of_tallies(self._of(log, access, service).tallies, groupings)
        parts = {part: self._of(one, access, service) for part, one in log.items()}
        return of_slots(parts, groupings, self._bounds_ns)

    def _of(self, log: CallLog, access: Access, service: str | None) -> CallLog:
        """The calls of a log that are seen so."""
        scope = self._scope
        if scope is None and service is None:
            return log
        tallies: Tallies = Counter()
        for key, count in log.tallies.items():
            if service not in (None, key.service):
                continue
            if scope is None or scope.of(ServiceKey(key.namespace, key.service)) is access:
                tallies[key] = count
        return msgspec.structs.replace(log, tallies=tallies)

    def _seen(self, usage: Usage) -> Usage:
        return _kept(usage, lambda key: self._access(key) in _SEEN)

    def _may_lack(self, usage: Usage) -> bool:
        measures = (usage.cpu_seconds or {}, usage.gpu_seconds or {})
        return any(
            value and self._access(key) is Access.DOUBT
            for seconds in measures
            for key, value in seconds.items()
        )

    def _access(self, key: ServiceKey) -> Access:
        return Access.OWN if self._scope is None else self._scope.of(key)


_SEEN = (Access.OWN, Access.VISIBLE)


def _of_service(usage: Usage, service: str | None) -> Usage:
    return usage if service is None else _kept(usage, lambda key: key.service == service)


def _kept(usage: Usage, only: Only) -> Usage:
    def kept(seconds: dict[ServiceKey, float] | None) -> dict[ServiceKey, float] | None:
        if seconds is None:
            return None
        return {key: value for key, value in seconds.items() if only(key)}

    return msgspec.structs.replace(
        usage, cpu_seconds=kept(usage.cpu_seconds), gpu_seconds=kept(usage.gpu_seconds)
    )


def _with_hidden_users(sums: CallSums) -> CallSums:
    """The same sums, whose users are counted and not shown; nobody named stays nobody."""
    groups = dict(sums.groups)
    for grouping, counts in sums.groups.items():
        if "user" in grouping:
            at = grouping.index("user")
            groups[grouping] = Counter(
                {
                    (*key[:at], HiddenUser(key[at]), *key[at + 1 :]) if key[at] else key: count
                    for key, count in counts.items()
                }
            )
    return CallSums(groups=groups)


def _facts(outcome: Outcome[F] | None) -> F | None:
    return None if outcome is None or isinstance(outcome, Unavailable) else outcome.facts
