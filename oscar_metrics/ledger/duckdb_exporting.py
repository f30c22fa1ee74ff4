"""Writes what the ledger holds to files that anything reads: Parquet, or CSV with a header.

Names stand for numbers, times are UTC, units stand last in columns' names. A row of calls
or usage names its seal (kind, hour, revision), whose origin, gaps and times are in `seals`;
`current` tells the newest revision from those that it superseded. Times of sealing are
rounded up to the microsecond, so that `as_of` one of them shows that seal. CSV is raw: a
text that a spreadsheet would take for a formula is left as it is.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path

import duckdb

from oscar_metrics.errors import LedgerError
from oscar_metrics.ledger.duckdb_schema import (
    COUNTRY_FROM_CODES,
    KIND_CODES,
    MEASURED,
    RESULT_CODES,
    SEAL_KIND_CODES,
)
from oscar_metrics.ledger.store import ExportForm, Progress


def export(
    cursor: duckdb.DuckDBPyConnection, folder: Path, form: ExportForm, progress: Progress
) -> list[Path]:
    """Write calls, usage, inventories, owners of namespaces and seals to new files; their paths.

    The folder is made if it is not there. Raises LedgerError where one of the files is there
    already; then, and when anything fails, no file is left behind. To be called within a
    transaction, so that the files are of one state.
    """
    unfinished = folder / f".unfinished-{secrets.token_hex(4)}"
    paths = {folder / f"{name}.{form.value}": question for name, question in _TABLES.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if there := [path.name for path in paths if path.exists()]:
            raise LedgerError(
                f"{', '.join(there)}: already in the folder of the export, which only writes new"
                " files; name another folder"
            )
        unfinished.mkdir(mode=0o700)
        for done, (path, question) in enumerate(paths.items()):
            progress(done, len(paths), path.name)
            _copy(cursor, question, unfinished / path.name, form)
        for path in paths:
            (unfinished / path.name).rename(path)
    except (OSError, duckdb.IOException) as error:
        # What the engine says of the ledger's own file is told by whoever opened that.
        if isinstance(error, duckdb.IOException) and unfinished.name not in str(error):
            raise
        raise LedgerError(_told(error)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    progress(len(paths), len(paths), "done")
    return list(paths)


def _told(error: Exception) -> str:
    for number, sentence in _SENTENCES.items():
        if os.strerror(number) in str(error):
            return f"nothing was exported: {sentence}"
    return "nothing was exported: its files could not be written"


_SENTENCES = {
    errno.ENOSPC: "there is no space left where its folder is",
    errno.EDQUOT: "the disk quota where its folder is is used up",
    errno.EFBIG: "one of its files would be larger than may be written there",
    errno.EACCES: "its folder may not be written by this user",
    errno.EROFS: "its folder is on a file system that is read-only",
    errno.EEXIST: "a file is in the place of its folder",
    errno.ENOTDIR: "a file is in the place of its folder",
}


def _copy(cursor: duckdb.DuckDBPyConnection, question: str, path: Path, form: ExportForm) -> None:
    if form is ExportForm.PARQUET:
        how, options = question, "FORMAT parquet, COMPRESSION zstd"
    else:
        # Spreadsheets and databases alike read this form of a time; a list becomes JSON.
        described = cursor.execute(f"DESCRIBE {question}").fetchall()
        columns = ", ".join(
            _CSV_COLUMNS.get(kind, "{}").format(f'"{name}"') for name, kind, *_ in described
        )
        how = f"SELECT {columns} FROM ({question})"  # noqa: S608 - SQL of ours
        options = "FORMAT csv, HEADER"
    target = str(path).replace("'", "''")
    cursor.execute(f"COPY ({how}) TO '{target}' ({options})")


_CSV_COLUMNS = {
    "TIMESTAMP WITH TIME ZONE": (
        "rtrim(rtrim(strftime({0} AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%f'), '0'), '.')"
        " || 'Z' AS {0}"
    ),
    "VARCHAR[]": "to_json({0}) AS {0}",
}


def _case(column: str, codes: dict[int, str]) -> str:
    """The word for a code; NULL for a code that is not known."""
    cases = " ".join(f"WHEN {code} THEN '{word}'" for code, word in codes.items())
    return f"CASE {column} {cases} END"


_SEAL_WORDS = {code: kind.value for kind, code in SEAL_KIND_CODES.items()}
_KIND_WORDS = {code: kind.value for kind, code in KIND_CODES.items()}
_RESULT_WORDS = {code: result.value for result, code in RESULT_CODES.items()}
_FROM_WORDS = {code: found.value for found, code in COUNTRY_FROM_CODES.items()}

# What is told of its seal beside every row of calls and usage.
_OF_SEAL = """
    seals.quarters::INTEGER * 15 AS slot_minutes, revision, superseded_at_ns IS NULL AS current,
    make_timestamptz(-(-sealed_at_ns // 1000)) AS sealed_at
"""
_TABLES = {
    # Calls on a slot's first nanosecond have a row of their own, `at_slot_start`.
    "calls": f"""
        SELECT {_case("seals.kind", _SEAL_WORDS)} AS seal_kind,
               to_timestamp(part // 2 * 900) AS slot_start, part % 2 = 0 AS at_slot_start,
               namespace, services.name AS service, users.name AS "user", code AS country,
               {_case("country_from", _FROM_WORDS)} AS country_from,
               {_case("calls.kind", _KIND_WORDS)} AS kind,
               {_case("result", _RESULT_WORDS)} AS result, count AS calls, {_OF_SEAL}
        FROM calls JOIN seals ON seals.id = seal_id LEFT JOIN services ON services.id = service_id
        LEFT JOIN users ON users.id = user_id LEFT JOIN countries ON countries.id = country_id
        """,  # noqa: S608 - SQL of ours
    # A row without a service says what was measured of a slot at all: 0, else nothing. A
    # blank service is usage that no service could be found for.
    "usage": f"""
        SELECT to_timestamp(slot * 900) AS slot_start,
               namespace, services.name AS service, cpu_core_ns / 1e9 AS cpu_core_seconds,
               gpu_core_ns / 1e9 AS gpu_seconds, {_OF_SEAL}
        FROM usage JOIN seals ON seals.id = seal_id
        LEFT JOIN services ON services.id = service_id AND service_id <> {MEASURED}
        """,  # noqa: S608 - SQL of ours
    "inventories": """
        SELECT inventory, service.namespace, service.name AS service, service.owner,
               service.owner_name, service.visibility, service.allowed_users, service.vo,
               service.enable_gpu
        FROM (SELECT id AS inventory, unnest(from_json(facts->'services', '[{"namespace": "VARCHAR",
              "name": "VARCHAR", "owner": "VARCHAR", "owner_name": "VARCHAR",
              "visibility": "VARCHAR", "allowed_users": ["VARCHAR"], "vo": "VARCHAR",
              "enable_gpu": "BOOLEAN"}]')) AS service FROM inventories)
        """,
    "namespace_owners": """
        SELECT inventory, owner.namespace, owner.owner
        FROM (SELECT id AS inventory, unnest(from_json(facts->'owners',
              '[{"namespace": "VARCHAR", "owner": "VARCHAR"}]')) AS owner FROM inventories)
        """,
    "seals": f"""
        SELECT {_case("kind", _SEAL_WORDS)} AS kind, to_timestamp(hour::BIGINT * 3600) AS start,
               hours AS length_hours, {_OF_SEAL},
               make_timestamptz(-(-superseded_at_ns // 1000)) AS superseded_at,
               looks, next_look_ns IS NULL AS final, origin, method, doubts,
               measures AS measures_in_doubt, notes, gaps, missing_ns / 1e9 AS missing_seconds,
               lines_seen, lines_understood, row_count AS rows, inventory_id AS inventory
        FROM seals
        """,  # noqa: S608 - SQL of ours
}
