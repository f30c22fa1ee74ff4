"""Faults that come and go before and in every upstream, as a seed has it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Protocol

import msgspec
import redis

from tests.servers.redis import Redis
from tests.servers.toxiproxy import Proxy, Toxiproxy
from tests.soak.timeline import Timeline
from tests.toxics.toxics import EACH, MORE, Toxic

# How long an upstream is well, and unwell, at a stretch.
_CALM_SECONDS = 1.0, 4.0
_FAULT_SECONDS = 1.0, 5.0
# Of so many faults one is two at once.
_TWO_AT_ONCE = 4


class Restartable(Protocol):
    """A real server, as far as it can be made to fail."""

    def stop(self) -> None: ...
    def restart(self) -> None: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...


class Fault(msgspec.Struct, frozen=True):
    """Something that is wrong with one upstream until the block ends; `its_own` with the server.

    A server has one fault of its own at a time: one that hangs could not be told to be full.
    """

    name: str
    of: Callable[[], AbstractContextManager[None]]
    its_own: bool = True


class Sky:
    """One upstream: its faults are drawn from a shuffled deck, so that each of them comes."""

    def __init__(self, name: str, faults: list[Fault], seed: int) -> None:
        self.name = name
        self._faults = faults
        self._dice = random.Random(f"{seed} {name}")
        self._deck: list[Fault] = []
        # When something was last wrong with it; now, while something is.
        self._last_unwell = -float("inf")
        self._is_unwell = False

    def was_unwell_since(self, then: float) -> bool:
        """Whether anything was wrong with it at `then` (of the monotonic clock) or later."""
        return self._is_unwell or self._last_unwell >= then

    async def turn(self, timeline: Timeline, executor: Executor, over: asyncio.Event) -> None:
        """Be well and unwell by turns until it is over, and then well."""
        while True:
            await _unless(over, self._dice.uniform(*_CALM_SECONDS))
            if over.is_set():
                return
            await self._suffer(self._drawn(), timeline, executor, over)

    async def _suffer(
        self, faults: list[Fault], timeline: Timeline, executor: Executor, over: asyncio.Event
    ) -> None:
        loop = asyncio.get_running_loop()
        name = f"{self.name}: {' and '.join(fault.name for fault in faults)}"
        blocks = contextlib.ExitStack()

        def begin() -> None:
            for fault in faults:
                blocks.enter_context(fault.of())

        self._is_unwell = True
        timeline.began(name)
        try:
            await loop.run_in_executor(executor, begin)
            await _unless(over, self._dice.uniform(*_FAULT_SECONDS))
        finally:
            await loop.run_in_executor(executor, blocks.close)
            self._last_unwell, self._is_unwell = time.monotonic(), False
            timeline.ended(name)

    def _drawn(self) -> list[Fault]:
        first = self._draw()
        if self._dice.randrange(_TWO_AT_ONCE):
            return [first]
        second = self._draw()
        if first.its_own and second.its_own:
            self._deck.append(second)
            return [first]
        return [first, second]

    def _draw(self) -> Fault:
        if not self._deck:
            self._deck = self._dice.sample(self._faults, len(self._faults))
        return self._deck.pop()


class Weather:
    """Over every upstream at once.

    What changes a proxy is done in one thread, what ends and starts a server in one of its own:
    servers die with the thread that started them, so the threads last until `close`.
    """

    def __init__(
        self,
        skies: Mapping[str, Sky],
        toxiproxy: Toxiproxy,
        timeline: Timeline,
    ) -> None:
        self.skies = skies
        self._toxiproxy = toxiproxy
        self._timeline = timeline
        self._threads = {name: ThreadPoolExecutor(1) for name in (*skies, "toxiproxy")}

    async def rage(self, over: asyncio.Event) -> None:
        """Have faults come and go until it is over; then there is none."""
        async with asyncio.TaskGroup() as group:
            for name, sky in self.skies.items():
                group.create_task(sky.turn(self._timeline, self._threads[name], over))

    async def renew_toxiproxy(self) -> None:
        """Give back the memory that it keeps of clients who went, while nothing is wrong."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads["toxiproxy"], self._toxiproxy.restart)
        self._timeline.event("Toxiproxy was started anew")

    def close(self) -> None:
        """End the threads, and with them the servers that were started in them."""
        for thread in self._threads.values():
            thread.shutdown()


def network_faults(proxy: Proxy) -> list[Fault]:
    """Every toxic before one upstream."""

    def of(toxic: Toxic) -> Fault:
        return Fault(toxic.name, lambda: toxic.on(proxy), its_own=False)

    return [of(toxic) for toxic in (*EACH, *MORE)]


def server_faults(server: Restartable, *, restarts: bool = True) -> list[Fault]:
    """What a server itself may do: hang, or be gone and come back."""

    @contextlib.contextmanager
    def suspended() -> Iterator[None]:
        server.suspend()
        try:
            yield
        finally:
            server.resume()

    @contextlib.contextmanager
    def stopped() -> Iterator[None]:
        server.stop()
        try:
            yield
        finally:
            server.restart()

    faults = [Fault("hangs", suspended)]
    return [*faults, Fault("stopped", stopped)] if restarts else faults


def redis_faults(server: Redis) -> list[Fault]:
    """What else may be wrong with a Redis: full, or holding something else under our names."""

    def asked() -> redis.Redis:
        return redis.Redis.from_url(server.url, socket_timeout=10)

    @contextlib.contextmanager
    def full() -> Iterator[None]:
        with asked() as client:
            client.config_set("maxmemory", "1")
        try:
            yield
        finally:
            with asked() as client:
                client.config_set("maxmemory", "0")

    @contextlib.contextmanager
    def spoilt() -> Iterator[None]:
        with asked() as client:
            for name in client.scan_iter("oscar-metrics:*"):
                client.set(name, b"something else")
        yield

    return [Fault("full", full), Fault("spoilt", spoilt)]


async def _unless(over: asyncio.Event, seconds: float) -> None:
    """Wait so long, or until it is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await over.wait()
