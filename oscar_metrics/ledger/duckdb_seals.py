"""What the ledger says of its seals: heads, stretches and gaps, inventories, restatements."""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import duckdb
import msgspec

from oscar_metrics.errors import LedgerChanged
from oscar_metrics.facts import Inventory
from oscar_metrics.ledger.duckdb_schema import SEAL_KIND_CODES
from oscar_metrics.ledger.seals import Restated, Sealed, SealHead, SealKind, Stretch
from oscar_metrics.ledger.store import Version
from oscar_metrics.outcome import Gap, Measure
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span

_KINDS = {code: kind for kind, code in SEAL_KIND_CODES.items()}


def version(cursor: duckdb.DuckDBPyConnection) -> Version:
    """Which state it is: every write makes, merges or looks at seals, or forgets somebody."""
    row = cursor.execute(
        """
        SELECT (SELECT first(salt) FROM ledger), (SELECT count(*) FROM forgotten),
               count(*), max(id), sum(looks) FROM seals
        """
    ).fetchone()
    salt, forgotten, *seals = row or ("",)
    return Version(people=_digest(salt, forgotten), facts=_digest(salt, *seals))


def heads(cursor: duckdb.DuckDBPyConnection, kind: SealKind, span: Span) -> list[SealHead]:
    """The newest seal of every sealed hour that touches the span, in order.

    Of a day that compaction has merged each hour has the day's revision and looks; its
    lines and what is missing are told of the first hour.
    """
    rows = cursor.execute(
        """
        SELECT hour + nth AS hour, revision, sealed_at_ns, looks, next_look_ns, origin, method,
               if(nth = 0, missing_ns, 0), if(nth = 0, lines_seen, 0),
               if(nth = 0, lines_understood, 0)
        FROM (SELECT *, unnest(range(hours)) AS nth FROM seals
              WHERE kind = $kind AND superseded_at_ns IS NULL
              AND hour < $stop AND hour + hours > $first)
        WHERE hour + nth >= $first AND hour + nth < $stop
        ORDER BY ALL
        """,
        {"kind": SEAL_KIND_CODES[kind], **_hours(span)},
    ).fetchall()
    return [
        SealHead(
            kind=kind,
            hour=hour,
            revision=revision,
            sealed_at_ns=sealed_at_ns,
            looks=looks,
            next_look_ns=next_look_ns,
            origin=origin,
            method=method,
            missing_ns=missing_ns,
            lines_seen=lines_seen,
            lines_understood=lines_understood,
        )
        for (
            hour,
            revision,
            sealed_at_ns,
            looks,
            next_look_ns,
            origin,
            method,
            missing_ns,
            lines_seen,
            lines_understood,
        ) in rows
    ]


def sealed(
    cursor: duckdb.DuckDBPyConnection, kind: SealKind, span: Span, *, as_of_ns: int | None
) -> Sealed:
    """What is sealed of the hours that touch the span, adjacent alike hours as one stretch."""
    known = (
        "superseded_at_ns IS NULL"
        if as_of_ns is None
        else "sealed_at_ns <= $as_of_ns"
        " AND (superseded_at_ns IS NULL OR superseded_at_ns > $as_of_ns)"
    )
    parameters = {"kind": SEAL_KIND_CODES[kind], **_hours(span)}
    if as_of_ns is not None:
        parameters["as_of_ns"] = as_of_ns
    touching = f"kind = $kind AND {known} AND hour < $stop AND hour + hours > $first"
    # Alike seals lie side by side while they end as much later as they hold hours.
    rows = cursor.execute(
        f"""
        SELECT min(hour), max(hour + hours), quarters, origin, method, doubts, measures, notes,
               final, whole, min(sealed_at_ns), max(sealed_at_ns), sum(lines_seen)::BIGINT,
               sum(lines_understood)::BIGINT
        FROM (
            SELECT *, hour + hours - sum(hours) OVER (
                PARTITION BY quarters, origin, method, doubts, measures, notes, final, whole
                ORDER BY hour
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS island
            FROM (SELECT *, next_look_ns IS NULL AS final, missing_ns = 0 AS whole
                  FROM seals WHERE {touching})
        )
        GROUP BY island, quarters, origin, method, doubts, measures, notes,
                 final, whole
        ORDER BY 1
        """,
        parameters,
    ).fetchall()
    gaps = cursor.execute(
        f"SELECT gaps FROM seals WHERE {touching} AND missing_ns > 0 ORDER BY hour",
        parameters,
    ).fetchall()
    return Sealed(
        stretches=tuple(map(_stretch, rows)),
        gaps=tuple(gap for (listed,) in gaps for gap in _GAPS.decode(listed)),
    )


def check_stored(
    cursor: duckdb.DuckDBPyConnection,
    kind: SealKind,
    spans: Sequence[Span],
    bounds_ns: Sequence[int],
    *,
    as_of_ns: int | None,
) -> None:
    """Raise LedgerChanged where an end or bound cuts a slot, or what was known then is no more.

    What a report reads was planned in another transaction. Compaction may have come between,
    which merges slots and drops what they were as of an earlier instant.
    """
    asked = ", ".join(f"({span.start_ns}, {span.stop_ns})" for span in spans)
    edges = {edge for span in spans for edge in (span.start_ns, span.stop_ns)}
    edges |= {bound for bound in bounds_ns if any(bound in span for span in spans)}
    cuts = ", ".join(f"({edge})" for edge in edges)
    since_ns = (1 << 62) if as_of_ns is None else as_of_ns
    # Usage can be sealed in hours from the beginning; then they are no sign of anything.
    grain_ns = HOUR_NS if kind is SealKind.USAGE else SLOT_NS
    (changed,) = cursor.execute(
        f"""
        WITH merged AS (
            SELECT hour::BIGINT * {HOUR_NS} AS start_ns,
                   (hour + hours)::BIGINT * {HOUR_NS} AS stop_ns,
                   quarters::BIGINT * {SLOT_NS} AS slot_ns, sealed_at_ns
            FROM seals
            WHERE kind = {SEAL_KIND_CODES[kind]} AND superseded_at_ns IS NULL AND quarters > 1
            AND hour * {HOUR_NS}::BIGINT < {spans[-1].stop_ns}
            AND (hour + hours) * {HOUR_NS}::BIGINT > {spans[0].start_ns}
        )
        SELECT EXISTS (FROM (VALUES {cuts}) AS edges(at_ns), merged
                       WHERE start_ns < at_ns AND at_ns < stop_ns AND at_ns % slot_ns > 1)
            OR EXISTS (FROM (VALUES {asked}) AS asked(first_ns, last_ns), merged
                       WHERE start_ns < last_ns AND first_ns < stop_ns
                       AND sealed_at_ns > {since_ns} AND slot_ns > {grain_ns})
        """
    ).fetchall()[0]
    if changed:
        raise LedgerChanged("the ledger was tidied up while it was read")


def inventory(cursor: duckdb.DuckDBPyConnection, *, as_of_ns: int) -> tuple[Inventory, int] | None:
    """The newest inventory that had been sealed at an instant, and when it was."""
    row = cursor.execute(
        """
        SELECT facts, sealed_at_ns FROM seals JOIN inventories ON inventories.id = inventory_id
        WHERE kind = ? AND sealed_at_ns <= ?
        ORDER BY hour DESC, revision DESC LIMIT 1
        """,
        [SEAL_KIND_CODES[SealKind.INVENTORY], as_of_ns],
    ).fetchone()
    if row is None:
        return None
    facts, sealed_at_ns = row
    return msgspec.json.decode(facts, type=Inventory), sealed_at_ns


def restated(
    cursor: duckdb.DuckDBPyConnection,
    kinds: Collection[SealKind],
    span: Span,
    *,
    since_ns: int,
    most: int,
) -> list[Restated]:
    """The hours that were known at an instant and have been sealed anew since, oldest first."""
    codes = [SEAL_KIND_CODES[kind] for kind in kinds if kind is not SealKind.INVENTORY]
    if not codes:
        return []
    rows = cursor.execute(
        f"""
        WITH pairs AS (
            SELECT now.kind, now.hour, now.hours, now.sealed_at_ns, was.id AS was_id,
                   now.id AS now_id, was.total AS was_total, now.total AS now_total
            FROM seals AS now JOIN seals AS was ON was.kind = now.kind AND was.hour = now.hour
            WHERE now.superseded_at_ns IS NULL AND now.sealed_at_ns > $since_ns
              AND was.sealed_at_ns <= $since_ns AND was.superseded_at_ns > $since_ns
              AND now.kind IN ({", ".join(map(str, codes))})
              AND now.hour < $stop AND now.hour + now.hours > $first
            ORDER BY now.hour, now.kind LIMIT $most
        ), cpu AS (
            SELECT seal_id, sum(cpu_core_ns) AS cpu_ns FROM usage
            WHERE seal_id IN (SELECT unnest([was_id, now_id]) FROM pairs) GROUP BY seal_id
        )
        SELECT kind, hour, hours, sealed_at_ns, was_total::DOUBLE, now_total::DOUBLE,
               coalesce(was_cpu.cpu_ns, 0)::DOUBLE, coalesce(now_cpu.cpu_ns, 0)::DOUBLE
        FROM pairs LEFT JOIN cpu AS was_cpu ON was_cpu.seal_id = was_id
        LEFT JOIN cpu AS now_cpu ON now_cpu.seal_id = now_id
        ORDER BY hour, kind
        """,
        {"since_ns": since_ns, "most": most, **_hours(span)},
    ).fetchall()
    return [
        Restated(
            kind=_KINDS[kind],
            span=Span(hour * HOUR_NS, (hour + hours) * HOUR_NS),
            sealed_at_ns=sealed_at_ns,
            was=was_cpu_ns / HOUR_NS if _KINDS[kind] is SealKind.USAGE else was,
            now=now_cpu_ns / HOUR_NS if _KINDS[kind] is SealKind.USAGE else now,
        )
        for kind, hour, hours, sealed_at_ns, was, now, was_cpu_ns, now_cpu_ns in rows
    ]


_GAPS = msgspec.json.Decoder(tuple[Gap, ...])
_STRINGS = msgspec.json.Decoder(tuple[str, ...])
_MEASURES = msgspec.json.Decoder(frozenset[Measure])


def _hours(span: Span) -> dict[str, int]:
    return {"first": span.start_ns // HOUR_NS, "stop": -(-span.stop_ns // HOUR_NS)}


def _stretch(row: tuple[Any, ...]) -> Stretch:
    (
        hour,
        stop,
        quarters,
        origin,
        method,
        doubts,
        measures,
        notes,
        final,
        whole,
        first_sealed_at_ns,
        last_sealed_at_ns,
        lines_seen,
        lines_understood,
    ) = row
    return Stretch(
        span=Span(hour * HOUR_NS, stop * HOUR_NS),
        quarters=quarters,
        origin=origin,
        method=method,
        doubts=_STRINGS.decode(doubts),
        measures=_MEASURES.decode(measures),
        notes=_STRINGS.decode(notes),
        final=final,
        whole=whole,
        first_sealed_at_ns=first_sealed_at_ns,
        last_sealed_at_ns=last_sealed_at_ns,
        lines_seen=lines_seen,
        lines_understood=lines_understood,
    )


def _digest(*parts: object) -> str:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()
