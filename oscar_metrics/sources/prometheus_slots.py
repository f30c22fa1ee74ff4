"""Usage by slot, from the pieces that were measured. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from oscar_metrics.facts import ServiceKey, SlotUsage, Usage, UsageMethod
from oscar_metrics.sources.prometheus_windows import (
    HOUR_MS,
    QUARTER_MS,
    Pieces,
    Seconds,
    Window,
    sum_of,
)
from oscar_metrics.timerange import Span, subtract

_QUARTERS = HOUR_MS // QUARTER_MS
# What adds up over windows of any length; by the other methods the least is an hour.
_OVER_ANY_WINDOW = frozenset({UsageMethod.CPU_ESTIMATE, UsageMethod.GPU_ALLOCATED})


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measure over a window: pieces, the stretches it says nothing of, methods by hour.

    `method` is None where it takes no measuring to know that nothing was used.
    """

    pieces: Pieces
    missing: tuple[Span, ...]
    method: Callable[[int], UsageMethod | None]


def slots_of(window: Window, cpu: Measured | None, gpu: Measured | None) -> tuple[SlotUsage, ...]:
    """The slots of a window, in order; one that no measure says anything of is left out.

    Slots are quarter-hours, or hours where one of the methods knows nothing shorter.
    """
    slotted = [_Slotted(measured) if measured else None for measured in (cpu, gpu)]
    return tuple(_slots(window, *slotted))


def _slots(window: Window, cpu: _Slotted | None, gpu: _Slotted | None) -> Iterator[SlotUsage]:
    for hour in range(window.start_ms // HOUR_MS, -(-window.stop_ms // HOUR_MS)):
        methods = {slotted.measured.method(hour) for slotted in (cpu, gpu) if slotted}
        quarters = 1 if methods - {None} <= _OVER_ANY_WINDOW else _QUARTERS
        for slot in range(hour * _QUARTERS, (hour + 1) * _QUARTERS, quarters):
            begun = Window(
                max(window.start_ms, slot * QUARTER_MS),
                min(window.stop_ms, (slot + quarters) * QUARTER_MS),
            )
            usage = _usage(hour, begun, cpu, gpu) if begun.length_ms > 0 else None
            if usage is not None:
                yield SlotUsage(slot=slot, quarters=quarters, usage=usage)


def _usage(hour: int, window: Window, cpu: _Slotted | None, gpu: _Slotted | None) -> Usage | None:
    """The usage of one slot; None where nothing was measured."""
    cpu_seconds = cpu.within(window) if cpu else None
    gpu_seconds = gpu.within(window) if gpu else None
    methods = {
        slotted.measured.method(hour)
        for slotted, seconds in ((cpu, cpu_seconds), (gpu, gpu_seconds))
        if slotted and seconds is not None
    }
    known = frozenset(method for method in methods if method)
    if not known:
        return None
    return Usage(cpu_seconds=cpu_seconds, gpu_seconds=gpu_seconds, methods=known)


class _Slotted:
    """The pieces of a measure, found by the quarter-hour they end in."""

    def __init__(self, measured: Measured) -> None:
        self.measured = measured
        self._by_quarter: dict[int, list[Seconds]] = {}
        for piece, seconds in measured.pieces.items():
            self._by_quarter.setdefault((piece.stop_ms - 1) // QUARTER_MS, []).append(seconds)

    def within(self, window: Window) -> dict[ServiceKey, float] | None:
        """What was measured in a window of whole slots; None where nothing is said of it."""
        quarters = range(window.start_ms // QUARTER_MS, -(-window.stop_ms // QUARTER_MS))
        seconds = sum_of(each for q in quarters for each in self._by_quarter.get(q, ()))
        return seconds if seconds or subtract(window.span, self.measured.missing) else None
