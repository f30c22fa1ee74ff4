"""Kills a process that works on a ledger, at random moments, and looks at what it left.

    python -m tests.ledger.kill 100

kills a hundred times. After every kill the file must open and verify, and must hold what
was told to be done, whole hours only; worked on to the end, it holds what it would hold
had nobody been killed.
"""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from oscar_metrics.facts import CallKey, LogStream, SlottedLog
from oscar_metrics.findings import Level
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.seals import KIND_OF, Candidate, SealKind
from oscar_metrics.sums import PERIOD, of_slots
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span
from tests.ledger.numbered import numbered
from tests.ledger.scenes import FIRST_HOUR, FIRST_NS, USERS, hour_of

_HOURS = range(FIRST_HOUR, FIRST_HOUR + 24 * 4)
_NOW_NS = FIRST_NS + 500 * DAY_NS
_BOUNDS_NS = [hour * HOUR_NS for hour in (*_HOURS, _HOURS.stop)]
_KEY = (PERIOD, *CallKey._fields)
Work = Callable[[DuckLedger, range], Awaitable[None]]


def candidate(kind: SealKind, hour: int, *, late: bool) -> Candidate:
    """What is sealed of an hour; `late` with calls that were not there at the first look."""
    return hour_of(kind, hour, random.Random(hour), more=int(late and hour % 3 == 0))


async def seal(ledger: DuckLedger, hours: range) -> None:
    """Two hours at a time from where the ledger ends, with second looks, rolling up between."""
    for late in (False, True):
        heads = await ledger.heads(SealKind.EXECUTIONS, _span(hours))
        done = {head.hour for head in heads if head.looks > late}
        for hour in (hour for hour in hours[::2] if hour not in done):
            both = (hour, hour + 1)
            again = [
                msgspec.structs.replace(candidate(kind, one, late=late), looks=1 + late)
                for kind in SealKind
                for one in both
            ]
            await ledger.seal(again, now_ns=_NOW_NS)
            _tell(*both)
            if hour % 24 == 22:
                await ledger.roll_up(now_ns=_NOW_NS)


async def take_in(ledger: DuckLedger, hours: range) -> None:
    """Day by day from archives, twice, the second with more in them."""
    for late in (False, True):
        for first in hours[::24]:
            day = range(first, first + 24)
            adding = ledger.importing()
            keys: dict[LogStream, list[CallKey]] = {stream: [] for stream in LogStream}
            for stream, kind in KIND_OF.items():
                for some in (day[:16], day[16:]):
                    parts: SlottedLog = {}
                    for hour in some:
                        parts |= candidate(kind, hour, late=late).calls or {}
                    await adding.add(stream, *numbered(parts, keys[stream]))
            empty = [
                Candidate(kind=kind, hour=hour, origin="archive", calls={})
                for kind in KIND_OF.values()
                for hour in day
            ]
            await adding.seal(empty, now_ns=_NOW_NS)
            _tell(*day)


async def compact(ledger: DuckLedger, _: range) -> None:
    """Quarter-hours into hours, then hours into days, with rolling up between."""
    for hours_kept_ns in (1000 * DAY_NS, 400 * DAY_NS):
        left = 1
        while left:
            left = await ledger.compact(
                now_ns=_NOW_NS, quarters_kept_ns=400 * DAY_NS, hours_kept_ns=hours_kept_ns
            )
            await ledger.roll_up(now_ns=_NOW_NS)


async def forget(ledger: DuckLedger, _: range) -> None:
    """One user after the other."""
    for user in USERS:
        await ledger.forget(user, now_ns=_NOW_NS)


# What is worked on from an empty ledger, and what from one in which all is sealed; and the
# hours of it.
FILLING: dict[str, tuple[Work, range]] = {"seal": (seal, _HOURS[:24]), "import": (take_in, _HOURS)}
CHANGING: dict[str, tuple[Work, range]] = {
    "compact": (compact, _HOURS),
    "forget": (forget, _HOURS[:24]),
}
WORK = {**FILLING, **CHANGING}


def kill(work: str, times: int, dice: random.Random) -> int:
    """Kill a process at one kind of work so many times; how many ledgers were worked on.

    Raises AssertionError where anything is lost, doubled or broken.
    """
    ledgers = 0
    # How long the work takes undisturbed, so that every part of it has its turn.
    longest = 0.0
    while times > 0:
        ledgers += 1
        with TemporaryDirectory() as folder:
            path = Path(folder) / "ledger.duckdb"
            asyncio.run(_prepare(path, work))
            told: set[int] = set()
            finished = False
            while not finished:
                disturbed = longest and times > 0
                ran = _run(path, work, dice.uniform(0, longest) if disturbed else None)
                finished, more, seconds = ran
                longest = longest or seconds
                times -= not finished
                told |= more
                asyncio.run(_look(path, work, told, finished=finished))
    return ledgers


def _run(path: Path, work: str, seconds: float | None) -> tuple[bool, set[int], float]:
    """Let a process work, and kill it after some time; whether it got to the end, and its word.

    And how long it worked.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "tests.ledger.kill", "work", work, str(path)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        began = time.monotonic()
        if seconds is not None:
            time.sleep(seconds)
            process.kill()
        # A line cut short by the kill was not told.
        lines = process.stdout.read().splitlines(keepends=True)
        worked_seconds = time.monotonic() - began
        code = process.wait()
    assert code in {0, -9}, f"the process ended with {code}"
    told = {int(n) for line in lines if line.endswith("\n") for n in line.split()}
    return code == 0, told, worked_seconds


async def _prepare(path: Path, work: str) -> None:
    ledger = DuckLedger.open(path, create=True, memory_mb=128, threads=1)
    if work in CHANGING:
        hours = WORK[work][1]
        for late in (False, True):
            await ledger.seal(
                [candidate(kind, hour, late=late) for kind in SealKind for hour in hours],
                now_ns=_NOW_NS,
            )
        for _ in hours[::24]:
            await ledger.roll_up(now_ns=_NOW_NS)
    await ledger.aclose()


async def _look(path: Path, work: str, told: set[int], *, finished: bool) -> None:
    hours = WORK[work][1]
    ledger = DuckLedger.open(path, create=False, memory_mb=128, threads=1)
    try:
        findings = await ledger.verify(lambda *_: None)
        assert {finding.level for finding in findings} == {Level.OK}, findings
        for stream, kind in KIND_OF.items():
            if work in FILLING:
                sealed = {head.hour for head in await ledger.heads(kind, _span(hours))}
                assert told <= sealed, f"lost: {told - sealed}"
                await _look_at_hours(ledger, stream, sealed, late_only=finished)
                if finished:
                    assert sealed == set(hours)
            else:
                await _look_at_all(ledger, stream, hours, forgotten=finished and work == "forget")
        if work == "compact" and finished:
            stretches = (await ledger.sealed(SealKind.EXECUTIONS, _span(hours))).stretches
            assert {stretch.quarters for stretch in stretches} == {96}
        if work in CHANGING or (work == "seal" and finished):
            usage = (await ledger.usage_sums([_span(hours)]))[0]
            assert round(sum((usage.cpu_seconds or {}).values()) * 1e9) == _cpu_ns(hours)
    finally:
        await ledger.aclose()


async def _look_at_hours(
    ledger: DuckLedger, stream: LogStream, hours: Iterable[int], *, late_only: bool
) -> None:
    """Every hour is what was sealed at its first or its second look, and nothing between."""
    spans = [Span(hour * HOUR_NS, (hour + 1) * HOUR_NS) for hour in sorted(hours)]
    if not spans:
        return
    found = await ledger.call_sums(stream, spans, [_KEY], bounds_ns=_BOUNDS_NS, rows_max=10_000_000)
    by_hour: dict[int, dict[Any, int]] = {hour: {} for hour in hours}
    for (period, *key), count in found.by(*_KEY).items():
        by_hour[_HOURS[period]][tuple(key)] = count
    for hour, held in by_hour.items():
        looks = [_calls(stream, hour, late=True)]
        if not late_only:
            looks.append(_calls(stream, hour, late=False))
        assert held in looks, f"{stream} of hour {hour} is none of what was ever sealed"


async def _look_at_all(
    ledger: DuckLedger, stream: LogStream, hours: range, *, forgotten: bool
) -> None:
    """All calls together are those sealed, by everything but the names of users."""
    fields = CallKey._fields
    found = await ledger.call_sums(stream, [_span(hours)], [fields], rows_max=10_000_000)
    expected: Counter[Any] = Counter()
    for hour in hours:
        expected.update(_calls(stream, hour, late=True))
    user = fields.index("user")
    assert len({key[user] for key in found.by(*fields)}) == len({key[user] for key in expected})
    assert _nameless(found.by(*fields), user) == _nameless(expected, user)
    if forgotten:
        assert {key[user] for key in found.by(*fields)} & set(USERS) <= {""}


def _nameless(counts: Counter[Any], user: int) -> Counter[Any]:
    without: Counter[Any] = Counter()
    for key, count in counts.items():
        without[(*key[:user], *key[user + 1 :])] += count
    return without


def _calls(stream: LogStream, hour: int, *, late: bool) -> dict[Any, int]:
    logs = candidate(KIND_OF[stream], hour, late=late).calls or {}
    fields = CallKey._fields
    return dict(of_slots(logs, [fields], _BOUNDS_NS).by(*fields))


def _span(hours: range) -> Span:
    return Span(hours.start * HOUR_NS, hours.stop * HOUR_NS)


def _cpu_ns(hours: range) -> int:
    slots = (s for h in hours for s in candidate(SealKind.USAGE, h, late=True).usage or ())
    return sum(round(v * 1e9) for slot in slots for v in (slot.usage.cpu_seconds or {}).values())


def _tell(*hours: int) -> None:
    print(*hours, flush=True)


async def _work(work: str, path: Path) -> None:
    ledger = DuckLedger.open(path, create=False, memory_mb=128, threads=1)
    print("begun", flush=True)
    run, hours = WORK[work]
    await run(ledger, hours)
    await ledger.aclose()


def main(arguments: list[str]) -> None:
    """As the module's text says; or, for a process that is to be killed, work."""
    if arguments[:1] == ["work"]:
        asyncio.run(_work(arguments[1], Path(arguments[2])))
        return
    times = int(arguments[0])
    seed = int(arguments[1]) if arguments[1:] else time.time_ns()
    print(f"killing {times} times, seed {seed}")
    for n, work in enumerate(WORK):
        share = times // len(WORK) + (n < times % len(WORK))
        ledgers = kill(work, share, random.Random(seed + n))
        print(f"{work}: killed {share} times over {ledgers} ledgers, nothing lost or doubled")


if __name__ == "__main__":
    main(sys.argv[1:])
