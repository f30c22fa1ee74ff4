from __future__ import annotations

import asyncio
import csv
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import SlotPart
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.ledger.store import ExportForm
from oscar_metrics.timerange import DAY_NS
from tests.ledger.scenes import FIRST_HOUR, FIRST_NS, hour_of

_SEALED_NS = FIRST_NS + DAY_NS + 1
_FILES = {"calls", "usage", "inventories", "namespace_owners", "seals"}


def _hours(*, more: int = 0) -> list[Candidate]:
    return [
        hour_of(kind, FIRST_HOUR + n, random.Random(n), more=more)
        for kind in SealKind
        for n in range(3)
    ]


@pytest.fixture
async def ledger(tmp_path: Path) -> Any:
    opened = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=128, threads=1)
    await opened.seal(_hours(), now_ns=_SEALED_NS)
    await opened.seal(_hours(more=1)[:1], now_ns=_SEALED_NS + 1000)
    yield opened
    await opened.aclose()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file as anyone would read them."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            yield from csv.DictReader(file)
        return
    with duckdb.connect() as reading:
        # As text, since the engine gives times with a zone to Python through another package.
        described = reading.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()
        columns = ", ".join(
            f"strftime(timezone('UTC', {name}), '%Y-%m-%dT%H:%M:%SZ') AS {name}"
            if "TIME ZONE" in kind
            else f'"{name}"'
            for name, kind, *_ in described
        )
        found = reading.execute(f"SELECT {columns} FROM read_parquet(?)", [str(path)])  # noqa: S608 - columns of ours
        names = [name for name, *_ in found.description or []]
        for row in found.fetchall():
            yield dict(zip(names, row, strict=True))


@pytest.mark.parametrize("form", ExportForm)
async def test_every_call_is_there_by_name_time_and_revision(
    ledger: DuckLedger, tmp_path: Path, form: ExportForm
) -> None:
    paths = await ledger.export(tmp_path / "out", form, lambda *_: None)
    assert {path.stem for path in paths} == _FILES
    assert sorted(paths) == sorted((tmp_path / "out").iterdir())
    expected: Counter[tuple[str, ...]] = Counter()
    for revision, current, candidates in (
        ("1", "superseded", _hours()[:1]),
        ("1", "current", [c for c in _hours()[1:] if c.calls]),
        ("2", "current", _hours(more=1)[:1]),
    ):
        for c in candidates:
            for part, log in (c.calls or {}).items():
                for key, count in log.tallies.items():
                    told = (c.kind.value, _start(part), str(part.first), *key, revision, current)
                    expected[tuple(map(str, told))] += count
    found: Counter[tuple[str, ...]] = Counter()
    for row in _rows(tmp_path / "out" / f"calls.{form.value}"):
        assert str(row["slot_minutes"]) == "15"
        told = (
            row["seal_kind"],
            row["slot_start"],
            str(row["at_slot_start"]).title(),
            *(row[name] for name in ("namespace", "service", "user", "country", "country_from")),
            row["kind"],
            row["result"],
            str(row["revision"]),
            "current" if str(row["current"]).title() == "True" else "superseded",
        )
        found[told] += int(row["calls"])
    assert found == expected


@pytest.mark.parametrize("form", ExportForm)
async def test_usage_inventories_and_seals_are_told_with_units(
    ledger: DuckLedger, tmp_path: Path, form: ExportForm
) -> None:
    await ledger.export(tmp_path, form, lambda *_: None)
    usage = list(_rows(tmp_path / f"usage.{form.value}"))
    sealed = [slot.usage for c in _hours() for slot in c.usage or ()]
    assert sum(float(row["cpu_core_seconds"] or 0) for row in usage) == pytest.approx(
        sum(sum((u.cpu_seconds or {}).values()) for u in sealed), abs=1e-6
    )
    assert sum(float(row["gpu_seconds"] or 0) for row in usage) == pytest.approx(
        sum(sum((u.gpu_seconds or {}).values()) for u in sealed)
    )
    # No service: what was measured of the slot at all.
    measured = [row for row in usage if not row["service"] and row["slot_start"] == _at(FIRST_HOUR)]
    assert [float(row["cpu_core_seconds"]) for row in measured] == [0.0]
    services = list(_rows(tmp_path / f"inventories.{form.value}"))
    assert [(row["service"], row["owner_name"]) for row in services] == [
        ("cowsay", "Alice Liddell"),
        ("demo", ""),
    ]
    allowed = services[1]["allowed_users"]
    assert allowed in (["alice@example.org", "carol"], '["alice@example.org","carol"]')
    owners = list(_rows(tmp_path / f"namespace_owners.{form.value}"))
    assert [row["owner"] for row in owners] == ["alice@example.org", "bob@example.org"]
    seals = list(_rows(tmp_path / f"seals.{form.value}"))
    assert len(seals) == 13
    first = min(seals, key=lambda row: (row["kind"], row["start"], int(row["revision"])))
    assert (first["kind"], first["start"]) == ("executions", _at(FIRST_HOUR))
    assert int(first["length_hours"]) == 1
    assert first["superseded_at"] > first["start"]


async def test_a_text_is_left_as_it_is(ledger: DuckLedger, tmp_path: Path) -> None:
    """Not even one that a spreadsheet takes for a formula, or one with quotes and line ends."""
    name = "=1+1,\"\n'x"
    candidate = hour_of(SealKind.EXECUTIONS, FIRST_HOUR + 9, random.Random(1))
    assert candidate.calls is not None
    for log in candidate.calls.values():
        for key in list(log.tallies):
            log.tallies[key._replace(user=name)] = log.tallies.pop(key)
    await ledger.seal([candidate], now_ns=_SEALED_NS + 2000)
    await ledger.export(tmp_path, ExportForm.CSV, lambda *_: None)
    assert name in {row["user"] for row in _rows(tmp_path / "calls.csv")}


async def test_a_file_that_is_there_is_not_touched(ledger: DuckLedger, tmp_path: Path) -> None:
    (tmp_path / "seals.csv").write_text("mine")
    with pytest.raises(LedgerError, match=r"^seals\.csv: already in the folder of the export"):
        await ledger.export(tmp_path, ExportForm.CSV, lambda *_: None)
    assert (tmp_path / "seals.csv").read_text() == "mine"
    assert not (tmp_path / "calls.csv").exists()


async def test_a_file_in_the_folders_place_is_said(ledger: DuckLedger, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(LedgerError, match="a file is in the place of its folder"):
        await ledger.export(tmp_path / "out", ExportForm.CSV, lambda *_: None)


async def test_progress_names_every_file(ledger: DuckLedger, tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    await ledger.export(tmp_path, ExportForm.CSV, lambda *step: told.append(step))
    assert [step[2] for step in told] == [
        "calls.csv",
        "usage.csv",
        "inventories.csv",
        "namespace_owners.csv",
        "seals.csv",
        "done",
    ]
    assert told[-1][:2] == (5, 5)


_LIMITED = """
import asyncio, pathlib, resource, signal, sys
from oscar_metrics.errors import LedgerError
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.store import ExportForm

async def main():
    ledger = DuckLedger.open(pathlib.Path(sys.argv[1]), create=False, memory_mb=128, threads=1)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
    try:
        await ledger.export(pathlib.Path(sys.argv[2]), ExportForm.CSV, lambda *_: None)
    except LedgerError as error:
        print(error)

asyncio.run(main())
"""


async def test_nothing_is_left_of_an_export_that_did_not_fit(
    ledger: DuckLedger, tmp_path: Path
) -> None:
    await ledger.aclose()
    out = tmp_path / "out"
    ran = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", _LIMITED, str(tmp_path / "ledger.duckdb"), str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.strip() == (
        "nothing was exported: one of its files would be larger than may be written there"
    ), ran.stderr
    assert list(out.iterdir()) == []


def _start(part: SlotPart) -> str:
    return datetime.fromtimestamp(part.slot * 900, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _at(hour: int) -> str:
    return datetime.fromtimestamp(hour * 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
