"""The outermost application: what all requests and answers have in common, errors included."""

from __future__ import annotations

import asyncio

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from oscar_metrics.handlers.answer_headers import AnswerHeaders
from oscar_metrics.handlers.audit import Audit
from oscar_metrics.handlers.cors import Cors
from oscar_metrics.handlers.measured import Measured
from oscar_metrics.telemetry import Telemetry


class Edge:
    """An ASGI application around another one.

    It adds the headers that every answer carries, answers browsers' preflight questions, writes
    the log line of each report, and counts and times every request.
    """

    def __init__(self, app: ASGIApp, cors: Cors, telemetry: Telemetry) -> None:
        self._app = app
        self._headers = AnswerHeaders(cors)
        self._audit = Audit()
        self._measured = Measured(telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or answer a preflight; and note what came of it."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        started = loop.time()
        status = 500
        added = self._headers.of(scope)

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = added.to(message["headers"])
            await send(message)

        try:
            if not added.is_preflight:
                await self._app(scope, receive, noting)
                return
            await noting({"type": "http.response.start", "status": 204, "headers": []})
            await noting({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            seconds = loop.time() - started
            self._audit.tell(scope, status, seconds)
            self._measured.tell(scope, status, seconds)
