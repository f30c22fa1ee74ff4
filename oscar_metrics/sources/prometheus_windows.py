"""A range asked window by window: halved where it is too much at once, kept where it was read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.facts import ServiceKey
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.prometheus_api import UPSTREAM
from oscar_metrics.timerange import MILLISECOND_NS, Span

# A smaller question may be answered.
_TOO_MUCH = frozenset({Reason.LIMIT, Reason.TIMEOUT, Reason.TOO_LARGE})
# A refusal at once; anything else that fails so often in a row will go on failing.
_QUICK = frozenset({Reason.LIMIT, Reason.TOO_LARGE})
_FAILED_IN_A_ROW = 3
# No other question will be answered either.
_HOPELESS = frozenset(
    {Reason.CONNECT, Reason.TLS, Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.BAD_ANSWER}
)


_HOUR_MS = 3_600_000


class Window(NamedTuple):
    """The stretch (start, stop] in epoch milliseconds that one set of queries covers."""

    start_ms: int
    stop_ms: int

    @property
    def length_ms(self) -> int:
        """How long it is."""
        return self.stop_ms - self.start_ms

    @property
    def span(self) -> Span:
        """The same stretch for a list of gaps."""
        return Span(self.start_ms * MILLISECOND_NS, self.stop_ms * MILLISECOND_NS)


class TooWideError(Exception):
    """The window holds data of two forms: its halves may hold one each."""


Seconds = dict[ServiceKey, float]


class Windows:
    """Adds up what `ask` says of each window; what it could not say is among `gaps`."""

    def __init__(self, shortest_ms: int, concurrency: int) -> None:
        self.failures: set[Reason] = set()
        self._gaps: list[Gap] = []
        self._waiting: set[Window] = set()
        self._parts: dict[ServiceKey, list[float]] = {}
        self._answered = 0
        self._failed_in_a_row = 0
        self._shortest_ms = shortest_ms
        self._widest_ms: float = math.inf
        # A few windows at a time, so that a deadline finds most of them either done or not begun.
        self._slots = asyncio.Semaphore(concurrency)

    async def add(
        self, windows: Iterable[Window], ask: Callable[[Window], Awaitable[Seconds]]
    ) -> None:
        """Ask for every window; returns when all are answered or have failed."""
        self._waiting.update(windows)
        async with asyncio.TaskGroup() as group:
            for window in sorted(self._waiting):
                group.create_task(self._one(window, ask))

    @property
    def seconds(self) -> Seconds:
        """The sums of what was answered."""
        return {key: math.fsum(parts) for key, parts in self._parts.items()}

    @property
    def gaps(self) -> list[Gap]:
        """What failed, and what is still waiting."""
        waiting = [Gap(span=w.span, reason=GapReason.DEADLINE) for w in sorted(self._waiting)]
        return self._gaps + waiting

    @property
    def nothing_answered(self) -> bool:
        """Whether something was asked and none of it answered."""
        return not self._answered and bool(self._gaps or self._waiting)

    async def _one(self, window: Window, ask: Callable[[Window], Awaitable[Seconds]]) -> None:
        async with self._slots:
            pending = [window]
            while pending:
                part = pending.pop()
                pending += await self._answer(part, ask)

    async def _answer(
        self, window: Window, ask: Callable[[Window], Awaitable[Seconds]]
    ) -> list[Window]:
        """Ask once; the halves to ask instead where it is too much."""
        if self.failures & _HOPELESS or self._failed_in_a_row >= _FAILED_IN_A_ROW:
            return self._fail(window)
        halves = window.length_ms >= 2 * self._shortest_ms
        if halves and window.length_ms > self._widest_ms:
            return self._halve(window)
        try:
            seconds = await ask(window)
        except TooWideError:
            return self._halve(window)
        except UpstreamError as exc:
            if halves and exc.reason in _TOO_MUCH:
                self._widest_ms = min(self._widest_ms, window.length_ms / 2)
                return self._halve(window)
            self.failures.add(exc.reason)
            self._failed_in_a_row += exc.reason not in _QUICK
            return self._fail(window)
        for key, value in seconds.items():
            self._parts.setdefault(key, []).append(value)
        self._answered += 1
        self._failed_in_a_row = 0
        self._waiting.discard(window)
        return []

    def _halve(self, window: Window) -> list[Window]:
        middle_ms = (window.start_ms + window.stop_ms) // 2
        # `increase` is asked by whole hours, and only the same hours give the same number.
        if middle_ms // _HOUR_MS * _HOUR_MS > window.start_ms:
            middle_ms = middle_ms // _HOUR_MS * _HOUR_MS
        halves = [Window(middle_ms, window.stop_ms), Window(window.start_ms, middle_ms)]
        self._waiting.discard(window)
        self._waiting.update(halves)
        return halves

    def _fail(self, window: Window) -> list[Window]:
        self._waiting.discard(window)
        self._gaps.append(Gap(span=window.span, reason=GapReason.FAILED))
        return []


def failures(reasons: Iterable[Reason]) -> list[str]:
    """What is said of failed questions."""
    return [f"{UPSTREAM} {REASON_TEXT[reason]}" for reason in sorted(reasons)]


async def together(questions: Mapping[str, Coroutine[Any, Any, Any]]) -> dict[str, Any]:
    """The answers to several questions asked at once; the first UpstreamError ends them all."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(question) for name, question in questions.items()}
    except BaseExceptionGroup as errors:
        matching = errors.subgroup(UpstreamError)
        if matching is None or errors.split(UpstreamError)[1] is not None:
            raise
        raise _first(matching) from errors
    return {name: task.result() for name, task in tasks.items()}


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
