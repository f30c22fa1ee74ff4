"""Which stretches of a range are read from the ledger, and which are asked of sources. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from oscar_metrics.ledger.seals import Sealed, SealKind, Stretch
from oscar_metrics.outcome import FAILING, Gap, Ok, Outcome, Unavailable
from oscar_metrics.timerange import (
    MILLISECOND_NS,
    SLOT_NS,
    Span,
    format_instant,
    merge,
    subtract,
    windows,
)

# Slots that are named where a range or its periods cut them.
_SLOTS_NAMED = 10


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`stored` begins and ends where slots (or their first instants) do; `open` is the rest.

    `cut` are the slots stored whole of which `open` holds a part. `doubtful` is what of `open`
    is stored too, not final and with gaps: better asked again while a source can say more.
    `stretches` are those read from, `gaps` theirs within `stored`.
    """

    stored: tuple[Span, ...]
    open: tuple[Span, ...]
    cut: tuple[Span, ...] = ()
    doubtful: tuple[Span, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    gaps: tuple[Gap, ...] = ()


def plan(
    kind: SealKind,
    asked: Span,
    sealed: Sealed,
    *,
    as_of: bool,
    now_ns: int,
    can_ask: bool = True,
    bounds_ns: Sequence[int] = (),
) -> Plan:
    """How a range is put together from what is sealed.

    As of an instant, and where nobody can be asked, everything sealed counts as it is; else
    hours that are not final are asked again where a source had failed. Silence is no
    failure: it was looked at, and will be again. `bounds_ns` are those of a series' periods,
    which cut slots as the ends of the range do.
    """
    if kind is SealKind.USAGE:
        # Sources measure usage between whole milliseconds, and say themselves what they
        # make of less than one.
        whole = Span(_whole_ms(asked.start_ns), _whole_ms(asked.stop_ns))
        asked = whole if whole.length_ns or as_of else asked
    as_it_is = as_of or not can_ask
    usable = [
        s for s in sealed.stretches if as_it_is or s.final or not _has_failed(s, sealed, now_ns)
    ]
    retried = [s for s in sealed.stretches if s not in usable]
    stored = _stored(asked, usable, bounds_ns)
    open_spans = tuple(subtract(asked, stored))
    return Plan(
        stored=stored,
        open=open_spans,
        cut=_cut(open_spans, usable),
        doubtful=_stored(asked, retried, bounds_ns),
        stretches=tuple(s for s in usable if _stored(asked, [s], bounds_ns)),
        gaps=_gaps_within(sealed.gaps, stored),
    )


def stored_instead(asked: Span, sealed: Sealed, spans: tuple[Span, ...]) -> Plan:
    """The plan that reads `spans`, some of `doubtful`, from the ledger after all."""
    return Plan(
        stored=spans,
        open=(),
        stretches=tuple(s for s in sealed.stretches if _within(spans, [_aligned(asked, s)])),
        gaps=_gaps_within(sealed.gaps, spans),
    )


def whole_slots(asked: Span, sealed: Sealed, spans: Iterable[Span]) -> tuple[Span, ...]:
    """What of spans can be read for itself: they may cut slots that are stored."""
    wanted = [span.clip(asked) for span in spans]
    return tuple(merge(_aligned(span, s) for s in sealed.stretches for span in wanted))


def first_slot_missing(kind: SealKind, made: Plan) -> str:
    """Which slot keeps a plan from being wholly stored, in words; blank for none."""
    if not made.open:
        return ""
    first_ns = made.open[0].start_ns
    for slot in made.cut:
        if first_ns in slot:
            return f"the range cuts the {kind} slot {name_of(slot)}, which is stored whole"
    slot = Span(first_ns // SLOT_NS * SLOT_NS, (first_ns // SLOT_NS + 1) * SLOT_NS)
    return f"the {kind} slot {name_of(slot)} was not sealed then"


def name_of(slot: Span) -> str:
    """From when to when a slot is."""
    return f"{format_instant(slot.start_ns)} to {format_instant(slot.stop_ns)}"


def names_of(slots: list[Span]) -> str:
    """The slots by their times, the first of them where there are many."""
    more = len(slots) - _SLOTS_NAMED
    names = [name_of(slot) for slot in slots[:_SLOTS_NAMED]]
    return ", ".join([*names, f"and {more:,} more"] if more > 0 else names)


def open_stretches(made: Plan) -> list[Span]:
    """What is open, cut where one part may turn out differently from the next."""
    apart = merge(made.doubtful), merge(made.cut)
    spans = list(made.open)
    for others in apart:
        inside = [span.clip(other) for span in spans for other in others]
        outside = [left for span in spans for left in subtract(span, others)]
        spans = sorted(span for span in (*inside, *outside) if span.length_ns)
    return spans


def says_less(outcome: Outcome[Any], sealed: Sealed, span: Span) -> bool:
    """Whether more of a stretch is missing of what a source says now than of what is sealed."""
    if isinstance(outcome, Ok):
        return False
    return isinstance(outcome, Unavailable) or _missing_ns(outcome.gaps, span) > _missing_ns(
        sealed.gaps, span
    )


def holds(spans: Iterable[Span], span: Span) -> bool:
    """Whether a stretch lies in one of them."""
    return any(span.clip(other) == span for other in spans)


def _has_failed(stretch: Stretch, sealed: Sealed, now_ns: int) -> bool:
    """Whether more is to be had of a stretch, or it was sealed by a clock that has gone back."""
    if stretch.whole:
        return False
    return stretch.last_sealed_at_ns > now_ns or any(
        gap.reason in FAILING and gap.span.clip(stretch.span).length_ns for gap in sealed.gaps
    )


def _whole_ms(instant_ns: int) -> int:
    return instant_ns // MILLISECOND_NS * MILLISECOND_NS


def _stored(
    asked: Span, stretches: Iterable[Stretch], bounds_ns: Sequence[int]
) -> tuple[Span, ...]:
    return tuple(
        merge(
            part
            for stretch in stretches
            for part in subtract(_aligned(asked, stretch), _cut_by(bounds_ns, stretch))
        )
    )


def _cut_by(bounds_ns: Sequence[int], stretch: Stretch) -> list[Span]:
    """The merged slots of a stretch that lie in more than one period."""
    if stretch.quarters == 1:
        return []
    grain_ns = stretch.quarters * SLOT_NS
    return [
        Span(bound_ns // grain_ns * grain_ns, (bound_ns // grain_ns + 1) * grain_ns)
        for bound_ns in bounds_ns
        if bound_ns in stretch.span and bound_ns % grain_ns > 1
    ]


def _aligned(asked: Span, stretch: Stretch) -> Span:
    """What of a stretch can be read for the range: whole slots, or all but their first instant."""
    inside = asked.clip(stretch.span)
    grain_ns = stretch.quarters * SLOT_NS
    start_ns, stop_ns = inside.start_ns, inside.stop_ns
    if start_ns % grain_ns > 1:
        start_ns = (start_ns // grain_ns + 1) * grain_ns
    if stop_ns % grain_ns > 1:
        stop_ns = stop_ns // grain_ns * grain_ns
    return Span(start_ns, max(start_ns, stop_ns))


def _cut(open_spans: Iterable[Span], stretches: Iterable[Stretch]) -> tuple[Span, ...]:
    slots = []
    for stretch in stretches:
        grain_ns = stretch.quarters * SLOT_NS
        for span in _within(open_spans, [stretch.span]):
            start_ns = span.start_ns // grain_ns * grain_ns
            slots += list(
                windows(Span(start_ns, -(-span.stop_ns // grain_ns) * grain_ns), grain_ns)
            )
    return tuple(slots)


def _within(spans: Iterable[Span], others: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(merge(span.clip(other) for span in spans for other in others))


def _gaps_within(gaps: Iterable[Gap], spans: tuple[Span, ...]) -> tuple[Gap, ...]:
    clipped = (Gap(span=gap.span.clip(span), reason=gap.reason) for gap in gaps for span in spans)
    return tuple(gap for gap in clipped if gap.span.length_ns)


def _missing_ns(gaps: Iterable[Gap], span: Span) -> int:
    return sum(part.length_ns for part in merge(gap.span.clip(span) for gap in gaps))
