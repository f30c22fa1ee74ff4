"""Merges slots that have aged: quarter-hours into hours, then hours into days.

One call merges one stretch: one UTC day of one kind. What is merged is final, and only
its newest revision stays; `sealed_at` becomes that of the newest seal merged, so that an
`as_of` before it finds nothing sealed and is refused. Totals, distinct users and the
first instants of the longer slots are what they were, and so rollups stay right. Gaps are
carried over to the nanosecond.

A day is merged only when all its 24 hours are sealed: merging around a hole would turn an
hour that an archive can still fill into one that is lost, to save a few rows. Such a day
stays in hours. Inventories are left alone: they have no slots, an unchanged one is one row
already, and merging them would take away what was deployed as of an instant.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb
import msgspec

from oscar_metrics.ledger.duckdb_schema import CALLS_DIGEST, SEAL_KIND_CODES, USAGE_DIGEST
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import DAY_NS, Span, merge

# Lengths of slots, in quarter-hours.
_HOUR, _DAY = 4, 96
_USAGE = SEAL_KIND_CODES[SealKind.USAGE]
_INVENTORY = SEAL_KIND_CODES[SealKind.INVENTORY]

# What a seal says of its rows, over those rows.
COUNTED = {
    "calls": f"count(*) AS row_count, sum(count) AS total, {CALLS_DIGEST} AS digest",
    "usage": "count(*) AS row_count,"
    " sum(coalesce(cpu_core_ns, 0)::HUGEINT + coalesce(gpu_core_ns, 0)) AS total,"
    f" {USAGE_DIGEST} AS digest",
}


class _Stretch(msgspec.Struct, frozen=True, order=True):
    """A UTC day (number since the epoch) of one kind (its code) that has aged."""

    day: int
    kind: int
    into_day: bool


def compact(
    cursor: duckdb.DuckDBPyConnection, *, now_ns: int, quarters_kept_ns: int, hours_kept_ns: int
) -> int:
    """Merge the oldest stretch that has aged; how many are left.

    To be called within a transaction. 0 means that there is nothing more to be done.
    """
    due = _due(
        cursor,
        hours_before=(now_ns - min(quarters_kept_ns, hours_kept_ns)) // DAY_NS,
        days_before=(now_ns - hours_kept_ns) // DAY_NS,
    )
    if not due:
        return 0
    _merge(cursor, due[0])
    return len(due) - 1


def _due(
    cursor: duckdb.DuckDBPyConnection, *, hours_before: int, days_before: int
) -> list[_Stretch]:
    """Days before the one holding more than is kept at their grain, oldest first."""
    rows = cursor.execute(
        """
        SELECT hour // 24 AS day, kind,
               count(*) FILTER (superseded_at_ns IS NULL) = 24 AND day < $days_before AS whole
        FROM seals
        WHERE kind <> $inventory AND hours = 1 AND hour < $hours_before * 24
        GROUP BY day, kind
        HAVING whole OR bool_or(quarters < 4 OR superseded_at_ns IS NOT NULL)
        ORDER BY day, kind
        """,
        {
            "inventory": _INVENTORY,
            "hours_before": max(hours_before, days_before),
            "days_before": days_before,
        },
    ).fetchall()
    return [_Stretch(day, kind, whole) for day, kind, whole in rows]


def _merge(cursor: duckdb.DuckDBPyConnection, stretch: _Stretch) -> None:
    table = "usage" if stretch.kind == _USAGE else "calls"
    # What each seal of the day becomes: itself, or the first seal of the day.
    cursor.execute(
        """
        CREATE OR REPLACE TEMP TABLE ageing AS
        SELECT id, hour, superseded_at_ns IS NULL AS standing,
               CASE WHEN $into_day THEN first(id) OVER day ELSE id END AS becomes,
               CASE WHEN $into_day THEN $day * 24 ELSE hour END AS begins
        FROM seals
        WHERE kind = $kind AND hours = 1 AND hour // 24 = $day
        WINDOW day AS (ORDER BY superseded_at_ns IS NOT NULL, hour)
        """,
        {"kind": stretch.kind, "day": stretch.day, "into_day": stretch.into_day},
    )
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE merged AS {_MERGED[table]}")
    cursor.execute(f"DELETE FROM {table} WHERE seal_id IN (SELECT id FROM ageing)")  # noqa: S608 - SQL of ours
    cursor.execute(f"INSERT INTO {table} SELECT * FROM merged")  # noqa: S608 - SQL of ours
    if stretch.into_day:
        _describe_day(cursor)
    cursor.execute(
        "DELETE FROM seals WHERE id IN (SELECT id FROM ageing WHERE NOT standing OR id <> becomes)"
    )
    cursor.execute(
        "UPDATE seals SET quarters = ?, next_look_ns = NULL, row_count = 0, total = 0, digest = 0"
        " WHERE id IN (SELECT becomes FROM ageing)",
        [_DAY if stretch.into_day else _HOUR],
    )
    cursor.execute(
        f"""
        UPDATE seals SET row_count = found.row_count, total = found.total, digest = found.digest
        FROM (SELECT seal_id, {COUNTED[table]} FROM merged GROUP BY seal_id) AS found
        WHERE id = found.seal_id
        """  # noqa: S608 - SQL of ours
    )
    cursor.execute("DROP TABLE temp.merged")
    cursor.execute("DROP TABLE temp.ageing")


# The rows of the longer slots. Slot and part are those of the longer slot's beginning
# (four slots an hour, two parts a slot); only its own first instant stays apart.
_MERGED = {
    "calls": """
        SELECT becomes AS seal_id, begins * 8 + (part <> begins * 8)::INTEGER AS part,
               service_id, user_id, country_id, country_from, kind, result,
               sum(count)::INTEGER AS count
        FROM calls JOIN ageing ON seal_id = ageing.id
        WHERE standing GROUP BY ALL
        """,
    # A sum over nothing but NULL is NULL: what no slot measured stays unmeasured.
    "usage": """
        SELECT becomes AS seal_id, begins * 4 AS slot, service_id,
               sum(cpu_core_ns)::BIGINT AS cpu_core_ns, sum(gpu_core_ns)::BIGINT AS gpu_core_ns
        FROM usage JOIN ageing ON seal_id = ageing.id
        WHERE standing GROUP BY ALL
        """,
}


class _Hour(msgspec.Struct, frozen=True):
    """What a day's seal takes over from the seal of one of its hours; texts are JSON."""

    becomes: int
    sealed_at_ns: int
    looks: int
    revision: int
    origin: str
    method: str
    doubts: str
    measures: str
    notes: str
    gaps: str
    lines_seen: int
    lines_understood: int


def _describe_day(cursor: duckdb.DuckDBPyConnection) -> None:
    """Let the first hour's seal say what the seals of all hours of the day say together."""
    rows = cursor.execute(
        """
        SELECT becomes, sealed_at_ns, looks, revision, origin, method, doubts, measures, notes,
               gaps, lines_seen, lines_understood
        FROM seals JOIN ageing USING (id) WHERE standing ORDER BY ageing.hour
        """
    ).fetchall()
    hours = [_Hour(*row) for row in rows]
    gaps = _joined(gap for hour in hours for gap in _JSON_GAPS.decode(hour.gaps))
    measures = [_JSON_TEXTS.decode(hour.measures) for hour in hours if hour.doubts != "[]"]
    cursor.execute(
        """
        UPDATE seals SET hours = 24, sealed_at_ns = ?, looks = ?, revision = ?, origin = ?,
               method = ?, doubts = ?, measures = ?, notes = ?, gaps = ?, missing_ns = ?,
               lines_seen = ?, lines_understood = ?
        WHERE id = ?
        """,
        [
            max(hour.sealed_at_ns for hour in hours),
            max(hour.looks for hour in hours),
            max(hour.revision for hour in hours),
            _words(hour.origin for hour in hours),
            _words(hour.method for hour in hours),
            _texts(text for hour in hours for text in _JSON_TEXTS.decode(hour.doubts)),
            # No measures beside a doubt means all of them.
            _texts(text for texts in measures for text in texts) if all(measures) else "[]",
            _texts(text for hour in hours for text in _JSON_TEXTS.decode(hour.notes)),
            msgspec.json.encode(gaps).decode(),
            sum(span.length_ns for span in merge(gap.span for gap in gaps)),
            sum(hour.lines_seen for hour in hours),
            sum(hour.lines_understood for hour in hours),
            hours[0].becomes,
        ],
    )


_JSON_GAPS = msgspec.json.Decoder(list[Gap])
_JSON_TEXTS = msgspec.json.Decoder(list[str])


def _joined(gaps: Iterable[Gap]) -> list[Gap]:
    """The gaps in order, those of one reason that touch made one; exact, however many."""
    spans: dict[GapReason, list[Span]] = {}
    for gap in gaps:
        spans.setdefault(gap.reason, []).append(gap.span)
    joined = [Gap(span=span, reason=reason) for reason in spans for span in merge(spans[reason])]
    return sorted(joined, key=lambda gap: (gap.span, gap.reason))


def _words(texts: Iterable[str]) -> str:
    """Origins and methods are words joined by `+`: each of them once, in order."""
    return "+".join(sorted({word for text in texts for word in text.split("+") if word}))


def _texts(texts: Iterable[str]) -> str:
    """A JSON array of the different texts, in the order they first came in."""
    return msgspec.json.encode(list(dict.fromkeys(texts))).decode()
