"""What every answer carries, errors included, and the answer to browsers' preflight questions."""

from __future__ import annotations

from litestar.datastructures import Headers, MutableScopeHeaders
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from oscar_metrics.handlers.cors import Cors

# Nothing of an answer is to be run, framed, or taken for what it does not say it is.
_SECURE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
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
        asked = Headers(scope["headers"])
        origin = asked.get("origin", "")
        is_report = scope["path"].startswith(_REPORTS)
        is_preflight = is_report and self._cors.answers and _is_preflight(scope, asked)

        async def adding(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableScopeHeaders.from_message(message)
                for name, value in _SECURE.items():
                    headers.setdefault(name, value)
                if is_report and not is_preflight:
                    for name, value in self._cors.of_answer(origin):
                        headers.add(name, value)
            await send(message)

        if not is_preflight:
            await self._app(scope, receive, adding)
            return
        preflight = [(n.encode(), v.encode("latin-1")) for n, v in self._cors.of_preflight(origin)]
        await adding({"type": "http.response.start", "status": 204, "headers": preflight})
        await adding({"type": "http.response.body", "body": b"", "more_body": False})


def _is_preflight(scope: HTTPScope, asked: Headers) -> bool:
    names = ("origin", "access-control-request-method")
    return scope["method"] == "OPTIONS" and all(name in asked for name in names)
