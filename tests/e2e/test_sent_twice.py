"""Lines that Loki was sent twice are one call in every report, live and sealed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oscar_metrics.timerange import format_instant
from tests.e2e.running import NOTHING, command_here
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.sent_twice import CALLS, Sent, in_blocks, in_shards, of_another_country


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("loki")
    with Loki.start(tmp_path_factory.mktemp("loki")) as server:
        yield server


@pytest.mark.parametrize("send", [in_blocks, in_shards, of_another_country])
def test_every_report_says_what_was_called(
    loki: Loki, send: Callable[[Sent], None], tmp_path: Path
) -> None:
    sent = Sent(loki, days_ago=2)
    send(sent)
    sent.be_written_out(CALLS if send is in_blocks else CALLS * 5 // 2)
    settings = {
        **NOTHING,
        "LOKI_URL": loki.url,
        "OSCAR_NAMESPACE": sent.streams.namespace,
        "LOKI_EXPOSED_NAMESPACE": "nobody",
    }
    start, end = format_instant(sent.span.start_ns), format_instant(sent.span.stop_ns - 1)
    live = figures(settings, start, end)
    ledger = {**settings, "OSCAR_METRICS_LEDGER": str(tmp_path / "ledger.duckdb")}
    done = command_here(["ledger", "backfill", "--from", start, "--to", end], ledger)
    assert "sealed" in done.stdout, done
    sealed = figures({**ledger, "LOKI_URL": ""}, start, end)
    assert live["users"] == sent.calls_by_user()
    assert live["summary"] == live["value"] == live["service"] == CALLS
    assert sealed == live


def figures(settings: dict[str, str], start: str, end: str) -> dict[str, Any]:
    """The calls of one range, told in each way."""

    def report(*arguments: str) -> Any:
        asked = ["report", *arguments, "--start", start, "--end", end, "--json"]
        done = command_here(asked, settings)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def value(metric: str) -> int:
        return int(report("value", "cowsay", metric)["value"])

    by_user = report("breakdown", "--group-by", "user")["items"]
    (service,) = report("breakdown", "--group-by", "service")["items"]
    return {
        "value": value("requests-sync-per-service") + value("requests-async-per-service"),
        "summary": report("summary")["totals"]["requests_count_total"],
        "service": service["requests_count_total"],
        "users": {row["key"]: row["executions_count"] for row in by_user},
    }
