"""What sealing costs: an hour against the barest paging of it, and a report meanwhile.

    python -m bench.sealing                   # hours of 20,000 lines, on a real Loki

Prints seconds an hour (median over hours taken in turns), their ratio, and the median
seconds of a report that is read from the ledger alone, while hours are paged barely, and
while they are sealed. Loki shares this machine's cores, so only ratios travel.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from bench.loki import bare_tally, fill
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.sealer import Sealer
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.sources.roster import RosterFile
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, ReportRange, Span, windows
from tests.servers.loki import Loki

Doing = Callable[[Span], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--lines", type=int, default=20_000, help="lines of each hour")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Loki.start(Path(folder)) as loki:
        day = fill(loki, arguments.lines * 24)
        # The gateway is alive, and nobody calls.
        alive = [(ns, "-") for ns in range(day.start_ns, day.stop_ns, SLOT_NS)]
        labels = {"namespace": "ingress-nginx", "app": "ingress-nginx"}
        loki.push([(labels, alive)])
        selector = '{namespace="ingress-nginx"}'
        loki.flush_and_wait(selector, day.start_ns, day.stop_ns, len(alive))
        asyncio.run(measure(loki.url, day, Path(folder) / "ledger.duckdb"))


async def measure(url: str, day: Span, file: Path) -> None:
    """Every figure over hours of the day, each hour once."""
    telemetry = Telemetry()
    sources = Sources(
        geoip=GeoIP.open(None),
        roster=RosterFile(None),
        logs=LokiLogs(LokiSettings(url=url), telemetry=telemetry),
    )
    settings = LedgerSettings(file=str(file))
    store = DuckLedger.open(
        file, create=True, memory_mb=settings.memory_mb, threads=settings.threads
    )
    sealer = Sealer(store, sources, settings, telemetry=telemetry, now_ns=time.time_ns)
    aggregator = Aggregator(
        sources,
        telemetry=telemetry,
        now_ns=time.time_ns,
        deadline_seconds=60,
        ledger=LedgerHolder(store, rows_max=settings.rows_max),
    )
    hours = list(windows(day, HOUR_NS))
    first, second, third = hours[:8], hours[8:16], hours[16:]

    async def seal(hour: Span) -> None:
        done = await sealer.backfill(hour, lambda *_: None)
        assert all(not kind.failed and not kind.not_kept for kind in done.kinds.values()), done

    async def page(hour: Span) -> None:
        assert await (await bare_tally(url, hour))()

    paged, sealed = [], []
    await page(first[0])
    for hour in first:
        paged.append(await seconds(page, hour))
        sealed.append(await seconds(seal, hour))
    show("an hour, paged barely", paged)
    show("an hour, sealed", sealed, paged)

    span = Span(first[0].start_ns, first[-1].stop_ns)
    asked = ReportRange(span=span, start="", end="")

    async def report(_: Span) -> None:
        summary = await aggregator.summary(asked)
        assert isinstance(summary.sources, tuple)

    while await store.roll_up(now_ns=time.time_ns()):
        pass
    await report(span)
    alone = [await seconds(report, span) for _ in range(100)]
    beside_paging = await meanwhile(report, page, second)
    beside_sealing = await meanwhile(report, seal, third)
    show("a report, alone", alone)
    show("a report, while hours are paged", beside_paging, alone)
    show("a report, while hours are sealed", beside_sealing, alone)
    await aggregator.aclose()
    await store.aclose()


async def seconds(doing: Doing, span: Span) -> float:
    """How long something takes."""
    began = time.perf_counter()
    await doing(span)
    return time.perf_counter() - began


async def meanwhile(report: Doing, doing: Doing, hours: Sequence[Span]) -> list[float]:
    """How long reports take that are asked for one after the other while hours are worked on."""
    taken: list[float] = []

    async def work() -> None:
        for hour in hours:
            await doing(hour)

    task = asyncio.create_task(work())
    while not task.done():
        taken.append(await seconds(report, hours[0]))
        # Somebody reads them in between.
        await asyncio.sleep(0.02)
    await task
    return taken


def show(name: str, taken: list[float], against: list[float] | None = None) -> None:
    """A line of the table: the median, and its ratio to another's."""
    middle = statistics.median(taken)
    ratio = f"{middle / statistics.median(against):.2f}×" if against else ""
    print(f"{name:<34}{middle:>9.3f} s{ratio:>8}   ({len(taken)} times)", flush=True)


if __name__ == "__main__":
    main()
