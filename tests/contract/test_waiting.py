"""How long a report may take: everyone's deadline, or the one its caller asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR, Caller
from oscar_metrics.facts import LogStream
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from tests.contract.neighbours import CREDENTIALS, neighbourhood
from tests.contract.serving import NOW_NS, WHOLE, KnownTokens, SaidLogs, serving

MOST_SECONDS = 20
ROUTES = (
    "/system/metrics",
    "/system/metrics/summary",
    "/system/metrics/value?service_id=cowsay&metric=requests-sync-per-service",
    "/system/metrics/breakdown?group_by=user&format=csv",
    "/system/metrics/cowsay",
)


class TimedLogs(SaidLogs):
    """Logs that note how many seconds they are given."""

    def __init__(self) -> None:
        assert WHOLE.executions is not None
        assert WHOLE.exposed is not None
        super().__init__({LogStream.EXECUTIONS: WHOLE.executions, LogStream.EXPOSED: WHOLE.exposed})
        self.given_seconds: list[float] = []

    async def read(self, *asked: Any, deadline: float | None, **when: Any) -> Any:
        assert deadline is not None
        self.given_seconds.append(deadline - asyncio.get_running_loop().time())
        return await super().read(*asked, deadline=deadline, **when)


@pytest.fixture(scope="module")
def timed() -> Iterator[tuple[httpx.Client, TimedLogs]]:
    logs, telemetry = TimedLogs(), Telemetry()
    sources = Sources(geoip=GeoIP(None), roster=Rosters(), inventory=None, usage=None, logs=logs)
    answering = Aggregator(
        sources,
        telemetry=telemetry,
        now_ns=lambda: NOW_NS,
        deadline_seconds=10.0,
        deadline_most_seconds=MOST_SECONDS,
    )
    with serving(answering, telemetry) as client:
        yield client, logs


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("prefer", "applied", "seconds"),
    [
        ([], None, 10),
        (["wait=5"], "wait=5", 5),
        (["respond-async", 'Wait="15"; a=b'], "wait=15", 15),
        (["wait=999999999"], f"wait={MOST_SECONDS}", MOST_SECONDS),
        (["wait=0"], None, 10),
        (["wait=soon, wait=5"], None, 10),
        (["return=minimal"], None, 10),
    ],
)
def test_a_caller_says_how_long_it_waits(
    timed: tuple[httpx.Client, TimedLogs],
    path: str,
    prefer: list[str],
    applied: str | None,
    seconds: int,
) -> None:
    client, logs = timed
    logs.given_seconds.clear()
    response = client.get(path, headers=[("Prefer", text) for text in prefer])
    assert response.status_code == 200
    assert response.headers.get("preference-applied") == applied
    assert logs.given_seconds
    assert all(seconds - 4 < given <= seconds for given in logs.given_seconds)


def test_errors_say_what_was_heard_too() -> None:
    with neighbourhood() as client:
        for path, status, applied in (
            ("/system/metrics/owners", 200, "wait=5"),
            ("/system/metrics?owner=x", 404, "wait=5"),
            ("/system/metrics?end=x", 400, "wait=5"),
            ("/healthz", 200, None),
        ):
            response = client.get(path, headers={**CREDENTIALS["root"], "Prefer": "wait=5"})
            assert response.status_code == status
            assert response.headers.get("preference-applied") == applied


class SlowTokens(KnownTokens):
    """Finds out whose a token is a little later."""

    def __init__(self, takes_seconds: float) -> None:
        super().__init__({"token": ADMINISTRATOR})
        self._takes_seconds = takes_seconds

    async def caller(self, token: str) -> Caller:
        await asyncio.sleep(self._takes_seconds)
        return await super().caller(token)


@pytest.mark.parametrize(("takes_seconds", "status"), [(0.5, 200), (60, 503)])
def test_finding_out_who_asks_takes_of_the_same_time(takes_seconds: float, status: int) -> None:
    logs, telemetry = TimedLogs(), Telemetry()
    sources = Sources(geoip=GeoIP(None), roster=Rosters(), inventory=None, usage=None, logs=logs)
    answering = Aggregator(
        sources, telemetry=telemetry, now_ns=lambda: NOW_NS, deadline_seconds=10.0
    )
    with serving(answering, telemetry, admin=False, users=SlowTokens(takes_seconds)) as client:
        headers = {"Authorization": "Bearer token", "Prefer": "wait=1"}
        response = client.get("/system/metrics", headers=headers)
    assert response.status_code == status
    assert all(0 < given <= 0.5 for given in logs.given_seconds)
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        assert response.json()["error"] == "identity provider unavailable"
        assert int(response.headers["retry-after"]) > 0
