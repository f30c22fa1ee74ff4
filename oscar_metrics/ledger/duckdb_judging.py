"""Judges candidates against the newest seals: who of the two has seen more.

All candidates are judged at once, in temporary tables:

    candidates (n, kind, hour, missing_ns, doubtful, inventory_id)   what is judged
    staged_calls, staged_usage                                     their rows (duckdb_rows.py)
    judged (n, seal_id, verdict, …)                                what came of it

A seal whose slots compaction has merged is compared at its own grain. One that holds a
whole day cannot be told from one hour of it, and is never replaced.
"""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

import duckdb

from oscar_metrics.ledger.duckdb_schema import MEASURED, SEAL_KIND_CODES
from oscar_metrics.ledger.seals import SealKind, Verdict

# Executions and exposed requests have the codes before it.
_USAGE_KIND = SEAL_KIND_CODES[SealKind.USAGE]
# Two usages differ when they are further apart than this; sources round.
_USAGE_ALIKE_NS = 1_000_000


def judge(cursor: duckdb.DuckDBPyConnection, *, now_ns: int) -> None:
    """Make the temporary table `judged`, a row for each of `candidates`."""
    cursor.execute(
        """
        CREATE OR REPLACE TEMP TABLE sealed_before AS
        SELECT n, c.kind, c.hour, c.missing_ns, c.doubtful, c.inventory_id, s.id AS seal_id,
               s.hours, s.quarters, s.revision, s.sealed_at_ns,
               s.missing_ns AS sealed_missing_ns, s.doubts <> '[]' AS sealed_doubtful,
               s.inventory_id AS sealed_inventory_id, s.lines_seen AS sealed_lines_seen
        FROM temp.candidates AS c
        LEFT JOIN (
            SELECT *, unnest(range(hour, hour + hours)) AS covers
            FROM seals WHERE superseded_at_ns IS NULL
        ) AS s ON s.kind = c.kind AND s.covers = c.hour
        """
    )
    ((calls, usage),) = cursor.execute(
        f"""
        SELECT coalesce(bool_or(kind < {_USAGE_KIND}), false),
               coalesce(bool_or(kind = {_USAGE_KIND}), false)
        FROM temp.sealed_before WHERE seal_id IS NOT NULL
        """
    ).fetchall()
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE compared"
        " (n INTEGER, more BOOLEAN, fewer BOOLEAN, otherwise BOOLEAN)"
    )
    if calls:
        cursor.execute(f"INSERT INTO temp.compared {_CALLS}")
    if usage:
        cursor.execute(_GRAINS)
        cursor.execute(f"INSERT INTO temp.compared {_USAGE}")
        cursor.execute("DROP TABLE temp.grains")
    cursor.execute(_VERDICTS, {"now_ns": now_ns})
    cursor.execute("DROP TABLE temp.compared")
    cursor.execute("DROP TABLE temp.sealed_before")


# Which of the two has more calls of any key. Country is no part of the key: it is fixed
# when sealed, and a database of countries that has changed since is no new evidence.
_CALLS = """
    SELECT n, bool_or(told > held) AS more, bool_or(told < held) AS fewer, false AS otherwise
    FROM (
        SELECT n, part, service_id, user_id, kind, result,
               sum(told) AS told, sum(held) AS held
        FROM (
            SELECT n, part // (2 * quarters) * (2 * quarters)
                   + (part % (2 * quarters) <> 0)::INTEGER AS part,
                   service_id, user_id, r.kind AS kind, result, count AS told, 0 AS held
            FROM temp.staged_calls AS r JOIN temp.sealed_before AS b
            ON r.seal_kind = b.kind AND r.part // 8 = b.hour
            WHERE seal_id IS NOT NULL
            UNION ALL
            SELECT n, part, service_id, user_id, r.kind, result, 0, count
            FROM calls AS r JOIN temp.sealed_before AS b USING (seal_id)
        )
        GROUP BY ALL
    )
    GROUP BY n
"""

# Slots of different lengths are compared over the longer one.
_GRAINS = f"""
    CREATE OR REPLACE TEMP TABLE grains AS
    SELECT n, b.hour, seal_id, max(greatest(b.quarters, r.quarters)) AS grain
    FROM temp.sealed_before AS b LEFT JOIN temp.staged_usage AS r ON slot // 4 = b.hour
    WHERE kind = {_USAGE_KIND} AND seal_id IS NOT NULL
    GROUP BY ALL
"""

# Which of the two has measured more, and whether any value they both have differs.
_USAGE = f"""
    SELECT n, bool_or(service_id = {MEASURED} AND (cpu IS NOT NULL AND held_cpu IS NULL
                      OR gpu IS NOT NULL AND held_gpu IS NULL)),
           bool_or(service_id = {MEASURED} AND (cpu IS NULL AND held_cpu IS NOT NULL
                   OR gpu IS NULL AND held_gpu IS NOT NULL)),
           bool_or(abs(coalesce(cpu, 0) - coalesce(held_cpu, 0)) > {_USAGE_ALIKE_NS}
                   OR abs(coalesce(gpu, 0) - coalesce(held_gpu, 0)) > {_USAGE_ALIKE_NS})
    FROM (
        SELECT n, slot, service_id, sum(cpu) AS cpu, sum(gpu) AS gpu,
               sum(held_cpu) AS held_cpu, sum(held_gpu) AS held_gpu
        FROM (
            SELECT n, slot // grain * grain AS slot, service_id, cpu_core_ns AS cpu,
                   gpu_core_ns AS gpu, NULL::BIGINT AS held_cpu, NULL::BIGINT AS held_gpu
            FROM temp.staged_usage JOIN temp.grains ON slot // 4 = hour
            UNION ALL
            SELECT n, slot // grain * grain, service_id, NULL, NULL, cpu_core_ns, gpu_core_ns
            FROM usage JOIN temp.grains USING (seal_id)
        )
        GROUP BY ALL
    )
    GROUP BY n
"""

# Calls count first, then coverage; of usage coverage counts first, since it may go down.
_VERDICTS = f"""
    CREATE OR REPLACE TEMP TABLE judged AS
    SELECT n, seal_id, hours, revision, sealed_lines_seen, CASE
        WHEN seal_id IS NULL THEN '{Verdict.SEALED}'
        WHEN sealed_at_ns > $now_ns THEN '{Verdict.REFUSED}'
        WHEN hours > 1 AND kind = {_USAGE_KIND} THEN '{Verdict.KEPT}'
        WHEN hours > 1 AND more THEN '{Verdict.AMBIGUOUS}'
        WHEN hours > 1 THEN '{Verdict.KEPT}'
        WHEN inventory_id <> sealed_inventory_id THEN '{Verdict.REVISED}'
        WHEN kind = {_USAGE_KIND} AND missing_ns < sealed_missing_ns
            THEN '{Verdict.REVISED}'
        WHEN kind = {_USAGE_KIND} AND missing_ns > sealed_missing_ns
            THEN '{Verdict.KEPT}'
        WHEN more AND fewer THEN '{Verdict.AMBIGUOUS}'
        WHEN more THEN '{Verdict.REVISED}'
        WHEN fewer THEN '{Verdict.KEPT}'
        WHEN missing_ns < sealed_missing_ns THEN '{Verdict.REVISED}'
        WHEN missing_ns > sealed_missing_ns THEN '{Verdict.KEPT}'
        WHEN sealed_doubtful AND NOT doubtful THEN '{Verdict.REVISED}'
        WHEN doubtful AND NOT sealed_doubtful THEN '{Verdict.KEPT}'
        WHEN otherwise THEN '{Verdict.REVISED}'
        ELSE '{Verdict.SAME}' END AS verdict
    FROM temp.sealed_before LEFT JOIN temp.compared USING (n)
"""
