"""The outcome of a range from those of its stretches."""

from __future__ import annotations

from typing import Any

import pytest

from oscar_metrics.joined import Piece, join
from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    SealedPart,
    Unavailable,
    settle,
)
from oscar_metrics.timerange import Span

ASKED = Span(0, 100)
NOW = 100
SEALED = SealedPart(spans=(Span(0, 50),), first_sealed_at_ns=60, last_sealed_at_ns=70)


def stored(facts: int, *gaps: Gap, **fields: Any) -> Piece:
    outcome: Outcome[int]
    if gaps:
        outcome = Partial(
            facts=facts, origin="ledger", notes=("x",), gaps=gaps, sealed=SEALED, **fields
        )
    else:
        outcome = Ok(facts=facts, origin="ledger", last_updated_ns=70, sealed=SEALED)
    return Piece(spans=(Span(0, 50),), outcome=outcome)


def live(outcome: Outcome[int], **fields: Any) -> Piece:
    return Piece(spans=(Span(50, 100),), outcome=outcome, **fields)


def add(parts: list[int]) -> int:
    return sum(parts)


def joined(*pieces: Piece, doubts: tuple[str, ...] = ()) -> Outcome[int]:
    return join(pieces, add, bool, asked=ASKED, now_ns=NOW, doubts=doubts)


def test_what_was_read_from_both_is_added_and_says_what_was_sealed() -> None:
    outcome = joined(stored(3), live(Ok(facts=4, origin="loki", notes=("a remark",))))
    assert outcome == Ok(facts=7, origin="ledger+loki", notes=("a remark",), sealed=SEALED)


def test_one_source_that_was_asked_for_everything_speaks_for_itself() -> None:
    outcome = Partial(facts=1, origin="loki", notes=("its own words",))
    piece = Piece(spans=(ASKED,), outcome=outcome)
    assert joined(piece) is outcome


def test_gaps_of_all_are_described_once() -> None:
    lost = settle(
        4,
        origin="loki",
        asked=Span(50, 100),
        now_ns=NOW,
        gaps=[Gap(span=Span(90, 100), reason=GapReason.FAILED)],
        doubts=["a doubt"],
    )
    outcome = joined(stored(3, Gap(span=Span(0, 5), reason=GapReason.FAILED)), live(lost))
    assert isinstance(outcome, Partial)
    assert outcome.facts == 7
    assert [gap.span for gap in outcome.gaps] == [Span(0, 5), Span(90, 100)]
    assert outcome.doubts == ("a doubt",)
    assert sum("of the range" in note for note in outcome.notes) == 1


@pytest.mark.parametrize("reason", [GapReason.CUT, GapReason.NOT_SEALED])
def test_a_source_that_says_nothing_leaves_a_gap(reason: GapReason) -> None:
    missing = Unavailable(origin="loki", notes=("Loki cannot be reached",))
    outcome = joined(stored(3), live(missing, if_missing=reason))
    assert isinstance(outcome, Partial)
    assert outcome.facts == 3
    assert outcome.gaps == (Gap(span=Span(50, 100), reason=reason),)
    assert "Loki cannot be reached" in outcome.notes


def test_the_gaps_of_a_source_that_says_nothing_are_described_once() -> None:
    silent = settle(
        0,
        origin="loki",
        asked=Span(50, 100),
        now_ns=NOW,
        gaps=[Gap(span=Span(50, 100), reason=GapReason.NO_LINES)],
        notes=["look at the collector"],
    )
    assert isinstance(silent, Unavailable)
    outcome = joined(stored(3), live(silent))
    assert isinstance(outcome, Partial)
    assert outcome.gaps == (Gap(span=Span(50, 100), reason=GapReason.NO_LINES),)
    assert sum("of the range" in note for note in outcome.notes) == 1
    assert "look at the collector" in outcome.notes


def test_where_nothing_was_said_there_is_no_number() -> None:
    missing = Unavailable(origin="loki", notes=("down",))
    everything = Gap(span=Span(0, 50), reason=GapReason.FAILED)
    assert isinstance(joined(live(missing)), Unavailable)
    assert isinstance(joined(stored(0, everything), live(missing)), Unavailable)
    # Something that was counted all the same is told.
    assert isinstance(joined(stored(2, everything), live(missing)), Partial)


def test_the_future_is_no_gap() -> None:
    missing = Piece(spans=(Span(100, 200),), outcome=Unavailable(origin="loki", notes=("down",)))
    outcome = join(
        [stored(3), live(Ok(facts=1, origin="loki")), missing],
        add,
        bool,
        asked=Span(0, 200),
        now_ns=NOW,
    )
    assert isinstance(outcome, Ok)


def test_what_is_in_doubt_stays_as_narrow_as_it_was() -> None:
    gpu = Partial(
        facts=1,
        origin="prometheus",
        notes=("no GPUs",),
        doubts=("no GPUs",),
        measures=frozenset({Measure.GPU}),
    )
    outcome = joined(stored(3), live(gpu))
    assert isinstance(outcome, Partial)
    assert outcome.measures == {Measure.GPU}
    wide = joined(stored(3), live(gpu), doubts=("methods differ",))
    assert isinstance(wide, Partial)
    assert wide.measures == frozenset()
