"""Task groups whose request errors reach the caller as themselves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from oscar_metrics.errors import RequestError


@contextlib.asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """An asyncio.TaskGroup that raises the first RequestError of its tasks, not a group of it."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        requests, others = errors.split(RequestError)
        if requests is None or others is not None:
            raise
        raise _first(requests) from errors


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
