"""What looking after a large ledger costs: verify, export, forget, compaction.

    python -m bench.ledger_care             # 10 M requests of six months, as in bench.ledger

Beside each stands what it cannot do without: reading every row of quarter-hours once with
the bare engine under the same limits. Compaction merges all of it into hours, then into
days; the file's size is that of before, after hours and after days. Memory is the highest
resident size of the process so far.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import resource
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import duckdb

from bench.ledger import SETTINGS, STOP_NS, build
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.store import ExportForm
from oscar_metrics.timerange import DAY_NS

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000_000, help="requests of six months")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.duckdb"
        build(file, arguments.requests)
        bare_seconds = read_everything(file)
        print(f"{'bare read of every row':28} {bare_seconds:7.2f} s, file {size(file)}")
        asyncio.run(care(file, bare_seconds))


def read_everything(file: Path) -> float:
    with duckdb.connect(
        str(file),
        read_only=True,
        config={"memory_limit": f"{SETTINGS.memory_mb}MB", "threads": SETTINGS.threads},
    ) as connection:
        began = time.perf_counter()
        connection.execute("SELECT bit_xor(hash(COLUMNS(*))) FROM calls").fetchall()
        connection.execute("SELECT bit_xor(hash(COLUMNS(*))) FROM usage").fetchall()
        return time.perf_counter() - began


async def care(file: Path, bare_seconds: float) -> None:
    ledger = DuckLedger.open(
        file, create=False, memory_mb=SETTINGS.memory_mb, threads=SETTINGS.threads
    )

    async def timed(name: str, doing: Awaitable[T]) -> T:
        began = time.perf_counter()
        done = await doing
        seconds = time.perf_counter() - began
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(
            f"{name:28} {seconds:7.2f} s, {seconds / bare_seconds:6.1f} times the bare read,"
            f" file {size(file)}, peak {peak_mb} MB",
            flush=True,
        )
        return done

    found = await timed("verify", ledger.verify(lambda *_: None))
    print("  ", found[0].says)
    for form in ExportForm:
        folder = file.parent / form
        paths = await timed(f"export to {form}", ledger.export(folder, form, lambda *_: None))
        print("  ", f"{sum(path.stat().st_size for path in paths) / 1e6:.0f} MB")
    user = f"{hashlib.md5(b'7', usedforsecurity=False).hexdigest()}@egi.eu"
    assert await timed("forget", ledger.forget(user, now_ns=STOP_NS))
    for name, days in (("quarter-hours to hours", 36_500), ("hours to days", 1)):
        await timed(name, compact(ledger, hours_kept_ns=days * DAY_NS))
    found = await timed("verify", ledger.verify(lambda *_: None))
    print("  ", found[0].says)
    await ledger.aclose()
    print(f"closed: file {size(file)}")


async def compact(ledger: DuckLedger, *, hours_kept_ns: int) -> None:
    left = 1
    while left:
        left = await ledger.compact(
            now_ns=STOP_NS + 10 * DAY_NS, quarters_kept_ns=DAY_NS, hours_kept_ns=hours_kept_ns
        )


def size(file: Path) -> str:
    return f"{file.stat().st_size / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
