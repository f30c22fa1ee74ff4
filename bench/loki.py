"""How our way of asking Loki compares with the barest one, on the same real Loki.

    python -m bench.loki                      # 500,000 lines: speed, and memory
    python -m bench.loki --lines 5000000      # the same over ten times as many

Prints seconds (best of some rounds, taken in turns), their ratio, and peak memory above
idle, each in a process of its own. Loki and the clients share this machine's cores, so
only ratios travel.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import httpx
import msgspec

from oscar_metrics.facts import CallLog, Kind, LogStream, Roster
from oscar_metrics.outcome import Ok, Outcome
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.logql import mentioning
from oscar_metrics.sources.loki import LokiLogs, queries
from oscar_metrics.sources.loki_answers import Series, StreamLines
from oscar_metrics.sources.loki_api import LokiSettings as Settings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SLOT_NS, Span, windows
from tests.servers.loki import Loki, Stream

USERS, SERVICES, COUNTRIES, STATUSES = 200, 20, 20, (200, 404, 503)
KINDS = ("run", "job")
PAGE_LINES, CONCURRENCY = 5000, 4
PUSH_LINES = 200_000
SERVICE = "service-07"
SELECTOR = '{namespace="oscar",app="oscar"}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lines", type=int, default=500_000, help="lines in the day measured")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best of each is shown")
    parser.add_argument("--measure", choices=tuple(MEASURED), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        one(arguments.measure, arguments.url, Span(arguments.start, arguments.start + DAY_NS))
        return
    with tempfile.TemporaryDirectory() as folder, Loki.start(Path(folder)) as loki:
        day = fill(loki, arguments.lines)
        compare(loki.url, day, arguments.lines, arguments.rounds)


def fill(loki: Loki, lines: int) -> Span:
    """A day of executions, evenly spread: every user calls every service with every result."""
    start_ns = (time.time_ns() // DAY_NS - 10) * DAY_NS
    began = time.perf_counter()
    for first in range(0, lines, PUSH_LINES):
        loki.push(_streams(start_ns, lines, range(first, min(lines, first + PUSH_LINES))))
    loki.flush_and_wait(SELECTOR, start_ns, start_ns + DAY_NS, lines, timeout_seconds=300)
    print(f"{lines:,} lines written in {time.perf_counter() - began:.0f} s", flush=True)
    return Span(start_ns, start_ns + DAY_NS)


def _streams(start_ns: int, lines: int, numbers: range) -> Iterator[Stream]:
    dice = random.Random(numbers.start)
    streams: dict[int, list[tuple[int, str]]] = {}
    for number in numbers:
        user = dice.randrange(USERS)
        streams.setdefault(user % COUNTRIES, []).append(
            (
                start_ns + number * DAY_NS // lines,
                _line(dice, user),
            )
        )
    labels = {"namespace": "oscar", "app": "oscar"}
    for country, entries in streams.items():
        yield {**labels, "geoip_country_code": _code(country)}, entries


def _line(dice: random.Random, user: int) -> str:
    return (
        "[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:00:00.123456789Z |"
        f" {dice.choice(STATUSES)} |  {dice.randrange(1000)}.345ms | 10.0.0.1 |"
        f" POST    /{dice.choice(KINDS)}/service-{dice.randrange(SERVICES):02d} |"
        f" user{user:03d}@egi.eu"
    )


def _code(country: int) -> str:
    codes = "ATBEBGCHCYCZDEDKEEESFIFRGRHRHUIEITLTLULV"
    return codes[2 * country : 2 * country + 2]


def compare(url: str, day: Span, lines: int, rounds: int) -> None:
    """Every measure in turns, each in a fresh process, so that none warms the other."""
    seconds: dict[str, list[float]] = {name: [] for name in MEASURED}
    peaks: dict[str, list[float]] = {name: [] for name in MEASURED}
    for _ in range(rounds):
        for name in MEASURED:
            taken, peak, said = _in_a_process(name, url, day)
            expected = lines if name.endswith("tally") else None
            assert expected is None or said == expected, (name, said, expected)
            seconds[name].append(taken)
            peaks[name].append(peak)
    print(f"\n{'measure':<34}{'best s':>9}{'median s':>10}{'ratio':>8}{'peak MB':>9}")
    for bare, *ours in ROWS:
        for name in (bare, *ours):
            best, middle = min(seconds[name]), sorted(seconds[name])[rounds // 2]
            ratio = "" if name == bare else f"{best / min(seconds[bare]):.2f}×"
            print(f"{name:<34}{best:>9.2f}{middle:>10.2f}{ratio:>8}{max(peaks[name]):>9.1f}")


def _in_a_process(name: str, url: str, day: Span) -> tuple[float, float, int]:
    command = [sys.executable, "-m", "bench.loki", "--measure", name]
    command += ["--url", url, "--start", str(day.start_ns)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    taken, peak, said = done.stdout.split()
    return float(taken), float(peak), int(said)


def one(name: str, url: str, day: Span) -> None:
    """One measure: its seconds, its peak memory above idle in MB, and the number it came to."""
    asyncio.run(_one(MEASURED[name], url, day))


async def _one(measure: Callable[[str, Span], Awaitable[Prepared]], url: str, day: Span) -> None:
    run = await measure(url, day)
    idle = _peak_mb()
    began = time.perf_counter()
    said = await run()
    taken = time.perf_counter() - began
    print(taken, _peak_mb() - idle, said)


def _peak_mb() -> float:
    # ru_maxrss would begin with what the process that started this one had.
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


Prepared = Callable[[], Awaitable[int]]


class _Streams(msgspec.Struct):
    result: list[StreamLines]


class _StreamsAnswer(msgspec.Struct):
    data: _Streams


class _Matrix(msgspec.Struct):
    result: list[Series]


class _MatrixAnswer(msgspec.Struct):
    data: _Matrix


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=CONCURRENCY, max_keepalive_connections=CONCURRENCY)
    headers = {"Cache-Control": "no-cache"}
    return httpx.AsyncClient(
        base_url=url, timeout=120, limits=limits, headers=headers, trust_env=False
    )


async def bare_tally(url: str, day: Span) -> Prepared:
    """Pages every line of the aligned hours, four at a time, and counts them."""
    client = _client(url)
    decoder = msgspec.json.Decoder(_StreamsAnswer, strict=False)
    query = str(queries(Settings(url=url))[LogStream.EXECUTIONS])

    async def run() -> int:
        waiting = windows(day, HOUR_NS)
        total = 0

        async def work() -> None:
            nonlocal total
            for window in waiting:
                start_ns = window.start_ns
                while True:
                    answer = await client.get(
                        "/loki/api/v1/query_range",
                        params={
                            "query": query,
                            "start": str(start_ns),
                            "end": str(window.stop_ns),
                            "limit": str(PAGE_LINES),
                            "direction": "forward",
                        },
                    )
                    streams = decoder.decode(answer.content).data.result
                    count = sum(len(stream.values) for stream in streams)
                    total += count
                    if count < PAGE_LINES:
                        break
                    start_ns = max(stream.values[-1].at_ns for stream in streams) + 1

        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(work())
        return total

    return run


async def our_tally(url: str, day: Span) -> Prepared:
    """The full joint tally, with countries and coverage."""
    return await _ours(url, day, frozenset({LogStream.EXECUTIONS}))


async def our_tally_of_copies(url: str, day: Span) -> Prepared:
    """The same without a look for lines that Loki was sent twice."""
    patch("oscar_metrics.sources.loki_paging.each_once", list).start()
    return await our_tally(url, day)


async def our_summary(url: str, day: Span) -> Prepared:
    """The same beside a gateway's log that has nothing."""
    return await _ours(url, day, frozenset(LogStream))


async def _ours(url: str, day: Span, streams: frozenset[LogStream]) -> Prepared:
    logs = LokiLogs(Settings(url=url), telemetry=Telemetry())
    countries = Countries(GeoIP.open(None), Roster())

    async def run() -> int:
        outcomes = await logs.read(day, streams, countries, now_ns=time.time_ns(), deadline=None)
        outcome: Outcome[CallLog] = outcomes[LogStream.EXECUTIONS]
        assert isinstance(outcome, Ok), outcome
        tallies = outcome.facts.tallies
        assert len({key.user for key in tallies}) == USERS
        print(f"{len(tallies):,} groups", file=sys.stderr)
        return sum(tallies.values())

    return run


async def bare_figure(url: str, day: Span) -> Prepared:
    """Loki's own count of what our figure is read from, copies included."""
    client = _client(url)
    decoder = msgspec.json.Decoder(_MatrixAnswer, strict=False)
    query = mentioning(queries(Settings(url=url))[LogStream.EXECUTIONS], SERVICE)
    kind = query.then("| regexp `POST +/(?P<om_kind>run|job)/`")
    expression = f"sum by (om_kind) (count_over_time({kind}[15m]))"

    async def run() -> int:
        answer = await client.get(
            "/loki/api/v1/query_range",
            params={
                "query": expression,
                "start": str(day.start_ns + SLOT_NS),
                "end": str(day.stop_ns),
                "step": "900",
            },
        )
        groups = decoder.decode(answer.content).data.result
        return sum(
            count
            for group in groups
            if group.metric.get("om_kind") == "run"
            for _, count in group.values
        )

    return run


async def our_figure(url: str, day: Span) -> Prepared:
    """The synchronous calls of one service."""
    logs = LokiLogs(Settings(url=url), telemetry=Telemetry())

    async def run() -> int:
        outcome = await logs.count_service(
            day,
            LogStream.EXECUTIONS,
            SERVICE,
            users=False,
            now_ns=time.time_ns(),
            deadline=None,
        )
        assert isinstance(outcome, Ok), outcome
        return outcome.facts.calls[Kind.SYNC]

    return run


MEASURED = {
    "bare pager, tally": bare_tally,
    "LokiLogs.read, tally": our_tally,
    "copies not looked for, tally": our_tally_of_copies,
    "LokiLogs.read, both logs, tally": our_summary,
    "bare grouped query": bare_figure,
    "LokiLogs.count_service": our_figure,
}
ROWS = (
    ("bare pager, tally", "LokiLogs.read, tally", "LokiLogs.read, both logs, tally"),
    ("copies not looked for, tally", "LokiLogs.read, tally"),
    ("bare grouped query", "LokiLogs.count_service"),
)

if __name__ == "__main__":
    main()
