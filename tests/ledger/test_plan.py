"""Which stretches of a range are read from the ledger."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.ledger.plan import first_slot_missing, plan, stored_instead
from oscar_metrics.ledger.seals import Sealed, SealKind, Stretch
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span, merge

H = HOUR_NS
T0 = 480_000 * H
NOW_NS = T0 + 1000 * H


def stretch(
    start: int, stop: int, *, quarters: int = 1, final: bool = True, whole: bool = True
) -> Stretch:
    """Hours `start` to `stop` after T0."""
    return Stretch(
        span=Span(T0 + start * H, T0 + stop * H),
        quarters=quarters,
        origin="loki",
        method="",
        doubts=(),
        measures=frozenset(),
        notes=(),
        final=final,
        whole=whole,
        first_sealed_at_ns=1,
        last_sealed_at_ns=2,
        lines_seen=0,
        lines_understood=0,
    )


def at(hours: float, ns: int = 0) -> int:
    return T0 + int(hours * H) + ns


Spans = list[tuple[int, int]]
CASES: list[tuple[str, tuple[int, int], list[Stretch], Spans, Spans, Spans]] = [
    ("nothing sealed", (at(0), at(2)), [], [], [(at(0), at(2))], []),
    ("all sealed", (at(0), at(2)), [stretch(0, 2)], [(at(0), at(2))], [], []),
    (
        "an inclusive end on a boundary takes the first instant",
        (at(0), at(1, 1)),
        [stretch(0, 2)],
        [(at(0), at(1, 1))],
        [],
        [],
    ),
    (
        "a start just after one leaves it out",
        (at(0, 1), at(1)),
        [stretch(0, 2)],
        [(at(0, 1), at(1))],
        [],
        [],
    ),
    (
        "cut quarters are open, and named",
        (at(0, 2), at(1.1)),
        [stretch(0, 2)],
        [(at(0.25), at(1))],
        [(at(0, 2), at(0.25)), (at(1), at(1.1))],
        [(at(0), at(0.25)), (at(1), at(1.25))],
    ),
    (
        "hours that compaction merged",
        (at(0.25), at(1)),
        [stretch(0, 2, quarters=4)],
        [],
        [(at(0.25), at(1))],
        [(at(0), at(1))],
    ),
    (
        "what may be made whole is asked again",
        (at(0), at(3)),
        [stretch(0, 1), stretch(1, 2, final=False, whole=False), stretch(2, 3, final=False)],
        [(at(0), at(1)), (at(2), at(3))],
        [(at(1), at(2))],
        [],
    ),
]


@pytest.mark.parametrize(
    ("asked", "stretches", "stored", "left", "cut"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_a_plan(
    asked: tuple[int, int], stretches: list[Stretch], stored: Spans, left: Spans, cut: Spans
) -> None:
    failed = Gap(span=Span(at(1), at(1.5)), reason=GapReason.FAILED)
    gaps = (failed,) if not all(s.whole for s in stretches) else ()
    sealed = Sealed(stretches=tuple(stretches), gaps=gaps)
    made = plan(SealKind.EXECUTIONS, Span(*asked), sealed, as_of=False, now_ns=NOW_NS)
    assert made.stored == tuple(Span(*span) for span in stored)
    assert made.open == tuple(Span(*span) for span in left)
    assert made.cut == tuple(Span(*span) for span in cut)


def test_usage_is_cut_at_whole_milliseconds() -> None:
    sealed = Sealed(stretches=(stretch(0, 2),), gaps=())
    made = plan(SealKind.USAGE, Span(at(0, 1), at(1, 1)), sealed, as_of=False, now_ns=NOW_NS)
    assert (made.stored, made.open) == ((Span(at(0), at(1)),), ())


def test_usage_of_less_than_a_millisecond_is_asked_of_who_can_say() -> None:
    asked = Span(at(0, 1), at(0, 2))
    made = plan(
        SealKind.USAGE,
        asked,
        Sealed(stretches=(stretch(0, 2),), gaps=()),
        as_of=False,
        now_ns=NOW_NS,
    )
    assert (made.stored, made.open) == ((), (asked,))


def test_what_is_merged_and_lies_in_two_periods_is_cut() -> None:
    merged = stretch(0, 96, quarters=96)
    sealed = Sealed(stretches=(merged,), gaps=())
    asked = Span(at(0), at(72, 1))
    days = [at(hours) for hours in (0, 24, 48, 72)]
    made = plan(
        SealKind.EXECUTIONS, asked, sealed, as_of=False, now_ns=NOW_NS, bounds_ns=[*days, at(72, 1)]
    )
    assert (made.stored, made.open, made.cut) == ((asked,), (), ())
    # The days of another zone begin an hour before.
    local = [at(0), at(23), at(48), at(72, 1)]
    made = plan(SealKind.EXECUTIONS, asked, sealed, as_of=False, now_ns=NOW_NS, bounds_ns=local)
    assert made.stored == (Span(at(24), at(72, 1)),)
    assert made.open == made.cut == (Span(at(0), at(24)),)
    hours = [at(hour) for hour in range(73)]
    made = plan(SealKind.EXECUTIONS, asked, sealed, as_of=False, now_ns=NOW_NS, bounds_ns=hours)
    assert (made.stored, len(made.cut)) == ((Span(at(72), at(72, 1)),), 3)
    assert made.stretches == (merged,)


def test_as_of_takes_what_was_sealed_as_it_was_and_names_what_was_not() -> None:
    partial = stretch(0, 1, final=False, whole=False)
    sealed = Sealed(stretches=(partial,), gaps=())
    asked = Span(at(0), at(1.5))
    made = plan(SealKind.EXPOSED, asked, sealed, as_of=True, now_ns=NOW_NS)
    assert made.stored == (Span(at(0), at(1)),)
    assert "exposed slot" in first_slot_missing(SealKind.EXPOSED, made)
    assert "was not sealed then" in first_slot_missing(SealKind.EXPOSED, made)
    whole = plan(SealKind.EXPOSED, Span(at(0), at(1)), sealed, as_of=True, now_ns=NOW_NS)
    assert not first_slot_missing(SealKind.EXPOSED, whole)
    cut = plan(SealKind.EXPOSED, Span(at(0), at(0.1)), sealed, as_of=True, now_ns=NOW_NS)
    assert "cuts" in first_slot_missing(SealKind.EXPOSED, cut)


def test_silence_is_not_asked_about_again_unless_the_clock_went_back() -> None:
    silent = Gap(span=Span(at(0), at(0.5)), reason=GapReason.NO_LINES)
    sealed = Sealed(stretches=(stretch(0, 1, final=False, whole=False),), gaps=(silent,))
    asked = Span(at(0), at(1))
    made = plan(SealKind.EXECUTIONS, asked, sealed, as_of=False, now_ns=NOW_NS)
    assert (made.stored, made.gaps) == ((asked,), (silent,))
    # `stretch` was sealed at 2 ns.
    before = plan(SealKind.EXECUTIONS, asked, sealed, as_of=False, now_ns=1)
    assert before.doubtful == (asked,)


def test_where_nobody_can_be_asked_what_is_sealed_is_read_as_it_is() -> None:
    partial = stretch(0, 1, final=False, whole=False)
    sealed = Sealed(stretches=(partial,), gaps=())
    made = plan(
        SealKind.EXECUTIONS, Span(at(0), at(1)), sealed, as_of=False, now_ns=NOW_NS, can_ask=False
    )
    assert (made.stored, made.open, made.doubtful) == ((Span(at(0), at(1)),), (), ())


def test_an_hour_with_gaps_can_be_read_after_all() -> None:
    gap = Gap(span=Span(at(1.5), at(2)), reason=GapReason.FAILED)
    sealed = Sealed(stretches=(stretch(0, 1), stretch(1, 2, final=False, whole=False)), gaps=(gap,))
    asked = Span(at(0), at(2))
    made = plan(SealKind.EXECUTIONS, asked, sealed, as_of=False, now_ns=NOW_NS)
    assert made.doubtful == (Span(at(1), at(2)),)
    assert made.gaps == ()
    instead = stored_instead(asked, sealed, made.doubtful)
    assert instead.gaps == (gap,)
    assert [s.span for s in instead.stretches] == [Span(at(1), at(2))]


instants = st.builds(
    lambda quarters, offset: T0 + quarters * SLOT_NS + offset,
    st.integers(0, 100),
    st.sampled_from([-1, 0, 1, 2, 7_000_000_000]),
)


@given(
    st.lists(st.integers(0, 25), min_size=2, max_size=8, unique=True).map(sorted),
    st.lists(st.sampled_from([1, 4]), min_size=8, max_size=8),
    instants,
    instants,
    st.sampled_from([SealKind.EXECUTIONS, SealKind.EXPOSED]),
)
def test_stored_and_open_are_the_range_and_stored_lies_on_slots(
    hours: list[int], quarters: list[int], one: int, other: int, kind: SealKind
) -> None:
    asked = Span(min(one, other), max(one, other) + 1)
    stretches = tuple(
        stretch(a, b, quarters=q) for (a, b), q in zip(pairwise(hours), quarters, strict=False)
    )
    made = plan(kind, asked, Sealed(stretches=stretches, gaps=()), as_of=False, now_ns=NOW_NS)
    assert merge([*made.stored, *made.open]) == [asked]
    assert sum(s.length_ns for s in (*made.stored, *made.open)) == asked.length_ns
    for span in made.stored:
        assert span.start_ns % SLOT_NS in (0, 1)
        assert span.stop_ns % SLOT_NS in (0, 1)
    # Nothing is left open that is a whole stored slot.
    for s in stretches:
        for slot in range(s.span.start_ns, s.span.stop_ns, s.quarters * SLOT_NS):
            whole = Span(slot, slot + s.quarters * SLOT_NS)
            if whole.clip(asked) == whole:
                assert not any(whole.clip(left).length_ns for left in made.open)
