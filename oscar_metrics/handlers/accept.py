"""Which of the types on offer a request prefers."""

from __future__ import annotations

from typing import Any

from litestar import Request


def preferred(request: Request[Any, Any, Any], offered: list[str]) -> str:
    """The best of `offered` by the Accept header; the first where the header says nothing.

    A header that makes no sense (`q=inf`) says nothing.
    """
    try:
        return request.accept.best_match(offered) or offered[0]
    except (ValueError, OverflowError):
        return offered[0]
