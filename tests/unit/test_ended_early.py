"""That work which is watched goes as if it were awaited, whenever and however it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest
from litestar import Request

from oscar_metrics.errors import BadRequest, ClientGone, NotNow
from oscar_metrics.handlers.ended_early import EndedEarly

Work = Callable[[], Awaitable[Any]]
_SAID: ContextVar[str] = ContextVar("said", default="nothing")


class Peer:
    """A client, and a server that may stop; `listened` is whether anybody waits for it to go."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.stop = asyncio.Event()
        self.listened = False

    async def unless_gone(self, work: Work) -> Any:
        """What work comes to while it is watched."""
        request: Request[Any, Any, Any] = Request(
            {"type": "http", "headers": [], "state": {}},  # type: ignore[arg-type]
            self._receive,
        )

        async def awaited() -> Any:
            return await work()

        return await EndedEarly(self.stop).unless_gone(request, awaited())

    async def _receive(self) -> Any:
        self.listened = True
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def nothing() -> str:
    return "at once"


async def turns() -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "after some turns"


async def a_future() -> str:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, "what came")
    return str(await future)


async def a_time_out() -> str:
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        return "too late"
    return "in time"


async def tasks() -> str:
    async def fails() -> None:
        raise ZeroDivisionError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await asyncio.Event().wait()
    except* ZeroDivisionError:
        pass
    await asyncio.sleep(0)
    return "a task failed"


async def a_context() -> str:
    task = asyncio.current_task()
    _SAID.set("before")
    await asyncio.sleep(0)
    assert asyncio.current_task() is task
    return _SAID.get()


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (nothing, "at once"),
        (turns, "after some turns"),
        (a_future, "what came"),
        (a_time_out, "too late"),
        (tasks, "a task failed"),
        (a_context, "before"),
    ],
)
async def test_what_it_comes_to_is_what_comes(work: Work, expected: str) -> None:
    peer = Peer()
    before = asyncio.all_tasks()
    assert await peer.unless_gone(work) == expected
    assert asyncio.all_tasks() == before
    assert peer.listened == (work is not nothing)
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


@pytest.mark.parametrize("turns_before", [0, 1, 3])
async def test_its_error_is_raised(turns_before: int) -> None:
    async def work() -> None:
        for _ in range(turns_before):
            await asyncio.sleep(0)
        raise BadRequest("not like this")

    with pytest.raises(BadRequest):
        await Peer().unless_gone(work)


class Ended:
    """Work that waits for ever, within a time-out that does not come; notes how it was ended."""

    def __init__(self) -> None:
        self.with_errors: list[str] = []
        self.unwound = False

    async def __call__(self) -> None:
        try:
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        except BaseException as exc:
            self.with_errors.append(type(exc).__name__)
            await asyncio.sleep(0)
            raise
        finally:
            await asyncio.sleep(0)
            self.unwound = True


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        (lambda peer, _: peer.gone.set(), ClientGone),
        (lambda peer, _: peer.stop.set(), NotNow),
        (lambda _, task: task.cancel(), asyncio.CancelledError),
    ],
)
async def test_it_is_ended_and_waited_for(
    end: Callable[[Peer, asyncio.Task[Any]], object], raised: type[BaseException]
) -> None:
    peer, work = Peer(), Ended()
    task = asyncio.create_task(peer.unless_gone(work))
    await settled()
    end(peer, task)
    with pytest.raises(raised):
        await task
    assert work.with_errors == ["CancelledError"]
    assert work.unwound
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_server_that_has_stopped_answers_what_needs_no_waiting() -> None:
    peer = Peer()
    peer.stop.set()
    assert await peer.unless_gone(nothing) == "at once"
    with pytest.raises(NotNow):
        await peer.unless_gone(Ended())


async def test_who_is_cancelled_before_it_waits_is_cancelled_where_it_does() -> None:
    ended = Ended()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ended()

    task = asyncio.create_task(Peer().unless_gone(work))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (ended.with_errors, ended.unwound) == (["CancelledError"], True)
