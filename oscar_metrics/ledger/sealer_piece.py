"""One piece of the sealer's work: a question, what is sealed of its answer, what is not."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import structlog

from oscar_metrics.ledger.candidates import GONE, hours_of, why_missing
from oscar_metrics.ledger.expiry import Reach
from oscar_metrics.ledger.looks import HOURS_MOST, Known, Looks, Rank, Try, Work
from oscar_metrics.ledger.seals import Candidate, Judged, SealHead, SealKind, Verdict
from oscar_metrics.outcome import FAILING, GapReason
from oscar_metrics.timerange import DAY_NS, HOUR_NS, format_instant

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# However often something failed, it is tried again within the hour.
_LONGEST_PAUSE_NS = HOUR_NS
# What no source keeps hardly ever comes back.
_GONE_WAIT_NS = DAY_NS
_TOLD_IN_TWO_WAYS = 20


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one question, hour by hour and kind by kind.

    `failed` is to be tried again after a while, `again` at once with fewer hours; what is
    `gone` no source keeps.
    """

    judged: tuple[Judged, ...] = ()
    failed: tuple[tuple[SealKind, int], ...] = ()
    again: tuple[tuple[SealKind, int], ...] = ()
    gone: tuple[tuple[SealKind, int], ...] = ()


class KindState:
    """What the sealer remembers of one kind; all but `heads` is lost, and learnt again."""

    def __init__(self) -> None:
        self.heads: dict[int, SealHead] = {}
        self.tries: dict[int, Try] = {}
        self.reach: Reach | None = None
        self.last_error: str | None = None
        self._holes: Try | None = None
        self._hours_most = HOURS_MOST
        # No source keeps anything from before this hour.
        self._gone_before = 0

    def known(self, floor: int) -> Known:
        """What decides about the next question; `floor` is the oldest hour that is wanted."""
        reach_from = self.reach.first_hour if self.reach is not None else 0
        return Known(
            heads=self.heads,
            tries=self.tries,
            floor=max(floor, reach_from, self._gone_before),
            holes_not_before_ns=self._holes.not_before_ns if self._holes else 0,
        )

    def hours_most(self, hour: int) -> int:
        """How many hours to ask for at once: fewer where that failed."""
        tried = self.tries.get(hour)
        return max(1, min(self._hours_most, HOURS_MOST >> (tried.count if tried else 0)))

    def failures(self, hour: int) -> int:
        """How often in a row nothing could be said of an hour."""
        tried = self.tries.get(hour)
        return 0 if tried is None else tried.count

    def learn(self, work: Work, kind: SealKind, done: Done, looks: Looks, now_ns: int) -> None:
        """Remember what came of a question: when to try what failed, how much to ask at once."""
        refused = {j.hour for j in done.judged if j.kind is kind and j.verdict is Verdict.REFUSED}
        failed = {hour for k, hour in done.failed if k is kind} | refused
        again = {hour for k, hour in done.again if k is kind}
        gone = {hour for k, hour in done.gone if k is kind}
        for hour in hours_of(work.span):
            if hour in failed:
                self.tries[hour] = _once_more(self.tries.get(hour), looks, now_ns)
            elif hour in gone:
                self.tries[hour] = Try(count=1, not_before_ns=now_ns + _GONE_WAIT_NS)
            elif hour not in again:
                self.tries.pop(hour, None)
        if again:
            self._hours_most = max(1, (work.last - work.first + 1) // 2)
        elif not failed:
            self._hours_most = min(HOURS_MOST, self._hours_most * 2)
        if work.rank is Rank.HOLE:
            self._holes = _once_more(self._holes, looks, now_ns) if failed else None
            if gone:
                self._gone_before = max(self._gone_before, max(gone) + 1)

    def forget_waits_beyond(self, now_ns: int) -> None:
        """Try again whatever waits for longer than anything does: the clock went back."""
        last_ns = now_ns + _GONE_WAIT_NS
        self.tries = {h: t for h, t in self.tries.items() if t.not_before_ns <= last_ns}
        if self._holes is not None and self._holes.not_before_ns > now_ns + _LONGEST_PAUSE_NS:
            self._holes = None


class Contradictions:
    """Hours that their source told in two ways, and those the clock forbade; the last few."""

    def __init__(self) -> None:
        self._texts: dict[tuple[SealKind, int], str] = {}

    @property
    def texts(self) -> tuple[str, ...]:
        """In words, the last first."""
        return tuple(reversed(self._texts.values()))

    def look(self, candidate: Candidate, before: SealHead | None, judged: Judged) -> None:
        """Compare what a source said of an hour with what it said before."""
        key = (judged.kind, judged.hour)
        self._texts.pop(key, None)
        text = _contradiction(candidate, before, judged)
        if not text:
            return
        self._texts[key] = f"{judged.kind} of {format_instant(judged.hour * HOUR_NS)}: {text}"
        while len(self._texts) > _TOLD_IN_TWO_WAYS:
            del self._texts[next(iter(self._texts))]
        _log.warning(
            "a sealed hour was kept as it was",
            kind=judged.kind,
            hour=format_instant(judged.hour * HOUR_NS),
            why=text,
            lines=judged.lines_seen,
            sealed_lines=judged.sealed_lines_seen,
        )


def sort_out(
    candidates: Iterable[Candidate],
    state: KindState,
    work: Work,
    looks: Looks,
    now_ns: int,
) -> tuple[list[Candidate], Done]:
    """The candidates of one kind that are to be sealed, and what becomes of the others."""
    oldest = min(state.heads, default=None)
    chosen: list[Candidate] = []
    failed, again, gone = [], [], []
    for candidate in candidates:
        key = (candidate.kind, candidate.hour)
        if work.last > work.first and any(g.reason is GapReason.DEADLINE for g in candidate.gaps):
            again.append(key)
            continue
        decided = looks.decided(
            candidate,
            state.heads.get(candidate.hour),
            accountable=oldest is not None and oldest < candidate.hour,
            failures=state.failures(candidate.hour) + 1,
            now_ns=now_ns,
        )
        if decided is not None:
            chosen.append(decided)
        elif why_missing(candidate) <= GONE:
            gone.append(key)
        else:
            failed.append(key)
    return chosen, Done(failed=tuple(failed), again=tuple(again), gone=tuple(gone))


def together(parts: Iterable[Done], judged: Iterable[Judged]) -> Done:
    """What came of a question about several kinds."""
    parts = list(parts)
    return Done(
        judged=tuple(judged),
        failed=tuple(key for part in parts for key in part.failed),
        again=tuple(key for part in parts for key in part.again),
        gone=tuple(key for part in parts for key in part.gone),
    )


def _once_more(tried: Try | None, looks: Looks, now_ns: int) -> Try:
    count = 1 if tried is None else tried.count + 1
    wait_ns = min(looks.wait_ns(count), _LONGEST_PAUSE_NS)
    return Try(count=count, not_before_ns=now_ns + wait_ns)


def _contradiction(candidate: Candidate, before: SealHead | None, judged: Judged) -> str:
    """How an hour's two stories differ; blank where they do not, or one just tells less."""
    lines = f"{judged.lines_seen:,} lines now, {judged.sealed_lines_seen:,} when it was sealed"
    if judged.verdict is Verdict.REFUSED:
        return "the clock stands before the time it was sealed at; tried again later"
    if judged.verdict is Verdict.AMBIGUOUS:
        return f"each look has calls that the other has not ({lines})"
    if any(gap.reason in FAILING | GONE for gap in candidate.gaps):
        return ""
    same_source = before is not None and before.origin == candidate.origin
    fewer = judged.verdict is Verdict.KEPT and judged.lines_seen < judged.sealed_lines_seen
    return f"{candidate.origin} shows less than before ({lines})" if same_source and fewer else ""
