"""The numbers that users, services and countries are stored by.

Names go to the engine as hexadecimal, so that nothing in them means anything on the way.
"""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

from collections.abc import Collection, Sequence

import duckdb

from oscar_metrics.facts import ServiceKey
from oscar_metrics.ledger.duckdb_forgetting import pseudonyms


def user_ids(cursor: duckdb.DuckDBPyConnection, names: Collection[str]) -> dict[str, int]:
    """The numbers of users, new ones for those not seen before; who was forgotten stays so."""
    known = _known(cursor, "users", [(name,) for name in names])
    missing = [name for name in names if (_plain(name),) not in known]
    if not missing:
        return {name: known[_plain(name),] for name in names}
    known_as = {name: name for name in names} | pseudonyms(cursor, missing)
    ids = _ids(cursor, "users", [(known_as[name],) for name in names])
    return {name: ids[_plain(known_as[name]),] for name in names}


def service_ids(
    cursor: duckdb.DuckDBPyConnection, services: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """The numbers of services (namespace, name), new ones for those not seen before."""
    ids = _ids(cursor, "services", services)
    return {service: ids[_plain(service[0]), _plain(service[1])] for service in services}


def country_ids(cursor: duckdb.DuckDBPyConnection, codes: Collection[str]) -> dict[str, int]:
    """The numbers of countries, new ones for those not seen before."""
    ids = _ids(cursor, "countries", [(code,) for code in codes])
    return {code: ids[_plain(code),] for code in codes}


def services(cursor: duckdb.DuckDBPyConnection) -> frozenset[ServiceKey]:
    """Every service that has a number."""
    rows = cursor.execute("SELECT namespace, name FROM services").fetchall()
    return frozenset(ServiceKey(*row) for row in rows)


def hexadecimal(text: str) -> str:
    """A text as the engine's `decode(unhex(…))` reads it."""
    return _plain(text).encode().hex()


# The columns of the tables of names, beside `id`.
_COLUMNS = {"users": ("name",), "services": ("namespace", "name"), "countries": ("code",)}


def _plain(text: str) -> str:
    """The text with `?` for what is no Unicode, which no database holds."""
    return text.encode(errors="replace").decode()


def _ids(
    cursor: duckdb.DuckDBPyConnection, table: str, rows: Collection[Sequence[str]]
) -> dict[tuple[str, ...], int]:
    """The numbers of these, given to those that have none yet."""
    known = _known(cursor, table, rows)
    if any(tuple(map(_plain, row)) not in known for row in rows):
        columns = ", ".join(_COLUMNS[table])
        cursor.execute(
            f"INSERT INTO {table} SELECT (SELECT coalesce(max(id), 0) FROM {table})"
            f" + row_number() OVER (), {columns}"
            f" FROM (SELECT DISTINCT {columns} FROM ({_named(table)}))"
            f" ANTI JOIN {table} USING ({columns})",
            _texts(table, rows),
        )
        known = _known(cursor, table, rows)
    return known


def _known(
    cursor: duckdb.DuckDBPyConnection, table: str, rows: Collection[Sequence[str]]
) -> dict[tuple[str, ...], int]:
    """The numbers of those of them that have one."""
    if not rows:
        return {}
    columns = ", ".join(_COLUMNS[table])
    found = cursor.execute(
        f"SELECT {columns}, id FROM {table} SEMI JOIN ({_named(table)}) USING ({columns})",
        _texts(table, rows),
    ).fetchall()
    return {tuple(texts): number for *texts, number in found}


def _named(table: str) -> str:
    """A query for what `_texts` hands over."""
    columns = _COLUMNS[table]
    parts = ", ".join(f"unnest(string_split(?, ',')) AS {column}" for column in columns)
    decoded = ", ".join(f"decode(unhex({column})) AS {column}" for column in columns)
    return f"SELECT {decoded} FROM (SELECT {parts})"


def _texts(table: str, rows: Collection[Sequence[str]]) -> list[str]:
    return [",".join(hexadecimal(row[i]) for row in rows) for i in range(len(_COLUMNS[table]))]
