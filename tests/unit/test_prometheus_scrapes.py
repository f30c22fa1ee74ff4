from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.sources.prometheus_answers import Samples
from oscar_metrics.sources.prometheus_scrapes import duration_ms, interval_ms_of, missing
from oscar_metrics.sources.prometheus_windows import Window

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("15d", 15 * DAY_MS),
        ("1y2w3d", (365 + 14 + 3) * DAY_MS),
        ("15d or 10GiB", 15 * DAY_MS),
        ("1h30m500ms", 5_400_500),
        ("10GiB", 0),
        ("", 0),
    ],
)
def test_durations(text: str, milliseconds: int) -> None:
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("present", "left"),
    [
        ((), [(50, 250)]),
        ((100, 200, 250), []),
        ((100, 250), [(100, 150)]),
        ((200,), [(50, 100), (200, 250)]),
        ((100, 200), [(200, 250)]),
    ],
)
def test_missing_stretches(present: tuple[int, ...], left: list[tuple[int, int]]) -> None:
    assert missing(Window(50, 250), 100, present) == [Window(*edges) for edges in left]


@given(st.sets(st.integers(1, 40)), st.integers(0, 900), st.integers(901, 4000))
def test_an_instant_is_missing_when_no_slot_covers_it(
    slots: set[int], start: int, stop: int
) -> None:
    left = missing(Window(start, stop), 100, [slot * 100 for slot in slots])
    for at in range(start + 1, stop + 1):
        covered = -(-at // 100) in slots
        assert any(w.start_ms < at <= w.stop_ms for w in left) != covered


@pytest.mark.parametrize(
    ("times", "interval"),
    [
        ((), None),
        ((5,), None),
        ((0, 30_000, 60_002), 30_000),
        ((0, 29_998, 60_002, 600_000), 30_000),
        ((0, 100, 200), 1000),
    ],
)
def test_intervals(times: tuple[int, ...], interval: int | None) -> None:
    assert interval_ms_of([Samples({}, tuple((at, 1.0) for at in times))]) == interval
