"""Shared caches for tests, and what they have counted and said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

import structlog

from oscar_metrics.resilience.shared_cache import SharedCache, SharedCacheSettings
from oscar_metrics.telemetry import Telemetry

KEY = bytes(range(32))
# Those of a test that is not about time: nothing fails because the machine is busy.
PATIENT = SharedCacheSettings(timeout_seconds=10.0, open_seconds=0.02, longest_open_seconds=0.02)


class Shared:
    """A shared cache beside its telemetry."""

    def __init__(self, url: str, settings: SharedCacheSettings, key: bytes) -> None:
        self.telemetry = Telemetry()
        self.cache = SharedCache(url, key, settings, self.telemetry)

    async def kept(self, question: bytes, answer: bytes) -> None:
        await self.cache.put(question, answer, keep_seconds=100)

    def counted(self) -> Mapping[str, int]:
        """How often each thing happened, by `operation result`."""
        return {
            f"{sample.labels['operation']} {sample.labels['result']}": int(sample.value)
            for metric in self.telemetry.shared_cache.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }

    def state(self) -> str:
        """What `/readyz` and the metrics say of Redis."""
        state = self.telemetry.breakers["redis"]
        shown = self.telemetry.registry.get_sample_value(
            "oscar_metrics_upstream_breaker_state", {"upstream": "redis", "state": state}
        )
        assert shown == 1
        return state


@contextlib.asynccontextmanager
async def sharing(
    url: str, settings: SharedCacheSettings = PATIENT, *, key: bytes = KEY
) -> AsyncIterator[Shared]:
    shared = Shared(url, settings, key)
    try:
        yield shared
    finally:
        await shared.cache.aclose()


@contextlib.contextmanager
def lines() -> Iterator[list[str]]:
    """What the log is told within: each event, in order."""
    told: list[str] = []
    with structlog.testing.capture_logs() as entries:
        yield told
    told += [str(entry["event"]) for entry in entries]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so; fails when that takes very long."""
    async with asyncio.timeout(30):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.01)
