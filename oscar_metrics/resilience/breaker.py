"""When an upstream is not asked for a while, so that it can recover and nobody waits for it. Pure.

Closed, everyone may ask. After failing again and again it is open: nobody may. When its time is
up, one call is let through, and what becomes of that decides: closed again, or open for longer.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum, auto

from oscar_metrics.resilience.recent import RecentCounts

FAILURES_IN_A_ROW = 5
# Or half of the calls of the last minute, if they were as many as this.
LEAST_CALLS = 20
_WINDOW_SECONDS = 60.0
# Each time it is open is longer or shorter by up to so much of itself, so that those who share an
# upstream do not all ask again at once.
JITTER = 0.2


class BreakerState(StrEnum):
    """Whether an upstream may be asked: by everyone, by nobody, or by the one call under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Result(Enum):
    """What a call tells of an upstream's health."""

    ANSWERED = auto()
    FAILED = auto()
    # It was cancelled, or nothing was asked.
    NOTHING = auto()


class Breaker:
    """One upstream's. `now` is in seconds of any clock that never goes back.

    It opens for `open_seconds`, doubled up to `longest_open_seconds` each time that the call let
    through fails. `random` gives numbers from 0 to 1.
    """

    def __init__(
        self, *, open_seconds: float, longest_open_seconds: float, random: Callable[[], float]
    ) -> None:
        self.state = BreakerState.CLOSED
        # How often it has opened.
        self.openings = 0
        self._first_seconds = min(open_seconds, longest_open_seconds)
        self._longest_seconds = longest_open_seconds
        self._random = random
        self._next_seconds = self._first_seconds
        self._open_until = 0.0
        self._failed_in_a_row = 0
        self._recent = RecentCounts(_WINDOW_SECONDS)
        # Calls of an earlier state say nothing of this one.
        self._ticket = 0

    def begin(self, now: float) -> int | None:
        """The ticket of a call that may be made, to be handed to `end`; None: it may not."""
        if self.state is BreakerState.OPEN and now >= self._open_until:
            self._become(BreakerState.HALF_OPEN)
            return self._ticket
        return self._ticket if self.state is BreakerState.CLOSED else None

    def holds(self, ticket: int) -> bool:
        """Whether a call that has not been made yet may still be."""
        return ticket == self._ticket

    def end(self, ticket: int, result: Result, now: float) -> None:
        """Tell what became of a call; to be called once for each ticket."""
        if not self.holds(ticket):
            return
        if self.state is BreakerState.CLOSED:
            self._count(result, now)
        elif result is Result.ANSWERED:
            self._close()
        elif result is Result.FAILED:
            self._open(now)
        else:
            self._become(BreakerState.OPEN)  # its time is up: the next call takes the place

    def seconds_left(self, now: float) -> float:
        """After how long asking may be of use again, at least a second."""
        return max(1.0, self._open_until - now)

    def _count(self, result: Result, now: float) -> None:
        if result is Result.NOTHING:
            return
        failed = result is Result.FAILED
        self._failed_in_a_row = self._failed_in_a_row + 1 if failed else 0
        self._recent.add(now, marked=failed)
        calls, failures = self._recent.totals(now)
        too_many = calls >= LEAST_CALLS and 2 * failures >= calls
        if failed and (too_many or self._failed_in_a_row >= FAILURES_IN_A_ROW):
            self._open(now)

    def _open(self, now: float) -> None:
        jitter = 1 + JITTER * (2 * self._random() - 1)
        self._open_until = now + self._next_seconds * jitter
        self._next_seconds = min(2 * self._next_seconds, self._longest_seconds)
        self.openings += 1
        self._become(BreakerState.OPEN)

    def _close(self) -> None:
        self._next_seconds = self._first_seconds
        self._failed_in_a_row = 0
        self._recent.clear()
        self._become(BreakerState.CLOSED)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self._ticket += 1
