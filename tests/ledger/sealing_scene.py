"""A sealer over log files that a test writes, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from oscar_metrics.facts import LogStream
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.sealer import IDLE_SECONDS, Sealer
from oscar_metrics.ledger.seals import SealHead, SealKind
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span, format_instant, parse_instant

MINUTE_NS = 60 * SECOND_NS
BEGIN_NS = parse_instant("2026-03-10T00:00:00Z")
BEGIN = BEGIN_NS // HOUR_NS
EXECUTIONS, EXPOSED, USAGE, INVENTORY = SealKind


class Scene:
    """A folder of log files (one an hour), a ledger and a clock; hours are from BEGIN on."""

    def __init__(self, folder: Path, store: LedgerStore, **settings: Any) -> None:
        self.folder = folder
        self.store = store
        self.now_ns = BEGIN_NS
        self.telemetry = Telemetry()
        # One day back, so that a test says when it wants the past.
        self.settings = LedgerSettings(**{"backfill_days": 0, **settings})
        self.sealer = self.new_sealer()

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, **settings: Any) -> AsyncIterator[Scene]:
        logs = folder / "logs"
        logs.mkdir()
        store = DuckLedger.open(folder / "l.duckdb", create=True, memory_mb=64, threads=1)
        try:
            yield cls(logs, store, **settings)
        finally:
            await store.aclose()

    def new_sealer(self, sources: Sources | None = None) -> Sealer:
        """One that knows nothing, as after a restart."""
        return Sealer(
            self.store,
            sources or log_files(self.folder),
            self.settings,
            telemetry=self.telemetry,
            now_ns=lambda: self.now_ns,
        )

    def write(self, hour: int, calls: int = 1, exposed: int = 1, *, name: str = "") -> None:
        """The log of an hour: signs of life in each quarter, and calls."""
        start_ns = BEGIN_NS + hour * HOUR_NS
        alive = range(start_ns, start_ns + HOUR_NS, SLOT_NS)
        lines = [line for ns in alive for line in (probe(ns), gateway(ns, "/"))]
        lines += [execution(start_ns + MINUTE_NS + i, f"user-{i}") for i in range(calls)]
        lines += [gateway(start_ns + MINUTE_NS + i) for i in range(exposed)]
        self.write_lines(name or f"{hour:+05}.log", lines)

    def write_lines(self, name: str, lines: Iterable[str]) -> None:
        (self.folder / name).write_text("\n".join(sorted(lines)) + "\n")

    def at(self, hour: float, minutes: int = 0) -> None:
        """Set the clock to so long after BEGIN."""
        self.now_ns = BEGIN_NS + round(hour * 60) * MINUTE_NS + minutes * MINUTE_NS

    async def work(self, most: int = 2000) -> None:
        """Let the sealer do all that is due."""
        for _ in range(most):
            if await self.sealer.step() == IDLE_SECONDS:
                return
        raise AssertionError(f"still at work after {most} steps: {self.sealer.status()}")

    async def heads(self, kind: SealKind = EXECUTIONS) -> dict[int, SealHead]:
        """What is sealed, by hour after BEGIN."""
        heads = await self.store.heads(kind, Span(0, BEGIN_NS * 2))
        return {head.hour - BEGIN: head for head in heads}

    async def count(self, hour: int, stream: LogStream = LogStream.EXECUTIONS) -> int:
        """How many calls are sealed of an hour."""
        start_ns = BEGIN_NS + hour * HOUR_NS
        sums = await self.store.call_sums(
            stream, [Span(start_ns, start_ns + HOUR_NS)], [("kind",)], rows_max=1000
        )
        return sums.by("kind").total()

    async def reasons(self, hour: int, kind: SealKind = EXECUTIONS) -> set[str]:
        """Why something is missing of an hour."""
        start_ns = BEGIN_NS + hour * HOUR_NS
        sealed = await self.store.sealed(kind, Span(start_ns, start_ns + HOUR_NS))
        return {gap.reason.name for gap in sealed.gaps}

    def sample(self, name: str, **labels: str) -> float:
        """A metric of the ledger; -1 where there is none."""
        found = self.telemetry.registry.get_sample_value(f"oscar_metrics_ledger_{name}", labels)
        return -1 if found is None else found


def log_files(folder: Path, **more: Any) -> Sources:
    return Sources(
        geoip=GeoIP.open(None),
        roster=Rosters(),
        logs=LogFiles(LogFilesSettings(pattern=str(folder / "*.log"))),
        **more,
    )


def execution(instant_ns: int, user: str = "ada", service: str = "cowsay") -> str:
    return (
        f"[GIN-EXECUTIONS-LOGGER] {format_instant(instant_ns)} | 200 | 1ms | 1.2.3.4 |"
        f" POST /run/{service} | {user}"
    )


def gateway(instant_ns: int, path: str = "/system/services/web/exposed/") -> str:
    return (
        f"{format_instant(instant_ns)} stdout F 1.2.3.4 - - [01/Mar/2026:00:00:00 +0000]"
        f' "GET {path} HTTP/1.1" 200 17 "-" "c" 1 2 [oscar-svc-web-svc-80] []'
    )


def probe(instant_ns: int) -> str:
    time = format_instant(instant_ns)[:19].replace("-", "/").replace("T", " - ")
    return f'[GIN] {time} | 200 | 20µs | 10.0.0.1 | GET      "/health"'
