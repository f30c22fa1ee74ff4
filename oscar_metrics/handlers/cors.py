"""Which web pages may read our answers: the Fetch standard's CORS protocol. Pure.

Whoever asks proves who they are with `Authorization`, which pages set themselves; cookies mean
nothing here, so credentials in that standard's sense are never allowed.
"""

from __future__ import annotations

from collections.abc import Collection

EVERYONE, NOBODY = "*", "off"

# As they are sent, their names in lower case.
RawHeader = tuple[bytes, bytes]
Headers = tuple[RawHeader, ...]

# What a page may read beyond what it always may.
_EXPOSED = (
    (
        b"access-control-expose-headers",
        (
            b"Age, Content-Disposition, ETag, Preference-Applied, Retry-After, WWW-Authenticate,"
            b" X-Completeness, X-Ignored-Parameters"
        ),
    ),
)
_MAY_ASK = (
    (b"access-control-allow-methods", b"GET, HEAD"),
    # A `*` would not stand for Authorization.
    (
        b"access-control-allow-headers",
        b"Authorization, Accept, Cache-Control, Content-Type, If-None-Match, Prefer",
    ),
    # A day; browsers remember it for two hours or for as long as this.
    (b"access-control-max-age", b"86400"),
)
_OF_EVERYONE = ((b"access-control-allow-origin", EVERYONE.encode()),)
# The answer to another origin is another one, and so is that to none.
_VARY = ((b"vary", b"Origin"),)


class Cors:
    """Answers for the origins that were set: every one, none, or those that are listed."""

    def __init__(self, origins: Collection[str]) -> None:
        self.answers = NOBODY not in origins
        self._origins = frozenset(origins)

    def of_answer(self, origin: str) -> Headers:
        """What is added to an answer to a page of `origin`, which is blank where there is none."""
        return self._with(_EXPOSED, origin)

    def of_preflight(self, origin: str) -> Headers:
        """What is answered to a browser that asks whether a page of `origin` may ask."""
        return self._with(_MAY_ASK, origin)

    def _with(self, more: Headers, origin: str) -> Headers:
        if not self.answers:
            return ()
        if EVERYONE in self._origins:
            return (*_OF_EVERYONE, *more)
        if origin in self._origins:
            return ((b"access-control-allow-origin", origin.encode("latin-1")), *_VARY, *more)
        return _VARY
