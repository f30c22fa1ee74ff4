"""Brings calls and usage from Python into temporary tables of the ledger's engine.

Rows go through a file of numbers beside the ledger: handing them over as parameters costs
the engine a hundred times as long.
"""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import duckdb

from oscar_metrics.facts import CallKey, ServiceKey, SlottedLog, SlotUsage
from oscar_metrics.ledger.duckdb_names import country_ids, service_ids, user_ids
from oscar_metrics.ledger.duckdb_schema import (
    COUNTRY_FROM_CODES,
    KIND_CODES,
    MEASURED,
    RESULT_CODES,
    SEAL_KIND_CODES,
)
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.timerange import SECOND_NS

# The columns of staged rows: those of `calls` and `usage`, with what tells the seal.
STAGED_CALLS = (
    "seal_kind UTINYINT, part INTEGER, service_id INTEGER, user_id INTEGER, country_id INTEGER,"
    " country_from UTINYINT, kind UTINYINT, result UTINYINT, count INTEGER"
)
PAIRS = (
    "pair INTEGER, seal_kind UTINYINT, service_id INTEGER, user_id INTEGER, country_id INTEGER,"
    " country_from UTINYINT, kind UTINYINT, result UTINYINT, count INTEGER"
)
STAGED_USAGE = (
    "slot INTEGER, quarters UTINYINT, service_id INTEGER, cpu_core_ns BIGINT, gpu_core_ns BIGINT"
)


def load(
    cursor: duckdb.DuckDBPyConnection,
    rows_file: Path,
    table: str,
    columns: str,
    rows: Iterable[Sequence[int]],
) -> None:
    """Make a temporary table of rows of integers; `columns` as a table's definition has them."""
    line = ",".join(["%d"] * (columns.count(",") + 1)) + "\n"
    load_lines(cursor, rows_file, table, columns, (line % tuple(row) for row in rows))


def load_lines(
    cursor: duckdb.DuckDBPyConnection,
    rows_file: Path,
    table: str,
    columns: str,
    lines: Iterable[str],
) -> None:
    """The same, of rows that are lines already: the numbers and commas between them."""
    with written(rows_file, lines):
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS FROM {reading(columns)}", [str(rows_file)]
        )


def stage_calls(
    cursor: duckdb.DuckDBPyConnection,
    rows_file: Path,
    table: str,
    logs: Iterable[tuple[SealKind, SlottedLog]],
) -> None:
    """Add calls to a temporary table of STAGED_CALLS, which is there.

    Few keys and counts make up many rows: each pair is looked up once, as the text of its
    number, and a row is that number and its part.
    """
    number = map(str, count())
    pairs = {
        kind: defaultdict[tuple[CallKey, int], str](number.__next__) for kind in SEAL_KIND_CODES
    }
    lines = (
        lines_of(
            2 * part.slot + (not part.first), map(pairs[kind].__getitem__, log.tallies.items())
        )
        for kind, parts in logs
        for part, log in parts.items()
        if log.tallies
    )
    with written(rows_file, lines):
        pairs_file = rows_file.with_name(f"{rows_file.name}.pairs")
        load_lines(cursor, pairs_file, "pairs", PAIRS, coded(cursor, pairs))
        cursor.execute(
            f"INSERT INTO temp.{table} SELECT seal_kind, part, service_id, user_id, country_id,"
            f" country_from, kind, result, count FROM {reading('part INTEGER, pair INTEGER')}"
            " JOIN temp.pairs USING (pair)",
            [str(rows_file)],
        )
    cursor.execute("DROP TABLE temp.pairs")


def stage_usage(
    cursor: duckdb.DuckDBPyConnection, rows_file: Path, usage: Iterable[SlotUsage]
) -> None:
    """Make the temporary table `staged_usage`, of STAGED_USAGE."""
    slots = list(usage)
    named = {key for slot in slots for key in _services_of(slot)}
    services = service_ids(cursor, named)
    rows = (row for slot in slots for row in _usage_rows(slot, services))
    columns = STAGED_USAGE + ", cpu_measured UTINYINT, gpu_measured UTINYINT"
    load(cursor, rows_file, "loaded", columns, rows)
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE staged_usage AS SELECT slot, quarters, service_id,"
        " CASE WHEN cpu_measured = 1 THEN cpu_core_ns END AS cpu_core_ns,"
        " CASE WHEN gpu_measured = 1 THEN gpu_core_ns END AS gpu_core_ns FROM temp.loaded"
    )
    cursor.execute("DROP TABLE temp.loaded")


@contextmanager
def written(file: Path, lines: Iterable[str]) -> Iterator[None]:
    """A file with these lines, that nobody else may read, while it is needed."""
    file.touch(mode=0o600)
    try:
        with file.open("w", encoding="ascii") as writing:
            writing.writelines(lines)
        yield
    finally:
        file.unlink()


def reading(columns: str) -> str:
    """The engine's words for reading a file of numbers, whose path is a parameter."""
    types = ", ".join("{}: '{}'".format(*column.split()) for column in columns.split(","))
    return (
        "read_csv(?, header = false, auto_detect = false, delim = ',', quote = '', escape = '',"
        f" columns = {{{types}}})"
    )


def lines_of(part: int, pairs: Iterable[str]) -> str:
    """The lines of a file of rows: a part, and the number of a pair; of at least one."""
    return f"{part}," + f"\n{part},".join(pairs) + "\n"


def coded(
    cursor: duckdb.DuckDBPyConnection, pairs: Mapping[SealKind, Mapping[tuple[CallKey, int], str]]
) -> Iterator[str]:
    """Numbered pairs of a key and a count, as lines of PAIRS."""
    keys = {key for of_kind in pairs.values() for key, _ in of_kind}
    services = service_ids(cursor, {(key.namespace, key.service) for key in keys})
    users = user_ids(cursor, {key.user for key in keys})
    countries = country_ids(cursor, {key.country for key in keys})
    for seal_kind, numbers in pairs.items():
        code = SEAL_KIND_CODES[seal_kind]
        for (key, calls), number in numbers.items():
            namespace, service, user, country, country_from, kind, result = key
            yield (
                f"{number},{code},{services[namespace, service]},{users[user]},"
                f"{countries[country]},{COUNTRY_FROM_CODES[country_from]},{KIND_CODES[kind]},"
                f"{RESULT_CODES[result]},{calls}\n"
            )


def _services_of(slot: SlotUsage) -> set[ServiceKey]:
    return (slot.usage.cpu_seconds or {}).keys() | (slot.usage.gpu_seconds or {}).keys()


def _usage_rows(
    slot: SlotUsage, services: Mapping[tuple[str, str], int]
) -> Iterator[tuple[int, ...]]:
    """A row for each service, and one that says what was measured; NULL is told beside a 0."""
    cpu, gpu = slot.usage.cpu_seconds, slot.usage.gpu_seconds
    measured = (cpu is not None, gpu is not None)
    yield slot.slot, slot.quarters, MEASURED, 0, 0, *measured
    for key in _services_of(slot):
        cpu_seconds, gpu_seconds = (cpu or {}).get(key), (gpu or {}).get(key)
        yield (
            slot.slot,
            slot.quarters,
            services[key],
            round((cpu_seconds or 0) * SECOND_NS),
            round((gpu_seconds or 0) * SECOND_NS),
            cpu_seconds is not None,
            gpu_seconds is not None,
        )
