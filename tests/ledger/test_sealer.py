"""The sealer over log files: hours as they end, late lines, failures, and the clock."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import (
    CallLog,
    Inventory,
    LogStream,
    ServiceKey,
    SlottedLog,
    SlotUsage,
    Usage,
)
from oscar_metrics.findings import Finding
from oscar_metrics.ledger.sealer import IDLE_SECONDS
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.outcome import Ok, Outcome, Unavailable
from oscar_metrics.sources.countries import Countries
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span
from tests.ledger.sealing_scene import BEGIN, EXECUTIONS, EXPOSED, MINUTE_NS, Scene, log_files


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Scene.open(tmp_path) as scene:
        yield scene


async def hour_zero_is_final(scene: Scene, calls: int = 1) -> None:
    scene.write(0, calls)
    scene.at(25)
    await scene.work()
    assert (await scene.heads())[0].next_look_ns is None


async def test_an_hour_is_sealed_ten_minutes_after_it_ended(scene: Scene) -> None:
    scene.write(0, calls=3, exposed=2)
    scene.at(1, minutes=9)
    await scene.work()
    assert 0 not in await scene.heads()
    scene.at(1, minutes=10)
    await scene.work()
    for kind, stream, calls in [
        (EXECUTIONS, LogStream.EXECUTIONS, 3),
        (EXPOSED, LogStream.EXPOSED, 2),
    ]:
        head = (await scene.heads(kind))[0]
        assert (head.revision, head.looks, head.origin, head.missing_ns) == (1, 1, "log-files", 0)
        assert head.next_look_ns == (BEGIN + 5) * HOUR_NS
        assert await scene.count(0, stream) == calls
    status = scene.sealer.status()
    assert status.usable
    assert status.kinds[EXECUTIONS].sealed_up_to == "2026-03-10T01:00:00Z"
    assert status.kinds[EXECUTIONS].lag_seconds == 600
    assert status.kinds[EXECUTIONS].provisional_hours >= 1
    assert scene.sample("lag_seconds", kind="executions") == 600
    assert scene.sample("seals_total", kind="exposed", verdict="sealed") >= 1
    # What nobody can be asked for is not sealed.
    assert set(status.kinds) == {EXECUTIONS, EXPOSED}


async def test_late_lines_make_a_new_revision_until_the_last_look(scene: Scene) -> None:
    scene.write(0, calls=3)
    scene.at(1, minutes=10)
    await scene.work()
    scene.write(0, calls=5)
    scene.at(4.9)
    await scene.work()
    assert await scene.count(0) == 3
    scene.at(5)
    await scene.work()
    head = (await scene.heads())[0]
    assert (head.revision, head.looks, await scene.count(0)) == (2, 2, 5)
    assert head.next_look_ns == (BEGIN + 25) * HOUR_NS
    # The last look finds the same: no new revision, and final.
    scene.at(25)
    await scene.work()
    head = (await scene.heads())[0]
    assert (head.revision, head.looks, head.next_look_ns) == (2, 3, None)
    scene.write(0, calls=9)
    scene.at(80)
    await scene.work()
    assert await scene.count(0) == 5


async def test_a_source_that_is_down_is_asked_again_and_nothing_is_sealed_meanwhile(
    scene: Scene,
) -> None:
    scene.write(0)
    scene.at(1, minutes=10)
    await scene.work()
    away = scene.folder.rename(scene.folder.with_name("away"))
    scene.at(2, minutes=10)
    await scene.work()
    status = scene.sealer.status().kinds[EXECUTIONS]
    assert 1 not in await scene.heads()
    assert status.unsealed_hours >= 1
    assert status.last_error == "OSCAR_METRICS_LOG_FILES matches no file"
    # Not asked again before five minutes are over, though it would answer.
    away.rename(scene.folder)
    scene.write(1, calls=4)
    scene.at(2, minutes=14)
    await scene.work()
    assert 1 not in await scene.heads()
    scene.at(2, minutes=15)
    await scene.work()
    assert await scene.count(1) == 4
    assert scene.sealer.status().kinds[EXECUTIONS].last_error is None


async def test_what_stays_missing_is_sealed_as_missing_and_healed_when_it_comes_back(
    scene: Scene,
) -> None:
    await hour_zero_is_final(scene)
    scene.write(24, calls=7)
    away = scene.folder.rename(scene.folder.with_name("away"))
    for hours in (25, 26, 28, 31, 36, 43, 48, 49):
        scene.at(hours, minutes=10)
        await scene.work()
        assert (24 in await scene.heads()) == (hours >= 49), hours
    head = (await scene.heads())[24]
    assert (head.missing_ns, await scene.reasons(24)) == (HOUR_NS, {"FAILED"})
    assert head.next_look_ns is not None
    away.rename(scene.folder)
    scene.at(52)
    await scene.work()
    head = (await scene.heads())[24]
    assert (head.revision, head.missing_ns, head.next_look_ns) == (2, 0, None)
    assert await scene.count(24) == 7


async def test_silence_is_sealed_as_silence(scene: Scene) -> None:
    scene.write(0)
    scene.write(2)
    scene.at(3, minutes=10)
    await scene.work()
    head = (await scene.heads())[1]
    assert (head.missing_ns, await scene.reasons(1)) == (HOUR_NS, {"NO_LINES"})
    # It is looked at again when late lines are, not every few minutes.
    assert head.next_look_ns == (BEGIN + 6) * HOUR_NS


async def test_a_source_that_shows_less_than_before_is_not_believed(scene: Scene) -> None:
    scene.write(0, calls=5)
    scene.at(1, minutes=10)
    await scene.work()
    scene.write(0, calls=3)
    scene.at(5)
    await scene.work()
    assert await scene.count(0) == 5
    (doubt,) = [text for text in scene.sealer.status().doubts if "executions" in text]
    assert doubt == (
        "executions of 2026-03-10T00:00:00Z: log-files shows less than before"
        " (3 lines now, 5 when it was sealed)"
    )


async def test_a_source_that_contradicts_itself_is_listed(scene: Scene) -> None:
    scene.write(0, calls=2)
    scene.at(1, minutes=10)
    await scene.work()
    # Two other calls than before: neither look has seen all of them.
    text = (scene.folder / "+0000.log").read_text()
    (scene.folder / "+0000.log").write_text(text.replace("user-1", "user-9"))
    scene.at(5)
    await scene.work()
    assert scene.sample("seals_total", kind="executions", verdict="ambiguous") == 1
    assert "each look has calls that the other has not" in scene.sealer.status().doubts[0]
    assert await scene.count(0) == 2


async def test_a_clock_that_goes_back_leaves_what_lies_ahead_alone(scene: Scene) -> None:
    for hour in range(4):
        scene.write(hour)
    scene.at(4, minutes=10)
    await scene.work()
    before = {hour: head for hour, head in (await scene.heads()).items() if hour >= 0}
    scene.at(2, minutes=30)
    # The hour that is to come from here has more lines now; it is not looked at.
    scene.write(3, calls=6)
    await scene.work()
    heads = await scene.heads()
    assert {hour: heads[hour] for hour in before} == before
    (problem,) = scene.sealer.status().problems
    assert problem.startswith("the clock says 2026-03-10T02:30:00Z")
    scene.at(8)
    await scene.work()
    assert scene.sealer.status().problems == ()
    assert await scene.count(3) == 6


async def test_a_correction_the_clock_forbids_is_made_later(scene: Scene) -> None:
    scene.write(0)
    scene.at(9)
    await scene.work()
    scene.write(0, calls=4)
    # The look after 24 hours was due, and the clock is put back to before the seal's time.
    scene.sealer = scene.new_sealer()
    scene.at(1, minutes=10)
    await scene.work()
    assert await scene.count(0) == 1
    scene.at(25)
    await scene.work()
    assert await scene.count(0) == 4


async def test_hours_that_a_clock_too_far_ahead_has_closed_are_looked_at_again(
    scene: Scene,
) -> None:
    await hour_zero_is_final(scene)
    # For a moment the clock stands more than a day ahead: no hour has ended yet, really.
    scene.at(25 + 40)
    await scene.work()
    assert (await scene.heads())[27].next_look_ns is None
    assert await scene.reasons(27) == {"NO_LINES"}
    scene.at(28, minutes=10)
    scene.write(27, calls=4)
    await scene.work()
    # Not replaced yet, and no more final: who reports asks the source.
    head = (await scene.heads())[27]
    assert (head.revision, head.looks) == (1, 2)
    assert head.next_look_ns == head.sealed_at_ns + 5 * MINUTE_NS
    scene.at(25 + 41)
    await scene.work()
    assert (await scene.count(27), await scene.reasons(27)) == (4, set())
    head = (await scene.heads())[27]
    assert (head.revision, head.next_look_ns) == (2, None)


async def test_the_past_is_filled_newest_first_and_goes_on_after_a_restart(
    tmp_path: Path,
) -> None:
    async with Scene.open(tmp_path, backfill_days=6) as scene:
        for hour in range(-6 * 24, 0):
            scene.write(hour)
        scene.at(0, minutes=10)
        order: list[int] = []
        while len(order) < 90:
            await scene.sealer.step()
            order += sorted(set(await scene.heads()) - set(order), reverse=True)
        assert order == sorted(order, reverse=True)
        status = scene.sealer.status().kinds[EXECUTIONS]
        assert status.unsealed_hours == 6 * 24 - len(order)
        assert status.next_hole is not None
        scene.sealer = scene.new_sealer()
        await scene.work()
        heads = await scene.heads()
        assert sorted(heads) == list(range(-6 * 24, 0))
        assert all(head.revision == 1 for head in heads.values())
        # Hours first seen when the last look was past are final at once.
        assert {hour for hour, head in heads.items() if head.next_look_ns is None} == set(
            range(-6 * 24, -24)
        )
        assert scene.sealer.status().kinds[EXECUTIONS].unsealed_hours == 0


async def test_before_five_weeks_of_silence_nothing_is_looked_for(tmp_path: Path) -> None:
    async with Scene.open(tmp_path, backfill_days=60) as scene:
        for hour in (-1, -24 * 45):
            scene.write(hour)
        scene.at(0, minutes=10)
        await scene.work()
        # Five weeks of whole UTC days before the hour of yesterday.
        assert min(await scene.heads()) == -24 * 36
        assert scene.sealer.status().kinds[EXECUTIONS].unsealed_hours == 0


async def test_the_loop_lives_through_a_store_that_fails_and_ends_when_cancelled(
    scene: Scene,
) -> None:
    scene.write(0)
    scene.at(1, minutes=10)
    running = asyncio.create_task(scene.sealer.run())
    async with asyncio.timeout(20):
        while 0 not in await scene.heads():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await scene.store.aclose()
    scene.at(2, minutes=10)
    with pytest.raises(LedgerError):
        await scene.sealer.step()
    running = asyncio.create_task(scene.sealer.run())
    async with asyncio.timeout(20):
        while scene.sealer.status().usable:  # noqa: ASYNC110 - nobody tells when the store failed
            await asyncio.sleep(0.01)
    assert scene.sealer.status().problems
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


class UsageInNanoseconds:
    """What a template measures that has the unit wrong: more than any store has room for."""

    async def read_slots(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[tuple[SlotUsage, ...]]:
        del inventory, now_ns, deadline
        usage = Usage(cpu_seconds={ServiceKey("oscar-svc", "cowsay"): 1e18}, gpu_seconds=None)
        slots = range(span.start_ns // SLOT_NS, span.stop_ns // SLOT_NS)
        said = tuple(SlotUsage(slot=slot, quarters=1, usage=usage) for slot in slots)
        return Ok(facts=said, origin="prometheus")

    async def read(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[Usage]:
        raise NotImplementedError

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        del now_ns, deadline
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        raise NotImplementedError


class SilentLog:
    """A request log that does not answer."""

    origin = "loki"

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        del span, countries, now_ns, deadline
        return dict.fromkeys(streams, Unavailable(origin="loki", notes=("does not answer",)))

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]:
        raise NotImplementedError

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        del now_ns, deadline
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        raise NotImplementedError


async def test_what_stood_in_for_a_silent_log_is_not_final_until_that_was_heard(
    scene: Scene,
) -> None:
    scene.write(0, calls=2)
    known = log_files(scene.folder)
    silent = msgspec.structs.replace(known, logs=SilentLog(), fallback_logs=known.logs)
    # The hour's last look is past, and its pods tell of two calls.
    scene.at(30)
    scene.sealer = scene.new_sealer(silent)
    await scene.work()
    head = (await scene.heads())[0]
    assert (head.origin, head.missing_ns, await scene.count(0)) == ("log-files", 0, 2)
    assert head.next_look_ns == scene.now_ns + 5 * MINUTE_NS
    # The log answers again, and has what deleted pods had written.
    scene.write(0, calls=5)
    scene.at(30, minutes=6)
    scene.sealer = scene.new_sealer(known)
    await scene.work()
    head = (await scene.heads())[0]
    assert (head.revision, head.next_look_ns, await scene.count(0)) == (2, None, 5)


async def test_what_cannot_be_written_keeps_nothing_else_from_being_sealed(scene: Scene) -> None:
    for hour in range(3):
        scene.write(hour)
    scene.at(3, minutes=10)
    scene.sealer = scene.new_sealer(log_files(scene.folder, usage=UsageInNanoseconds()))
    problems = 0
    for _ in range(20):
        try:
            if await scene.sealer.step() == IDLE_SECONDS:
                break
        except LedgerError:
            problems += 1
    assert set(await scene.heads()) >= {0, 1, 2}
    assert await scene.heads(SealKind.USAGE) == {}
    assert problems
    said = scene.sealer.status().kinds[SealKind.USAGE].last_error
    assert said is not None
    assert said.startswith("could not be written")
    # It waits, ever longer, before it is tried again.
    assert await scene.sealer.step() == IDLE_SECONDS
    scene.at(3, minutes=16)
    with pytest.raises(LedgerError):
        await scene.sealer.step()


async def test_a_question_that_was_cancelled_leaves_nothing_half_done(scene: Scene) -> None:
    scene.write(0, calls=2000)
    scene.at(1, minutes=10)
    for moment in range(8):
        step = asyncio.create_task(scene.sealer.step())
        for _ in range(moment):
            await asyncio.sleep(0.002)
        step.cancel()
        await asyncio.wait([step])
    await scene.work()
    assert await scene.count(0) == 2000
    assert (await scene.heads())[0].revision == 1


async def test_an_idle_sealer_asks_nobody(scene: Scene) -> None:
    scene.write(0)
    scene.at(1, minutes=10)
    await scene.work()
    shutil.rmtree(scene.folder)
    assert await scene.sealer.step() == IDLE_SECONDS
    assert scene.sealer.status().kinds[SealKind.EXECUTIONS].last_error is None
