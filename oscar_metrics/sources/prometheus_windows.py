"""A range asked window by window: cut where it is too much at once, kept where it was read."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from typing import Any, NamedTuple

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.facts import ServiceKey
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.narrowing import REFUSED, TOO_MUCH, Narrowing
from oscar_metrics.sources.prometheus_answers import UPSTREAM, Samples
from oscar_metrics.sources.prometheus_api import PrometheusApi
from oscar_metrics.tasks import task_group
from oscar_metrics.timerange import HOUR_NS, MILLISECOND_NS, SLOT_NS, Span

# Anything but a refusal that fails so often in a row will go on failing.
_FAILED_IN_A_ROW = 3
# No other question will be answered either.
_HOPELESS = frozenset(
    {
        Reason.CONNECT,
        Reason.TLS,
        Reason.OPEN,
        Reason.UNAUTHORIZED,
        Reason.FORBIDDEN,
        Reason.BAD_ANSWER,
    }
)

HOUR_MS = HOUR_NS // MILLISECOND_NS
QUARTER_MS = SLOT_NS // MILLISECOND_NS


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


class Part(NamedTuple):
    """Some of a window that one query answers: pieces of one length, one after the other."""

    window: Window
    step_ms: int

    def piece(self, stop_ms: int) -> Window:
        """The piece that ends then."""
        return Window(stop_ms - self.step_ms, stop_ms)


def parts(window: Window, step_ms: int) -> list[Part]:
    """The window cut into the whole UTC steps in it, together, and what is before and after."""
    first_ms = -(-window.start_ms // step_ms) * step_ms
    last_ms = window.stop_ms // step_ms * step_ms
    if first_ms >= last_ms:
        first_ms = last_ms = min(max(first_ms, window.start_ms), window.stop_ms)
    cut = (
        Part(Window(window.start_ms, first_ms), first_ms - window.start_ms),
        Part(Window(first_ms, last_ms), step_ms),
        Part(Window(last_ms, window.stop_ms), window.stop_ms - last_ms),
    )
    return [part for part in cut if part.window.length_ms]


async def answers(
    api: PrometheusApi,
    query: str,
    part: Part,
    doubts: set[str],
    *,
    by: Collection[str] | None = None,
    below_zero: bool = False,
) -> list[Samples]:
    """What a query about `step_ms` says at the end of each piece. Raises UpstreamError.

    `by` and `below_zero` as in `PrometheusApi.vector`.
    """
    (start_ms, stop_ms), step_ms = part
    if part.window.length_ms == step_ms:
        return [
            Samples(sample.labels, ((stop_ms, sample.value),))
            for sample in await api.vector(query, stop_ms, doubts, by=by, below_zero=below_zero)
        ]
    return await api.steps(
        query, start_ms + step_ms, stop_ms, step_ms, doubts, by=by, below_zero=below_zero
    )


Seconds = dict[ServiceKey, float]
Pieces = dict[Window, Seconds]


def pieces_of(part: Part, amounts: Iterable[tuple[ServiceKey, Samples]]) -> Pieces:
    """The sums of answers by piece and service; every piece is there, if only to say nothing."""
    parts_of: dict[int, dict[ServiceKey, list[float]]] = {
        stop_ms: {}
        for stop_ms in range(
            part.window.start_ms + part.step_ms, part.window.stop_ms + 1, part.step_ms
        )
    }
    for key, samples in amounts:
        for at_ms, value in samples.points:
            parts_of[at_ms].setdefault(key, []).append(value)
    return {
        part.piece(at_ms): {key: math.fsum(values) for key, values in found.items()}
        for at_ms, found in parts_of.items()
    }


def sum_of(pieces: Iterable[Seconds]) -> Seconds:
    """The sums of several pieces."""
    found: dict[ServiceKey, list[float]] = {}
    for seconds in pieces:
        for key, value in seconds.items():
            found.setdefault(key, []).append(value)
    return {key: math.fsum(values) for key, values in found.items()}


class WholeHoursError(UpstreamError):
    """What is asked by whole hours was not answered: shorter windows would say other numbers."""

    def __init__(self, exc: UpstreamError) -> None:
        super().__init__(exc.upstream, exc.reason, exc.detail)


Ask = Callable[[Window], Awaitable[Pieces]]


class Windows:
    """Adds up what `ask` says of each window; what it could not say is among `gaps`.

    With `slotted` each piece is kept, else no more than sums. `narrowing` is of milliseconds, an
    hour at the least: what is learned of shorter windows holds for their hours' form only.
    """

    def __init__(
        self, shortest_ms: int, concurrency: int, narrowing: Narrowing, *, slotted: bool
    ) -> None:
        self.failures: set[Reason] = set()
        # What was answered; of windows instead of pieces where nobody asks for those.
        self.pieces: Pieces = {}
        self._slotted = slotted
        self._gaps: list[Gap] = []
        self._waiting: set[Window] = set()
        self._answered = 0
        self._failed_in_a_row = 0
        # Halves of hours, which may be cut further.
        self._of_hours: set[Window] = set()
        self._shortest_ms = shortest_ms
        self._narrowing = narrowing
        self._widest_of_hours_ms: float = math.inf
        # A few windows at a time, so that a deadline finds most of them either done or not begun.
        self._slots = asyncio.Semaphore(concurrency)

    async def add(self, windows: Iterable[Window], ask: Ask) -> None:
        """Ask for every window; returns when all are answered or have failed."""
        self._waiting.update(windows)
        async with asyncio.TaskGroup() as group:
            for window in sorted(self._waiting):
                group.create_task(self._one(window, ask))

    @property
    def seconds(self) -> Seconds:
        """The sums of what was answered."""
        return sum_of(self.pieces.values())

    @property
    def gaps(self) -> list[Gap]:
        """What failed, and what is still waiting."""
        waiting = [Gap(span=w.span, reason=GapReason.DEADLINE) for w in sorted(self._waiting)]
        return self._gaps + waiting

    @property
    def nothing_answered(self) -> bool:
        """Whether something was asked and none of it answered."""
        return not self._answered and bool(self._gaps or self._waiting)

    async def _one(self, window: Window, ask: Ask) -> None:
        async with self._slots:
            pending = [window]
            while pending:
                part = pending.pop()
                pending += await self._answer(part, ask)

    async def _answer(self, window: Window, ask: Ask) -> list[Window]:
        """Ask once; the halves to ask instead, the later first, where it is too much."""
        if self.failures & _HOPELESS or self._failed_in_a_row >= _FAILED_IN_A_ROW:
            return self._fail(window)
        halves = window.length_ms >= 2 * self._shortest_ms
        if halves and self._too_wide(window):
            return self._halve(window)
        try:
            pieces = await self._narrowing.ask(window.length_ms, ask(window))
        except UpstreamError as exc:
            whole = isinstance(exc, WholeHoursError) and _in_one_hour(window)
            if halves and exc.reason in TOO_MUCH and not whole:
                if _in_one_hour(window):
                    self._widest_of_hours_ms = min(self._widest_of_hours_ms, window.length_ms / 2)
                return self._halve(window)
            self.failures.add(exc.reason)
            self._failed_in_a_row += exc.reason not in REFUSED
            return self._fail(window)
        self.pieces |= pieces if self._slotted else {window: sum_of(pieces.values())}
        self._answered += 1
        self._failed_in_a_row = 0
        self._waiting.discard(window)
        return []

    def _too_wide(self, window: Window) -> bool:
        """Whether it need not be asked, to know that its halves will have to be."""
        if _in_one_hour(window):
            # An hour is always tried: only its refusal tells whether it may be cut.
            return window in self._of_hours and window.length_ms > self._widest_of_hours_ms
        return window.length_ms > self._narrowing.amount(window.length_ms)

    def _halve(self, window: Window) -> list[Window]:
        middle_ms = _middle(window)
        halves = [Window(middle_ms, window.stop_ms), Window(window.start_ms, middle_ms)]
        if _in_one_hour(window):
            self._of_hours.update(halves)
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
    async with task_group(UpstreamError) as group:
        tasks = {name: group.create_task(question) for name, question in questions.items()}
    return {name: task.result() for name, task in tasks.items()}


def _in_one_hour(window: Window) -> bool:
    return window.start_ms // HOUR_MS == (window.stop_ms - 1) // HOUR_MS


def _middle(window: Window) -> int:
    """The hour nearest to the middle, else the quarter-hour, else the middle itself."""
    middle_ms = (window.start_ms + window.stop_ms) // 2
    for step_ms in (HOUR_MS, QUARTER_MS):
        nearest_ms = (middle_ms + step_ms // 2) // step_ms * step_ms
        if window.start_ms < nearest_ms < window.stop_ms:
            return nearest_ms
    return middle_ms
