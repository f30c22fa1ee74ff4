"""How much may be asked at once of an upstream that has said that something was too much. Pure.

Amounts are of time, points or lines, whatever a kind of question is cut by. What was too much is
asked for by halves, and the next question of its kind begins with what was left. After a while
one question tries twice as much. Answered, it goes on doubling, so that an upstream that allows
more now, or had only a bad moment, is soon asked for everything again; refused, it is a longer
while until the next try, so that finding out costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

# Until the first try of more, doubled with each that fails.
FIRST_WAIT_SECONDS = 60.0
# The same where nothing was said: a network that is slow for a moment leaves anything unanswered,
# and is no limit once it is well again.
FIRST_WAIT_AFTER_SILENCE_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 3600.0
# Kinds of question remembered; beyond, the one that was refused longest ago is forgotten.
MOST_KINDS = 1000


class _Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for, and from when on twice as much is tried; `trying` while it is."""

    amount: int
    more_at: float
    first_wait_seconds: float
    wait_seconds: float
    trying: bool = False


class Learned:
    """One upstream's. `now` is in seconds of any clock that never goes back."""

    def __init__(self) -> None:
        self._limits: dict[Hashable, _Limit] = {}

    @property
    def kinds(self) -> int:
        """How many kinds of question something is remembered of."""
        return len(self._limits)

    def amount(self, kind: Hashable, most: int, now: float) -> int:
        """How much to ask for of at most `most`."""
        limit = self._limits.get(kind)
        if limit is None:
            return most
        return min(most, 2 * limit.amount if now >= limit.more_at else limit.amount)

    def asked(self, kind: Hashable, amount: int, now: float) -> None:
        """A question begins; if it tries more than is known to be answered, no other does."""
        limit = self._limits.get(kind)
        if limit is not None and amount > limit.amount and now >= limit.more_at:
            self._limits[kind] = msgspec.structs.replace(
                limit,
                more_at=now + limit.wait_seconds,
                wait_seconds=min(2 * limit.wait_seconds, LONGEST_WAIT_SECONDS),
                trying=True,
            )

    def answered(self, kind: Hashable, amount: int, now: float) -> None:
        """A question was not too much."""
        limit = self._limits.get(kind)
        # Others, asked before something was refused, tell nothing: stretches differ.
        if limit is not None and limit.trying and amount > limit.amount:
            self._limits[kind] = _Limit(
                amount=amount,
                more_at=now,
                first_wait_seconds=limit.first_wait_seconds,
                wait_seconds=limit.first_wait_seconds,
            )

    def given_up(self, kind: Hashable, amount: int, now: float) -> None:
        """Nobody waited for an answer: if it tried more, that is still to be found out."""
        limit = self._limits.get(kind)
        if limit is not None and limit.trying and amount > limit.amount:
            self._limits[kind] = msgspec.structs.replace(
                limit,
                more_at=now,
                wait_seconds=max(limit.first_wait_seconds, limit.wait_seconds / 2),
                trying=False,
            )

    def forget(self, kind: Hashable) -> None:
        """What was learned of a kind does not hold."""
        self._limits.pop(kind, None)

    def refused(
        self,
        kind: Hashable,
        amount: int,
        now: float,
        *,
        least: int = 1,
        first_wait_seconds: float = FIRST_WAIT_SECONDS,
    ) -> None:
        """A question was too much; never ask for less than `least`."""
        limit = self._limits.pop(kind, None)
        if limit is None:
            limit = _Limit(
                amount=max(least, amount // 2),
                more_at=now + first_wait_seconds,
                first_wait_seconds=first_wait_seconds,
                wait_seconds=first_wait_seconds,
            )
        elif amount <= limit.amount:
            limit = msgspec.structs.replace(
                limit,
                amount=max(least, amount // 2),
                more_at=now + limit.wait_seconds,
                trying=False,
            )
        else:
            limit = msgspec.structs.replace(limit, trying=False)
        self._limits[kind] = limit
        if len(self._limits) > MOST_KINDS:
            del self._limits[next(iter(self._limits))]
