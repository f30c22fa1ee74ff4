"""Puts archives together in temporary tables; the engine counts."""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import duckdb

from oscar_metrics.facts import CallKey, LogStream, SlotPart
from oscar_metrics.ledger.duckdb_rows import (
    PAIRS,
    STAGED_CALLS,
    coded,
    lines_of,
    load,
    load_lines,
    reading,
    written,
)
from oscar_metrics.ledger.duckdb_schema import SEAL_KIND_CODES
from oscar_metrics.ledger.duckdb_sealing import Lines, seal_staged
from oscar_metrics.ledger.duckdb_threads import Threads
from oscar_metrics.ledger.seals import KIND_OF, Candidate, Judged, SealKind
from oscar_metrics.ledger.store import NumberedCalls
from oscar_metrics.timerange import HOUR_NS, SLOT_NS

_SLOTS = HOUR_NS // SLOT_NS


class DuckImport:
    """Calls in temporary tables of the writing thread, until they are sealed."""

    def __init__(self, threads: Threads, rows_file: Path) -> None:
        self._threads = threads
        self._rows_file = rows_file
        self._lines: Lines = {}
        self._keys: dict[SealKind, Sequence[CallKey]] = {}
        self._parts: set[tuple[int, int]] = set()
        # Parts that came more than once, of which a key may have several rows.
        self._repeated: set[tuple[int, int]] = set()

    async def add(
        self, stream: LogStream, keys: Sequence[CallKey], parts: Mapping[SlotPart, NumberedCalls]
    ) -> None:
        """Add calls by the numbers of their keys."""
        kind = KIND_OF[stream]
        begins = not self._keys
        self._keys[kind] = keys
        await self._threads.write(lambda cursor: self._add(cursor, kind, parts, begins=begins))
        for part, calls in parts.items():
            hour = kind, part.slot // _SLOTS
            seen, understood = self._lines.get(hour, (0, 0))
            self._lines[hour] = seen + calls.lines_seen, understood + len(calls.numbers)
            coded_part = SEAL_KIND_CODES[kind], _number_of(part)
            (self._repeated if coded_part in self._parts else self._parts).add(coded_part)

    async def seal(self, candidates: Iterable[Candidate], *, now_ns: int) -> list[Judged]:
        """Judge and seal the hours."""
        listed = list(candidates)
        return await self._threads.write(lambda cursor: self._seal(cursor, listed, now_ns))

    def _add(
        self,
        cursor: duckdb.DuckDBPyConnection,
        kind: SealKind,
        parts: Mapping[SlotPart, NumberedCalls],
        *,
        begins: bool,
    ) -> None:
        if begins:
            cursor.execute(
                "CREATE OR REPLACE TEMP TABLE imported"
                " (seal_kind UTINYINT, part INTEGER, pair INTEGER, count INTEGER)"
            )
        lines = (
            lines_of(_number_of(part), map(str, calls.numbers))
            for part, calls in parts.items()
            if calls.numbers
        )
        with written(self._rows_file, lines):
            cursor.execute(
                f"""
                INSERT INTO temp.imported
                SELECT {SEAL_KIND_CODES[kind]}, part, pair, count(*)
                FROM {reading("part INTEGER, pair INTEGER")} GROUP BY ALL
                """,
                [str(self._rows_file)],
            )

    def _seal(
        self, cursor: duckdb.DuckDBPyConnection, candidates: Sequence[Candidate], now_ns: int
    ) -> list[Judged]:
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE staged_calls ({STAGED_CALLS})")
        if self._keys:
            self._stage(cursor, candidates)
        return seal_staged(cursor, self._rows_file, candidates, self._lines, now_ns=now_ns)

    def _stage(self, cursor: duckdb.DuckDBPyConnection, candidates: Sequence[Candidate]) -> None:
        """Bring what was added of the candidates' hours into `staged_calls`, a row for each key."""
        hours = [(SEAL_KIND_CODES[c.kind], c.hour) for c in candidates]
        load(cursor, self._rows_file, "asked", "seal_kind UTINYINT, hour INTEGER", hours)
        pairs = {
            kind: {(key, 1): str(number) for number, key in enumerate(keys)}
            for kind, keys in self._keys.items()
        }
        load_lines(cursor, self._rows_file, "pairs", PAIRS, coded(cursor, pairs))
        # Users who were forgotten may have become one.
        ((alike,),) = cursor.execute(
            "SELECT count(*) - (SELECT count(*) FROM (SELECT DISTINCT * EXCLUDE (pair)"
            " FROM temp.pairs)) FROM temp.pairs"
        ).fetchall()
        repeated = self._parts if alike else self._repeated
        columns = "seal_kind UTINYINT, part INTEGER"
        load(cursor, self._rows_file, "repeated", columns, sorted(repeated))
        rows = """
            SELECT i.seal_kind, part, service_id, user_id, country_id, country_from, kind, result,
                   i.count AS count
            FROM temp.imported AS i
            SEMI JOIN temp.asked AS a ON i.seal_kind = a.seal_kind AND part // 8 = hour
            JOIN temp.pairs AS p ON p.seal_kind = i.seal_kind AND p.pair = i.pair
        """
        cursor.execute(
            f"""
            INSERT INTO temp.staged_calls
            FROM ({rows}) ANTI JOIN temp.repeated USING (seal_kind, part)
            UNION ALL
            SELECT * REPLACE (sum(count)::INTEGER AS count)
            FROM ({rows}) SEMI JOIN temp.repeated USING (seal_kind, part)
            GROUP BY ALL
            """
        )
        for table in ("asked", "pairs", "repeated", "imported"):
            cursor.execute(f"DROP TABLE temp.{table}")


def _number_of(part: SlotPart) -> int:
    return 2 * part.slot + (not part.first)
