"""What of sources' facts is in a scope: calls, usage, and what is withheld. Pure.

Nothing is summed before it has been here.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec

from oscar_metrics.discretion import NOT_ALL_KNOWN, WITHHELD, discreet
from oscar_metrics.facts import CallLog, HiddenUser, ServiceKey, Tallies, Usage
from oscar_metrics.outcome import Outcome, Unavailable, with_doubts, with_facts
from oscar_metrics.ownership import Ownership
from oscar_metrics.scope import Access, Scope
from oscar_metrics.sums import CallSums, Grouping, of_slots, of_tallies, together
from oscar_metrics.timerange import Span
from oscar_metrics.usage_sums import UsageByPeriod

F = TypeVar("F")

# Whether the facts of a service are wanted.
Only = Callable[[ServiceKey], bool]
# Reads the sums of calls by some groupings, of some services or of all.
Read = Callable[[Collection[Grouping], Only | None], Awaitable[Outcome[CallSums]]]


# The namespace of what is nobody's, in reports of the cluster; none can have this name.
UNTOLD = "?"


class Sight:
    """Facts as one report's caller sees them; everything without a scope.

    `bounds_ns` are those of the report's periods. `ownership` is for a report of the cluster
    that tells whose everything is: what cannot be told is in the namespace UNTOLD. Where an
    argument is called `unknown_since_ns`, it is what `since` says of the stretches.
    """

    def __init__(
        self, scope: Scope | None, bounds_ns: Sequence[int], ownership: Ownership | None = None
    ) -> None:
        self._scope = scope
        self._bounds_ns = bounds_ns
        self._ownership = ownership if scope is None else scope.ownership

    def apart(self, spans: Sequence[Span]) -> list[tuple[Span, ...]]:
        """Stretches that are seen alike: those that it was looked at what was deployed in, or not.

        What comes of each is read for itself.
        """
        if self._ownership is None:
            return [tuple(spans)] if spans else []
        known, unknown = [], []
        for span in spans:
            looked_at, rest = self._ownership.known_apart(span)
            known += looked_at
            unknown += rest
        return [tuple(part) for part in (known, unknown) if part]

    def since(self, spans: Sequence[Span]) -> int | None:
        """From when on nobody looked at it, of stretches that are seen alike; None: it was."""
        if self._ownership is None:
            return None
        unknown = (self._ownership.known_apart(span)[1] for span in spans)
        return next((rest[0].start_ns for rest in unknown if rest), None)

    def told(self, outcome: Outcome[F]) -> Outcome[F]:
        """An outcome in words that the caller may read."""
        if self._scope is None:
            return outcome
        if not self._scope.whole:
            outcome = with_doubts(outcome, [NOT_ALL_KNOWN])
        return self._discreet(outcome)

    def calls(
        self,
        log: Outcome[Any],
        groupings: Collection[Grouping],
        unknown_since_ns: int | None,
        service: str | None = None,
    ) -> Outcome[CallSums]:
        """The sums of a CallLog or a SlottedLog, of one service name or of all."""
        if isinstance(log, Unavailable):
            return self._discreet(log)

        def sums(wanted: Collection[Grouping], only: Only | None) -> CallSums:
            return self._sums(log.facts, wanted, only, service)

        scope = self._scope
        if scope is None:
            if self._ownership is None or unknown_since_ns is None:
                return with_facts(log, sums(groupings, None))
            told, untold = self._by_telling(unknown_since_ns)
            both = [sums(groupings, told), _untold(sums(groupings, untold))]
            return with_facts(log, together(both, groupings))
        own = with_facts(log, sums(groupings, scope.only(Access.OWN, unknown_since_ns)))
        others = None
        if scope.sees_others:
            others = sums(groupings, scope.only(Access.VISIBLE, unknown_since_ns))
        doubtful = sums([()], scope.only(Access.DOUBT, unknown_since_ns))
        return self._together(own, others, doubtful, groupings)

    async def stored_calls(
        self, read: Read, groupings: Collection[Grouping], unknown_since_ns: int | None
    ) -> Outcome[CallSums]:
        """The same of what `read` gives."""
        scope = self._scope
        if scope is None:
            if self._ownership is None or unknown_since_ns is None:
                return await read(groupings, None)
            told, untold = self._by_telling(unknown_since_ns)
            first, second = await read(groupings, told), await read(groupings, untold)
            if isinstance(first, Unavailable) or isinstance(second, Unavailable):
                return first if isinstance(first, Unavailable) else second
            return with_facts(first, together([first.facts, _untold(second.facts)], groupings))
        own = await read(groupings, scope.only(Access.OWN, unknown_since_ns))
        others = None
        if scope.sees_others:
            others = await read(groupings, scope.only(Access.VISIBLE, unknown_since_ns))
        doubtful = await read([()], scope.only(Access.DOUBT, unknown_since_ns))
        for outcome in (own, others, doubtful):
            if isinstance(outcome, Unavailable):
                return self._discreet(outcome)
        return self._together(own, _facts(others), _facts(doubtful), groupings)

    def usage(
        self,
        outcome: Outcome[UsageByPeriod],
        unknown_since_ns: int | None,
        service: str | None = None,
    ) -> Outcome[UsageByPeriod]:
        """The usage of services that are seen, of one service name or of all."""
        if isinstance(outcome, Unavailable):
            return self._discreet(outcome)
        if self._ownership is None or (self._scope is None and unknown_since_ns is None):
            return outcome
        if self._scope is None:
            _, untold = self._by_telling(unknown_since_ns)
            marked = {p: _untold_usage(usage, untold) for p, usage in outcome.facts.items()}
            return with_facts(outcome, marked)
        access = functools.partial(self._scope.of, unknown_since_ns=unknown_since_ns)
        wanted = {period: _of_service(usage, service) for period, usage in outcome.facts.items()}
        seen = {p: _kept(usage, lambda key: access(key) in _SEEN) for p, usage in wanted.items()}
        doubtful = any(
            value and access(key) is Access.DOUBT
            for usage in wanted.values()
            for seconds in (usage.cpu_seconds or {}, usage.gpu_seconds or {})
            for key, value in seconds.items()
        )
        return self._discreet(with_doubts(with_facts(outcome, seen), [WITHHELD] * doubtful))

    def _by_telling(self, unknown_since_ns: int | None) -> tuple[Only, Only]:
        """Whether it can be told whose a key is, and whether it cannot."""

        def told(key: ServiceKey) -> bool:
            ownership = self._ownership
            return ownership is None or bool(ownership.whose(key, unknown_since_ns).owner)

        return told, lambda key: not told(key)

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
            both = together([own.facts, _of_others(others)], groupings)
            own = with_facts(own, both)
        withheld = doubtful is not None and any(doubtful.groups.values())
        return self._discreet(with_doubts(own, [WITHHELD] * withheld))

    def _sums(
        self, log: Any, groupings: Collection[Grouping], only: Only | None, service: str | None
    ) -> CallSums:
        if isinstance(log, CallLog):
            return of_tallies(_of(log, only, service).tallies, groupings)
        parts = {part: _of(one, only, service) for part, one in log.items()}
        return of_slots(parts, groupings, self._bounds_ns)


_SEEN = (Access.OWN, Access.VISIBLE)


def _of(log: CallLog, only: Only | None, service: str | None) -> CallLog:
    """The calls of a log that are wanted."""
    if only is None and service is None:
        return log
    tallies: Tallies = Counter()
    for key, count in log.tallies.items():
        if service not in (None, key.service):
            continue
        if only is None or only(ServiceKey(key.namespace, key.service)):
            tallies[key] = count
    return msgspec.structs.replace(log, tallies=tallies)


def _untold(sums: CallSums) -> CallSums:
    """The same sums, in no namespace that is anybody's."""
    groups: dict[Grouping, Counter[tuple[Any, ...]]] = {}
    for grouping, counts in sums.groups.items():
        groups[grouping] = counts
        if "namespace" in grouping:
            at = grouping.index("namespace")
            marked: Counter[tuple[Any, ...]] = Counter()
            for key, count in counts.items():
                marked[*key[:at], UNTOLD, *key[at + 1 :]] += count
            groups[grouping] = marked
    return CallSums(groups=groups)


def _untold_usage(usage: Usage, untold: Only) -> Usage:
    def marked(seconds: dict[ServiceKey, float] | None) -> dict[ServiceKey, float] | None:
        if seconds is None:
            return None
        sums: defaultdict[ServiceKey, list[float]] = defaultdict(list)
        for key, value in seconds.items():
            sums[ServiceKey(UNTOLD, key.service) if untold(key) else key].append(value)
        return {key: math.fsum(values) for key, values in sums.items()}

    return msgspec.structs.replace(
        usage, cpu_seconds=marked(usage.cpu_seconds), gpu_seconds=marked(usage.gpu_seconds)
    )


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


def _of_others(sums: CallSums) -> CallSums:
    """The same sums, of others' services: users are counted and not shown.

    Namespaces are left out, since OSCAR makes their names of their owners' ids.
    """
    groups: dict[Grouping, Counter[tuple[Any, ...]]] = {}
    for grouping, counts in sums.groups.items():
        hidden: Counter[tuple[Any, ...]] = Counter()
        for key, count in counts.items():
            hidden[tuple(map(_hidden, grouping, key))] += count
        groups[grouping] = hidden
    return CallSums(groups=groups)


def _hidden(field: str, value: Any) -> Any:
    if field == "user" and value:
        return HiddenUser(value)
    return "" if field == "namespace" else value


def _facts(outcome: Outcome[F] | None) -> F | None:
    return None if outcome is None or isinstance(outcome, Unavailable) else outcome.facts
