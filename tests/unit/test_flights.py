"""That work wanted by several is done once, for as long as anybody waits for it."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from oscar_metrics.errors import BadRequest, NotNow
from oscar_metrics.resilience.flights import Flights


class Work:
    """Work that ends when told to, and counts how often it was begun and cancelled."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.may_end = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return self.begun


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_two_hundred_who_ask_the_same_have_it_done_once() -> None:
    work = Work()
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        waiting = [group.create_task(flights.shared("same", work)) for _ in range(200)]
        other = group.create_task(flights.shared("other", work))
        await settled()
        assert (work.begun, len(flights)) == (2, 2)
        work.may_end.set()
    assert {task.result() for task in waiting} | {other.result()} == {2}
    assert len(flights) == 0


async def test_who_goes_first_harms_nobody() -> None:
    work = Work()
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        first, *others = [group.create_task(flights.shared("same", work)) for _ in range(3)]
        await settled()
        first.cancel()
        await settled()
        assert first.cancelled()
        work.may_end.set()
    assert [task.result() for task in others] == [1, 1]
    assert work.cancelled == 0


async def test_when_all_have_gone_it_is_cancelled_and_may_be_begun_anew() -> None:
    work = Work()
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        waiting = [group.create_task(flights.shared("same", work)) for _ in range(3)]
        await settled()
        again = group.create_task(flights.shared("same", work))
        await settled()
        for task in waiting:
            task.cancel()
        await settled()
        assert (work.begun, work.cancelled) == (1, 0)  # one more had come before they went
        again.cancel()
        await settled()
        assert (work.begun, work.cancelled, len(flights)) == (1, 1, 0)
        anew = group.create_task(flights.shared("same", work))
        await settled()
        work.may_end.set()
    assert anew.result() == 2


async def test_who_comes_once_it_has_ended_has_it_done_anew() -> None:
    work = Work()
    work.may_end.set()
    came: list[asyncio.Task[int]] = []
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)

        def come() -> None:
            came.append(group.create_task(flights.shared("same", work)))

        async def ending() -> int:
            # Who comes then comes before those who waited have heard what it came to.
            asyncio.get_running_loop().call_soon(come)
            return await work()

        assert await flights.shared("same", ending) == 1
        await settled()
    assert [task.result() for task in came] == [2]
    assert len(flights) == 0


async def test_an_error_is_everybodys_and_is_not_kept() -> None:
    work = Work()
    work.error = BadRequest("too many rows")
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        waiting = [
            asyncio.gather(flights.shared("same", work), return_exceptions=True) for _ in range(2)
        ]
        await settled()
        work.may_end.set()
        assert [error for task in waiting for error in await task] == [work.error] * 2
        work.error = None
        assert await flights.shared("same", work) == 2


async def test_an_error_says_no_more_the_more_wait_for_it() -> None:
    work, told = Work(), list[int]()
    work.error = ZeroDivisionError()

    async def wait() -> None:
        try:
            await flights.shared("same", work)
        except ZeroDivisionError as exc:
            told.append(len(list(traceback.walk_tb(exc.__traceback__))))

    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        for _ in range(50):
            group.create_task(wait())
        await settled()
        work.may_end.set()
    assert set(told) == {told[0]}


async def test_at_the_end_who_waits_is_told_to_ask_again() -> None:
    work = Work()
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        waiting = asyncio.gather(flights.shared("same", work), return_exceptions=True)
        await settled()
        flights.end()
        (error,) = await waiting
    assert isinstance(error, NotNow)
    assert work.cancelled == 1


async def test_a_mistake_of_ours_does_not_end_what_others_wait_for() -> None:
    broken, work = Work(), Work()
    broken.error = ZeroDivisionError()
    broken.may_end.set()
    async with asyncio.TaskGroup() as group:
        flights: Flights[int] = Flights(group)
        other = group.create_task(flights.shared("other", work))
        with pytest.raises(ZeroDivisionError):
            await flights.shared("broken", broken)
        work.may_end.set()
    assert other.result() == 1
