"""Every owner that an inventory ever named, kept beside the inventories.

Reports for somebody need all of them at once, and reading every inventory there was would
take longer the longer the ledger is kept.
"""

from __future__ import annotations

import duckdb

from oscar_metrics.ledger.duckdb_schema import SEAL_KIND_CODES
from oscar_metrics.ledger.seals import Owned, Owns, SealKind
from oscar_metrics.timerange import HOUR_NS


def owned(cursor: duckdb.DuckDBPyConnection) -> Owned:
    """All of them, and since when; to be called within a transaction."""
    rows = cursor.execute("SELECT namespace, service, owner FROM owned").fetchall()
    ((hour,),) = cursor.execute(
        "SELECT min(hour) FROM seals WHERE kind = ?", [SEAL_KIND_CODES[SealKind.INVENTORY]]
    ).fetchall()
    return Owned(
        owners=frozenset(Owns(*row) for row in rows),
        since_ns=None if hour is None else hour * HOUR_NS,
    )


def note_owners(cursor: duckdb.DuckDBPyConnection, inventory_id: int) -> None:
    """Note who the owners in an inventory are, as far as that is news."""
    cursor.execute(
        """
        INSERT INTO owned
        FROM (
            SELECT one.namespace, one.name AS service, one.owner
            FROM (SELECT unnest(from_json(facts->'services',
                  '[{"namespace": "VARCHAR", "name": "VARCHAR", "owner": "VARCHAR"}]')) AS one
                  FROM inventories WHERE id = $id)
            WHERE one.name <> '' -- which would stand for the namespace
            UNION
            SELECT one.namespace, '', one.owner
            FROM (SELECT unnest(from_json(facts->'owners',
                  '[{"namespace": "VARCHAR", "owner": "VARCHAR"}]')) AS one
                  FROM inventories WHERE id = $id)
        ) ANTI JOIN owned USING (namespace, service, owner)
        """,
        {"id": inventory_id},
    )
