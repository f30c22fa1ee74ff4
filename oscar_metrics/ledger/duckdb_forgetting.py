"""Forgets a user: the name gives way to a pseudonym, everywhere in the file.

The user keeps their number, so every total and every distinct count stays what it was. A
salted digest of the name is kept, so that the same user sealed later gets the same
pseudonym. Whoever has the file and guesses a name can therefore test the guess; nobody can
read the name out of it.

Replaced is the name where it stands as a whole: as a user, as the owner of a service or a
namespace (with the owner's display name), among a service's allowed users. A user's name
that is part of a service's or a namespace's own name stays, since reports find both by it.

An engine that is told to change a row leaves the old one in blocks it no longer uses, and
the smallest and the largest name in a column's statistics. So the tables are written anew,
and `scrub` overwrites every block that is free. What the file system, a backup or an
export keeps of earlier bytes is beyond reach.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping

import duckdb
import msgspec

from oscar_metrics.facts import Inventory

# Rows of one number that fill a block of the engine's, and blocks to fill beyond the free
# ones, since some are not filled wholly.
_BLOCK_ROWS = 262_144 // 8
_BLOCKS_MORE = 16
# A 64th of a block.
_NOTES_PART_BYTES = 4096


def forget(cursor: duckdb.DuckDBPyConnection, user: str) -> str | None:
    """Replace a user by a pseudonym; it, or None where the ledger does not know the user.

    To be called within a transaction, and followed by `scrub` when that is committed. A
    user forgotten before keeps the pseudonym.
    """
    # What is no Unicode is stored as `?`.
    user = user.encode(errors="replace").decode()
    known = pseudonyms(cursor, [user])
    named = _one(cursor, "SELECT id FROM users WHERE name = ?", user)
    inventories = _inventories_naming(cursor, user)
    owns = _one(cursor, "SELECT count(*) FROM owned WHERE owner = ?", user)
    if not user or (not known and named is None and not inventories and not owns):
        return None
    pseudonym = known.get(user) or _new_pseudonym(cursor)
    for table in ("users", "inventories"):
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE {table}_anew AS FROM {table}")
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE owned_anew AS"
        " SELECT DISTINCT namespace, service, if(owner = ?, ?, owner) AS owner FROM owned",
        [user, pseudonym],
    )
    if not known:
        user_id = named
        if user_id is None:
            user_id = cursor.execute("SELECT coalesce(max(id), 0) + 1 FROM users").fetchall()[0][0]
            cursor.execute("INSERT INTO users_anew VALUES (?, ?)", [user_id, pseudonym])
        cursor.execute("UPDATE users_anew SET name = ? WHERE id = ?", [pseudonym, user_id])
        digest = _digest(_salt(cursor), user)
        cursor.execute("INSERT INTO forgotten (digest, user_id) VALUES (?, ?)", [digest, user_id])
    for inventory_id, inventory in inventories.items():
        facts = msgspec.json.encode(pseudonymous(inventory, {user: pseudonym}))
        cursor.execute(
            "UPDATE inventories_anew SET facts = $2, digest = md5($2) WHERE id = $1",
            [inventory_id, facts.decode()],
        )
    for table in ("users", "inventories", "owned"):
        _replace(cursor, table)
    return pseudonym


def pseudonyms(cursor: duckdb.DuckDBPyConnection, users: Collection[str]) -> dict[str, str]:
    """Of these users those that were forgotten, and their pseudonyms."""
    names = cursor.execute(
        "SELECT digest, name FROM forgotten JOIN users ON users.id = user_id"
    ).fetchall()
    if not names:
        return {}
    by_digest = dict(names)
    salt = _salt(cursor)
    digests = {user: _digest(salt, user) for user in users}
    return {user: by_digest[digest] for user, digest in digests.items() if digest in by_digest}


def named_in(inventory: Inventory) -> set[str]:
    """Every user an inventory names."""
    named = {owner.owner for owner in inventory.owners}
    for service in inventory.services:
        named |= {service.owner, *service.allowed_users}
    return named - {""}


def pseudonymous(inventory: Inventory, names: Mapping[str, str]) -> Inventory:
    """The inventory with users replaced; an owner's display name goes with the owner."""
    if not names.keys() & named_in(inventory):
        return inventory
    replace = msgspec.structs.replace
    services = (
        replace(
            service,
            owner=names.get(service.owner, service.owner),
            owner_name=names.get(service.owner, service.owner_name),
            allowed_users=tuple(names.get(user, user) for user in service.allowed_users),
        )
        for service in inventory.services
    )
    owners = (
        replace(owner, owner=names.get(owner.owner, owner.owner)) for owner in inventory.owners
    )
    return replace(inventory, services=tuple(services), owners=tuple(owners))


def scrub(cursor: duckdb.DuckDBPyConnection) -> None:
    """Overwrite what is free in the file, which may hold what was there before.

    To be called outside a transaction; waits until no other transaction is running.
    """
    # Else notes of the engine's (statistics, for one) on tables that were replaced would stay
    # in blocks that hold those on other tables too.
    cursor.execute("SET GLOBAL experimental_metadata_reuse = false")
    try:
        cursor.execute("CREATE OR REPLACE TABLE scrubbing (filling UBIGINT)")
        cursor.execute("FORCE CHECKPOINT")
        _fill_notes(cursor)
        _fill_blocks(cursor)
        cursor.execute("DROP TABLE scrubbing")
        # What the first of them frees is given back to the file system by the second.
        cursor.execute("FORCE CHECKPOINT")
        cursor.execute("FORCE CHECKPOINT")
    finally:
        cursor.execute("RESET GLOBAL experimental_metadata_reuse")


def _fill_notes(cursor: duckdb.DuckDBPyConnection) -> None:
    """Overwrite the free parts of blocks with notes, which rows never fill; a comment does."""
    ((parts,),) = cursor.execute("SELECT sum(free_blocks) FROM pragma_metadata_info()").fetchall()
    cursor.execute(f"COMMENT ON TABLE scrubbing IS '{'-' * (int(parts) * _NOTES_PART_BYTES)}'")
    cursor.execute("FORCE CHECKPOINT")


def _fill_blocks(cursor: duckdb.DuckDBPyConnection) -> None:
    ((free,),) = cursor.execute("SELECT free_blocks FROM pragma_database_size()").fetchall()
    # Numbers that nothing compresses; the engine takes free blocks before it lets the file grow.
    cursor.execute(
        "INSERT INTO scrubbing SELECT hash(row) FROM range(?) AS rows(row)",
        [(int(free) + _BLOCKS_MORE) * _BLOCK_ROWS],
    )
    cursor.execute("FORCE CHECKPOINT")


def _inventories_naming(cursor: duckdb.DuckDBPyConnection, user: str) -> dict[int, Inventory]:
    rows = cursor.execute(
        "SELECT id, facts FROM inventories WHERE contains(facts, ?)",
        [msgspec.json.encode(user).decode()],
    ).fetchall()
    inventories = {row_id: msgspec.json.decode(facts, type=Inventory) for row_id, facts in rows}
    return {row_id: found for row_id, found in inventories.items() if user in named_in(found)}


def _replace(cursor: duckdb.DuckDBPyConnection, table: str) -> None:
    """Put a temporary table in a table's place.

    It is neither changed nor renamed: the engine (1.5) cannot open a file after a crash
    where its log renames a table that was changed in the same transaction.
    """
    ((definition,),) = cursor.execute(
        "SELECT sql FROM duckdb_tables() WHERE table_name = ? AND NOT temporary", [table]
    ).fetchall()
    cursor.execute(f"DROP TABLE {table}")
    cursor.execute(definition)
    cursor.execute(f"INSERT INTO {table} FROM temp.{table}_anew ORDER BY 1")
    cursor.execute(f"DROP TABLE temp.{table}_anew")


def _new_pseudonym(cursor: duckdb.DuckDBPyConnection) -> str:
    while True:
        pseudonym = f"forgotten-{secrets.token_hex(4)}"
        if _one(cursor, "SELECT id FROM users WHERE name = ?", pseudonym) is None:
            return pseudonym


def _salt(cursor: duckdb.DuckDBPyConnection) -> str:
    return str(cursor.execute("SELECT salt FROM ledger").fetchall()[0][0])


def _digest(salt: str, user: str) -> str:
    return hashlib.sha256(f"{salt}\0{user}".encode(errors="replace")).hexdigest()


def _one(cursor: duckdb.DuckDBPyConnection, question: str, parameter: str) -> int | None:
    row = cursor.execute(question, [parameter]).fetchone()
    return None if row is None else int(row[0])
