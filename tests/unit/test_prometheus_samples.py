from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.sources.prometheus_answers import Samples
from oscar_metrics.sources.prometheus_samples import SampledWindow

SECOND = 1000
Life = tuple[int, int, float]  # start and stop in seconds, cores


def window(start: float, stop: float, reach: float = 3600) -> SampledWindow:
    return SampledWindow(
        start_ms=round(start * SECOND),
        stop_ms=round(stop * SECOND),
        reach_ms=round(reach * SECOND),
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
    st.tuples(st.integers(1, 40), st.integers(31, 2500), st.floats(0.01, 4)), max_size=5
).map(one_after_another)
drawn_outages = st.lists(
    st.tuples(st.integers(0, 9000), st.integers(30, 5000)).map(lambda o: (o[0], o[0] + o[1])),
    max_size=3,
)


@given(drawn_lives, drawn_outages, st.lists(st.floats(0, 9000), max_size=3))
def test_quarter_hours_add_up_wherever_they_are_cut(
    lives: list[Life], outages: list[tuple[int, int]], cuts: list[float]
) -> None:
    """Also across outages of any length: what is cut looks as far back as the whole does."""

    def shown(series: Samples) -> Samples:
        points = (
            (at_ms, value)
            for at_ms, value in series.points
            if not any(start <= at_ms / SECOND < stop for start, stop in outages)
        )
        return Samples(series.labels, tuple(points))

    counter, starts = map(shown, samples(lives, 9000))
    quarters = [900.0 * n for n in range(11)]

    def total(edges: list[float]) -> float:
        return sum(
            window(start, stop, reach=3600 + start % 900).cpu_seconds([counter], [starts])
            for start, stop in itertools.pairwise(edges)
        )

    assert total(sorted([*quarters, *cuts])) == pytest.approx(total(quarters), rel=1e-9, abs=1e-9)
