"""Prints the SQL that makes a ledger's file of the newest version, with a little in it."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import duckdb

from oscar_metrics.facts import Inventory, Service, SlotPart
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.outcome import Gap, GapReason
from tests.ledger.stores import FIRST, NOW_NS, executions, hours, key, roll_up_all, slotted, used


async def fill(file: Path) -> None:
    """Make the file."""
    store = DuckLedger.open(file, create=True, memory_mb=64, threads=1)
    first, rest = SlotPart(FIRST * 4, first=True), SlotPart(FIRST * 4, first=False)
    missing = Gap(span=hours(FIRST), reason=GapReason.FAILED)
    await store.seal([executions(FIRST, {}, gaps=(missing,), notes=("late",))], now_ns=NOW_NS)
    calls = slotted({(first, key()): 1, (rest, key("yolo", "bo", country="")): 2}, unread=1)
    await store.seal([executions(FIRST, calls)], now_ns=NOW_NS + 1)
    others = [executions(FIRST + hour, {}) for hour in range(1, 24)]
    await store.seal([*others, used(FIRST, [{"yolo": 0.5}, None, {}, {}])], now_ns=NOW_NS + 2)
    deployed = Inventory(services=(Service(namespace="oscar-svc", name="yolo", owner="bo"),))
    inventory = Candidate(
        kind=SealKind.INVENTORY, hour=FIRST, origin="kubernetes", inventory=deployed
    )
    await store.seal([inventory], now_ns=NOW_NS + 3)
    await roll_up_all(store)
    await store.forget("ana", now_ns=NOW_NS + 4)
    await store.aclose()


def print_sql(file: Path) -> None:
    """The tables' definitions and their rows."""
    with duckdb.connect(str(file), read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_name, sql FROM duckdb_tables() ORDER BY table_name"
        ).fetchall()
        for table, definition in tables:
            print(definition)
            columns = connection.execute(f"SELECT * FROM {table} ORDER BY ALL")  # noqa: S608 - names of ours
            for row in columns.fetchall():
                print(f"INSERT INTO {table} VALUES ({', '.join(map(_literal, row))});")  # noqa: S608 - rows of ours


def _literal(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "ledger.duckdb"
        asyncio.run(fill(made))
        print_sql(made)
