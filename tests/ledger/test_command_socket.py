"""The socket beside the ledger: what is asked is answered, and nothing outlives who asked."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from oscar_metrics.errors import BadRequest, LedgerError, LedgerHeld
from oscar_metrics.ledger.command_address import connected, listening, socket_path
from oscar_metrics.ledger.command_socket import Work, answer_commands, ask
from oscar_metrics.ledger.store import Progress


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, doing: str) -> None:
        self.told.append((done, total, doing))


@asynccontextmanager
async def answering(file: Path, work: Work) -> AsyncIterator[None]:
    with listening(file) as listener:
        task = asyncio.create_task(answer_commands(listener, work))
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


async def echo(request: bytes, progress: Progress) -> Any:
    del progress
    return json.loads(request)


async def asked(file: Path, request: object = None) -> Any:
    raw = await ask(connected(file), json.dumps(request).encode(), Told())
    return json.loads(bytes(raw))


@pytest.mark.parametrize(
    "folder", ["", "deep/" * 20 + "x" * 100], ids=["short", "longer than an address"]
)
@pytest.mark.parametrize("name", ["ledger.duckdb", "n" * 200], ids=["short", "long"])
async def test_a_ledger_of_any_path_is_asked(tmp_path: Path, folder: str, name: str) -> None:
    file = tmp_path / folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    async with answering(file, echo):
        assert await asked(file, {"a": [1, "ü"]}) == {"a": [1, "ü"]}
        assert stat.S_IMODE(socket_path(file).stat().st_mode) == 0o600
    assert not list(file.parent.iterdir())


async def test_progress_arrives_before_the_result(tmp_path: Path) -> None:
    async def work(request: bytes, progress: Progress) -> Any:
        del request
        await asyncio.to_thread(progress, 1, 2, "halves")
        await heard.wait()
        return 7

    heard = asyncio.Event()

    def hear(done: int, total: int, doing: str) -> None:
        assert (done, total, doing) == (1, 2, "halves")
        heard.set()

    async with answering(tmp_path / "ledger", work):
        assert bytes(await ask(connected(tmp_path / "ledger"), b"0", hear)) == b"7"


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (BadRequest("bad", parameter="x", detail="because"), BadRequest, "bad"),
        (LedgerError("the disk is full"), LedgerError, "the disk is full"),
        (ZeroDivisionError("secret"), LedgerError, "our own mistake"),
    ],
)
async def test_what_went_wrong_is_raised_again(
    tmp_path: Path, raised: Exception, expected: type[Exception], text: str
) -> None:
    async def work(request: bytes, progress: Progress) -> Any:
        del request, progress
        raise raised

    async with answering(tmp_path / "ledger", work):
        with pytest.raises(expected, match=text) as caught:
            await asked(tmp_path / "ledger")
        assert "secret" not in str(caught.value)
        if isinstance(caught.value, BadRequest):
            assert (caught.value.parameter, caught.value.detail) == ("x", "because")


async def test_a_client_that_goes_away_cancels_its_work(tmp_path: Path) -> None:
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def work(request: bytes, progress: Progress) -> Any:
        del request, progress
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with answering(tmp_path / "ledger", work):
        client = asyncio.create_task(asked(tmp_path / "ledger"))
        await began.wait()
        client.cancel()
        await cancelled.wait()
        # The server is as well as before.
        began.clear()
        other = asyncio.create_task(asked(tmp_path / "ledger"))
        await began.wait()
        other.cancel()


async def test_a_server_that_ends_leaves_nobody_waiting(tmp_path: Path) -> None:
    began = asyncio.Event()

    async def work(request: bytes, progress: Progress) -> Any:
        del request, progress
        began.set()
        await asyncio.Event().wait()

    async with answering(tmp_path / "ledger", work):
        client = asyncio.create_task(asked(tmp_path / "ledger"))
        await began.wait()
    with pytest.raises(LedgerError, match="ended before"):
        await client


async def test_only_so_many_are_answered_at_a_time(tmp_path: Path) -> None:
    go, all_began, began = asyncio.Event(), asyncio.Event(), 0

    async def work(request: bytes, progress: Progress) -> Any:
        nonlocal began
        del request, progress
        began += 1
        if began == 8:
            all_began.set()
        await go.wait()
        return began

    file = tmp_path / "ledger"
    async with answering(file, work):
        clients = [asyncio.create_task(asked(file)) for _ in range(8)]
        await all_began.wait()
        with pytest.raises(LedgerError, match="busy"):
            await asked(file)
        go.set()
        assert set(await asyncio.gather(*clients)) == {8}
        assert await asked(file) == 9


async def test_a_request_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with answering(tmp_path / "ledger", echo):
        with pytest.raises(LedgerError):
            await asked(tmp_path / "ledger", "x" * 9_000_000)
        assert await asked(tmp_path / "ledger", "x" * 3_000_000) == "x" * 3_000_000


async def test_a_long_answer_arrives_whole(tmp_path: Path) -> None:
    async def work(request: bytes, progress: Progress) -> Any:
        del request, progress
        return ["x" * 1000] * 20_000

    async with answering(tmp_path / "ledger", work):
        assert await asked(tmp_path / "ledger") == ["x" * 1000] * 20_000


async def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_path(file)))
    with pytest.raises(LedgerHeld, match="takes no commands"):
        connected(file)
    async with answering(file, echo):
        assert await asked(file, 1) == 1


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(LedgerHeld, match="takes no commands"):
        connected(tmp_path / "ledger")


def test_a_file_in_the_way_is_left_alone(tmp_path: Path) -> None:
    socket_path(tmp_path / "ledger").write_text("precious")
    with (
        pytest.raises(LedgerError, match="in the way"),
        listening(tmp_path / "ledger"),
    ):
        pass
    assert socket_path(tmp_path / "ledger").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with (
        pytest.raises(LedgerError, match="cannot listen"),
        listening(tmp_path / "none" / "ledger"),
    ):
        pass


@pytest.mark.parametrize("sent", [b"", b"half a line", b"\n"])
async def test_a_client_that_says_nothing_useful_harms_nobody(tmp_path: Path, sent: bytes) -> None:
    file = tmp_path / "ledger"
    async with answering(file, echo):
        connection = connected(file)
        connection.sendall(sent)
        connection.close()
        assert await asked(file, 1) == 1
