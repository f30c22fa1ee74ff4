"""Brings calls and usage from Python into temporary tables of the ledger's engine.

Rows go through a file of numbers beside the ledger: handing them over as parameters costs
the engine a hundred times as long. Texts go as hexadecimal, so that nothing in them means
anything on the way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path

import duckdb

from oscar_metrics.facts import CallKey, ServiceKey, SlottedLog, SlotUsage
from oscar_metrics.ledger.duckdb_forgetting import pseudonyms
from oscar_metrics.ledger.duckdb_schema import (
    COUNTRY_FROM_CODES,
    KIND_CODES,
    MEASURED,
    RESULT_CODES,
    SEAL_KIND_CODES,
)
from oscar_metrics.ledger.seals import SealKind

SECOND_NS = 1_000_000_000
# Rows turned into text at once.
_CHUNK = 20_000

# The columns of staged rows: those of `calls` and `usage`, with what tells the seal.
STAGED_CALLS = (
    "seal_kind UTINYINT, part INTEGER, service_id INTEGER, user_id INTEGER, country_id INTEGER,"
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
    definitions = [column.split() for column in columns.split(",")]
    line = ",".join(["%d"] * len(definitions)) + "\n"
    rows_file.touch(mode=0o600)
    try:
        with rows_file.open("w", encoding="ascii") as file:
            left = iter(rows)
            while chunk := list(islice(left, _CHUNK)):
                file.write(line * len(chunk) % tuple(chain.from_iterable(chunk)))
        types = ", ".join(f"{name}: '{type_}'" for name, type_ in definitions)
        cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS FROM read_csv(?, header = false,"
            f" auto_detect = false, delim = ',', quote = '', escape = '', columns = {{{types}}})",
            [str(rows_file)],
        )
    finally:
        rows_file.unlink()


def stage_calls(
    cursor: duckdb.DuckDBPyConnection,
    rows_file: Path,
    table: str,
    logs: Iterable[tuple[SealKind, SlottedLog]],
) -> None:
    """Add calls to a temporary table of STAGED_CALLS, which is there."""
    number = count()
    keys = {kind: defaultdict[CallKey, int](number.__next__) for kind in SEAL_KIND_CODES}
    rows = (
        row
        for kind, parts in logs
        for part, log in parts.items()
        for row in _numbered(2 * part.slot + (not part.first), log.tallies, keys[kind])
    )
    load(cursor, rows_file, "loaded", "part INTEGER, key INTEGER, count INTEGER", rows)
    columns = (
        "key INTEGER, seal_kind UTINYINT, service_id INTEGER, user_id INTEGER,"
        " country_id INTEGER, country_from UTINYINT, kind UTINYINT, result UTINYINT"
    )
    load(cursor, rows_file, "loaded_keys", columns, _coded(cursor, keys))
    cursor.execute(
        f"INSERT INTO temp.{table} SELECT seal_kind, part, service_id, user_id, country_id,"  # noqa: S608 - a name of ours
        " country_from, kind, result, count FROM temp.loaded JOIN temp.loaded_keys USING (key)"
    )
    cursor.execute("DROP TABLE temp.loaded")
    cursor.execute("DROP TABLE temp.loaded_keys")


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


def user_ids(cursor: duckdb.DuckDBPyConnection, names: Collection[str]) -> dict[str, int]:
    """The numbers of users, new ones for those not seen before; who was forgotten stays so."""
    _name(cursor, [[name] for name in names])
    unknown = cursor.execute(
        "SELECT DISTINCT name FROM temp.named ANTI JOIN users USING (name)"
    ).fetchall()
    known_as = pseudonyms(cursor, [name for (name,) in unknown])
    if known_as:
        _name(cursor, [[known_as.get(name, name)] for name in names])
    ids = _ids(cursor, "users", "name")
    return {name: ids[_plain(known_as.get(name, name)),] for name in names}


def service_ids(
    cursor: duckdb.DuckDBPyConnection, services: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """The numbers of services (namespace, name), new ones for those not seen before."""
    _name(cursor, services, "namespace", "name")
    ids = _ids(cursor, "services", "namespace", "name")
    return {service: ids[_plain(service[0]), _plain(service[1])] for service in services}


def country_ids(cursor: duckdb.DuckDBPyConnection, codes: Collection[str]) -> dict[str, int]:
    """The numbers of countries, new ones for those not seen before."""
    _name(cursor, [[code] for code in codes], "code")
    ids = _ids(cursor, "countries", "code")
    return {code: ids[_plain(code),] for code in codes}


def hexadecimal(text: str) -> str:
    """A text as the engine's `decode(unhex(…))` reads it."""
    return _plain(text).encode().hex()


def _plain(text: str) -> str:
    """The text with `?` for what is no Unicode, which no database holds."""
    return text.encode(errors="replace").decode()


def _numbered(
    part: int, tallies: Mapping[CallKey, int], keys: defaultdict[CallKey, int]
) -> Iterator[tuple[int, int, int]]:
    for key, calls in tallies.items():
        yield part, keys[key], calls


def _coded(
    cursor: duckdb.DuckDBPyConnection, keys: Mapping[SealKind, Mapping[CallKey, int]]
) -> Iterator[tuple[int, ...]]:
    every = set().union(*keys.values())
    services = service_ids(cursor, {(key.namespace, key.service) for key in every})
    users = user_ids(cursor, {key.user for key in every})
    countries = country_ids(cursor, {key.country for key in every})
    for seal_kind, numbers in keys.items():
        for key, number in numbers.items():
            yield (
                number,
                SEAL_KIND_CODES[seal_kind],
                services[key.namespace, key.service],
                users[key.user],
                countries[key.country],
                COUNTRY_FROM_CODES[key.country_from],
                KIND_CODES[key.kind],
                RESULT_CODES[key.result],
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


def _name(
    cursor: duckdb.DuckDBPyConnection, rows: Collection[Sequence[str]], *columns: str
) -> None:
    """Make the temporary table `named` of these texts."""
    columns = columns or ("name",)
    texts = [",".join(hexadecimal(row[i]) for row in rows) for i in range(len(columns))]
    parts = ", ".join(f"unnest(string_split(?, ',')) AS {column}" for column in columns)
    decoded = ", ".join(f"decode(unhex({column})) AS {column}" for column in columns)
    # No text at all would be split into one that is blank.
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE named AS SELECT DISTINCT {decoded}"  # noqa: S608 - names of ours
        f" FROM (SELECT {parts}) LIMIT ?",
        [*texts, len(rows)],
    )


def _ids(
    cursor: duckdb.DuckDBPyConnection, table: str, *columns: str
) -> dict[tuple[str, ...], int]:
    """The numbers of what is in `named`, given to those that have none yet."""
    named = ", ".join(columns)
    cursor.execute(
        f"INSERT INTO {table} SELECT (SELECT coalesce(max(id), 0) FROM {table})"  # noqa: S608 - names of ours
        f" + row_number() OVER (), {named} FROM temp.named ANTI JOIN {table} USING ({named})"
    )
    found = cursor.execute(
        f"SELECT {named}, id FROM {table} SEMI JOIN temp.named USING ({named})"  # noqa: S608 - names of ours
    ).fetchall()
    return {tuple(texts): number for *texts, number in found}
