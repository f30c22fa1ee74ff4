"""Six months of requests over HTTP from the ledger, against the bare queries they need.

    python -m bench.ledger_http             # 10 M requests
    python -m bench.ledger_http --requests 100000000 --keep /tmp/large

The ledger is that of bench.ledger; a server with no source at all answers from it, and the
bare queries over the rows of days run in a process of their own, in turn with it. Each
figure is the median of all rounds, in milliseconds. Figures: at most 2 times the bare
queries, expected under 100 ms, under 400 MB resident.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench import ledger
from bench.start import wait_until_ready
from tests.servers.process import free_port

ROUNDS, IN_A_ROW = 3, 10
RANGE = {"start": "2025-10-01T00:00:00Z", "end": "2026-03-31T23:59:59Z"}
ROUTES = {
    "summary": ("summary", {}),
    "breakdown by service": ("breakdown", {"group_by": "service", "include_usage": "true"}),
    "breakdown by user": ("breakdown", {"group_by": "user"}),
    "breakdown by country": ("breakdown", {"group_by": "country"}),
}


def main() -> None:
    """Print each route's median beside the bare one's, and the memory of the server."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000_000, help="requests of six months")
    parser.add_argument("--keep", type=Path, help="a folder to build in, or to use what was built")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = (arguments.keep or Path(folder)) / "ledger.duckdb"
        if not file.exists():
            ledger.build(file, arguments.requests)
        compare(file)


def compare(file: Path) -> None:
    """Bare queries and a server in turn: a file has one owner at a time."""
    bare: dict[str, list[float]] = defaultdict(list)
    told: dict[str, list[float]] = defaultdict(list)
    resident_mb = 0.0
    for _ in range(ROUNDS):
        for name, figure in ledger.run("bare", file).items():
            bare[name].append(figure)
        with served(file) as (client, pid):
            for name, (route, parameters) in ROUTES.items():
                for _ in range(IN_A_ROW):
                    told[name].append(ask(client, route, parameters))
            resident_mb = max(resident_mb, peak_mb(pid))
    print(f"{'report over HTTP':34} {'bare ms':>8} {'ours ms':>8} {'ratio':>6}")
    for name, figures in told.items():
        alone, ours = statistics.median(bare[name]), statistics.median(figures)
        print(f"{name:34} {alone:8.1f} {ours:8.1f} {ours / alone:6.2f}  (at most 2)")
    print(f"server, resident at most: {resident_mb:.0f} MB (at most 400)")
    print(f"file: {file.stat().st_size / 1e6:.0f} MB (at most 200 for 10 M requests)", flush=True)


def ask(client: httpx.Client, route: str, parameters: dict[str, str]) -> float:
    """How long one report takes; it has to be whole."""
    began = time.perf_counter()
    answer = client.get(f"/system/metrics/{route}", params={**RANGE, **parameters})
    took_ms = (time.perf_counter() - began) * 1e3
    logs = [s for s in answer.json()["sources"] if s["name"] == "request-logs"]
    if [(source["status"], source["origin"]) for source in logs] != [("ok", "ledger")]:
        raise SystemExit(f"not whole: {answer.text[-2000:]}")
    return took_ms


def peak_mb(pid: int) -> float:
    """The highest resident size of a process until now."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


@contextmanager
def served(
    file: Path, settings: Mapping[str, str] | None = None
) -> Iterator[tuple[httpx.Client, int]]:
    """A server over a ledger, and nothing else but what `settings` say."""
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "OSCAR_USERNAME": "admin",
        "OSCAR_PASSWORD": "bench",
        "OSCAR_SERVICE_PORT": str(port),
        "OSCAR_METRICS_KUBERNETES": "off",
        "OSCAR_METRICS_LEDGER": str(file),
        "OSCAR_METRICS_LOG_LEVEL": "error",
        "PROMETHEUS_URL": "off",
        **(settings or {}),
    }
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen([sys.executable, "-m", "oscar_metrics", "serve"], env=environment)
    try:
        wait_until_ready(server, f"{url}/healthz")
        with httpx.Client(base_url=url, auth=("admin", "bench"), timeout=60) as client:
            yield client, server.pid
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
