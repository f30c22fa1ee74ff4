"""How often an upstream may be asked again what it failed to answer. Pure.

When everything fails, retries would multiply what a struggling upstream is asked; so they are
a share of its calls, and a few more for one that is seldom asked.
"""

from __future__ import annotations

from oscar_metrics.resilience.recent import RecentCounts

WINDOW_SECONDS = 60.0
# Retries there may always be in a window.
FLOOR = 5


class RetryBudget:
    """One upstream's: in about the last minute, `percent` of its calls and FLOOR more.

    `now` is in seconds of any clock that never goes back.
    """

    def __init__(self, percent: int) -> None:
        self._percent = percent
        # First tries and retries; the latter are marked.
        self._recent = RecentCounts(WINDOW_SECONDS)

    def called(self, now: float) -> None:
        """Count the first try of a call."""
        self._recent.add(now, marked=False)

    def spend(self, now: float) -> bool:
        """Whether one more retry is within the budget; then it is counted."""
        if not self.left(now):
            return False
        self._recent.add(now, marked=True)
        return True

    def allowed(self, now: float) -> int:
        """How many retries the calls of the last minute allow."""
        tries, retries = self._recent.totals(now)
        return FLOOR + (tries - retries) * self._percent // 100

    def left(self, now: float) -> int:
        """How many of them were not made."""
        _, retries = self._recent.totals(now)
        return max(0, self.allowed(now) - retries)
