"""200 who ask for the same report at once, when it is not kept, against one who asks alone.

    python -m bench.same_reports [--who 200]

Over a real Loki that holds a day of 100,000 lines, behind a network that is late by 20 ms, and over
the real Prometheus beside it. Each round asks about a day that begins one second later, so that
nothing is kept: alone, and then by everyone at once, each over a connection of their own. What is
asked of the upstreams is counted by our own metric. Figures: as many calls for 200 as for one, and
all of them answered within 1.3 times of one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import httpx
import uvloop

from bench import _load
from bench.loki import fill
from oscar_metrics.timerange import SECOND_NS, Span, format_instant
from tests.e2e.running import PASSWORD, USERNAME, started
from tests.servers.loki import Loki
from tests.servers.prometheus import Prometheus
from tests.servers.toxiproxy import Toxiproxy

ROUNDS, LINES, LATE_MS = 7, 100_000, 20
MOST_TIMES = 1.3


def main() -> None:
    """Print how long one and everyone waits, and how many calls that takes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--who", type=int, default=200, help="how many ask at once")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for upstream in ("loki", "prometheus", "toxiproxy"):
            (folder / upstream).mkdir()
        with (
            Loki.start(folder / "loki") as loki,
            Prometheus.start(folder / "prometheus") as prometheus,
            Toxiproxy.start(folder / "toxiproxy") as toxiproxy,
        ):
            day = fill(loki, LINES)
            slow = toxiproxy.proxy("loki", loki.url)
            settings = {
                "LOKI_URL": slow.url,
                "PROMETHEUS_URL": prometheus.url,
                "OSCAR_METRICS_KUBERNETES": "off",
            }
            with (
                slow.toxic("latency", latency=LATE_MS, jitter=0),
                started(settings, folder) as (client, server),
            ):
                os.sched_setaffinity(server.pid, {_load.SERVER_CORE})
                os.sched_setaffinity(0, {_load.OUR_CORE})
                compare(client, day, arguments.who, arguments.rounds)
                print(f"server, resident at most: {_load.peak_mb(server.pid):.0f} MB", flush=True)


def compare(client: httpx.Client, day: Span, who: int, rounds: int) -> None:
    """Ask alone and together, in turn."""
    alone, together, medians, calls = [], [], [], set()
    for number in range(-2, 2 * rounds, 2):
        [one], calls_of_one = ask(client, day, number, 1)
        everyone, calls_of_all = ask(client, day, number + 1, who)
        if number < 0:
            continue  # what is found out once has been
        alone.append(one)
        together.append(max(everyone))
        medians.append(statistics.median(everyone))
        calls.add((calls_of_one, calls_of_all))
    base = statistics.median(alone)
    for name, seconds in (
        ("one alone", base),
        (f"{who}, the median of them", statistics.median(medians)),
        (f"{who}, the last of them", statistics.median(together)),
    ):
        print(f"{name:28} {seconds * 1e3:8.1f} ms {seconds / base:6.2f}x (at most {MOST_TIMES:g}x)")
    for calls_of_one, calls_of_all in sorted(calls):
        print(f"calls to upstreams: {calls_of_one} for one, {calls_of_all} for {who} (as many)")


def ask(client: httpx.Client, day: Span, number: int, who: int) -> tuple[list[float], int]:
    """How long each of so many waits for the same new report, and the calls that took."""
    parameters = {
        "start": format_instant(day.start_ns + (number + 2) * SECOND_NS),
        "end": format_instant(day.stop_ns - SECOND_NS),
    }
    asked = _load.get("/system/metrics/summary", parameters, _load.basic(USERNAME, PASSWORD))
    before = upstream_calls(client)
    port = client.base_url.port
    assert port is not None
    answers = uvloop.run(_load.ask_all(port, [_load.once(asked) for _ in range(who)]))
    assert {answer.status for answer in answers} == {httpx.codes.OK}
    return [answer.seconds for answer in answers], upstream_calls(client) - before


def upstream_calls(client: httpx.Client) -> int:
    """How many calls were made until now, to everyone."""
    name = "oscar_metrics_upstream_call_duration_seconds_count"
    lines = client.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
