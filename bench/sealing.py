"""What sealing one hour of a real Loki costs, against the barest paging of its lines.

    python -m bench.sealing [--lines 20000] [--rounds 3]

A day is written, each hour of it alike, and each hour is paged barely, read by slots, and
read and sealed in a ledger, in turns. One client of each kind is kept all the while, as a
sealer keeps it. Medians over all hours, in seconds by the clock and (in brackets) of this
process, and their ratios. Loki and the clients share this machine's cores, so only ratios
travel.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.loki import bare_tally, fill
from oscar_metrics.facts import LogStream, Roster, SlottedLog
from oscar_metrics.ledger.candidates import of_calls
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.seals import KIND_OF
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.outcome import Outcome, Unavailable
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span, windows
from tests.servers.loki import Loki

Measure = Callable[[Span], Awaitable[int]]
_EXECUTIONS = frozenset({LogStream.EXECUTIONS})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lines", type=int, default=20_000, help="lines in each hour")
    parser.add_argument("--rounds", type=int, default=3, help="times each hour is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Loki.start(Path(folder)) as loki:
        day = fill(loki, arguments.lines * DAY_NS // HOUR_NS)
        asyncio.run(compare(loki.url, day, arguments.lines, arguments.rounds, Path(folder)))


async def compare(url: str, day: Span, lines: int, rounds: int, folder: Path) -> None:
    logs = LokiLogs(LokiSettings(url=url), telemetry=Telemetry())
    bare = await bare_clients(url)
    measures: dict[str, Measure] = {
        "bare pager": bare,
        "read": lambda hour: whole(logs, hour),
        "read_slots": lambda hour: slots(logs, hour),
        "read_slots and seal": Sealing(logs, folder, _EXECUTIONS),
        "the same, both logs": Sealing(logs, folder, frozenset(LogStream)),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in measures}
    hours = list(windows(day, HOUR_NS))
    for measure in measures.values():
        await measure(hours[0])
    for number in range(rounds):
        for hour in hours[1:]:
            # Whoever comes first finds what Loki has in no cache: in turn, all do.
            for name in _turned(list(measures), number + hour.start_ns // HOUR_NS):
                began, cpu_began = time.perf_counter(), time.process_time()
                counted = await measures[name](hour)
                taken[name].append((time.perf_counter() - began, time.process_time() - cpu_began))
                assert counted == lines, (name, counted)
    await logs.aclose()
    print(f"{'an hour of ' + format(lines, ',') + ' lines':28}{'median s':>16}{'ratio':>16}")
    base = [statistics.median(times) for times in zip(*taken["bare pager"], strict=True)]
    for name, times in taken.items():
        clock, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        seconds = f"{clock:.3f} ({cpu:.3f})"
        print(f"{name:28}{seconds:>16}{f'{clock / base[0]:.2f} ({cpu / base[1]:.2f})':>16}")


async def bare_clients(url: str) -> Measure:
    """The pager of bench.loki, which is made for a span, over one hour after the other."""

    async def measure(hour: Span) -> int:
        run = await bare_tally(url, hour)
        return await run()

    return measure


async def whole(logs: LokiLogs, hour: Span) -> int:
    outcomes = await logs.read(hour, _EXECUTIONS, NOWHERE, now_ns=time.time_ns(), deadline=None)
    outcome = outcomes[LogStream.EXECUTIONS]
    assert not isinstance(outcome, Unavailable), outcome
    return outcome.facts.tallies.total()


async def slots(logs: LokiLogs, hour: Span) -> int:
    outcomes = await logs.read_slots(
        hour, _EXECUTIONS, NOWHERE, now_ns=time.time_ns(), deadline=None
    )
    return total(outcomes[LogStream.EXECUTIONS])


class Sealing:
    """Reads an hour and seals it; in a ledger of its own, so that nothing is sealed twice."""

    def __init__(self, logs: LokiLogs, folder: Path, streams: frozenset[LogStream]) -> None:
        self._logs = logs
        self._streams = streams
        self._folder = folder / f"ledger-{len(streams)}"
        self._number = 0
        self._store: DuckLedger | None = None
        self._hours: set[int] = set()

    async def __call__(self, hour: Span) -> int:
        """The calls of the hour, which was sealed."""
        now_ns = time.time_ns()
        if self._store is None or hour.start_ns in self._hours:
            self._open()
        self._hours.add(hour.start_ns)
        outcomes = await self._logs.read_slots(
            hour, self._streams, NOWHERE, now_ns=now_ns, deadline=None
        )
        candidates = [
            candidate
            for stream, outcome in outcomes.items()
            for candidate in of_calls(KIND_OF[stream], outcome, hour)
        ]
        assert self._store is not None
        judged = await self._store.seal(candidates, now_ns=now_ns)
        assert {one.verdict for one in judged} == {"sealed"}
        return total(outcomes[LogStream.EXECUTIONS])

    def _open(self) -> None:
        chosen = LedgerSettings()
        self._number += 1
        self._hours.clear()
        self._store = DuckLedger.open(
            self._folder / f"{self._number}.duckdb",
            create=True,
            memory_mb=chosen.memory_mb,
            threads=chosen.threads,
        )


def total(outcome: Outcome[SlottedLog]) -> int:
    assert not isinstance(outcome, Unavailable), outcome
    return sum(log.tallies.total() for log in outcome.facts.values())


def _turned(names: list[str], number: int) -> list[str]:
    at = number % len(names)
    return names[at:] + names[:at]


NOWHERE = Countries(GeoIP.open(None), Roster())


if __name__ == "__main__":
    main()
