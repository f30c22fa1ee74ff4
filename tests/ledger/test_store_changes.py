"""That whoever keeps what was read can tell whether it is still what is stored."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from oscar_metrics.facts import LogStream
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.store import LedgerStore
from tests.ledger.stores import FIRST, NOW_NS, ROWS_MAX, Opened, executions, hours


async def test_reading_is_no_change(store: LedgerStore) -> None:
    await store.seal([executions(FIRST)], now_ns=NOW_NS)
    changes, version = store.changes, await store.version()
    await store.call_sums(LogStream.EXECUTIONS, [hours(FIRST)], [("user",)], rows_max=ROWS_MAX)
    assert (store.changes, await store.version()) == (changes, version)


async def test_what_is_sealed_looked_at_or_forgotten_is_one(store: LedgerStore) -> None:
    changes, versions = [store.changes], [await store.version()]

    async def note() -> None:
        changes.append(store.changes)
        versions.append(await store.version())

    await store.seal([executions(FIRST, next_look_ns=NOW_NS)], now_ns=NOW_NS)
    await note()
    await store.seal([executions(FIRST, looks=2)], now_ns=NOW_NS)
    await note()
    assert await store.forget("ana", now_ns=NOW_NS) is not None
    await note()
    assert len({(each.written, each.forgotten) for each in changes}) == 4
    assert len({each.forgotten for each in changes[:3]}) == 1
    assert len({each.facts for each in versions[:3]}) == 3
    assert len({each.people for each in versions[:3]}) == 1
    assert versions[3].people != versions[2].people


async def test_the_version_of_what_has_not_changed_waits_for_no_reader(tmp_path: Path) -> None:
    store = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=64, threads=1)
    await store.seal([executions(FIRST)], now_ns=NOW_NS)
    version, may_end = await store.version(), threading.Event()
    more_than_there_are = 20
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        for _ in range(more_than_there_are):
            group.create_task(store._threads.read(lambda _: may_end.wait()))
        try:
            await asyncio.sleep(0)
            assert await store.version() == version
            await store.seal([executions(FIRST, looks=2)], now_ns=NOW_NS)
            anew = group.create_task(store.version())
            await asyncio.sleep(0)
            assert not anew.done()
        finally:
            may_end.set()
    assert anew.result() != version
    await store.aclose()


async def test_the_version_outlives_the_process(open_store: Opened, tmp_path: Path) -> None:
    first = open_store(tmp_path)
    await first.seal([executions(FIRST)], now_ns=NOW_NS)
    version = await first.version()
    await first.aclose()
    second = open_store(tmp_path)
    assert await second.version() == version
    await second.aclose()
