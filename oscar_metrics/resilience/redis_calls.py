"""What is asked of Redis, and every way in which that fails, mapped once.

Importing this needs the extra `redis`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from oscar_metrics.errors import Reason, SettingsError, UpstreamError

_SETTING = "OSCAR_METRICS_CACHE"
_UPSTREAM = "redis"
_DETAIL_CHARACTERS = 200
# Names looked through and removed at a time.
_BATCH = 1000


class RedisCalls:
    """A few connections to one Redis; each call takes one for itself, and may be cancelled.

    Every call raises UpstreamError where Redis does not do it. There is no retry, and no timeout
    but for what is sent and never taken, and for closing, after `timeout_seconds`.
    """

    def __init__(self, url: str, *, timeout_seconds: float, connections: int, ca_file: str) -> None:
        self._timeout_seconds = timeout_seconds
        self._places = asyncio.Semaphore(connections)
        self._redis = Redis(
            **_address(url, ca_file),
            protocol=2,
            max_connections=connections,
            socket_keepalive=True,
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            socket_keepalive_options=_given_up_after(timeout_seconds),
        )

    async def read(self, name: bytes, most_bytes: int) -> bytes | None:
        """The first bytes of what is kept there, one more than `most_bytes` at most; None: nothing.

        No bytes where it is something else than bytes: a list, say.
        """
        async with self._places:
            with _mapped():
                try:
                    # In one go with the bound, and an end that is included.
                    found = await self._redis.getrange(name, 0, most_bytes)
                except exceptions.ResponseError as exc:
                    if str(exc).startswith("WRONGTYPE"):
                        return b""
                    raise
                if not isinstance(found, bytes):
                    raise exceptions.InvalidResponse("expected bytes")
                return found or None

    async def write(self, name: bytes, value: bytes, keep_milliseconds: int) -> None:
        """Keep it there for so long, instead of whatever was there."""
        async with self._places:
            with _mapped():
                if await self._redis.set(name, value, px=keep_milliseconds) is not True:
                    raise exceptions.InvalidResponse("expected OK")

    async def remove(self, name: bytes) -> None:
        """Remove what is kept there, if anything."""
        async with self._places:
            with _mapped():
                await self._redis.unlink(name)

    async def remove_all(self, prefix: bytes) -> None:
        """Remove what has a name that begins like this and was there all the time."""
        async with self._places:
            with _mapped():
                cursor = 0
                while True:
                    cursor, names = await self._redis.scan(cursor, prefix + b"*", _BATCH)
                    if names:
                        await self._redis.unlink(*names)
                    if not cursor:
                        return

    async def aclose(self) -> None:
        """Close the connections, whatever becomes of them."""
        with contextlib.suppress(exceptions.RedisError, OSError):  # a TimeoutError is an OSError
            # Over TLS it is for Redis to say farewell too.
            async with asyncio.timeout(self._timeout_seconds):
                await self._redis.aclose()


def _address(url: str, ca_file: str) -> Mapping[str, Any]:
    """Where Redis is and how we show who we are; nothing of the URL is ever repeated."""
    try:
        parts = urlsplit(url)
        port = parts.port or 6379
        database = int(parts.path.removeprefix("/") or "0")
    except ValueError:
        raise _bad_url() from None
    usable = parts.scheme in {"redis", "rediss"} and parts.hostname and database >= 0
    # Options in the URL could turn verification off.
    if not usable or parts.query or parts.fragment:
        raise _bad_url()
    address = {
        "host": parts.hostname,
        "port": port,
        "db": database,
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }
    if parts.scheme == "redis":
        return address
    if ca_file:
        _check_authorities(ca_file)
    return {
        **address,
        "ssl": True,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_ca_certs": ca_file or None,
    }


def _bad_url() -> SettingsError:
    return SettingsError(
        _SETTING,
        "expected redis://user:password@host:port/number, or rediss:// for TLS; user, password, "
        "port and number may be missing, and what is special in a URL is written as %2F and so on",
    )


def _check_authorities(file: str) -> None:
    try:
        ssl.create_default_context(cafile=file)
    except (OSError, ValueError):
        raise SettingsError(
            f"{_SETTING}_REDIS_CA_FILE", f"{file}: expected certificates of authorities in PEM form"
        ) from None


def _given_up_after(seconds: float) -> Mapping[int, int]:
    """Options of a connection that ends itself when what was sent is not taken for so long.

    Else one that is closed while Redis hangs would hold what it could not send. And one that
    nobody uses is seen to be dead within a minute.
    """
    values = {
        "TCP_USER_TIMEOUT": max(1, int(seconds * 1000)),
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 10,
    }
    # Not every system has each of them.
    return {getattr(socket, name): n for name, n in values.items() if hasattr(socket, name)}


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Whatever goes wrong in the block, as an UpstreamError."""
    try:
        yield
    except Exception as exc:
        raise UpstreamError(_UPSTREAM, _reason(exc), str(exc)[:_DETAIL_CHARACTERS]) from exc


def _reason(exc: Exception) -> Reason:
    if isinstance(exc, (exceptions.TimeoutError, TimeoutError)):
        return Reason.TIMEOUT
    if isinstance(exc, (exceptions.AuthenticationError, exceptions.AuthorizationError)):
        return Reason.UNAUTHORIZED
    if isinstance(exc, (exceptions.ConnectionError, OSError)):
        return Reason.CONNECT
    if isinstance(exc, exceptions.ResponseError):
        return Reason.REFUSED
    # What is no answer of Redis at all makes its client stumble in many ways.
    return Reason.BAD_ANSWER
