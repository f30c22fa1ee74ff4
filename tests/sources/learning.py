"""What reports of one source ask of a server, one after the other, and a clock that can go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

_TOO_MUCH = ("limit", "too_large", "too_slow", "timeout")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Questions that one report asked, and how many of them were too much."""

    asked: int
    too_much: int


class Counted:
    """Tells what each report cost."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    async def of(self, report: Callable[[], Awaitable[T]]) -> tuple[T, Cost]:
        """What a report says, and what it cost."""
        before = self._totals()
        said = await report()
        after = self._totals()
        return said, Cost(
            asked=after.asked - before.asked, too_much=after.too_much - before.too_much
        )

    def _totals(self) -> Cost:
        counts = {
            sample.labels["reason"]: int(sample.value)
            for metric in self._telemetry.upstream_calls.collect()
            for sample in metric.samples
            if sample.name.endswith("_count")
        }
        return Cost(
            asked=sum(counts.values()), too_much=sum(counts.get(reason, 0) for reason in _TOO_MUCH)
        )


@contextmanager
def later(seconds: float) -> Iterator[None]:
    """The event loop's clock is so much ahead; nothing may be waiting for it meanwhile."""
    loop: Any = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds
    try:
        yield
    finally:
        loop.time = time
