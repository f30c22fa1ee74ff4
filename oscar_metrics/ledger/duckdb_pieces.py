"""Which rolled-up months, days and parts of slots make up the spans a report reads. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from oscar_metrics.ledger.duckdb_calendar import month_days, month_of
from oscar_metrics.timerange import DAY_NS, SLOT_NS, Span

_DAY_PARTS = 2 * DAY_NS // SLOT_NS


class Run(msgspec.Struct, frozen=True):
    """The numbers from `first` up to, without, `stop`: `width` of them are of `period`.

    The next `width` are of the period after it, and so on.
    """

    first: int
    stop: int
    period: int
    width: int


class Pieces(msgspec.Struct, frozen=True, kw_only=True):
    """What to read: months and days by their numbers, parts (2 × slot, or that and one)."""

    months: tuple[Run, ...]
    days: tuple[Run, ...]
    parts: tuple[Run, ...]


def pieces(
    spans: Iterable[Span],
    *,
    bounds_ns: Sequence[int] = (),
    months: Collection[int] = (),
    days: Collection[int] = (),
) -> Pieces:
    """The coarsest pieces that make up the spans, of the months and days that may be used.

    With bounds each piece lies in one period; all are of period 0 without.
    """
    found: tuple[list[Run], list[Run], list[Run]] = ([], [], [])
    for span, period in _by_period(spans, bounds_ns):
        left = [span]
        for number, whole in _months_within(span, months):
            left = [rest for part in left for rest in _without(part, whole)]
            found[0].append(_run(number, number + 1, period))
        for stretch in left:
            first, stop = _part(stretch.start_ns), _part(stretch.stop_ns)
            for day in range(-(-first // _DAY_PARTS), stop // _DAY_PARTS):
                if day in days:
                    if first < day * _DAY_PARTS:
                        found[2].append(_run(first, day * _DAY_PARTS, period))
                    found[1].append(_run(day, day + 1, period))
                    first = (day + 1) * _DAY_PARTS
            if first < stop:
                found[2].append(_run(first, stop, period))
    return Pieces(
        months=tuple(_joined(found[0])),
        days=tuple(_joined(found[1])),
        parts=tuple(_joined(found[2])),
    )


def _by_period(spans: Iterable[Span], bounds_ns: Sequence[int]) -> Iterator[tuple[Span, int]]:
    for span in spans:
        start_ns = span.start_ns
        while start_ns < span.stop_ns:
            period = max(0, bisect_right(bounds_ns, start_ns) - 1)
            later = bounds_ns[period + 1 : period + 2]
            stop_ns = min([span.stop_ns, *(bound for bound in later if bound > start_ns)])
            yield Span(start_ns, stop_ns), period
            start_ns = stop_ns


def _months_within(span: Span, months: Collection[int]) -> Iterator[tuple[int, Span]]:
    if not months:
        return
    for number in range(month_of(span.start_ns), month_of(span.stop_ns) + 1):
        inside = month_days(number)
        whole = Span(inside.start * DAY_NS, inside.stop * DAY_NS)
        if number in months and whole.clip(span) == whole:
            yield number, whole


def _without(span: Span, taken: Span) -> list[Span]:
    inside = taken.clip(span)
    if not inside.length_ns:
        return [span]
    rests = [Span(span.start_ns, inside.start_ns), Span(inside.stop_ns, span.stop_ns)]
    return [rest for rest in rests if rest.length_ns]


def _part(instant_ns: int) -> int:
    """The part of a slot that begins at an instant, which is that of a slot or one ns later."""
    slot, rest_ns = divmod(instant_ns, SLOT_NS)
    return 2 * slot + min(rest_ns, 1)


def _run(first: int, stop: int, period: int) -> Run:
    return Run(first, stop, period, stop - first)


def _joined(runs: Iterable[Run]) -> list[Run]:
    """In order; those that touch are one where they are of one period, or step alike."""
    of_one_period: list[Run] = []
    for run in sorted(runs, key=lambda run: run.first):
        last = of_one_period[-1] if of_one_period else None
        if last and (last.stop, last.period) == (run.first, run.period):
            of_one_period[-1] = _run(last.first, run.stop, run.period)
        else:
            of_one_period.append(run)
    stepping: list[Run] = []
    for run in of_one_period:
        last = stepping[-1] if stepping else None
        if last and run == _next(last):
            stepping[-1] = Run(last.first, run.stop, last.period, last.width)
        else:
            stepping.append(run)
    return stepping


def _next(run: Run) -> Run:
    """What would go on with a run for one period more."""
    period = run.period + (run.stop - run.first) // run.width
    return _run(run.stop, run.stop + run.width, period)
