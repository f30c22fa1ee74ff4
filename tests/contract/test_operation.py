"""Health, readiness and the process's own metrics."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from oscar_metrics.ledger.sealer_status import ExpiringStatus, KindStatus, LedgerStatus
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.resilience.gate import Gate, Protection
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import USERNAME, WHOLE, aggregator, serving


def test_alive_and_ready_need_no_credentials_and_no_source(
    stranger: httpx.Client, nothing: httpx.Client
) -> None:
    for client, path, status in [
        (stranger, "/healthz", "ok"),
        (stranger, "/readyz", "ready"),
        (nothing, "/healthz", "ok"),
    ]:
        response = client.get(path)
        assert (response.status_code, response.json()) == (200, {"status": status})


def test_only_the_administrator_sees_what_sources_said(nothing: httpx.Client) -> None:
    assert nothing.get("/system/metrics/summary").status_code == 200
    detail = nothing.get("/readyz")
    assert detail.status_code == 200
    assert set(detail.json()["sources"]["request-logs"]) == {"status", "notes", "at"}
    assert detail.json()["sources"]["request-logs"]["status"] == "missing"
    for auth in (httpx.BasicAuth(USERNAME, "wrong"), httpx.BasicAuth("", "")):
        assert nothing.get("/readyz", auth=auth).json() == {"status": "ready"}
    bearer = nothing.get("/readyz", auth=None, headers={"Authorization": "Bearer x"})
    assert (bearer.status_code, bearer.json()) == (200, {"status": "ready"})


def test_only_the_administrator_sees_which_upstreams_are_asked() -> None:
    telemetry = Telemetry()
    Gate("loki", Protection(), concurrency=1, attempts=1, timeout_seconds=1.0, telemetry=telemetry)
    with serving(aggregator(WHOLE, telemetry), telemetry) as client:
        assert client.get("/readyz").json()["upstreams"] == {"loki": "closed"}
        stranger = client.get("/readyz", auth=httpx.BasicAuth("", ""))
        assert stranger.json() == {"status": "ready"}
        shown = client.get("/metrics").text
    for state, value in (("closed", "1.0"), ("open", "0.0"), ("half-open", "0.0")):
        labels = f'state="{state}",upstream="loki"'
        assert f"oscar_metrics_upstream_breaker_state{{{labels}}} {value}\n" in shown


SEALED = LedgerStatus(
    usable=True,
    kinds={
        SealKind.USAGE: KindStatus(
            sealed_up_to="2026-05-01T11:00:00Z",
            lag_seconds=3600,
            unsealed_hours=3,
            provisional_hours=24,
            partial_hours=1,
            expiring=ExpiringStatus(
                hours=2,
                start="2026-04-16T12:00:00Z",
                end="2026-04-16T14:00:00Z",
                seconds_left=900,
            ),
            last_error="Prometheus could not be reached",
        )
    },
)
BROKEN = LedgerStatus(usable=False, problems=("the disk of the ledger is full: free some space",))


@pytest.mark.parametrize("status", [SEALED, BROKEN], ids=["sealed", "broken"])
def test_the_administrator_sees_how_far_the_ledger_is_and_a_broken_one_is_ready(
    status: LedgerStatus,
) -> None:
    telemetry = Telemetry()
    answering = aggregator(WHOLE, telemetry)
    with serving(answering, telemetry, ledger_status=lambda: status) as client:
        detail = client.get("/readyz")
        assert detail.status_code == 200
        assert msgspec.convert(detail.json()["ledger"], LedgerStatus) == status
        stranger = client.get("/readyz", auth=httpx.BasicAuth("", ""))
        assert (stranger.status_code, stranger.json()) == (200, {"status": "ready"})
        shown = client.get("/metrics").text
        assert f"\noscar_metrics_ledger_usable {float(status.usable)}\n" in shown


def test_without_a_ledger_nothing_is_said_of_one(nothing: httpx.Client) -> None:
    assert "ledger" not in nothing.get("/readyz").json()
    assert "oscar_metrics_ledger" not in nothing.get("/metrics").text


def samples(text: str, metric: str) -> dict[str, float]:
    """Value by label set of one metric's samples."""
    lines = (line for line in text.splitlines() if line.startswith(metric + "{"))
    pairs = (line.rsplit(" ", 1) for line in lines)
    return {name.removeprefix(metric): float(value) for name, value in pairs}


def test_requests_are_counted_by_route_template() -> None:
    telemetry = Telemetry()
    with serving(aggregator(WHOLE, telemetry), telemetry) as client:
        for name in ("a", "b", "c"):
            client.get(f"/system/metrics/{name}")
            client.get(f"/nowhere/{name}")
        client.get("/system/metrics/", params={"end": "x"})
        client.get("/system/metrics", auth=("who", "ever"))
        client.request("PURGE", "/healthz")
        counts = samples(client.get("/metrics").text, "http_server_request_duration_seconds_count")

    def key(route: str, status_code: int, method: str = "GET") -> str:
        return (
            f'{{http_request_method="{method}",http_response_status_code="{status_code}",'
            f'http_route="{route}"}}'
        )

    assert counts == {
        key("/system/metrics/{serviceName}", 200): 3,
        key("unmatched", 404): 3,
        key("/system/metrics", 400): 1,
        key("/system/metrics", 401): 1,
        key("unmatched", 405, "_OTHER"): 1,
    }


@pytest.mark.parametrize(
    ("accept", "content_type", "last_line"),
    [
        ("text/plain", "text/plain", ""),
        ("*/*", "text/plain", ""),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", "# EOF"),
    ],
)
def test_own_metrics_in_both_forms(
    stranger: httpx.Client, accept: str, content_type: str, last_line: str
) -> None:
    response = stranger.get("/metrics", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == content_type
    assert response.text.endswith(f"{last_line}\n")
    assert (response.text.splitlines()[-1] == "# EOF") == bool(last_line)
    assert "oscar_metrics_source_outcomes_total" in response.text or last_line
    assert "process_resident_memory_bytes" in response.text


def test_how_many_tasks_there_are_is_told_and_who_asks_again_finds_as_many(
    stranger: httpx.Client,
) -> None:
    def tasks() -> list[str]:
        text = stranger.get("/metrics").text
        return [line for line in text.splitlines() if line.startswith("oscar_metrics_tasks ")]

    (first,) = tasks()
    assert float(first.partition(" ")[2]) >= 1
    assert tasks() == [first]


@pytest.mark.parametrize("path", ["/metrics", "/schema", "/system/metrics/breakdown?group_by=user"])
@pytest.mark.parametrize(
    "accept", ["text/plain;version=abc", "application/openmetrics-text;version=abc", "a/b;q=inf"]
)
def test_an_accept_header_that_makes_no_sense_says_nothing(path: str, accept: str) -> None:
    telemetry = Telemetry()
    with serving(aggregator(WHOLE, telemetry), telemetry) as client:
        assert client.get(path, headers={"Accept": accept}).status_code == 200
