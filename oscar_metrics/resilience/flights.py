"""One piece of work for all who want the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from types import TracebackType
from typing import Generic, TypeVar

import msgspec

from oscar_metrics.errors import NotNow

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, task: asyncio.Task[T | _Raised]) -> None:
        self.task = task
        self.waiting = 0


class Flights(Generic[T]):
    """Work under way, by what is asked; its tasks are those of a group that outlives who waits.

    It is cancelled once nobody waits for it any more.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._flights: dict[Hashable, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: Hashable) -> bool:
        return self._under_way(key) is not None

    def end(self) -> None:
        """Cancel what is under way; who waits for it gets NotNow."""
        for flight in self._flights.values():
            flight.task.cancel()

    async def shared(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """What the work under this key comes to, which is begun if it is not under way.

        Raises what it raises, to all who wait; NotNow where the group ends it. One who is
        cancelled leaves the others what they wait for; the last to go waits until it has ended.
        """
        flight = self._under_way(key)
        if flight is None:
            flight = _Flight(self._group.create_task(_caught(work)))
            self._flights[key] = flight
        flight.waiting += 1
        try:
            await asyncio.wait([flight.task])
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                # From here on, who wants the same has it begun anew.
                if self._flights.get(key) is flight:
                    del self._flights[key]
                if not flight.task.done():
                    flight.task.cancel()
                    await asyncio.wait([flight.task])
        if flight.task.cancelled():
            raise NotNow(
                "the server is stopping",
                detail="the report had not finished; ask again",
                retry_after_seconds=1,
            )
        result = flight.task.result()
        if isinstance(result, _Raised):
            # As it was raised there: else each who waits would add to what the others are told.
            raise result.error.with_traceback(result.traceback)
        return result

    def _under_way(self, key: Hashable) -> _Flight[T] | None:
        """The work under this key; who comes once it has ended is not told what it came to."""
        flight = self._flights.get(key)
        return None if flight is None or flight.task.done() else flight


class _Raised(msgspec.Struct, frozen=True):
    error: Exception
    traceback: TracebackType | None


async def _caught(work: Callable[[], Awaitable[T]]) -> T | _Raised:
    """What the work comes to, or the error: its group has others to care for."""
    try:
        return await work()
    except Exception as exc:  # noqa: BLE001 - handed to who waits, who are answered by it
        return _Raised(exc, exc.__traceback__)
