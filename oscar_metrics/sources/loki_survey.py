"""What one Loki can say of a span: which stretches are counted, and why not the rest.

Silence is no evidence. A quarter of an hour without a call counts as zero only where the
stream has some line of any kind; otherwise it is a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.logql import LogQuery, lines_by_slot
from oscar_metrics.sources.loki_api import LokiApi, LokiSettings, ServerLimits
from oscar_metrics.sources.loki_paging import HOPELESS
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Span, subtract, windows

# Loki takes lines that are a little ahead of its clock.
_AHEAD_NS = HOUR_NS
# Below this, looking for empty stretches costs more than paging them.
_WORTH_LOOKING_NS = 2 * DAY_NS
_MONTH_NS = 30 * DAY_NS
_OURS = frozenset({GapReason.DEADLINE, GapReason.FAILED, GapReason.TOO_DENSE})
_SLOTS_A_DAY = DAY_NS // SLOT_NS
# Until then ingesters may hold late lines that queries do not see (facts.md §4).
_LATE_NS = 6 * HOUR_NS


class Counting(Protocol):
    """Something that counts what lies in spans, and can say at any time how far it came."""

    async def read(self, spans: Iterable[Span]) -> None:
        """Count what lies in the spans."""

    @property
    def slots(self) -> set[int]:
        """The quarter-hours with any line."""

    @property
    def gaps(self) -> list[Gap]:
        """What had to be left out within `counted`."""

    @property
    def reasons(self) -> set[Reason]:
        """Why something failed."""

    @property
    def counted(self) -> list[Span]:
        """What was counted whole, but for `gaps`."""


class Survey:
    """One look at the streams of `query` over `asked`, up to now and a little further.

    After `run`: `gaps`, the `reasons` of failures, `doubts`, and whether there is anything it
    speaks for.
    """

    def __init__(
        self, api: LokiApi, settings: LokiSettings, query: LogQuery, asked: Span, now_ns: int
    ) -> None:
        self.reachable = asked.clip(Span(asked.start_ns, max(asked.start_ns, now_ns)))
        self.gaps: list[Gap] = []
        self.reasons: set[Reason] = set()
        # What Loki itself says that its answers leave in doubt.
        self.doubts: set[str] = set()
        self._api = api
        self._settings = settings
        self._query = query
        self._now_ns = now_ns
        everything = asked.clip(Span(asked.start_ns, now_ns + _AHEAD_NS))
        known = api.known
        # Loki cuts a question silently where it may not look any more.
        oldest_ns = _reaches_back_to(known.lookback_ns, now_ns)
        self._readable = everything.clip(Span(oldest_ns, everything.stop_ns))
        # What lies before this may be deleted in part: it is read, and not relied on.
        kept_ns = _reaches_back_to(known.retention_ns, now_ns)
        self._forgotten = Span(asked.start_ns, max(oldest_ns, kept_ns, asked.start_ns))
        self._inhabited: list[Span] = []
        self._empty: list[Span] = []

    async def run(self, counting: Counting, deadline: float | None) -> None:
        """Count what can be counted before the deadline, then look at what stayed silent."""
        life = _Life(self._api, self._query, self._settings.limits.places_of_one)
        unfinished = GapReason.FAILED
        try:
            async with asyncio.timeout_at(deadline):
                await self._find_inhabited()
                await counting.read(self._inhabited)
                await self._look_for_life(life, counting)
        except TimeoutError:
            unfinished = GapReason.DEADLINE
        self.reasons |= counting.reasons | life.reasons
        gaps = [Gap(span=self._forgotten, reason=GapReason.RETENTION)]
        for gap in counting.gaps:
            failed = gap.reason is GapReason.FAILED
            gaps.append(Gap(span=gap.span, reason=unfinished) if failed else gap)
        relied_on = subtract(self._readable, [self._forgotten])
        for span in relied_on:
            gaps += [Gap(span=part.clip(span), reason=GapReason.NO_LINES) for part in self._empty]
            uncounted = subtract(span, [*self._empty, *counting.counted])
            gaps += [Gap(span=part, reason=unfinished) for part in uncounted]
        for slot in self._quiet(counting):
            if slot not in life.alive:
                reason = GapReason.NO_LINES if slot in life.silent else unfinished
                gaps.append(Gap(span=_span(slot), reason=reason))
        self.gaps = gaps

    @property
    def speaks(self) -> bool:
        """Whether there is a stretch that can be spoken for, or nothing to speak of."""
        missing = [gap.span for gap in self.gaps]
        return not self.reachable.length_ns or bool(subtract(self.reachable, missing))

    @property
    def silent(self) -> bool:
        """Whether silence is all there is to say, and no failure is to blame."""
        kinds = self._kinds()
        return (
            not self.reasons
            and not self.doubts
            and GapReason.NO_LINES in kinds
            and not kinds & _OURS
        )

    @property
    def why_not(self) -> tuple[str, ...]:
        """Sentences for why there is no stretch to speak for."""
        kinds = sorted(self._kinds())
        why = failures(self.reasons) or [f"all of the range: {kind}" for kind in kinds]
        return (*why, *sorted(self.doubts))

    @property
    def may_grow(self) -> bool:
        """Whether lines that came late may still be invisible in the span."""
        return self.reachable.stop_ns > self._now_ns - _LATE_NS

    def _kinds(self) -> set[GapReason]:
        return {gap.reason for gap in self.gaps if gap.span.clip(self.reachable).length_ns}

    async def _find_inhabited(self) -> None:
        """Leave out what the index knows to be empty.

        Only where the index has been told of everything by now, and only whole days. What
        could not be looked up counts as inhabited: paging it gives the right answer too.
        """
        settled_ns = self._now_ns - self._settings.index_settled_seconds * SECOND_NS
        start_ns = -(-self._readable.start_ns // DAY_NS) * DAY_NS
        settled = Span(start_ns, min(settled_ns, self._readable.stop_ns) // DAY_NS * DAY_NS)
        if settled.length_ns >= _WORTH_LOOKING_NS:
            month_ns = min(_MONTH_NS, self._api.known.query_length_ns or _MONTH_NS)
            month_ns = max(DAY_NS, month_ns // DAY_NS * DAY_NS)
            await self._look_for_empty(windows(settled, month_ns))
            rest = subtract(settled, self._empty)
            await self._look_for_empty(day for part in rest for day in windows(part, DAY_NS))
        self._inhabited = subtract(self._readable, self._empty)

    async def _look_for_empty(self, spans: Iterable[Span]) -> None:
        waiting = iter(spans)

        async def look() -> None:
            for span in waiting:
                try:
                    if not await self._api.streams_in_index(self._query, span):
                        self._empty.append(span)
                except UpstreamError:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.limits.places_of_one):
                group.create_task(look())

    def _quiet(self, counting: Counting) -> list[int]:
        """The slots that were counted, up to now, and showed no line; sorted."""
        counted = subtract(self.reachable, [self._forgotten, *self._uncounted(counting)])
        return sorted({slot for span in counted for slot in _slots(span)} - counting.slots)

    def _uncounted(self, counting: Counting) -> list[Span]:
        return [
            *self._empty,
            *(gap.span for gap in counting.gaps),
            *subtract(self.reachable, counting.counted),
        ]

    async def _look_for_life(self, life: _Life, counting: Counting) -> None:
        quiet = self._quiet(counting)
        present = self._now_ns // SLOT_NS
        just_begun = quiet[-1:] == [present]
        await life.look([present - 1, *quiet] if just_begun else quiet)
        if just_begun and present - 1 in life.alive | counting.slots:
            # A slot that has only just begun is as alive as the one before.
            life.alive.add(present)


class _Life:
    """In which slots some streams have a line of any kind, and in which they have none."""

    def __init__(self, api: LokiApi, query: LogQuery, concurrency: int) -> None:
        self.alive: set[int] = set()
        self.silent: set[int] = set()
        self.reasons: set[Reason] = set()
        self._api = api
        self._expression = lines_by_slot(query)
        self._narrowing = api.narrowing("any line", query.selector, least=1)
        self._concurrency = concurrency

    async def look(self, slots: Iterable[int]) -> None:
        """One question for each day with such slots, from its first to its last."""
        days: dict[int, tuple[int, int]] = {}
        for slot in slots:
            first, last = days.get(slot // _SLOTS_A_DAY, (slot, slot))
            days[slot // _SLOTS_A_DAY] = min(first, slot), max(last, slot)
        waiting = list(days.values())

        async def work() -> None:
            while waiting:
                first, last = waiting.pop()
                count = self._narrowing.amount(last + 1 - first)
                if first + count <= last:
                    waiting.append((first + count, last))
                    last = first + count - 1
                try:
                    await self._narrowing.ask(count, self._ask(first, last))
                except UpstreamError as exc:
                    if self._narrowing.may_be_less(exc, count):
                        waiting.append((first, last))
                        continue
                    self.reasons.add(exc.reason)
                    if exc.reason in HOPELESS:
                        waiting.clear()

        async with asyncio.TaskGroup() as group:
            for _ in range(self._concurrency):
                group.create_task(work())

    async def _ask(self, first: int, last: int) -> None:
        series = await self._api.by_step(
            self._expression, (first + 1) * SLOT_NS, (last + 1) * SLOT_NS, SLOT_NS
        )
        alive = {slot_ending(seconds) for group in series for seconds, _ in group.values}
        self.alive |= alive
        self.silent.update(set(range(first, last + 1)) - alive)


def slot_ending(seconds: float) -> int:
    """The slot that ends at a time Loki gave, seconds since the epoch."""
    return round(seconds * SECOND_NS) // SLOT_NS - 1


def kept_from_ns(known: ServerLimits, now_ns: int) -> int | None:
    """The first instant that a Loki of these limits can be relied on to know; None for any."""
    kept_ns = max(_reaches_back_to(ns, now_ns) for ns in (known.lookback_ns, known.retention_ns))
    return kept_ns or None


def failures(reasons: Iterable[Reason]) -> list[str]:
    """Sentences for what went wrong."""
    return [f"Loki {REASON_TEXT[reason]}" for reason in sorted(reasons)]


def _reaches_back_to(limit_ns: int | None, now_ns: int) -> int:
    """The oldest instant that is within a limit now and still will be when it is asked for."""
    return now_ns - limit_ns + SLOT_NS if limit_ns else 0


def _slots(span: Span) -> range:
    return range(span.start_ns // SLOT_NS, -(-span.stop_ns // SLOT_NS))


def _span(slot: int) -> Span:
    return Span(slot * SLOT_NS, (slot + 1) * SLOT_NS)
