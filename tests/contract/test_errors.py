"""Every error of the contract, in the order the checks are made, and nothing said beyond it."""

from __future__ import annotations

import base64

import httpx
import pytest

from oscar_metrics.admission import Admitted
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import ReportRange
from oscar_metrics.wire import Summary
from tests.contract.serving import PASSWORD, USERNAME, WHOLE, World, aggregator, serving

START, END = "start=2026-04-01T00:00:00Z", "end=2026-04-30T23:59:59Z"
BAD_START, BAD_END = "start=yesterday", "end=2026-04-30"
BACKWARDS = "start=2026-04-02T00:00:00Z&end=2026-04-01T00:00:00Z"
EARLIER, LATER = "2026-05-01T00:00:00Z", "2026-05-01T12:00:01Z"
REPORT_PATHS = (
    "/system/metrics",
    "/system/metrics/",
    "/system/metrics/summary",
    "/system/metrics/value?service_id=x&metric=cpu-hours",
    "/system/metrics/breakdown?group_by=user",
    "/system/metrics/owners",
    "/system/metrics/cowsay",
)


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


@pytest.mark.parametrize(
    ("asked", "text", "parameter"),
    [
        # Time: `end` before `start`, both before their order.
        (f"summary?{BAD_START}&{BAD_END}", "invalid end timestamp", "end"),
        (f"summary?{BAD_START}&{END}", "invalid start timestamp", "start"),
        (f"summary?{BACKWARDS}", "end must be after start", "end"),
        (f"?{BAD_START}&{BAD_END}", "invalid end timestamp", "end"),
        ("summary?start=2026-04-01T00:00Z", "invalid start timestamp", "start"),
        ("summary?end=2026-04-01t00:00:00z", "invalid end timestamp", "end"),
        ("summary?end=2026-02-30T00:00:00Z", "invalid end timestamp", "end"),
        ("summary?end=1969-12-31T23:59:59Z", "invalid end timestamp", "end"),
        ("summary?end=2300-01-01T00:00:00Z", "invalid end timestamp", "end"),
        # /value: service, metric, time, and what nobody knows last.
        (f"value?metric=nope&{BAD_END}&nope=1", "service_id is required", "service_id"),
        ("value?service_id=&metric=cpu-hours", "service_id is required", "service_id"),
        ("value?service_id=%20&metric=cpu-hours", "service_id is required", "service_id"),
        (f"value?service_id=x&metric=nope&{BAD_END}", "invalid metric key", "metric"),
        ("value?service_id=x", "invalid metric key", "metric"),
        ("value?service_id=x&metric=", "invalid metric key", "metric"),
        ("value?service_id=x&metric=CPU-HOURS", "invalid metric key", "metric"),
        *(
            (
                f"value?service_id=x&metric={metric}&{BAD_END}",
                "unsupported metric for value query",
                "metric",
            )
            for metric in (
                "services-count",
                "requests-per-user",
                "countries-count",
                "countries-list",
            )
        ),
        (f"value?service_id=x&metric=cpu-hours&{BAD_END}&nope=1", "invalid end timestamp", "end"),
        ("value?service_id=x&metric=cpu-hours&nope=1", "unknown parameter", "nope"),
        # The path route: service, time, metric.
        (f"%20?{BAD_END}&metric=nope", "serviceName is required", "serviceName"),
        (f"x?{BAD_END}&metric=nope", "invalid end timestamp", "end"),
        ("x?metric=nope", "invalid metric key", "metric"),
        ("x?metric=countries-list", "unsupported metric for value query", "metric"),
        # /breakdown: time, group_by present, format, csv and users, group_by known.
        (f"breakdown?{BAD_END}&format=xml", "invalid end timestamp", "end"),
        ("breakdown?format=xml", "group_by is required", "group_by"),
        ("breakdown?group_by=", "group_by is required", "group_by"),
        ("breakdown?group_by=nope&format=xml", "invalid format", "format"),
        (
            "breakdown?group_by=SERVICE&format=CSV&include_users=true",
            "include_users is not supported for csv",
            "include_users",
        ),
        (
            "breakdown?group_by=nope&format=csv&include_users=true",
            "unsupported group_by",
            "group_by",
        ),
        # Ours.
        # Ours: as of, restated, interval, zone; after the range, before anything else.
        (f"summary?as_of=x&{BAD_START}", "invalid start timestamp", "start"),
        (f"summary?as_of=x&{BACKWARDS}", "end must be after start", "end"),
        ("summary?restated_since=x&as_of=2026-04-01", "invalid as_of timestamp", "as_of"),
        (f"summary?restated_since=x&as_of={LATER}", "as_of must not be later than now", "as_of"),
        (
            f"summary?interval=x&restated_since=x&as_of={EARLIER}",
            "invalid restated_since timestamp",
            "restated_since",
        ),
        (f"summary?tz=x&interval=year&as_of={EARLIER}", "unsupported interval", "interval"),
        ("summary?tz=Mars&interval=day&nope=1", "unknown tz", "tz"),
        ("summary?tz=UTC", "tz without interval", "tz"),
        ("summary?interval=hour&start=1970-01-01T00:00:00Z", "too many periods", "interval"),
        (f"summary?as_of={EARLIER}&nope=1", "unknown parameter", "nope"),
        ("breakdown?as_of=x&group_by=", "invalid as_of timestamp", "as_of"),
        ("breakdown?interval=year", "unsupported interval", "interval"),
        ("?as_of=x", "invalid as_of timestamp", "as_of"),
        ("?interval=year", "unsupported interval", "interval"),
        ("x?as_of=x&metric=nope", "invalid as_of timestamp", "as_of"),
        ("value?service_id=x&metric=nope&as_of=x", "invalid metric key", "metric"),
        ("value?service_id=x&metric=cpu-hours&as_of=x", "invalid as_of timestamp", "as_of"),
        # Ours, without a ledger.
        *(
            (f"{asked}{parameter}={EARLIER}", f"{parameter} needs the ledger", parameter)
            for parameter in ("as_of", "restated_since")
            for asked in (
                "summary?",
                "?",
                "x?",
                "breakdown?group_by=user&",
                "value?service_id=x&metric=cpu-hours&",
            )
        ),
        (f"summary?Start=x&{BAD_END}", "invalid end timestamp", "end"),
        ("summary?Start=x", "unknown parameter", "Start"),
        ("summary?start=%zz", "invalid query string", None),
        ("summary?start=%", "invalid query string", None),
        ("summary?%ff=1", "invalid query string", None),
    ],
)
def test_bad_requests(whole: httpx.Client, asked: str, text: str, parameter: str | None) -> None:
    response = whole.get(f"/system/metrics/{asked}")
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert (body["error"], body.get("parameter")) == (text, parameter)
    assert set(body) <= {"error", "parameter", "detail"}


def test_an_end_equal_to_the_start_is_a_range(whole: httpx.Client) -> None:
    instant = "2026-04-01T00:00:00Z"
    response = whole.get(f"/system/metrics/summary?start={instant}&end={instant}")
    assert response.status_code == 200


def test_a_query_string_past_the_bound_is_refused(whole: httpx.Client) -> None:
    longest = "_=" + "x" * 8190
    assert whole.get(f"/system/metrics/summary?{longest}").status_code == 200
    response = whole.get(f"/system/metrics/summary?{longest}x")
    assert (response.status_code, response.json()["error"]) == (414, "query string is too long")


@pytest.mark.parametrize("path", REPORT_PATHS)
@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, "Basic"),
        ("", "Basic"),
        ("Basic", "Basic"),
        ("Basic !!!", "Basic"),
        ("Basic \xe9", "Basic"),
        (basic("no colon"), "Basic"),
        (basic(f"{USERNAME}:wrong"), "Basic"),
        (basic(f"wrong:{PASSWORD}"), "Basic"),
        (basic(f"{USERNAME}:"), "Basic"),
        (basic(f"{USERNAME}:{PASSWORD} "), "Basic"),
        (basic(f"{USERNAME.upper()}:{PASSWORD}"), "Basic"),
        ("Bearer x.y.z", "Bearer"),
        ("Bearer", "Bearer"),
        ("bearer x", "Basic"),
        ("BearerX", "Basic"),
    ],
)
def test_nobody_else_gets_in(
    stranger: httpx.Client, path: str, authorization: str | None, challenge: str
) -> None:
    given = [] if authorization is None else [(b"Authorization", authorization.encode("latin-1"))]
    response = stranger.get(path, headers=given)
    assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    expected = {
        "Basic": 'Basic realm="OSCAR Metrics"',
        "Bearer": 'Bearer error="invalid_token"',
    }
    assert response.headers.get_list("www-authenticate") == [expected[challenge]]


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_the_administrator_gets_in(stranger: httpx.Client, scheme: str) -> None:
    encoded = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    headers = {"Authorization": f"{scheme} {encoded}"}
    assert stranger.get("/system/metrics/summary", headers=headers).status_code == 200


def test_who_you_are_is_asked_before_anything_else(stranger: httpx.Client) -> None:
    for asked in ("summary?end=x", "breakdown", "value", "%20", "summary?" + "x" * 9000):
        assert stranger.get(f"/system/metrics/{asked}").status_code == 401


@pytest.mark.parametrize("path", ["/", "/nope", "/system", "/system/metrics/a/b", "/schema/nope"])
def test_no_such_route(whole: httpx.Client, path: str) -> None:
    response = whole.get(path)
    assert (response.status_code, response.json()) == (404, {"error": "not found"})
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE"])
@pytest.mark.parametrize("path", ["/system/metrics", "/system/metrics/x", "/healthz", "/schema"])
def test_only_get_and_head(whole: httpx.Client, method: str, path: str) -> None:
    response = whole.request(method, path)
    assert (response.status_code, response.json()) == (405, {"error": "method not allowed"})
    assert {"GET", "HEAD"} <= set(response.headers["allow"].split(", "))


def test_head_is_get_without_its_body(whole: httpx.Client) -> None:
    got, head = whole.get("/system/metrics/summary"), whole.head("/system/metrics/summary")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.headers["content-length"] == got.headers["content-length"]


class Broken(Aggregator):
    """An aggregator with a mistake in it."""

    async def summary(self, admitted: Admitted, asked: ReportRange) -> Summary:
        del admitted
        raise RuntimeError(f"secret-{asked.start}")


def test_a_mistake_of_ours_is_logged_and_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    telemetry = Telemetry()
    whole = aggregator(WHOLE, telemetry)
    broken = Broken(whole._sources, telemetry=telemetry, now_ns=whole.now_ns, deadline_seconds=None)
    with serving(broken, telemetry) as client:
        response = client.get("/system/metrics/summary")
        assert client.get("/healthz").status_code == 200
    assert (response.status_code, response.json()) == (500, {"error": "internal error"})
    assert "secret-" not in response.text
    said = "".join(capfd.readouterr())
    assert "RuntimeError" in said
    assert "secret-" in said


def test_csv_of_services_with_users_is_refused_before_any_source_is_asked() -> None:
    telemetry = Telemetry()
    with serving(aggregator(World(), telemetry), telemetry) as client:
        asked = {"group_by": "service", "format": "csv", "include_users": "true"}
        assert client.get("/system/metrics/breakdown", params=asked).status_code == 400
        text = client.get("/metrics").text
    assert "oscar_metrics_source_outcomes_total{" not in text
