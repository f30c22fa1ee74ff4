"""How long small answers wait while long reports are made, and what those take in memory.

    python -m bench.long_reports [--requests 1000000]

A server with a ledger of six months, of which a breakdown by user for each hour of 82 days is
asked for: some 200,000 rows, as JSON and as CSV. Meanwhile /healthz is asked over and over, and
so it is alone. Figures: the median no more than 10 ms, the longest under a second: nothing but
Python's one lock, in steps, and its collector of cycles stand between.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from bench import ledger
from bench.ledger_http import peak_mb, served

ASKED = {
    "group_by": "user",
    "interval": "hour",
    "start": "2025-12-01T00:00:00Z",
    "end": "2026-02-20T23:59:59Z",
}
_PAUSE_SECONDS = 0.005


def main() -> None:
    """Print how long /healthz takes alone and beside each report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=1_000_000, help="requests of six months")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.duckdb"
        ledger.build(file, arguments.requests)
        with served(file, {"OSCAR_METRICS_DEADLINE_SECONDS": "300"}) as (client, pid):
            tell("alone", small_answers(client, until_passed(5)))
            for form in ("json", "csv"):
                beside(client, form)
            print(f"server, resident at most: {peak_mb(pid):.0f} MB")


def beside(client: httpx.Client, form: str) -> None:
    """Ask for the report, and for small answers until it is there."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=client.base_url, auth=client.auth, timeout=300) as other:
            answers.append(other.get("/system/metrics/breakdown", params={**ASKED, "format": form}))

    asking = threading.Thread(target=ask)
    began = time.perf_counter()
    asking.start()
    times = small_answers(client, lambda: not asking.is_alive())
    took = time.perf_counter() - began
    asking.join()
    [answer] = answers
    answer.raise_for_status()
    tell(f"{form}, {len(answer.content) / 1e6:.0f} MB in {took:.0f} s", times)


def small_answers(client: httpx.Client, is_over: Callable[[], bool]) -> list[float]:
    """How long each takes, in milliseconds."""
    times = []
    while not is_over():
        began = time.perf_counter()
        client.get("/healthz").raise_for_status()
        times.append((time.perf_counter() - began) * 1e3)
        time.sleep(_PAUSE_SECONDS)
    return times


def until_passed(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds have passed since now."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def tell(name: str, times: list[float]) -> None:
    """Print what small answers took."""
    most = statistics.quantiles(times, n=20)[-1]
    print(
        f"{name:24} median {statistics.median(times):6.1f} ms (at most 10), 19 of 20 within"
        f" {most:6.1f} ms, longest {max(times):6.0f} ms (under 1000)",
        flush=True,
    )


if __name__ == "__main__":
    main()
