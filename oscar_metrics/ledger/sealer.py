"""Seals hours as they end, looks at them again, and fills the holes of the past.

One loop does one piece of work at a time, the most urgent first (`looks`): a question to a
source for some hours of one UTC day, and its answer sealed in one transaction. Whatever
fails is tried again later, and nothing of it reaches a report.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from oscar_metrics.errors import LedgerError
from oscar_metrics.ledger.backfill import Backfill, Backfilled
from oscar_metrics.ledger.candidates import hours_of
from oscar_metrics.ledger.expiry import Reach
from oscar_metrics.ledger.looks import Known, Looks, Rank, Work, bottom, due, next_work
from oscar_metrics.ledger.sealer_piece import Contradictions, Done, KindState, sort_out, together
from oscar_metrics.ledger.sealer_sources import SealerSources
from oscar_metrics.ledger.sealer_status import KindStatus, LedgerStatus, kind_status
from oscar_metrics.ledger.seals import Candidate, SealKind, Verdict
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.ledger.store import LedgerStore, Progress
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, Span, format_instant

__all__ = ["IDLE_SECONDS", "Backfilled", "Sealer"]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# How often it is looked at what is due, when nothing was.
IDLE_SECONDS = 10.0
# One question may take so long; what it has not told by then is asked for again.
_QUESTION_SECONDS = 300.0
# A source is left alone between holes for as long as it took to answer, and at least so long.
_PAUSE_SECONDS = 1.0
_STORE_WAIT_SECONDS = (5.0, 300.0)
# All seals are looked through again in case somebody else has sealed (an import, a backfill).
_HEADS_AGE_NS = HOUR_NS
_REACH_AGE_NS = 600 * SECOND_NS
_COMPACT_AGE_NS = HOUR_NS
_TELL_AGE_NS = HOUR_NS
# Seals of hours that are still to come are read too: the clock may have gone back.
_FAR_NS = 1 << 62


class Sealer:
    """The only one who seals what sources say; made once for an open ledger.

    `now_ns` is the clock. `run` is the server's loop, `step` one turn of it; `backfill` is
    for the command and can be had beside the loop or alone.
    """

    def __init__(
        self,
        store: LedgerStore,
        sources: Sources,
        settings: LedgerSettings,
        *,
        telemetry: Telemetry,
        now_ns: Callable[[], int],
    ) -> None:
        self._store = store
        self._settings = settings
        self._telemetry = telemetry.ledger
        self._now_ns = now_ns
        self._sources = SealerSources(sources, store)
        self._looks = Looks(settings)
        self._states = {kind: KindState() for kind in self._sources.kinds}
        self._contradictions = Contradictions()
        self._one_at_a_time = asyncio.Lock()
        self._heads_read_ns: int | None = None
        self._newest_seal_ns = 0
        self._reach_asked_ns: int | None = None
        self._rolled_up = False
        self._compacted_ns: int | None = None
        self._store_problem = ""
        self._clock_problem = ""
        self._told_ns: int | None = None

    async def run(self) -> None:
        """Seal until cancelled."""
        failures = 0
        while True:
            try:
                pause_seconds = await self.step()
                failures = 0
                self._store_answers()
            except LedgerError as exc:
                self._store_fails(str(exc))
                failures += 1
            except Exception:  # noqa: BLE001 - a mistake of ours must not end the sealing
                _log.exception("sealing failed in a way that is our own mistake")
                failures += 1
            if failures:
                self._heads_read_ns = None
                shortest, longest = _STORE_WAIT_SECONDS
                pause_seconds = min(longest, shortest * 2 ** min(failures - 1, 10))
            await asyncio.sleep(pause_seconds)

    async def step(self) -> float:
        """Do the most urgent piece of work; how many seconds to wait before the next.

        `IDLE_SECONDS` when nothing was due. Raises LedgerError.
        """
        await self._look_around()
        now_ns = self._now_ns()
        due_hours = {k: due(k, self._known(k), self._looks, now_ns) for k in self._states}
        work = next_work(due_hours, lambda kind, hour: self._states[kind].hours_most(hour))
        if work is not None:
            began = asyncio.get_running_loop().time()
            await self._do(work)
            self._tell()
            if work.rank is not Rank.HOLE:
                return 0.0
            return max(_PAUSE_SECONDS, asyncio.get_running_loop().time() - began)
        if await self._tidy():
            return 0.0
        self._tell()
        return IDLE_SECONDS

    async def backfill(self, span: Span, progress: Progress) -> Backfilled:
        """Seal what of the span is not final, as far as sources reach, newest day first.

        Raises LedgerError; what was sealed until then stays, and is not asked for again.
        """
        await self._look_around()
        doing = Backfill(
            span,
            self._states,
            self._looks,
            read_heads=self._read_heads,
            do=self._do,
            now_ns=self._now_ns(),
        )
        return await doing.run(progress)

    def status(self) -> LedgerStatus:
        """How far everything is."""
        now_ns = self._now_ns()
        return LedgerStatus(
            usable=not self._store_problem,
            problems=tuple(filter(None, (self._store_problem, self._clock_problem))),
            kinds={kind: self._kind_status(kind, now_ns) for kind in self._states},
            doubts=self._contradictions.texts,
        )

    async def _do(self, work: Work) -> Done:
        """Ask one question and seal its answer."""
        async with self._one_at_a_time:
            now_ns = self._now_ns()
            asked, why = await self._sources.ask(
                work.kinds,
                work.span,
                now_ns=now_ns,
                within_seconds=_QUESTION_SECONDS,
                stand_in=self._looks.is_watched(work.last, now_ns),
            )
            now_ns = self._now_ns()
            chosen: list[Candidate] = []
            parts: list[Done] = []
            for kind in work.kinds:
                if kind in asked:
                    to_seal, part = sort_out(
                        asked[kind], self._states[kind], work, self._looks, now_ns
                    )
                    chosen += to_seal
                else:
                    part = Done(failed=tuple((kind, hour) for hour in hours_of(work.span)))
                parts.append(part)
            try:
                judged = await self._store.seal(chosen, now_ns=now_ns) if chosen else []
            except Exception as exc:
                # What the store cannot take must not keep it from everything else.
                failed = tuple((kind, hour) for kind in work.kinds for hour in hours_of(work.span))
                why = dict.fromkeys(work.kinds, f"could not be written: {exc}")
                self._learn(work, [], Done(failed=failed), why, now_ns)
                raise
            done = together(parts, judged)
            self._learn(work, chosen, done, why, now_ns)
            if judged:
                await self._read_heads({candidate.kind for candidate in chosen}, work.span)
            return done

    def _learn(
        self,
        work: Work,
        chosen: list[Candidate],
        done: Done,
        why: dict[SealKind, str],
        now_ns: int,
    ) -> None:
        candidates = {(candidate.kind, candidate.hour): candidate for candidate in chosen}
        for judged in done.judged:
            heads = self._states[judged.kind].heads
            self._contradictions.look(
                candidates[judged.kind, judged.hour], heads.get(judged.hour), judged
            )
            self._telemetry.seals.labels(judged.kind, judged.verdict).inc()
            _log.debug(
                "looked at an hour",
                kind=judged.kind,
                hour=format_instant(judged.hour * HOUR_NS),
                verdict=judged.verdict,
                lines=judged.lines_seen,
            )
            if judged.verdict in (Verdict.SEALED, Verdict.REVISED):
                self._rolled_up = False
                self._newest_seal_ns = max(self._newest_seal_ns, now_ns)
        for kind in work.kinds:
            state = self._states[kind]
            state.learn(work, kind, done, self._looks, now_ns)
            failed = sum(k is kind for k, _ in done.failed)
            if failed:
                state.last_error = why.get(kind) or "some hours could not be read"
                _log.warning(
                    "hours could not be read and are tried again",
                    kind=kind,
                    start=format_instant(work.span.start_ns),
                    hours=failed,
                    why=state.last_error,
                )
            elif any(judged.kind is kind for judged in done.judged):
                state.last_error = None
        if work.rank is Rank.HOLE and done.judged:
            _log.info(
                "sealed hours of the past",
                kinds="+".join(sorted(work.kinds)),
                start=format_instant(work.span.start_ns),
                hours=work.last - work.first + 1,
            )

    async def _look_around(self) -> None:
        """Read what is sealed and how far sources reach, where that was some time ago."""
        now_ns = self._now_ns()
        if _is_old(self._heads_read_ns, now_ns, _HEADS_AGE_NS):
            oldest = min(self._floor(now_ns), self._looks.oldest_watched(now_ns))
            since_ns = max(0, oldest * HOUR_NS - DAY_NS)
            for kind, state in self._states.items():
                heads = await self._store.heads(kind, Span(since_ns, _FAR_NS))
                state.heads = {head.hour: head for head in heads}
                state.forget_waits_beyond(now_ns)
            self._newest_seal_ns = max(
                (head.sealed_at_ns for s in self._states.values() for head in s.heads.values()),
                default=0,
            )
            self._heads_read_ns = now_ns
        if _is_old(self._reach_asked_ns, now_ns, _REACH_AGE_NS):
            for kind, kept_from_ns in (await self._sources.kept_from(now_ns)).items():
                state = self._states[kind]
                state.reach = (
                    state.reach.then(kept_from_ns)
                    if state.reach is not None
                    else Reach(kept_from_ns=kept_from_ns)
                )
            self._reach_asked_ns = now_ns
        self._mind_the_clock(now_ns)

    async def _read_heads(self, kinds: Iterable[SealKind], span: Span) -> None:
        for kind in kinds:
            heads = await self._store.heads(kind, span)
            self._states[kind].heads.update((head.hour, head) for head in heads)

    async def _tidy(self) -> bool:
        """Roll up or compact one thing; False when there is nothing to be done."""
        now_ns = self._now_ns()
        if not self._rolled_up:
            self._rolled_up = await self._store.roll_up(now_ns=now_ns) == 0
            return True
        if not _is_old(self._compacted_ns, now_ns, _COMPACT_AGE_NS):
            return False
        left = await self._store.compact(
            now_ns=now_ns,
            quarters_kept_ns=self._settings.quarters_kept_days * DAY_NS,
            hours_kept_ns=self._settings.hours_kept_days * DAY_NS,
        )
        if left == 0:
            self._compacted_ns = now_ns
        return True

    def _known(self, kind: SealKind) -> Known:
        state = self._states[kind]
        floor = self._floor(self._now_ns())
        return state.known(max(floor, bottom(state.heads) or 0))

    def _floor(self, now_ns: int) -> int:
        """The oldest hour that is sealed without being asked to."""
        return max(0, self._looks.newest_due(now_ns) + 1 - self._settings.backfill_days * 24)

    def _kind_status(self, kind: SealKind, now_ns: int) -> KindStatus:
        state = self._states[kind]
        return kind_status(
            kind,
            self._known(kind),
            state.reach,
            self._looks,
            last_error=state.last_error,
            now_ns=now_ns,
        )

    def _mind_the_clock(self, now_ns: int) -> None:
        problem = ""
        if now_ns < self._newest_seal_ns:
            problem = (
                f"the clock says {format_instant(now_ns)}, and the newest seal is of"
                f" {format_instant(self._newest_seal_ns)}: until then no seal is corrected"
            )
        if problem and not self._clock_problem:
            _log.warning("the clock has gone back", problem=problem)
        self._clock_problem = problem

    def _store_fails(self, problem: str) -> None:
        if problem != self._store_problem:
            _log.warning("the ledger cannot be read or written", problem=problem)
        self._store_problem = problem

    def _store_answers(self) -> None:
        if self._store_problem:
            _log.info("the ledger can be read and written again")
        self._store_problem = ""

    def _tell(self) -> None:
        """Set the metrics, and once an hour say in the log how far everything is."""
        now_ns = self._now_ns()
        in_the_log = _is_old(self._told_ns, now_ns, _TELL_AGE_NS)
        for kind in self._states:
            status = self._kind_status(kind, now_ns)
            self._measure(kind, status)
            if not in_the_log:
                continue
            _log.info(
                "sealed",
                kind=kind,
                up_to=status.sealed_up_to,
                unsealed_hours=status.unsealed_hours,
                partial_hours=status.partial_hours,
            )
            if status.expiring is not None:
                _log.warning(
                    "hours that are not sealed will soon be dropped by their source",
                    kind=kind,
                    hours=status.expiring.hours,
                    start=status.expiring.start,
                    end=status.expiring.end,
                    seconds_left=status.expiring.seconds_left,
                )
        if in_the_log:
            self._told_ns = now_ns

    def _measure(self, kind: SealKind, status: KindStatus) -> None:
        told = self._telemetry
        if status.lag_seconds is not None:
            up_to = self._now_ns() // SECOND_NS - status.lag_seconds
            told.sealed_up_to.labels(kind).set(up_to)
            told.lag.labels(kind).set(status.lag_seconds)
        told.unsealed_hours.labels(kind).set(status.unsealed_hours)
        told.provisional_hours.labels(kind).set(status.provisional_hours)
        told.partial_hours.labels(kind).set(status.partial_hours)
        expiring = status.expiring
        told.expiring_hours.labels(kind).set(expiring.hours if expiring else 0)
        left = expiring.seconds_left if expiring else float("inf")
        told.expiring_seconds.labels(kind).set(left)


def _is_old(then_ns: int | None, now_ns: int, age_ns: int) -> bool:
    """Whether something was done so long ago, or never, or after now."""
    return then_ns is None or not 0 <= now_ns - then_ns < age_ns
