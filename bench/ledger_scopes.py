"""Reports for one user against those on the whole cluster, from half a year of the ledger.

    python -m bench.ledger_scopes           # 10 M requests of 100 services, 20 owners
    python -m bench.ledger_scopes --keep /tmp/scopes

What a summary reads of calls, of all services and of those that a predicate says yes to; then
the same calls spread over 10,000 services. Best of some rounds, all in one process, in turn.
"""

# ruff: noqa: S608 - the numbers in the SQL are named here
from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import duckdb

from bench.ledger import AWKWARD, STOP_NS, WHOLE, build, open_ledger, peak_mb, read
from oscar_metrics import groupings
from oscar_metrics.facts import ServiceKey
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.timerange import DAY_NS, Span

SERVICES, MANY, ROUNDS = 100, 10_000, 9

# Every namespace belongs to an owner; there are 20.
SCOPES: dict[str, Callable[[ServiceKey], bool] | None] = {
    "all, without a predicate": None,
    "those of one owner of 20": lambda key: key.namespace == "oscar-svc-7",
    "those of all owners but one": lambda key: key.namespace != "oscar-svc-7",
    "none": lambda _: False,
}


def main() -> None:
    """Build, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000_000, help="requests of six months")
    parser.add_argument("--keep", type=Path, help="a folder to build in, or to use what was built")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = (arguments.keep or Path(folder)) / "ledger.duckdb"
        many = few.with_name("many.duckdb")
        if not few.exists():
            build(few, arguments.requests, SERVICES)
        if not many.exists():
            shutil.copy(few, many)
            spread(many)
        for file, services in ((few, SERVICES), (many, MANY)):
            print(f"{services:,} services")
            asyncio.run(compare(file))
    print(f"peak memory: {peak_mb():.0f} MB")


def spread(file: Path) -> None:
    """Let the users of a service call a hundred different ones."""
    with duckdb.connect(str(file), config={"memory_limit": "2GB"}) as connection:
        connection.execute(
            f"INSERT INTO services SELECT i, 'oscar-svc-' || i % 20, 'service-' || i"
            f" FROM range({SERVICES + 1}, {MANY + 1}) AS r(i)"
        )
        for table in ("calls", "call_days", "call_months"):
            connection.execute(
                f"UPDATE {table} SET service_id = service_id"
                f" + {SERVICES} * (user_id % {MANY // SERVICES})"
            )


async def compare(file: Path) -> None:
    ledger = open_ledger(file)
    as_of_ns = STOP_NS + DAY_NS
    for range_name, span, then_ns in (
        ("whole months", WHOLE, None),
        ("any half-year", AWKWARD, None),
        ("as of an instant, from quarter-hours", WHOLE, as_of_ns),
    ):
        best = dict.fromkeys(SCOPES, 1e9)
        for _ in range(ROUNDS):
            for name, only in SCOPES.items():
                ask = partial(summary, ledger, span, then_ns, only)
                best[name] = min(best[name], await milliseconds(ask))
        print(f"  {range_name}")
        whole = best["all, without a predicate"]
        for name, told in best.items():
            print(f"    {name:28} {told:8.1f} ms {told / whole:6.2f}")
    began = time.perf_counter()
    known = await ledger.services()
    print(f"  {len(known):,} services listed in {(time.perf_counter() - began) * 1e3:.1f} ms")
    await ledger.aclose()


async def summary(
    ledger: DuckLedger,
    span: Span,
    as_of_ns: int | None,
    only: Callable[[ServiceKey], bool] | None,
) -> None:
    await read(ledger, groupings.SUMMARY, span, usage=False, as_of_ns=as_of_ns, only=only)


async def milliseconds(ask: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await ask()
    return (time.perf_counter() - began) * 1e3


if __name__ == "__main__":
    main()
