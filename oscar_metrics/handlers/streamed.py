"""An answer sent piece by piece, as fast as it is read, so that a large one is never held whole.

Litestar's own `Stream` makes each piece in a thread, leaves open what makes them, and asks for
the request's body until it hears that the client has gone, which a middleware is to hear here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from litestar import Request, Response
from litestar.enums import HttpMethod
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from oscar_metrics.handlers import audit
from oscar_metrics.handlers.ended_early import disconnected

# It knows no chunks: its answer has a length, or ends where the connection does.
_OLD_HTTP = "1.0"


class Streamed(Response[bytes]):
    """A 200 of which the body is made while it is sent.

    Each piece is made once the client has read most of those before, on the event loop, where
    others have their turn between two: making one may take a few milliseconds. When the client
    goes, no more are made and `pieces` is closed. There is no Content-Length: who gets half of
    it sees that the end is missing. A client of HTTP/1.0 could not, and is sent it whole.
    """

    def __init__(self, pieces: Generator[bytes, None, None], headers: dict[str, str]) -> None:
        """`headers` name the Content-Type, too."""
        super().__init__(b"", headers=headers)
        self._pieces = pieces

    def to_asgi_response(  # type: ignore[override] # the rest are defaults of routes; ours have none
        self, app: None, request: Request[Any, Any, Any], **_: Any
    ) -> ASGIResponse:
        """What Litestar calls to have it sent."""
        del app
        return _SentInPieces(self._pieces, request, self.headers)


class _SentInPieces(ASGIResponse):
    _should_set_content_length = False

    def __init__(
        self,
        pieces: Generator[bytes, None, None],
        request: Request[Any, Any, Any],
        headers: dict[str, str],
    ) -> None:
        super().__init__(headers=headers, is_head_response=request.method == HttpMethod.HEAD)
        self._pieces = pieces
        self._request = request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send headers and body."""
        try:
            if scope["http_version"] == _OLD_HTTP and not self.is_head_response:
                await self._make_whole()
            await super().__call__(scope, receive, send)
        finally:
            self._pieces.close()

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send on until the end, or until nobody is left to read it."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(self._send_all(send))
            watching = group.create_task(self._end_when_gone(receive, sending))
            sending.add_done_callback(lambda _: watching.cancel())

    async def _send_all(self, send: Send) -> None:
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            # To send waits for who reads slowly only.
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _end_when_gone(self, receive: Receive, sending: asyncio.Task[None]) -> None:
        if await disconnected(receive) and sending.cancel():
            audit.note(self._request, error="client gone")

    async def _make_whole(self) -> None:
        whole = bytearray()
        for piece in self._pieces:
            whole += piece
            await asyncio.sleep(0)
        self.headers["content-length"] = str(len(whole))
        self._pieces = (piece for piece in (bytes(whole),))
