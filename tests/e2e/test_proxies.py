"""Whom failed log-ins are counted against, by a server as it runs: not whom a caller says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from tests.e2e.running import NOTHING, PASSWORD, USERNAME, running

ALLOWED = 3


def statuses(client: httpx.Client, headers: Sequence[Mapping[str, str]]) -> list[int]:
    """What wrong passwords are answered with, one after the other."""
    return [
        client.get("/system/metrics", auth=("x", "wrong"), headers=each).status_code
        for each in headers
    ]


def from_addresses(*names: str) -> list[dict[str, str]]:
    """Headers that name as many addresses as can fail from one, and some more."""
    addresses = [f"198.51.100.{number}" for number in range(ALLOWED + 2)]
    return [dict.fromkeys(names, address) for address in addresses]


@pytest.mark.parametrize("trusted", ["", "192.0.2.1, 10.0.0.0/8"])
def test_a_caller_cannot_say_from_where_it_comes(trusted: str, tmp_path: Path) -> None:
    settings = {
        **NOTHING,
        "OSCAR_METRICS_FAILED_LOGINS_PER_MINUTE": str(ALLOWED),
        "OSCAR_METRICS_TRUSTED_PROXIES": trusted,
        # What uvicorn itself would take for whom to trust.
        "FORWARDED_ALLOW_IPS": "*",
    }
    names = ("X-Forwarded-For", "X-Real-IP", "Client-IP", "X-Forwarded-Proto")
    with running(settings, tmp_path) as client:
        assert statuses(client, from_addresses(*names)) == [401] * ALLOWED + [429] * 2
        right = client.get("/system/metrics", auth=(USERNAME, PASSWORD))
        assert right.status_code == 200
    assert "198.51.100" not in (tmp_path / "server.log").read_text()


def test_a_trusted_proxy_can(tmp_path: Path) -> None:
    settings = {
        **NOTHING,
        "OSCAR_METRICS_FAILED_LOGINS_PER_MINUTE": str(ALLOWED),
        "OSCAR_METRICS_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with running(settings, tmp_path) as client:
        assert statuses(client, from_addresses("X-Forwarded-For")) == [401] * (ALLOWED + 2)
        one = [{"X-Forwarded-For": "203.0.113.7"}] * (ALLOWED + 1)
        assert statuses(client, one) == [401] * ALLOWED + [429]
        # What is left of whom the proxy saw is what that one said.
        lied = [{"X-Forwarded-For": f"198.51.100.{n}, 203.0.113.7"} for n in range(2)]
        assert statuses(client, lied) == [429] * 2
