"""From lines in a file to every route: nothing between the log and the caller is pretended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import NOW_NS, serving

LINES = """\
[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:00:00.123456789Z | 200 |  12.345ms | 10.0.0.1 | POST    /run/cowsay | alice@egi.eu
[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:00:01Z | 201 | 12ms | 10.0.0.1 | POST /job/cowsay | bob@egi.eu | cowsay | oscar-svc-bob
[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:14:59.5Z | 500 |  1s | 10.0.0.1 | POST    /run/grayify | alice@egi.eu
[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:15:00Z | 200 |  1s | 10.0.0.1 | POST    /run/grayify | alice@egi.eu
"""  # noqa: E501  # a log line is one line
DAY = {"start": "2026-04-24T00:00:00Z", "end": "2026-04-24T23:59:59Z"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder: Path = tmp_path_factory.mktemp("logs")
    (folder / "manager.log").write_text(LINES)
    telemetry = Telemetry()
    logs = LogFiles(LogFilesSettings(pattern=str(folder / "*.log")))
    answering = Aggregator(
        Sources(geoip=GeoIP(None), roster=Rosters(), logs=logs),
        telemetry=telemetry,
        now_ns=lambda: NOW_NS,
        deadline_seconds=30.0,
    )
    with serving(answering, telemetry) as client:
        yield client


def test_totals_are_those_of_the_lines(files: httpx.Client) -> None:
    totals = files.get("/system/metrics/summary", params=DAY).json()["totals"]
    assert totals["requests_count_total"] == 4
    assert totals["requests_count_sync"] == 3
    assert totals["requests_count_async"] == 1
    assert totals["failed_count"] == 1
    assert totals["users"] == ["alice@egi.eu", "bob@egi.eu"]
    assert totals["cpu_hours_total"] is None


@pytest.mark.parametrize(
    ("end", "count"),
    [
        ("2026-04-24T10:14:58.999999999Z", 0),
        ("2026-04-24T10:14:59Z", 1),
        ("2026-04-24T10:14:59.999Z", 1),
        ("2026-04-24T10:15:00Z", 2),
    ],
)
def test_an_end_in_the_last_second_of_a_quarter_hour_means_all_of_it(
    files: httpx.Client, end: str, count: int
) -> None:
    asked = {"start": DAY["start"], "end": end}
    metric = {"service_id": "grayify", "metric": "requests-sync-per-service"}
    assert files.get("/system/metrics/value", params={**asked, **metric}).json()["value"] == count


def test_rows_add_up_to_the_totals(files: httpx.Client) -> None:
    for group_by, field in [
        ("service", "requests_count_total"),
        ("user", "executions_count"),
        ("country", "executions_count"),
    ]:
        asked = {**DAY, "group_by": group_by}
        items = files.get("/system/metrics/breakdown", params=asked).json()["items"]
        assert sum(item[field] for item in items) == 4


def test_lines_read_are_counted_in_the_metrics(files: httpx.Client) -> None:
    assert files.get("/system/metrics/summary", params=DAY).status_code == 200
    assert 'oscar_metrics_log_lines_seen_total{origin="log-files"}' in files.get("/metrics").text
