"""Answers read from Redis and decrypted, against the same bytes read with its client alone.

Both over one connection, one after the other, in turns. Figure: at most 2 times.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from redis.asyncio import Redis as Client

from oscar_metrics.resilience.shared_cache import SharedCache, SharedCacheSettings, cache_key
from oscar_metrics.telemetry import Telemetry
from tests.servers.redis import Redis

ROUNDS = 15
# (bytes of the answer, reads in a round)
SIZES = ((10_000, 500), (1_000_000, 30))


async def main() -> None:
    """Print, for each size, the median of the reads of either kind, and the ratio."""
    with tempfile.TemporaryDirectory() as folder, Redis.start(Path(folder)) as redis:
        began = time.perf_counter()
        key = cache_key(["bench"])
        print(f"deriving the key, once      {1000 * (time.perf_counter() - began):8.1f} ms")
        settings = SharedCacheSettings(timeout_seconds=10.0, connections=1)
        cache = SharedCache(redis.url, key, settings, Telemetry())
        async with Client.from_url(redis.url, protocol=2, max_connections=1) as plain:
            for size, reads in SIZES:
                await measure(cache, plain, size, reads)
        await cache.aclose()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory                 {peak_mib:8.0f} MiB")


async def measure(cache: SharedCache, plain: Client, size: int, reads: int) -> None:
    """Read an answer of `size` bytes both ways."""
    answer = os.urandom(size)
    await cache.put(b"question", answer, keep_seconds=600)
    await plain.set("plain", answer)
    ways: dict[str, Callable[[], Awaitable[object]]] = {
        "plain": lambda: plain.get("plain"),
        "ours": lambda: cache.get(b"question"),
        "ours, stored": lambda: cache.put(b"question", answer, keep_seconds=600),
    }
    took: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, read in ways.items():
            began = time.perf_counter()
            for _ in range(reads):
                await read()
            took[way].append((time.perf_counter() - began) / reads)
    assert await cache.get(b"question") == answer
    bare = statistics.median(took["plain"])
    for way, seconds in took.items():
        middle = statistics.median(seconds)
        print(f"{size:>9,} bytes  {way:<12}  {1000 * middle:8.3f} ms   {middle / bare:5.2f}x")


if __name__ == "__main__":
    asyncio.run(main())
