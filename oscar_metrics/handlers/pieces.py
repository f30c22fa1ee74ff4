"""A report as JSON in pieces: the bytes of encoding it whole, made in steps that are short. Pure.

To encode some hundred thousand rows at once takes half a second, in which nobody else is
answered, and the memory of all of them as text.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator

import msgspec
from msgspec import UNSET

from oscar_metrics.wire import (
    Breakdown,
    CountryItem,
    OwnerItem,
    ServiceItem,
    Summary,
    UserItem,
)

# How large a piece is, but for the last one; it is not cut at a row's end.
PIECE_BYTES = 64 * 1024
# Rows, and names and countries in rows, that one step encodes: some 0.1 ms.
_STEP_ENTRIES = 500

_ROWS = (ServiceItem, UserItem, CountryItem, OwnerItem)
_encode = msgspec.json.Encoder().encode


def json_pieces(report: Breakdown | Summary) -> Generator[bytes, None, None]:
    """What msgspec.json.encode(report) gives, in pieces of some 64 KiB, each made when asked for.

    One row with very many users in it is many steps, too.
    """
    return gathered(_parts(report))


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


def gathered(parts: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Parts joined to pieces of PIECE_BYTES or a part more."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= PIECE_BYTES:
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
    """The entries of a list: as many as make a step at once, and what is larger by itself."""
    step: list[object] = []
    entries = 0
    for value in values:
        size = _size(value)
        if step and entries + size > _STEP_ENTRIES:
            yield (_encode(step)[1:-1],)
            step, entries = [], 0
        if size > _STEP_ENTRIES:
            yield _parts(value)
        else:
            step.append(value)
            entries += size
    if step:
        yield (_encode(step)[1:-1],)


def _size(value: object) -> int:
    """How many entries it has; of what holds rows, more than any step takes."""
    if isinstance(value, str):
        return 1
    if isinstance(value, _ROWS):
        named = len(value.users) if isinstance(value, ServiceItem) and value.users else 0
        return 1 + len(value.countries) + named
    return 1 if not _holds_lists(value) else _STEP_ENTRIES + 1


def _holds_lists(value: object) -> bool:
    return isinstance(value, msgspec.Struct) and any(
        isinstance(getattr(value, name), tuple | msgspec.Struct) for name in value.__struct_fields__
    )
