"""One line in the log for each request for a report: who asked for what, and what became of it.

Its fields are in docs/api.md. Nothing of it is text a caller chose: no query, no token, no name
of a service.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from oscar_metrics.wire import SourceName, SourceState, SourceStatus

Connection = ASGIConnection[Any, Any, Any, Any]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_NOTES = "audit"
# They say of whom and from where, and are the same for report after report.
_ABOUT_NUMBERS = frozenset({SourceName.COUNTRIES, SourceName.ROSTER})
_WORST_FIRST = (SourceState.MISSING, SourceState.PARTIAL, SourceState.OK)


class Audited:
    """An ASGI application around another one, which writes the line of each report it answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and say what came of it if it was for a report."""
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
            notes = scope["state"].get(_NOTES)
            if notes is not None:
                _log.info(
                    "report",
                    route=scope.get("path_template"),
                    status=status_code,
                    seconds=round(loop.time() - started, 3),
                    **notes,
                )


def begin(connection: Connection) -> None:
    """There will be a line of this request: it is for a report."""
    connection.scope["state"][_NOTES] = {}


def note(connection: Connection, **fields: object) -> None:
    """Add fields to the line of a request, if there is one; None is not worth saying."""
    notes = connection.scope["state"].get(_NOTES)
    if notes is not None:
        notes.update({name: value for name, value in fields.items() if value is not None})


def completeness(sources: Iterable[SourceStatus]) -> str:
    """What became of the sources that numbers come from, in a word: that of the worst."""
    states = {source.status for source in sources if source.name not in _ABOUT_NUMBERS}
    return next((state for state in _WORST_FIRST if state in states), SourceState.OK)
