from __future__ import annotations

import pytest

from oscar_metrics.handlers.cors import Cors

DASHBOARD, OTHER = "https://dashboard.example.org", "https://evil.example.org"
LISTED = [DASHBOARD, "http://localhost:5173"]


@pytest.mark.parametrize(
    ("origins", "origin", "allowed", "varies"),
    [
        (["*"], DASHBOARD, "*", False),
        (["*"], "", "*", False),
        (LISTED, DASHBOARD, DASHBOARD, True),
        (LISTED, "http://localhost:5173", "http://localhost:5173", True),
        (LISTED, OTHER, None, True),
        (LISTED, "", None, True),
        (LISTED, "null", None, True),
        (LISTED, DASHBOARD + ".evil.example", None, True),
        (["off"], DASHBOARD, None, False),
        (["off"], "off", None, False),
    ],
)
def test_who_may_read_an_answer(
    origins: list[str], origin: str, allowed: str | None, varies: bool
) -> None:
    cors = Cors(origins)
    for sent in (cors.of_answer(origin), cors.of_preflight(origin)):
        headers = {name.decode(): value.decode() for name, value in sent}
        assert headers.get("access-control-allow-origin") == allowed
        assert headers.get("vary") == ("Origin" if varies else None)
        assert "access-control-allow-credentials" not in headers
        assert (len(headers) > varies) == (allowed is not None)
