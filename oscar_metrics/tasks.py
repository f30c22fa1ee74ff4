"""Task groups whose expected errors reach the caller as themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from oscar_metrics.errors import OscarMetricsError, RequestError


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


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
