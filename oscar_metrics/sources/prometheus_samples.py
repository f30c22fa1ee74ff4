"""CPU-seconds of a container that restarted within one series, from its samples. Pure.

The same F(e) − F(s) as `promql` describes, summed over the container's lives. A new life
shows by a new start time, also where the counter has overtaken the old one's by then.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from oscar_metrics.sources.prometheus_answers import Samples

Points = Sequence[tuple[int, float]]


class _Life(msgspec.Struct, frozen=True):
    """One run of a container: its start (epoch seconds) and the counter's samples."""

    started: float
    points: list[tuple[int, float]]


class SampledWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The window (start, stop] that is counted, in epoch milliseconds.

    `reach_ms`: how far back from its start a counter is looked for.
    """

    start_ms: int
    stop_ms: int
    reach_ms: int
    interval_ms: int
    ended_after_ms: int

    @property
    def seen_from_ms(self) -> int:
        """Samples after this are looked at."""
        return self.start_ms - self.reach_ms - self.ended_after_ms

    def cpu_seconds(self, counters: Iterable[Samples], starts: Iterable[Samples]) -> float:
        """Seconds of one container, given at least its samples since `seen_from_ms`.

        The same container from several scrapers counts once; one counter per `cpu` adds up.
        """
        started = _fullest(starts)
        by_cpu: dict[str, list[Samples]] = {}
        for series in counters:
            by_cpu.setdefault(series.labels.get("cpu", ""), []).append(series)
        return math.fsum(
            self._of_lives(_lives(self._seen(_fullest(series)), started))
            for series in by_cpu.values()
        )

    def _seen(self, points: Points) -> Points:
        begin, end = (
            bisect_right(points, (at_ms, math.inf)) for at_ms in (self.seen_from_ms, self.stop_ms)
        )
        return points[begin:end]

    def _of_lives(self, lives: Sequence[_Life]) -> float:
        parts: list[float] = []
        for number, life in enumerate(lives):
            followed_ms = lives[number + 1].points[0][0] if number + 1 < len(lives) else None
            parts += [
                self._growth(life),
                self._tail(life, self.stop_ms, followed_ms),
                -self._tail(life, self.start_ms, followed_ms),
            ]
        return math.fsum(parts)

    def _growth(self, life: _Life) -> float:
        seen = bisect_right(life.points, (self.start_ms, math.inf))
        if seen == len(life.points):
            return 0.0
        if seen and life.points[seen - 1][0] > self.start_ms - self.reach_ms:
            before = life.points[seen - 1][1]
        else:
            # What a container did before we could see it may have been counted already.
            early = life.started < (self.start_ms - self.reach_ms) / 1000 - 1
            before = life.points[seen][1] if early else 0.0
        return life.points[-1][1] - before

    def _tail(self, life: _Life, at_ms: int, followed_ms: int | None) -> float:
        """tail(at) of a life, which another one has followed by then or not."""
        points = life.points[: bisect_right(life.points, (at_ms, math.inf))]
        if not points:
            return 0.0
        *before, (last_ms, value) = points
        followed = followed_ms is not None and followed_ms <= at_ms
        if last_ms + self.ended_after_ms > at_ms and not followed:
            return 0.0
        # One that goes on after so long was not found before the window either.
        if last_ms <= self.start_ms - self.reach_ms:
            return 0.0
        if before:
            rate = (value - before[-1][1]) * 1000 / (last_ms - before[-1][0])
        else:
            rate = value / age_seconds(last_ms / 1000 - math.floor(life.started))
        return rate * self.interval_ms / 2000


def age_seconds(since_start_seconds: float) -> float:
    """The age of a container whose start time cAdvisor has rounded down to whole seconds.

    Half a second less is right on average, and an age below that is beneath what it resolves.
    """
    return max(since_start_seconds - 0.5, 0.5)


def _lives(counter: Points, starts: Points) -> list[_Life]:
    start_times = [at for at, _ in starts]
    lives: list[_Life] = []
    for at, value in counter:
        # A start time is scraped together with its counter.
        known = bisect_right(start_times, at) - 1
        started = starts[max(known, 0)][1] if starts else at / 1000
        new = not lives or value < lives[-1].points[-1][1] or started != lives[-1].started
        if new:
            lives.append(_Life(started, []))
        lives[-1].points.append((at, value))
    return lives


def _fullest(series: Iterable[Samples]) -> Points:
    return max((each.points for each in series), key=len, default=())
