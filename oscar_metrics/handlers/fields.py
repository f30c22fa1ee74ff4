"""The header fields of a request, as they are sent: few are asked for, so none is decoded before.

ASGI has their names in lower case.
"""

from __future__ import annotations

from litestar.types import Scope


def field(scope: Scope, name: bytes) -> str:
    """The first field of that name, blank for none."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def fields(scope: Scope, name: bytes) -> list[str]:
    """Every field of that name, in their order."""
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
