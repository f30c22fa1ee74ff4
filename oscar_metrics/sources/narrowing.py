"""Questions that may be too much for an upstream: asked for less then, and what is learned kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import TypeVar

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.gate import asked_since, went_unanswered
from oscar_metrics.resilience.learned import (
    FIRST_WAIT_AFTER_SILENCE_SECONDS,
    FIRST_WAIT_SECONDS,
    Learned,
)

T = TypeVar("T")

# An upstream may manage with less in one question. A refusal comes at once, the others late.
REFUSED = frozenset({Reason.LIMIT, Reason.TOO_LARGE})
TOO_MUCH = REFUSED | {Reason.TIMEOUT, Reason.TOO_SLOW}


class Narrowing:
    """One kind of question to one upstream, which `reasons` say was too much.

    What a report's deadline ended after `unanswered_seconds` was too much as well, where
    time-outs are: or each report would try it again, and none ever have an answer.
    """

    def __init__(
        self,
        learned: Learned,
        kind: Hashable,
        *,
        least: int,
        unanswered_seconds: float,
        reasons: frozenset[Reason] = TOO_MUCH,
    ) -> None:
        self._learned = learned
        self._kind = kind
        self._least = least
        self._unanswered_seconds = unanswered_seconds
        self._reasons = reasons

    def amount(self, most: int) -> int:
        """How much to ask for next, of at most `most`."""
        return self._learned.amount(self._kind, most, _now())

    def may_be_less(self, exc: UpstreamError, amount: int) -> bool:
        """Whether to ask again, for less."""
        return exc.reason in self._reasons and amount > self._least

    async def ask(self, amount: int, question: Awaitable[T]) -> T:
        """The answer to a question for so much. Raises UpstreamError."""
        began = _now()
        self._learned.asked(self._kind, amount, began)
        try:
            answer = await question
        except UpstreamError as exc:
            if exc.reason in self._reasons:
                self._refused(amount, silent=exc.reason is Reason.TIMEOUT)
            if exc.reason is Reason.TOO_LARGE and amount <= self._least:
                # Even of the least: whatever answers, it is not how much was asked for.
                self._learned.forget(self._kind)
            raise
        except asyncio.CancelledError:
            timed = Reason.TIMEOUT in self._reasons
            # What waited for its turn says nothing of how much it asked for.
            since = asked_since(began)
            if timed and went_unanswered(since, _now(), self._unanswered_seconds):
                self._refused(amount, silent=True)
            else:
                self._learned.given_up(self._kind, amount, _now())
            raise
        self._learned.answered(self._kind, amount, _now())
        return answer

    async def pieces(
        self, whole: int, most: int, ask: Callable[[int, int], Awaitable[T]]
    ) -> list[T]:
        """What `ask` says of [start, stop) after [start, stop), which add up to [0, whole).

        None is longer than `most`. Raises the UpstreamError of the one that could not be shorter.
        """
        said: list[T] = []
        start = 0
        while start < whole:
            amount = self.amount(min(most, whole - start))
            try:
                said.append(await self.ask(amount, ask(start, start + amount)))
            except UpstreamError as exc:
                if not self.may_be_less(exc, amount):
                    raise
            else:
                start += amount
        return said

    def _refused(self, amount: int, *, silent: bool) -> None:
        if amount > self._least:
            self._learned.refused(
                self._kind,
                amount,
                _now(),
                least=self._least,
                first_wait_seconds=(
                    FIRST_WAIT_AFTER_SILENCE_SECONDS if silent else FIRST_WAIT_SECONDS
                ),
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
