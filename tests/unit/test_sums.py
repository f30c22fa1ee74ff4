"""Sums by any grouping, of any stretches, are what counting the calls one by one would give."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import CallKey, CallLog, CountryFrom, Kind, Result, SlotPart, Tallies
from oscar_metrics.sums import (
    PERIOD,
    CallSums,
    Grouping,
    by_period,
    nothing,
    of_slots,
    of_tallies,
    over_all_periods,
    span_of,
    together,
)
from oscar_metrics.timerange import SLOT_NS, Span

KEYS = st.builds(
    CallKey,
    st.sampled_from(["", "n"]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(["", "u", "v"]),
    st.sampled_from(["", "ES"]),
    st.sampled_from(list(CountryFrom)),
    st.sampled_from(list(Kind)),
    st.sampled_from(list(Result)),
)
TALLIES = st.dictionaries(KEYS, st.integers(1, 9), max_size=12).map(Counter)
SLOTTED = st.dictionaries(
    st.builds(SlotPart, st.integers(0, 11), st.booleans()),
    TALLIES.map(lambda t: CallLog(tallies=t, lines_seen=t.total(), lines_understood=t.total())),
    max_size=6,
)
GROUPINGS: tuple[Grouping, ...] = (("kind", "result"), ("service", "user"), ("country",))
# Four periods of unlike length.
BOUNDS = tuple(slot * SLOT_NS for slot in (0, 1, 4, 5, 12))


def counted(tallies: Tallies, fields: Grouping) -> Counter[tuple[Any, ...]]:
    """The same, one key at a time."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for key, count in tallies.items():
        counts[tuple(getattr(key, field) for field in fields)] += count
    return counts


@given(TALLIES)
def test_sums_by_asked_groupings_and_by_what_they_contain(tallies: Tallies) -> None:
    sums = of_tallies(tallies, GROUPINGS)
    for fields in (*GROUPINGS, ("user",), ("service",), ("result", "kind")):
        assert sums.by(*fields) == counted(tallies, fields)
    with pytest.raises(KeyError):
        sums.by("namespace")
    with pytest.raises(KeyError):
        sums.by("service", "country")


@given(TALLIES, TALLIES)
def test_sums_of_stretches_add_up(one: Tallies, other: Tallies) -> None:
    parts = [of_tallies(tallies, GROUPINGS) for tallies in (one, other)]
    assert together(parts, GROUPINGS) == of_tallies(one + other, GROUPINGS)
    assert together([], GROUPINGS) == nothing(GROUPINGS)


@given(SLOTTED)
def test_a_series_is_the_sums_of_each_period_and_together_those_of_the_whole(
    slotted: dict[SlotPart, CallLog],
) -> None:
    series = of_slots(slotted, [(PERIOD, *fields) for fields in GROUPINGS], BOUNDS)
    everything: Tallies = Counter()
    for number, (start_ns, stop_ns) in enumerate(itertools.pairwise(BOUNDS)):
        inside: Tallies = Counter()
        for part, log in slotted.items():
            if span_of(part).start_ns in Span(start_ns, stop_ns):
                inside += log.tallies
        everything += inside
        assert by_period(series, len(BOUNDS) - 1)[number] == of_tallies(inside, GROUPINGS)
    assert over_all_periods(series) == of_tallies(everything, GROUPINGS)


def test_sums_without_periods_are_their_own_whole() -> None:
    sums = CallSums(groups={("user",): Counter({("u",): 2})})
    assert over_all_periods(sums) == sums


def test_the_first_instant_of_a_slot_is_apart_from_its_rest() -> None:
    assert span_of(SlotPart(3, first=True)) == Span(3 * SLOT_NS, 3 * SLOT_NS + 1)
    assert span_of(SlotPart(3, first=False)) == Span(3 * SLOT_NS + 1, 4 * SLOT_NS)
