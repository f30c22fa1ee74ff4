"""What a process of its own does to a ledger under a fault: tests/ledger/test_faults.py asks.

    python -m tests.ledger.faults <fault> <folder>

Every fault prints what a user of the ledger was told, a line each.
"""

from __future__ import annotations

import asyncio
import ctypes
import encodings.ascii  # noqa: F401 - not to be had any more by a user with no rights
import os
import random
import resource
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import CallKey, LogStream
from oscar_metrics.findings import Level
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.timerange import DAY_NS, HOUR_NS, Span
from tests.ledger.scenes import FIRST_HOUR, FIRST_NS, hour_of

SEALED_NS = FIRST_NS + 500 * DAY_NS
FILE = "ledger.duckdb"
_NOBODY = 65534
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
# More than what is sealed before the disk is full, less than what is sealed then.
_DISK_BYTES = 2 * 2**20


def hours(first: int, stop: int) -> list[Candidate]:
    """What is sealed of some hours, numbered from the first."""
    return [
        hour_of(kind, FIRST_HOUR + n, random.Random(n))
        for n in range(first, stop)
        for kind in SealKind
    ]


def open_ledger(folder: Path, *, create: bool = False) -> DuckLedger:
    """The ledger in a folder."""
    return DuckLedger.open(folder / FILE, create=create, memory_mb=128, threads=1)


async def calls(ledger: DuckLedger, stop: int) -> dict[tuple[str, ...], int]:
    """Every call of the hours before `stop`, by everything calls are counted by."""
    fields = CallKey._fields
    found = await ledger.call_sums(
        LogStream.EXECUTIONS, [_span(stop)], [fields], rows_max=1_000_000
    )
    return dict(found.by(*fields))


async def full(folder: Path) -> None:
    """Seal until the disk is full; go on when there is space again."""
    await _fill(folder, on_disk=_mount(folder))


async def limited(folder: Path) -> None:
    """The same where the process may write no larger file."""
    await _fill(folder, on_disk=False)


async def _fill(folder: Path, *, on_disk: bool) -> None:
    ledger = open_ledger(folder, create=True)
    await ledger.seal(hours(0, 2), now_ns=SEALED_NS)
    before = await calls(ledger, 2)
    if not on_disk:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_DISK_BYTES, resource.RLIM_INFINITY))
    await _told(_seal_until_it_fails(ledger))
    say(f"what was sealed before is there: {await calls(ledger, 2) == before}")
    if on_disk:
        _libc().mount(b"", bytes(folder), b"", 32, b"size=256m")  # MS_REMOUNT
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    await ledger.seal(hours(2, 4), now_ns=SEALED_NS + 1)
    findings = await ledger.verify(lambda *_: None)
    say(f"all is well again: {[finding.level for finding in findings] == [Level.OK]}")
    await ledger.aclose()
    ledger = open_ledger(folder)
    say(f"sealed in the end: {len(await ledger.heads(SealKind.EXPOSED, _span(4)))}")
    await ledger.aclose()


async def _seal_until_it_fails(ledger: DuckLedger) -> None:
    for n in range(4, 4000, 40):
        await ledger.seal(hours(n, n + 40), now_ns=SEALED_NS)


async def unwritable_file(folder: Path) -> None:
    """Open a file that may only be read."""
    ledger = open_ledger(folder, create=True)
    await ledger.aclose()
    (folder / FILE).chmod(0o400)
    _own_and_drop(folder)
    await _told(_open(folder))


async def unwritable_folder(folder: Path) -> None:
    """Make a ledger where no file can be made."""
    _own_and_drop(folder)
    _let_write(folder, may=False)
    await _told(_open(folder))
    _let_write(folder, may=True)


async def folder_that_became_unwritable(folder: Path) -> None:
    """Seal where the file can be written and none beside it can be made."""
    _own_and_drop(folder)
    ledger = open_ledger(folder, create=True)
    await ledger.seal(hours(0, 2), now_ns=SEALED_NS)
    await ledger.aclose()
    _let_write(folder, may=False)
    await _told(_open_and_seal(folder))
    _let_write(folder, may=True)
    await _told(_open_and_seal(folder))


async def damaged(folder: Path) -> None:
    """Open every file of the folder's, and use what opens."""
    ledger = open_ledger(folder)
    right = await calls(ledger, 6)
    await ledger.aclose()
    for one in _folders_in(folder):
        print(one.name, end=": ", flush=True)
        await _told(_use(one, right))


async def _use(folder: Path, right: dict[tuple[str, ...], int]) -> None:
    ledger = open_ledger(folder)
    try:
        findings = await ledger.verify(lambda *_: None)
        found = await calls(ledger, 6)
        if any(finding.level is Level.PROBLEM for finding in findings):
            raise LedgerError(f"found by verify: {findings[0].says}")
        if found != right:
            say("WRONG NUMBERS")
            return
    finally:
        await ledger.aclose()


async def held(folder: Path) -> None:
    """Hold the file until standard input ends."""
    ledger = open_ledger(folder, create=True)
    say("held")
    await asyncio.to_thread(sys.stdin.read)
    await ledger.aclose()


async def _open(folder: Path) -> None:
    await open_ledger(folder, create=True).aclose()


async def _open_and_seal(folder: Path) -> None:
    ledger = open_ledger(folder)
    try:
        await ledger.seal(hours(2, 4), now_ns=SEALED_NS + 1)
    finally:
        await ledger.aclose()


async def _told(doing: Awaitable[None]) -> None:
    try:
        await doing
    except LedgerError as error:
        say(str(error))
    else:
        say("well")


def say(text: str) -> None:
    """One line."""
    print(text, flush=True)


def _span(stop: int) -> Span:
    return Span(FIRST_NS, FIRST_NS + stop * HOUR_NS)


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _let_write(folder: Path, *, may: bool) -> None:
    folder.chmod(0o700 if may else 0o500)


def _own_and_drop(folder: Path) -> None:
    """Give the folder to a user with no rights, and become that user; root may do anything."""
    if os.geteuid() == 0:
        for path in (folder, *folder.iterdir()):
            os.chown(path, _NOBODY, _NOBODY)
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def _mount(folder: Path) -> bool:
    """Put a small disk in the folder's place, seen by this process only; whether that worked."""
    spaces = _NEW_MOUNTS if os.geteuid() == 0 else _NEW_USER | _NEW_MOUNTS
    if _libc().unshare(spaces) != 0:
        return False
    _libc().mount(b"none", b"/", None, (1 << 18) | (1 << 14), None)  # MS_PRIVATE | MS_REC
    size = f"size={_DISK_BYTES}".encode()
    return bool(_libc().mount(b"ledger", bytes(folder), b"tmpfs", 0, size) == 0)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


FAULTS: dict[str, Callable[[Path], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        full,
        limited,
        unwritable_file,
        unwritable_folder,
        folder_that_became_unwritable,
        damaged,
        held,
    )
}


async def _main(fault: str, folder: Path) -> None:
    await FAULTS[fault](folder)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
