"""How near CPU time comes to the truth, with OSCAR's own query on the same data beside it.

    python -m bench.cpu_estimate                # 2,000 jobs a row, over six hours
    python -m bench.cpu_estimate --jobs 500

cAdvisor is simulated scrape by scrape (`tests/sources/cadvisor.py`: cpu="total", rows of
pods' cgroups, start times in whole seconds) and written into a real Prometheus. Errors are
of the total of one service's jobs, whose lives vary by 30 % either way unless said.

    seen        jobs that any scrape saw
    estimate    ours
    increase    Prometheus' `increase` over the range, containers only
    OSCAR       OSCAR's default query, given a `service` label of the plain name; it adds
                the pods' rows. As shipped, the label of a job is its name and parts of a
                uuid, which the query does not match: the figure is then 0, an error of -100 %.

Below the table: a day of many containers, our whole read against one bare grouped query.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import resource
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx

from oscar_metrics.outcome import Ok
from oscar_metrics.sources import promql
from tests.servers.prometheus import Prometheus
from tests.sources.cadvisor import Labels, stock
from tests.sources.usage_scene import HOUR, Scene, cpu

INTERVALS_AND_LIVES = (
    (15, 15), (15, 20), (15, 75), (30, 30), (30, 45), (30, 60), (30, 90), (30, 150), (30, 3000),
    (60, 60), (60, 120), (60, 300), (120, 120), (120, 240), (60, 45), (30, 15), (30, 5),
)  # fmt: skip
ROUNDS = 3


class Row(NamedTuple):
    """Relative errors of one kind of job."""

    seen: float
    estimate: float
    added_up: float
    increase: float
    oscar: float
    noted: bool


def plain_service(labels: Labels) -> Labels:
    """The service label at its best: the service's name."""
    return {**labels, "service": "cowsay"}


async def row(server: Prometheus, interval: int, life: int, jobs: int) -> Row:
    """One kind of job in a scene of its own."""
    scene = Scene(server)
    # Lives of exactly one interval upwards where the row is about those.
    spread = 0.15 / 1.15 if life == interval else 0.3
    mean = life * 1.15 if life == interval else life
    scene.write(scene.jobs("cowsay", jobs, mean, spread=spread), plain_service, interval=interval)
    outcome = await scene.read()
    edges = [0, 0.7 * HOUR, 1.9 * HOUR, 2.1 * HOUR, 6 * HOUR]
    parts = [cpu(await scene.read(*edge)) for edge in itertools.pairwise(edges)]
    truth, at = scene.truth(), scene.start + 6 * HOUR
    rows = f'namespace=~"{scene.namespace}.*",service=~"cowsay"'
    counter = "container_cpu_usage_seconds_total"
    seen = f"count(last_over_time({counter}{{{rows},{promql.CONTAINERS}}}[6h]))"
    increase = f"sum(increase({counter}{{{rows},{promql.CONTAINERS}}}[6h]))"
    oscar = promql.fill(
        promql.CPU_QUERY,
        service="cowsay",
        namespace=scene.namespace,
        prefix=scene.namespace,
        range_ms=6 * 3_600_000,
    )
    return Row(
        seen=_number(server, seen, at) / jobs,
        estimate=cpu(outcome) / truth - 1,
        added_up=abs(sum(parts) / cpu(outcome) - 1),
        increase=_number(server, increase, at) / truth - 1,
        oscar=_number(server, oscar, at) * 3600 / truth - 1,
        noted=not isinstance(outcome, Ok),
    )


async def stock_row(server: Prometheus) -> tuple[float, float]:
    """OSCAR's stock relabelling: ours (by `increase`), and OSCAR's query for one service."""
    scene = Scene(server)
    scene.write(
        [scene.pod("demo-dpl-5d9c7b6f4-x2x2x", 0, 5 * HOUR), *scene.jobs("cowsay", 500, 90)], stock
    )
    outcome = await scene.read()
    return (
        cpu(outcome, "demo") / scene.truth("demo") - 1,
        cpu(outcome) / scene.truth("cowsay") - 1,
    )


async def speed(server: Prometheus, running: int, jobs: int) -> None:
    """A day: containers that run all through, and jobs that come and go."""
    scene = Scene(server)
    names = [f"svc{n}-dpl-5d9c7b6f4-x2x2x" for n in range(running)]
    scene.write(
        [scene.pod(name, -HOUR, 11 * HOUR) for name in names] + scene.jobs("cowsay", jobs, 120),
        hours=11,
    )
    inventory = scene.deployed("cowsay", *(f"svc{n}" for n in range(running)))
    counter = f'container_cpu_usage_seconds_total{{namespace=~"{scene.namespace}.*"'
    bare = f"sum by (namespace, service) (increase({counter},{promql.CONTAINERS}}}[11h]))"
    ours, alone = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await scene.read(0, 11 * HOUR, inventory)
        ours.append(time.perf_counter() - began)
        began = time.perf_counter()
        server.query(bare, time_seconds=scene.start + 11 * HOUR)
        alone.append(time.perf_counter() - began)
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{running} containers all through and {jobs} jobs in 11 h: whole read {min(ours):.2f} s, "
        f"one bare grouped increase {min(alone):.2f} s, ratio {min(ours) / min(alone):.1f}; "
        f"peak memory of this process {memory_mb:.0f} MB (the data were made in it)"
    )


def _number(server: Prometheus, query: str, at: float) -> float:
    answer = httpx.get(
        f"{server.url}/api/v1/query", params={"query": query, "time": str(at)}, timeout=60
    )
    result = answer.json()["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--jobs", type=int, default=2000, help="jobs a row")
    parser.add_argument("--running", type=int, default=300, help="containers that run all day")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        with Prometheus.start(Path(first)) as server:
            print("scrape, life     seen  estimate  adds up to  noted  increase     OSCAR")
            for interval, life in INTERVALS_AND_LIVES:
                said = await row(server, interval, life, options.jobs)
                print(
                    f"{interval:4d} s, {life:4d} s  {said.seen:5.0%}  {said.estimate:+8.1%}  "
                    f"{said.added_up:10.0e}  {'yes' if said.noted else 'no':>5}  "
                    f"{said.increase:+8.1%}  {said.oscar:+8.1%}",
                    flush=True,
                )
            demo, cowsay = await stock_row(server)
            print(f"stock relabelling: a pod of 5 h {demo:+.1%}; 500 jobs of 90 s {cowsay:+.1%}")
        with Prometheus.start(Path(second)) as server:
            await speed(server, options.running, options.jobs)


if __name__ == "__main__":
    asyncio.run(main())
