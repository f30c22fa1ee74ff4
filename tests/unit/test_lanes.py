"""How many are let in, who waits, and who is told to come later."""

from __future__ import annotations

import asyncio
from collections.abc import Generator

import pytest

from oscar_metrics.errors import NotNow
from oscar_metrics.resilience.lanes import LaneName, Lanes, LaneSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, Span


def lanes(*, at_once: int = 2, queued: int = 3, queue_seconds: float = 60.0) -> Lanes:
    return Lanes(
        LaneSettings(
            reports_at_once=at_once,
            reports_queued=queued,
            long_reports_at_once=1,
            long_reports_queued=0,
            long_report_days=8,
            queue_seconds=queue_seconds,
        ),
        Telemetry(),
    )


class Report:
    """Holds a place until told to let go; notes who is in."""

    def __init__(self, lanes: Lanes, inside: list[int], number: int, lane: LaneName) -> None:
        self.may_end = asyncio.Event()
        self._lanes, self._inside, self._number, self._lane = lanes, inside, number, lane

    async def __call__(self) -> None:
        async with self._lanes.place(self._lane, None):
            self._inside.append(self._number)
            await self.may_end.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("days", "has_ledger", "expected"),
    [
        (None, True, LaneName.SHORT),
        (0, False, LaneName.SHORT),
        (7.99, True, LaneName.SHORT),
        (8, False, LaneName.LONG),
        (8, True, LaneName.LEDGER),
    ],
)
def test_which_lane(days: float | None, has_ledger: bool, expected: LaneName) -> None:
    span = None if days is None else Span(5, 5 + int(days * DAY_NS))
    assert lanes().of(span, has_ledger=has_ledger) is expected


async def test_so_many_at_once_then_in_turn_then_none() -> None:
    places, inside = lanes(at_once=2, queued=3), list[int]()
    reports = [Report(places, inside, number, LaneName.SHORT) for number in range(6)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(report()) for report in reports[:5]]
        await settled()
        assert inside == [0, 1]
        with pytest.raises(NotNow) as refused:
            await reports[5]()
        assert refused.value.retry_after_seconds >= 1
        # Who waits and goes leaves the place in the queue to another.
        tasks[3].cancel()
        await settled()
        sixth = group.create_task(reports[5]())
        reports[0].may_end.set()
        await settled()
        assert inside == [0, 1, 2]
        for report in reports:
            report.may_end.set()
    assert inside == [0, 1, 2, 4, 5]
    assert sixth.done()


async def test_long_ones_keep_nobody_from_short_ones() -> None:
    places, inside = lanes(), list[int]()
    long, short = (
        Report(places, inside, number, lane)
        for number, lane in enumerate((LaneName.LONG, LaneName.SHORT))
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(long())
        await settled()
        with pytest.raises(NotNow):
            await Report(places, inside, 2, LaneName.LONG)()
        group.create_task(short())
        await settled()
        assert inside == [0, 1]
        long.may_end.set()
        short.may_end.set()


@pytest.mark.parametrize("queue_seconds", [0.01, 60.0])
async def test_nobody_waits_for_ever_nor_for_more_than_half_of_the_deadline(
    queue_seconds: float,
) -> None:
    places, inside = lanes(at_once=1, queue_seconds=queue_seconds), list[int]()
    first = Report(places, inside, 0, LaneName.SHORT)
    async with asyncio.TaskGroup() as group:
        group.create_task(first())
        await settled()
        deadline = asyncio.get_running_loop().time() + 1
        with pytest.raises(NotNow):
            async with places.place(LaneName.SHORT, deadline):
                inside.append(1)
        assert asyncio.get_running_loop().time() < deadline
        first.may_end.set()
    assert inside == [0]


async def test_who_is_refused_is_told_to_come_after_those_refused_before_and_none_wait_till_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    places = lanes(at_once=1, queued=2)
    for _ in range(100):  # a report takes three seconds
        async with places.place(LaneName.SHORT, None):
            now += 3

    async with asyncio.TaskGroup() as group:

        def asked() -> asyncio.Task[None]:
            report = Report(places, [], 0, LaneName.SHORT)
            report.may_end.set()
            return group.create_task(report())

        held = Report(places, [], 0, LaneName.SHORT)
        making = group.create_task(held())
        await settled()
        waiting = [asked(), asked()]
        await settled()
        told = []
        for _ in range(4):
            with pytest.raises(NotNow) as refused:
                async with places.place(LaneName.SHORT, None):
                    pass
            told.append(refused.value.retry_after_seconds)
        # Two that wait and itself; and never more than ten seconds, where a report takes less.
        assert told == [9, 10, 10, 10]

        held.may_end.set()
        await settled()
        assert making.done()
        assert all(report.done() for report in waiting)
        # A place that is free is taken, but nobody waits for one.
        again = Report(places, [], 0, LaneName.SHORT)
        taken = group.create_task(again())
        await settled()
        with pytest.raises(NotNow):
            async with places.place(LaneName.SHORT, None):
                pass
        now += 10
        late = asked()
        await settled()
        assert not late.done()
        again.may_end.set()
        await settled()
        assert taken.done()
        assert late.done()


async def test_an_error_gives_the_place_back() -> None:
    places = lanes(at_once=1, queued=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with places.place(LaneName.SHORT, None):
                raise ZeroDivisionError


def pieces() -> Generator[bytes, None, None]:
    yield from (b"a", b"b")


def test_who_is_let_in_to_be_sent_a_large_report_counts_before_its_first_piece() -> None:
    places = Lanes(LaneSettings(streams_at_once=2), Telemetry())
    first, second = places.stream(pieces()), places.stream(pieces())
    with pytest.raises(NotNow):
        places.stream(pieces())
    assert b"".join(first) == b"ab"
    third = places.stream(pieces())
    # Of one that nobody begins to send nothing is left, closed or dropped.
    second.close()
    del third
    held = [places.stream(pieces()), places.stream(pieces())]
    with pytest.raises(NotNow):
        places.stream(pieces())
    assert [b"".join(each) for each in held] == [b"ab", b"ab"]
