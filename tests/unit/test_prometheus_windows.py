from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import ServiceKey
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.resilience.learned import Learned
from oscar_metrics.sources.narrowing import Narrowing
from oscar_metrics.sources.prometheus_windows import (
    Part,
    Pieces,
    WholeHoursError,
    Window,
    Windows,
    parts,
    together,
)
from oscar_metrics.timerange import SECOND_NS, Span

KEY = ServiceKey("ns", "cowsay")
KIND = "cpu"
HOUR_MS = 3_600_000
QUARTER_MS = 900_000


def windows_of(
    shortest_ms: int, concurrency: int, *, slotted: bool, learned: Learned | None = None
) -> Windows:
    narrowing = Narrowing(learned or Learned(), KIND, least=HOUR_MS, unanswered_seconds=10)
    return Windows(shortest_ms, concurrency, narrowing, slotted=slotted)


async def in_windows_up_to(
    most_ms: int, reason: Reason, learned: Learned | None = None
) -> tuple[Windows, list[Window]]:
    """Ask for six hours of something that refuses wider windows, one second for each second."""
    asked: list[Window] = []

    async def ask(window: Window) -> Pieces:
        asked.append(window)
        if window.length_ms > most_ms:
            raise UpstreamError("Prometheus", reason)
        return {window: {KEY: window.length_ms / 1000}}

    windows = windows_of(900_000, 2, slotted=False, learned=learned)
    await windows.add([Window(0, 4 * HOUR_MS), Window(4 * HOUR_MS, 6 * HOUR_MS)], ask)
    return windows, asked


@pytest.mark.parametrize(
    "reason", [Reason.LIMIT, Reason.TIMEOUT, Reason.TOO_SLOW, Reason.TOO_LARGE]
)
@pytest.mark.parametrize("most_ms", [6 * HOUR_MS, HOUR_MS, 900_000])
async def test_halves_add_up_to_the_whole(most_ms: int, reason: Reason) -> None:
    windows, _ = await in_windows_up_to(most_ms, reason)
    assert windows.seconds == {KEY: 6 * 3600}
    assert not windows.gaps
    assert not windows.failures


async def test_what_was_too_much_once_is_not_tried_again() -> None:
    _, asked = await in_windows_up_to(900_000, Reason.LIMIT)
    refused = [window for window in asked if window.length_ms > 900_000]
    assert len(refused) <= 10


@pytest.mark.parametrize("most_ms", [3 * HOUR_MS, HOUR_MS])
async def test_the_next_report_begins_with_what_this_one_was_answered(most_ms: int) -> None:
    learned = Learned()
    _, first = await in_windows_up_to(most_ms, Reason.LIMIT, learned)
    windows, second = await in_windows_up_to(most_ms, Reason.LIMIT, learned)
    assert len(second) < len(first)
    assert max(window.length_ms for window in second) <= most_ms
    assert windows.seconds == {KEY: 6 * 3600}


@settings(max_examples=60, deadline=None)
@given(
    minutes=st.tuples(st.integers(0, 300), st.integers(1, 1500)),
    before=st.lists(st.integers(1, 26), max_size=5),
    allowed=st.integers(2, 26 * 4),
)
async def test_whatever_was_learned_windows_are_cut_at_hours_and_add_up(
    minutes: tuple[int, int], before: list[int], allowed: int
) -> None:
    learned = Learned()
    for hours_refused in before:
        learned.refused(KIND, hours_refused * HOUR_MS, 0, least=HOUR_MS)
    start_ms = minutes[0] * 60_000
    whole = Window(start_ms, start_ms + minutes[1] * 60_000)
    answered: list[Window] = []

    async def ask(window: Window) -> Pieces:
        if window.length_ms > allowed * QUARTER_MS:
            raise UpstreamError("Prometheus", Reason.LIMIT)
        answered.append(window)
        return {window: {KEY: window.length_ms / 1000}}

    windows = windows_of(QUARTER_MS, 2, slotted=True, learned=learned)
    await windows.add([whole], ask)
    assert not windows.gaps
    assert windows.seconds[KEY] == pytest.approx(whole.length_ms / 1000)
    answered.sort()
    edges = [whole.start_ms, *(window.stop_ms for window in answered)]
    assert edges == [*(window.start_ms for window in answered), whole.stop_ms]
    if allowed >= 4:
        assert all(at_ms % HOUR_MS == 0 for at_ms in edges[1:-1])
    assert all(at_ms % QUARTER_MS == 0 for at_ms in edges[1:-1])


async def test_no_window_is_shorter_than_allowed_and_what_is_left_is_a_gap() -> None:
    windows, asked = await in_windows_up_to(60_000, Reason.LIMIT)
    assert min(window.length_ms for window in asked) == 900_000
    assert windows.nothing_answered
    assert {gap.reason for gap in windows.gaps} == {GapReason.FAILED}
    assert windows.failures == {Reason.LIMIT}


@pytest.mark.parametrize(
    ("reason", "tries"),
    [
        (Reason.CONNECT, 2),
        (Reason.OPEN, 2),
        (Reason.UNAUTHORIZED, 2),
        (Reason.SERVER_ERROR, 4),
        (Reason.LIMIT, 6),
    ],
)
async def test_failures_that_will_go_on_end_the_asking(reason: Reason, tries: int) -> None:
    asked = 0

    async def ask(_: Window) -> Pieces:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise UpstreamError("Prometheus", reason)

    windows = windows_of(HOUR_MS, 2, slotted=False)
    await windows.add([Window(n * HOUR_MS, (n + 1) * HOUR_MS) for n in range(6)], ask)
    assert asked == tries
    assert len(windows.gaps) == 6


@pytest.mark.parametrize(
    ("start", "stop", "pieces"),
    [
        (0, 2, [(0, 2, 1)]),
        (0.5, 3.25, [(0.5, 1, 0.5), (1, 3, 1), (3, 3.25, 0.25)]),
        (0.5, 1, [(0.5, 1, 0.5)]),
        (0.25, 0.75, [(0.25, 0.75, 0.5)]),
        (0.5, 1.5, [(0.5, 1, 0.5), (1, 1.5, 0.5)]),
        (1, 1, []),
    ],
)
def test_a_window_is_cut_into_whole_steps_and_what_is_left(
    start: float, stop: float, pieces: list[tuple[float, float, float]]
) -> None:
    assert parts(hours(start, stop), HOUR_MS) == [
        Part(hours(begin, end), round(step * HOUR_MS)) for begin, end, step in pieces
    ]


def hours(start: float, stop: float) -> Window:
    return Window(round(start * HOUR_MS), round(stop * HOUR_MS))


@pytest.mark.parametrize("start", [0, 0.3])
@pytest.mark.parametrize("refused", [4, 1, 0.25])
async def test_what_is_asked_by_whole_hours_is_cut_at_hours_only(
    start: float, refused: float
) -> None:
    """Also beside windows that have shown that less than an hour is not refused."""
    asked: list[Window] = []

    async def ask(window: Window) -> Pieces:
        asked.append(window)
        exc = UpstreamError("Prometheus", Reason.LIMIT)
        by_hours = window.stop_ms <= 5 * HOUR_MS
        if window.length_ms >= (refused if by_hours else 0.6) * HOUR_MS:
            raise WholeHoursError(exc) if by_hours else exc
        return {window: {KEY: window.length_ms / 1000}}

    windows = windows_of(900_000, 2, slotted=True)
    await windows.add([hours(start, 5), hours(5, 10)], ask)
    whole = [window for window in asked if window.stop_ms <= 5 * HOUR_MS]
    edges = {at_ms for window in whole for at_ms in window}
    assert edges <= {hours(start, 5).start_ms, *(n * HOUR_MS for n in range(6))}
    missing = sum(gap.span.length_ns for gap in windows.gaps) / 1e9
    assert windows.seconds[KEY] + missing == pytest.approx((10 - start) * 3600)


async def test_what_is_cut_short_keeps_what_was_answered() -> None:
    async def ask(window: Window) -> Pieces:
        if window.start_ms:
            await asyncio.Event().wait()
        return {window: {KEY: 1.0}}

    windows = windows_of(HOUR_MS, 1, slotted=False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await windows.add([Window(0, 1000), Window(1000, 2000), Window(2000, 3000)], ask)
    assert windows.seconds == {KEY: 1.0}
    late = [Span(SECOND_NS, 2 * SECOND_NS), Span(2 * SECOND_NS, 3 * SECOND_NS)]
    assert windows.gaps == [Gap(span=span, reason=GapReason.DEADLINE) for span in late]


async def test_the_first_failure_of_questions_asked_together_is_the_one_raised() -> None:
    async def fails() -> None:
        raise UpstreamError("Prometheus", Reason.LIMIT)

    async def waits() -> None:
        await asyncio.Event().wait()

    with pytest.raises(UpstreamError) as caught:
        await together({"a": waits(), "b": fails()})
    assert caught.value.reason is Reason.LIMIT
