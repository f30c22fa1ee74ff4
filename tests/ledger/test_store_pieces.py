"""Spans of a report are made up of rolled-up months, days and parts of slots, each once."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.ledger.duckdb_calendar import month_days, month_of
from oscar_metrics.ledger.duckdb_pieces import Pieces, Run, pieces
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SLOT_NS, Span, merge, parse_instant

FIRST_NS = parse_instant("2025-12-30T00:00:00Z")
DAY = FIRST_NS // DAY_NS
JANUARY = month_of(FIRST_NS) + 1
DAYS = range(DAY, DAY + 65)

edges = st.builds(
    lambda slot, after: FIRST_NS + slot * SLOT_NS + after,
    st.integers(0, 64).map(lambda day: day * 96) | st.integers(0, 64 * 96),
    st.sampled_from([0, 1]),
)
spans = st.lists(st.tuples(edges, edges).map(lambda ends: Span(min(ends), max(ends))), max_size=4)


@given(
    spans=spans.map(merge),
    bounds_ns=st.lists(edges, max_size=6).map(sorted),
    months=st.sets(st.sampled_from([JANUARY - 1, JANUARY, JANUARY + 1])),
    days=st.sets(st.sampled_from(DAYS)),
)
def test_pieces_hold_every_part_of_the_spans_once_and_in_its_period(
    spans: list[Span], bounds_ns: list[int], months: set[int], days: set[int]
) -> None:
    found = pieces(spans, bounds_ns=bounds_ns, months=months, days=days)
    expected = Counter(
        (part, max(0, bisect_right(bounds_ns, start_of(part)) - 1))
        for span in spans
        for part in parts_of(span)
    )
    assert Counter(as_parts(found)) == expected
    assert {number for number, _ in each(found.months)} <= months
    assert {number for number, _ in each(found.days)} <= days


def parts_of(span: Span) -> range:
    return range(
        *(2 * (ns // SLOT_NS) + (ns % SLOT_NS > 0) for ns in (span.start_ns, span.stop_ns))
    )


def start_of(part: int) -> int:
    return part // 2 * SLOT_NS + part % 2


def each(runs: tuple[Run, ...]) -> list[tuple[int, int]]:
    return [
        (number, run.period + (number - run.first) // run.width)
        for run in runs
        for number in range(run.first, run.stop)
    ]


def as_parts(found: Pieces) -> list[tuple[int, int]]:
    days = each(found.days) + [
        (day, period) for month, period in each(found.months) for day in month_days(month)
    ]
    return each(found.parts) + [
        (part, period) for day, period in days for part in range(day * 192, day * 192 + 192)
    ]


ALL_MONTHS = {JANUARY - 1, JANUARY, JANUARY + 1}


@pytest.mark.parametrize(
    ("span", "width_ns", "months", "days", "parts"),
    [
        # January whole is a month; a nanosecond more is that part of a slot beside it.
        (Span(FIRST_NS + 2 * DAY_NS, FIRST_NS + 33 * DAY_NS), None, 1, 0, 0),
        (Span(FIRST_NS + 2 * DAY_NS, FIRST_NS + 33 * DAY_NS + 1), None, 1, 0, 1),
        (Span(FIRST_NS + DAY_NS, FIRST_NS + 34 * DAY_NS), None, 1, 2, 0),
        # A month that begins an hour late is days and, on the first of them, slots.
        (Span(FIRST_NS + 2 * DAY_NS + HOUR_NS, FIRST_NS + 33 * DAY_NS), None, 0, 30, 1),
        # Days one by one, and local days of UTC+1: each a step of one run.
        (Span(FIRST_NS + 2 * DAY_NS, FIRST_NS + 33 * DAY_NS), DAY_NS, 0, 31, 0),
        (Span(FIRST_NS + HOUR_NS, FIRST_NS + 9 * DAY_NS + HOUR_NS), DAY_NS, 0, 0, 1),
        (Span(FIRST_NS, FIRST_NS + 9 * DAY_NS), HOUR_NS, 0, 0, 1),
    ],
)
def test_the_coarsest_pieces_are_taken(
    span: Span, width_ns: int | None, months: int, days: int, parts: int
) -> None:
    bounds_ns = range(span.start_ns, span.stop_ns + 1, width_ns) if width_ns else ()
    found = pieces([span], bounds_ns=bounds_ns, months=ALL_MONTHS, days=DAYS)
    assert len(each(found.months)) == months
    assert len(each(found.days)) == days
    assert len(found.parts) == parts
    assert len(found.days) <= 2
