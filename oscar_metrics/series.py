"""What each source says of each period of a series. Pure.

A period that is one gap of a source, and of which nothing was read all the same, is missing
from that source: missing is not zero there either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from oscar_metrics.facts import ServiceKey, Usage
from oscar_metrics.outcome import Measure, Outcome, Partial, Unavailable
from oscar_metrics.sums import CallSums, by_period, over_all_periods
from oscar_metrics.timerange import (
    SECOND_NS,
    SLOT_NS,
    Period,
    ReportRange,
    Span,
    format_instant,
    subtract,
)
from oscar_metrics.wire import SourceName

P = TypeVar("P")


class PeriodFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One period's facts, each None where its source says nothing of it.

    `start` and `end` are the instants it includes, as a caller would ask for it alone;
    `incomplete` are the sources that do not speak for the whole of it.
    """

    period: str
    start: str
    end: str
    executions: CallSums | None
    exposed: CallSums | None
    usage: Usage | None
    incomplete: tuple[SourceName, ...]


def period_facts(
    asked: ReportRange,
    now_ns: int,
    outcomes: Mapping[SourceName, Outcome[Any]],
    usage_by_period: Mapping[int, Usage] | None,
) -> tuple[PeriodFacts, ...]:
    """The facts of every period asked for, from the outcomes of the whole range.

    Sums of calls are by groupings that begin with `period`. A period that
    `usage_by_period` leaves out is one without usage.
    """
    if not asked.periods:
        return ()
    executions, exposed = (
        _calls_by_period(outcomes.get(name), asked.periods, now_ns)
        for name in (SourceName.REQUEST_LOGS, SourceName.EXPOSED_REQUEST_LOGS)
    )
    found = []
    for number, period in enumerate(asked.periods):
        usage = _usage(
            outcomes.get(SourceName.USAGE), (usage_by_period or {}).get(number), period.span, now_ns
        )
        found.append(
            PeriodFacts(
                period=period.label,
                start=format_instant(period.span.start_ns),
                end=format_instant(_last_instant_ns(period.span)),
                executions=executions[number],
                exposed=exposed[number],
                usage=usage,
                incomplete=tuple(
                    name
                    for name in _IN_TIME
                    if name in outcomes
                    and (
                        _has_gap(outcomes[name], period.span, now_ns)
                        or (name is SourceName.USAGE and _lacks_measure(outcomes[name], usage))
                    )
                ),
            )
        )
    return tuple(found)


def series(
    asked: ReportRange, facts: Iterable[PeriodFacts], made: Callable[[PeriodFacts], P]
) -> tuple[P, ...] | UnsetType:
    """What is made of each period; UNSET where none were asked for."""
    return tuple(map(made, facts)) if asked.periods else UNSET


def over_range(calls: Outcome[CallSums]) -> CallSums | None:
    """The sums of the whole range; None where nothing was said of it."""
    return None if isinstance(calls, Unavailable) else over_all_periods(calls.facts)


# The sources that speak for stretches of time, in their order.
_IN_TIME = (SourceName.USAGE, SourceName.REQUEST_LOGS, SourceName.EXPOSED_REQUEST_LOGS)


def _calls_by_period(
    outcome: Outcome[CallSums] | None, periods: tuple[Period, ...], now_ns: int
) -> list[CallSums | None]:
    if outcome is None or isinstance(outcome, Unavailable):
        return [None] * len(periods)
    return [
        None if _is_gap(outcome, period.span, now_ns) and not any(sums.groups.values()) else sums
        for period, sums in zip(periods, by_period(outcome.facts, len(periods)), strict=True)
    ]


def _usage(
    outcome: Outcome[Usage] | None, said: Usage | None, period: Span, now_ns: int
) -> Usage | None:
    if outcome is None or isinstance(outcome, Unavailable):
        return None
    if said is None:
        said = Usage(
            cpu_seconds=None if outcome.facts.cpu_seconds is None else {},
            gpu_seconds=None if outcome.facts.gpu_seconds is None else {},
        )
    if not _is_gap(outcome, period, now_ns):
        return said
    in_doubt = _measures(outcome)
    return msgspec.structs.replace(
        said,
        cpu_seconds=_if_any(said.cpu_seconds) if Measure.CPU in in_doubt else said.cpu_seconds,
        gpu_seconds=_if_any(said.gpu_seconds) if Measure.GPU in in_doubt else said.gpu_seconds,
    )


def _if_any(seconds: dict[ServiceKey, float] | None) -> dict[ServiceKey, float] | None:
    return seconds if seconds and any(seconds.values()) else None


def _measures(outcome: Outcome[Any]) -> frozenset[Measure]:
    measures = outcome.measures if isinstance(outcome, Partial) else frozenset()
    return measures or frozenset(Measure)


def _lacks_measure(outcome: Outcome[Usage], said: Usage | None) -> bool:
    """Whether something was measured over the range, though not in this period."""
    if isinstance(outcome, Unavailable) or said is None:
        return True
    whole = outcome.facts
    return (said.cpu_seconds is None and whole.cpu_seconds is not None) or (
        said.gpu_seconds is None and whole.gpu_seconds is not None
    )


def _has_gap(outcome: Outcome[Any], period: Span, now_ns: int) -> bool:
    """Whether a source does not speak for all of a period."""
    if isinstance(outcome, Unavailable):
        return True
    gaps = outcome.gaps if isinstance(outcome, Partial) else ()
    return any(gap.span.clip(_until(period, now_ns)).length_ns for gap in gaps)


def _is_gap(outcome: Outcome[Any], period: Span, now_ns: int) -> bool:
    """Whether a source speaks for nothing of a period; the future is no gap."""
    reachable = _until(period, now_ns)
    gaps = outcome.gaps if isinstance(outcome, Partial) else ()
    return bool(reachable.length_ns) and not subtract(reachable, [gap.span for gap in gaps])


def _until(period: Span, now_ns: int) -> Span:
    return period.clip(Span(period.start_ns, max(period.start_ns, now_ns)))


def _last_instant_ns(period: Span) -> int:
    """The end that means this period: a second before a quarter-hour means up to it."""
    if period.stop_ns % SLOT_NS == 0 and period.length_ns > SECOND_NS:
        return period.stop_ns - SECOND_NS
    return period.stop_ns - 1
