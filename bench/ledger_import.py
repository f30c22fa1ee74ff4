"""How long `ledger import` takes against the log-file report over the same file.

    python -m bench.ledger_import [--lines 1000000] [--rounds 3]

Each figure is the best of some rounds in processes of their own, report and import in turn:
seconds by the clock, the processor's seconds in brackets (the engine works on threads of its
own), and the highest resident size above that of a process that only imports the modules.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.log_files import DAYS, START_NS, write_lines
from oscar_metrics.facts import LogStream, Roster
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.importing import import_files
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.outcome import Unavailable
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.log_reading import ReadingLimits
from oscar_metrics.timerange import DAY_NS, Span

SPAN = Span(START_NS, START_NS + DAYS * DAY_NS)
MEASURES = ("report", "import", "again")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of each file")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best is shown")
    parser.add_argument(
        "--one", nargs=3, metavar=("WHAT", "FILE", "LEDGER"), help=argparse.SUPPRESS
    )
    arguments = parser.parse_args()
    if arguments.one:
        run_one(*arguments.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.lines, arguments.rounds)


def compare(folder: Path, lines: int, rounds: int) -> None:
    idle_kib = run("nothing", folder, folder)["peak_kib"]
    print(f"{lines:,} lines, best of {rounds}; idle {idle_kib / 1024:.0f} MB")
    print(
        f"{'file':12} {'what':8} {'seconds':>16} {'ratio':>6} {'MB above idle':>14} {'ledger':>9}"
    )
    for form in ("tagged", "mixed"):
        plain = folder / f"{form}.log"
        write_lines(plain, lines, form, "few IPs")
        packed = Path(f"{plain}.gz")
        with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
            shutil.copyfileobj(source, target)
        for path in (plain, packed):
            found: dict[str, list[dict[str, float]]] = {what: [] for what in MEASURES}
            for number in range(rounds):
                ledger = folder / f"{number}.duckdb"
                for what in MEASURES:
                    found[what].append(run(what, path, ledger))
                    assert found[what][-1]["calls"] == lines, (what, found[what][-1])
                size_mb = ledger.stat().st_size / 2**20
                ledger.unlink()
            for what, rows in found.items():
                best = min(rows, key=lambda row: row["seconds"])
                ratio = best["seconds"] / min(row["seconds"] for row in found["report"])
                took = f"{best['seconds']:.2f} ({best['cpu_seconds']:.2f})"
                peak_mb = (max(row["peak_kib"] for row in rows) - idle_kib) / 1024
                size = "" if what == "report" else f"{size_mb:6.1f} MB"
                print(
                    f"{path.name:12} {what:8} {took:>16} {ratio:6.2f} {peak_mb:14.0f} {size:>9}",
                    flush=True,
                )


def run(what: str, file: Path, ledger: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.ledger_import", "--one", what, str(file), str(ledger)]
    answer = subprocess.run(command, check=True, capture_output=True)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def run_one(what: str, file: str, ledger: str) -> None:
    began, cpu_began = time.perf_counter(), time.process_time()
    calls = 0
    if what == "report":
        calls = asyncio.run(report(file))
    elif what != "nothing":
        calls = asyncio.run(imported(file, ledger))
    found = {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "calls": calls,
    }
    print(json.dumps(found))


async def report(file: str) -> int:
    """One report over the whole of the file."""
    files = LogFiles(LogFilesSettings(pattern=file))
    outcomes = await files.read(
        SPAN,
        frozenset(LogStream),
        Countries(GeoIP.open(None), Roster()),
        now_ns=SPAN.stop_ns,
        deadline=None,
    )
    outcome = outcomes[LogStream.EXECUTIONS]
    assert not isinstance(outcome, Unavailable), outcome
    return outcome.facts.tallies.total()


async def imported(file: str, ledger: str) -> int:
    """The same file into a ledger; into one that has it where that is there already."""
    chosen = LedgerSettings()
    store = DuckLedger.open(
        Path(ledger), create=True, memory_mb=chosen.memory_mb, threads=chosen.threads
    )
    try:
        made = await import_files(
            store,
            [Path(file)],
            Countries(GeoIP.open(None), Roster()),
            now_ns=lambda: SPAN.stop_ns,
            ingress_host="",
            limits=ReadingLimits(),
            progress=lambda _done, _total, _doing: None,
        )
    finally:
        await store.aclose()
    assert made.verdicts[SealKind.EXECUTIONS].keys() <= {"sealed", "same"}, made
    return made.lines_understood


if __name__ == "__main__":
    main()
