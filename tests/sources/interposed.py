"""Something between us and a real server that answers what no real server can be made to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way."""

    path: str
    parameters: dict[str, str]
    headers: Mapping[str, str]


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of its own; `length` is announced, so that a shorter body is cut off."""

    status: int = 200
    body: bytes = b""
    length: int | None = None
    content_type: str = "text/plain"


# What is done about a request: an own answer, the real one (None), or nothing at all, for good.
HANG = Reply(status=0)
_PASSED = ("authorization", "cache-control", "x-scope-orgid")
Interpose = Callable[[Request], Reply | None]


@asynccontextmanager
async def interposed(url: str, interpose: Interpose) -> AsyncIterator[str]:
    """The URL of a server that passes on to `url` what `interpose` lets pass."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                request = _request(head)
                reply = interpose(request)
                if reply is HANG:
                    await reader.read()
                    return
                if reply is None:
                    headers = {
                        name: request.headers[name] for name in _PASSED & request.headers.keys()
                    }
                    answer = await client.get(
                        request.path, params=request.parameters, headers=headers
                    )
                    reply = Reply(status=answer.status_code, body=answer.content)
                writer.write(_encoded(reply))
                await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"


def _request(head: str) -> Request:
    first, *lines = head.strip().split("\r\n")
    target = urlsplit(first.split(" ")[1])
    headers = dict(line.split(": ", 1) for line in lines)
    return Request(
        path=target.path,
        parameters=dict(parse_qsl(target.query)),
        headers={name.lower(): value for name, value in headers.items()},
    )


def _encoded(reply: Reply) -> bytes:
    length = len(reply.body) if reply.length is None else reply.length
    head = (
        f"HTTP/1.1 {reply.status} Whatever\r\nContent-Length: {length}\r\n"
        f"Content-Type: {reply.content_type}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + reply.body
