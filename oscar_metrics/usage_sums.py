"""Usage of several stretches, added up by period. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from oscar_metrics.facts import ServiceKey, Usage
from oscar_metrics.outcome import Outcome, Unavailable, with_doubts

# The number of a period (0 where a report has none) to its usage.
UsageByPeriod = dict[int, Usage]


def add_usage(parts: Iterable[UsageByPeriod]) -> UsageByPeriod:
    """The sums by period; None for a measure that no part took."""
    by_period: dict[int, list[Usage]] = defaultdict(list)
    for part in parts:
        for period, usage in part.items():
            by_period[period].append(usage)
    return {period: _together(usages) for period, usages in by_period.items()}


def total_usage(by_period: UsageByPeriod) -> Usage:
    """The sum over all periods."""
    return _together(list(by_period.values()))


def _together(usages: list[Usage]) -> Usage:
    return Usage(
        cpu_seconds=_seconds_together(usage.cpu_seconds for usage in usages),
        gpu_seconds=_seconds_together(usage.gpu_seconds for usage in usages),
        methods=frozenset().union(*(usage.methods for usage in usages)),
    )


def _seconds_together(
    parts: Iterable[dict[ServiceKey, float] | None],
) -> dict[ServiceKey, float] | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    values: defaultdict[ServiceKey, list[float]] = defaultdict(list)
    for part in known:
        for key, seconds in part.items():
            values[key].append(seconds)
    return {key: math.fsum(seconds) for key, seconds in values.items()}


def any_usage(by_period: UsageByPeriod) -> bool:
    """Whether any service used anything."""
    return any(usage.cpu_seconds or usage.gpu_seconds for usage in by_period.values())


def methods_differ(outcome: Outcome[UsageByPeriod]) -> Outcome[UsageByPeriod]:
    """The outcome, in doubt where one measure was taken in several ways within the range."""
    if isinstance(outcome, Unavailable):
        return outcome
    methods = {method for usage in outcome.facts.values() for method in usage.methods}
    doubts = []
    for measure in ("cpu", "gpu"):
        ways = sorted(method for method in methods if method.startswith(measure))
        if len(ways) > 1:
            doubts.append(
                f"{measure.upper()} time was measured in different ways within the range "
                f"({', '.join(ways)}), which need not add up"
            )
    return with_doubts(outcome, doubts)
