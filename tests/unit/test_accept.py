"""Which type a request prefers, whatever it says."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Request

from oscar_metrics.handlers.accept import preferred

JSON, CSV = "application/json", "text/csv"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ([], JSON),
        ([""], JSON),
        (["text/csv"], CSV),
        (["*/*;q=0.1, text/csv;q=0.2"], CSV),
        (["text/html"], JSON),
        (["text/csv;q=inf"], JSON),
        (["text/csv" + "," * 1000], CSV),
        # Too long to be looked at.
        (["text/csv" + "," * 1024], JSON),
        (["text/csv," + " " * 500, " " * 600], JSON),
    ],
)
def test_what_is_preferred(said: list[str], expected: str) -> None:
    headers = [(b"accept", value.encode()) for value in said]
    request: Request[Any, Any, Any] = Request(
        {"type": "http", "headers": headers, "state": {}}  # type: ignore[arg-type]
    )
    assert preferred(request, [JSON, CSV]) == expected
