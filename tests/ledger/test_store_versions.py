"""DuckDB's file: every released version opens, and what cannot be opened is told in words."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import msgspec
import pytest

from oscar_metrics.errors import LedgerError, LedgerHeld
from oscar_metrics.facts import (
    Inventory,
    LogStream,
    NamespaceOwner,
    Service,
    ServiceKey,
    Usage,
)
from oscar_metrics.findings import Level
from oscar_metrics.ledger import duckdb_schema
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.duckdb_threads import Cursor, Threads
from oscar_metrics.ledger.seals import Owned, Owns, SealKind
from tests.ledger.stores import FIRST, NOW_NS, ROWS_MAX, executions, hours, roll_up_all, total

VERSIONS = Path(__file__).with_name("versions")
HOUR = hours(FIRST)


def opened(file: Path, *, create: bool = False) -> DuckLedger:
    return DuckLedger.open(file, create=create, memory_mb=64, threads=1)


def made(file: Path, sql: str) -> Path:
    with duckdb.connect(str(file)) as connection:
        connection.execute(sql)
    return file


@pytest.mark.parametrize("version", range(1, duckdb_schema.VERSION + 1))
async def test_a_file_of_every_version_answers_the_same(version: int, tmp_path: Path) -> None:
    file = made(tmp_path / "ledger.duckdb", (VERSIONS / f"{version}.sql").read_text())
    store = opened(file)
    sums = await store.call_sums(
        LogStream.EXECUTIONS, [HOUR], [("service", "user", "country")], rows_max=ROWS_MAX
    )
    pseudonym = (await store.pseudonyms(["ana", "bo"]))["ana"]
    assert sums.by("service", "user", "country") == {
        ("cowsay", pseudonym, "ES"): 1,
        ("yolo", "bo", ""): 2,
    }
    assert await total(store, hours(FIRST, 24)) == 3
    assert await total(store, HOUR, as_of_ns=NOW_NS) == 0
    assert await store.usage_sums([HOUR]) == {
        0: Usage(cpu_seconds={ServiceKey("oscar-svc", "yolo"): 0.5}, gpu_seconds=None)
    }
    then = await store.sealed(SealKind.EXECUTIONS, HOUR, as_of_ns=NOW_NS)
    assert (then.gaps[0].span, then.stretches[0].notes) == (HOUR, ("late",))
    found = await store.inventory(as_of_ns=NOW_NS + 3)
    assert found is not None
    assert found[0].services[0].owner == "bo"
    assert await store.owned() == Owned(
        owners=frozenset({Owns("oscar-svc", "yolo", "bo")}), known=(HOUR,)
    )
    assert {one.level for one in await store.verify(lambda *_: None)} == {Level.OK}
    await store.seal([executions(FIRST + 24)], now_ns=NOW_NS + 9)
    assert await roll_up_all(store) == 1
    await store.aclose()


@pytest.mark.parametrize("version", range(1, duckdb_schema.VERSION + 1))
def test_a_file_of_every_version_becomes_one_of_the_newest(version: int, tmp_path: Path) -> None:
    def columns(file: Path) -> list[tuple[object, ...]]:
        with duckdb.connect(str(file)) as connection:
            duckdb_schema.migrate(connection)
            return connection.execute(
                "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()"
                " WHERE NOT internal ORDER BY ALL"
            ).fetchall()

    old = made(tmp_path / "old.duckdb", (VERSIONS / f"{version}.sql").read_text())
    assert columns(old) == columns(tmp_path / "new.duckdb")


def test_version_2_knows_the_owners_in_every_inventory_that_can_be_read() -> None:
    def listed(owner: str) -> str:
        services = (
            Service(namespace="oscar-svc", name="cowsay", owner=owner),
            Service(namespace="oscar-svc", name="unread"),
            Service(namespace="oscar-svc", name="", owner="nobody's"),
        )
        owners = (NamespaceOwner(namespace="oscar-svc-ana", owner=owner),)
        return msgspec.json.encode(Inventory(services=services, owners=owners)).decode()

    odd = 'O\'Brien "x" \\ \n Ωμέγα\x00end'
    with duckdb.connect() as connection:
        duckdb_schema.MIGRATIONS[0](connection)
        connection.execute("INSERT INTO ledger VALUES (1, '')")
        for number, facts in enumerate(
            ['{"services', listed("ana"), "{}", listed("ana"), listed(odd)]
        ):
            connection.execute("INSERT INTO inventories VALUES (?, '', ?)", [number, facts])
        duckdb_schema.migrate(connection)
        found = connection.execute("FROM owned ORDER BY ALL").fetchall()
    assert found == sorted(
        [
            ("oscar-svc", "unread", ""),
            *(("oscar-svc", "cowsay", owner) for owner in ("ana", odd)),
            *(("oscar-svc-ana", "", owner) for owner in ("ana", odd)),
        ]
    )


def test_the_file_of_a_version_is_of_that_version() -> None:
    for number, file in enumerate(sorted(VERSIONS.glob("*.sql"), key=lambda f: int(f.stem)), 1):
        assert file.stem == str(number)
        assert f" ledger VALUES ({number}, " in file.read_text()
    assert number == duckdb_schema.VERSION


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "ledger.duckdb"
    asyncio.run(opened(file, create=True).aclose())
    made(file, "UPDATE ledger SET version = 77")
    with pytest.raises(LedgerError, match=r"version 77 .* up to 3: run the newer program"):
        opened(file)
    with duckdb.connect(str(file)) as connection:
        assert connection.execute("SELECT version FROM ledger").fetchall() == [(77,)]


def test_what_is_no_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    other = made(tmp_path / "other.duckdb", "CREATE TABLE mine AS SELECT 1 AS number")
    with pytest.raises(LedgerError, match="a database of something else"):
        opened(other, create=True)
    junk = tmp_path / "junk.duckdb"
    junk.write_bytes(b"not at all a database " * 1000)
    with pytest.raises(LedgerError, match="damaged or no ledger"):
        opened(junk, create=True)
    assert junk.read_bytes().startswith(b"not at all")
    with pytest.raises(LedgerError, match="a folder of that name"):
        opened(tmp_path, create=True)
    with duckdb.connect(str(other)) as connection:
        assert connection.execute("SHOW TABLES").fetchall() == [("mine",)]


def test_a_file_is_made_only_when_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "data" / "deep" / "ledger.duckdb"
    with pytest.raises(LedgerError, match="there is no ledger at"):
        opened(file)
    assert not file.parent.exists()
    asyncio.run(opened(file, create=True).aclose())
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["ledger.duckdb"]
    asyncio.run(opened(file).aclose())


def test_a_second_process_is_told_that_the_file_is_held(tmp_path: Path) -> None:
    file = tmp_path / "ledger.duckdb"
    store = opened(file, create=True)
    script = (
        "import sys; from pathlib import Path\n"
        "from oscar_metrics.ledger.duckdb import DuckLedger\n"
        "try: DuckLedger.open(Path(sys.argv[1]), create=True, memory_mb=64, threads=1)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    assert (
        done.stdout.strip() == f"{LedgerHeld.__name__} the ledger's file is open in another process"
    )
    asyncio.run(store.aclose())


async def test_cancelling_a_read_ends_it_and_a_write_is_undone(tmp_path: Path) -> None:
    threads = Threads.open(tmp_path / "ledger.duckdb", create=True, memory_mb=64, threads=1)
    begun = threading.Event()

    def endless(cursor: Cursor) -> None:
        cursor.execute("INSERT INTO countries VALUES (1, 'ES')")
        begun.set()
        cursor.execute("SELECT count(*) FROM range(1_000_000_000_000)").fetchall()

    task = asyncio.create_task(threads.write(endless))
    await asyncio.to_thread(begun.wait)
    # Readers do not wait for the writer, and see nothing of what is not written yet.
    assert await threads.read(count_countries) == 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await threads.write(count_countries) == 0
    await threads.aclose()


async def test_a_piece_of_work_sees_one_state_of_the_file(tmp_path: Path) -> None:
    threads = Threads.open(tmp_path / "ledger.duckdb", create=True, memory_mb=64, threads=1)
    looked, written = threading.Event(), threading.Event()

    def look_twice(cursor: Cursor) -> tuple[int, int]:
        before = count_countries(cursor)
        looked.set()
        written.wait()
        return before, count_countries(cursor)

    looking = asyncio.create_task(threads.read(look_twice))
    await asyncio.to_thread(looked.wait)
    await threads.write(lambda cursor: cursor.execute("INSERT INTO countries VALUES (1, 'ES')"))
    written.set()
    assert await looking == (0, 0)
    assert await threads.read(count_countries) == 1
    with pytest.raises(LedgerError, match="the ledger's engine failed"):
        await threads.write(fail_after_writing)
    assert await threads.read(count_countries) == 1
    await threads.aclose()


def count_countries(cursor: Cursor) -> int:
    return int(cursor.execute("SELECT count(*) FROM countries").fetchall()[0][0])


def fail_after_writing(cursor: Cursor) -> None:
    cursor.execute("INSERT INTO countries VALUES (2, 'FR')")
    cursor.execute("SELECT no_such_column FROM countries")
