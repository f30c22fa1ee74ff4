"""Days and months of newest revisions added up, so that long reports read little.

A day or month stands while `rollups` lists it. Whoever seals anything of one strikes it
off in the same transaction; `roll_up` makes those that are due, days whose every hour is
sealed and months whose every day stands.
"""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

import duckdb

from oscar_metrics.ledger.duckdb_calendar import month_days
from oscar_metrics.ledger.duckdb_schema import SEAL_KIND_CODES
from oscar_metrics.ledger.seals import SealKind

_USAGE = SEAL_KIND_CODES[SealKind.USAGE]
_INVENTORY = SEAL_KIND_CODES[SealKind.INVENTORY]

# The month of a day, by the numbers both have.
_MONTH = (
    "((year(DATE '1970-01-01' + day) - 1970) * 12 + month(DATE '1970-01-01' + day) - 1)::INTEGER"
)


def roll_up(cursor: duckdb.DuckDBPyConnection) -> int:
    """Roll up the oldest day or month that is due; how many are left.

    To be called within a transaction.
    """
    due = _due(cursor)
    if not due:
        return 0
    kind, months, number = due[0]
    table = "usage" if kind == _USAGE else "call"
    if months:
        days = month_days(number)
        cursor.execute(
            _MONTHS[table], {"kind": kind, "number": number, "first": days[0], "last": days[-1]}
        )
    else:
        cursor.execute(_DAYS[table], {"kind": kind, "number": number})
    cursor.execute("INSERT INTO rollups VALUES (?, ?, ?)", [kind, months, number])
    # The last day of a month makes the month due.
    return len(_due(cursor))


def unroll(cursor: duckdb.DuckDBPyConnection, days: str) -> None:
    """Strike off every day a query gives as (kind, day), and its month."""
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE struck AS
        SELECT DISTINCT seal_kind, months, number
        FROM (SELECT seal_kind, false AS months, day AS number FROM ({days}) AS d (seal_kind, day)
              UNION ALL
              SELECT seal_kind, true, {_MONTH} FROM ({days}) AS d (seal_kind, day))
        JOIN rollups USING (seal_kind, months, number)
        """
    )
    ((any_struck,),) = cursor.execute("SELECT count(*) > 0 FROM temp.struck").fetchall()
    if any_struck:
        for months, unit in ((False, "day"), (True, "month")):
            struck = f"temp.struck WHERE months = {months}"
            cursor.execute(
                f"DELETE FROM call_{unit}s WHERE (seal_kind, {unit}) IN"
                f" (SELECT (seal_kind, number) FROM {struck})"
            )
            cursor.execute(
                f"DELETE FROM usage_{unit}s WHERE {unit} IN"
                f" (SELECT number FROM {struck} AND seal_kind = {_USAGE})"
            )
        cursor.execute(
            "DELETE FROM rollups WHERE (seal_kind, months, number) IN"
            " (SELECT (seal_kind, months, number) FROM temp.struck)"
        )
    cursor.execute("DROP TABLE temp.struck")


def standing(
    cursor: duckdb.DuckDBPyConnection, kind: SealKind
) -> tuple[frozenset[int], frozenset[int]]:
    """The months and the days that are rolled up."""
    rows = cursor.execute(
        "SELECT months, number FROM rollups WHERE seal_kind = ?", [SEAL_KIND_CODES[kind]]
    ).fetchall()
    return (
        frozenset(number for months, number in rows if months),
        frozenset(number for months, number in rows if not months),
    )


def _due(cursor: duckdb.DuckDBPyConnection) -> list[tuple[int, bool, int]]:
    """(kind, whether a month, number) of what can be rolled up: days first, oldest first."""
    return cursor.execute(
        f"""
        WITH days AS (
            SELECT kind, (hour // 24)::INTEGER AS day
            FROM seals WHERE superseded_at_ns IS NULL AND kind <> {_INVENTORY}
            GROUP BY ALL HAVING sum(hours) = 24
        ), months AS (
            SELECT seal_kind AS kind, {_MONTH} AS month
            FROM (SELECT seal_kind, number AS day FROM rollups WHERE NOT months)
            GROUP BY ALL
            HAVING count(*) = day(last_day(DATE '1970-01-01' + min(day)))
        )
        SELECT kind, months, number FROM (
            SELECT kind, false AS months, day AS number FROM days
            UNION ALL SELECT kind, true, month FROM months
        ) AS d
        ANTI JOIN rollups AS r
        ON r.seal_kind = d.kind AND r.months = d.months AND r.number = d.number
        ORDER BY months, number, kind
        """
    ).fetchall()


_DAYS = {
    "call": """
        INSERT INTO call_days
        SELECT $kind, $number, service_id, user_id, country_id, country_from, kind, result,
               sum(count)
        FROM calls
        WHERE part >= $number * 192 AND part < $number * 192 + 192 AND seal_id IN (
            SELECT id FROM seals
            WHERE kind = $kind AND hour // 24 = $number AND superseded_at_ns IS NULL
        )
        GROUP BY ALL ORDER BY ALL
        """,
    "usage": """
        INSERT INTO usage_days
        SELECT $number, service_id, sum(cpu_core_ns), sum(gpu_core_ns)
        FROM usage
        WHERE slot >= $number * 96 AND slot < $number * 96 + 96 AND seal_id IN (
            SELECT id FROM seals
            WHERE kind = $kind AND hour // 24 = $number AND superseded_at_ns IS NULL
        )
        GROUP BY ALL ORDER BY ALL
        """,
}
_MONTHS = {
    "call": """
        INSERT INTO call_months
        SELECT $kind, $number, service_id, user_id, country_id, country_from, kind, result,
               sum(count)
        FROM call_days WHERE seal_kind = $kind AND day BETWEEN $first AND $last
        GROUP BY ALL ORDER BY ALL
        """,
    "usage": """
        INSERT INTO usage_months
        SELECT $number, service_id, sum(cpu_core_ns), sum(gpu_core_ns)
        FROM usage_days WHERE day BETWEEN $first AND $last AND $kind IS NOT NULL
        GROUP BY ALL ORDER BY ALL
        """,
}
