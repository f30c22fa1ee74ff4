"""Reads everything the ledger holds and compares it with what it says of itself.

Every seal's rows with its checksum, count and total; the seals of an hour with each other;
what rows refer to; the owners with the inventories that name them; days and months rolled
up with the slots they are sums of. Nothing is changed, and nothing is asked of any source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import duckdb
import msgspec

from oscar_metrics.facts import Inventory, Kind
from oscar_metrics.findings import Finding, Level
from oscar_metrics.ledger.duckdb_compaction import COUNTED
from oscar_metrics.ledger.duckdb_owners import inventories, owners_in
from oscar_metrics.ledger.duckdb_schema import (
    COUNTRY_FROM_CODES,
    KIND_CODES,
    MEASURED,
    RESULT_CODES,
    SEAL_KIND_CODES,
)
from oscar_metrics.ledger.seals import Owns, SealKind
from oscar_metrics.ledger.store import Progress
from oscar_metrics.outcome import Gap
from oscar_metrics.timerange import HOUR_NS, Span, format_instant, merge

_SOURCE = "ledger"
# Hours whose rows are looked at together: what is held at a time, and how often progress is told.
_HOURS_AT_ONCE = 31 * 24
_EXAMPLES = 5
_RESTORE = (
    "restore a copy of the file from before, or move the file aside and let a new one be"
    " filled from the sources and log archives"
)
_NAMES = {code: kind.value for kind, code in SEAL_KIND_CODES.items()}

# What a question finds wrong: an hour of a kind, or where it is, or neither.
_Wrong = tuple[int | None, int | None]
_Look = Callable[[], Iterable[tuple[str, _Wrong]]]


class _Found(msgspec.Struct, kw_only=True):
    """How often one thing was found wrong, and the first few places."""

    count: int = 0
    places: list[_Wrong] = []


def verify(cursor: duckdb.DuckDBPyConnection, progress: Progress) -> list[Finding]:
    """What is wrong with the ledger, each kind of fault once; one of level ok if nothing is.

    To be called within a transaction, so that it speaks of one state of the file.
    """
    ((first, last),) = cursor.execute("SELECT min(hour), max(hour) FROM seals").fetchall()
    hours = range((first or 0) // 24 * 24, 0 if last is None else last + 1, _HOURS_AT_ONCE)
    steps: list[tuple[str, _Look]] = [
        *(("reading rows", partial(_rows, cursor, hour, hour + hours.step)) for hour in hours),
        ("reading seals", partial(_asked, cursor, _SEAL_QUESTIONS)),
        ("reading gaps", partial(_gaps, cursor)),
        ("reading inventories", partial(_inventories, cursor)),
        ("reading names", partial(_asked, cursor, _NAME_QUESTIONS)),
        *(
            ("adding up days", partial(_sums, cursor, hour, hour + hours.step, months=False))
            for hour in hours
        ),
        ("adding up months", partial(_sums, cursor, 0, hours.stop, months=True)),
    ]
    found: dict[str, _Found] = {}
    for done, (doing, look) in enumerate(steps):
        progress(done, len(steps), doing)
        for says, place in look():
            fault = found.setdefault(says, _Found())
            fault.count += 1
            if len(fault.places) < _EXAMPLES and place not in fault.places:
                fault.places.append(place)
    progress(len(steps), len(steps), "done")
    if found:
        return [_finding(says, fault) for says, fault in found.items()]
    ((seals, rows),) = cursor.execute(
        "SELECT count(*), coalesce(sum(row_count), 0) FROM seals"
    ).fetchall()
    return [
        Finding(
            source=_SOURCE,
            level=Level.OK,
            says=f"{seals:,} seals with {rows:,} rows are as they were sealed, and add up",
        )
    ]


def _finding(says: str, fault: _Found) -> Finding:
    places = [
        f"{_NAMES.get(kind, f'kind {kind}')} of {format_instant(hour * HOUR_NS)}"
        for kind, hour in fault.places
        if kind is not None and hour is not None
    ]
    where = f": {', '.join(places)}" if places else ""
    more = (
        f" and {fault.count - len(places):,} more" if places and fault.count > len(places) else ""
    )
    return Finding(
        source=_SOURCE,
        level=Level.PROBLEM,
        says=f"{says} ({fault.count:,} times){where}{more}",
        change=_RESTORE,
    )


def _rows(cursor: duckdb.DuckDBPyConnection, first: int, stop: int) -> Iterable[tuple[str, _Wrong]]:
    """What is wrong with the rows of the seals of a stretch of hours."""
    for table, wrong in _ROWS_WRONG.items():
        cursor.execute(
            f"""
            WITH sealed AS (
                SELECT id, kind AS seal_kind, hour, hours, quarters FROM seals
                WHERE hour >= $first AND hour < $stop AND kind IN ({_KINDS_IN[table]})
            ), read AS (
                SELECT seal_id, {COUNTED[table]}, {wrong} AS wrong
                FROM {table} JOIN sealed ON id = seal_id GROUP BY seal_id
            )
            SELECT kind, hour, coalesce(wrong, ''),
                   seals.row_count <> coalesce(read.row_count, 0)
                   OR seals.total <> coalesce(read.total, 0)
                   OR seals.digest <> coalesce(read.digest, 0) AS differs
            FROM seals LEFT JOIN read ON id = seal_id
            WHERE id IN (SELECT id FROM sealed) AND (differs OR wrong <> '')
            ORDER BY ALL
            """,  # noqa: S608 - SQL of ours
            {"first": first, "stop": stop},
        )
        for kind, begins, says, differs in cursor.fetchall():
            if differs:
                yield "rows are not those that were sealed", (kind, begins)
            if says:
                yield says, (kind, begins)


_KINDS_IN = {
    "calls": f"{SEAL_KIND_CODES[SealKind.EXECUTIONS]}, {SEAL_KIND_CODES[SealKind.EXPOSED]}",
    "usage": f"{SEAL_KIND_CODES[SealKind.USAGE]}",
}


def _codes(codes: Iterable[int]) -> str:
    return f"({', '.join(map(str, codes))})"


# What is said of the rows of a seal, NULL where nothing is wrong with them.
_ROWS_WRONG = {
    "calls": f"""
        max(CASE
            WHEN part < hour * 8 OR part >= (hour + hours) * 8
                 OR part // 2 % quarters <> 0
            THEN 'rows are outside the slots of their seal'
            WHEN kind NOT IN {_codes(KIND_CODES.values())}
                 OR result NOT IN {_codes(RESULT_CODES.values())}
                 OR country_from NOT IN {_codes(COUNTRY_FROM_CODES.values())}
                 OR (kind = {KIND_CODES[Kind.EXPOSED]})
                    <> (seal_kind = {SEAL_KIND_CODES[SealKind.EXPOSED]})
                 OR count <= 0
            THEN 'rows hold what no seal ever holds'
            WHEN service_id NOT IN (SELECT id FROM services)
                 OR user_id NOT IN (SELECT id FROM users)
                 OR country_id NOT IN (SELECT id FROM countries)
            THEN 'rows refer to a service, user or country that is not there'
        END)
        """,  # noqa: S608 - SQL of ours
    "usage": f"""
        max(CASE
            WHEN slot < hour * 4 OR slot >= (hour + hours) * 4 OR slot % quarters <> 0
            THEN 'rows are outside the slots of their seal'
            WHEN cpu_core_ns < 0 OR gpu_core_ns < 0
            THEN 'rows hold what no seal ever holds'
            WHEN service_id <> {MEASURED} AND service_id NOT IN (SELECT id FROM services)
            THEN 'rows refer to a service, user or country that is not there'
        END)
        """,  # noqa: S608 - SQL of ours
}


def _asked(
    cursor: duckdb.DuckDBPyConnection, questions: dict[str, str]
) -> Iterable[tuple[str, _Wrong]]:
    for says, question in questions.items():
        for place in cursor.execute(question).fetchall():
            yield says, place


# Questions answer with what is wrong: a seal's kind and hour each.
_SEAL_QUESTIONS = {
    "an hour is sealed twice over": """
        SELECT kind, of_hour FROM (
            SELECT kind, unnest(range(hour, hour + hours)) AS of_hour
            FROM seals WHERE superseded_at_ns IS NULL)
        GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL
        """,
    "an hour was sealed and no revision of it stands": """
        SELECT kind, hour FROM seals GROUP BY ALL
        HAVING count(*) FILTER (superseded_at_ns IS NULL) = 0 ORDER BY ALL
        """,
    # What compaction has merged keeps only its newest revision, which may be revised again.
    "a revision between others is not there": """
        SELECT kind, hour FROM seals GROUP BY ALL
        HAVING count(DISTINCT revision) <> count(*)
            OR max(revision) - min(revision) + 1 <> count(*)
            OR min(revision) > 1 AND arg_min(quarters, revision) = 1
        ORDER BY ALL
        """,
    "a revision does not begin when the one before it ended": """
        SELECT kind, hour FROM (
            SELECT kind, hour, superseded_at_ns,
                   lead(sealed_at_ns) OVER (PARTITION BY kind, hour ORDER BY revision) AS next_ns
            FROM seals)
        WHERE superseded_at_ns IS DISTINCT FROM next_ns ORDER BY ALL
        """,
    "more lines were understood than seen": """
        SELECT kind, hour FROM seals WHERE lines_understood > lines_seen ORDER BY ALL
        """,
    "a seal is of no hour, kind or length there is": f"""
        SELECT kind, hour FROM seals
        WHERE kind NOT IN {_codes(SEAL_KIND_CODES.values())}
           OR (hours, quarters) NOT IN ((1, 1), (1, 4), (24, 96))
           OR hours = 24 AND hour % 24 <> 0
           OR (inventory_id IS NULL) <> (kind <> {SEAL_KIND_CODES[SealKind.INVENTORY]})
        ORDER BY ALL
        """,  # noqa: S608 - SQL of ours
    "a seal refers to an inventory that is not there": """
        SELECT kind, hour FROM seals
        WHERE inventory_id IS NOT NULL AND inventory_id NOT IN (SELECT id FROM inventories)
        ORDER BY ALL
        """,
}
_NAME_QUESTIONS = {
    "rows belong to a seal that is not there": """
        SELECT NULL, NULL FROM (
            SELECT DISTINCT seal_id FROM calls UNION SELECT DISTINCT seal_id FROM usage)
        WHERE seal_id NOT IN (SELECT id FROM seals)
        """,
    "a number or a name is given to two services": """
        SELECT NULL, NULL FROM services GROUP BY id HAVING count(*) > 1
        UNION ALL
        SELECT NULL, NULL FROM services GROUP BY namespace, name HAVING count(*) > 1
        """,
    "a number or a name is given to two users": """
        SELECT NULL, NULL FROM users GROUP BY id HAVING count(*) > 1
        UNION ALL SELECT NULL, NULL FROM users GROUP BY name HAVING count(*) > 1
        """,
    "a number or a name is given to two countries": """
        SELECT NULL, NULL FROM countries GROUP BY id HAVING count(*) > 1
        UNION ALL SELECT NULL, NULL FROM countries GROUP BY code HAVING count(*) > 1
        """,
    "a number is given to two seals": """
        SELECT NULL, NULL FROM seals GROUP BY id HAVING count(*) > 1
        """,
    "an owner is listed twice": """
        SELECT NULL, NULL FROM owned GROUP BY namespace, service, owner HAVING count(*) > 1
        """,
    "a user who was forgotten has no pseudonym": """
        SELECT NULL, NULL FROM forgotten WHERE user_id NOT IN (SELECT id FROM users)
        """,
}


def _gaps(cursor: duckdb.DuckDBPyConnection) -> Iterable[tuple[str, _Wrong]]:
    cursor.execute(
        "SELECT kind, hour, hours, missing_ns, gaps FROM seals"
        " WHERE missing_ns <> 0 OR gaps <> '[]' ORDER BY hour, kind"
    )
    for kind, hour, hours, missing_ns, text in _in_batches(cursor):
        whole = Span(hour * HOUR_NS, (hour + hours) * HOUR_NS)
        try:
            spans = merge(gap.span for gap in msgspec.json.decode(text, type=list[Gap]))
        except msgspec.MsgspecError:
            yield "the gaps of a seal cannot be read", (kind, hour)
            continue
        if sum(span.length_ns for span in spans) != missing_ns or any(
            span.clip(whole) != span for span in spans
        ):
            yield "the gaps of a seal are not what it says is missing", (kind, hour)


def _inventories(cursor: duckdb.DuckDBPyConnection) -> Iterable[tuple[str, _Wrong]]:
    listed = cursor.execute("SELECT namespace, service, owner FROM owned").fetchall()
    unlisted: set[Owns] = set()
    for digest, facts in inventories(cursor):
        same = hashlib.md5(facts.encode(), usedforsecurity=False).hexdigest() == digest
        try:
            unlisted |= owners_in(msgspec.json.decode(facts, type=Inventory))
        except msgspec.MsgspecError:
            same = False
        if not same:
            yield "an inventory is not what was sealed", (None, None)
    for _ in unlisted.difference(map(Owns._make, listed)):
        yield "an owner in an inventory is not among those the ledger knows", (None, None)


def _in_batches(cursor: duckdb.DuckDBPyConnection) -> Iterable[tuple[Any, ...]]:
    while batch := cursor.fetchmany(1000):
        yield from batch


def _sums(
    cursor: duckdb.DuckDBPyConnection, first: int, stop: int, *, months: bool
) -> Iterable[tuple[str, _Wrong]]:
    """Days or months listed in `rollups` that are not what the standing seals add up to."""
    word = "month" if months else "day"
    # The number of the day or month that an hour is of, and the first hour of a number.
    number, begins = _MONTHS if months else ("hour // 24", "number * 24")
    calls, usage = (f"call_{word}s", f"usage_{word}s")
    kind = SEAL_KIND_CODES[SealKind.USAGE]
    for table, rolled, seal_kind, key, sums, held in (
        ("calls", calls, "seal_kind", _CALL_KEY, "sum(count)::BIGINT", "count::BIGINT"),
        ("usage", usage, f"{kind} AS seal_kind", "service_id", _USAGE_SUMS, _USAGE_HELD),
    ):
        cursor.execute(
            f"""
            WITH listed AS (
                SELECT seal_kind, number FROM rollups
                WHERE months = $months AND {begins} >= $first AND {begins} < $stop
            ), sealed AS (
                SELECT id, kind AS seal_kind, {number} AS number FROM seals
                WHERE superseded_at_ns IS NULL AND hour >= $first AND hour < $stop
            ), summed AS (
                SELECT seal_kind, number, {key}, {sums}
                FROM (SELECT {table}.*, sealed.* FROM {table} JOIN sealed ON id = seal_id)
                SEMI JOIN listed USING (seal_kind, number) GROUP BY ALL
            ), held AS (
                SELECT * FROM (SELECT {seal_kind}, {word} AS number, {key}, {held} FROM {rolled})
                SEMI JOIN listed USING (seal_kind, number)
            )
            SELECT DISTINCT seal_kind, {begins} FROM (
                (FROM summed EXCEPT ALL FROM held) UNION ALL (FROM held EXCEPT ALL FROM summed))
            ORDER BY ALL
            """,  # noqa: S608 - SQL of ours
            {"months": months, "first": first, "stop": stop},
        )
        for place in cursor.fetchall():
            yield f"the sums of a {word} are not those of its slots", place


_MONTHS = (
    "date_diff('month', DATE '1970-01-01', DATE '1970-01-01' + hour // 24)",
    "date_diff('hour', DATE '1970-01-01', DATE '1970-01-01' + to_months(number))",
)
_CALL_KEY = "service_id, user_id, country_id, country_from, kind, result"
_USAGE_SUMS = "sum(cpu_core_ns)::BIGINT, sum(gpu_core_ns)::BIGINT"
_USAGE_HELD = "cpu_core_ns, gpu_core_ns"
