"""Ten times as many different reports at once as are admitted: who is answered, and how soon.

    python -m bench.overload                          # over a ledger, and over a Loki far away
    python -m bench.overload --only ledger --keep /tmp/small

Nothing is kept of what is asked: each report begins another second. Reports over long ranges are
asked for one at a time first, and then, again and again, by ten times as many at once as the lane
of long reports takes, those that wait included. Meanwhile, and before, a kept report and reports
over short ranges are asked for by one each. Of those who come first, some wait for their turn; as
more come than may wait, none do from then on, so the first burst is told apart. A ledger's reports
need processors, of which the server has all there are and who asks has one; a Loki's need its
answers, each late by 50 ms, and it has of the processors what the server leaves, as one on another
machine would.
Figures: the p99 of those admitted within 3 times that of one at a time, the median of those
refused under 50 ms, and kept and short ones go on.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvloop

from bench import _load, ledger
from bench.loki import fill
from oscar_metrics.resilience.lanes import LaneSettings
from oscar_metrics.timerange import DAY_NS, SECOND_NS, format_instant
from tests.e2e.running import PASSWORD, USERNAME, started
from tests.servers.loki import Loki
from tests.servers.process import Process
from tests.servers.toxiproxy import Toxiproxy

TIMES_ADMITTED, LATE_MS = 10, 50
LONG_DAYS, SHORT_DAYS = 10, 1
PAUSE_SECONDS = 0.02
MOST_TIMES, REFUSED_MS = 3.0, 50.0
OK, REFUSED = httpx.codes.OK, httpx.codes.SERVICE_UNAVAILABLE

Answers = list[_load.Answer]


def main() -> None:
    """Print what becomes of long, short and kept reports, alone and under load."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--only", choices=tuple(SERVERS), help="one of both")
    parser.add_argument("--seconds", type=float, default=15, help="of load, over each")
    parser.add_argument("--keep", type=Path, help="a folder to build in, or to use what was built")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {_load.OUR_CORE})
    for name, served in SERVERS.items():
        if arguments.only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                build = arguments.keep or Path(folder)
                with served(build, Path(folder)) as (client, server, stop_ns):
                    port = client.base_url.port
                    assert port is not None
                    print(f"\nover a {name}")
                    uvloop.run(compare(port, stop_ns, WHO[name], arguments.seconds))
                    mb = _load.peak_mb(server.pid)
                    print(f"server, resident at most: {mb:.0f} MB", flush=True)


async def compare(port: int, stop_ns: int, who: int, seconds: float) -> None:
    """Ask without load, and with it."""
    asked = Asked(port, stop_ns)
    await asked.kept()
    alone = {
        "long": await for_seconds(lambda: asked.long(1), seconds),
        "short": await for_seconds(asked.short, 3),
        "kept": await for_seconds(asked.kept, 3),
    }
    first = await asked.long(who)
    async with asyncio.TaskGroup() as group:
        long = group.create_task(for_seconds(lambda: asked.long(who), seconds))
        short = group.create_task(for_seconds(asked.short, seconds))
        kept = group.create_task(for_seconds(asked.kept, seconds))
    loaded = long.result()
    admitted, refused = of(loaded, OK), of(loaded, REFUSED)
    assert len(admitted) + len(refused) == len(loaded)
    print(f"{who} at once; {len(admitted)} admitted, {len(refused)} refused in {seconds:g} s")
    print(f"{'':24} {'alone p50':>10} {'p99 ms':>8} {'loaded p50':>11} {'p99 ms':>8}")
    tell("first burst, admitted", alone["long"], of(first, OK), "who waits, waits")
    tell("first burst, refused", [], of(first, REFUSED), f"median under {REFUSED_MS:g} ms")
    tell("long, admitted", alone["long"], admitted, f"p99 at most {MOST_TIMES:g}x")
    tell("long, refused", [], refused, f"median under {REFUSED_MS:g} ms")
    tell("short", alone["short"], short.result(), "they go on")
    tell("kept", alone["kept"], kept.result(), "they go on")


def of(answers: Answers, status: int) -> Answers:
    """Those with a status."""
    return [answer for answer in answers if answer.status == status]


def tell(name: str, alone: Answers, loaded: Answers, figure: str) -> None:
    """Print how long some took, and how much longer than alone."""
    before, after = (
        [_load.percentile([one.seconds for one in some], percent) * 1e3 for percent in (50, 99)]
        for some in (alone, loaded)
    )
    refused = len(of(loaded, REFUSED))
    ratio = f"{after[1] / before[1]:6.2f}x" if alone else ""
    told = f", {refused} of {len(loaded)} refused" if refused and alone else ""
    print(
        f"{name:24} {before[0]:10.1f} {before[1]:8.1f} {after[0]:11.1f} {after[1]:8.1f} {ratio}"
        f" ({figure}){told}",
        flush=True,
    )


async def for_seconds(ask: Callable[[], Awaitable[Answers]], seconds: float) -> Answers:
    """What is answered for so long, with a little pause between."""
    answers: Answers = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        answers += await ask()
        await asyncio.sleep(PAUSE_SECONDS)
    return answers


class Asked:
    """Reports over ranges that end at an instant; of long and short ones none is asked twice."""

    def __init__(self, port: int, stop_ns: int) -> None:
        self._port = port
        self._stop_ns = stop_ns
        self._numbers = itertools.count()

    async def long(self, who: int) -> Answers:
        """Of so many at once."""
        return await self._ask([self._new(LONG_DAYS) for _ in range(who)])

    async def short(self) -> Answers:
        """Of one."""
        return await self._ask([self._new(SHORT_DAYS)])

    async def kept(self) -> Answers:
        """Of one that was asked for before."""
        return await self._ask([self._request(SHORT_DAYS, 100_000)])

    async def _ask(self, requests: list[bytes]) -> Answers:
        return await _load.ask_all(self._port, [_load.once(one) for one in requests])

    def _new(self, days: int) -> bytes:
        return self._request(days, next(self._numbers))

    def _request(self, days: int, number: int) -> bytes:
        parameters = {
            "start": format_instant(self._stop_ns - days * DAY_NS + number * SECOND_NS),
            "end": format_instant(self._stop_ns - SECOND_NS),
        }
        headers = _load.basic(USERNAME, PASSWORD)
        return _load.get("/system/metrics/summary", parameters, headers)


Served = Iterator[tuple[httpx.Client, Process, int]]


@contextmanager
def over_ledger(build: Path, folder: Path) -> Served:
    """A server over a ledger alone, and until when that goes."""
    file = build / "ledger.duckdb"
    if not file.exists():
        ledger.build(file, 200_000)
    with running(folder, {"OSCAR_METRICS_LEDGER": str(file)}) as (client, server):
        yield client, server, ledger.STOP_NS


@contextmanager
def over_loki(_: Path, folder: Path) -> Served:
    """A server over a Loki behind a slow network alone, and until when that has lines."""
    for name in ("loki", "toxiproxy"):
        (folder / name).mkdir()
    with Loki.start(folder / "loki") as loki, Toxiproxy.start(folder / "toxiproxy") as toxiproxy:
        day = fill(loki, 20_000)
        loki.give_way()
        late = toxiproxy.proxy("loki", loki.url)
        with (
            late.toxic("latency", latency=LATE_MS, jitter=0),
            running(folder, {"LOKI_URL": late.url}) as (client, server),
        ):
            yield client, server, day.stop_ns


@contextmanager
def running(folder: Path, settings: Mapping[str, str]) -> Iterator[tuple[httpx.Client, Process]]:
    """A server with no other source."""
    nothing = {"OSCAR_METRICS_KUBERNETES": "off", "PROMETHEUS_URL": "off"}
    with started({**nothing, **settings}, folder) as served:
        yield served


SERVERS = {"ledger": over_ledger, "Loki": over_loki}
USUAL = LaneSettings()
WHO = {
    "ledger": TIMES_ADMITTED * (USUAL.ledger_reports_at_once + USUAL.ledger_reports_queued),
    "Loki": TIMES_ADMITTED * (USUAL.long_reports_at_once + USUAL.long_reports_queued),
}


if __name__ == "__main__":
    main()
