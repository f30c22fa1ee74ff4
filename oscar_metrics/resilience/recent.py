"""How many of something there were lately, and how many of those were marked. Pure, bounded."""

from __future__ import annotations

from collections import deque

# The stretch looked back on moves on in so many steps.
_STEPS = 12


class RecentCounts:
    """Counts over about the last `seconds`, in memory that does not grow with what is counted."""

    def __init__(self, seconds: float) -> None:
        self._step_seconds = seconds / _STEPS
        # (number of the step, all, marked), the oldest first.
        self._steps: deque[tuple[int, int, int]] = deque(maxlen=_STEPS)

    def add(self, now: float, *, marked: bool) -> None:
        """Count one more."""
        step, everything, those = self._step_of(now), 0, 0
        if self._steps and self._steps[-1][0] == step:
            _, everything, those = self._steps.pop()
        self._steps.append((step, everything + 1, those + marked))

    def totals(self, now: float) -> tuple[int, int]:
        """How many there were, and how many of them were marked."""
        oldest = self._step_of(now) - _STEPS
        kept = [step for step in self._steps if step[0] > oldest]
        return sum(step[1] for step in kept), sum(step[2] for step in kept)

    def clear(self) -> None:
        """Forget everything."""
        self._steps.clear()

    def _step_of(self, now: float) -> int:
        return int(now // self._step_seconds)
