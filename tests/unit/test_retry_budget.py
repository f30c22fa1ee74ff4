from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.resilience.budget import FLOOR, WINDOW_SECONDS, RetryBudget
from oscar_metrics.resilience.recent import RecentCounts


@pytest.mark.parametrize(
    ("percent", "calls", "retries"),
    [(15, 0, 5), (15, 6, 5), (15, 7, 6), (15, 100, 20), (0, 1000, 5), (100, 10, 15)],
)
def test_a_share_of_the_calls_and_five_more(percent: int, calls: int, retries: int) -> None:
    budget = RetryBudget(percent)
    for _ in range(calls):
        budget.called(0.0)
    assert sum(budget.spend(1.0) for _ in range(1000)) == retries


def test_what_was_spent_comes_back_after_a_minute() -> None:
    budget = RetryBudget(15)
    assert [budget.spend(0.0) for _ in range(FLOOR + 1)] == [True] * FLOOR + [False]
    assert not budget.spend(WINDOW_SECONDS * 0.9)
    assert budget.spend(WINDOW_SECONDS)


EVENTS = st.lists(st.tuples(st.sampled_from([0.0, 0.5, 4.0, 20.0]), st.booleans()), max_size=150)


@settings(max_examples=100)
@given(EVENTS)
def test_no_minute_has_more_retries_than_its_calls_allow(events: list[tuple[float, bool]]) -> None:
    budget, now = RetryBudget(20), 0.0
    calls: list[float] = []
    retries: list[float] = []
    for seconds, retry in events:
        now += seconds
        if not retry:
            budget.called(now)
            calls.append(now)
        elif budget.spend(now):
            retries.append(now)
    # What is looked back on is a minute less up to a step of five seconds.
    for number, at in enumerate(retries):
        within = [one for one in retries[: number + 1] if one > at - WINDOW_SECONDS * 11 / 12]
        asked = [one for one in calls if at - WINDOW_SECONDS < one <= at]
        assert len(within) <= FLOOR + len(asked) * 0.2


@settings(max_examples=100)
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=80))
def test_recent_counts_hold_what_is_recent_in_little_memory(
    events: list[tuple[float, bool]],
) -> None:
    counts, now = RecentCounts(60.0), 0.0
    seen: list[tuple[float, bool]] = []
    for seconds, marked in events:
        now += seconds
        counts.add(now, marked=marked)
        seen.append((now, marked))
        everything, those = counts.totals(now)
        least = [is_marked for at, is_marked in seen if at > now - 55]
        most = [is_marked for at, is_marked in seen if at > now - 60]
        assert len(least) <= everything <= len(most)
        assert sum(least) <= those <= sum(most)
        assert len(counts._steps) <= 12
    assert all(first[0] < second[0] for first, second in pairwise(counts._steps))
    assert counts.totals(now + 60) == (0, 0)
