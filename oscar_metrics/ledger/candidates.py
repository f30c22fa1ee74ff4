"""What a source said of a span → a candidate for each of its hours. Pure.

A source is asked over one or more whole hours and answers for all of them at once; a seal
is of one hour, so gaps are cut to it and what is said without a time is said of every hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from oscar_metrics.facts import Inventory, SlottedLog, SlotUsage
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.outcome import (
    MAY_GROW,
    Gap,
    GapReason,
    Outcome,
    Partial,
    Unavailable,
    doubts_and_remarks,
    is_about_lines,
    join_gaps,
)
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span, merge, subtract

# What will never be otherwise.
GONE = frozenset({GapReason.RETENTION, GapReason.ROTATED})

_SLOTS = HOUR_NS // SLOT_NS


def of_calls(kind: SealKind, outcome: Outcome[SlottedLog], asked: Span) -> list[Candidate]:
    """A candidate for each hour of `asked`, oldest first, of what a request log said.

    Of an hour that the log says nothing of, it has no calls and gaps over all of it.
    """
    by_hour: dict[int, SlottedLog] = {hour: {} for hour in hours_of(asked)}
    if not isinstance(outcome, Unavailable):
        for part, log in outcome.facts.items():
            by_hour[part.slot // _SLOTS][part] = log
    said = _Said(outcome, asked)
    doubts = tuple(doubt for doubt in said.doubts if not is_about_lines(doubt))
    # A remark that counts files or lines is about the question, and of no one hour.
    notes = tuple(note for note in said.notes if not any(map(str.isdigit, note)))
    return [
        Candidate(
            kind=kind,
            hour=hour,
            origin=outcome.origin,
            gaps=said.gaps(hour),
            doubts=doubts,
            notes=notes,
            calls=calls,
        )
        for hour, calls in by_hour.items()
    ]


def of_usage(outcome: Outcome[tuple[SlotUsage, ...]], asked: Span) -> list[Candidate]:
    """The same of what was used."""
    by_hour: dict[int, list[SlotUsage]] = {hour: [] for hour in hours_of(asked)}
    if not isinstance(outcome, Unavailable):
        for slot in outcome.facts:
            by_hour[slot.slot // _SLOTS].append(slot)
    said = _Said(outcome, asked)
    measures = outcome.measures if isinstance(outcome, Partial) and said.doubts else frozenset()
    return [
        Candidate(
            kind=SealKind.USAGE,
            hour=hour,
            origin=outcome.origin,
            method="+".join(sorted({m for slot in slots for m in slot.usage.methods})),
            gaps=said.gaps(hour),
            doubts=said.doubts,
            measures=measures,
            notes=said.notes,
            usage=tuple(slots),
        )
        for hour, slots in by_hour.items()
    ]


def of_inventory(outcome: Outcome[Inventory], hour: int) -> Candidate | None:
    """What was deployed when an hour ended; None where that is not known, now or ever."""
    if isinstance(outcome, Unavailable):
        return None
    doubts, notes = doubts_and_remarks(outcome)
    return Candidate(
        kind=SealKind.INVENTORY,
        hour=hour,
        origin=outcome.origin,
        doubts=doubts,
        notes=notes,
        inventory=outcome.facts,
    )


def hours_of(span: Span) -> range:
    """The numbers of the hours in a span of whole hours."""
    return range(span.start_ns // HOUR_NS, span.stop_ns // HOUR_NS)


def why_missing(candidate: Candidate) -> frozenset[GapReason]:
    """Why nothing is known of all of the hour; empty where something is."""
    if subtract(candidate.span, [gap.span for gap in candidate.gaps]):
        return frozenset()
    if candidate.calls or candidate.usage:
        return frozenset()
    return frozenset(gap.reason for gap in candidate.gaps)


def missing_ns(candidate: Candidate) -> int:
    """How much of the hour its gaps take away."""
    return sum(span.length_ns for span in merge(gap.span for gap in candidate.gaps))


class _Said:
    """What an outcome says beside its facts."""

    def __init__(self, outcome: Outcome[Any], asked: Span) -> None:
        self.doubts, remarks = doubts_and_remarks(outcome)
        self.notes = tuple(note for note in remarks if note != MAY_GROW and not _reason_in([note]))
        gaps: Iterable[Gap] = ()
        if isinstance(outcome, Unavailable):
            gaps = [*outcome.gaps, *_rest(outcome, asked)]
        elif isinstance(outcome, Partial):
            gaps = outcome.gaps
        self._by_hour: dict[int, list[Gap]] = {}
        for gap in gaps:
            inside = gap.span.clip(asked)
            for hour in range(inside.start_ns // HOUR_NS, -(-inside.stop_ns // HOUR_NS)):
                self._by_hour.setdefault(hour, []).append(gap)

    def gaps(self, hour: int) -> tuple[Gap, ...]:
        span = Span(hour * HOUR_NS, (hour + 1) * HOUR_NS)
        return tuple(join_gaps(self._by_hour.get(hour, ()), span))


def _rest(outcome: Unavailable, asked: Span) -> list[Gap]:
    """What an outcome that says nothing gives no reason for, with the reason it has in words."""
    reason = _reason_in(outcome.notes) or GapReason.FAILED
    unexplained = subtract(asked, [gap.span for gap in outcome.gaps])
    return [Gap(span=span, reason=reason) for span in unexplained]


def _reason_in(notes: Iterable[str]) -> GapReason | None:
    """The reason that one of the notes gives for a part of the range."""
    for note in notes:
        if note.endswith(GapReason.DEADLINE):
            return GapReason.DEADLINE
        for reason in GapReason:
            if note.endswith(f" of the range: {reason}"):
                return reason
    return None
