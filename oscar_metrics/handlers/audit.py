"""One line in the log for each request for a report: who asked for what, and what became of it.

Its fields are in docs/api.md. Nothing of it is text a caller chose: no query, no token, no name
of a service.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import structlog
from litestar.connection import ASGIConnection
from litestar.types import HTTPScope

from oscar_metrics.wire import SourceName, SourceState, SourceStatus

Connection = ASGIConnection[Any, Any, Any, Any]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_NOTES = "audit"
# They say of whom and from where, and are the same for report after report.
_ABOUT_NUMBERS = frozenset({SourceName.COUNTRIES, SourceName.ROSTER})
_WORST_FIRST = (SourceState.MISSING, SourceState.PARTIAL, SourceState.OK)


class Audit:
    """One server's."""

    def __init__(self) -> None:
        # Once for all lines: to put a logger together takes as long as to write one.
        self._log = _log.bind()

    def tell(self, scope: HTTPScope, status: int, seconds: float) -> None:
        """Write the line of a request that was for a report."""
        notes = scope["state"].get(_NOTES)
        if notes is not None:
            self._log.info(
                "report",
                route=scope.get("path_template"),
                status=status,
                seconds=round(seconds, 3),
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
