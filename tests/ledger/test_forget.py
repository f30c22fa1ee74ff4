from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from oscar_metrics.facts import LogStream
from oscar_metrics.findings import Level
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.duckdb_forgetting import forget, scrub
from oscar_metrics.ledger.duckdb_schema import migrate
from oscar_metrics.ledger.duckdb_sealing import seal
from oscar_metrics.ledger.seals import Candidate, Owns, SealKind, Verdict
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span
from tests.ledger.scenes import FIRST_HOUR, FIRST_NS, hour_of, inventory

_SEALED_NS = FIRST_NS + DAY_NS
_ALICE = "alice@example.org"
_BY = [("user",), ("service", "user"), ("country",)]


def _hours(first: int = FIRST_HOUR) -> list[Candidate]:
    return [hour_of(kind, first + n, random.Random(n)) for kind in SealKind for n in range(6)]


@pytest.fixture
async def ledger(tmp_path: Path) -> Any:
    opened = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=128, threads=1)
    await opened.seal(_hours(), now_ns=_SEALED_NS)
    yield opened
    await opened.aclose()


async def _sums(ledger: DuckLedger, hours: int = 6) -> dict[tuple[str, ...], dict[Any, int]]:
    found = await ledger.call_sums(
        LogStream.EXECUTIONS, [Span(FIRST_NS, FIRST_NS + hours * HOUR_NS)], _BY, rows_max=10_000
    )
    return {grouping: dict(counts) for grouping, counts in found.groups.items()}


async def test_totals_and_distinct_counts_are_what_they_were(ledger: DuckLedger) -> None:
    before = await _sums(ledger)
    pseudonym = await ledger.forget(_ALICE, now_ns=_SEALED_NS)
    assert pseudonym is not None
    renamed = {
        grouping: {
            tuple(pseudonym if field == _ALICE else field for field in key): count
            for key, count in counts.items()
        }
        for grouping, counts in before.items()
    }
    assert renamed != before
    assert await _sums(ledger) == renamed
    findings = await ledger.verify(lambda *_: None)
    assert [finding.level for finding in findings] == [Level.OK]


async def test_what_is_sealed_later_has_the_same_pseudonym(ledger: DuckLedger) -> None:
    pseudonym = await ledger.forget(_ALICE, now_ns=_SEALED_NS)
    await ledger.seal(_hours(FIRST_HOUR + 6), now_ns=_SEALED_NS + 1)
    users = (await _sums(ledger, hours=12))[("user",)]
    assert (_ALICE,) not in users
    assert (pseudonym,) in users
    judged = await ledger.seal(_hours(), now_ns=_SEALED_NS + 2)
    assert {one.verdict for one in judged} == {Verdict.SAME}


async def test_inventories_name_the_pseudonym(ledger: DuckLedger) -> None:
    pseudonym = await ledger.forget(_ALICE, now_ns=_SEALED_NS)
    found = await ledger.inventory(as_of_ns=_SEALED_NS)
    assert found is not None
    assert pseudonym is not None
    assert found[0] == inventory(pseudonym, pseudonym)
    assert (await ledger.owned()).owners == _owners(pseudonym, "bob@example.org")


async def test_owners_who_were_forgotten_stay_two(ledger: DuckLedger) -> None:
    both = [await ledger.forget(user, now_ns=_SEALED_NS) for user in (_ALICE, "bob@example.org")]
    # Whoever is sealed as an owner again is the one they were.
    await ledger.seal(_hours(FIRST_HOUR + 6), now_ns=_SEALED_NS + 1)
    owned = await ledger.owned()
    assert owned.owners == _owners(*both)
    assert len(owned.owners) == 4
    findings = await ledger.verify(lambda *_: None)
    assert [finding.level for finding in findings] == [Level.OK]


def _owners(cowsays: str | None, demos: str | None) -> frozenset[Owns]:
    """Of what `scenes.inventory` names."""
    return frozenset(
        Owns(namespace, service, owner or "")
        for namespace, name, owner in (
            ("oscar-svc", "cowsay", cowsays),
            ("oscar-svc-bob", "demo", demos),
        )
        for service in (name, "")
    )


async def test_the_pseudonym_says_nothing_and_stays(ledger: DuckLedger) -> None:
    pseudonym = await ledger.forget(_ALICE, now_ns=_SEALED_NS)
    assert pseudonym is not None
    assert pseudonym.removeprefix("forgotten-").isalnum()
    assert len(pseudonym) == len("forgotten-12345678")
    assert await ledger.forget(_ALICE, now_ns=_SEALED_NS) == pseudonym
    assert await ledger.pseudonyms([_ALICE, "carol"]) == {_ALICE: pseudonym}
    other = await ledger.forget("carol", now_ns=_SEALED_NS)
    assert other not in {pseudonym, None}
    assert await ledger.pseudonyms([_ALICE, "carol"]) == {_ALICE: pseudonym, "carol": other}


@pytest.mark.parametrize(
    "user", ["", "nobody", "ALICE@example.org", "alice", "'", "\ud800", "a\0b"]
)
async def test_who_is_not_known_is_not_forgotten(ledger: DuckLedger, user: str) -> None:
    assert await ledger.forget(user, now_ns=_SEALED_NS) is None
    assert (_ALICE,) in (await _sums(ledger))[("user",)]


async def test_an_owner_who_never_called_is_forgotten_too(ledger: DuckLedger) -> None:
    owned = Candidate(
        kind=SealKind.INVENTORY,
        hour=FIRST_HOUR + 9,
        origin="kubernetes",
        inventory=inventory("dora", "Dora"),
    )
    await ledger.seal([owned], now_ns=_SEALED_NS + 1)
    pseudonym = await ledger.forget("dora", now_ns=_SEALED_NS + 2)
    found = await ledger.inventory(as_of_ns=_SEALED_NS + 2)
    assert pseudonym is not None
    assert found is not None
    assert found[0] == inventory(pseudonym, pseudonym)


async def test_an_owner_whom_no_inventory_names_any_more_is_forgotten_too(tmp_path: Path) -> None:
    path = tmp_path / "ledger.duckdb"
    with duckdb.connect(str(path)) as connection:
        migrate(connection)
        connection.execute("INSERT INTO owned VALUES ('oscar-svc', 'old', 'dora')")
        connection.execute("INSERT INTO owned VALUES ('oscar-svc', '', 'pandora')")
    ledger = DuckLedger.open(path, create=False, memory_mb=128, threads=1)
    pseudonym = await ledger.forget("dora", now_ns=_SEALED_NS)
    assert pseudonym is not None
    assert (await ledger.owned()).owners == {
        Owns("oscar-svc", "old", pseudonym),
        Owns("oscar-svc", "", "pandora"),
    }
    assert await ledger.pseudonyms(["dora"]) == {"dora": pseudonym}
    await ledger.aclose()


async def test_reports_that_are_read_meanwhile_are_not_disturbed(ledger: DuckLedger) -> None:
    before = await _sums(ledger)
    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(_sums(ledger)) for _ in range(12)]
        group.create_task(ledger.forget("carol", now_ns=_SEALED_NS))
        reading += [group.create_task(_sums(ledger)) for _ in range(12)]
    for read in reading:
        for grouping, counts in read.result().items():
            assert sorted(counts.values()) == sorted(before[grouping].values())


@pytest.mark.parametrize("seed", range(4))
def test_no_byte_of_the_name_is_left_in_the_file(tmp_path: Path, seed: int) -> None:
    """Not in a block that is free, in statistics (where `aaron` is the smallest), or the log."""
    dice = random.Random(seed)
    names, kept = ("aaron", "Aaron A. Aaronson"), "zoe@example.org"
    path = tmp_path / "ledger.duckdb"
    connection = duckdb.connect(str(path))
    # So that names can be found at all.
    connection.execute("SET GLOBAL force_compression = 'uncompressed'")
    migrate(connection)
    for hour in range(FIRST_HOUR, FIRST_HOUR + dice.randrange(3, 20)):
        candidates = [hour_of(kind, hour, random.Random(hour)) for kind in SealKind]
        for log in (candidates[0].calls or {}).values():
            for n, key in enumerate(list(log.tallies)):
                log.tallies[key._replace(user=names[0] if n % 2 else kept)] = log.tallies.pop(key)
        services = inventory(names[0], names[1] if hour % 3 else names[1].upper())
        candidates[3] = Candidate(
            kind=SealKind.INVENTORY, hour=hour, origin="kubernetes", inventory=services
        )
        connection.execute("BEGIN")
        seal(connection, tmp_path / "rows", candidates, now_ns=_SEALED_NS)
        connection.execute("COMMIT")
        if dice.random() < 0.6:
            connection.execute("CHECKPOINT")
    connection.close()
    before = _bytes(path)
    assert all(before.count(name.encode()) for name in (*names, kept))

    connection = duckdb.connect(str(path))
    connection.execute("SET GLOBAL force_compression = 'uncompressed'")
    connection.execute("BEGIN")
    pseudonym = forget(connection, names[0])
    connection.execute("COMMIT")
    scrub(connection)
    tables = {name for (name,) in connection.execute("SHOW TABLES").fetchall()}
    connection.close()

    after = _bytes(path)
    assert pseudonym is not None
    assert all(after.count(name.encode()) for name in (pseudonym, kept))
    assert [name for name in names if name.encode() in after] == []
    assert names[1].upper().encode() not in after
    assert not tables & {"scrubbing"}
    assert len(after) < len(before) + 20 * 2**20


_KILLED = """
import os, sys, duckdb
from oscar_metrics.ledger.duckdb_forgetting import forget
connection = duckdb.connect(sys.argv[1])
connection.execute("BEGIN")
forget(connection, sys.argv[2])
connection.execute("COMMIT")
os.kill(os.getpid(), 9)
"""


async def test_a_process_that_dies_before_it_scrubbed_leaves_a_file_that_opens(
    ledger: DuckLedger, tmp_path: Path
) -> None:
    before = await _sums(ledger)
    await ledger.aclose()
    path = tmp_path / "ledger.duckdb"
    await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _KILLED, str(path), _ALICE], check=False
    )
    again = DuckLedger.open(path, create=False, memory_mb=128, threads=1)
    after = await _sums(again)
    pseudonym = await again.forget(_ALICE, now_ns=_SEALED_NS)
    assert [*(await again.pseudonyms([_ALICE])).values()] == [pseudonym]
    assert (pseudonym,) in after[("user",)]
    assert sorted(after[("user",)].values()) == sorted(before[("user",)].values())
    await again.aclose()


def _bytes(path: Path) -> bytes:
    """All that is in the folder of a ledger that is closed."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.iterdir()))
