"""Archives for tests of the import, and what brings them into a ledger."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from oscar_metrics.facts import CallKey, LogStream, Roster, SlotPart, Tallies
from oscar_metrics.ledger.importing import ImportReport, import_files
from oscar_metrics.ledger.seals import KIND_OF, SealKind
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.log_reading import ReadingLimits
from oscar_metrics.sources.slotted_tallying import part_of
from oscar_metrics.sums import PERIOD
from oscar_metrics.timerange import (
    DAY_NS,
    HOUR_NS,
    SLOT_NS,
    Span,
    format_instant,
    parse_instant,
)
from tests.corpus.platform import BASE_HOST

START_NS = parse_instant("2026-02-27T00:00:00Z")
HOUR = START_NS // HOUR_NS
SPAN = Span(START_NS, START_NS + 2 * DAY_NS)
NOW_NS = SPAN.stop_ns + 10 * DAY_NS
EXECUTIONS = SealKind.EXECUTIONS

NOWHERE = Countries(GeoIP.open(None), Roster())
USUAL = ReadingLimits()
# So that many batches meet in the middle of a slot.
LITTLE = ReadingLimits(block_bytes=4096)


class Told:
    """Notes what progress was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []
        self.begun = asyncio.Event()

    def __call__(self, done: int, total: int, doing: str) -> None:
        self.told.append((done, total, doing))
        self.begun.set()


class Breaks:
    """Stops the import before anything is sealed."""

    def __call__(self, done: int, total: int, doing: str) -> None:
        if doing == "sealing":
            raise ConnectionError(done, total)


async def bring(
    store: LedgerStore,
    files: Sequence[Path],
    countries: Countries = NOWHERE,
    *,
    now_ns: int = NOW_NS,
    told: Told | None = None,
    limits: ReadingLimits = USUAL,
) -> ImportReport:
    return await import_files(
        store,
        files,
        countries,
        now_ns=lambda: now_ns,
        ingress_host=BASE_HOST,
        limits=limits,
        progress=Told() if told is None else told,
    )


def execution(at_ns: int, user: str = "ada") -> str:
    return (
        f"[GIN-EXECUTIONS-LOGGER] {format_instant(at_ns)} | 200 | 1ms | 1.2.3.4 |"
        f" POST /run/svc | {user}"
    )


def write(path: Path, lines: Iterable[str]) -> Path:
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def hourful(hour: int, users: Iterable[str], *, step_ns: int = SLOT_NS // 3) -> list[str]:
    """Lines all over an hour, of one user after the other."""
    start_ns = hour * HOUR_NS
    names = list(users)
    return [
        execution(start_ns + number * step_ns, names[number % len(names)])
        for number in range(HOUR_NS // step_ns)
    ]


async def calls_of(store: LedgerStore, hour: int) -> dict[str, int]:
    """The calls of an hour by user."""
    span = Span(hour * HOUR_NS, (hour + 1) * HOUR_NS)
    sums = await store.call_sums(LogStream.EXECUTIONS, [span], [("user",)], rows_max=1000)
    return {user: count for (user,), count in sums.groups["user",].items()}


async def stored(store: LedgerStore, stream: LogStream, span: Span) -> dict[SlotPart, Tallies]:
    """The calls of whole hours, by parts of slots."""
    bounds = [
        start_ns + offset_ns
        for start_ns in range(span.start_ns, span.stop_ns, SLOT_NS)
        for offset_ns in (0, 1)
    ]
    grouping = (PERIOD, *CallKey._fields)
    heads = await store.heads(KIND_OF[stream], span)
    spans = [Span(head.hour * HOUR_NS, (head.hour + 1) * HOUR_NS) for head in heads]
    sums = await store.call_sums(stream, spans, [grouping], bounds_ns=bounds, rows_max=10**6)
    found: dict[SlotPart, Tallies] = {}
    for (period, *key), count in sums.groups[grouping].items():
        found.setdefault(part_of(bounds[period]), Counter())[CallKey(*key)] += count
    return found
