"""The periods of a series: local hours, days, ISO weeks or months of a time zone. Pure.

The zones and their rules are those of the tzdata package, not of the machine, so that the
same question has the same answer everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from enum import StrEnum
from importlib import resources
from zoneinfo import ZoneInfo

import msgspec

from oscar_metrics.errors import BadRequest
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Period, ReportRange, Span

DEFAULT_ZONE = "UTC"

_EPOCH_DAY = date(1970, 1, 1).toordinal()


class Interval(StrEnum):
    """How long a period is."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


# The longest each can be: a day more for a clock that is set back.
_LONGEST_NS = {
    Interval.HOUR: HOUR_NS,
    Interval.DAY: 2 * DAY_NS,
    Interval.WEEK: 8 * DAY_NS,
    Interval.MONTH: 32 * DAY_NS,
}


class _Piece(msgspec.Struct, frozen=True):
    """What of one unit of the local calendar lies under one offset from UTC."""

    label: str
    span: Span


def with_periods(
    asked: ReportRange, interval: str | None, tz: str | None, most: int
) -> ReportRange:
    """The same range with the periods its caller asked for; `periods` has the errors."""
    found = periods(asked.span, interval, tz, most)
    return msgspec.structs.replace(asked, periods=found)


def periods(span: Span, interval: str | None, tz: str | None, most: int) -> tuple[Period, ...]:
    """The periods of a span, in order and clipped to it; none without an interval.

    Labels: an hour is named by its local time and its offset (2026-01-01T10:00:00+01:00), so
    that an hour the clock repeats is two; a day is 2026-01-01, a week (from Monday, ISO 8601)
    2026-W01, a month 2026-01. `tz` is an IANA name, UTC where absent. Every bound inside the
    span is a whole quarter-hour. Raises BadRequest for an interval or a zone there is not, a
    zone without an interval, and more than `most` periods.
    """
    if interval is None:
        if tz is not None:
            raise BadRequest(
                "tz without interval", parameter="tz", detail=f"interval is {_INTERVALS}"
            )
        return ()
    unit = next((known for known in Interval if interval.lower() == known), None)
    if unit is None:
        raise BadRequest(
            "unsupported interval", parameter="interval", detail=f"expected {_INTERVALS}"
        )
    zone = _zone(DEFAULT_ZONE if tz is None else tz.strip())
    # Looked at before the periods are made, which takes time for a long span.
    at_least = -(-span.length_ns // _LONGEST_NS[unit])
    if at_least > most:
        raise _too_many(unit, f"at least {at_least:,}", most)
    made = tuple(_joined(_pieces(span, unit, zone)))
    if len(made) > most:
        raise _too_many(unit, f"{len(made):,}", most)
    return made


_INTERVALS = "one of " + ", ".join(Interval)


def _too_many(unit: Interval, count: str, most: int) -> BadRequest:
    return BadRequest(
        "too many periods",
        parameter="interval",
        detail=f"the range holds {count} {unit}s, and a series at most {most:,}: "
        "ask for a longer interval or a shorter range",
    )


def _zone(name: str) -> ZoneInfo:
    if name not in _zone_names():
        raise BadRequest(
            "unknown tz",
            parameter="tz",
            detail="expected an IANA time zone, for example Europe/Madrid",
        )
    return _rules(name)


@functools.cache
def _rules(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, key=name)


@functools.cache
def _zone_names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text().split())


def _joined(pieces: Iterator[_Piece]) -> Iterator[Period]:
    """A unit that a change of the clock cut in two is one period again."""
    last: _Piece | None = None
    for piece in pieces:
        if last is not None and last.label == piece.label:
            last = _Piece(last.label, Span(last.span.start_ns, piece.span.stop_ns))
            continue
        if last is not None:
            yield Period(label=last.label, span=last.span)
        last = piece
    if last is not None:
        yield Period(label=last.label, span=last.span)


def _pieces(span: Span, unit: Interval, zone: ZoneInfo) -> Iterator[_Piece]:
    """The span cut where the offset changes and where a unit of the local calendar begins."""
    for stretch, offset_ns in _stretches(span, zone):
        start_ns = stretch.start_ns
        while start_ns < stretch.stop_ns:
            local_ns = start_ns + offset_ns
            first_ns, next_ns = _unit_around(local_ns, unit)
            stop_ns = min(next_ns - offset_ns, stretch.stop_ns)
            label = _label(unit, first_ns, offset_ns)
            yield _Piece(label, Span(start_ns, stop_ns))
            start_ns = stop_ns


def _stretches(span: Span, zone: ZoneInfo) -> Iterator[tuple[Span, int]]:
    """The span cut where the zone's offset from UTC changes, with the offsets (ns).

    No zone has changed twice within a day since 1970. What is stored has a grain of a
    quarter-hour: a change within one (the last were Casey's, a minute late, until 2022) is
    taken to be at its beginning.
    """
    start_ns = at_ns = span.start_ns
    offset_ns = _offset_ns(at_ns, zone)
    while at_ns < span.stop_ns:
        later_ns = min(at_ns + DAY_NS, span.stop_ns)
        if (then_ns := _offset_ns(later_ns, zone)) != offset_ns:
            change_ns = _change_ns(at_ns, later_ns, zone) // SLOT_NS * SLOT_NS
            if change_ns > start_ns:
                yield Span(start_ns, change_ns), offset_ns
                start_ns = change_ns
            offset_ns = then_ns
        at_ns = later_ns
    yield Span(start_ns, span.stop_ns), offset_ns


def _change_ns(before_ns: int, after_ns: int, zone: ZoneInfo) -> int:
    """The first instant (a whole second) of the offset that holds at the later of two."""
    offset_ns = _offset_ns(after_ns, zone)
    before, after = before_ns // SECOND_NS, after_ns // SECOND_NS
    while after - before > 1:
        middle = (before + after) // 2
        if _offset_ns(middle * SECOND_NS, zone) == offset_ns:
            after = middle
        else:
            before = middle
    return after * SECOND_NS


def _offset_ns(instant_ns: int, zone: ZoneInfo) -> int:
    """How far the zone's clocks are ahead of UTC."""
    offset = datetime.fromtimestamp(instant_ns // SECOND_NS, zone).utcoffset() or timedelta()
    return offset // timedelta(seconds=1) * SECOND_NS


def _unit_around(local_ns: int, unit: Interval) -> tuple[int, int]:
    """From when to when the unit is that a local time (ns since 1970 on its clock) lies in."""
    if unit is Interval.HOUR:
        first_ns = local_ns // HOUR_NS * HOUR_NS
        return first_ns, first_ns + HOUR_NS
    day = local_ns // DAY_NS
    if unit is Interval.DAY:
        return day * DAY_NS, (day + 1) * DAY_NS
    on = date.fromordinal(_EPOCH_DAY + day)
    if unit is Interval.WEEK:
        monday = day - on.weekday()
        return monday * DAY_NS, (monday + 7) * DAY_NS
    first = on.replace(day=1)
    following = (first + timedelta(days=31)).replace(day=1)
    return _since_epoch_ns(first), _since_epoch_ns(following)


def _since_epoch_ns(day: date) -> int:
    return (day.toordinal() - _EPOCH_DAY) * DAY_NS


def _label(unit: Interval, first_ns: int, offset_ns: int) -> str:
    """The name of the unit that begins at a local time."""
    offset = timezone(timedelta(seconds=offset_ns // SECOND_NS))
    first = datetime.fromtimestamp((first_ns - offset_ns) // SECOND_NS, offset)
    match unit:
        case Interval.HOUR:
            return first.isoformat()
        case Interval.DAY:
            return first.strftime("%Y-%m-%d")
        case Interval.WEEK:
            year, week, _ = first.isocalendar()
            return f"{year:04}-W{week:02}"
        case Interval.MONTH:
            return first.strftime("%Y-%m")
