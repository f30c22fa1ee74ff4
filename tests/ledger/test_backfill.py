"""Backfill on request: newest first, as far as sources reach, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oscar_metrics.ledger.backfill import Backfilled, BackfilledKind
from oscar_metrics.ledger.seals import SealKind, Verdict
from oscar_metrics.timerange import HOUR_NS, Span
from tests.ledger.sealing_scene import BEGIN_NS, EXECUTIONS, EXPOSED, Scene


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Scene.open(tmp_path) as scene:
        scene.at(0, minutes=30)
        yield scene


class Told:
    """What a progress bar would show."""

    def __init__(self) -> None:
        self.days: list[str] = []
        self.last = (0, 0)

    def __call__(self, done: int, total: int, doing: str) -> None:
        assert 0 <= done <= total
        self.days.append(doing)
        self.last = (done, total)


def days(first: float, last: float) -> Span:
    return Span(BEGIN_NS + round(first * 24) * HOUR_NS, BEGIN_NS + round(last * 24) * HOUR_NS)


async def test_every_hour_of_the_range_is_sealed_and_not_asked_for_again(scene: Scene) -> None:
    for hour in range(-96, 0):
        scene.write(hour, calls=2)
    told = Told()
    done = await scene.sealer.backfill(days(-4, 0), told)
    assert told.days == ["2026-03-09", "2026-03-08", "2026-03-07", "2026-03-06", "done"]
    assert told.last == (4, 4)
    assert done.kinds[EXECUTIONS] == BackfilledKind(verdicts={Verdict.SEALED: 96})
    assert set(done.kinds) == {EXECUTIONS, EXPOSED}
    assert await scene.count(-96) == 2

    # By another process, after whatever ended the first one.
    scene.write(-96, calls=5)
    again = await scene.new_sealer().backfill(days(-4, 0), Told())
    assert again.kinds[EXECUTIONS] == BackfilledKind(final=72)
    assert await scene.count(-96) == 2


async def test_only_hours_of_the_range_that_ended(scene: Scene) -> None:
    for hour in range(-48, 1):
        scene.write(hour)
    await scene.sealer.backfill(Span(BEGIN_NS - 30 * HOUR_NS, BEGIN_NS + 5 * HOUR_NS), Told())
    assert sorted(await scene.heads()) == list(range(-30, 0))


async def test_a_source_that_fails_is_left_in_peace_and_older_hours_stay_open(
    scene: Scene,
) -> None:
    """No hour of the past is called missing because a source was away for a moment."""
    scene.write(-1)
    away = scene.folder.rename(scene.folder.with_name("away"))
    done = await scene.sealer.backfill(days(-10, 0), Told())
    assert done.kinds[EXECUTIONS].stopped == (
        "the last 5 questions failed: OSCAR_METRICS_LOG_FILES matches no file"
    )
    assert done.kinds[EXECUTIONS].failed == 24
    assert await scene.heads() == {}
    away.rename(scene.folder)
    scene.at(0, minutes=40)
    done = await scene.sealer.backfill(days(-1, 0), Told())
    assert done.kinds[EXECUTIONS].verdicts == {Verdict.SEALED: 24}


async def test_it_ends_after_five_weeks_without_anything(scene: Scene) -> None:
    for hour in (-1, -24 * 50):
        scene.write(hour)
    done = await scene.sealer.backfill(days(-60, 0), Told())
    assert done.kinds[EXECUTIONS].stopped == "35 days in a row without anything"
    assert done.kinds[EXECUTIONS].verdicts == {Verdict.SEALED: 36 * 24}


async def test_the_loop_goes_on_beside_it(scene: Scene) -> None:
    for hour in range(-72, 0):
        scene.write(hour)
    steps = 0
    async with asyncio.TaskGroup() as group:
        backfill = group.create_task(scene.sealer.backfill(days(-3, 0), Told()))
        while not backfill.done():
            await scene.sealer.step()
            steps += 1
            await asyncio.sleep(0.001)
    assert steps
    assert all(head.revision == 1 for head in (await scene.heads()).values())
    assert sorted(await scene.heads()) == list(range(-72, 0))


def test_what_it_came_to_in_words() -> None:
    done = Backfilled(
        kinds={
            SealKind.EXECUTIONS: BackfilledKind(
                verdicts={Verdict.SEALED: 1200, Verdict.KEPT: 2}, final=3, stopped="a reason"
            ),
            SealKind.USAGE: BackfilledKind(),
        }
    )
    assert str(done).splitlines() == [
        "executions: hours: 1,200 sealed, 2 kept, 3 were final; stopped: a reason",
        "usage: no hour",
    ]
    assert "no source" in str(Backfilled(kinds={}))
