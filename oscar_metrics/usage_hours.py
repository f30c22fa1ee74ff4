"""Usage in seconds → hours, of all services, of one, or of each row. Pure.

`None` is a measure that nothing measured, or usage that could not be read at all.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

from oscar_metrics.facts import ServiceKey, Usage
from oscar_metrics.outcome import Measure

# CPU core-hours and GPU-hours.
Hours = tuple[float | None, float | None]

_SECONDS_PER_HOUR = 3600.0


def hours(usage: Usage | None, measure: Measure, service: str | None = None) -> float | None:
    """Hours of one service name, or of all; fsum, so that no order of adding matters."""
    seconds = _seconds(usage, measure)
    if seconds is None:
        return None
    chosen = (s for key, s in seconds.items() if service is None or key.service == service)
    return math.fsum(chosen) / _SECONDS_PER_HOUR


def hours_by_service(usage: Usage | None) -> dict[str, Hours]:
    """Hours of every service name usage was found for."""
    return hours_by(usage, lambda key: key.service)


def hours_by(usage: Usage | None, row_of: Callable[[ServiceKey], str]) -> dict[str, Hours]:
    """Hours of every row that usage was found for, by what says which row a service is in."""
    cpu, gpu = (_by(_seconds(usage, measure), row_of) for measure in (Measure.CPU, Measure.GPU))
    return {
        name: (
            None if cpu is None else cpu.get(name, 0.0),
            None if gpu is None else gpu.get(name, 0.0),
        )
        for name in {*(cpu or ()), *(gpu or ())}
    }


def no_hours(usage: Usage | None) -> Hours:
    """The hours of a service no usage was found for: 0 where it would have been measured."""
    cpu, gpu = (_seconds(usage, measure) for measure in (Measure.CPU, Measure.GPU))
    return None if cpu is None else 0.0, None if gpu is None else 0.0


def _seconds(usage: Usage | None, measure: Measure) -> Mapping[ServiceKey, float] | None:
    if usage is None:
        return None
    return usage.cpu_seconds if measure is Measure.CPU else usage.gpu_seconds


def _by(
    seconds: Mapping[ServiceKey, float] | None, row_of: Callable[[ServiceKey], str]
) -> dict[str, float] | None:
    if seconds is None:
        return None
    by_row: defaultdict[str, list[float]] = defaultdict(list)
    for key, value_seconds in seconds.items():
        by_row[row_of(key)].append(value_seconds)
    return {name: math.fsum(parts) / _SECONDS_PER_HOUR for name, parts in by_row.items()}
