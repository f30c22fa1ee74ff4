"""Counts and times every request, by route template: labels never grow with what is asked."""

from __future__ import annotations

import asyncio

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from oscar_metrics.telemetry import Telemetry

UNMATCHED = "unmatched"
OTHER_METHOD = "_OTHER"
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)


class Measured:
    """An ASGI application around another one, which notes what it answered."""

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self._app = app
        self._requests = telemetry.http_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and note how it was answered and how long that took."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        status_code = 500

        async def noting(message: Message) -> None:
            nonlocal status_code
            if message["type"] == "http.response.start":
                status_code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            method = scope["method"]
            self._requests.labels(
                scope.get("path_template") or UNMATCHED,
                method if method in _METHODS else OTHER_METHOD,
                str(status_code),
            ).observe(loop.time() - started)
