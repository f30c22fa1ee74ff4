"""Has a source answer, whatever it does: nobody who asks is ended by one source's mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import structlog

from oscar_metrics.errors import REASON_TEXT, Reason
from oscar_metrics.outcome import Unavailable

F = TypeVar("F")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def guarded(origin: str, answer: Awaitable[F], backstop: float | None) -> F | Unavailable:
    """The answer; a source that breaks its promise not to raise says nothing, and is logged.

    `backstop` is the event loop's time at which a source that minds no deadline is given up.
    """
    try:
        async with asyncio.timeout_at(backstop):
            return await answer
    except TimeoutError:
        return Unavailable(origin=origin, notes=(REASON_TEXT[Reason.DEADLINE],))
    except Exception:  # noqa: BLE001 - one source's bug must not take the others' facts along
        _log.exception("source raised", origin=origin)
        return Unavailable(origin=origin, notes=("failed in a way that is our own mistake",))
