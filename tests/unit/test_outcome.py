from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.outcome import (
    MAX_GAPS,
    Gap,
    GapReason,
    Ok,
    Partial,
    Unavailable,
    coverage,
    join_gaps,
    settle,
    with_facts,
)
from oscar_metrics.timerange import Span

ASKED = Span(0, 100)


def gap(start: int, stop: int, reason: GapReason = GapReason.NO_LINES) -> Gap:
    return Gap(span=Span(start, stop), reason=reason)


def test_nothing_missing_is_ok_and_keeps_its_notes() -> None:
    outcome = settle(7, origin="loki", asked=ASKED, now_ns=1000, notes=["worth knowing"])
    assert outcome == Ok(facts=7, origin="loki", notes=("worth knowing",))


def test_a_gap_makes_it_partial_and_says_why() -> None:
    outcome = settle(7, origin="loki", asked=ASKED, now_ns=1000, gaps=[gap(10, 20)])
    assert isinstance(outcome, Partial)
    assert outcome.gaps == (gap(10, 20),)
    assert "no log lines at all" in outcome.notes[0]


def test_gaps_that_leave_nothing_make_it_unavailable() -> None:
    gaps = [gap(0, 60), gap(60, 100, GapReason.RETENTION)]
    outcome = settle(0, origin="loki", asked=ASKED, now_ns=1000, gaps=gaps, notes=["why"])
    assert isinstance(outcome, Unavailable)
    assert outcome.notes[-1] == "why"
    some = settle(3, origin="loki", asked=ASKED, now_ns=1000, gaps=gaps, anything_read=True)
    assert isinstance(some, Partial)


def test_a_doubt_without_a_gap_is_partial_too() -> None:
    outcome = settle(7, origin="x", asked=ASKED, now_ns=1000, doubts=["3 lines not understood"])
    assert isinstance(outcome, Partial)
    assert (outcome.gaps, outcome.notes) == ((), ("3 lines not understood",))


def test_the_future_is_neither_missing_nor_a_gap() -> None:
    gaps = [gap(50, 100)]
    assert isinstance(settle(7, origin="x", asked=ASKED, now_ns=50, gaps=gaps), Ok)
    assert coverage(ASKED, gaps, now_ns=50) == 1.0
    assert coverage(ASKED, gaps, now_ns=75) == 1 - 25 / 75
    assert coverage(ASKED, [gap(0, 100)], now_ns=-5) == 1.0


def test_gaps_that_touch_for_one_reason_are_one() -> None:
    gaps = [gap(20, 30), gap(10, 20), gap(-5, 2), gap(40, 40), gap(25, 27, GapReason.RETENTION)]
    assert join_gaps(gaps, ASKED) == [
        gap(0, 2),
        gap(10, 30),
        gap(25, 27, GapReason.RETENTION),
    ]


def test_many_gaps_are_listed_as_fewer_that_cover_them_all() -> None:
    gaps = [gap(i, i + 1) for i in range(0, 4 * MAX_GAPS, 2)]
    joined = join_gaps(gaps, Span(0, 10 * MAX_GAPS))
    assert len(joined) <= MAX_GAPS
    held = {i for g in joined for i in range(g.span.start_ns, g.span.stop_ns)}
    assert {g.span.start_ns for g in gaps} <= held


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 50)), max_size=6))
def test_coverage_is_the_share_no_gap_takes(parts: list[tuple[int, int]]) -> None:
    gaps = [gap(start, start + length) for start, length in parts]
    lost = {i for g in gaps for i in range(g.span.start_ns, min(100, g.span.stop_ns))}
    assert abs(coverage(ASKED, gaps, now_ns=1000) - (1 - len(lost) / 100)) < 1e-12


def test_facts_are_exchanged_and_the_outcome_stays() -> None:
    partial = Partial(facts=1, origin="a", notes=("n",), gaps=(gap(1, 2),))
    missing = Unavailable(origin="b", notes=("gone",))
    assert with_facts(partial, "x") == Partial(
        facts="x", origin="a", notes=("n",), gaps=(gap(1, 2),)
    )
    assert with_facts(missing, "x") is missing
