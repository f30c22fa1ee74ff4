"""Asks sources for whole hours, as they are sealed: who is asked, and what stands in.

The same sources in the same order as for a report, so that sealed equals live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

import msgspec

from oscar_metrics.facts import Inventory, LogStream, Roster, SlottedLog
from oscar_metrics.ledger.candidates import hours_of, of_calls, of_inventory, of_usage, why_missing
from oscar_metrics.ledger.seals import KIND_OF, Candidate, SealKind
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Ok, Outcome, Unavailable
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.guarding import guarded
from oscar_metrics.sources.interfaces import LogSource, Sources
from oscar_metrics.timerange import SECOND_NS, Span, format_instant

F = TypeVar("F")
Asked = dict[SealKind, list[Candidate]]

_STREAM_OF = {kind: stream for stream, kind in KIND_OF.items()}
# What is deployed is asked for once for all questions of this time.
_INVENTORY_AGE_NS = 60 * SECOND_NS
# How long past the deadline a source may take to hand over what it has.
_HAND_OVER_SECONDS = 5.0
_KEPT_WITHIN_SECONDS = 30.0


class SealerSources:
    """The configured sources, asked for candidates. Raises LedgerError and nothing else."""

    def __init__(self, sources: Sources, store: LedgerStore) -> None:
        self._sources = sources
        self._store = store
        self._inventory: tuple[int, Outcome[Inventory]] | None = None
        logs = (SealKind.EXECUTIONS, SealKind.EXPOSED) if sources.logs else ()
        usage = (SealKind.USAGE,) if sources.usage else ()
        inventory = (SealKind.INVENTORY,) if sources.inventory else ()
        # What is sealed: what somebody can be asked for.
        self.kinds: tuple[SealKind, ...] = (*logs, *usage, *inventory)

    async def ask(
        self,
        kinds: frozenset[SealKind],
        span: Span,
        *,
        now_ns: int,
        within_seconds: float,
        stand_in: bool,
    ) -> tuple[Asked, dict[SealKind, str]]:
        """A candidate for each hour of the span, by kind, and why there is none (in words).

        `kinds` are asked together (`looks.TOGETHER`). With `stand_in` the second request log
        is read for hours of which the first says nothing.
        """
        deadline = asyncio.get_running_loop().time() + within_seconds
        if SealKind.INVENTORY in kinds:
            outcome = await self._read_inventory(now_ns, deadline)
            candidate = of_inventory(outcome, hours_of(span)[-1])
            asked = {} if candidate is None else {SealKind.INVENTORY: [candidate]}
            return asked, _words({SealKind.INVENTORY: outcome})
        if SealKind.USAGE in kinds:
            usage = await self._usage(span, now_ns, deadline)
            return {SealKind.USAGE: of_usage(usage, span)}, _words({SealKind.USAGE: usage})
        return await self._calls(kinds, span, now_ns, deadline, stand_in=stand_in)

    async def kept_from(self, now_ns: int) -> dict[SealKind, int]:
        """From when on each kind's source still has everything (ns), where it can tell."""
        deadline = asyncio.get_running_loop().time() + _KEPT_WITHIN_SECONDS
        kept: dict[SealKind, int] = {}
        for source in (self._sources.logs, self._sources.usage):
            if source is None:
                continue
            answer = await _guarded("", source.kept_from(now_ns, deadline), deadline)
            if isinstance(answer, int):
                kinds = _STREAM_OF if source is self._sources.logs else (SealKind.USAGE,)
                kept |= dict.fromkeys(kinds, answer)
        return kept

    async def _calls(
        self,
        kinds: frozenset[SealKind],
        span: Span,
        now_ns: int,
        deadline: float,
        *,
        stand_in: bool,
    ) -> tuple[Asked, dict[SealKind, str]]:
        sources = self._sources
        roster = await _guarded("file", sources.roster.read(now_ns), deadline)
        await asyncio.to_thread(sources.geoip.refresh)
        known = Roster() if isinstance(roster, Unavailable) else roster.facts
        countries = Countries(sources.geoip, known)
        streams = frozenset(_STREAM_OF[kind] for kind in kinds)
        said = await _read(sources.logs, streams, countries, span, now_ns, deadline)
        found = {kind: of_calls(kind, outcome, span) for kind, outcome in said.items()}
        silent = [kind for kind, outcome in said.items() if isinstance(outcome, Unavailable)]
        if stand_in and silent and sources.fallback_logs is not None:
            streams = frozenset(_STREAM_OF[kind] for kind in silent)
            instead = await _read(sources.fallback_logs, streams, countries, span, now_ns, deadline)
            for kind, outcome in instead.items():
                note = f"read instead of {said[kind].origin}, which said nothing of it"
                found[kind] = _instead(found[kind], of_calls(kind, outcome, span), note)
        return found, _words(said)

    async def _usage(self, span: Span, now_ns: int, deadline: float) -> Outcome[Any]:
        source = self._sources.usage
        if source is None:
            return Unavailable(origin="", notes=("no source of usage is configured",))
        inventory = await self._known_services(now_ns, deadline)
        answer = source.read_slots(span, inventory, now_ns=now_ns, deadline=deadline)
        return await _guarded("prometheus", answer, deadline)

    async def _known_services(self, now_ns: int, deadline: float) -> Outcome[Inventory]:
        """What is deployed; what was when last sealed where the cluster does not answer."""
        outcome = await self._read_inventory(now_ns, deadline)
        if self._sources.inventory is None or not isinstance(outcome, Unavailable):
            return outcome
        sealed = await self._store.inventory(as_of_ns=now_ns)
        if sealed is None:
            return outcome
        note = f"services as they were at {format_instant(sealed[1])}"
        return Ok(facts=sealed[0], origin="ledger", notes=(note,), last_updated_ns=sealed[1])

    async def _read_inventory(self, now_ns: int, deadline: float) -> Outcome[Inventory]:
        source = self._sources.inventory
        if source is None:
            return Unavailable(origin="", notes=("no Kubernetes cluster is configured",))
        if self._inventory is not None:
            read_ns, outcome = self._inventory
            if 0 <= now_ns - read_ns < _INVENTORY_AGE_NS:
                return outcome
        answer = source.read(now_ns=now_ns, deadline=deadline)
        outcome = await _guarded("kubernetes", answer, deadline)
        self._inventory = None if isinstance(outcome, Unavailable) else (now_ns, outcome)
        return outcome


async def _read(
    source: LogSource | None,
    streams: frozenset[LogStream],
    countries: Countries,
    span: Span,
    now_ns: int,
    deadline: float,
) -> dict[SealKind, Outcome[SlottedLog]]:
    if source is None:
        nobody = Unavailable(origin="", notes=("no request log is configured",))
        return {KIND_OF[stream]: nobody for stream in streams}
    answer = source.read_slots(span, streams, countries, now_ns=now_ns, deadline=deadline)
    said = await _guarded(source.origin, answer, deadline)
    if isinstance(said, Unavailable):
        return {KIND_OF[stream]: said for stream in streams}
    return {KIND_OF[stream]: outcome for stream, outcome in said.items()}


def _instead(first: Iterable[Candidate], second: Iterable[Candidate], note: str) -> list[Candidate]:
    """The second's hours where it says something of them, else the first's."""
    return [
        one
        if why_missing(other)
        else msgspec.structs.replace(other, notes=(*other.notes, note), stands_in=True)
        for one, other in zip(first, second, strict=True)
    ]


def _words(said: dict[SealKind, Any]) -> dict[SealKind, str]:
    """Of each kind that nothing was said of at all, why."""
    return {
        kind: "; ".join(outcome.notes) or "nothing could be read"
        for kind, outcome in said.items()
        if isinstance(outcome, Unavailable)
    }


async def _guarded(origin: str, answer: Awaitable[F], deadline: float) -> F | Unavailable:
    with asking_for(Asker(deadline)):
        return await guarded(origin, answer, deadline + _HAND_OVER_SECONDS)
