"""Sealing the past on purpose: day by day, newest first, as far as sources reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from oscar_metrics.ledger.candidates import hours_of
from oscar_metrics.ledger.looks import EMPTY_DAYS, TOGETHER, Looks, Rank, Work, next_work
from oscar_metrics.ledger.sealer_piece import Done, KindState
from oscar_metrics.ledger.seals import SealHead, SealKind, Verdict
from oscar_metrics.ledger.store import Progress
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span, format_instant, windows

# Questions in a row that fail before a source is left in peace: a day, its half, … an hour.
_FAILURES = 5


class BackfilledKind(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the hours of one kind.

    `final` were sealed for good before, `not_kept` are older than the source keeps, of
    `failed` it could say nothing this time. `stopped` is why older hours were not asked for.
    """

    verdicts: dict[Verdict, int] = {}
    final: int = 0
    not_kept: int = 0
    failed: int = 0
    stopped: str = ""

    def __str__(self) -> str:
        parts = [f"{count:,} {verdict}" for verdict, count in self.verdicts.items()]
        parts += [
            f"{count:,} {word}"
            for count, word in (
                (self.final, "were final"),
                (self.not_kept, "not kept by the source"),
                (self.failed, "could not be read"),
            )
            if count
        ]
        hours = f"hours: {', '.join(parts)}" if parts else "no hour"
        return f"{hours}; stopped: {self.stopped}" if self.stopped else hours


class Backfilled(msgspec.Struct, frozen=True, kw_only=True):
    """What a backfill came to, by kind; an inventory has no past."""

    kinds: dict[SealKind, BackfilledKind]

    def __str__(self) -> str:
        lines = [f"{kind}: {came_to}" for kind, came_to in self.kinds.items()]
        return "\n".join(lines) or "no source that keeps a past is configured"


class Backfill:
    """One backfill: its questions are asked by `do`, one after the other."""

    def __init__(
        self,
        span: Span,
        states: dict[SealKind, KindState],
        looks: Looks,
        *,
        read_heads: Callable[[Iterable[SealKind], Span], Awaitable[None]],
        do: Callable[[Work], Awaitable[Done]],
        now_ns: int,
    ) -> None:
        self._span = span
        self._states = states
        self._looks = looks
        self._read_heads = read_heads
        self._do = do
        self._now_ns = now_ns
        self._counts: dict[SealKind, _Counts] = {
            kind: _Counts() for kind in states if kind is not SealKind.INVENTORY
        }

    async def run(self, progress: Progress) -> Backfilled:
        """Ask for every hour that is not final; raises LedgerError."""
        newest_ns = (self._looks.newest_due(self._now_ns) + 1) * HOUR_NS
        days = list(windows(Span(self._span.start_ns, min(self._span.stop_ns, newest_ns)), DAY_NS))
        for done, day in enumerate(reversed(days)):
            progress(done, len(days), format_instant(day.start_ns)[:10])
            for kinds in TOGETHER:
                going = [k for k in kinds if k in self._counts and not self._counts[k].stopped]
                if going:
                    await self._day(day, going)
        progress(len(days), len(days), "done")
        return Backfilled(kinds={kind: count.report() for kind, count in self._counts.items()})

    async def _day(self, day: Span, kinds: Iterable[SealKind]) -> None:
        kinds = list(kinds)
        await self._read_heads(kinds, day)
        left = {kind: self._wanted(kind, day) for kind in kinds}
        while any(left.values()):
            due = {kind: dict.fromkeys(hours, Rank.HOLE) for kind, hours in left.items()}
            work = next_work(due, lambda kind, hour: self._states[kind].hours_most(hour))
            if work is None:
                break
            done = await self._do(work)
            one_hour = work.first == work.last
            for kind in work.kinds:
                counts, asked = self._counts[kind], set(hours_of(work.span))
                failed = {hour for k, hour in done.failed if k is kind}
                again = {hour for k, hour in done.again if k is kind}
                left[kind] -= asked if one_hour else asked - failed - again
                counts.failures = counts.failures + 1 if failed == asked else 0
                counts.failed += len(failed) if one_hour else 0
                counts.not_kept += sum(k is kind for k, _ in done.gone)
                counts.verdicts.update(j.verdict for j in done.judged if j.kind is kind)
                if counts.failures >= _FAILURES:
                    error = self._states[kind].last_error or "nothing could be read"
                    counts.stopped = f"the last {_FAILURES} questions failed: {error}"
                    counts.failed += len(left[kind])
                    left[kind] = set()
        for kind in kinds:
            self._look_back(kind, day)

    def _wanted(self, kind: SealKind, day: Span) -> set[int]:
        """The hours of a day that are worth asking for."""
        hours = set(hours_of(day))
        heads = self._heads_of(kind, hours)
        reach = self._states[kind].reach
        kept = {hour for hour in hours if reach is None or hour >= reach.first_hour}
        # An hour that is whole is looked at again when its time has come.
        settled = {
            hour
            for hour, head in heads.items()
            if head.next_look_ns is None
            or (head.missing_ns == 0 and head.next_look_ns > self._now_ns)
        }
        counts = self._counts[kind]
        counts.kept_before = counts.not_kept
        counts.final += sum(heads[hour].next_look_ns is None for hour in hours & settled)
        counts.not_kept += len(hours - kept - settled)
        return kept - settled

    def _look_back(self, kind: SealKind, day: Span) -> None:
        """Stop where the source has nothing from before."""
        counts = self._counts[kind]
        if counts.stopped:
            return
        hours = set(hours_of(day))
        heads = self._heads_of(kind, hours).values()
        if counts.not_kept > counts.kept_before and not heads:
            counts.stopped = f"the source keeps nothing from before {format_instant(day.stop_ns)}"
            return
        nothing = len(heads) == len(hours) and all(h.missing_ns >= HOUR_NS for h in heads)
        counts.empty_days = counts.empty_days + 1 if nothing else 0
        if counts.empty_days >= EMPTY_DAYS:
            counts.stopped = f"{EMPTY_DAYS} days in a row without anything"

    def _heads_of(self, kind: SealKind, hours: Iterable[int]) -> dict[int, SealHead]:
        heads = self._states[kind].heads
        return {hour: heads[hour] for hour in hours if hour in heads}


class _Counts:
    def __init__(self) -> None:
        self.verdicts: Counter[Verdict] = Counter()
        self.final = self.failed = self.not_kept = 0
        # What `not_kept` was before this day.
        self.kept_before = 0
        self.failures = self.empty_days = 0  # in a row
        self.stopped = ""

    def report(self) -> BackfilledKind:
        return BackfilledKind(
            verdicts=dict(self.verdicts),
            final=self.final,
            not_kept=self.not_kept,
            failed=self.failed,
            stopped=self.stopped,
        )
