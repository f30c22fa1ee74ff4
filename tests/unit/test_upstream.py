"""What an upstream can do to us: each is one UpstreamError, and the next call works."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits, version_of
from oscar_metrics.telemetry import Telemetry

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NUMBERS = msgspec.json.Decoder(dict[str, int])
LIMITS = UpstreamLimits(timeout_seconds=0.5, body_bytes=2**16, attempts=1)


@asynccontextmanager
async def asked(
    serve: Serve, limits: UpstreamLimits = LIMITS, headers: dict[str, str] | None = None
) -> AsyncIterator[Upstream]:
    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream(
        "loki", f"http://127.0.0.1:{port}", limits=limits, telemetry=Telemetry(), headers=headers
    )
    try:
        yield upstream
    finally:
        await upstream.aclose()
        server.close()


def saying(raw: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    return serve


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(100):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (saying(answer(b"<html>portal</html>")), Reason.BAD_ANSWER),
        (saying(answer(b'{"a":')), Reason.BAD_ANSWER),
        (saying(answer(b'{"a":"x"}')), Reason.BAD_ANSWER),
        (saying(answer(b'{"a":' + b"[" * 60_000)), Reason.BAD_ANSWER),
        (saying(answer(b" " * 2**17)), Reason.TOO_LARGE),
        (saying(answer(gzip.compress(b"{}"), "200 OK", "Content-Encoding: gzip")),
         Reason.BAD_ANSWER),
        (saying(answer(b"", "302 Found", "Location: http://127.0.0.2/")), Reason.BAD_ANSWER),
        (saying(answer(b"no", "401 Unauthorized")), Reason.UNAUTHORIZED),
        (saying(answer(b"no", "403 Forbidden")), Reason.FORBIDDEN),
        (saying(answer(b"no", "404 Not Found")), Reason.NOT_FOUND),
        (saying(answer(b"no", "429 Too Many", "Retry-After: nan")), Reason.RATE_LIMITED),
        (saying(answer(b"no", "503 No", "Date: Thu, 01 Jan 1970 00:00:00 +999999999999")),
         Reason.SERVER_ERROR),
        (saying(answer(b"no", "400 No")), Reason.REFUSED),
        (saying(answer(b"no", "500 No")), Reason.SERVER_ERROR),
        (saying(answer(b"no", "504 No")), Reason.TIMEOUT),
        (saying(b"\x15\x03\x01\x00\x02\x02\x28"), Reason.CONNECT),
        (saying(b""), Reason.CONNECT),
        (hang, Reason.TIMEOUT),
        (drip, Reason.TIMEOUT),
    ],
)  # fmt: skip
async def test_each_trouble_has_one_name(serve: Serve, reason: Reason) -> None:
    async with asked(serve) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.get_json("/", {}, NUMBERS)
    assert caught.value.reason is reason


async def test_what_may_pass_is_tried_again_and_the_rest_is_not() -> None:
    calls = {"503 No": 0, "400 No": 0}
    for status, expected in (("503 No", 3), ("400 No", 1)):

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: str = status
        ) -> None:
            calls[status] += 1
            await saying(answer(b"", status, "Retry-After: 0", "Connection: close"))(reader, writer)

        async with asked(serve, UpstreamLimits(attempts=3)) as upstream:
            with pytest.raises(UpstreamError):
                await upstream.get("/", {})
        assert calls[status] == expected


async def test_cancelled_calls_leave_the_upstream_usable() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(b'{"a":1}'))
            await writer.drain()

    async def ask_for_ever(upstream: Upstream) -> None:
        while True:
            await upstream.get_json("/", {}, NUMBERS)

    async def four_until_cancelled(upstream: Upstream) -> None:
        async with asyncio.timeout(0.03), asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(ask_for_ever(upstream))

    async with asked(serve, UpstreamLimits(timeout_seconds=5)) as upstream:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                await four_until_cancelled(upstream)
            assert await upstream.get_json("/", {}, NUMBERS) == {"a": 1}


async def test_a_credential_that_cannot_be_sent_is_not_said() -> None:
    headers = {"Authorization": "Bearer PLANTED\nX"}
    async with asked(saying(answer(b"{}")), headers=headers) as upstream:
        with pytest.raises(UpstreamError) as caught:
            await upstream.get("/", {})
    assert "PLANTED" not in f"{caught.value} {caught.value.detail}"


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("3.7.8", "3.7.8"),
        ("v2.53.1-lts+build.7", "v2.53.1-lts+build.7"),
        ("main-2024", "main-2024"),
        ("", ""),
        (None, ""),
        (3, ""),
        ("Bearer 5ec2e7", ""),
        ("5ec2e7d1e2c0de", ""),
        ("<html>", ""),
    ],
)
def test_only_a_version_is_taken_for_one(told: object, version: str) -> None:
    assert version_of(told) == version
