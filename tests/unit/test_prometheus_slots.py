from __future__ import annotations

import pytest

from oscar_metrics.facts import ServiceKey, SlotUsage, Usage, UsageMethod
from oscar_metrics.sources.prometheus_slots import Measured, slots_of
from oscar_metrics.sources.prometheus_windows import HOUR_MS, QUARTER_MS, Pieces, Window
from oscar_metrics.timerange import Span

KEY = ServiceKey("ns", "cowsay")
ESTIMATE, INCREASE = UsageMethod.CPU_ESTIMATE, UsageMethod.CPU_INCREASE
ALLOCATED, COUNTER = UsageMethod.GPU_ALLOCATED, UsageMethod.GPU_COUNTER


def window(start: float, stop: float) -> Window:
    """In hours."""
    return Window(round(start * HOUR_MS), round(stop * HOUR_MS))


def quarters(first: int, values: list[float]) -> Pieces:
    return {
        Window((first + n) * QUARTER_MS, (first + n + 1) * QUARTER_MS): {KEY: value}
        for n, value in enumerate(values)
    }


def cpu(
    pieces: Pieces, *missing: Span, first: UsageMethod = ESTIMATE, then: UsageMethod = ESTIMATE
) -> Measured:
    """CPU measured by one method in hour 0 and by another afterwards."""
    return Measured(pieces=pieces, missing=missing, method=lambda hour: then if hour else first)


def gpu(pieces: Pieces, *missing: Span, method: UsageMethod | None = ALLOCATED) -> Measured:
    return Measured(pieces=pieces, missing=missing, method=lambda _: method)


def slot(
    number: int, length: int, of_cpu: float | None, of_gpu: float | None, *by: UsageMethod
) -> SlotUsage:
    """Nothing used is 0 here, nothing known None."""

    def seconds(value: float | None) -> dict[ServiceKey, float] | None:
        return None if value is None else {KEY: value} if value else {}

    usage = Usage(cpu_seconds=seconds(of_cpu), gpu_seconds=seconds(of_gpu), methods=frozenset(by))
    return SlotUsage(slot=number, quarters=length, usage=usage)


def dark(first: int, last: int) -> Span:
    """Quarter-hours of which nothing is known."""
    return Span(first * QUARTER_MS * 10**6, last * QUARTER_MS * 10**6)


SHORT = quarters(0, [1.0, 2.0, 3.0, 4.0])
HOURS: Pieces = {window(0, 1): {KEY: 10.0}, window(1, 2): {KEY: 20.0}}


@pytest.mark.parametrize(
    ("asked", "of_cpu", "of_gpu", "slots"),
    [
        (
            window(0, 1),
            cpu(SHORT),
            gpu(quarters(0, [5.0])),
            [
                slot(0, 1, 1.0, 5.0, ESTIMATE, ALLOCATED),
                slot(1, 1, 2.0, 0, ESTIMATE, ALLOCATED),
                slot(2, 1, 3.0, 0, ESTIMATE, ALLOCATED),
                slot(3, 1, 4.0, 0, ESTIMATE, ALLOCATED),
            ],
        ),
        # Both measures are as coarse as the coarser one, hour by hour.
        (
            window(0, 2),
            cpu({**HOURS, **quarters(4, [7.0])}, first=INCREASE),
            gpu(quarters(0, [1.0, 1.0])),
            [
                slot(0, 4, 10.0, 2.0, INCREASE, ALLOCATED),
                slot(4, 1, 7.0, 0, ESTIMATE, ALLOCATED),
                slot(5, 1, 0, 0, ESTIMATE, ALLOCATED),
                slot(6, 1, 0, 0, ESTIMATE, ALLOCATED),
                slot(7, 1, 20.0, 0, ESTIMATE, ALLOCATED),
            ],
        ),
        (
            window(0, 1),
            cpu(SHORT),
            gpu(HOURS, method=COUNTER),
            [slot(0, 4, 10.0, 10.0, ESTIMATE, COUNTER)],
        ),
        # What is not known is None, and a slot of which nothing is known is left out.
        (
            window(0, 1),
            cpu(quarters(0, [1.0]), dark(1, 4)),
            gpu({}, dark(2, 3)),
            [
                slot(0, 1, 1.0, 0, ESTIMATE, ALLOCATED),
                slot(1, 1, None, 0, ALLOCATED),
                slot(3, 1, None, 0, ALLOCATED),
            ],
        ),
        # What was measured counts, whatever was not scraped then.
        (window(0, 0.25), cpu(SHORT, dark(0, 4)), None, [slot(0, 1, 1.0, None, ESTIMATE)]),
        # That there are no GPUs is known of slots that are known otherwise.
        (
            window(0, 0.5),
            cpu(quarters(0, [1.0]), dark(1, 4)),
            gpu({}, method=None),
            [slot(0, 1, 1.0, 0, ESTIMATE)],
        ),
        # Parts of slots, and slots that have not begun.
        (
            window(0.1, 0.3),
            cpu({window(0.1, 0.25): {KEY: 1.0}, window(0.25, 0.3): {KEY: 2.0}}),
            None,
            [slot(0, 1, 1.0, None, ESTIMATE), slot(1, 1, 2.0, None, ESTIMATE)],
        ),
        (window(0, 1), None, None, []),
    ],
)
def test_slots(
    asked: Window, of_cpu: Measured | None, of_gpu: Measured | None, slots: list[SlotUsage]
) -> None:
    assert list(slots_of(asked, of_cpu, of_gpu)) == slots
