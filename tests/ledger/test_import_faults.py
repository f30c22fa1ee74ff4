"""Imports that cannot be made whole, and those that are cut short."""

from __future__ import annotations

import asyncio
import gzip
import os
from pathlib import Path

import msgspec
import pytest

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import CallKey, CountryFrom, Kind, LogStream, Result, SlotPart
from oscar_metrics.ledger.importing import ImportReport, _size_of, import_files
from oscar_metrics.ledger.seals import Verdict
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.log_reading import ReadingLimits
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span
from tests.ledger.archives import (
    EXECUTIONS,
    HOUR,
    LITTLE,
    NOW_NS,
    NOWHERE,
    SPAN,
    START_NS,
    USUAL,
    Breaks,
    Told,
    bring,
    calls_of,
    hourful,
    stored,
    write,
)
from tests.ledger.stores import ENGINES, executions, slotted


@pytest.fixture(params=ENGINES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerStore:
    return ENGINES[request.param](tmp_path / "ledger")


async def test_no_file_no_import(store: LedgerStore, tmp_path: Path) -> None:
    log = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    (tmp_path / "folder").mkdir()
    gone, folder = tmp_path / "gone.log", tmp_path / "folder"
    with pytest.raises(LedgerError) as caught:
        await bring(store, [log, gone, folder])
    assert str(caught.value) == (
        f"there is no file {gone}; {folder} is a directory: name the files in it"
    )
    with pytest.raises(LedgerError, match="2 files are too many: import at most 1 at a time"):
        await bring(store, [log, log], limits=ReadingLimits(files=1))
    assert await store.heads(EXECUTIONS, SPAN) == []


async def test_what_is_no_log_is_said(store: LedgerStore, tmp_path: Path) -> None:
    text = write(tmp_path / "notes.txt", ["buy milk"])
    with pytest.raises(LedgerError, match=r"no line of any file is of a log that is known"):
        await bring(store, [text])
    broken = tmp_path / "broken.log.gz"
    broken.write_bytes(gzip.compress(b"short")[:-4])
    with pytest.raises(LedgerError, match=r"; broken.log.gz ends in the middle of its gzip data"):
        await bring(store, [broken])
    log = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    report = await bring(store, [text, log])
    assert report.verdicts[EXECUTIONS] == {Verdict.SEALED: 1}
    (problem,) = report.problems
    assert problem.startswith("notes.txt has no line of a log that is known: OSCAR's manager")


async def test_a_clock_before_the_seal_is_refused_and_listed(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = hourful(HOUR, ["ada"])
    await bring(store, [write(tmp_path / "a.log", lines[1:])])
    report = await bring(store, [write(tmp_path / "a.log", lines)], now_ns=NOW_NS - 1)
    assert [one.hour for one in report.refused] == [HOUR]


async def test_what_others_seal_while_files_are_read_is_no_sign_of_a_clock_set_back(
    store: LedgerStore, tmp_path: Path
) -> None:
    began_ns, ended_ns = NOW_NS, NOW_NS + 2 * HOUR_NS
    clock = iter([began_ns, ended_ns])
    # As if the sealer had come to it in between.
    await store.seal([executions(HOUR, {})], now_ns=NOW_NS + HOUR_NS)
    report = await import_files(
        store,
        [write(tmp_path / "a.log", hourful(HOUR, ["ada"]))],
        NOWHERE,
        now_ns=lambda: next(clock),
        ingress_host="",
        limits=USUAL,
        progress=Told(),
    )
    assert report.verdicts[EXECUTIONS] == {Verdict.REVISED: 1}
    (head,) = await store.heads(EXECUTIONS, SPAN)
    assert head.sealed_at_ns == ended_ns


async def test_an_import_that_changes_nothing_leaves_the_next_look_as_it_is(
    store: LedgerStore, tmp_path: Path
) -> None:
    lost = Gap(span=Span(START_NS, START_NS + 1), reason=GapReason.FAILED)
    part = SlotPart(HOUR * 4 + 3, first=False)
    call = CallKey("", "cowsay", "bob", "", CountryFrom.NOTHING, Kind.SYNC, Result.OK)
    file = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    await bring(store, [file])
    found = await stored(store, LogStream.EXECUTIONS, SPAN)
    known = {(part, key): count for part, keys in found.items() for key, count in keys.items()}
    # A source that has seen more and is to be asked again.
    more = slotted({**known, (part, call): 1})
    again = executions(HOUR, more, gaps=(lost,), looks=3, next_look_ns=NOW_NS + HOUR_NS)
    (judged,) = await store.seal([again], now_ns=NOW_NS)
    assert judged.verdict is Verdict.REVISED

    report = await bring(store, [file])
    assert report.verdicts[EXECUTIONS] == {Verdict.KEPT: 1}
    (head,) = await store.heads(EXECUTIONS, SPAN)
    assert (head.looks, head.next_look_ns) == (3, NOW_NS + HOUR_NS)


async def test_an_import_that_failed_leaves_nothing_behind(
    store: LedgerStore, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))

    with pytest.raises(ConnectionError):
        await import_files(
            store,
            [file],
            NOWHERE,
            now_ns=lambda: NOW_NS,
            ingress_host="",
            limits=ReadingLimits(),
            progress=Breaks(),
        )
    assert await store.heads(EXECUTIONS, SPAN) == []
    await bring(store, [file])
    assert await calls_of(store, HOUR) == {"ada": 12}


async def test_a_cancelled_import_ends_and_leaves_nothing_behind(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = [line for hour in range(40) for line in hourful(HOUR + hour, ["a"], step_ns=SECOND_NS)]
    file = write(tmp_path / "a.log", lines)
    told = Told()
    importing = asyncio.create_task(bring(store, [file], told=told, limits=LITTLE))
    await told.begun.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert {doing for _, _, doing in told.told} == {"reading"}
    assert await store.heads(EXECUTIONS, SPAN) == []
    report = await bring(store, [file])
    assert report.lines_understood == len(lines)


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.log", ["secret"])
    file.chmod(0)
    said, says = os.pipe()
    child = os.fork()
    if not child:
        # Permissions hold nobody back who is root.
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            _size_of([file], 10)
        except LedgerError as exc:
            os.write(says, str(exc).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(says)
    with os.fdopen(said) as pipe:
        assert pipe.read() == f"{file} may not be read by this user"


async def test_a_report_can_be_sent_and_read(store: LedgerStore, tmp_path: Path) -> None:
    report = await bring(store, [write(tmp_path / "a.log", hourful(HOUR, ["ada"]))])
    encoded = msgspec.json.encode(report)
    assert msgspec.json.decode(encoded, type=ImportReport) == report


async def test_a_ledger_that_fails_while_files_are_read_says_so_plainly(
    store: LedgerStore, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    await store.aclose()
    with pytest.raises(LedgerError, match="the ledger is closed"):
        await bring(store, [file])
