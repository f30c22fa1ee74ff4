"""What answers say of the ledger, and what can be asked of it, over HTTP."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from oscar_metrics.facts import (
    CallKey,
    CallLog,
    Kind,
    ServiceKey,
    SlotPart,
    SlotUsage,
    Usage,
    UsageMethod,
)
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, parse_instant
from tests.contract.serving import WHOLE, aggregator, call, serving
from tests.contract.test_openapi import documented, validate

DAY = {"start": "2026-04-07T00:00:00Z", "end": "2026-04-07T23:59:59Z"}
FIRST_HOUR = parse_instant(DAY["start"]) // HOUR_NS
SEALED_AT, RESTATED_AT = "2026-04-09T00:00:00Z", "2026-04-30T08:00:00Z"
BUSY_HOUR = FIRST_HOUR + 10
CALLS = Counter({call("cowsay", "alice@egi.eu", "ES"): 3})
GATEWAY = Counter({call("demo", "", "", Kind.EXPOSED): 7})


def calls(kind: SealKind, hour: int, tallies: Counter[CallKey]) -> Candidate:
    slot = SlotPart(hour * HOUR_NS // SLOT_NS, first=False)
    seen = tallies.total()
    log = CallLog(tallies=tallies, lines_seen=seen, lines_understood=seen)
    return Candidate(kind=kind, hour=hour, origin="loki", calls={slot: log} if seen else {})


def usage(hour: int, cpu_seconds: float) -> Candidate:
    used = Usage(
        cpu_seconds={ServiceKey("oscar-svc", "cowsay"): cpu_seconds},
        gpu_seconds={},
        methods=frozenset({UsageMethod.CPU_ESTIMATE}),
    )
    slot = SlotUsage(slot=hour * HOUR_NS // SLOT_NS, quarters=4, usage=used)
    return Candidate(
        kind=SealKind.USAGE, hour=hour, origin="prometheus", method="cpu-estimate", usage=(slot,)
    )


async def seal(store: DuckLedger) -> None:
    """A day of calls and usage; later one more call of an hour turns up."""
    hours = range(FIRST_HOUR, FIRST_HOUR + 24)
    first = [
        *(calls(SealKind.EXECUTIONS, h, CALLS if h == BUSY_HOUR else Counter()) for h in hours),
        *(calls(SealKind.EXPOSED, h, GATEWAY if h == BUSY_HOUR else Counter()) for h in hours),
        *(usage(hour, 360.0) for hour in hours),
    ]
    await store.seal(first, now_ns=parse_instant(SEALED_AT))
    late = CALLS + Counter({call("cowsay", "bob@egi.eu", "FR"): 1})
    again = [calls(SealKind.EXECUTIONS, BUSY_HOUR, late)]
    await store.seal(again, now_ns=parse_instant(RESTATED_AT))


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server whose ledger holds one day."""
    path = tmp_path_factory.mktemp("ledger") / "ledger.duckdb"
    store = DuckLedger.open(path, create=True, memory_mb=128, threads=2)
    asyncio.run(seal(store))
    telemetry = Telemetry()
    holder = LedgerHolder(store, rows_max=100_000)
    with serving(aggregator(WHOLE, telemetry, ledger=holder), telemetry) as client:
        yield client
    asyncio.run(store.aclose())


def get(client: httpx.Client, path: str, **asked: str) -> dict[str, Any]:
    """A 200 that is as the document says."""
    response = client.get(path.replace("{serviceName}", "cowsay"), params={**DAY, **asked})
    assert response.status_code == 200, response.text
    validate(response.json(), documented(path, response))
    answer: dict[str, Any] = response.json()
    return answer


def test_each_source_says_what_came_from_the_ledger(sealed: httpx.Client) -> None:
    sources = {s["name"]: s for s in get(sealed, "/system/metrics/summary")["sources"]}
    for name, last_sealed_at in (
        ("usage-metrics", SEALED_AT),
        ("request-logs", RESTATED_AT),
        ("exposed-request-logs", SEALED_AT),
        ("country-attribution", RESTATED_AT),
    ):
        assert sources[name]["ledger"] == {
            "coverage": 1.0,
            "first_sealed_at": SEALED_AT,
            "last_sealed_at": last_sealed_at,
            "provisional_hours": 0.0,
        }
    assert "ledger" not in sources["service-inventory"]
    assert "ledger" not in sources["user-roster"]


def test_half_a_range_from_the_ledger_is_half_covered(sealed: httpx.Client) -> None:
    asked = {"start": "2026-04-07T00:00:00Z", "end": "2026-04-08T23:59:59Z"}
    report = get(sealed, "/system/metrics/summary", **asked)
    sources = {s["name"]: s for s in report["sources"]}
    assert sources["request-logs"]["ledger"]["coverage"] == 0.5
    response = sealed.get(
        "/system/metrics/breakdown", params={**asked, "group_by": "user", "format": "csv"}
    )
    assert (
        "request-logs;status=ok;coverage=1.000;ledger=0.500" in response.headers["x-completeness"]
    )


@pytest.mark.parametrize(
    ("path", "asked", "then", "now"),
    [
        ("/system/metrics", {}, 3, 4),
        ("/system/metrics/summary", {}, 3, 4),
        ("/system/metrics/breakdown", {"group_by": "service"}, 3, 4),
        ("/system/metrics/breakdown", {"group_by": "user"}, 3, 4),
        ("/system/metrics/breakdown", {"group_by": "country"}, 3, 4),
        (
            "/system/metrics/value",
            {"service_id": "cowsay", "metric": "requests-sync-per-service"},
            3,
            4,
        ),
        ("/system/metrics/value", {"service_id": "cowsay", "metric": "cpu-hours"}, 2.4, 2.4),
        ("/system/metrics/{serviceName}", {"metric": "users-per-service"}, 1, 2),
        ("/system/metrics/{serviceName}", {}, 3, 4),
    ],
)
def test_every_report_route_gives_numbers_as_they_were_known(
    sealed: httpx.Client, path: str, asked: dict[str, str], then: float, now: float
) -> None:
    current = get(sealed, path, **asked)
    assert figure(current) == now
    assert "as_of" not in current
    past = get(sealed, path, **asked, as_of="2026-04-10T02:00:00+02:00")
    assert figure(past) == then
    assert past["as_of"] == "2026-04-10T02:00:00+02:00"
    assert list(past).index("as_of") == list(past).index("end") + 1


def figure(report: dict[str, Any]) -> Any:
    """The executions a report counts, or its only value."""
    match report:
        case {"totals": totals}:
            return totals["requests_count_total"]
        case {"items": rows}:
            return sum(r.get("requests_count_total", r.get("executions_count")) for r in rows)
        case {"metrics": metrics}:
            return {m["metric"]: m["value"] for m in metrics}["requests-sync-per-service"]
        case _:
            return report["value"]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/summary",
        "/breakdown?group_by=user",
        "/x",
        "/value?service_id=x&metric=users-per-service",
    ],
)
def test_what_was_not_sealed_then_is_refused_and_named(sealed: httpx.Client, path: str) -> None:
    response = sealed.get(
        f"/system/metrics{path}",
        params={
            **httpx.QueryParams(path.partition("?")[2]),
            **DAY,
            "as_of": "2026-04-08T00:00:00Z",
        },
    )
    body = response.json()
    assert (response.status_code, body["parameter"]) == (400, "as_of")
    assert body["error"] == "as_of is not available for this range"
    assert "2026-04-07T00:00:00Z to 2026-04-07T00:15:00Z" in body["detail"]


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/system/metrics", {}),
        ("/system/metrics/summary", {}),
        ("/system/metrics/breakdown", {"group_by": "country"}),
        ("/system/metrics/{serviceName}", {}),
        ("/system/metrics/{serviceName}", {"metric": "users-per-service"}),
    ],
)
def test_what_was_restated_since_is_listed(
    sealed: httpx.Client, path: str, asked: dict[str, str]
) -> None:
    assert "restated" not in get(sealed, path, **asked)
    report = get(sealed, path, **asked, restated_since="2026-04-29T00:00:00Z")
    assert report["restated"] == [
        {
            "source": "request-logs",
            "start": "2026-04-07T10:00:00Z",
            "end": "2026-04-07T11:00:00Z",
            "sealed_at": RESTATED_AT,
            "was": 3.0,
            "now": 4.0,
        }
    ]
    assert get(sealed, path, **asked, restated_since=RESTATED_AT)["restated"] == []


def test_a_series_as_of_a_time_is_a_series_of_then(sealed: httpx.Client) -> None:
    asked = {"interval": "hour", "tz": "Europe/Madrid"}
    for more, expected in (({}, 4), ({"as_of": "2026-04-10T00:00:00Z"}, 3)):
        report = get(sealed, "/system/metrics/summary", **asked, **more)
        counts = {
            p["period"]: p["totals"]["requests_count_total"]
            for p in report["periods"]
            if p["totals"]["requests_count_total"]
        }
        assert counts == {"2026-04-07T12:00:00+02:00": expected}
        assert {p["totals"]["cpu_hours_total"] for p in report["periods"]} == {0.1}
        assert report["totals"]["cpu_hours_total"] == pytest.approx(2.4)
