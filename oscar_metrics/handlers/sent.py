"""An answer of which nothing is left to be made: its bytes and headers are sent as they are."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from litestar import Request, Response
from litestar.types import ASGIApp, Receive, Scope, Send


class Sent(Response[bytes]):
    """A whole answer; Litestar's own would be taken apart and put together again to be sent."""

    def __init__(
        self,
        body: bytes,
        raw_headers: list[tuple[bytes, bytes]],
        status: int = HTTPStatus.OK,
    ) -> None:
        """`raw_headers` are as ASGI has them, with the Content-Type where there is content."""
        super().__init__(body, status_code=status)
        self._status = int(status)
        self._raw = raw_headers
        if status != HTTPStatus.NOT_MODIFIED:
            self._raw.append((b"content-length", b"%d" % len(body)))

    def to_asgi_response(  # type: ignore[override] # the rest are defaults of routes; ours have none
        self, app: None, request: Request[Any, Any, Any], **_: Any
    ) -> ASGIApp:
        """What Litestar calls to have it sent."""
        del app, request
        return self._send

    async def _send(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self._status, "headers": self._raw})
        await send({"type": "http.response.body", "body": self.content, "more_body": False})
