"""On whose behalf an upstream is asked: one report, say, with its deadline and its places."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from contextvars import ContextVar


class Asker:
    """One for each report. `deadline` is an event loop's time, or None for none."""

    def __init__(self, deadline: float | None) -> None:
        self.deadline = deadline
        self._places: dict[str, asyncio.Semaphore] = {}

    def places(self, upstream: str, most: int) -> asyncio.Semaphore:
        """The places this one may take of an upstream's."""
        return self._places.setdefault(upstream, asyncio.Semaphore(most))


_CURRENT: ContextVar[Asker | None] = ContextVar("asker", default=None)


def asker() -> Asker | None:
    """For whom the running task asks; None for nobody in particular."""
    return _CURRENT.get()


@contextlib.contextmanager
def asking_for(one: Asker) -> Iterator[None]:
    """What is asked in the block, and in tasks begun there, is asked for this one."""
    token = _CURRENT.set(one)
    try:
        yield
    finally:
        _CURRENT.reset(token)
