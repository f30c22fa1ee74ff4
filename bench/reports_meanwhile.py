"""How much slower reports get while a server seals: medians, side by side in one run.

    python -m bench.reports_meanwhile [--lines 20000]

A server with a ledger of six months (1 M requests) and a Loki with a day of which each hour
has as many lines; it finds that day not sealed, and seals it. A summary of the six months is
asked for over and over, while it does and after. Loki, the server and who asks share this
machine's cores. Figure: the median slows down by no more than a quarter.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import httpx

from bench import ledger
from bench.ledger_http import ROUTES, ask, served
from bench.loki import fill
from oscar_metrics.timerange import DAY_NS, HOUR_NS
from tests.servers.loki import Loki

_LONGEST_SECONDS = 300


def main() -> None:
    """Print the median of a summary while the server seals, and when it has."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--lines", type=int, default=20_000, help="lines in each hour")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Loki.start(Path(folder)) as loki:
        file = Path(folder) / "ledger.duckdb"
        ledger.build(file, 1_000_000)
        day = fill(loki, arguments.lines * DAY_NS // HOUR_NS)
        back_days = (time.time_ns() - day.start_ns) // DAY_NS + 1
        settings = {
            "LOKI_URL": loki.url,
            "OSCAR_METRICS_LEDGER_BACKFILL_DAYS": str(back_days),
        }
        with served(file, settings) as (client, _):
            meanwhile, seconds = while_sealing(client)
            alone = [summary(client) for _ in meanwhile]
    told, base = statistics.median(meanwhile), statistics.median(alone)
    print(f"sealed in {seconds:.0f} s, {len(meanwhile)} summaries meanwhile")
    print(f"median alone {base:.1f} ms, meanwhile {told:.1f} ms: {told / base:.2f} (at most 1.25)")
    worst, usual = (statistics.quantiles(times, n=20)[-1] for times in (meanwhile, alone))
    print(f"19 of 20 within {usual:.1f} ms alone, {worst:.1f} ms meanwhile")


def while_sealing(client: httpx.Client) -> tuple[list[float], float]:
    """How long summaries take until all hours are sealed, and how long that takes."""
    began = time.perf_counter()
    times: list[float] = []
    while time.perf_counter() - began < _LONGEST_SECONDS:
        times.append(summary(client))
        if len(times) % 10 == 0 and is_sealed(client):
            return times, time.perf_counter() - began
    raise SystemExit(f"not sealed within {_LONGEST_SECONDS} s")


def summary(client: httpx.Client) -> float:
    """How long one takes, in milliseconds."""
    return ask(client, *ROUTES["summary"])


def is_sealed(client: httpx.Client) -> bool:
    """Whether every hour that can be is sealed."""
    name = 'oscar_metrics_ledger_unsealed_hours{kind="executions"}'
    lines = client.get("/metrics").text.splitlines()
    return any(line.startswith(name) and float(line.split()[-1]) == 0 for line in lines)


if __name__ == "__main__":
    main()
