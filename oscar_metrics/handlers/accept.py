"""Which of the types on offer a request prefers."""

from __future__ import annotations

from typing import Any

from litestar import Request

from oscar_metrics.handlers.fields import fields

# Longer ones say nothing: no client needs them, and 60 KiB of commas take a fifth of a second.
_MOST_CHARACTERS = 1024


def preferred(request: Request[Any, Any, Any], offered: list[str]) -> str:
    """The best of `offered` by the Accept header; the first where the header says nothing.

    A header that makes no sense (`q=inf`) says nothing.
    """
    if sum(map(len, fields(request.scope, b"accept"))) > _MOST_CHARACTERS:
        return offered[0]
    try:
        return request.accept.best_match(offered) or offered[0]
    except (ValueError, OverflowError):
        return offered[0]
