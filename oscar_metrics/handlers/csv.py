"""A breakdown as comma-separated text, and the headers it travels with. Pure."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

from msgspec import UNSET, UnsetType

from oscar_metrics.handlers.pieces import gathered
from oscar_metrics.wire import (
    AffiliationBreakdown,
    AffiliationItem,
    Breakdown,
    CountryBreakdown,
    CountryCount,
    CountryItem,
    OwnerBreakdown,
    OwnerItem,
    Period,
    ServiceBreakdown,
    ServiceItem,
    SourceName,
    SourceState,
    SourceStatus,
    Summary,
    UserBreakdown,
    UserItem,
)

_USER_COLUMNS = ("key", "membership", "executions_count", "countries")
_SERVICE_COLUMNS = (
    "key",
    "membership",
    "requests_count_total",
    "requests_count_sync",
    "requests_count_async",
    "requests_count_exposed",
    "unique_users_count",
    "countries",
)
_COUNTRY_COLUMNS = ("key", "membership", "executions_count", "unique_users_count", "countries")
_AFFILIATION_COLUMNS = ("key", "executions_count", "unique_users_count", "countries")
_OWNER_COLUMNS = (
    "key",
    "name",
    "services_count",
    "requests_count_total",
    "requests_count_sync",
    "requests_count_async",
    "requests_count_exposed",
    "unique_users_count",
    "countries",
)
_USAGE_COLUMNS = ("cpu_hours", "gpu_hours")

# What a spreadsheet would run as a formula.
_FORMULA_START = ("=", "+", "-", "@", "\t", "\r")
_NEEDS_QUOTES = re.compile(r'[,"\r\n]')
# Whatever either is about: most cells have none of it, and one look is enough.
_MAY_BE_SPECIAL = re.compile(r'^[=+\-@\t]|[,"\r\n]')
# The sources numbers come from: while one of them is not whole, so is no file.
_NUMBER_SOURCES = frozenset(
    {SourceName.USAGE, SourceName.REQUEST_LOGS, SourceName.EXPOSED_REQUEST_LOGS}
)
_MAX_NOTE_CHARACTERS = 240

# How large a piece is, but for the last one. JSON of this size is written in a tenth of the time.
PIECE_BYTES = 32 * 1024
# Rows that are written at a time.
_STEP_ROWS = 20

# The rows of a series that are about the whole range.
TOTAL = "total"

Cell = str | int | float | UnsetType | None
Row = tuple[Cell, ...]


def csv_pieces(report: Breakdown, *, raw: bool = False) -> Generator[bytes, None, None]:
    """The rows under a header line, LF line ends, quotes only where they are needed.

    In pieces of some 32 KiB, each made when it is asked for: that takes a millisecond or two.
    A number that is not known is an empty cell. Text that a spreadsheet would take for a
    formula is prefixed with `'`, unless `raw`. Usage columns are there when usage was asked.
    A series has a first column `period`, and the rows of the whole range come last.
    """
    return gathered(_lines(report, raw=raw), PIECE_BYTES)


def breakdown_csv(report: Breakdown, *, raw: bool = False) -> str:
    """The same whole, for a terminal or a file."""
    return b"".join(csv_pieces(report, raw=raw)).decode()


def period_cell(stretch: Breakdown | Summary | Period) -> str:
    """What stands in the column `period`: a period's name, or the word for them all."""
    return TOTAL if isinstance(stretch, Breakdown | Summary) else stretch.period


def file_name(report: Breakdown) -> str:
    """What a browser saves it as: group and range, `-partial` where numbers are not whole."""
    sources = _NUMBER_SOURCES
    if isinstance(report, OwnerBreakdown):
        sources |= {SourceName.INVENTORY}  # the rows are by what it says
    if isinstance(report, AffiliationBreakdown):
        sources |= {SourceName.ROSTER}
    partial = any(
        source.name in sources and source.status is not SourceState.OK for source in report.sources
    )
    parts = ("oscar-metrics", report.group_by.lower(), _safe(report.start), _safe(report.end))
    return "-".join((*parts, "partial") if partial else parts) + ".csv"


def completeness_header(sources: Iterable[SourceStatus]) -> str:
    """What became of each source, on one line: an RFC 8941 list with parameters."""
    return ", ".join(
        f"{source.name};status={source.status};coverage={source.coverage:.3f}"
        + (f";ledger={source.ledger.coverage:.3f}" if source.ledger else "")
        + (f";notes={_quoted(source.notes)}" if source.notes else "")
        for source in sources
    )


def _lines(report: Breakdown, *, raw: bool) -> Iterator[bytes]:
    header, row = _layout(report)
    if report.periods is UNSET:
        yield f"{','.join(header)}\n".encode()
        stretches = [("", report.items)]
    else:
        yield f"period,{','.join(header)}\n".encode()
        stretches = [
            (f"{period_cell(stretch)},", stretch.items) for stretch in (*report.periods, report)
        ]
    for period, items in stretches:
        for first in range(0, len(items), _STEP_ROWS):
            lines = [
                f"{period}{','.join([cell(value, raw=raw) for value in row(item)])}\n"
                for item in items[first : first + _STEP_ROWS]
            ]
            yield "".join(lines).encode()


def _layout(report: Breakdown) -> tuple[tuple[str, ...], Callable[[Any], Row]]:
    """The header line, and how an item becomes a row."""
    usage = any(source.name is SourceName.USAGE for source in report.sources)
    hours = _USAGE_COLUMNS if usage else ()
    match report:
        case ServiceBreakdown():
            return (*_SERVICE_COLUMNS, *hours), functools.partial(_service_row, usage=usage)
        case OwnerBreakdown():
            return (*_OWNER_COLUMNS, *hours), functools.partial(_owner_row, usage=usage)
        case UserBreakdown():
            return _USER_COLUMNS, _user_row
        case CountryBreakdown():
            return _COUNTRY_COLUMNS, _country_row
        case AffiliationBreakdown():
            return _AFFILIATION_COLUMNS, _affiliation_row


def _service_row(item: ServiceItem, *, usage: bool) -> Row:
    row = (
        item.key,
        "",
        item.requests_count_total,
        item.requests_count_sync,
        item.requests_count_async,
        item.requests_count_exposed,
        item.unique_users_count,
        _countries(item.countries),
    )
    return (*row, item.cpu_hours, item.gpu_hours) if usage else row


def _owner_row(item: OwnerItem, *, usage: bool) -> Row:
    row = (
        item.key,
        item.name,
        item.services_count,
        item.requests_count_total,
        item.requests_count_sync,
        item.requests_count_async,
        item.requests_count_exposed,
        item.unique_users_count,
        _countries(item.countries),
    )
    return (*row, item.cpu_hours, item.gpu_hours) if usage else row


def _user_row(item: UserItem) -> Row:
    return (item.key, item.membership, item.executions_count, _countries(item.countries))


def _country_row(item: CountryItem) -> Row:
    return (
        item.key,
        "",
        item.executions_count,
        item.unique_users_count,
        _countries(item.countries),
    )


def _affiliation_row(item: AffiliationItem) -> Row:
    return (
        item.key,
        item.executions_count,
        item.unique_users_count,
        _countries(item.countries),
    )


def _countries(countries: Iterable[CountryCount]) -> str:
    return "|".join([f"{entry.country}:{entry.request_count}" for entry in countries])


def cell(value: Cell, *, raw: bool = False) -> str:
    """One cell as it stands in the file."""
    if not isinstance(value, str):
        return "" if value is None or value is UNSET else str(value)
    if not _MAY_BE_SPECIAL.search(value):
        return value
    if not raw and value.startswith(_FORMULA_START):
        value = "'" + value
    if _NEEDS_QUOTES.search(value):
        return '"' + value.replace('"', '""') + '"'
    return value


def _safe(text: str) -> str:
    """A time without what a file name or a header may not hold."""
    return re.sub(r"[^A-Za-z0-9.+-]", "", text)


def _quoted(text: str) -> str:
    """An RFC 8941 string: printable ASCII, backslash and quote escaped, cut to a bounded size."""
    if len(text) > _MAX_NOTE_CHARACTERS:
        text = text[: _MAX_NOTE_CHARACTERS - 3] + "..."
    ascii_text = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + re.sub(r'(["\\])', r"\\\1", ascii_text) + '"'
