"""Every exception as an answer: `{"error": …}`, and never an exception's own text."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap
from msgspec import UNSET

from oscar_metrics.errors import (
    BodyTooLarge,
    NotNow,
    RequestError,
    TooManyFailures,
    Unauthorized,
)
from oscar_metrics.handlers import audit
from oscar_metrics.handlers.sent import Sent
from oscar_metrics.wire import ErrorBody

_RAW = [
    (b"content-type", b"application/json"),
    (b"cache-control", b"no-store"),
    (b"vary", b"Authorization"),
]
_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def exception_handlers() -> ExceptionHandlersMap:
    """What Litestar calls for each kind of exception, the nearest class first."""
    return {
        RequestError: refused,
        HTTPException: _http_exception,
        Exception: _unhandled,
    }


def refused(request: Request[Any, Any, Any], exc: RequestError) -> Sent:
    """The answer to a request that is refused, which its log line tells of."""
    audit.note(request, error=exc.text)
    headers = {}
    match exc:
        case Unauthorized():
            headers["WWW-Authenticate"] = exc.challenge
        case NotNow() | TooManyFailures():
            headers["Retry-After"] = str(exc.retry_after_seconds)
        case BodyTooLarge():
            # What is left of the body would be taken for the next request.
            headers["Connection"] = "close"
    body = ErrorBody(
        error=exc.text,
        parameter=UNSET if exc.parameter is None else exc.parameter,
        detail=UNSET if exc.detail is None else exc.detail,
    )
    return _problem(exc.status_code, body, headers)


def _http_exception(request: Request[Any, Any, Any], exc: HTTPException) -> Sent:
    """Litestar's own refusals: no such route, or not with this method."""
    if exc.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _unhandled(request, exc)
    text = HTTPStatus(exc.status_code).phrase.lower()
    return _problem(exc.status_code, ErrorBody(error=text), dict(exc.headers or {}))


def _unhandled(request: Request[Any, Any, Any], exc: Exception) -> Sent:
    _log.error("request failed", route=request.scope.get("path_template"), exc_info=exc)
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, ErrorBody(error="internal error"), {})


def _problem(status_code: int, body: ErrorBody, headers: dict[str, str]) -> Sent:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    return Sent(msgspec.json.encode(body), [*_RAW, *raw], status_code)
