"""What usage by slot costs beside the same span in one read: time and questions to Prometheus.

    python -m bench.usage_slots                  # 100 containers all day (400 series), 300 jobs
    python -m bench.usage_slots --running 300 --jobs 500

A day of simulated cAdvisor (`tests/sources/cadvisor.py`) in a real Prometheus, scraped every
30 s. Beside the two readings: what one hour asks, as it is sealed, and one bare grouped
`increase` over the day.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from oscar_metrics.outcome import Ok
from oscar_metrics.sources import promql
from oscar_metrics.telemetry import Telemetry
from tests.servers.prometheus import Prometheus
from tests.sources.usage_scene import HOUR, Scene

ROUNDS = 3
DAY_SECONDS = 24 * HOUR


def scene_of(server: Prometheus, running: int, jobs: int) -> Scene:
    """A UTC day: containers that run all through, and jobs of two minutes that come and go."""
    scene = Scene(server)
    scene.start = (time.time() // DAY_SECONDS - 3) * DAY_SECONDS
    names = [f"svc{n}-dpl-5d9c7b6f4-x2x2x" for n in range(running)]
    scene.write(
        [scene.pod(name, -HOUR, DAY_SECONDS + HOUR) for name in names]
        + scene.jobs("cowsay", jobs, 120, hours=23.9),
        hours=25,
    )
    return scene


async def measured(
    telemetry: Telemetry, read: Callable[[], Awaitable[object]]
) -> tuple[float, float]:
    """The best of some rounds in seconds, and the questions of each."""
    before = _questions(telemetry)
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        outcome = await read()
        took.append(time.perf_counter() - began)
        if not isinstance(outcome, Ok):
            raise SystemExit(f"not everything was read: {outcome!r:.300}")
    return min(took), (_questions(telemetry) - before) / ROUNDS


def _questions(telemetry: Telemetry) -> float:
    samples = (s for metric in telemetry.upstream_calls.collect() for s in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_count"))


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--running", type=int, default=100, help="containers that run all day")
    parser.add_argument("--jobs", type=int, default=300, help="jobs over the day")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Prometheus.start(Path(folder)) as server:
        scene = scene_of(server, options.running, options.jobs)
        inventory = scene.deployed("cowsay", *(f"svc{n}" for n in range(options.running)))
        selected = f'{promql.CPU}{{namespace=~"{scene.namespace}.*",{promql.CONTAINERS}}}'
        bare = f"sum by (namespace, service) (increase({selected}[1d]))"
        alone = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            server.query(bare, time_seconds=scene.start + DAY_SECONDS)
            alone.append(time.perf_counter() - began)
        telemetry = Telemetry()
        rows = {
            "a day, read": (False, 0.0, DAY_SECONDS),
            "a day, slots": (True, 0.0, DAY_SECONDS),
            "an hour, read": (False, 10 * HOUR, 11 * HOUR),
            "an hour, slots": (True, 10 * HOUR, 11 * HOUR),
        }
        print(f"{options.running} containers all day, {options.jobs} jobs of two minutes")
        print(f"one bare grouped increase over the day: {min(alone):.2f} s")
        print("                   seconds  questions  to the bare increase")
        for name, (slotted, start, stop) in rows.items():
            read = scene.read_slots if slotted else scene.read
            asked = partial(read, start, stop, inventory, telemetry=telemetry)
            took, questions = await measured(telemetry, asked)
            print(f"{name:15s}  {took:9.2f}  {questions:9.0f}  {took / min(alone):9.1f}")
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of this process {memory_mb:.0f} MB (the data were made in it)")


if __name__ == "__main__":
    asyncio.run(main())
