from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers.build import require
from tests.servers.loki import Loki
from tests.servers.process import ServerError
from tests.servers.prometheus import STALE, Prometheus

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("loki")
    with Loki.start(tmp_path_factory.mktemp("loki")) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus"), retention="30d") as server:
        yield server


def test_loki_shows_every_line_of_a_past_month_once_flushed(loki: Loki) -> None:
    start_ns = (time.time_ns() // HOUR_NS - 90 * 24) * HOUR_NS
    spread = [(start_ns + n * 10**8, f"spread {n}") for n in range(6_000)]
    together = [(start_ns + 7 * 10**9, f"together {n}") for n in range(6_000)]
    other = [(start_ns + n * 10**6, "x" * 400) for n in range(20_000)]
    loki.push([({"app": "old"}, together + spread), ({"app": "other"}, other)])

    loki.flush_and_wait('{app="old"}', start_ns, start_ns + HOUR_NS, 12_000)

    assert loki.count('{app="old"} |= "together"', start_ns, start_ns + HOUR_NS) == 6_000
    assert loki.count('{app="other"}', start_ns, start_ns + HOUR_NS) == 20_000
    # [start, end): the line at the end's own instant is not in it, the one at the start's is.
    assert loki.count('{app="old"} |= "spread"', start_ns, start_ns + 10**9) == 10


def test_loki_says_which_lines_are_missing_instead_of_waiting_for_ever(loki: Loki) -> None:
    start_ns = (time.time_ns() // HOUR_NS - 2) * HOUR_NS
    loki.push([({"app": "few"}, [(start_ns, "one")])])

    with pytest.raises(ServerError, match=r"1 of 2 lines of \{app=\"few\"\}"):
        loki.flush_and_wait(
            '{app="few"}', start_ns, start_ns + HOUR_NS, expected=2, timeout_seconds=1
        )


def test_loki_has_its_default_query_limits(loki: Loki) -> None:
    answer = httpx.get(
        f"{loki.url}/loki/api/v1/drilldown-limits", headers={"X-Scope-OrgID": "fake"}
    ).json()

    limits = answer["limits"]
    assert limits["max_entries_limit_per_query"] == 5_000
    assert limits["max_query_series"] == 500
    assert limits["max_query_length"] == "30d1h"


def test_loki_refuses_connections_while_stopped_and_comes_back_with_its_lines(
    tmp_path: Path,
) -> None:
    require("loki")
    limits = {"max_entries_limit_per_query": 7, "retention_period": "30d"}
    start_ns = (time.time_ns() // HOUR_NS - 1) * HOUR_NS
    with Loki.start(tmp_path, limits=limits) as loki:
        loki.push([({"app": "kept"}, [(start_ns, "a line")])])
        loki.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(loki.url)
        loki.restart()

        assert loki.count('{app="kept"}', start_ns, start_ns + HOUR_NS) == 1
        told = httpx.get(
            f"{loki.url}/loki/api/v1/drilldown-limits", headers={"X-Scope-OrgID": "fake"}
        ).json()["limits"]
        assert told["max_entries_limit_per_query"] == 7
        assert told["retention_period"] in ("30d", "4w2d")


def test_prometheus_takes_a_counter_of_three_days_ago(prometheus: Prometheus) -> None:
    start_ms = (int(time.time()) // 3600 - 72) * 3_600_000
    # More series and samples than one request takes: 200 series of an hour at 15 s, then the end.
    prometheus.remote_write(
        (
            {"__name__": "jobs_total", "job": f"job-{n}"},
            [
                *((start_ms + 15_000 * k, 2.0 * k) for k in range(241)),
                (start_ms + 15_000 * 241, STALE),
            ],
        )
        for n in range(200)
    )
    end_seconds = start_ms / 1000 + 3600

    (increase,) = prometheus.query("sum(increase(jobs_total[1h]))", time_seconds=end_seconds)
    (series,) = prometheus.query("count(jobs_total)", time_seconds=end_seconds)

    assert float(increase["value"][1]) == pytest.approx(200 * 480, rel=0.01)
    assert series["value"][1] == "200"
    assert prometheus.query("jobs_total", time_seconds=end_seconds + 15) == []


def test_prometheus_tells_its_lowest_timestamp_and_retention(prometheus: Prometheus) -> None:
    (lowest,) = prometheus.query("prometheus_tsdb_lowest_timestamp_seconds")
    runtime = httpx.get(f"{prometheus.url}/api/v1/status/runtimeinfo").json()["data"]

    assert float(lowest["value"][1]) <= time.time()
    assert runtime["storageRetention"] == "30d"


def test_prometheus_scrapes_what_it_is_told_and_keeps_it_over_a_restart(tmp_path: Path) -> None:
    require("prometheus")
    unreachable = {
        "job_name": "nobody",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": ["127.0.0.1:1"]}],
    }
    start_ms = (int(time.time()) - 3_600) * 1_000
    with Prometheus.start(
        tmp_path, scrape_configs=[unreachable], flags=["--query.max-samples=50"]
    ) as prometheus:
        prometheus.remote_write([({"__name__": "kept"}, [(start_ms, -1.5)])])
        prometheus.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(prometheus.url)
        prometheus.restart()

        (kept,) = prometheus.query("kept", time_seconds=start_ms / 1000)
        assert kept["value"][1] == "-1.5"
        deadline = time.monotonic() + 10
        while not (up := prometheus.query('up{job="nobody"}')) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [sample["value"][1] for sample in up] == ["0"]
        with pytest.raises(ServerError, match="too many samples"):
            prometheus.query('{__name__=~".+"}')


def test_a_stale_marker_keeps_its_bits() -> None:
    assert math.isnan(STALE)
    assert struct.pack("<d", STALE) == bytes.fromhex("020000000000f07f")
