"""What every answer carries, errors included, and the answer to browsers' preflight questions."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from oscar_metrics.handlers.cors import Cors, Headers

_Raw = list[tuple[bytes, bytes]]
_APPLIED = "preference applied"

# Nothing of an answer is to be run, framed, or taken for what it does not say it is.
SECURE: _Raw = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
# What pages from elsewhere have business with; how the process itself is doing is none of it.
_REPORTS = "/system/"


class AnswerHeaders:
    """An ASGI application around another one, which adds headers to what that answers.

    One of those for security that the answer has already is left as it is.
    """

    def __init__(self, app: ASGIApp, cors: Cors) -> None:
        self._app = app
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or hand the request on and add to the answer."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        is_report = self._cors.answers and scope["path"].startswith(_REPORTS)
        origin = _asked(scope, b"origin")
        is_preflight = is_report and _is_preflight(scope)
        of_cors: _Raw = []
        if is_preflight:
            of_cors = _raw(self._cors.of_preflight(origin))
        elif is_report:
            of_cors = _raw(self._cors.of_answer(origin))

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                present = {name for name, _ in headers}
                secure = [header for header in SECURE if header[0] not in present]
                applied = scope["state"].get(_APPLIED, [])
                message["headers"] = [*headers, *secure, *of_cors, *applied]
            await send(message)

        if not is_preflight:
            await self._app(scope, receive, adding)
            return
        await adding({"type": "http.response.start", "status": 204, "headers": []})
        await adding({"type": "http.response.body", "body": b"", "more_body": False})


def apply_preference(connection: ASGIConnection[Any, Any, Any, Any], preference: str) -> None:
    """The answer, an error too, says that a preference of the request was heard (RFC 7240)."""
    connection.scope["state"][_APPLIED] = [(b"preference-applied", preference.encode())]


def _is_preflight(scope: HTTPScope) -> bool:
    asks = _asked(scope, b"origin") and _asked(scope, b"access-control-request-method")
    return scope["method"] == "OPTIONS" and bool(asks)


def _asked(scope: HTTPScope, name: bytes) -> str:
    """The request's header of that name, blank for none; ASGI has names in lower case."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def _raw(headers: Headers) -> _Raw:
    return [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
