"""The shape of every report: names, types and order of fields; null against zero."""

from __future__ import annotations

import json
from typing import Any

import httpx
import msgspec
import pytest

from oscar_metrics.outcome import Ok, Partial
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import NOW, RANGE, WHOLE, aggregator, serving

ASKED = ("start", "end")
TOTALS = (
    "services_count_active",
    "services_count_total",
    "cpu_hours_total",
    "gpu_hours_total",
    "requests_count_total",
    "requests_count_sync",
    "requests_count_async",
    "requests_count_exposed",
    "countries_count",
    "countries",
    "users_count",
    "users",
    "failed_count",
    "unknown_country_count",
)
SOURCES = (
    "service-inventory",
    "usage-metrics",
    "request-logs",
    "exposed-request-logs",
    "country-attribution",
    "user-roster",
)
METRICS = (
    "cpu-hours",
    "gpu-hours",
    "requests-sync-per-service",
    "requests-async-per-service",
    "requests-exposed-per-service",
    "users-per-service",
)
SOURCE_OF = dict(zip(METRICS, ("usage-metrics",) * 2 + ("request-logs",) * 2, strict=False)) | {
    "requests-exposed-per-service": "exposed-request-logs",
    "users-per-service": "request-logs",
}


def get(client: httpx.Client, path: str, **parameters: str) -> dict[str, Any]:
    """The JSON of a 200, its objects in the order they came in."""
    response = client.get(f"/system/metrics{path}", params={**RANGE, **parameters})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    kept = "no-store" if path == "/owners" else "private, no-cache"
    assert response.headers["cache-control"] == kept
    answer: dict[str, Any] = json.loads(response.content)
    return answer


@pytest.mark.parametrize("path", ["", "/", "/summary", "/summary/"])
def test_a_summary_names_every_total_in_order(whole: httpx.Client, path: str) -> None:
    report = get(whole, path)
    assert tuple(report) == (*ASKED, "totals", "sources")
    assert {name: report[name] for name in ASKED} == RANGE
    assert tuple(report["totals"]) == TOTALS
    assert report["totals"] == {
        "services_count_active": 2,
        "services_count_total": 4,
        "cpu_hours_total": 13.0,
        "gpu_hours_total": 0.0,
        "requests_count_total": 8,
        "requests_count_sync": 5,
        "requests_count_async": 3,
        "requests_count_exposed": 7,
        "countries_count": 2,
        "countries": [
            {"country": "ES", "request_count": 5},
            {"country": "FR", "request_count": 1},
        ],
        "users_count": 4,
        "users": ["=odd", "alice@egi.eu", "bob@egi.eu", "nil"],
        "failed_count": 3,
        "unknown_country_count": 2,
    }
    assert tuple(source["name"] for source in report["sources"]) == SOURCES


def test_a_source_is_described_in_order(whole: httpx.Client) -> None:
    sources = {source["name"]: source for source in get(whole, "/summary")["sources"]}
    assert list(sources["service-inventory"].items()) == [
        ("name", "service-inventory"),
        ("status", "ok"),
        ("last_updated", NOW),
        ("origin", "kubernetes"),
        ("coverage", 1.0),
        ("gaps", []),
        ("affects", []),
    ]
    roster = sources["user-roster"]
    assert tuple(roster) == (
        "name",
        "status",
        "notes",
        "origin",
        "coverage",
        "gaps",
        "affects",
    )
    assert roster["status"] == "missing"
    assert "roster" in roster["notes"]
    assert sources["country-attribution"]["status"] == "partial"
    for source in sources.values():
        assert source["status"] == "ok" or source["notes"]


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("cpu-hours", 12.5),
        ("gpu-hours", 0),
        ("requests-sync-per-service", 3),
        ("requests-async-per-service", 1),
        ("requests-exposed-per-service", 0),
        ("users-per-service", 2),
    ],
)
def test_one_metric_of_a_service(whole: httpx.Client, metric: str, value: float) -> None:
    hours = metric.endswith("-hours")
    report = get(whole, "/value", service_id="cowsay", metric=metric)
    assert tuple(report) == (
        "service_id",
        "metric",
        *ASKED,
        "value",
        *(["unit"] if hours else []),
        "sources",
    )
    assert (report["service_id"], report["metric"], report["value"]) == ("cowsay", metric, value)
    assert report.get("unit") == ("hours" if hours else None)
    assert [source["name"] for source in report["sources"]] == [SOURCE_OF[metric]]
    assert get(whole, "/cowsay", metric=metric) == report


def test_every_metric_of_a_service_in_order(whole: httpx.Client) -> None:
    report = get(whole, "/cowsay")
    assert tuple(report) == ("service_name", *ASKED, "metrics")
    assert report["service_name"] == "cowsay"
    assert tuple(row["metric"] for row in report["metrics"]) == METRICS
    for row in report["metrics"]:
        alone = get(whole, "/cowsay", metric=row["metric"])
        assert tuple(row) == tuple(
            name for name in alone if name in {"metric", "value", "unit", "sources"}
        )
        assert row == {name: alone[name] for name in row}


def test_rows_per_service(whole: httpx.Client) -> None:
    report = get(whole, "/breakdown", group_by="service")
    assert tuple(report) == (*ASKED, "group_by", "items", "sources")
    assert [row["key"] for row in report["items"]] == ["cowsay", "demo", "grayify", "value"]
    assert list(report["items"][0].items()) == [
        ("key", "cowsay"),
        ("requests_count_total", 4),
        ("requests_count_sync", 3),
        ("requests_count_async", 1),
        ("requests_count_exposed", 0),
        ("unique_users_count", 2),
        (
            "countries",
            [{"country": "ES", "request_count": 3}, {"country": "FR", "request_count": 1}],
        ),
        ("namespaces", ["oscar-svc", "oscar-svc-bob"]),
        ("failed_count", 0),
    ]
    assert [source["name"] for source in report["sources"]] == [
        "request-logs",
        "exposed-request-logs",
        "country-attribution",
    ]


def test_users_are_listed_between_their_count_and_the_countries(whole: httpx.Client) -> None:
    row = get(whole, "/breakdown", group_by="service", include_users="true")["items"][0]
    names = tuple(row)
    assert names[names.index("users") - 1] == "unique_users_count"
    assert names[names.index("users") + 1] == "countries"
    assert row["users"] == ["alice@egi.eu", "bob@egi.eu"]


def test_usage_comes_with_a_row_for_what_nothing_claims(whole: httpx.Client) -> None:
    report = get(whole, "/breakdown", group_by="service", include_usage="true")
    rows = {row["key"]: row for row in report["items"]}
    assert (rows["cowsay"]["cpu_hours"], rows["cowsay"]["gpu_hours"]) == (12.5, 0)
    assert rows[""]["cpu_hours"] == 0.5
    assert rows[""]["unattributed"] is True
    assert "unattributed" not in rows["cowsay"]
    assert [source["name"] for source in report["sources"]][:2] == [
        "service-inventory",
        "usage-metrics",
    ]


def test_rows_per_user(whole: httpx.Client) -> None:
    report = get(whole, "/breakdown", group_by="user")
    assert [
        (row["key"], row["membership"], row["executions_count"]) for row in report["items"]
    ] == [
        ("", "unknown", 1),
        ("=odd", "member", 1),
        ("alice@egi.eu", "member", 3),
        ("bob@egi.eu", "member", 1),
        ("nil", "external", 2),
    ]
    assert tuple(report["items"][0]) == (
        "key",
        "membership",
        "executions_count",
        "countries",
        "failed_count",
    )


def test_rows_per_country(whole: httpx.Client) -> None:
    report = get(whole, "/breakdown", group_by="country")
    assert [list(row.items()) for row in report["items"]] == [
        [
            ("key", key),
            ("executions_count", count),
            ("unique_users_count", users),
            ("countries", [{"country": key, "request_count": count}]),
        ]
        for key, count, users in (("ES", 5, 2), ("FR", 1, 1), ("unknown", 2, 1))
    ]


def test_a_summary_by_day_has_the_totals_of_every_day(whole: httpx.Client) -> None:
    report = get(whole, "/summary", interval="day", tz="Europe/Madrid")
    assert tuple(report) == (*ASKED, "totals", "periods", "sources")
    plain = get(whole, "/summary")
    assert report["totals"] == plain["totals"]
    assert len(report["periods"]) == 31
    for period in report["periods"]:
        assert tuple(period) == ("period", "start", "end", "totals", "incomplete")
        assert tuple(period["totals"]) == TOTALS
        assert period["incomplete"] == []
    busy = [period for period in report["periods"] if period["totals"]["requests_count_total"]]
    assert [(p["period"], p["start"], p["end"]) for p in busy] == [
        ("2026-04-07", "2026-04-06T22:00:00Z", "2026-04-07T21:59:59Z")
    ]
    assert busy[0]["totals"] == {**plain["totals"], "services_count_active": None}
    alone = get(whole, "/summary", start=busy[0]["start"], end=busy[0]["end"])
    assert alone["totals"] == plain["totals"]


@pytest.mark.parametrize("group_by", ["service", "user", "country"])
def test_a_breakdown_by_week_has_the_rows_of_every_week(whole: httpx.Client, group_by: str) -> None:
    asked = {"group_by": group_by, "include_usage": "true"}
    report = get(whole, "/breakdown", interval="WEEK", **asked)
    assert tuple(report) == (*ASKED, "group_by", "items", "periods", "sources")
    assert report["items"] == get(whole, "/breakdown", **asked)["items"]
    assert [period["period"] for period in report["periods"]] == [
        f"2026-W{week}" for week in range(14, 19)
    ]
    for period in report["periods"]:
        assert tuple(period) == ("period", "start", "end", "items", "incomplete")
        assert period["items"] == (report["items"] if period["period"] == "2026-W15" else [])


def test_a_series_of_todays_clients_has_no_null(whole: httpx.Client, nothing: httpx.Client) -> None:
    for client in (whole, nothing):
        periods = get(client, "", interval="week")["periods"]
        assert len(periods) == 5
        assert None not in [value for p in periods for value in p["totals"].values()]


def test_a_source_that_is_missing_is_missing_in_every_period(nothing: httpx.Client) -> None:
    arrays = {"countries", "users"}
    for period in get(nothing, "/summary", interval="week")["periods"]:
        assert period["totals"] == {name: [] if name in arrays else None for name in TOTALS}
        assert period["incomplete"] == ["usage-metrics", "request-logs", "exposed-request-logs"]


def test_owners(whole: httpx.Client) -> None:
    assert get(whole, "/owners") == {
        "owners": [
            {"id": "alice@egi.eu", "name": "Alice Example", "namespace": "oscar-svc-alice"},
            {"id": "cluster_admin", "name": "oscar", "namespace": "oscar-svc"},
        ]
    }


def test_a_list_of_owners_that_may_be_short_says_so() -> None:
    assert isinstance(WHOLE.inventory, Ok)
    part = Partial(facts=WHOLE.inventory.facts, origin="kubernetes", notes=("one is unreadable",))
    telemetry = Telemetry()
    world = msgspec.structs.replace(WHOLE, inventory=part)
    with serving(aggregator(world, telemetry), telemetry) as client:
        response = client.get("/system/metrics/owners")
    assert [owner["id"] for owner in response.json()["owners"]] == ["alice@egi.eu", "cluster_admin"]
    assert response.headers["x-completeness"] == (
        'service-inventory;status=partial;coverage=1.000;notes="one is unreadable"'
    )


def test_a_name_that_routes_are_called_is_reached_by_value(whole: httpx.Client) -> None:
    report = get(whole, "/value", service_id="value", metric="requests-sync-per-service")
    assert (report["service_id"], report["value"]) == ("value", 1)


@pytest.mark.parametrize("name", ["unheard-of", "é'x\"{}|~", "x" * 300, "\x00", "..%2F", "*"])
def test_any_name_answers_zeros_where_nothing_is_known(whole: httpx.Client, name: str) -> None:
    response = whole.get(
        "/system/metrics/value", params={"service_id": name, "metric": "cpu-hours"}
    )
    assert (response.status_code, response.json()["service_id"]) == (200, name)
    assert response.json()["value"] == 0


def test_any_name_in_the_path_answers_zeros_too(whole: httpx.Client) -> None:
    for written, name in [("%C3%A9%00", "é\x00"), ("x" * 300, "x" * 300), ("a+b", "a+b")]:
        response = whole.get(f"/system/metrics/{written}")
        assert (response.status_code, response.json()["service_name"]) == (200, name)
        assert [row["value"] for row in response.json()["metrics"]] == [0] * 6


def test_missing_is_null_on_summary_and_value(nothing: httpx.Client) -> None:
    report = get(nothing, "/summary")
    arrays = {"countries", "users"}
    assert tuple(report["totals"]) == TOTALS
    assert report["totals"] == {name: [] if name in arrays else None for name in TOTALS}
    assert {source["status"] for source in report["sources"]} == {"missing"}
    affected = {field for source in report["sources"] for field in source["affects"]}
    assert affected >= set(TOTALS)
    for metric in METRICS:
        value = get(nothing, "/value", service_id="cowsay", metric=metric)
        assert value["value"] is None
        assert [source["affects"] for source in value["sources"]] == [["value"]]


def test_missing_is_zero_on_the_routes_todays_clients_call(nothing: httpx.Client) -> None:
    report, strict = get(nothing, ""), get(nothing, "/summary")
    assert report["totals"] == {
        name: 0 if total is None else total for name, total in strict["totals"].items()
    }
    assert report["sources"] == strict["sources"]
    every = get(nothing, "/cowsay")
    assert [row["value"] for row in every["metrics"]] == [0] * 6
    for row in every["metrics"]:
        one = get(nothing, "/cowsay", metric=row["metric"])
        assert one["value"] == 0
        value = get(nothing, "/value", service_id="cowsay", metric=row["metric"])
        assert row["sources"] == one["sources"] == value["sources"]


@pytest.mark.parametrize("group_by", ["service", "user", "country"])
def test_a_missing_log_leaves_no_rows_and_says_so(nothing: httpx.Client, group_by: str) -> None:
    report = get(nothing, "/breakdown", group_by=group_by)
    assert report["items"] == []
    status = {source["name"]: source for source in report["sources"]}["request-logs"]
    assert status["status"] == "missing"
    assert "items" in status["affects"]


def test_owners_cannot_be_told_without_the_inventory(nothing: httpx.Client) -> None:
    response = nothing.get("/system/metrics/owners")
    assert response.status_code == 503
    assert response.headers["retry-after"].isdigit()
    assert response.json()["error"] == "service inventory unavailable"
    assert response.json()["detail"]
