"""Instants, spans and the ranges callers write. Pure.

An instant is an integer: nanoseconds since 1970-01-01T00:00:00Z. A span is
half-open, [start, stop). Callers write ranges with both ends included; the two
rules that turn one into the other are in `report_range`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from oscar_metrics.errors import BadRequest

SECOND_NS = 1_000_000_000
MILLISECOND_NS = 1_000_000
HOUR_NS = 3600 * SECOND_NS
DAY_NS = 24 * HOUR_NS
# The grain of what is stored: every time zone in use is a multiple of it from UTC.
SLOT_NS = 900 * SECOND_NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{1,30}))?(?:Z|([+\- ])(\d\d):(\d\d))",
    re.ASCII,
)
# Engines take int64 nanoseconds (1677–2262); a margin keeps every derived instant inside.
_FIRST_YEAR, _LAST_YEAR = 1970, 2260


class Span(msgspec.Struct, frozen=True, order=True):
    """A half-open stretch of time, [start_ns, stop_ns)."""

    start_ns: int
    stop_ns: int

    @property
    def length_ns(self) -> int:
        """How long it is; never negative."""
        return max(0, self.stop_ns - self.start_ns)

    def __contains__(self, instant_ns: int) -> bool:
        return self.start_ns <= instant_ns < self.stop_ns

    def clip(self, other: Span) -> Span:
        """The part of this span inside `other`; empty (length 0) where they do not meet."""
        start_ns = max(self.start_ns, other.start_ns)
        return Span(start_ns, max(start_ns, min(self.stop_ns, other.stop_ns)))


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a series: its label, and the stretch of the asked span it holds."""

    label: str
    span: Span


class ReportRange(msgspec.Struct, frozen=True, kw_only=True):
    """A range as asked: the span it means, and the texts to echo.

    `as_of_ns` asks for the numbers as they were known then, `restated_since_ns` for what
    was restated since; `periods` (in order, together the whole span) for a row each.
    """

    span: Span
    start: str
    end: str
    as_of: str | None = None
    as_of_ns: int | None = None
    restated_since_ns: int | None = None
    periods: tuple[Period, ...] = ()


def parse_instant(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time.

    Seconds are required and nine fraction digits are kept; a space is taken for the
    `+` of an offset, which is what an unescaped `+` in a query string turns into.
    Raises ValueError for anything else, and for years no engine can hold.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        raise ValueError(text)
    whole = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    instant_ns = (whole - _EPOCH) // timedelta(seconds=1) * SECOND_NS
    if fraction := match[7]:
        instant_ns += int(fraction[:9].ljust(9, "0"))
    if sign := match[8]:
        hours, minutes = int(match[9]), int(match[10])
        if hours > 23 or minutes > 59:
            raise ValueError(text)
        offset_ns = (hours * 60 + minutes) * 60 * SECOND_NS
        instant_ns += offset_ns if sign == "-" else -offset_ns
    return instant_ns


def format_instant(instant_ns: int) -> str:
    """RFC 3339 in UTC with `Z`, and no more fraction digits than the instant has."""
    seconds, fraction_ns = divmod(instant_ns, SECOND_NS)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction_ns:
        text += "." + f"{fraction_ns:09d}".rstrip("0")
    return text + "Z"


def inclusive_stop(end_ns: int) -> int:
    """The first instant after an inclusive `end`.

    An `end` in the last second before a quarter-hour boundary (23:59:59Z to
    23:59:59.999999999Z) means up to that boundary, so that ranges people write add up.
    """
    boundary_ns = (end_ns // SLOT_NS + 1) * SLOT_NS
    return boundary_ns if boundary_ns - end_ns <= SECOND_NS else end_ns + 1


def report_range(
    start: str | None,
    end: str | None,
    now_ns: int,
    *,
    as_of: str | None = None,
    restated_since: str | None = None,
) -> ReportRange:
    """The range a caller asked for; `end` defaults to now, `start` to a day before `end`.

    Both given ends are instants included in the range and are echoed as written, and so is
    `as_of`. Raises BadRequest with the contract's texts; `end` is looked at first, then
    `start`, `as_of` and `restated_since`.
    """
    start, end = (start or "").strip(), (end or "").strip()
    if end:
        end_ns = _parse_parameter("end", end)
    else:
        # Whole seconds, so that the echo is the range that was used.
        end_ns = now_ns // SECOND_NS * SECOND_NS
        end = format_instant(end_ns)
    if start:
        start_ns = _parse_parameter("start", start)
    else:
        start_ns = max(0, end_ns - DAY_NS)
        start = format_instant(start_ns)
    if end_ns < start_ns:
        raise BadRequest(
            "end must be after start", parameter="end", detail=f"end is {end}, start is {start}"
        )
    as_of = (as_of or "").strip() or None
    as_of_ns = None if as_of is None else _parse_parameter("as_of", as_of)
    if as_of_ns is not None and as_of_ns > now_ns:
        raise BadRequest(
            "as_of must not be later than now",
            parameter="as_of",
            detail=f"it is {format_instant(now_ns)} here",
        )
    since = (restated_since or "").strip()
    return ReportRange(
        span=Span(start_ns, inclusive_stop(end_ns)),
        start=_as_written(start),
        end=_as_written(end),
        as_of=None if as_of is None else _as_written(as_of),
        as_of_ns=as_of_ns,
        restated_since_ns=_parse_parameter("restated_since", since) if since else None,
    )


def windows(span: Span, width_ns: int) -> Iterator[Span]:
    """Cut a span at the UTC-aligned multiples of `width_ns`; the pieces add up to the span."""
    start_ns = span.start_ns
    while start_ns < span.stop_ns:
        stop_ns = min(span.stop_ns, (start_ns // width_ns + 1) * width_ns)
        yield Span(start_ns, stop_ns)
        start_ns = stop_ns


def merge(spans: Iterable[Span]) -> list[Span]:
    """The same instants as sorted spans that neither overlap nor touch."""
    merged: list[Span] = []
    for span in sorted(spans):
        if not span.length_ns:
            continue
        if merged and span.start_ns <= merged[-1].stop_ns:
            last = merged.pop()
            span = Span(last.start_ns, max(last.stop_ns, span.stop_ns))
        merged.append(span)
    return merged


def subtract(span: Span, taken: Iterable[Span]) -> list[Span]:
    """The stretches of `span` that none of `taken` covers."""
    left: list[Span] = []
    start_ns = span.start_ns
    for part in merge(taken):
        if part.start_ns >= span.stop_ns:
            break
        if part.start_ns > start_ns:
            left.append(Span(start_ns, part.start_ns))
        start_ns = max(start_ns, part.stop_ns)
    if start_ns < span.stop_ns:
        left.append(Span(start_ns, span.stop_ns))
    return left


def _parse_parameter(name: str, text: str) -> int:
    try:
        return parse_instant(text)
    except ValueError:
        raise BadRequest(
            f"invalid {name} timestamp",
            parameter=name,
            detail="expected an RFC 3339 time, 1970 to 2260, for example 2026-01-31T23:59:59Z",
        ) from None


def _as_written(text: str) -> str:
    """The caller's own text; the `+` that became a space on its way is put back."""
    return text.replace(" ", "+")
