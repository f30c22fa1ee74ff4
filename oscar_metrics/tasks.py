"""Task groups whose expected errors reach the caller as themselves, and arithmetic beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from oscar_metrics.errors import OscarMetricsError, RequestError

T = TypeVar("T")

# Rows of which a few milliseconds are made: up to so many a thread is not worth its while.
_FEW_ROWS = 2000


@contextlib.asynccontextmanager
async def task_group(
    expected: type[OscarMetricsError] = RequestError,
) -> AsyncIterator[asyncio.TaskGroup]:
    """An asyncio.TaskGroup that raises the first `expected` error of its tasks as it is.

    Where its tasks, or the block, raised anything else too, the group of all is raised.
    """
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        matching, others = errors.split(expected)
        if matching is None or others is not None:
            raise
        raise _first(matching) from errors


async def worked_out(work: Callable[[], T], *, rows: int) -> T:
    """What arithmetic over so many rows comes to; over many in a thread, so that others go on.

    When cancelled, the thread is left to finish for nobody.
    """
    return await asyncio.to_thread(work) if rows > _FEW_ROWS else work()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
