"""A report as JSON in pieces: the bytes of encoding it whole, made in steps that are short. Pure.

To encode some hundred thousand rows at once takes half a second, in which nobody else is
answered, and the memory of all of them as text.
"""

from __future__ import annotations

import operator
from collections.abc import Generator, Iterable, Iterator

import msgspec
from msgspec import UNSET

from oscar_metrics.wire import (
    AffiliationItem,
    Breakdown,
    CountryCount,
    CountryItem,
    OwnerItem,
    Restatement,
    ServiceItem,
    Summary,
    UserItem,
)

# How large a piece is, but for the last one; it is not cut at a row's end.
PIECE_BYTES = 64 * 1024
# Entries of a list, and countries in them, that one step encodes: some 0.1 ms.
_STEP_ROWS = 100
_STEP_COUNTRIES = 1000

_ROWS = ServiceItem | UserItem | CountryItem | OwnerItem | AffiliationItem
_countries = operator.attrgetter("countries")
_encode = msgspec.json.Encoder().encode


def json_pieces(report: Breakdown | Summary) -> Generator[bytes, None, None]:
    """What msgspec.json.encode(report) gives, in pieces of some 64 KiB, each made when asked for.

    One row with very many users in it is many steps, too.
    """
    return gathered(_parts(report), PIECE_BYTES)


def rows_of(report: Breakdown | Summary) -> int:
    """How large it is: rows in all its periods, users named and countries of totals included."""
    if isinstance(report, Summary):
        in_periods = () if report.periods is UNSET else report.periods
        return sum(
            1 + len(totals.users) + len(totals.countries)
            for totals in (report.totals, *(period.totals for period in in_periods))
        )
    periods = () if report.periods is UNSET else report.periods
    return sum(
        len(items) + _users(items) for items in (report.items, *(one.items for one in periods))
    )


def gathered(parts: Iterable[bytes], piece_bytes: int) -> Generator[bytes, None, None]:
    """Parts joined to pieces of so many bytes or a part more."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= piece_bytes:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)


def _users(items: tuple[object, ...]) -> int:
    """How many the rows name; either every row of a report has a list of them or none."""
    if not items or not isinstance(items[0], ServiceItem) or items[0].users is UNSET:
        return 0
    return sum(len(item.users) for item in items if isinstance(item, ServiceItem) and item.users)


def _parts(value: object) -> Iterator[bytes]:
    """A value as JSON, lists and objects opened."""
    if isinstance(value, msgspec.Struct):
        opening = b"{"
        for name in value.__struct_fields__:
            field = getattr(value, name)
            if field is not UNSET:
                yield opening + _encode(name) + b":"
                yield from _parts(field)
                opening = b","
        yield b"}" if opening == b"," else b"{}"
    elif isinstance(value, tuple):
        opening = b"["
        for part in _entries(value):
            yield opening
            yield from part
            opening = b","
        yield b"]" if opening == b"," else b"[]"
    else:
        yield _encode(value)


def _entries(values: tuple[object, ...]) -> Iterator[Iterable[bytes]]:
    """The entries of a list, some at once, or each by itself where it holds lists of its own."""
    if values and _holds_lists(values[0]):
        yield from map(_parts, values)
        return
    for first in range(0, len(values), _STEP_ROWS):
        yield from _steps(values[first : first + _STEP_ROWS])


def _steps(values: tuple[object, ...]) -> Iterator[Iterable[bytes]]:
    """Some entries, in as many steps as their countries need."""
    if isinstance(values[0], _ROWS) and len(values) > 1:
        countries = sum(map(len, map(_countries, values)))
        if countries > _STEP_COUNTRIES:
            half = len(values) // 2
            yield from _steps(values[:half])
            yield from _steps(values[half:])
            return
    yield (_encode(values)[1:-1],)


def _holds_lists(value: object) -> bool:
    """Whether nobody knows how much is in it: the rows of a period, the users of a service."""
    if isinstance(value, ServiceItem):
        return value.users is not UNSET
    return not isinstance(value, str | CountryCount | Restatement | _ROWS)
