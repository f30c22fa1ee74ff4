"""When a breaker opens and closes, and that one call at a time is let through in between."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from oscar_metrics.resilience.breaker import JITTER, Breaker, BreakerState, Result

OPEN_SECONDS = 5.0
LONGEST_SECONDS = 60.0
RESULTS = {"+": Result.ANSWERED, "-": Result.FAILED, "?": Result.NOTHING}


def breaker(random: float = 0.5) -> Breaker:
    return Breaker(
        open_seconds=OPEN_SECONDS, longest_open_seconds=LONGEST_SECONDS, random=lambda: random
    )


def told(one: Breaker, results: str, *, at: float = 0.0, apart_seconds: float = 0.0) -> float:
    """Make calls one after the other until the breaker opens; when the last of them ended."""
    for number, result in enumerate(results):
        now = at + number * apart_seconds
        ticket = one.begin(now)
        assert ticket is not None
        one.end(ticket, RESULTS[result], now)
    return at + (len(results) - 1) * apart_seconds


@pytest.mark.parametrize(
    ("results", "apart_seconds", "expected"),
    [
        ("-----", 0.0, BreakerState.OPEN),
        ("-----", 3600.0, BreakerState.OPEN),
        ("----", 0.0, BreakerState.CLOSED),
        ("----+----", 0.0, BreakerState.CLOSED),
        # What tells nothing neither counts nor comes in between.
        ("--??---", 0.0, BreakerState.OPEN),
        ("??????????", 0.0, BreakerState.CLOSED),
        # Half of twenty.
        ("+-" * 10, 0.0, BreakerState.OPEN),
        ("+-" * 9 + "+", 0.0, BreakerState.CLOSED),
        ("++-" * 20, 0.0, BreakerState.CLOSED),
        # Too few within a minute to say.
        ("+-" * 30, 4.0, BreakerState.CLOSED),
        # Long good, now bad: what is old is forgotten.
        ("+" * 60 + "+-" * 10, 3.0, BreakerState.OPEN),
    ],
)
def test_what_opens_it(results: str, apart_seconds: float, expected: BreakerState) -> None:
    one = breaker()
    told(one, results, apart_seconds=apart_seconds)
    assert one.state is expected
    assert one.openings == (expected is BreakerState.OPEN)


@pytest.mark.parametrize("random", [0.0, 0.5, 1.0])
def test_each_failure_of_the_call_let_through_doubles_the_time_up_to_the_longest(
    random: float,
) -> None:
    one, now = breaker(random), 100.0
    told(one, "-----", at=now)
    for seconds in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        seconds *= 1 + JITTER * (2 * random - 1)
        assert one.begin(now + seconds - 0.001) is None
        assert one.seconds_left(now) == pytest.approx(seconds)
        now += seconds + 0.001
        told(one, "-", at=now)
    told(one, "+", at=now + 100)
    assert one.state is BreakerState.CLOSED
    told(one, "-----", at=now + 100)
    assert one.seconds_left(now + 100) == pytest.approx(5.0 * (1 + JITTER * (2 * random - 1)))


def test_one_call_is_let_through_and_one_that_was_cancelled_gives_its_place_back() -> None:
    one = breaker()
    told(one, "-----")
    first = one.begin(6.0)
    assert first is not None
    assert one.begin(6.0) is None
    one.end(first, Result.NOTHING, 7.0)
    second = one.begin(7.0)
    assert second is not None
    assert one.begin(7.0) is None
    # The first is over: what is still said of it is nobody's.
    one.end(first, Result.ANSWERED, 7.0)
    assert one.state is BreakerState.HALF_OPEN
    one.end(second, Result.ANSWERED, 8.0)
    assert None not in (one.begin(8.0), one.begin(8.0))


def test_calls_from_before_it_opened_decide_nothing_any_more() -> None:
    one = breaker()
    early = [one.begin(0.0) for _ in range(12)]
    for ticket in early[:5]:
        assert ticket is not None
        one.end(ticket, Result.FAILED, 1.0)
    assert one.state is BreakerState.OPEN
    for ticket in early[5:8]:
        assert ticket is not None
        assert not one.holds(ticket)
        one.end(ticket, Result.ANSWERED, 2.0)
    assert one.begin(2.0) is None
    assert one.begin(7.0) is not None
    for ticket in early[8:]:
        assert ticket is not None
        one.end(ticket, Result.FAILED, 7.0)
    assert (one.state, one.openings) == (BreakerState.HALF_OPEN, 1)


class Calls(RuleBasedStateMachine):
    """Calls that begin, end and are cancelled in any order, to an upstream that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = breaker()
        self.under_way: list[int] = []
        self.since_opening = 0.0
        self.openings = 0

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 7.0, 80.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begins(self) -> None:
        before = self.breaker.state
        ticket = self.breaker.begin(self.now)
        if ticket is not None:
            self.under_way.append(ticket)
        if before is BreakerState.CLOSED:
            assert ticket is not None
        if before is BreakerState.HALF_OPEN:
            assert ticket is None
        if before is BreakerState.OPEN:
            open_seconds = self.now - self.since_opening
            if ticket is None:
                assert open_seconds <= LONGEST_SECONDS * (1 + JITTER)
            else:
                assert open_seconds >= OPEN_SECONDS * (1 - JITTER)

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1_000), result=st.sampled_from(Result))
    def ends(self, which: int, result: Result) -> None:
        ticket = self.under_way.pop(which % len(self.under_way))
        counts, before = self.breaker.holds(ticket), self.breaker.state
        self.breaker.end(ticket, result, self.now)
        if not counts or result is Result.NOTHING:
            back = counts and before is BreakerState.HALF_OPEN
            assert self.breaker.state is (BreakerState.OPEN if back else before)
        elif before is BreakerState.HALF_OPEN:
            good = result is Result.ANSWERED
            assert self.breaker.state is (BreakerState.CLOSED if good else BreakerState.OPEN)
        if self.breaker.openings > self.openings:
            assert result is Result.FAILED
            self.since_opening, self.openings = self.now, self.breaker.openings

    @precondition(lambda self: self.breaker.state is BreakerState.CLOSED)
    @rule()
    def goes(self) -> None:
        for _ in range(5):
            self.begins()
            self.ends(len(self.under_way) - 1, Result.FAILED)
            if self.breaker.state is not BreakerState.CLOSED:
                break
        assert self.breaker.state is BreakerState.OPEN

    @invariant()
    def one_call_at_most_is_let_through(self) -> None:
        let_through = sum(map(self.breaker.holds, self.under_way))
        if self.breaker.state is BreakerState.OPEN:
            assert let_through == 0
        if self.breaker.state is BreakerState.HALF_OPEN:
            assert let_through == 1

    def teardown(self) -> None:
        """However it went: an upstream that is back is asked again by all, and soon."""
        while self.under_way:
            self.ends(0, Result.NOTHING)
        self.now += LONGEST_SECONDS * (1 + JITTER)
        told(self.breaker, "++", at=self.now)
        assert self.breaker.state is BreakerState.CLOSED


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
