"""What every answer carries, errors included, and the answer to browsers' preflight questions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.types import HTTPScope

from oscar_metrics.handlers.cors import Cors, Headers, RawHeader
from oscar_metrics.handlers.fields import field

_APPLIED = "preference applied"

# Nothing of an answer is to be run, framed, or taken for what it does not say it is.
SECURE: list[RawHeader] = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
# What pages from elsewhere have business with; how the process itself is doing is none of it.
_REPORTS = "/system/"


class AnswerHeaders:
    """One server's."""

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def of(self, scope: HTTPScope) -> Added:
        """What the answer to a request carries."""
        if not self._cors.answers or not scope["path"].startswith(_REPORTS):
            return Added(scope, ())
        origin = field(scope, b"origin")
        if not origin or not _is_preflight(scope):
            return Added(scope, self._cors.of_answer(origin))
        return Added(scope, self._cors.of_preflight(origin), is_preflight=True)


class Added:
    """What one answer carries besides its own headers."""

    def __init__(self, scope: HTTPScope, of_cors: Headers, *, is_preflight: bool = False) -> None:
        self._scope = scope
        self._of_cors = of_cors
        # Whether it is all there is to be answered.
        self.is_preflight = is_preflight

    def to(self, headers: Iterable[RawHeader]) -> list[RawHeader]:
        """All headers; one of those for security that the answer has already is left as it is."""
        own = list(headers)
        present = {name for name, _ in own}
        own += [header for header in SECURE if header[0] not in present]
        own += self._of_cors
        own += self._scope["state"].get(_APPLIED, ())
        return own


def apply_preference(connection: ASGIConnection[Any, Any, Any, Any], preference: str) -> None:
    """The answer, an error too, says that a preference of the request was heard (RFC 7240)."""
    connection.scope["state"][_APPLIED] = [(b"preference-applied", preference.encode())]


def _is_preflight(scope: HTTPScope) -> bool:
    return scope["method"] == "OPTIONS" and bool(field(scope, b"access-control-request-method"))
