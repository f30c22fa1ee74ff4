from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.sources.prometheus_api import Samples
from oscar_metrics.sources.prometheus_samples import SampledWindow

SECOND = 1000
Life = tuple[int, int, float]  # start and stop in seconds, cores


def window(start: float, stop: float) -> SampledWindow:
    return SampledWindow(
        start_ms=round(start * SECOND),
        stop_ms=round(stop * SECOND),
        reach_ms=3600 * SECOND,
        interval_ms=30 * SECOND,
        ended_after_ms=300 * SECOND,
    )


def samples(lives: list[Life], stop: float, cpu: str = "total") -> tuple[Samples, Samples]:
    """The counter and the start time of a container, scraped every 30 s until `stop`."""
    counter, starts = [], []
    for at in range(7, round(stop) + 1, 30):
        for start, end, cores in lives:
            if start <= at < end:
                counter.append((at * SECOND, (at - start) * cores))
                starts.append((at * SECOND, float(start)))
    return Samples({"cpu": cpu}, tuple(counter)), Samples({}, tuple(starts))


def seconds(lives: list[Life], start: float, stop: float) -> float:
    counter, starts = samples(lives, stop)
    return window(start, stop).cpu_seconds([counter], [starts])


@pytest.mark.parametrize(
    ("lives", "truth"),
    [
        ([], 0),
        ([(100, 1100, 1.0)], 1000),
        ([(100, 1100, 1.0), (1110, 2000, 2.0)], 2780),
        ([(100, 1100, 0.1), (1101, 2000, 1.9)], 1808),  # the second overtakes the first at once
    ],
)
def test_every_life_counts(lives: list[Life], truth: float) -> None:
    assert seconds(lives, 0, 3000) == pytest.approx(truth, rel=0.02)


def test_several_cpus_add_up_and_several_scrapers_do_not() -> None:
    lives = [(100, 1100, 1.0)]
    one, starts = samples(lives, 3000, "cpu00")
    two, _ = samples(lives, 3000, "cpu01")
    assert window(0, 3000).cpu_seconds([one, two, one], [starts, starts]) == pytest.approx(
        2000, rel=0.02
    )


def test_what_began_long_before_counts_from_its_first_sample() -> None:
    counter, starts = samples([(0, 20_000, 1.0)], 11_000)
    late = Samples(counter.labels, tuple(p for p in counter.points if p[0] > 10_500 * SECOND))
    assert window(10_000, 11_000).cpu_seconds([late], [starts]) == pytest.approx(480, abs=31)


def one_after_another(drawn: list[tuple[int, int, float]]) -> list[Life]:
    """Lives from (pause before it, length, cores)."""
    lives: list[Life] = []
    for pause, lasted, cores in drawn:
        start = (lives[-1][1] if lives else 0) + pause
        lives.append((start, start + lasted, cores))
    return lives


drawn_lives = st.lists(
    st.tuples(st.integers(1, 40), st.integers(31, 900), st.floats(0.01, 4)), max_size=5
)


@given(drawn_lives.map(one_after_another), st.lists(st.floats(0, 6000), max_size=3))
def test_windows_add_up(lives: list[Life], cuts: list[float]) -> None:
    edges = [0.0, *sorted(cuts), 6000.0]
    parts = [seconds(lives, *edge) for edge in itertools.pairwise(edges)]
    assert sum(parts) == pytest.approx(seconds(lives, 0, 6000), rel=1e-9, abs=1e-9)
