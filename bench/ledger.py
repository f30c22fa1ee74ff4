"""Six months of requests: reports from the ledger against bare queries over rows of days.

    python -m bench.ledger                  # 10 M requests, some 9 M rows of quarter-hours
    python -m bench.ledger --requests 100000000 --keep /tmp/large

200 users, 50 services, 25 countries, busy afternoons and quiet nights; a tenth of the
requests came through the gateway; every service used CPU in every quarter-hour. What a report reads
of the ledger is measured through DuckLedger; beside it stands what the same report needs as
bare SQL over `call_days` and `usage_days`, without coverage, names or Python's counters.
Each is the best of some rounds in a process of its own, bare and ours in turn, in
milliseconds. Memory is the highest resident size of the process.
"""

# ruff: noqa: S608 - the tables and numbers in the SQL are named here
from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import duckdb

from oscar_metrics import groupings
from oscar_metrics.facts import ServiceKey
from oscar_metrics.groupings import Needs
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.duckdb_schema import CALLS_DIGEST, USAGE_DIGEST
from oscar_metrics.ledger.seals import KIND_OF, SealKind
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span, parse_instant
from oscar_metrics.wire import GroupBy

START_NS = parse_instant("2025-10-01T00:00:00Z")
STOP_NS = parse_instant("2026-04-01T00:00:00Z")
WHOLE = Span(START_NS, STOP_NS)
# Half a year of someone who lives at UTC+2 and does not begin with a month.
AWKWARD = Span(START_NS + 9 * DAY_NS - 2 * HOUR_NS, STOP_NS - 4 * DAY_NS - 2 * HOUR_NS + 1)
USERS, SERVICES, COUNTRIES = 200, 50, 25
PAIRS, ROUNDS = 3, 7
SETTINGS = LedgerSettings()

REPORTS: dict[str, tuple[Needs, bool]] = {
    "summary": (groupings.SUMMARY, True),
    **{f"breakdown by {by}": (needs, False) for by, needs in groupings.BREAKDOWNS.items()},
}
REPORTS["breakdown by service"] = (groupings.BREAKDOWNS[GroupBy.SERVICE], True)

_DAYS = "call_days WHERE seal_kind = 1"
_EXPOSED = "call_days WHERE seal_kind = 2"
_USAGE = "usage_days WHERE service_id > 0"
BARE: dict[str, tuple[str, ...]] = {
    "summary": (
        f"SELECT kind, result, sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT country_id, country_from, sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT count(DISTINCT service_id), count(DISTINCT user_id) FROM {_DAYS}",
        f"SELECT service_id, sum(count) FROM {_EXPOSED} GROUP BY ALL",
        f"SELECT sum(cpu_core_ns), sum(gpu_core_ns) FROM {_USAGE}",
    ),
    "breakdown by service": (
        f"SELECT service_id, count(DISTINCT user_id), sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT service_id, kind, result, sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT service_id, country_id, country_from, sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT service_id, sum(count) FROM {_EXPOSED} GROUP BY ALL",
        f"SELECT service_id, sum(cpu_core_ns), sum(gpu_core_ns) FROM {_USAGE} GROUP BY ALL",
    ),
    "breakdown by user": (
        f"SELECT user_id, result, sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT user_id, country_id, country_from, sum(count) FROM {_DAYS} GROUP BY ALL",
    ),
    "breakdown by country": (
        f"SELECT country_id, country_from, sum(count) FROM {_DAYS} GROUP BY ALL",
        f"SELECT country_id, count(DISTINCT user_id) FROM {_DAYS} GROUP BY ALL",
    ),
}


def main() -> None:
    """Build, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=10_000_000, help="requests of six months")
    parser.add_argument("--keep", type=Path, help="a folder to build in, or to use what was built")
    parser.add_argument("--one", nargs=2, metavar=("WHAT", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        what, file = arguments.one
        print(json.dumps(bare(Path(file)) if what == "bare" else asyncio.run(ours(Path(file)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = (arguments.keep or Path(folder)) / "ledger.duckdb"
        if not file.exists():
            build(file, arguments.requests)
        compare(file)


def compare(file: Path) -> None:
    pairs = [(run("bare", file), run("ours", file)) for _ in range(PAIRS)]
    print(f"{'report':34} {'bare ms':>8} {'ours ms':>8} {'ratio':>6}")
    for name in pairs[0][1]:
        if name == "peak_mb":
            continue
        told = min(pair[1][name] for pair in pairs)
        alone = min(pair[0].get(name.partition(",")[0], 0.0) for pair in pairs)
        print(f"{name:34} {alone:8.1f} {told:8.1f} {told / alone:6.2f}")
    peaks = [max(pair[i]["peak_mb"] for pair in pairs) for i in (0, 1)]
    print(f"peak memory: bare {peaks[0]:.0f} MB, ours {peaks[1]:.0f} MB")
    print(f"file: {file.stat().st_size / 1e6:.0f} MB", flush=True)


def run(what: str, file: Path) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, "-m", "bench.ledger", "--one", what, str(file)],
        check=True,
        capture_output=True,
    )
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def bare(file: Path) -> dict[str, float]:
    """The queries alone, by the same engine with the same limits."""
    with duckdb.connect(
        str(file),
        read_only=True,
        config={"memory_limit": f"{SETTINGS.memory_mb}MB", "threads": SETTINGS.threads},
    ) as connection:
        best: dict[str, float] = {}
        for name, queries in BARE.items():
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for query in queries:
                    connection.execute(query).fetchall()
                best[name] = min(best.get(name, 1e9), (time.perf_counter() - began) * 1e3)
    return best | {"peak_mb": peak_mb()}


async def ours(file: Path) -> dict[str, float]:
    """What each report reads, coverage first; over whole months, and over any half-year."""
    ledger = open_ledger(file)
    best: dict[str, float] = {}
    for suffix, span in (("", WHOLE), (", any half-year", AWKWARD)):
        for name, (needs, usage) in REPORTS.items():
            best[name + suffix] = await best_of(partial(read, ledger, needs, span, usage=usage))
    months = [START_NS, *month_starts(), STOP_NS]
    series = groupings.of_a_series(groupings.SUMMARY)
    best["summary, by month"] = await best_of(
        partial(read, ledger, series, WHOLE, usage=True, bounds_ns=months)
    )
    days = list(range(START_NS, STOP_NS + 1, DAY_NS))
    best["summary, by day"] = await best_of(
        partial(read, ledger, series, WHOLE, usage=True, bounds_ns=days)
    )
    as_of_ns = STOP_NS + DAY_NS
    best["summary, as of"] = await best_of(
        partial(read, ledger, groupings.SUMMARY, WHOLE, usage=True, as_of_ns=as_of_ns)
    )
    await ledger.aclose()
    return best | {"peak_mb": peak_mb()}


async def read(
    ledger: DuckLedger,
    needs: Needs,
    span: Span,
    *,
    usage: bool,
    bounds_ns: Sequence[int] = (),
    as_of_ns: int | None = None,
    only: Callable[[ServiceKey], bool] | None = None,
) -> None:
    for stream, by in needs.items():
        await ledger.sealed(KIND_OF[stream], span, as_of_ns=as_of_ns)
        await ledger.call_sums(
            stream,
            [span],
            by,
            only=only,
            bounds_ns=bounds_ns,
            rows_max=SETTINGS.rows_max,
            as_of_ns=as_of_ns,
        )
    if usage:
        span = Span(span.start_ns, span.stop_ns // HOUR_NS * HOUR_NS)
        await ledger.sealed(SealKind.USAGE, span, as_of_ns=as_of_ns)
        await ledger.usage_sums([span], bounds_ns=bounds_ns, as_of_ns=as_of_ns)


async def best_of(ask: Callable[[], Awaitable[None]]) -> float:
    best = 1e9
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await ask()
        best = min(best, (time.perf_counter() - began) * 1e3)
    return best


def build(file: Path, requests: int, services: int = SERVICES) -> None:
    """Write the file day by day, in the tables that sealing writes, and roll it up."""
    began = time.perf_counter()
    asyncio.run(open_ledger(file).aclose())
    with duckdb.connect(str(file), config={"memory_limit": "2GB"}) as connection:
        name_everything(connection, services)
        for day in range(START_NS // DAY_NS, STOP_NS // DAY_NS):
            build_day(connection, day, requests // ((STOP_NS - START_NS) // DAY_NS), services)
        rows, calls = connection.execute("SELECT count(*), sum(count) FROM calls").fetchall()[0]
    built = time.perf_counter()
    rolled_up = asyncio.run(roll_up(file))
    print(
        f"{calls:,} requests in {rows:,} rows: built in {built - began:.0f} s,"
        f" {rolled_up} days and months rolled up in {time.perf_counter() - built:.1f} s",
        flush=True,
    )


def name_everything(connection: duckdb.DuckDBPyConnection, services: int) -> None:
    connection.execute(
        "INSERT INTO users SELECT i, md5(i::VARCHAR) || '@egi.eu'"
        f" FROM range(1, {USERS + 1}) AS r(i)"
    )
    connection.execute(
        "INSERT INTO services SELECT i, 'oscar-svc-' || i % 20, 'service-' || i"
        f" FROM range(1, {services + 1}) AS r(i)"
    )
    connection.execute(
        "INSERT INTO countries SELECT i, chr(64 + i::INTEGER) || 'X'"
        f" FROM range(1, {COUNTRIES + 1}) AS r(i)"
    )


def build_day(
    connection: duckdb.DuckDBPyConnection, day: int, requests: int, services: int
) -> None:
    """A day of calls, few users and services making most of them, and of usage."""
    connection.execute("BEGIN")
    first = connection.execute("SELECT coalesce(max(id), 0) FROM seals").fetchall()[0][0] + 1
    connection.execute(f"SELECT setseed({day % 1000 / 1000})")
    connection.execute(
        f"""
        INSERT INTO calls
        SELECT {first} + slot // 4 - {day * 24} + IF(exposed, 24, 0) AS seal_id,
               slot * 2 + 1 AS part, service, who, IF(abroad, 1 + service % {COUNTRIES},
               1 + who % {COUNTRIES}), IF(abroad, 2, 1),
               IF(exposed, 3, IF(nth % 5 < 3, 1, 2)) AS kind, IF(failed, 2 + nth % 2, 1) AS result,
               count(*)
        FROM (
            SELECT slot, nth, 1 + floor({services} * pow(random(), 2))::INTEGER AS service,
                   1 + floor({USERS} * pow(random(), 1.5))::INTEGER AS who,
                   random() < 0.02 AS abroad, random() < 0.05 AS failed, nth % 10 = 0 AS exposed
            FROM (
                SELECT slot, unnest(range(calls)) AS nth
                FROM (
                    SELECT {day * 96} + quarter AS slot, round({requests} / 96
                           * (1 - 0.8 * cos((quarter - 12) * 2 * pi() / 96)))::INTEGER AS calls
                    FROM range(96) AS q(quarter)
                )
            )
        )
        GROUP BY ALL ORDER BY ALL
        """
    )
    connection.execute(
        f"""
        INSERT INTO usage
        SELECT {first} + 48 + quarter // 4, {day * 96} + quarter, service,
               IF(service = 0, 0, (900e9 * random())::BIGINT), IF(service % 10 = 0, 0, NULL)
        FROM range(96) AS q(quarter), range({services + 1}) AS s(service)
        ORDER BY ALL
        """
    )
    connection.execute(
        f"""
        INSERT INTO seals BY NAME
        SELECT {first} + 24 * (kind - 1) + nth AS id, kind, {day * 24} + nth AS hour, 1 AS hours,
               1 AS quarters, 1 AS revision, ({day * 24} + nth + 2) * {HOUR_NS} AS sealed_at_ns,
               3 AS looks, IF(kind = 3, 'prometheus', 'loki') AS origin,
               IF(kind = 3, 'cpu-estimate+gpu-allocated', '') AS method, '[]' AS doubts,
               '[]' AS measures, '[]' AS notes, '[]' AS gaps, 0 AS missing_ns,
               coalesce(total, 0) AS lines_seen, coalesce(total, 0) AS lines_understood,
               coalesce(row_count, 0) AS row_count, coalesce(total, 0) AS total,
               coalesce(digest, 0) AS digest
        FROM (SELECT kind, nth FROM range(1, 4) AS k(kind), range(24) AS h(nth)) LEFT JOIN (
            SELECT seal_id, count(*) AS row_count, sum(count) AS total, {CALLS_DIGEST} AS digest
            FROM calls WHERE seal_id >= {first} GROUP BY seal_id
            UNION ALL
            SELECT seal_id, count(*),
                   sum(coalesce(cpu_core_ns, 0)::HUGEINT + coalesce(gpu_core_ns, 0)), {USAGE_DIGEST}
            FROM usage WHERE seal_id >= {first} GROUP BY seal_id
        ) ON seal_id = {first} + 24 * (kind - 1) + nth
        """
    )
    connection.execute("COMMIT")


async def roll_up(file: Path) -> int:
    ledger = open_ledger(file)
    made = 1
    while await ledger.roll_up(now_ns=STOP_NS):
        made += 1
    await ledger.aclose()
    return made


def open_ledger(file: Path) -> DuckLedger:
    return DuckLedger.open(
        file, create=True, memory_mb=SETTINGS.memory_mb, threads=SETTINGS.threads
    )


def month_starts() -> Iterator[int]:
    for month in ("2025-11", "2025-12", "2026-01", "2026-02", "2026-03"):
        yield parse_instant(f"{month}-01T00:00:00Z")


def peak_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
