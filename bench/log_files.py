"""How fast LogFiles reads against a bare loop that splits each line of the same file and counts.

    python bench/log_files.py [--lines 1000000]

Each figure is the best of three runs in processes of their own, bare and ours in turn, in
seconds of CPU, which other work on the machine disturbs less than the clock. Memory is the
highest resident size of the process, above that of one that only imports.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet

from oscar_metrics.facts import LogStream, Roster
from oscar_metrics.outcome import Unavailable
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.timerange import DAY_NS, Span, format_instant, parse_instant

START_NS = parse_instant("2026-03-01T00:00:00Z")
DAYS = 30
RUNS = 3
FORMS = ("tagged", "mixed")
IPS = ("few IPs", "many IPs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of each file")
    parser.add_argument("--one", nargs=3, metavar=("WHAT", "FILE", "GEOIP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(*arguments.one)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.lines)


def compare(folder: Path, lines: int) -> None:
    database = folder / "countries.mmdb"
    write_database(database)
    idle_kib = run("import", "-", "-")["peak_kib"]
    print(f"{lines:,} lines, best of {RUNS}; imported alone {idle_kib / 1024:.0f} MB")
    print(
        f"{'file':34} {'bare s':>8} {'ours s':>8} {'ratio':>6} {'M lines/s':>10}"
        f" {'bare MB':>8} {'ours MB':>8}"
    )
    for form in FORMS:
        for ips in IPS:
            plain = folder / f"{form}.log"
            write_lines(plain, lines, form, ips)
            packed = Path(f"{plain}.gz")
            with plain.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as target:
                shutil.copyfileobj(source, target)
            for path in (plain, packed):
                for geoip in ("-", str(database)):
                    name = " ".join((form, path.suffix[1:], ips, "GeoIP" if geoip != "-" else ""))
                    show(name, lines, idle_kib, *best(path, geoip))


def best(path: Path, geoip: str) -> tuple[dict[str, float], dict[str, float]]:
    pairs = [(run("bare", str(path), geoip), run("ours", str(path), geoip)) for _ in range(RUNS)]
    bare = min((pair[0] for pair in pairs), key=lambda one: one["seconds"])
    ours = min((pair[1] for pair in pairs), key=lambda one: one["seconds"])
    assert bare["calls"] == ours["calls"], (bare, ours)
    return bare, ours


def show(
    name: str, lines: int, idle_kib: float, bare: dict[str, float], ours: dict[str, float]
) -> None:
    print(
        f"{name:34} {bare['seconds']:8.2f} {ours['seconds']:8.2f}"
        f" {ours['seconds'] / bare['seconds']:6.2f} {lines / ours['seconds'] / 1e6:10.2f}"
        f" {(bare['peak_kib'] - idle_kib) / 1024:8.0f} {(ours['peak_kib'] - idle_kib) / 1024:8.0f}",
        flush=True,
    )


def run(what: str, file: str, geoip: str) -> dict[str, float]:
    answer = subprocess.run(
        [sys.executable, __file__, "--one", what, file, geoip], check=True, capture_output=True
    )
    found: dict[str, float] = json.loads(answer.stdout)
    return found


def run_one(what: str, file: str, geoip: str) -> None:
    began = time.process_time()
    calls = 0
    if what == "bare":
        calls = bare(file)
    elif what == "ours":
        calls = ours(file, geoip)
    seconds = time.process_time() - began
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_kib": peak_kib, "calls": calls}))


def bare(file: str) -> int:
    """The loop we are measured against: split each line, count by path, user and status."""
    counts: Counter[tuple[bytes, bytes, bytes]] = Counter()
    with gzip.open(file) if file.endswith(".gz") else Path(file).open("rb") as lines:
        for line in lines:
            fields = line.split(b" | ")
            counts[fields[4], fields[5], fields[1]] += 1
    return sum(counts.values())


def ours(file: str, geoip: str) -> int:
    """One report over the whole of the file."""

    async def read() -> int:
        files = LogFiles(LogFilesSettings(pattern=file))
        countries = Countries(GeoIP.open(None if geoip == "-" else Path(geoip)), Roster())
        stop_ns = START_NS + DAYS * DAY_NS
        outcomes = await files.read(
            Span(START_NS, stop_ns),
            frozenset(LogStream),
            countries,
            now_ns=stop_ns,
            deadline=None,
        )
        outcome = outcomes[LogStream.EXECUTIONS]
        assert not isinstance(outcome, Unavailable), outcome
        return outcome.facts.tallies.total()

    return asyncio.run(read())


def write_lines(path: Path, lines: int, form: str, ips: str) -> None:
    chance = random.Random(7)
    users = [f"{chance.randrange(16**16):016x}@egi.eu" for _ in range(200)]
    services = [f"service-{number:02d}" for number in range(20)]
    with path.open("w") as file:
        for number in range(lines):
            instant_ns = START_NS + number * DAYS * DAY_NS // lines
            kind, user = chance.choice(("run", "job")), chance.randrange(len(users))
            # A user stays in one country, with one address or with a new one for every call.
            address = user if ips == "few IPs" else chance.randrange(1 << 24)
            ip = f"{1 + user % 9}.{address >> 16}.{address >> 8 & 255}.{address & 255}"
            file.write(
                _line(
                    "tagged" if form == "tagged" else ("tagged", "cri", "old", "long")[number % 4],
                    instant_ns,
                    chance.choice((200, 200, 200, 201, 404, 500)),
                    f"{chance.random() * 100:10.6f}ms",
                    ip,
                    f"POST    /{kind}/{chance.choice(services)}",
                    users[user],
                )
            )


def _line(
    form: str, instant_ns: int, status: int, latency: str, ip: str, request: str, user: str
) -> str:
    instant = format_instant(instant_ns | 1)
    rest = f"{status} | {latency} | {ip:>15} | {request} | {user}"
    old = instant[:19].replace("-", "/").replace("T", " - ")
    if form == "old":
        return f"[GIN-EXECUTIONS-LOGGER] {old} | {rest}\n"
    if form == "cri":
        return f"{instant} stderr F [GIN-EXECUTIONS-LOGGER] {old} | {rest}\n"
    if form == "long":
        return f"[GIN-EXECUTIONS-LOGGER] {instant} | {rest} | logged | oscar-svc-user\n"
    return f"[GIN-EXECUTIONS-LOGGER] {instant} | {rest}\n"


def write_database(path: Path) -> None:
    writer = MMDBWriter(ip_version=4, database_type="GeoLite2-Country")
    for first, country in enumerate(
        ("ES", "FR", "DE", "IT", "PT", "US", "BR", "JP", "IN"), start=1
    ):
        writer.insert_network(IPSet([f"{first}.0.0.0/8"]), {"country": {"iso_code": country}})
    writer.to_db_file(str(path))


if __name__ == "__main__":
    main()
