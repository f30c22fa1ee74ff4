"""Every owner that an inventory ever named, kept beside the inventories.

Reports for somebody need all of them at once, and reading every inventory there was would
take longer the longer the ledger is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import msgspec

from oscar_metrics.facts import Inventory
from oscar_metrics.ledger.duckdb_schema import SEAL_KIND_CODES
from oscar_metrics.ledger.seals import UNKNOWN_MOST_NS, Owned, Owns, SealKind
from oscar_metrics.timerange import HOUR_NS, Span


def owned(cursor: duckdb.DuckDBPyConnection) -> Owned:
    """All of them, and of which hours; to be called within a transaction."""
    rows = cursor.execute("SELECT namespace, service, owner FROM owned").fetchall()
    # The hours in runs, a run being what is not too far from the hour before.
    runs = cursor.execute(
        """
        SELECT min(hour), max(hour) + 1
        FROM (SELECT hour, sum(apart) OVER (ORDER BY hour) AS run
              FROM (SELECT hour, coalesce(hour - lag(hour) OVER (ORDER BY hour) - 1, 0) > $most
                           AS apart
                    FROM (SELECT DISTINCT hour FROM seals WHERE kind = $kind)))
        GROUP BY run ORDER BY 1
        """,
        {
            "kind": SEAL_KIND_CODES[SealKind.INVENTORY],
            "most": UNKNOWN_MOST_NS // HOUR_NS,
        },
    ).fetchall()
    return Owned(
        owners=frozenset(Owns(*row) for row in rows),
        known=tuple(Span(first * HOUR_NS, stop * HOUR_NS) for first, stop in runs),
    )


def note_owners(cursor: duckdb.DuckDBPyConnection, inventory: Inventory) -> None:
    """Note who the owners in an inventory are, as far as that is news."""
    cursor.execute(
        """
        INSERT INTO owned
        FROM (SELECT one[1] AS namespace, one[2] AS service, one[3] AS owner
              FROM (SELECT unnest(from_json(?, '[["VARCHAR"]]')) AS one))
        ANTI JOIN owned USING (namespace, service, owner)
        """,
        [msgspec.json.encode(sorted(owners_in(inventory))).decode()],
    )


def inventories(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, str]]:
    """The digest and the facts, as JSON, of every inventory.

    One after the other: each may be large, and the engine reads those of a query together.
    """
    ids = cursor.execute("SELECT id FROM inventories ORDER BY id").fetchall()
    for inventory_id in ids:
        yield from cursor.execute(
            "SELECT digest, facts FROM inventories WHERE id = ?", inventory_id
        ).fetchall()


def owners_in(inventory: Inventory) -> set[Owns]:
    """Whose everything in an inventory is."""
    # No service is without a name, which would make its owner the namespace's.
    services = {Owns(one.namespace, one.name, one.owner) for one in inventory.services if one.name}
    return services | {Owns(one.namespace, "", one.owner) for one in inventory.owners}
