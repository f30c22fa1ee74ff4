"""What every call to an upstream passes: when it is made, made again, waits, or is not made."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest
from structlog.testing import capture_logs

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.resilience.breaker import BreakerState
from oscar_metrics.resilience.budget import FLOOR
from oscar_metrics.resilience.gate import Gate, Protection
from oscar_metrics.sources.kubernetes_errors import NoCluster
from oscar_metrics.telemetry import Telemetry

NAME = "loki"
SOON = Protection(open_seconds=0.05, longest_open_seconds=0.05)


def gate(
    protection: Protection | None = None,
    *,
    concurrency: int = 4,
    attempts: int = 1,
    timeout_seconds: float = 60.0,
    telemetry: Telemetry | None = None,
) -> Gate:
    return Gate(
        NAME,
        protection or Protection(),
        concurrency=concurrency,
        attempts=attempts,
        timeout_seconds=timeout_seconds,
        telemetry=telemetry or Telemetry(),
    )


class Upstream:
    """Raises what it is told to, and keeps when it was asked."""

    def __init__(self, reason: Reason | None = None, *, retry_after: float | None = None) -> None:
        self.reason = reason
        self.retry_after = retry_after
        self.asked: list[float] = []

    async def __call__(self) -> str:
        self.asked.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        if self.reason is not None:
            raise UpstreamError(NAME, self.reason, retry_after_seconds=self.retry_after)
        return "answer"


async def reason_of(answer: Awaitable[Any]) -> Reason | None:
    try:
        await answer
    except UpstreamError as exc:
        return exc.reason
    return None


def value_of(telemetry: Telemetry, metric: str, **labels: str) -> float:
    return telemetry.registry.get_sample_value(f"oscar_metrics_upstream_{metric}", labels) or 0.0


COUNTED = {Reason.CONNECT, Reason.TIMEOUT, Reason.RATE_LIMITED, Reason.SERVER_ERROR}


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.OPEN, Reason.DEADLINE}))
async def test_what_counts_as_a_failure_of_the_upstream(reason: Reason) -> None:
    upstream, telemetry = Upstream(reason), Telemetry()
    asked = gate(telemetry=telemetry)
    reasons = [await reason_of(asked.ask(upstream)) for _ in range(30)]
    opens = reason in COUNTED
    assert reasons == ([reason] * 5 + [Reason.OPEN] * 25 if opens else [reason] * 30)
    assert len(upstream.asked) == (5 if opens else 30)
    assert telemetry.breakers == {NAME: BreakerState.OPEN if opens else BreakerState.CLOSED}


async def test_a_cluster_that_is_not_configured_is_no_failing_upstream() -> None:
    asked = gate()

    async def once() -> None:
        raise NoCluster("the kubeconfig cannot be read")

    for _ in range(30):
        with pytest.raises(NoCluster):
            await asked.ask(once)


async def test_while_open_calls_fail_at_once_and_say_when_to_come_back() -> None:
    telemetry = Telemetry()
    asked, upstream = gate(telemetry=telemetry), Upstream(Reason.CONNECT)
    with capture_logs() as logged:
        for _ in range(5):
            await reason_of(asked.ask(upstream))
        with pytest.raises(UpstreamError, match="not asked for a while") as caught:
            await asked.ask(upstream)
    assert 1 <= (caught.value.retry_after_seconds or 0) <= 6
    assert [line["event"] for line in logged] == ["upstream failed again and again"]
    assert value_of(telemetry, "breaker_openings_total", upstream=NAME) == 1
    assert value_of(telemetry, "calls_refused_total", upstream=NAME) == 1
    states = {
        state: value_of(telemetry, "breaker_state", upstream=NAME, state=state)
        for state in BreakerState
    }
    assert states == {
        BreakerState.CLOSED: 0,
        BreakerState.OPEN: 1,
        BreakerState.HALF_OPEN: 0,
    }


async def test_one_call_finds_out_that_it_is_back_and_the_others_fail_meanwhile() -> None:
    telemetry = Telemetry()
    asked, upstream = gate(SOON, telemetry=telemetry), Upstream(Reason.TIMEOUT)
    for _ in range(5):
        await reason_of(asked.ask(upstream))
    await asyncio.sleep(0.1)
    held, begun = asyncio.Event(), asyncio.Event()

    async def slow() -> str:
        begun.set()
        await held.wait()
        return "answer"

    first = asyncio.create_task(asked.ask(slow))
    await begun.wait()
    assert telemetry.breakers == {NAME: BreakerState.HALF_OPEN}
    upstream.reason = None
    assert await reason_of(asked.ask(upstream)) is Reason.OPEN
    # Who gives up gives the place back.
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asked.ask(upstream) == "answer"
    assert telemetry.breakers == {NAME: BreakerState.CLOSED}


async def test_who_waits_for_a_place_when_it_opens_does_not_wait_on() -> None:
    asked = gate(concurrency=6)
    held = asyncio.Event()

    async def fails_late() -> None:
        await held.wait()
        raise UpstreamError(NAME, Reason.TIMEOUT)

    hanging = asyncio.create_task(asked.ask(asyncio.Event().wait))
    failing = [asyncio.create_task(reason_of(asked.ask(fails_late))) for _ in range(5)]
    upstream = Upstream()
    waiting = [asyncio.create_task(reason_of(asked.ask(upstream))) for _ in range(20)]
    await asyncio.sleep(0)
    held.set()
    assert await asyncio.gather(*failing) == [Reason.TIMEOUT] * 5
    assert await asyncio.gather(*waiting) == [Reason.OPEN] * 20
    assert not upstream.asked
    assert not hanging.done()
    hanging.cancel()


@pytest.mark.parametrize(
    ("deadline_seconds", "unanswered_seconds", "opens"),
    [(0.1, 0.05, True), (0.05, 5.0, False), (None, 0.01, False)],
)
async def test_a_deadline_counts_only_after_a_wait_that_tells_and_giving_up_never_does(
    deadline_seconds: float | None, unanswered_seconds: float, *, opens: bool
) -> None:
    telemetry = Telemetry()
    asked = gate(
        Protection(unanswered_seconds=unanswered_seconds), concurrency=8, telemetry=telemetry
    )

    async def report() -> None:
        now = asyncio.get_running_loop().time()
        deadline = None if deadline_seconds is None else now + deadline_seconds
        with asking_for(Asker(deadline)), contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(now + 0.1 if deadline is None else deadline):
                await asked.ask(asyncio.Event().wait)

    await asyncio.gather(*(report() for _ in range(8)))
    assert telemetry.breakers == {NAME: BreakerState.OPEN if opens else BreakerState.CLOSED}


async def test_what_hangs_counts_after_half_of_the_time_a_call_may_take() -> None:
    telemetry = Telemetry()
    asked = gate(timeout_seconds=0.1, concurrency=8, telemetry=telemetry)
    deadline = asyncio.get_running_loop().time() + 0.1

    async def request() -> None:
        with asking_for(Asker(deadline)), contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await asked.ask(asyncio.Event().wait)

    await asyncio.gather(*(request() for _ in range(8)))
    assert telemetry.breakers == {NAME: BreakerState.OPEN}


async def tried(upstream: Upstream, *, attempts: int, deadline_seconds: float | None) -> Telemetry:
    telemetry = Telemetry()
    now = asyncio.get_running_loop().time()
    deadline = None if deadline_seconds is None else now + deadline_seconds
    with asking_for(Asker(deadline)):
        await reason_of(gate(attempts=attempts, telemetry=telemetry).ask(upstream))
    return telemetry


@pytest.mark.parametrize(
    ("retry_after", "attempts", "deadline_seconds", "tries", "decision"),
    [
        (0.02, 3, None, 3, "made"),
        (0.02, 1, None, 1, None),
        (0.02, 3, 5.0, 3, "made"),
        # It could not end in time, so it is not begun, and nobody waits.
        (0.5, 3, 0.2, 1, "too late"),
        (8.0, 3, 5.0, 1, "too late"),
        # Longer than anybody waits, and sooner is not what it asked for.
        (3600.0, 3, None, 1, "too late"),
    ],
)
async def test_what_it_asks_to_wait_is_waited_but_not_past_the_deadline(
    retry_after: float,
    attempts: int,
    deadline_seconds: float | None,
    tries: int,
    decision: str | None,
) -> None:
    upstream = Upstream(Reason.RATE_LIMITED, retry_after=retry_after)
    telemetry = await tried(upstream, attempts=attempts, deadline_seconds=deadline_seconds)
    assert len(upstream.asked) == tries
    assert all(after - before >= retry_after for before, after in pairwise(upstream.asked))
    counts = {
        name: value_of(telemetry, "retries_total", upstream=NAME, decision=name)
        for name in ("made", "too late", "over budget")
    }
    expected = {"made": 0, "too late": 0, "over budget": 0}
    assert counts == expected | ({decision: tries - 1 or 1} if decision else {})


async def test_a_retry_that_would_take_as_long_as_the_last_try_is_not_begun() -> None:
    asked = 0

    async def slow() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.2)
        raise UpstreamError(NAME, Reason.SERVER_ERROR, retry_after_seconds=0.0)

    with asking_for(Asker(asyncio.get_running_loop().time() + 0.3)):
        assert await reason_of(gate(attempts=3).ask(slow)) is Reason.SERVER_ERROR
    assert asked == 1


async def test_retries_are_a_share_of_the_calls() -> None:
    telemetry = Telemetry()
    asked = gate(attempts=2, telemetry=telemetry)
    for number in range(40):
        # Every other call is answered, the rest once they are tried again.
        failing = Upstream(Reason.SERVER_ERROR, retry_after=0.0)

        async def flapping(upstream: Upstream = failing) -> str:
            try:
                return await upstream()
            finally:
                upstream.reason = None

        good = Upstream()
        once: Callable[[], Awaitable[str]] = flapping if number % 3 == 0 else good
        await reason_of(asked.ask(once))
    made, refused = (
        value_of(telemetry, "retries_total", upstream=NAME, decision=decision)
        for decision in ("made", "over budget")
    )
    assert made + refused == 14
    assert FLOOR < made <= FLOOR + 40 * 15 // 100
    assert refused > 0


async def test_no_retry_is_made_once_it_is_open_and_the_error_is_the_first_one() -> None:
    asked, upstream = gate(attempts=10), Upstream(Reason.CONNECT, retry_after=0.0)
    assert await reason_of(asked.ask(upstream)) is Reason.CONNECT
    assert len(upstream.asked) == 5


async def test_a_small_report_is_answered_while_a_big_one_has_all_its_places() -> None:
    asked = gate(concurrency=4)
    held, full = asyncio.Event(), asyncio.Event()
    in_flight = most = 0

    async def slow() -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        if in_flight == 2:
            full.set()
        await held.wait()
        in_flight -= 1

    async def big_report() -> None:
        with asking_for(Asker(None)):
            async with asyncio.TaskGroup() as group:
                for _ in range(50):
                    group.create_task(asked.ask(slow))

    async def small_report() -> list[str]:
        with asking_for(Asker(None)):
            return list(await asyncio.gather(*(asked.ask(Upstream()) for _ in range(8))))

    big = asyncio.create_task(big_report())
    await full.wait()
    assert await small_report() == ["answer"] * 8
    assert not big.done()
    held.set()
    await big
    assert most == 2


@pytest.mark.parametrize(
    ("concurrency", "percent", "places"),
    [(4, 50, 2), (12, 50, 6), (5, 50, 2), (1, 50, 1), (4, 1, 1), (4, 100, 4), (16, 75, 12)],
)
def test_the_places_of_one_report(concurrency: int, percent: int, places: int) -> None:
    assert Protection(report_percent=percent).places_of_one(concurrency) == places


async def test_an_answer_that_is_still_coming_keeps_its_place() -> None:
    asked = gate(concurrency=1)
    async with asked.keeping_place(Upstream()) as answer:
        assert answer == "answer"
        waiting = asyncio.create_task(asked.ask(Upstream()))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
    assert await waiting == "answer"


async def test_metrics_tell_of_places_and_of_what_the_retry_budget_has_left() -> None:
    telemetry = Telemetry()
    asked = gate(Protection(retry_percent=100), concurrency=2, attempts=2, telemetry=telemetry)

    def shown() -> dict[str, float]:
        names = ("places", "calls_in_progress", "calls_waiting", "retries_allowed", "retries_left")
        return {name: value_of(telemetry, name, upstream=NAME) for name in names}

    idle = {"places": 2, "calls_in_progress": 0, "calls_waiting": 0}
    assert shown() == {**idle, "retries_allowed": FLOOR, "retries_left": FLOOR}
    end = asyncio.Event()
    calls = [asyncio.create_task(asked.ask(end.wait)) for _ in range(5)]
    calls.append(asyncio.create_task(asked.ask(asyncio.Event().wait)))
    await asyncio.sleep(0.01)
    busy = {"places": 2, "calls_in_progress": 2, "calls_waiting": 4}
    assert shown() == {**busy, "retries_allowed": FLOOR + 6, "retries_left": FLOOR + 6}
    end.set()
    calls.pop().cancel()
    await asyncio.gather(*calls)
    upstream = Upstream(Reason.SERVER_ERROR, retry_after=0)
    assert await reason_of(asked.ask(upstream)) is Reason.SERVER_ERROR
    assert shown() == {**idle, "retries_allowed": FLOOR + 7, "retries_left": FLOOR + 6}


async def test_an_answer_that_is_still_coming_has_its_place() -> None:
    telemetry = Telemetry()
    asked = gate(telemetry=telemetry)
    async with asked.keeping_place(Upstream()):
        assert value_of(telemetry, "calls_in_progress", upstream=NAME) == 1
    assert value_of(telemetry, "calls_in_progress", upstream=NAME) == 0
