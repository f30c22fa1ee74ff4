"""By when a request for a report is to be answered: from when it came on, log-in included."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.connection import ASGIConnection

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.handlers import answer_headers, preferences
from oscar_metrics.handlers.fields import fields

Connection = ASGIConnection[Any, Any, Any, Any]

_LIMIT = "time limit"


class TimeLimit(msgspec.Struct, frozen=True, kw_only=True):
    """`wait_seconds` are those the client asked for, as they were granted; None: as everyone has.

    `deadline` is an event loop's time, None for none.
    """

    wait_seconds: int | None
    deadline: float | None


def begin(connection: Connection, aggregator: Aggregator) -> TimeLimit:
    """The request's time begins."""
    wait_seconds = aggregator.granted(preferences.wait_seconds(fields(connection.scope, b"prefer")))
    limit = TimeLimit(wait_seconds=wait_seconds, deadline=aggregator.deadline(wait_seconds))
    connection.scope["state"][_LIMIT] = limit
    return limit


def applied(connection: Connection) -> TimeLimit:
    """What was begun; the answer says so where the client asked for it."""
    limit: TimeLimit = connection.scope["state"][_LIMIT]
    if limit.wait_seconds is not None:
        answer_headers.apply_preference(connection, f"wait={limit.wait_seconds}")
    return limit
