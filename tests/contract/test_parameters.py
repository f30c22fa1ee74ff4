"""How parameters are read: blank, repeated, escaped, unknown."""

from __future__ import annotations

import httpx
import pytest

from oscar_metrics.facts import LogStream
from oscar_metrics.outcome import Unavailable
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, Span, parse_instant
from tests.contract.serving import NOW, NOW_NS, WHOLE, SaidLogs, aggregator, serving

START, END = "2026-04-01T00:00:00Z", "2026-04-30T23:59:59Z"


@pytest.mark.parametrize(
    ("asked", "echoed"),
    [
        ("", ("2026-04-30T12:00:00Z", NOW)),
        ("start=&end=", ("2026-04-30T12:00:00Z", NOW)),
        ("start=%20", ("2026-04-30T12:00:00Z", NOW)),
        (f"end={END}", ("2026-04-29T23:59:59Z", END)),
        (f"start={START}", (START, NOW)),
        (f"start={START}&start=nope&end={END}&end=nope", (START, END)),
        (f"start=&start=nope&end={END}", ("2026-04-29T23:59:59Z", END)),
        (f"&&start={START}&=&end={END}", (START, END)),
        (f"st%61rt={START}&end={END}", (START, END)),
        (
            "start=2026-04-01T02:00:00+02:00&end=2026-04-02T00:00:00.123456789Z",
            ("2026-04-01T02:00:00+02:00", "2026-04-02T00:00:00.123456789Z"),
        ),
        ("start=2026-04-01T02:00:00%2B02:00", ("2026-04-01T02:00:00+02:00", NOW)),
        ("start=2026-04-01T02:00:00%2002:00", ("2026-04-01T02:00:00+02:00", NOW)),
        ("start=2026-04-01T00:00:00.0Z", ("2026-04-01T00:00:00.0Z", NOW)),
        ("start=2026-04-01T00:00:00+00:00", ("2026-04-01T00:00:00+00:00", NOW)),
        ("end=2026-05-01T12:05:00Z", ("2026-04-30T12:05:00Z", "2026-05-01T12:05:00Z")),
    ],
)
def test_the_range_is_echoed_as_written(
    whole: httpx.Client, asked: str, echoed: tuple[str, str]
) -> None:
    for path in ("/system/metrics/summary", "/system/metrics"):
        report = whole.get(f"{path}?{asked}").json()
        assert (report["start"], report["end"]) == echoed


@pytest.mark.parametrize(
    ("asked", "span"),
    [
        ("", Span(NOW_NS - DAY_NS, NOW_NS + 1)),
        (
            f"start={START}&end={END}",
            Span(parse_instant(START), parse_instant("2026-05-01T00:00:00Z")),
        ),
        (
            "start=2026-04-01T00:00:00+02:00&end=2026-04-01T00:00:00.000000001%2B02:00",
            Span(parse_instant("2026-03-31T22:00:00Z"), parse_instant("2026-03-31T22:00:00Z") + 2),
        ),
    ],
)
def test_sources_are_asked_for_the_span_the_range_means(asked: str, span: Span) -> None:
    telemetry = Telemetry()
    silent = Unavailable(origin="log-files", notes=("silent",))
    logs = SaidLogs(dict.fromkeys(LogStream, silent))
    with serving(aggregator(WHOLE, telemetry, logs), telemetry) as client:
        assert client.get(f"/system/metrics/summary?{asked}").status_code == 200
    assert logs.asked == [span]


@pytest.mark.parametrize(
    ("written", "listed"),
    [
        ("true", True),
        ("True", False),
        ("1", False),
        ("yes", False),
        ("", False),
        ("true&include_users=false", True),
        ("false&include_users=true", False),
    ],
)
def test_only_true_is_true(whole: httpx.Client, written: str, listed: bool) -> None:
    asked = f"/system/metrics/breakdown?group_by=service&start={START}&include_users={written}"
    assert all(("users" in row) == listed for row in whole.get(asked).json()["items"])
    usage = asked.replace("include_users", "include_usage")
    assert all(("cpu_hours" in row) == listed for row in whole.get(usage).json()["items"])


def test_the_casing_of_group_by_is_echoed(whole: httpx.Client) -> None:
    report = whole.get("/system/metrics/breakdown?group_by=CounTry&format=JSON").json()
    assert report["group_by"] == "CounTry"
    assert [row["key"] for row in report["items"]] == ["ES", "FR", "unknown"]


@pytest.mark.parametrize(
    ("unknown", "header"),
    [
        ("", None),
        ("nope=1", "nope"),
        ("nope", "nope"),
        ("vo=x&project=me", "vo, project"),
        ("b=1&a=1&b=2", "b, a"),
        ("a%0D%0Ab%2C%C3%A9=1", "a%0D%0Ab%2C%C3%A9"),
        ("_=123", "_"),
        ("=1", None),
    ],
)
@pytest.mark.parametrize("path", ["", "/cowsay", "/breakdown"])
def test_what_is_unknown_is_ignored_and_named_for_todays_clients(
    whole: httpx.Client, path: str, unknown: str, header: str | None
) -> None:
    response = whole.get(f"/system/metrics{path}?group_by=user&{unknown}".replace("?&", "?"))
    assert response.status_code == 200
    named = response.headers.get("x-ignored-parameters")
    ours = [] if path == "/breakdown" else ["group_by"]
    expected = ", ".join([*ours, *([header] if header else [])])
    assert named == (expected or None)


def test_a_series_of_one_service_is_not_known_and_said_so(whole: httpx.Client) -> None:
    asked = "interval=day&tz=Europe/Madrid"
    response = whole.get(f"/system/metrics/cowsay?{asked}")
    assert (response.status_code, response.headers["x-ignored-parameters"]) == (200, "interval, tz")
    response = whole.get(f"/system/metrics/value?service_id=x&metric=cpu-hours&{asked}")
    assert (response.status_code, response.json()["parameter"]) == (400, "interval")


def test_a_crowd_of_unknown_parameters_makes_no_endless_header(whole: httpx.Client) -> None:
    crowd = "&".join(f"p{number}=" for number in range(1000))
    named = whole.get(f"/system/metrics?{crowd}").headers["x-ignored-parameters"]
    assert named.startswith("p0, p1, ")
    assert named.endswith(", ...")
    assert len(named) <= 1100


def test_cache_busters_are_let_through_where_unknown_parameters_are_not(
    whole: httpx.Client,
) -> None:
    value = "/system/metrics/value?service_id=x&metric=cpu-hours"
    assert whole.get(f"{value}&_=1").status_code == 200
    assert whole.get("/system/metrics/summary?_ts=1").status_code == 200
    response = whole.get(f"{value}&_=1&nope=1&other=2")
    assert (response.status_code, response.json()["parameter"]) == (400, "nope")
