"""Sums of calls and of usage over spans, from the coarsest rows that fit."""

# ruff: noqa: S608 - all that is put into SQL is named, or numbered, here
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import duckdb
import msgspec

from oscar_metrics.errors import TooManyRows
from oscar_metrics.facts import (
    CountryFrom,
    Kind,
    LogStream,
    Result,
    ServiceKey,
    Usage,
)
from oscar_metrics.ledger.duckdb_pieces import Pieces, Run, pieces
from oscar_metrics.ledger.duckdb_rollups import standing
from oscar_metrics.ledger.duckdb_schema import (
    COUNTRY_FROM_CODES,
    KIND_CODES,
    MEASURED,
    RESULT_CODES,
    SEAL_KIND_CODES,
)
from oscar_metrics.ledger.duckdb_seals import check_stored
from oscar_metrics.ledger.duckdb_threads import fetched
from oscar_metrics.ledger.seals import KIND_OF, SealKind
from oscar_metrics.sums import PERIOD, CallSums, Grouping
from oscar_metrics.timerange import SECOND_NS, Span

# More runs than this are handed over as a table to join, instead of a query each.
_RUNS_MAX = 16
# More services than this are handed over as a table too, instead of a list in every query.
_SERVICES_MAX = 200
# One in so many of all services, or less, is few of them.
_FEW = 4


def call_sums(
    cursor: duckdb.DuckDBPyConnection,
    stream: LogStream,
    spans: Sequence[Span],
    groupings: Collection[Grouping],
    *,
    service: str | None,
    only: Callable[[ServiceKey], bool] | None,
    bounds_ns: Sequence[int],
    rows_max: int,
    as_of_ns: int | None,
) -> CallSums:
    """The sums by each grouping; LedgerStore.call_sums says of what.

    To be called within a transaction, so that all of them are of one state of the file.
    """
    kind = KIND_OF[stream]
    of = _pieces(cursor, kind, spans, bounds_ns, as_of_ns)
    wanted = {field for grouping in groupings for field in grouping}
    services = _services(cursor, service, only)
    if services is not None and not services.numbers:
        return CallSums(groups={grouping: Counter() for grouping in groupings})
    numbers = None if services is None else services.numbers
    rows = _Rows(cursor, kind, numbers, as_of_ns).calls(of, wanted)
    gathered = bool(rows and services and services.few and len(groupings) > 1)
    if gathered:
        cursor.execute(
            "CREATE OR REPLACE TEMP TABLE gathered AS"
            f" SELECT * REPLACE (sum(count)::BIGINT AS count) FROM ({rows}) GROUP BY ALL"
        )
        rows = "FROM temp.gathered"
    sums = CallSums(
        groups={
            grouping: _sums_by(cursor, rows, grouping, rows_max) if rows else Counter()
            for grouping in groupings
        }
    )
    if gathered:
        cursor.execute("DROP TABLE temp.gathered")
    return sums


def usage_sums(
    cursor: duckdb.DuckDBPyConnection,
    spans: Sequence[Span],
    *,
    service: str | None,
    bounds_ns: Sequence[int],
    as_of_ns: int | None,
) -> dict[int, Usage]:
    """Usage by period; to be called within a transaction."""
    of = _pieces(cursor, SealKind.USAGE, spans, bounds_ns, as_of_ns)
    services = _services(cursor, service)
    measured = None if services is None else [*services.numbers, MEASURED]
    rows = _Rows(cursor, SealKind.USAGE, measured, as_of_ns).usage(of)
    if not rows:
        return {}
    found = cursor.execute(
        f"""
        SELECT period, service_id, namespace, name, cpu, gpu
        FROM (
            SELECT period, service_id, sum(cpu_core_ns)::BIGINT AS cpu,
                   sum(gpu_core_ns)::BIGINT AS gpu
            FROM ({rows}) GROUP BY ALL
        ) LEFT JOIN services ON id = service_id
        ORDER BY period, namespace, name
        """
    ).fetchall()
    seconds: dict[int, list[dict[ServiceKey, float] | None]] = {}
    for period, service_id, _, _, cpu_ns, gpu_ns in found:
        if service_id == MEASURED:
            seconds[period] = [None if ns is None else {} for ns in (cpu_ns, gpu_ns)]
    for period, service_id, namespace, name, *measured_ns in found:
        for of_services, ns in zip(seconds[period], measured_ns, strict=True):
            if service_id != MEASURED and ns is not None and of_services is not None:
                of_services[ServiceKey(namespace, name)] = ns / SECOND_NS
    return {
        period: Usage(cpu_seconds=cpu, gpu_seconds=gpu) for period, (cpu, gpu) in seconds.items()
    }


class _Services(msgspec.Struct, frozen=True):
    """The numbers of services that are asked for.

    Where they are `few` of all there are, their rows are gathered once for all groupings;
    else finding them anew for each grouping is quicker than keeping so many.
    """

    numbers: list[int]
    few: bool


def _services(
    cursor: duckdb.DuckDBPyConnection,
    name: str | None,
    only: Callable[[ServiceKey], bool] | None = None,
) -> _Services | None:
    """The services that are asked for; None for all of them."""
    if name is None and only is None:
        return None
    rows = cursor.execute("SELECT id, namespace, name FROM services").fetchall()
    numbers = [
        number
        for number, *key in rows
        if name in (None, key[1]) and (only is None or only(ServiceKey(*key)))
    ]
    return _Services(numbers, few=len(numbers) * _FEW <= len(rows))


def _pieces(
    cursor: duckdb.DuckDBPyConnection,
    kind: SealKind,
    spans: Sequence[Span],
    bounds_ns: Sequence[int],
    as_of_ns: int | None,
) -> Pieces:
    if spans:
        check_stored(cursor, kind, spans, bounds_ns, as_of_ns=as_of_ns)
    months, days = standing(cursor, kind) if as_of_ns is None else (frozenset(), frozenset())
    return pieces(spans, bounds_ns=bounds_ns, months=months, days=days)


class _Rows:
    """Queries for the rows of pieces, all with the same columns."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        kind: SealKind,
        services: Sequence[int] | None,
        as_of_ns: int | None,
    ) -> None:
        self._cursor = cursor
        self._kind = SEAL_KIND_CODES[kind]
        known = (
            f"sealed_at_ns <= {as_of_ns} AND (superseded_at_ns > {as_of_ns}"
            " OR superseded_at_ns IS NULL)"
            if as_of_ns is not None
            else "superseded_at_ns IS NULL"
        )
        self._seals = f"seal_id IN (SELECT id FROM seals WHERE kind = {self._kind} AND {known})"
        self._service = ""
        if services is not None:
            numbers = ",".join(map(str, services))
            if len(services) > _SERVICES_MAX:
                cursor.execute(
                    "CREATE OR REPLACE TEMP TABLE read_services AS"
                    " SELECT unnest(string_split(?, ',')::INTEGER[]) AS id",
                    [numbers],
                )
                numbers = "FROM temp.read_services"
            self._service = f" AND service_id IN ({numbers})"

    def calls(self, of: Pieces, fields: Collection[str]) -> str:
        """One query for the calls of the pieces, with the columns of these fields; may be blank."""
        columns = ", ".join(dict.fromkeys(_COLUMN[field] for field in fields if field != PERIOD))
        columns = f"{columns}{', ' if columns else ''}count"
        rolled = f" AND seal_kind = {self._kind}"
        return self._together(
            columns,
            ("call_months", "month", of.months, rolled),
            ("call_days", "day", of.days, rolled),
            ("calls", "part", of.parts, f" AND {self._seals}"),
        )

    def usage(self, of: Pieces) -> str:
        """The same for usage, whose slots are two parts each."""
        slots = tuple(
            Run(run.first // 2, run.stop // 2, run.period, max(1, run.width // 2))
            for run in of.parts
        )
        return self._together(
            "service_id, cpu_core_ns, gpu_core_ns",
            ("usage_months", "month", of.months, ""),
            ("usage_days", "day", of.days, ""),
            ("usage", "slot", slots, f" AND {self._seals}"),
        )

    def _together(self, columns: str, *tables: tuple[str, str, Sequence[Run], str]) -> str:
        return " UNION ALL ".join(
            query
            for table, number, runs, condition in tables
            for query in self._of_table(columns, table, number, runs, condition + self._service)
        )

    def _of_table(
        self, columns: str, table: str, number: str, runs: Sequence[Run], condition: str
    ) -> list[str]:
        if not runs:
            return []
        if len(runs) <= _RUNS_MAX:
            # One query each: conditions joined by OR would keep the engine from skipping rows.
            return [
                f"SELECT {_period(run, number)} AS period, {columns} FROM {table}"
                f" WHERE {number} BETWEEN {run.first} AND {run.stop - 1}{condition}"
                for run in runs
            ]
        self._make_runs(f"read_{table}", runs)
        return [
            (
                f"SELECT period, {columns} FROM {table} JOIN temp.read_{table} ON {number} = one"
                f" WHERE {number} BETWEEN {runs[0].first} AND {runs[-1].stop - 1}{condition}"
            )
        ]

    def _make_runs(self, name: str, runs: Sequence[Run]) -> None:
        """Make a temporary table of each number of the runs and its period."""
        fields = ("first", "stop", "period", "width")
        lists = [",".join(str(getattr(run, field)) for run in runs) for field in fields]
        columns = ", ".join(
            f"unnest(string_split(?, ',')::INTEGER[]) AS {field}" for field in fields
        )
        self._cursor.execute(
            f"""
            CREATE OR REPLACE TEMP TABLE {name} AS
            SELECT one::INTEGER AS one, (period + (one - first) // width)::INTEGER AS period
            FROM (SELECT *, unnest(range(first, stop)) AS one FROM (SELECT {columns}))
            """,
            lists,
        )


def _period(run: Run, number: str) -> str:
    """The period of a row of a run, as SQL."""
    if run.stop - run.first <= run.width:
        return f"{run.period}::INTEGER"
    return f"(({number} - {run.first}) // {run.width} + {run.period})::INTEGER"


# Fields of groupings: the column that tells them, and what turns it into the field's value.
_COLUMN = {
    "namespace": "service_id",
    "service": "service_id",
    "user": "user_id",
    "country": "country_id",
    "country_from": "country_from",
    "kind": "kind",
    "result": "result",
    PERIOD: "period",
}
_CODED: Mapping[str, dict[int, Any]] = {
    "country_from": {code: CountryFrom(how) for how, code in COUNTRY_FROM_CODES.items()},
    "kind": {code: Kind(kind) for kind, code in KIND_CODES.items()},
    "result": {code: Result(result) for result, code in RESULT_CODES.items()},
}
# Where the texts of fields are, and under which alias.
_TEXTS = {
    "namespace": ("services", "service_id", "services.namespace"),
    "service": ("services", "service_id", "services.name"),
    "user": ("users", "user_id", "users.name"),
    "country": ("countries", "country_id", "countries.code"),
}


def _sums_by(
    cursor: duckdb.DuckDBPyConnection, rows: str, grouping: Grouping, rows_max: int
) -> Counter[tuple[Any, ...]]:
    """Grouped by numbers, which is quick, and then by the texts behind them."""
    numbers = ", ".join([*dict.fromkeys(_COLUMN[field] for field in grouping), ""])
    texts = {_TEXTS[field][:2] for field in grouping if field in _TEXTS}
    joins = "".join(f" JOIN {table} ON {table}.id = {number}" for table, number in sorted(texts))
    fields = ", ".join([*(_TEXTS[f][2] if f in _TEXTS else _COLUMN[f] for f in grouping), ""])
    cursor.execute(
        f"""
        SELECT {fields} sum(calls)::BIGINT
        FROM (SELECT {numbers} sum(count) AS calls FROM ({rows}) GROUP BY ALL)
        {joins} GROUP BY ALL HAVING sum(calls) > 0 LIMIT {rows_max + 1}
        """
    )
    sums: Counter[tuple[Any, ...]] = Counter()
    for found in fetched(cursor):
        *columns, counts = zip(*found, strict=True)
        decoded = [
            map(_CODED[field].__getitem__, column) if field in _CODED else column
            for field, column in zip(grouping, columns, strict=True)
        ]
        keys = zip(*decoded, strict=True) if grouping else [()]
        # Each key comes once; Counter's own update would add them up one by one.
        dict.update(sums, zip(keys, counts, strict=True))
    if len(sums) > rows_max:
        raise TooManyRows(
            f"the report has more than {rows_max:,} rows: ask for a shorter range, longer periods"
            " or fewer services, or raise the ledger's setting rows_max"
        )
    return sums
