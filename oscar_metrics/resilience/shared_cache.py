"""Answers kept in Redis, for the process after this one and for those beside it.

What stands there is encrypted, under names that say nothing. Redis out, slow, full or holding
what is not ours only means that there is no answer: it costs a moment, a count and a line.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
import structlog
from msgspec import Meta

from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.resilience.breaker import Breaker, BreakerState, Result
from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# What every name begins with, so that an operator sees whose it is and `clear` finds it.
PREFIX = b"oscar-metrics:"
# How long removing everything may take.
_CLEAR_SECONDS = 5.0
# How long trying it out may take: more than an answer, since nobody waits for a report.
_TRY_SECONDS = 5.0
_UPSTREAM = "redis"


class SharedCacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long Redis may take, and how much of it is used."""

    # How long reading or storing one answer may take, in seconds; then it counts as failed.
    timeout_seconds: Annotated[float, Meta(ge=0.01, le=10)] = 0.25
    # The most connections; more readers than that wait for one, within `timeout_seconds`.
    connections: Annotated[int, Meta(ge=1, le=100)] = 8
    # The largest answer that is stored or read, in bytes; as many may be held per connection.
    most_bytes: Annotated[int, Meta(ge=1024, le=1 << 28)] = 8 << 20
    # Authorities, in PEM form, that may vouch for a rediss:// server beside the system's.
    ca_file: str = ""
    # How long Redis is not asked once it has failed again and again, in seconds; doubled each
    # time that it then fails the one call that is let through.
    open_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 5.0
    # The longest it is not asked, in seconds: so long may its recovery stay unnoticed.
    longest_open_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 60.0


class SharedCache:
    """Answers kept in Redis for the next process; it never raises and never waits longer than told.

    `url` is redis:// or rediss://, with the password; `key` comes from `cache_key`. Who has
    another key finds nothing. The constructor raises SettingsError where the URL is of no use or
    the extra `redis` is not installed.
    """

    def __init__(
        self, url: str, key: bytes, settings: SharedCacheSettings, telemetry: Telemetry
    ) -> None:
        try:
            # An extra, and slow to load: who keeps nothing in Redis goes without.
            from oscar_metrics.resilience.redis_calls import RedisCalls  # noqa: PLC0415
            from oscar_metrics.resilience.wrapping import Wrapping  # noqa: PLC0415
        except ImportError:
            raise SettingsError(
                "OSCAR_METRICS_CACHE",
                "Redis needs an extra of this package: pip install 'oscar-metrics[redis]'",
            ) from None
        self._redis = RedisCalls(
            url,
            timeout_seconds=settings.timeout_seconds,
            connections=settings.connections,
            ca_file=settings.ca_file,
        )
        self._wrapping = Wrapping(key, PREFIX)
        self._settings = settings
        self._telemetry = telemetry
        self._breaker = Breaker(
            open_seconds=settings.open_seconds,
            longest_open_seconds=settings.longest_open_seconds,
            random=random.random,
        )
        self._openings_told = 0
        quiet_seconds = settings.open_seconds
        self._out = _Trouble("shared cache is out", "shared cache is back", quiet_seconds)
        self._full = _Trouble(
            "shared cache takes no answers", "shared cache takes answers again", quiet_seconds
        )
        self._garbled = _Trouble("shared cache holds what is not ours", None, quiet_seconds)
        self._tell()

    async def get(self, question: bytes) -> bytes | None:
        """What was put for this question; None where it is not there, or Redis is of no use."""
        name = self._wrapping.name(question)
        most_bytes = self._settings.most_bytes + self._wrapping.more_bytes

        async def once() -> bytes | None:
            stored = await self._redis.read(name, most_bytes)
            if stored is None:
                self._count("get", "miss")
                return None
            answer = self._wrapping.unwrap(name, stored)
            if answer is None:
                self._count("get", "not_ours")
                self._garbled.happened(asyncio.get_running_loop().time())
                return None
            self._count("get", "hit")
            return answer

        return await self._ask("get", once)

    async def put(self, question: bytes, answer: bytes, *, keep_seconds: float) -> None:
        """Have the answer found for so long, by everyone with the same key."""
        keep_milliseconds = int(keep_seconds * 1000)
        if keep_milliseconds < 1:
            return
        if len(answer) > self._settings.most_bytes:
            self._count("put", "too_large")
            return
        name = self._wrapping.name(question)

        async def once() -> bool:
            await self._redis.write(name, self._wrapping.wrap(name, answer), keep_milliseconds)
            self._count("put", "stored")
            self._full.went_well(asyncio.get_running_loop().time())
            return True

        await self._ask("put", once)

    async def drop(self, question: bytes) -> None:
        """Have nothing found for this question."""
        name = self._wrapping.name(question)

        async def once() -> bool:
            await self._redis.remove(name)
            self._count("drop", "dropped")
            return True

        await self._ask("drop", once)

    async def clear(self) -> bool:
        """Remove every answer of this package from Redis; whether all are gone, within seconds.

        Also those of other keys: what was stored before a setting changed is removed too.
        """

        async def once() -> bool:
            await self._redis.remove_all(PREFIX)
            self._count("clear", "cleared")
            return True

        return await self._ask("clear", once, timeout_seconds=_CLEAR_SECONDS) is True

    async def trouble(self) -> UpstreamError | None:
        """Why Redis is of no use now; None where what is stored there can be read."""
        name = PREFIX + b"check"
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                await self._redis.write(name, name, 1000)
                await self._redis.read(name, len(name))
        except TimeoutError:
            return UpstreamError(_UPSTREAM, Reason.TIMEOUT)
        except UpstreamError as exc:
            return exc
        return None

    async def aclose(self) -> None:
        """Close the connections; nothing may be asked afterwards."""
        await self._redis.aclose()

    async def _ask(
        self,
        operation: str,
        once: Callable[[], Awaitable[T]],
        *,
        timeout_seconds: float | None = None,
    ) -> T | None:
        """What `once` returns; None where it failed, which is counted and told."""
        now = asyncio.get_running_loop().time
        ticket = self._breaker.begin(now())
        if ticket is None:
            self._count(operation, Reason.OPEN)
            return None
        self._tell()
        result = Result.NOTHING
        try:
            async with asyncio.timeout(timeout_seconds or self._settings.timeout_seconds):
                answer = await once()
        except TimeoutError:
            result = self._failed(operation, UpstreamError(_UPSTREAM, Reason.TIMEOUT))
        except UpstreamError as exc:
            result = self._failed(operation, exc)
        except asyncio.CancelledError:
            self._count(operation, "cancelled")
            raise
        else:
            result = Result.ANSWERED
            self._out.went_well(now())
            return answer
        finally:
            self._breaker.end(ticket, result, now())
            self._tell()
        return None

    def _failed(self, operation: str, exc: UpstreamError) -> Result:
        """Count and tell it; what it says of Redis' health."""
        self._count(operation, exc.reason)
        refused = exc.reason is Reason.REFUSED and operation != "get"
        trouble = self._full if refused else self._out
        now = asyncio.get_running_loop().time()
        trouble.happened(now, operation=operation, reason=exc.reason, detail=exc.detail)
        # A full Redis, or one that only reads, is of use still; and no better than it was.
        return Result.NOTHING if refused else Result.FAILED

    def _count(self, operation: str, result: str) -> None:
        self._telemetry.shared_cache.labels(operation, result).inc()

    def _tell(self) -> None:
        """Have the metrics and `/readyz` say what became of the breaker."""
        state = self._breaker.state
        if state == self._telemetry.breakers.get(_UPSTREAM):
            return
        self._telemetry.breakers[_UPSTREAM] = state
        for each in BreakerState:
            self._telemetry.breaker_state.labels(_UPSTREAM, each).set(each is state)
        openings = self._telemetry.breaker_openings.labels(_UPSTREAM)
        openings.inc(self._breaker.openings - self._openings_told)
        self._openings_told = self._breaker.openings


class _Trouble:
    """Something that may happen with every request, and is told once, and once when it is over.

    It is over when all went well and it has not happened for `quiet_seconds`, so that what comes
    and goes does not fill the log.
    """

    def __init__(self, event: str, over: str | None, quiet_seconds: float) -> None:
        self._event = event
        self._over = over
        self._quiet_seconds = quiet_seconds
        self._last: float | None = None

    def happened(self, now: float, **said: str) -> None:
        if self._last is None:
            _log.warning(self._event, **said)
        self._last = now

    def went_well(self, now: float) -> None:
        if self._last is None or now < self._last + self._quiet_seconds:
            return
        self._last = None
        if self._over is not None:
            _log.info(self._over)


def cache_key(parts: Sequence[str]) -> bytes:
    """The key of a shared cache: another one for each version of the package and each `parts`.

    `parts` are the settings that shape answers, and secrets among them, without which it cannot
    be guessed; a secret cannot be had back from what the key makes. It takes a tenth of a second.
    """
    version = importlib.metadata.version("oscar-metrics")
    told = [part.encode(errors="surrogatepass") for part in ("1", version, *parts)]
    return hashlib.scrypt(
        b"".join(len(part).to_bytes(8, "big") + part for part in told),
        salt=b"oscar-metrics shared cache",
        n=1 << 15,
        r=8,
        p=1,
        maxmem=64 << 20,
        dklen=32,
    )
