"""What a soak takes for wrong: without this, one that sees nothing would pass."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.soak.judging import OVERLOADED, excuses, faults_of_body, faults_of_refusal
from tests.toxics.expected import NO_INVENTORY, NO_ISSUER, Upstream
from tests.toxics.questions import Caller

EVERYTHING = frozenset(Upstream)
ADMINISTRATOR, USER = Caller.ADMINISTRATOR, Caller.KNOWN_USER
AGAIN = {"Retry-After": "3"}


@pytest.mark.parametrize(
    ("caller", "unwell", "of_an_owner", "said"),
    [
        (ADMINISTRATOR, EVERYTHING, False, {OVERLOADED}),
        (ADMINISTRATOR, EVERYTHING, True, {OVERLOADED, NO_INVENTORY}),
        (ADMINISTRATOR, {Upstream.LOKI}, True, {OVERLOADED}),
        (USER, EVERYTHING, False, {OVERLOADED, NO_INVENTORY, NO_ISSUER}),
        (USER, {Upstream.KEYCLOAK}, False, {OVERLOADED, NO_ISSUER}),
        (USER, {Upstream.KUBERNETES}, False, {OVERLOADED, NO_INVENTORY}),
        (USER, {Upstream.LOKI, Upstream.PROMETHEUS}, False, {OVERLOADED}),
    ],
)
def test_who_is_excused_for_what(
    caller: Caller, unwell: set[Upstream], of_an_owner: bool, said: set[str]
) -> None:
    assert excuses(caller, unwell, of_an_owner=of_an_owner) == said


@pytest.mark.parametrize(
    ("status", "error", "headers", "wrong"),
    [
        (503, OVERLOADED, AGAIN, False),
        (503, OVERLOADED, {}, True),
        (503, OVERLOADED, {"Retry-After": "0"}, True),
        (503, "the server is stopping", AGAIN, True),
        (500, OVERLOADED, AGAIN, True),
        (502, OVERLOADED, AGAIN, True),
        (403, "forbidden", {}, True),
    ],
)
def test_which_refusals_are_wrong(
    status: int, error: str, headers: dict[str, str], wrong: bool
) -> None:
    request = httpx.Request("GET", "http://soak/")
    response = httpx.Response(status, json={"error": error}, headers=headers, request=request)
    assert bool(faults_of_refusal(response, {OVERLOADED})) is wrong


WELL, MISSING = [{"status": "ok"}], [{"status": "ok"}, {"status": "missing"}]
TRUTH: dict[str, Any] = {"items": [{"key": "a", "cpu_hours": 0.5}], "sources": WELL}


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (TRUTH, False),
        ({**TRUTH, "sources": [{"status": "ok", "notes": "as of then"}]}, False),
        ({**TRUTH, "items": [{"key": "a", "cpu_hours": 0.5 + 1e-9}]}, False),
        ({**TRUTH, "items": [{"key": "a", "cpu_hours": 0.6}]}, True),
        ({**TRUTH, "items": [{"key": "b", "cpu_hours": 0.5}]}, True),
        ({**TRUTH, "items": []}, True),
        ({**TRUTH, "periods": []}, True),
        ({"sources": WELL}, True),
        ({**TRUTH, "items": [], "sources": MISSING}, False),
    ],
)
def test_which_bodies_are_wrong(body: dict[str, Any], wrong: bool) -> None:
    assert bool(faults_of_body(body, TRUTH)) is wrong
