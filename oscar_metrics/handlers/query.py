"""The parameters of a request, read from the query string as it was sent."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from urllib.parse import quote, unquote_to_bytes

from oscar_metrics.errors import BadRequest, QueryTooLong

# The longest query string that is read; the contract's parameters need a tenth of it.
MAX_QUERY_BYTES = 8192
# What the header that names ignored parameters may grow to.
_MAX_IGNORED_BYTES = 1024

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class Query:
    """The parameters of one request, by name.

    Blank means absent, and of a repeated parameter the first counts. A `+` stays a `+`,
    because the offsets of times are written with it. `known` are the names the route
    takes; a `strict` one refuses others. Raises BadRequest for what cannot be decoded,
    QueryTooLong past the bound.
    """

    def __init__(
        self, query_string: bytes, known: Collection[str], *, strict: bool = False
    ) -> None:
        if len(query_string) > MAX_QUERY_BYTES:
            raise QueryTooLong(
                "query string is too long", detail=f"at most {MAX_QUERY_BYTES} bytes are read"
            )
        self._values: dict[str, str] = {}
        for pair in filter(None, query_string.split(b"&")):
            name, _, value = pair.partition(b"=")
            if name:
                self._values.setdefault(_decode(name), _decode(value))
        self._known = known
        self._unknown = [name for name in self._values if name not in known]
        self._strict = strict

    @functools.cached_property
    def understood(self) -> tuple[tuple[str, str], ...]:
        """The parameters the route takes, as sent, by name."""
        known = self._known
        return tuple(
            sorted(pair for pair in self._values.items() if pair[0] in known and pair[1].strip())
        )

    @functools.cached_property
    def is_refused(self) -> bool:
        """Whether the route refuses the request for a parameter it does not know."""
        return self._strict and any(not name.startswith("_") for name in self._unknown)

    def text(self, name: str) -> str | None:
        """The value as sent; None where it is absent or blank."""
        value = self._values.get(name, "")
        return value if value.strip() else None

    def is_true(self, name: str) -> bool:
        """Whether the value is `true`; nothing else is."""
        return self._values.get(name) == "true"

    def refuse_unknown(self) -> None:
        """Raise BadRequest naming the first unknown parameter, if the route is strict.

        `_` begins a cache buster.
        """
        for name in self._unknown if self._strict else ():
            if not name.startswith("_"):
                raise BadRequest(
                    "unknown parameter",
                    parameter=name,
                    detail=f"this route takes {', '.join(self._known)}",
                )

    def ignored_header(self) -> dict[str, str]:
        """`X-Ignored-Parameters`, naming what was not read; empty where nothing was left over."""
        if not self._unknown:
            return {}
        names = ", ".join(quote(name, safe="") for name in self._unknown)
        if len(names) > _MAX_IGNORED_BYTES:
            names = names[:_MAX_IGNORED_BYTES].rsplit(", ", 1)[0] + ", ..."
        return {"X-Ignored-Parameters": names}


# Dashboards ask the same again and again; what is remembered is some 8 MiB at most.
query_of = functools.lru_cache(maxsize=512)(Query)


def _decode(encoded: bytes) -> str:
    if b"%" not in encoded:
        return _text(encoded)
    if _BROKEN_ESCAPE.search(encoded):
        raise BadRequest(
            "invalid query string", detail="a % that two hexadecimal digits do not follow"
        )
    return _text(unquote_to_bytes(encoded))


def _text(decoded: bytes) -> str:
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise BadRequest("invalid query string", detail="a value is not UTF-8") from None
