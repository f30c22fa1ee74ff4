"""Asks over connections that are kept, as fast as answers come: what the benches load servers with.

It does little more than an event loop must, so that a server on a core of its own is what limits
them both; `python -m bench.kept_reports` shows how much faster it is.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

# The servers measured have the first core, and who asks the last.
SERVER_CORE, OUR_CORE = 0, (os.cpu_count() or 1) - 1
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_STATUS = slice(len(b"HTTP/1.1 "), len(b"HTTP/1.1 200"))


class Answer(msgspec.Struct, frozen=True):
    """What came of a request, and after how long."""

    status: int
    seconds: float


# The next request over a connection, or None to end it.
Next = Callable[[], bytes | None]


class _Peer(asyncio.Protocol):
    """A connection that asks again as soon as it was answered."""

    def __init__(self, following: Next, answers: list[Answer]) -> None:
        self._following = following
        self._answers = answers
        self._seen = b""
        self._left_bytes = 0
        self._asked_at = 0.0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        if self._left_bytes:
            self._left_bytes -= len(data)
        else:
            self._seen += data
            head_bytes = self._seen.find(b"\r\n\r\n") + 4
            if head_bytes < 4:
                return
            length = _LENGTH.search(self._seen, 0, head_bytes)
            if length is None:
                raise ValueError(f"an answer without a length: {self._seen[:head_bytes]!r}")
            self._left_bytes = head_bytes + int(length[1]) - len(self._seen)
        if not self._left_bytes:
            status, took = int(self._seen[_STATUS]), time.perf_counter() - self._asked_at
            self._answers.append(Answer(status, took))
            self._seen = b""
            self.ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionError("closed while asking"))

    def ask(self) -> None:
        request = self._following()
        if request is None:
            self.ended.set_result(None)
            self._transport.close()
            return
        self._asked_at = time.perf_counter()
        self._transport.write(request)


async def ask_all(port: int, following: Sequence[Next]) -> list[Answer]:
    """The answers to all who ask, each over a connection of their own, until all have ended.

    They begin when all are connected.
    """
    answers: list[Answer] = []
    loop = asyncio.get_running_loop()
    peers = []
    for one in following:
        _, peer = await loop.create_connection(
            lambda one=one: _Peer(one, answers),  # type: ignore[misc] # bound as it is now
            "127.0.0.1",
            port,
        )
        peers.append(peer)
    for peer in peers:
        peer.ask()
    await asyncio.gather(*(peer.ended for peer in peers))
    return answers


def for_seconds(request: bytes, seconds: float) -> Next:
    """The same request over and over, for so long."""
    end = time.perf_counter() + seconds
    return lambda: request if time.perf_counter() < end else None


def once(request: bytes) -> Next:
    """One request."""
    return iter((request, None)).__next__


def get(path: str, parameters: Mapping[str, str], headers: Mapping[str, str]) -> bytes:
    """A request as it is sent, with headers like a browser's."""
    target = f"{path}?{urlencode(parameters)}" if parameters else path
    sent = {
        "Host": "127.0.0.1",
        "Accept": "application/json, text/plain, */*",
        "Accept-Encoding": "gzip, deflate, br",
        "User-Agent": "Mozilla/5.0",
        **headers,
    }
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def basic(username: str, password: str) -> dict[str, str]:
    """The header of a log-in."""
    encoded = base64.b64encode(f"{username}:{password}".encode()).decode()
    return {"Authorization": f"Basic {encoded}"}


def percentile(seconds: Sequence[float], percent: int) -> float:
    """Which so many in a hundred are within."""
    if len(seconds) < 2:
        return seconds[0] if seconds else float("nan")
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def pinned(command: Sequence[str], core: int, **options: Any) -> subprocess.Popen[bytes]:
    """A process that has one core, with all of its threads."""
    return subprocess.Popen(
        command,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 - it takes no lock
        **options,
    )


def peak_mb(pid: int) -> float:
    """The highest resident size of a process until now."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """The processor's time a process has had, with all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
