"""The tables of the ledger's file, their version, and the way from every older version.

A file holds what its version says, and `migrate` brings it forward: each version is one
step from the one before, and a new file takes all of them. A released step is never
edited; tests/ledger/versions keeps a file of every version.

Words of the tables. A *part* is SlotPart(slot, first) as one number: 2 × slot for the first
nanosecond of a quarter-hour, 2 × slot + 1 for the rest of it. A row of a longer slot has
the parts of its first quarter-hour. Days and months are numbers since 1970-01 in UTC.
No table has an index: they would be read whole anyway, and cost every update. What is
unique is kept so by the only code that writes.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from types import MappingProxyType

import duckdb
import msgspec

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import CountryFrom, Kind, Result
from oscar_metrics.ledger.seals import SealKind

# Codes of what is stored as a number. Never renumbered: the files outlive this code.
SEAL_KIND_CODES = MappingProxyType(
    {
        SealKind.EXECUTIONS: 1,
        SealKind.EXPOSED: 2,
        SealKind.USAGE: 3,
        SealKind.INVENTORY: 4,
    }
)
KIND_CODES = MappingProxyType({Kind.SYNC: 1, Kind.ASYNC: 2, Kind.EXPOSED: 3})
RESULT_CODES = MappingProxyType({Result.OK: 1, Result.CLIENT_ERROR: 2, Result.SERVER_ERROR: 3})
COUNTRY_FROM_CODES = MappingProxyType(
    {
        CountryFrom.LABEL: 1,
        CountryFrom.GEOIP: 2,
        CountryFrom.ROSTER: 3,
        CountryFrom.NOTHING: 4,
        CountryFrom.CLAIM: 5,  # since version 3
    }
)

# `usage.service_id` of the one row each slot has beside its services': 0 for a measure that
# was taken of that slot, NULL for one that was not. It tells no usage from nothing measured.
MEASURED = 0

# The remainders that checksums are made of: by 2^31 - 1, so that products fit into 64 bits.
_MODULUS = 2_147_483_647
_MULTIPLIERS = (48_271, 1_226_874_159)


def _checksum(*values: str) -> str:
    """An aggregate over rows: two polynomials of a row's values side by side, all rows XORed.

    Plain arithmetic, so that it is the same in every version of the engine, and a quarter
    of the time MD5 takes. 0 for no rows at all.
    """
    halves = []
    for multiplier in _MULTIPLIERS:
        half = "7::BIGINT"
        for value in values:
            half = f"({half} * {multiplier} + {value}) % {_MODULUS}"
        halves.append(half)
    return f"coalesce(bit_xor((({halves[0]}) * 2147483648 + {halves[1]})::UBIGINT), 0)"


def _whole(value: str) -> tuple[str, str, str]:
    """A number of any size, or NULL, as values for `_checksum`."""
    return (
        f"({value} IS NULL)::INTEGER",
        f"coalesce(abs({value}) // {_MODULUS}, 0)",
        f"coalesce(abs({value}) % {_MODULUS}, 0)",
    )


# The checksum of a seal's rows, over ids and counts: forgetting a user leaves it as it is.
CALLS_DIGEST = _checksum(
    "part", "service_id", "user_id", "country_id", "country_from * 16 + kind * 4 + result", "count"
)
USAGE_DIGEST = _checksum("slot", "service_id", *_whole("cpu_core_ns"), *_whole("gpu_core_ns"))

_VERSION_1 = """
CREATE TABLE ledger (
    version INTEGER NOT NULL,
    salt VARCHAR NOT NULL                  -- of the digests in `forgotten`
);
CREATE TABLE services (id INTEGER NOT NULL, namespace VARCHAR NOT NULL, name VARCHAR NOT NULL);
CREATE TABLE users (id INTEGER NOT NULL, name VARCHAR NOT NULL);
CREATE TABLE countries (id INTEGER NOT NULL, code VARCHAR NOT NULL);
CREATE TABLE forgotten (
    digest VARCHAR NOT NULL,               -- of the salt and the name that was forgotten
    user_id INTEGER NOT NULL               -- whose name in `users` is now the pseudonym
);
CREATE TABLE inventories (
    id INTEGER NOT NULL,
    digest VARCHAR NOT NULL,               -- MD5 of `facts`, hexadecimal
    facts VARCHAR NOT NULL                 -- JSON of facts.Inventory
);
CREATE TABLE seals (
    id INTEGER NOT NULL,
    kind UTINYINT NOT NULL,                -- SEAL_KIND_CODES
    hour INTEGER NOT NULL,                 -- the first hour
    hours UTINYINT NOT NULL,               -- 1, or 24 where compaction merged a UTC day
    quarters UTINYINT NOT NULL,            -- length of its rows' slots: 1, 4 or 96
    revision INTEGER NOT NULL,             -- 1 for the first seal of an hour
    sealed_at_ns BIGINT NOT NULL,
    superseded_at_ns BIGINT,               -- NULL for the newest revision
    looks INTEGER NOT NULL,
    next_look_ns BIGINT,                   -- NULL when final
    origin VARCHAR NOT NULL,
    method VARCHAR NOT NULL,
    doubts VARCHAR NOT NULL,               -- JSON array of strings
    measures VARCHAR NOT NULL,             -- JSON array of outcome.Measure: what is in doubt
    notes VARCHAR NOT NULL,                -- JSON array of strings
    gaps VARCHAR NOT NULL,                 -- JSON array of outcome.Gap
    missing_ns BIGINT NOT NULL,            -- what the gaps take away in all
    lines_seen BIGINT NOT NULL,
    lines_understood BIGINT NOT NULL,
    row_count BIGINT NOT NULL,
    total HUGEINT NOT NULL,                -- calls; for usage CPU and GPU nanoseconds together
    digest UBIGINT NOT NULL,               -- CALLS_DIGEST or USAGE_DIGEST; 0 for an inventory
    inventory_id INTEGER                   -- of an inventory's seal only
);
CREATE TABLE calls (
    seal_id INTEGER NOT NULL,
    part INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    country_id INTEGER NOT NULL,
    country_from UTINYINT NOT NULL,        -- COUNTRY_FROM_CODES
    kind UTINYINT NOT NULL,                -- KIND_CODES
    result UTINYINT NOT NULL,              -- RESULT_CODES
    count INTEGER NOT NULL
);
CREATE TABLE usage (
    seal_id INTEGER NOT NULL,
    slot INTEGER NOT NULL,                 -- the first quarter-hour of the seal's `quarters`
    service_id INTEGER NOT NULL,           -- or MEASURED
    cpu_core_ns BIGINT,
    gpu_core_ns BIGINT
);
-- The newest revisions added up. A day or month is read from here while `rollups` lists it.
CREATE TABLE rollups (
    seal_kind UTINYINT NOT NULL,           -- executions, exposed or usage
    months BOOLEAN NOT NULL,               -- a month, or a day
    number INTEGER NOT NULL
);
CREATE TABLE call_days (
    seal_kind UTINYINT NOT NULL,
    day INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    country_id INTEGER NOT NULL,
    country_from UTINYINT NOT NULL,
    kind UTINYINT NOT NULL,
    result UTINYINT NOT NULL,
    count INTEGER NOT NULL
);
CREATE TABLE call_months (
    seal_kind UTINYINT NOT NULL,
    month INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    user_id INTEGER NOT NULL,
    country_id INTEGER NOT NULL,
    country_from UTINYINT NOT NULL,
    kind UTINYINT NOT NULL,
    result UTINYINT NOT NULL,
    count BIGINT NOT NULL
);
CREATE TABLE usage_days (
    day INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    cpu_core_ns BIGINT,
    gpu_core_ns BIGINT
);
CREATE TABLE usage_months (
    month INTEGER NOT NULL,
    service_id INTEGER NOT NULL,
    cpu_core_ns BIGINT,
    gpu_core_ns BIGINT
);
"""

_VERSION_2 = """
-- Every owner that an inventory ever named, each once.
CREATE TABLE owned (
    namespace VARCHAR NOT NULL,
    service VARCHAR NOT NULL,              -- blank: the namespace itself
    owner VARCHAR NOT NULL                 -- blank: the service's definition could not be read
);
"""


def _to_version_1(cursor: duckdb.DuckDBPyConnection) -> None:
    cursor.execute(_VERSION_1)


def _to_version_2(cursor: duckdb.DuckDBPyConnection) -> None:
    """Note the owners in every inventory; one after the other, since each may be large."""
    cursor.execute(_VERSION_2)
    owned: set[tuple[str, str, str]] = set()
    for inventory_id in cursor.execute("SELECT id FROM inventories").fetchall():
        ((facts,),) = cursor.execute(
            "SELECT facts FROM inventories WHERE id = ?", inventory_id
        ).fetchall()
        try:
            inventory = msgspec.json.decode(facts, type=_Inventory1)
        except msgspec.MsgspecError:
            continue  # `verify` says that it is damaged.
        owned |= {(one.namespace, one.name, one.owner) for one in inventory.services if one.name}
        owned |= {(one.namespace, "", one.owner) for one in inventory.owners}
    cursor.execute(
        "INSERT INTO owned SELECT one[1], one[2], one[3]"
        """ FROM (SELECT unnest(from_json(?, '[["VARCHAR"]]')) AS one)""",
        [msgspec.json.encode(sorted(owned)).decode()],
    )


def _to_version_3(_: duckdb.DuckDBPyConnection) -> None:
    """Countries by a claim: what a program of version 2 does not know, it must not open."""


class _Named1(msgspec.Struct):
    namespace: str
    owner: str
    name: str = ""


class _Inventory1(msgspec.Struct):
    """What version 2 needs of the JSON in `inventories.facts` of version 1."""

    services: list[_Named1]
    owners: list[_Named1]


# Step i brings a file of version i to version i + 1, within a transaction.
MIGRATIONS: tuple[Callable[[duckdb.DuckDBPyConnection], None], ...] = (
    _to_version_1,
    _to_version_2,
    _to_version_3,
)
VERSION = len(MIGRATIONS)


def migrate(cursor: duckdb.DuckDBPyConnection) -> None:
    """Bring the file to VERSION, or leave it as it was.

    Raises LedgerError for a file of a newer version, and for one that is no ledger.
    """
    found = _version(cursor)
    if found > VERSION:
        raise LedgerError(
            f"the ledger's file has version {found} and this program knows versions up to"
            f" {VERSION}: run the newer program that wrote it, or name another file"
        )
    if found == VERSION:
        return
    cursor.execute("BEGIN")
    try:
        for step in MIGRATIONS[found:]:
            step(cursor)
        if found == 0:
            cursor.execute("INSERT INTO ledger VALUES (?, ?)", [VERSION, secrets.token_hex(16)])
        else:
            cursor.execute("UPDATE ledger SET version = ?", [VERSION])
        cursor.execute("COMMIT")
    except duckdb.Error:
        cursor.execute("ROLLBACK")
        raise


def _version(cursor: duckdb.DuckDBPyConnection) -> int:
    """The version of an open file; 0 for an empty one."""
    tables = {name for (name,) in cursor.execute("SHOW TABLES").fetchall()}
    if not tables:
        return 0
    if "ledger" in tables:
        # All of it: a result that is not read to its end keeps a transaction open for good.
        rows = cursor.execute("SELECT version FROM ledger").fetchall()
        if len(rows) == 1 and isinstance(rows[0][0], int):
            return int(rows[0][0])
    raise LedgerError("the file is a database of something else: name another file for the ledger")
