"""Refuses a request that says it brings a large body, before any of that is read."""

from __future__ import annotations

from litestar.types import Scope

from oscar_metrics.errors import BodyTooLarge
from oscar_metrics.handlers.bounded_http import MAX_BODY_BYTES
from oscar_metrics.handlers.fields import field


def refuse_large_body(scope: Scope) -> None:
    """Raise BodyTooLarge for one that is; a body of unknown length is the protocol's matter."""
    length = field(scope, b"content-length")
    if not length:
        return
    # No more digits than the bound has are made a number of: of thousands, Python makes none.
    digits = length.lstrip("0") or "0"
    too_long = len(digits) > len(str(MAX_BODY_BYTES))
    if too_long or not length.isdecimal() or int(digits) > MAX_BODY_BYTES:
        raise BodyTooLarge(
            "request body is too large",
            detail=f"at most {MAX_BODY_BYTES} bytes are taken, and none are needed",
        )
