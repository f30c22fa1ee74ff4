"""What the collector says of itself reaches Prometheus."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.servers.build import require
from tests.servers.collector import Collector
from tests.servers.process import wait_until
from tests.servers.prometheus import Prometheus

ALLOY = Path(__file__).parents[2] / "alloy"

_CONFIGURATION = """
import.file "delivery" { filename = env("PIPELINE") + "/delivery.alloy" }
import.file "heartbeat" { filename = env("PIPELINE") + "/heartbeat.alloy" }
import.file "own" { filename = env("PIPELINE") + "/own.alloy" }
delivery.to_loki "default" { url = "http://127.0.0.1:9/loki/api/v1/push" }
heartbeat.request "manager" {
  url        = env("PROMETHEUS") + "/-/ready"
  forward_to = [prometheus.remote_write.default.receiver]
}
own.metrics "pipeline" { forward_to = [prometheus.remote_write.default.receiver] }
prometheus.remote_write "default" {
  endpoint { url = env("PROMETHEUS") + "/api/v1/write" }
}
"""
# Of what tells whether lines get lost, that which is there before any came.
_WATCHED = {"loki_write_sent_entries_total", "loki_write_wal_watcher_running", "up"}


def test_what_is_to_be_watched_reaches_prometheus_and_nothing_else(tmp_path: Path) -> None:
    require("grafana-agent-flow")
    require("prometheus")
    configuration = tmp_path / "own.alloy"
    configuration.write_text(_CONFIGURATION)
    with Prometheus.start(tmp_path) as prometheus:
        environment = {"PIPELINE": str(ALLOY), "PROMETHEUS": prometheus.url}
        with Collector.start(tmp_path, configuration, environment=environment):
            wait_until(
                lambda: names(prometheus) >= _WATCHED, "metrics in Prometheus", timeout_seconds=60
            )
            assert not any(name.startswith("go_") for name in names(prometheus))


def names(prometheus: Prometheus) -> set[str]:
    """The names of what the collector wrote; what Prometheus scrapes itself is of another job."""
    answer = httpx.get(
        f"{prometheus.url}/api/v1/label/__name__/values",
        params={"match[]": '{job=~"integrations/.+"}'},
        trust_env=False,
    )
    return set(answer.raise_for_status().json()["data"])
