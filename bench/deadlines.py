"""How long reports take whose sources hang, against their deadline.

    python -m bench.deadlines [--seconds 0.5]

Loki, Prometheus and the Kubernetes API hold the sample's month, and are suspended one after
the other: the system still takes connections and nobody answers. Each report is asked for ten
times. Figure: within 1.1 times the deadline.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.corpus import platform, sample
from tests.corpus.origins import loki_streams
from tests.e2e.running import running
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.prometheus import Prometheus

TIMES = 10
RANGE = {"start": "2026-01-01T00:00:00Z", "end": "2026-01-31T23:59:59Z"}
REPORTS: Mapping[str, tuple[str, dict[str, str]]] = {
    "value": ("value", {"service_id": "cowsay", "metric": "requests-sync-per-service"}),
    "summary": ("summary", {}),
    "summary by day": ("summary", {"interval": "day"}),
    "breakdown": ("breakdown", {"group_by": "service", "include_usage": "true"}),
    "CSV": ("breakdown", {"group_by": "user", "format": "csv"}),
}


def main() -> None:
    """Print the middle and the longest of each report's times for each source that hangs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="the deadline")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder, everyone(Path(folder)) as (upstreams, settings):
        given = {
            **settings,
            "OSCAR_METRICS_DEADLINE_SECONDS": str(seconds),
            **{f"OSCAR_METRICS_{name}_ATTEMPTS": "1" for name in ("LOKI", "PROMETHEUS")},
        }
        with running(given, Path(folder)) as client:
            for name, upstream in upstreams.items():
                upstream.suspend()
                try:
                    measure(client, name, seconds)
                finally:
                    upstream.resume()


def measure(client: httpx.Client, hanging: str, seconds: float) -> None:
    """Ask for every report while one upstream hangs."""
    for report, (route, parameters) in REPORTS.items():
        ratios = []
        for _ in range(TIMES):
            began = time.perf_counter()
            answer = client.get(f"/system/metrics/{route}", params={**RANGE, **parameters})
            ratios.append((time.perf_counter() - began) / seconds)
            if answer.status_code != httpx.codes.OK:
                raise SystemExit(f"{answer.status_code}: {answer.text}")
        ratios.sort()
        print(
            f"{hanging:12} {report:16} {ratios[TIMES // 2]:6.2f} {ratios[-1]:6.2f}"
            "  of the deadline (at most 1.1)",
            flush=True,
        )


@contextmanager
def everyone(folder: Path) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """The upstreams by their names, and the settings that name them."""
    corpus = sample.sample()
    for name in ("loki", "prometheus", "cluster"):
        (folder / name).mkdir()
    with (
        Loki.start(folder / "loki") as loki,
        Prometheus.start(folder / "prometheus") as prometheus,
        KubeCluster.start(folder / "cluster") as cluster,
    ):
        loki.push(loki_streams(corpus, country_labels=True))
        for manifest in platform.manifests():
            cluster.apply(manifest)
        yield (
            {"Loki": loki, "Prometheus": prometheus, "Kubernetes": cluster},
            {
                "LOKI_URL": loki.url,
                "PROMETHEUS_URL": prometheus.url,
                "OSCAR_METRICS_KUBERNETES": str(cluster.kubeconfig(cluster.admin_token)),
            },
        )


if __name__ == "__main__":
    main()
