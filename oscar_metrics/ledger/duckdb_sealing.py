"""Seals candidates, and imports: judged and written set by set, one hour or a whole archive."""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import duckdb
import msgspec
from msgspec import UNSET

from oscar_metrics.facts import Inventory
from oscar_metrics.ledger.duckdb_forgetting import named_in, pseudonymous, pseudonyms
from oscar_metrics.ledger.duckdb_judging import judge
from oscar_metrics.ledger.duckdb_names import hexadecimal
from oscar_metrics.ledger.duckdb_owners import note_owners
from oscar_metrics.ledger.duckdb_rollups import unroll
from oscar_metrics.ledger.duckdb_rows import (
    STAGED_CALLS,
    STAGED_USAGE,
    stage_calls,
    stage_usage,
)
from oscar_metrics.ledger.duckdb_schema import CALLS_DIGEST, SEAL_KIND_CODES, USAGE_DIGEST
from oscar_metrics.ledger.seals import Candidate, Judged, SealKind, Verdict
from oscar_metrics.outcome import Gap
from oscar_metrics.timerange import merge

_USAGE = SEAL_KIND_CODES[SealKind.USAGE]

# How many lines of an hour were seen, and how many understood.
Lines = dict[tuple[SealKind, int], tuple[int, int]]


def seal(
    cursor: duckdb.DuckDBPyConnection,
    rows_file: Path,
    candidates: Sequence[Candidate],
    *,
    now_ns: int,
) -> list[Judged]:
    """Judge candidates and write what has seen more; to be called within a transaction."""
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE staged_calls ({STAGED_CALLS})")
    logs = [(c.kind, c.calls) for c in candidates if c.calls]
    if logs:
        stage_calls(cursor, rows_file, "staged_calls", logs)
    lines = {
        (c.kind, c.hour): (
            sum(log.lines_seen for log in (c.calls or {}).values()),
            sum(log.lines_understood for log in (c.calls or {}).values()),
        )
        for c in candidates
    }
    return seal_staged(cursor, rows_file, candidates, lines, now_ns=now_ns)


def seal_staged(
    cursor: duckdb.DuckDBPyConnection,
    rows_file: Path,
    candidates: Sequence[Candidate],
    lines: Lines,
    *,
    now_ns: int,
) -> list[Judged]:
    """The same, where the calls are in `staged_calls`; one candidate for an hour of a kind."""
    if len({(c.kind, c.hour) for c in candidates}) < len(candidates):
        raise ValueError("two candidates for one hour of a kind")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE staged_usage ({STAGED_USAGE})")
    usage = [slot for c in candidates for slot in c.usage or ()]
    if usage:
        stage_usage(cursor, rows_file, usage)
    _stage_candidates(cursor, candidates, lines)
    judge(cursor, now_ns=now_ns)
    found = cursor.execute(
        "SELECT verdict, sealed_lines_seen FROM temp.judged ORDER BY n"
    ).fetchall()
    _write(cursor, now_ns)
    _look_again(cursor)
    for table in ("staged_calls", "staged_usage", "candidates", "judged"):
        cursor.execute(f"DROP TABLE temp.{table}")
    return [
        Judged(
            kind=c.kind,
            hour=c.hour,
            verdict=Verdict(verdict),
            lines_seen=lines.get((c.kind, c.hour), (0, 0))[0],
            sealed_lines_seen=sealed_lines_seen or 0,
        )
        for c, (verdict, sealed_lines_seen) in zip(candidates, found, strict=True)
    ]


# What a candidate says of itself, and its types; texts are in hexadecimal on their way.
_NUMBERS = (
    "n INTEGER, kind UTINYINT, hour INTEGER, quarters UTINYINT, looks INTEGER,"
    " next_look_ns BIGINT, missing_ns BIGINT, lines_seen BIGINT, lines_understood BIGINT,"
    " inventory_id INTEGER"
)
_TEXTS = ("origin", "method", "doubts", "measures", "notes", "gaps")


def _stage_candidates(
    cursor: duckdb.DuckDBPyConnection,
    candidates: Sequence[Candidate],
    lines: Lines,
) -> None:
    """Make the temporary table `candidates`."""
    encode = msgspec.json.encode
    inventories: dict[bytes, int] = {}
    rows = []
    for n, c in enumerate(candidates):
        inventory_id: int | None = None
        if c.inventory is not None:
            inventory = _canonical(cursor, c.inventory)
            facts = encode(inventory)
            if facts not in inventories:
                inventories[facts] = _inventory_id(cursor, facts.decode())
                note_owners(cursor, inventory)
            inventory_id = inventories[facts]
        seen, understood = lines.get((c.kind, c.hour), (0, 0))
        numbers = (
            n,
            SEAL_KIND_CODES[c.kind],
            c.hour,
            max((slot.quarters for slot in c.usage or ()), default=1),
            c.looks,
            c.next_look_ns,
            missing_ns(c.gaps),
            seen,
            understood,
            inventory_id,
        )
        texts = (
            c.origin.encode(errors="replace"),
            c.method.encode(errors="replace"),
            encode(c.doubts),
            encode(sorted(c.measures)),
            encode(c.notes),
            encode(c.gaps),
        )
        fields = ["" if number is None else str(number) for number in numbers]
        rows.append(",".join(fields + [text.hex() for text in texts]))
    names = [definition.split() for definition in _NUMBERS.split(",")]
    parts = [
        f"nullif(fields[{i}], '')::{type_} AS {name}" for i, (name, type_) in enumerate(names, 1)
    ]
    parts += [
        f"decode(unhex(fields[{i}])) AS {name}" for i, name in enumerate(_TEXTS, len(names) + 1)
    ]
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE candidates AS"
        f" SELECT {', '.join(parts)}, doubts <> '[]' AS doubtful"
        " FROM (SELECT string_split(unnest(string_split(?, ';')), ',') AS fields) LIMIT ?",
        [";".join(rows), len(rows)],
    )


def missing_ns(gaps: Iterable[Gap]) -> int:
    """How much gaps take away in all."""
    return sum(span.length_ns for span in merge(gap.span for gap in gaps))


def _canonical(cursor: duckdb.DuckDBPyConnection, inventory: Inventory) -> Inventory:
    """The inventory in one order, with nobody in it who was forgotten."""
    inventory = pseudonymous(inventory, pseudonyms(cursor, named_in(inventory)))
    return msgspec.structs.replace(
        inventory,
        services=tuple(sorted(inventory.services, key=lambda s: (s.namespace, s.name))),
        owners=tuple(sorted(inventory.owners, key=lambda o: (o.namespace, o.owner))),
        created_ns=UNSET,
    )


def _inventory_id(cursor: duckdb.DuckDBPyConnection, facts: str) -> int:
    """The number of an inventory, kept once however often it is sealed."""
    parameters = {"facts": hexadecimal(facts)}
    cursor.execute(
        """
        INSERT INTO inventories
        SELECT (SELECT coalesce(max(id), 0) + 1 FROM inventories), md5(facts), facts
        FROM (SELECT decode(unhex($facts)) AS facts)
        WHERE md5(facts) NOT IN (SELECT digest FROM inventories)
        """,
        parameters,
    )
    ((number,),) = cursor.execute(
        "SELECT id FROM inventories WHERE digest = md5(decode(unhex($facts)))", parameters
    ).fetchall()
    return int(number)


def _write(cursor: duckdb.DuckDBPyConnection, now_ns: int) -> None:
    """Write what was judged new or to have seen more, as the newest revisions."""
    cursor.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE accepted AS
        SELECT row_number() OVER (ORDER BY c.hour, c.kind)
               + (SELECT coalesce(max(id), 0) FROM seals) AS new_id, c.*, seal_id AS before,
               coalesce(revision, 0) + 1 AS new_revision
        FROM temp.candidates AS c JOIN temp.judged USING (n)
        WHERE verdict IN ('{Verdict.SEALED}', '{Verdict.REVISED}')
        """
    )
    ((first, any_before, usage),) = cursor.execute(
        f"SELECT min(new_id), count(before) > 0, bool_or(kind = {_USAGE}) FROM temp.accepted"
    ).fetchall()
    if first is not None:
        unroll(cursor, "SELECT kind, hour // 24 FROM temp.accepted")
        if any_before:
            cursor.execute(
                "UPDATE seals SET superseded_at_ns = ?"
                " WHERE id IN (SELECT before FROM temp.accepted)",
                [now_ns],
            )
        cursor.execute(_CALLS)
        if usage:
            cursor.execute(_USAGE_ROWS)
        counted = f"{_CALLS_COUNTED} UNION ALL {_USAGE_COUNTED}" if usage else _CALLS_COUNTED
        cursor.execute(
            f"{_SEALS} ({counted}) ON seal_id = new_id ORDER BY new_id",
            {"now_ns": now_ns, "first": first},
        )
    cursor.execute("DROP TABLE temp.accepted")


_CALLS = """
    INSERT INTO calls
    SELECT new_id, part, service_id, user_id, country_id, country_from, r.kind, result, count
    FROM temp.staged_calls AS r JOIN temp.accepted AS a
    ON r.seal_kind = a.kind AND r.part // 8 = a.hour
    ORDER BY part, service_id, user_id
"""
_USAGE_ROWS = f"""
    INSERT INTO usage
    SELECT new_id, slot, service_id, cpu_core_ns, gpu_core_ns
    FROM temp.staged_usage JOIN temp.accepted AS a ON a.kind = {_USAGE} AND slot // 4 = a.hour
    ORDER BY new_id, slot, service_id
"""
_CALLS_COUNTED = f"""
    SELECT seal_id, count(*) AS row_count, sum(count) AS total, {CALLS_DIGEST} AS digest
    FROM calls WHERE seal_id >= $first GROUP BY seal_id
"""
_USAGE_COUNTED = f"""
    SELECT seal_id, count(*), sum(coalesce(cpu_core_ns, 0)::HUGEINT + coalesce(gpu_core_ns, 0)),
           {USAGE_DIGEST}
    FROM usage WHERE seal_id >= $first GROUP BY seal_id
"""
_SEALS = """
    INSERT INTO seals BY NAME
    SELECT new_id AS id, kind, hour, 1 AS hours, quarters, new_revision AS revision,
           $now_ns AS sealed_at_ns, NULL AS superseded_at_ns, looks, next_look_ns, origin,
           method, doubts, measures, notes, gaps, missing_ns, lines_seen, lines_understood,
           coalesce(row_count, 0) AS row_count, coalesce(total, 0) AS total,
           coalesce(digest, 0) AS digest, inventory_id
    FROM temp.accepted LEFT JOIN
"""


def _look_again(cursor: duckdb.DuckDBPyConnection) -> None:
    """Note the looks of candidates that changed nothing; what compaction merged stays final.

    An import is a first look at files: it ends no series of looks at a source.
    """
    cursor.execute(
        f"""
        UPDATE seals SET looks = c.looks, next_look_ns = c.next_look_ns
        FROM (
            SELECT seal_id, c.looks, c.next_look_ns
            FROM temp.judged JOIN temp.candidates AS c USING (n)
            WHERE hours = 1
              AND verdict NOT IN ('{Verdict.SEALED}', '{Verdict.REVISED}')
        ) AS c
        WHERE id = c.seal_id AND c.looks > seals.looks
        """
    )
