"""How a command asks the server that holds the ledger, over the socket beside the file.

A client sends one line of JSON, its request. The server answers lines of JSON: how far it
is, as often as there is something to say, and last the result or what went wrong. A client
that goes away cancels its piece of work.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import structlog

from oscar_metrics.errors import BadRequest, LedgerError, OscarMetricsError, RequestError
from oscar_metrics.ledger.store import Progress

# What a piece of work is given: the request, and whom to tell how far it is.
Work = Callable[[bytes, Progress], Awaitable[Any]]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# Room for the names of ten thousand files.
_REQUEST_BYTES = 4 * 1024 * 1024
# Room for the longest report.
_ANSWER_BYTES = 512 * 1024 * 1024
_REQUEST_WITHIN_SECONDS = 10
_TOLD_EVERY_SECONDS = 0.2
_AT_A_TIME = 8


class Told(msgspec.Struct, frozen=True, kw_only=True, tag_field="says", tag="progress"):
    """How far a piece of work is."""

    done: int
    total: int
    doing: str


class Result(msgspec.Struct, frozen=True, kw_only=True, tag_field="says", tag="result"):
    """What came of it."""

    result: msgspec.Raw


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag_field="says", tag="error"):
    """Why nothing came of it; `asked_wrong` when the request is to blame."""

    text: str
    asked_wrong: bool = False
    detail: str | None = None
    parameter: str | None = None


_Answer = Told | Result | Failed
_answers: msgspec.json.Decoder[_Answer] = msgspec.json.Decoder(_Answer)


async def answer_commands(listener: socket.socket, work: Work) -> None:
    """Answer whoever connects until cancelled, and let go of every client then."""
    async with asyncio.TaskGroup() as group:
        free = asyncio.Semaphore(_AT_A_TIME)

        def connected(reader: StreamReader, writer: StreamWriter) -> None:
            group.create_task(_converse(reader, writer, work, free))

        server = await asyncio.start_unix_server(connected, sock=listener, limit=_REQUEST_BYTES)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            server.close()


async def ask(connection: socket.socket, request: bytes, progress: Progress) -> msgspec.Raw:
    """What the server at the other end answers to a request (JSON without a line end).

    Raises what the work raised there: BadRequest where the request is to blame, else
    LedgerError; and LedgerError where the server ends without an answer.
    """
    reader, writer = await asyncio.open_unix_connection(sock=connection, limit=_ANSWER_BYTES)
    try:
        writer.write(request + b"\n")
        await writer.drain()
        while True:
            match _decoded(await reader.readline()):
                case Told(done=done, total=total, doing=doing):
                    progress(done, total, doing)
                case Result(result=result):
                    return result
                case Failed(asked_wrong=True) as failed:
                    raise BadRequest(failed.text, parameter=failed.parameter, detail=failed.detail)
                case Failed(text=text):
                    raise LedgerError(text)
    except (ConnectionError, ValueError) as exc:
        raise _unanswered() from exc
    finally:
        writer.close()


class _LastTold:
    """Remembers how far a piece of work is, which may run on any thread."""

    def __init__(self) -> None:
        self.told: Told | None = None

    def __call__(self, done: int, total: int, doing: str) -> None:
        self.told = Told(done=done, total=total, doing=doing)


async def _converse(
    reader: StreamReader, writer: StreamWriter, work: Work, free: asyncio.Semaphore
) -> None:
    try:
        async with asyncio.timeout(_REQUEST_WITHIN_SECONDS):
            request = await reader.readline()
        if not request.endswith(b"\n"):
            return
        if free.locked():
            await _send(writer, Failed(text="the server is busy with other commands: try again"))
            return
        async with free:
            await _work(request, reader, writer, work)
    except ValueError:
        await _send(writer, Failed(text="the request is longer than is read", asked_wrong=True))
    except (TimeoutError, ConnectionError):
        return
    finally:
        writer.close()


async def _work(request: bytes, reader: StreamReader, writer: StreamWriter, work: Work) -> None:
    """Do what was asked while telling how far it is; stop when the client is gone."""
    last = _LastTold()
    async with asyncio.TaskGroup() as group:
        doing = group.create_task(_outcome(request, work, last))
        watching = group.create_task(_cancel_when_gone(reader, doing))
        telling = group.create_task(_keep_telling(writer, last))
        await asyncio.wait([doing])
        watching.cancel()
        telling.cancel()
    if not doing.cancelled():
        await _send(writer, doing.result())


async def _outcome(request: bytes, work: Work, progress: Progress) -> Result | Failed:
    try:
        result = msgspec.Raw(msgspec.json.encode(await work(request, progress)))
    except BadRequest as exc:
        return Failed(text=exc.text, asked_wrong=True, detail=exc.detail, parameter=exc.parameter)
    except RequestError as exc:
        return Failed(text=f"{exc.text} ({exc.detail})")
    except OscarMetricsError as exc:
        return Failed(text=str(exc))
    except Exception:  # noqa: BLE001 - one command's bug must not end the server that answers it
        _log.exception("a command failed")
        return Failed(text="failed in a way that is our own mistake; the server's log says more")
    if len(result) > _ANSWER_BYTES // 2:
        return Failed(text="the answer is longer than is sent: ask for a shorter range")
    return Result(result=result)


async def _cancel_when_gone(reader: StreamReader, doing: asyncio.Task[Any]) -> None:
    try:
        while await reader.read(1024):
            pass
    except ConnectionError:
        pass
    doing.cancel()


async def _keep_telling(writer: StreamWriter, last: _LastTold) -> None:
    told = None
    while True:
        await asyncio.sleep(_TOLD_EVERY_SECONDS)
        if last.told is not None and last.told is not told:
            told = last.told
            await _send(writer, told)


async def _send(writer: StreamWriter, answer: _Answer) -> None:
    try:
        writer.write(msgspec.json.encode(answer) + b"\n")
        await writer.drain()
    except (ConnectionError, RuntimeError):
        return  # who asked is gone; a closed transport of uvloop raises RuntimeError


def _decoded(line: bytes) -> _Answer:
    if not line.endswith(b"\n"):
        raise _unanswered()
    try:
        return _answers.decode(line)
    except msgspec.DecodeError as exc:
        raise LedgerError(
            "the server that holds the ledger is of another version: use its own command"
        ) from exc


def _unanswered() -> LedgerError:
    return LedgerError(
        "the server that holds the ledger ended before it had answered: start the command"
        " again; what was sealed by then is kept"
    )
