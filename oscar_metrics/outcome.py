"""What became of asking a source: `Ok`, `Partial` or `Unavailable`. Pure.

A source never raises for an upstream's failure and never stands in a default: it
returns one of these, with the stretches of the asked span it cannot speak for.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

from oscar_metrics.timerange import Span, merge, subtract

F = TypeVar("F")

# A list of gaps is for people: past this many, neighbours are merged under one reason.
MAX_GAPS = 200
# The remark of a source that was asked so soon that it may yet say more. Of a sealed hour
# it is not kept: that the hour is not final says it, and once it is, it is untrue.
MAY_GROW = "lines that reach Loki late can stay invisible for some hours"


class GapReason(StrEnum):
    """Why a source cannot speak for a stretch: bounded, and read by people as it stands."""

    NO_LINES = "no log lines at all"
    RETENTION = "older than the source keeps"
    ROTATED = "rotated away, or before the container started"
    NOT_SCRAPED = "not scraped"
    FAILED = "the source failed"
    DEADLINE = "not finished when the report's deadline came"
    UNREADABLE = "part of the file could not be read"
    TOO_DENSE = "more lines at one instant than the source hands out"
    TOO_MUCH = "more than one report reads"
    CUT = "the range cuts a slot that is stored whole"
    NOT_SEALED = "not sealed, and no source could be asked for it"


# What may be otherwise a moment later.
FAILING = frozenset({GapReason.FAILED, GapReason.DEADLINE, GapReason.UNREADABLE})


class Measure(StrEnum):
    """Which of a source's figures something is about, where it is not all of them."""

    CPU = "cpu"
    GPU = "gpu"


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of the asked span that a source does not speak for, and why."""

    span: Span
    reason: GapReason


class SealedPart(msgspec.Struct, frozen=True, kw_only=True):
    """What of an outcome was read from the ledger, and when that had been sealed.

    `spans` are the stretches read from it; `provisional_ns` is how much of them may still
    be restated; the two instants are those of the oldest and the newest seal read.
    """

    spans: tuple[Span, ...]
    first_sealed_at_ns: int
    last_sealed_at_ns: int
    provisional_ns: int = 0


class Ok(msgspec.Struct, Generic[F], frozen=True, kw_only=True):
    """The source speaks for the whole span. Notes may still say something worth knowing."""

    facts: F
    origin: str
    notes: tuple[str, ...] = ()
    last_updated_ns: int | None = None
    sealed: SealedPart | None = None


class Partial(msgspec.Struct, Generic[F], frozen=True, kw_only=True):
    """The source speaks for some of it: `gaps` in time, or a doubt that `notes` spells out.

    `notes` say everything, gaps included; `doubts` are those of them that are neither about
    gaps nor mere remarks. `measures` narrows what is in doubt; empty means everything the
    source supplies.
    """

    facts: F
    origin: str
    notes: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    gaps: tuple[Gap, ...] = ()
    measures: frozenset[Measure] = frozenset()
    last_updated_ns: int | None = None
    sealed: SealedPart | None = None


class Unavailable(msgspec.Struct, frozen=True, kw_only=True):
    """The source says nothing: not configured, failed, or there is nothing it could speak from.

    `gaps` say why, stretch by stretch, where that is known: silence is not failure.
    """

    origin: str
    notes: tuple[str, ...]
    gaps: tuple[Gap, ...] = ()


Outcome = Ok[F] | Partial[F] | Unavailable


def settle(
    facts: F,
    *,
    origin: str,
    asked: Span,
    now_ns: int,
    gaps: Iterable[Gap] = (),
    doubts: Iterable[str] = (),
    notes: Iterable[str] = (),
    last_updated_ns: int | None = None,
    anything_read: bool = False,
) -> Outcome[F]:
    """`Ok` when nothing is missing or in doubt, else `Partial` with notes that say what is.

    The future is neither missing nor a gap, so gaps are cut at `now_ns`. Gaps that leave
    nothing to speak for make it `Unavailable`, since a total over no evidence is not zero;
    unless something was read all the same, without being all there was.
    """
    reachable = asked.clip(Span(asked.start_ns, max(asked.start_ns, now_ns)))
    kept = join_gaps(gaps, reachable)
    doubts, notes = tuple(doubts), tuple(notes)
    if not kept and not doubts:
        return Ok(facts=facts, origin=origin, notes=notes, last_updated_ns=last_updated_ns)
    everything = (*_describe(kept), *doubts, *notes)
    covered = subtract(reachable, [gap.span for gap in kept])
    if reachable.length_ns and not covered and not anything_read:
        return Unavailable(origin=origin, notes=everything, gaps=tuple(kept))
    return Partial(
        facts=facts,
        origin=origin,
        notes=everything,
        doubts=doubts,
        gaps=tuple(kept),
        last_updated_ns=last_updated_ns,
    )


def doubts_and_remarks(outcome: Outcome[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What casts doubt on an outcome, and what is merely worth knowing, but for its gaps."""
    if isinstance(outcome, Ok):
        return (), outcome.notes
    about_gaps = _describe(list(outcome.gaps))
    rest = tuple(note for note in outcome.notes if note not in about_gaps)
    if isinstance(outcome, Unavailable):
        return (), rest
    if not outcome.gaps and not outcome.doubts:
        return rest, ()
    return outcome.doubts, tuple(note for note in rest if note not in outcome.doubts)


def not_understood(lines_seen: int, lines_understood: int) -> list[str]:
    """The doubt about lines recognised as calls that could not be understood; empty for none."""
    if (unclear := lines_seen - lines_understood) <= 0:
        return []
    return [
        f"{unclear:,} of {lines_seen:,} lines recognised as calls {_NOT_UNDERSTOOD}",
    ]


def is_about_lines(doubt: str) -> bool:
    """Whether a doubt is the one of `not_understood`, which the counts of lines tell as well."""
    return doubt.endswith(_NOT_UNDERSTOOD)


_NOT_UNDERSTOOD = "could not be understood"


def with_doubts(outcome: Outcome[F], doubts: Iterable[str]) -> Outcome[F]:
    """The same outcome, with more to doubt in everything it says."""
    doubts = tuple(doubts)
    if isinstance(outcome, Unavailable) or not doubts:
        return outcome
    known, _ = doubts_and_remarks(outcome)
    return Partial(
        facts=outcome.facts,
        origin=outcome.origin,
        notes=(*doubts, *outcome.notes),
        doubts=(*doubts, *known),
        gaps=outcome.gaps if isinstance(outcome, Partial) else (),
        last_updated_ns=outcome.last_updated_ns,
        sealed=outcome.sealed,
    )


def about_gaps(gaps: Iterable[Gap]) -> tuple[str, ...]:
    """What notes say of gaps."""
    return tuple(_describe(list(gaps)))


def with_facts(outcome: Outcome[Any], facts: F) -> Outcome[F]:
    """The same outcome, about other facts."""
    if isinstance(outcome, Unavailable):
        return outcome
    return msgspec.structs.replace(outcome, facts=facts)


def join_gaps(gaps: Iterable[Gap], asked: Span) -> list[Gap]:
    """The gaps inside `asked`, sorted, those of one reason that touch made one, at most MAX_GAPS.

    Beyond that number the nearest neighbours of one reason are joined: what is listed may
    then be longer than what is missing, never shorter.
    """
    by_reason: dict[GapReason, list[Span]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.reason, []).append(gap.span.clip(asked))
    joined = {reason: merge(spans) for reason, spans in by_reason.items()}
    while sum(map(len, joined.values())) > max(MAX_GAPS, len(joined)):
        reason = max(joined, key=lambda r: len(joined[r]))
        joined[reason] = _halve(joined[reason])
    flat = [Gap(span=span, reason=reason) for reason, spans in joined.items() for span in spans]
    return sorted(flat, key=lambda gap: (gap.span, gap.reason))


def coverage(asked: Span, gaps: Iterable[Gap], now_ns: int) -> float:
    """The share, 0 to 1, of the asked span up to now that no gap takes away."""
    reachable = asked.clip(Span(asked.start_ns, max(asked.start_ns, now_ns)))
    if not reachable.length_ns:
        return 1.0
    missing_ns = sum(span.length_ns for span in merge(gap.span.clip(reachable) for gap in gaps))
    return 1.0 - missing_ns / reachable.length_ns


def _halve(spans: list[Span]) -> list[Span]:
    pairs = zip(spans[::2], spans[1::2], strict=False)
    joined = [Span(first.start_ns, second.stop_ns) for first, second in pairs]
    return joined + spans[len(joined) * 2 :]


def _describe(gaps: list[Gap]) -> list[str]:
    described = []
    for reason in sorted({gap.reason for gap in gaps}):
        hours = sum(gap.span.length_ns for gap in gaps if gap.reason == reason) / 3.6e12
        described.append(f"{hours:.4g} h of the range: {reason}")
    return described
