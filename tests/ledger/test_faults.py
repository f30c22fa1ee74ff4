from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest

from oscar_metrics.errors import LedgerError, LedgerHeld
from oscar_metrics.ledger.seals import SealKind, Verdict
from oscar_metrics.timerange import DAY_NS
from tests.ledger.faults import FILE, SEALED_NS, calls, hours, open_ledger

_UNWRITABLE = "the ledger's file, or its folder, may not be written by this user"
_DAMAGED = "the ledger's file is damaged or no ledger"


def _told(fault: str, folder: Path) -> list[str]:
    """What a process under a fault printed; it must end by itself and print no traceback."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.ledger.faults", fault, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.fixture
def folder() -> object:
    """A folder that a user with no rights can come to, which pytest's own are not."""
    with TemporaryDirectory() as made:
        yield Path(made)


_ALL_WELL = ["what was sealed before is there: True", "all is well again: True"]


def test_a_full_disk_is_said_and_nothing_is_lost(folder: Path) -> None:
    first, *others = _told("full", folder)
    # Where no disk of a test's own can be had, a limit of the process stands in.
    assert first in {"the disk of the ledger is full: free some space", *_LIMITED}
    assert others == [*_ALL_WELL, "sealed in the end: 4"]


_LIMITED = ("the ledger's file is larger than this process may write",)


def test_a_limit_on_files_is_said_and_nothing_is_lost(folder: Path) -> None:
    assert _told("limited", folder) == [*_LIMITED, *_ALL_WELL, "sealed in the end: 4"]


def test_a_file_that_may_only_be_read_is_said(folder: Path) -> None:
    assert _told("unwritable_file", folder) == [_UNWRITABLE]


def test_a_folder_where_no_file_can_be_made_is_said(folder: Path) -> None:
    assert _told("unwritable_folder", folder) == [_UNWRITABLE]
    assert _told("folder_that_became_unwritable", folder) == [_UNWRITABLE, "well"]


async def test_a_file_held_by_another_process_is_said(tmp_path: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.ledger.faults", "held", str(tmp_path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"
    with pytest.raises(LedgerHeld, match="is open in another process"):
        open_ledger(tmp_path)
    await holder.communicate(b"")
    await open_ledger(tmp_path).aclose()


_DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty of tables": lambda path: (
        duckdb.connect(str(path.with_name("e"))).execute("CREATE TABLE other (x INTEGER)")
        and path.with_name("e").replace(path)
    ),
    "a text": lambda path: path.write_text("not a ledger at all\n" * 1000),
    "half a page": lambda path: path.write_bytes(path.read_bytes()[:2000]),
    "cut at the end": lambda path: path.write_bytes(path.read_bytes()[:-300_000]),
    "headers of zeros": lambda path: path.write_bytes(bytes(12288) + path.read_bytes()[12288:]),
    "a middle of zeros": lambda path: path.write_bytes(
        path.read_bytes()[:12288] + bytes(262_144) + path.read_bytes()[12288 + 262_144 :]
    ),
}


async def test_a_damaged_file_is_said_and_gives_no_wrong_number(tmp_path: Path) -> None:
    """Bytes turned anywhere, files cut short, files of something else."""
    ledger = open_ledger(tmp_path, create=True)
    for n in range(6):
        await ledger.seal(hours(n, n + 1), now_ns=SEALED_NS)
    await ledger.aclose()
    whole = (tmp_path / FILE).read_bytes()
    damages = dict(_DAMAGES)
    for seed in range(24):
        damages[f"turned {seed}"] = lambda path, seed=seed: path.write_bytes(  # type: ignore[misc]
            _turned(whole, random.Random(seed), only_headers=seed % 3 == 0)
        )
    for name, damage in damages.items():
        path = tmp_path / name / FILE
        path.parent.mkdir()
        shutil.copy(tmp_path / FILE, path)
        damage(path)
    told = dict(line.split(": ", 1) for line in await asyncio.to_thread(_told, "damaged", tmp_path))
    assert told.keys() == damages.keys()
    assert "WRONG NUMBERS" not in told.values()
    for name in _DAMAGES:
        assert told[name] != "well", name
    assert {text for text in told.values() if "failed (" in text} == set()
    # Some bytes are in blocks that nothing uses; most are not.
    assert sum(text.startswith(_DAMAGED) for text in told.values()) > len(told) / 3


def _turned(whole: bytes, dice: random.Random, *, only_headers: bool) -> bytes:
    """The file with sixteen bytes beside each other made others.

    Not all by the same bits: the engine's checksum of a block is an XOR over its words, by
    which equal words that are changed alike cancel out.
    """
    turned = bytearray(whole)
    at = dice.randrange(12288 if only_headers else len(whole)) // 16 * 16
    turned[at : at + 16] = bytes(byte ^ dice.randrange(1, 256) for byte in turned[at : at + 16])
    return bytes(turned)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.mkdir(), "a folder of that name is there"),
        (lambda path: path.touch(), _DAMAGED),
    ],
)
def test_what_stands_in_the_place_of_the_file_is_said(
    tmp_path: Path, make: Callable[[Path], object], says: str
) -> None:
    make(tmp_path / FILE)
    with pytest.raises(LedgerError, match=says):
        open_ledger(tmp_path, create=True)


async def test_a_clock_that_jumps_back_changes_nothing(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, create=True)
    await ledger.seal(hours(0, 6), now_ns=SEALED_NS)
    before = await calls(ledger, 6)
    earlier_ns = SEALED_NS - 1
    judged = await ledger.seal(hours(0, 6), now_ns=earlier_ns)
    assert {one.verdict for one in judged} == {Verdict.REFUSED}
    left = await ledger.compact(
        now_ns=SEALED_NS - 400 * DAY_NS, quarters_kept_ns=400 * DAY_NS, hours_kept_ns=400 * DAY_NS
    )
    assert left == 0
    assert await calls(ledger, 6) == before
    sealed = await ledger.heads(SealKind.USAGE, hours(0, 1)[0].span)
    assert [head.sealed_at_ns for head in sealed] == [SEALED_NS]
    await ledger.aclose()
