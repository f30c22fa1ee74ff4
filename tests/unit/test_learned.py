from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.resilience.learned import (
    FIRST_WAIT_AFTER_SILENCE_SECONDS,
    FIRST_WAIT_SECONDS,
    LONGEST_WAIT_SECONDS,
    MOST_KINDS,
    Learned,
)

MOST = 96


class Upstream:
    """Answers up to `allows` at once, and keeps what it was asked for."""

    def __init__(self, allows: int, *, least: int = 1) -> None:
        self.allows = allows
        self.learned = Learned()
        self.now = 0.0
        self.least = least
        self.asked: list[int] = []

    def ask(self) -> bool:
        amount = self.learned.amount("kind", MOST, self.now)
        self.asked.append(amount)
        self.learned.asked("kind", amount, self.now)
        if amount <= self.allows:
            self.learned.answered("kind", amount, self.now)
            return True
        self.learned.refused("kind", amount, self.now, least=self.least)
        return False

    def report(self, questions: int) -> list[int]:
        """The amounts asked for until so many were answered."""
        self.asked.clear()
        answered = 0
        while answered < questions:
            answered += self.ask()
        return list(self.asked)


@pytest.mark.parametrize(
    ("allows", "first_report", "second_report"),
    [
        (96, [96, 96, 96], [96, 96, 96]),
        (48, [96, 48, 48, 48], [48, 48, 48]),
        (20, [96, 48, 24, 12, 12, 12], [12, 12, 12]),
        (1, [96, 48, 24, 12, 6, 3, 1, 1, 1], [1, 1, 1]),
    ],
)
def test_what_was_too_much_is_not_asked_for_by_the_next_report(
    allows: int, first_report: list[int], second_report: list[int]
) -> None:
    upstream = Upstream(allows)
    assert upstream.report(3) == first_report
    assert upstream.report(3) == second_report


def test_after_a_while_one_question_tries_more_and_others_do_not() -> None:
    upstream = Upstream(12)
    upstream.report(1)
    upstream.now += FIRST_WAIT_SECONDS
    learned, now = upstream.learned, upstream.now
    assert learned.amount("kind", MOST, now) == 24
    learned.asked("kind", 24, now)
    assert learned.amount("kind", MOST, now) == 12
    learned.refused("kind", 24, now)
    assert upstream.report(3) == [12, 12, 12]


def test_each_try_in_vain_is_followed_by_twice_as_long_without_one() -> None:
    upstream = Upstream(12)
    upstream.report(1)
    tries = []
    for second in range(4 * 3600):
        upstream.now = float(second)
        if upstream.report(1)[0] > 12:
            tries.append(second)
    between = [after - before for before, after in pairwise(tries)]
    assert tries[0] == FIRST_WAIT_SECONDS
    assert between[:6] == [60, 120, 240, 480, 960, 1920]
    assert set(between[6:]) == {LONGEST_WAIT_SECONDS}


def test_what_is_allowed_again_is_soon_asked_for() -> None:
    upstream = Upstream(3)
    upstream.report(1)
    upstream.allows = MOST
    assert upstream.report(2) == [3, 3]
    upstream.now += FIRST_WAIT_SECONDS
    assert upstream.report(6) == [6, 12, 24, 48, 96, 96]


def test_after_silence_everything_is_asked_for_again_within_seconds() -> None:
    learned = Learned()
    wait_seconds = FIRST_WAIT_AFTER_SILENCE_SECONDS
    for amount in (96, 48, 24):
        learned.refused("kind", amount, 0, first_wait_seconds=wait_seconds)
    asked = []
    for _ in range(4):
        asked.append(learned.amount("kind", MOST, wait_seconds))
        learned.asked("kind", asked[-1], wait_seconds)
        learned.answered("kind", asked[-1], wait_seconds)
    assert asked == [24, 48, 96, 96]


def test_a_try_that_nobody_waited_for_is_made_by_the_next_question() -> None:
    upstream = Upstream(12)
    upstream.report(1)
    learned = upstream.learned
    upstream.now += FIRST_WAIT_SECONDS
    for _ in range(5):
        assert learned.amount("kind", MOST, upstream.now) == 24
        learned.asked("kind", 24, upstream.now)
        learned.given_up("kind", 24, upstream.now)
    assert upstream.report(1) == [24, 12]
    upstream.now += 2 * FIRST_WAIT_SECONDS
    assert upstream.report(1)[0] == 24


def test_what_is_given_up_and_was_no_try_changes_nothing() -> None:
    upstream = Upstream(12)
    upstream.report(1)
    upstream.learned.given_up("kind", 12, upstream.now)
    upstream.learned.given_up("another", 12, upstream.now)
    assert upstream.report(1) == [12]


def test_questions_begun_before_a_refusal_change_nothing() -> None:
    """An empty day is answered where a busy one was refused; that says nothing of the next."""
    learned = Learned()
    for _ in range(3):
        learned.asked("kind", MOST, 0)
    learned.refused("kind", MOST, 1)
    learned.refused("kind", MOST, 2)
    learned.answered("kind", MOST, 3)
    assert learned.amount("kind", MOST, 4) == 48


def test_kinds_are_apart_and_only_so_many_are_remembered() -> None:
    learned = Learned()
    for number in range(3 * MOST_KINDS):
        learned.refused(number, 10, 0)
        assert learned.kinds <= MOST_KINDS
    assert learned.amount(0, MOST, 0) == MOST
    assert learned.amount(3 * MOST_KINDS - 1, MOST, 0) == 5


STEPS = st.lists(
    st.tuples(
        st.integers(1, MOST),  # what the upstream allows from now on
        st.sampled_from([0.0, 1.0, 59.0, 60.0, 600.0, 7200.0]),  # after how long
        st.integers(1, 4),  # questions under way at once
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(1, 8))
def test_whatever_is_learned_stays_within_bounds_and_the_range_is_asked_for_whole(
    steps: list[tuple[int, float, int]], least: int
) -> None:
    learned, now = Learned(), 0.0
    for allows, seconds, at_once in steps:
        now += seconds
        covered = 0
        refusals = 0
        while covered < MOST:
            under_way: list[int] = []
            for _ in range(at_once):
                left = MOST - covered - sum(under_way)
                if left:
                    amount = learned.amount("kind", left, now)
                    assert min(least, left) <= amount <= left
                    learned.asked("kind", amount, now)
                    under_way.append(amount)
            for amount in under_way:
                if amount <= max(allows, least):
                    learned.answered("kind", amount, now)
                    covered += amount
                else:
                    learned.refused("kind", amount, now, least=least)
                    refusals += 1
        assert covered == MOST
        # Down by halves once, and one try in vain, for each that may be under way at once.
        assert refusals <= 8 * at_once
