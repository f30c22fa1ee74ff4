"""What the ledger covers, day by day, and where its holes are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from oscar_metrics.ledger.seals import Sealed, SealKind
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap
from oscar_metrics.timerange import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    Span,
    format_instant,
    merge,
    subtract,
    windows,
)

NOT_SEALED = "not sealed"


class DayMark(StrEnum):
    """How much of a UTC day is sealed."""

    FULL = "full"  # every hour, with nothing missing
    PARTIAL = "partial"  # some hours are not sealed, or something is missing of them
    MISSING = "missing"  # sealed, and the sources had nothing to say
    UNSEALED = "unsealed"  # no hour of it is sealed


class Hole(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch that no number rests on, and why; `end` is the first instant after it."""

    start: str
    end: str
    reason: str


class KindCoverage(msgspec.Struct, frozen=True, kw_only=True):
    """What is sealed of one kind from the first seal (or the asked start) on.

    `start` and `end` are blank where nothing is sealed. `provisional_hours` are those still
    to be looked at again; `days` is in order and names UTC days.
    """

    kind: SealKind
    start: str = ""
    end: str = ""
    last_sealed_at: str = ""
    sealed_hours: float = 0
    provisional_hours: float = 0
    lines_seen: int = 0
    lines_understood: int = 0
    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    holes: tuple[Hole, ...] = ()
    days: dict[str, DayMark] = {}


class Coverage(msgspec.Struct, frozen=True, kw_only=True):
    """What is sealed of every kind."""

    kinds: tuple[KindCoverage, ...]


async def coverage(store: LedgerStore, asked: Span, *, whole_from_start: bool) -> Coverage:
    """Every kind's coverage of whole hours.

    With `whole_from_start` what is not sealed since the asked start is a hole, else what is
    not sealed since the kind's first seal.
    """
    kinds = []
    for kind in SealKind:
        first = asked if whole_from_start else _from_first(asked, await store.sealed(kind, asked))
        # Month by month, since a list of gaps is cut short where it grows long.
        months = [(month, await store.sealed(kind, month)) for month in months_of(first)]
        kinds.append(kind_coverage(kind, months))
    return Coverage(kinds=tuple(kinds))


def kind_coverage(kind: SealKind, months: Sequence[tuple[Span, Sealed]]) -> KindCoverage:
    """One kind's coverage, put together from adjacent spans and what is sealed of each."""
    stretches = [stretch for _, sealed in months for stretch in sealed.stretches]
    if not stretches:
        return KindCoverage(kind=kind)
    days: dict[str, DayMark] = {}
    holes: list[tuple[Span, str]] = []
    covered_ns = provisional_ns = 0
    for month, sealed in months:
        spans = merge(stretch.span.clip(month) for stretch in sealed.stretches)
        covered_ns += sum(span.length_ns for span in spans)
        provisional_ns += sum(s.span.clip(month).length_ns for s in sealed.stretches if not s.final)
        gaps = merge(gap.span.clip(month) for gap in sealed.gaps)
        days |= {
            format_instant(day.start_ns)[:10]: _mark(day, spans, gaps)
            for day in windows(month, DAY_NS)
        }
        holes += [(span, NOT_SEALED) for span in subtract(month, spans)]
        holes += _missing(month, sealed.gaps)
    return KindCoverage(
        kind=kind,
        start=format_instant(months[0][0].start_ns),
        end=format_instant(months[-1][0].stop_ns),
        last_sealed_at=format_instant(max(s.last_sealed_at_ns for s in stretches)),
        sealed_hours=covered_ns / HOUR_NS,
        provisional_hours=provisional_ns / HOUR_NS,
        lines_seen=sum(s.lines_seen for s in stretches),
        lines_understood=sum(s.lines_understood for s in stretches),
        origins=tuple(sorted({s.origin for s in stretches})),
        methods=tuple(sorted({s.method for s in stretches} - {""})),
        holes=_joined(holes),
        days=days,
    )


def months_of(span: Span) -> Iterator[Span]:
    """A span cut where months begin in UTC."""
    start_ns = span.start_ns
    while start_ns < span.stop_ns:
        first = datetime.fromtimestamp(start_ns // SECOND_NS, UTC).replace(day=1)
        following = (first + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0)
        stop_ns = min(span.stop_ns, int(following.timestamp()) * SECOND_NS)
        yield Span(start_ns, stop_ns)
        start_ns = stop_ns


def _from_first(asked: Span, sealed: Sealed) -> Span:
    if not sealed.stretches:
        return Span(asked.stop_ns, asked.stop_ns)
    return Span(max(asked.start_ns, sealed.stretches[0].span.start_ns), asked.stop_ns)


def _mark(day: Span, sealed: Sequence[Span], gaps: Sequence[Span]) -> DayMark:
    sealed_ns = sum(span.clip(day).length_ns for span in sealed)
    missing_ns = sum(gap.clip(day).length_ns for gap in gaps)
    if not sealed_ns:
        return DayMark.UNSEALED
    if sealed_ns < day.length_ns:
        return DayMark.PARTIAL
    if missing_ns == day.length_ns:
        return DayMark.MISSING
    return DayMark.PARTIAL if missing_ns else DayMark.FULL


def _missing(month: Span, gaps: Sequence[Gap]) -> list[tuple[Span, str]]:
    by_reason: dict[str, list[Span]] = {}
    for gap in gaps:
        by_reason.setdefault(gap.reason, []).append(gap.span.clip(month))
    return [(span, reason) for reason, spans in by_reason.items() for span in merge(spans)]


def _joined(holes: Sequence[tuple[Span, str]]) -> tuple[Hole, ...]:
    """In order, with those of one reason that touch made one."""
    by_reason: dict[str, list[Span]] = {}
    for span, reason in holes:
        by_reason.setdefault(reason, []).append(span)
    joined = sorted((span, reason) for reason, spans in by_reason.items() for span in merge(spans))
    return tuple(
        Hole(start=format_instant(s.start_ns), end=format_instant(s.stop_ns), reason=reason)
        for s, reason in joined
    )
