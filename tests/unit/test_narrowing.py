from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.resilience.gate import Gate, Protection
from oscar_metrics.resilience.learned import Learned
from oscar_metrics.sources.narrowing import TOO_MUCH, Narrowing
from oscar_metrics.telemetry import Telemetry


def narrowing(learned: Learned | None = None, *, least: int = 1) -> Narrowing:
    return Narrowing(learned or Learned(), "kind", least=least, unanswered_seconds=0.05)


@settings(max_examples=100, deadline=None)
@given(
    whole=st.integers(0, 200),
    most=st.integers(1, 50),
    allows=st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
async def test_pieces_follow_one_another_and_add_up_whatever_was_learned(
    whole: int, most: int, allows: list[int]
) -> None:
    learned = Learned()
    for allowed in allows:

        async def ask(start: int, stop: int, allowed: int = allowed) -> tuple[int, int]:
            if stop - start > allowed:
                raise UpstreamError("loki", Reason.LIMIT)
            return start, stop

        pieces = await narrowing(learned).pieces(whole, most, ask)
        assert [0, *(stop for _, stop in pieces)] == [*(start for start, _ in pieces), whole]
        assert all(0 < stop - start <= min(most, allowed) for start, stop in pieces)


@pytest.mark.parametrize("reason", sorted(Reason))
async def test_only_what_was_too_much_is_asked_for_by_less(reason: Reason) -> None:
    asked: list[int] = []

    async def ask(start: int, stop: int) -> None:
        asked.append(stop - start)
        raise UpstreamError("loki", reason)

    learned = Learned()
    with pytest.raises(UpstreamError):
        await narrowing(learned, least=2).pieces(16, 16, ask)
    assert asked == ([16, 8, 4, 2] if reason in TOO_MUCH else [16])
    # What is too large even of the least is no matter of how much is asked for.
    assert learned.kinds == (reason in TOO_MUCH - {Reason.TOO_LARGE})


@pytest.mark.parametrize(
    ("deadline_seconds", "cancelled_seconds", "next_amount"),
    [
        (0.1, None, 8),
        # The caller went, or the deadline came soon: neither tells of the question.
        (10.0, 0.1, 16),
        (0.02, None, 16),
    ],
)
async def test_what_a_deadline_ended_late_is_asked_for_by_less_the_next_time(
    deadline_seconds: float, cancelled_seconds: float | None, next_amount: int
) -> None:
    question = narrowing()
    deadline = asyncio.get_running_loop().time() + deadline_seconds
    with asking_for(Asker(deadline)), pytest.raises(TimeoutError):
        async with asyncio.timeout_at(deadline), asyncio.timeout(cancelled_seconds):
            await question.ask(16, asyncio.Event().wait())
    assert question.amount(16) == next_amount


async def test_what_only_waited_for_its_turn_was_not_too_much() -> None:
    learned = Learned()
    gate = Gate(
        "loki",
        Protection(),
        concurrency=1,
        attempts=1,
        timeout_seconds=1.0,
        telemetry=Telemetry(),
    )
    deadline = asyncio.get_running_loop().time() + 0.2

    async def hang() -> None:
        await asyncio.Event().wait()

    async def asked(kind: str) -> None:
        one = Narrowing(learned, kind, least=1, unanswered_seconds=0.05)
        with asking_for(Asker(deadline)), contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await one.ask(16, gate.ask(hang))

    async with asyncio.TaskGroup() as group:
        group.create_task(asked("let through"))
        await asyncio.sleep(0)
        group.create_task(asked("waited"))
    now = asyncio.get_running_loop().time()
    assert learned.amount("let through", 16, now) == 8
    assert learned.amount("waited", 16, now) == 16
