"""Requests that do not reach the application, answered as it answers: `{"error": …}`."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from oscar_metrics.handlers.answer_headers import SECURE
from oscar_metrics.wire import ErrorBody


class Refusal(Exception):
    """What is wrong with a request; raised where the parser calls us, it ends the parsing."""

    def __init__(
        self, status: HTTPStatus, error: str, detail: str, *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(error)
        self._status = status
        self._body = msgspec.json.encode(ErrorBody(error=error, detail=detail))
        self._retry_after_seconds = retry_after_seconds

    def as_sent(self, defaults: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The answer, head and body, after which the connection closes; `defaults` come first."""
        headers = [
            *defaults,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(self._body)),
            (b"cache-control", b"no-store"),
            *SECURE,
            (b"connection", b"close"),
        ]
        if self._retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % self._retry_after_seconds))
        lines = [b"HTTP/1.1 %d %b" % (self._status, self._status.phrase.encode())]
        lines += [name + b": " + value for name, value in headers]
        return b"\r\n".join([*lines, b"", self._body])


NO_REQUEST = Refusal(
    HTTPStatus.BAD_REQUEST, "invalid request", "what was sent is not a request of HTTP/1.1"
)
NO_PLACE = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "too many connections",
    "every place for a connection is taken; ask again",
    retry_after_seconds=1,
)


def head_too_large(detail: str) -> Refusal:
    """A request's line and headers are more than is read."""
    return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head is too large", detail)
