"""Who goes away takes along what was being done for them; spoken to on a socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from oscar_metrics.facts import LogStream
from oscar_metrics.telemetry import Telemetry
from tests.contract.neighbours import basic
from tests.contract.serving import WHOLE, SaidLogs, aggregator, serving
from tests.servers.process import wait_until

ROUTES = (
    "/system/metrics",
    "/system/metrics/summary",
    "/system/metrics/summary?interval=hour",
    "/system/metrics/value?service_id=cowsay&metric=requests-sync-per-service",
    "/system/metrics/breakdown?group_by=user&format=csv",
    "/system/metrics/cowsay",
)


class SlowLogs(SaidLogs):
    """A log source that takes until it is let go, and notes who begins and who is cancelled."""

    def __init__(self) -> None:
        assert WHOLE.executions is not None
        assert WHOLE.exposed is not None
        super().__init__({LogStream.EXECUTIONS: WHOLE.executions, LogStream.EXPOSED: WHOLE.exposed})
        self.begun = 0
        self.cancelled = 0
        self.let_go = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    async def read(self, *asked: Any, **when: Any) -> Any:
        self.loop = asyncio.get_running_loop()
        self.begun += 1
        try:
            while not self.let_go.is_set():  # noqa: ASYNC110 - the test sets it from its thread
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().read(*asked, **when)


class Running(msgspec.Struct, frozen=True):
    """A server over slow logs, and what it has logged of reports."""

    client: httpx.Client
    logs: SlowLogs
    lines: list[Any]

    def dial(self) -> socket.socket:
        address = urlsplit(str(self.client.base_url))
        return socket.create_connection((address.hostname, address.port), timeout=20)

    def wait_for_line(self) -> dict[str, Any]:
        wait_until(lambda: bool(self.lines_of_reports()), "a line", timeout_seconds=10)
        [line] = self.lines_of_reports()
        return line

    def lines_of_reports(self) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == "report"]

    def tasks(self) -> int:
        """How many the server's loop has."""

        async def count() -> int:
            return len(asyncio.all_tasks())

        assert self.logs.loop is not None
        return asyncio.run_coroutine_threadsafe(count(), self.logs.loop).result(20)

    def wait_for_begun(self, reports: int) -> None:
        wait_until(lambda: self.logs.begun >= reports, "a question", timeout_seconds=10)


@pytest.fixture
def slow() -> Iterator[Running]:
    telemetry, logs = Telemetry(), SlowLogs()
    with (
        capture_logs() as lines,
        serving(aggregator(WHOLE, telemetry, logs), telemetry) as client,
    ):
        yield Running(client, logs, lines)
        logs.let_go.set()


def head(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: {basic()['Authorization']}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def answers(peer: socket.socket, count: int) -> bytes:
    """What is said until so many answers have begun and the last of them is whole."""
    said = b""
    while said.count(b"HTTP/1.1 ") < count or not said.endswith(b"}"):
        data = peer.recv(65536)
        assert data, said
        said += data
    return said


@pytest.mark.parametrize("path", ROUTES)
def test_a_report_ends_with_its_client(slow: Running, path: str) -> None:
    with slow.dial() as peer:
        peer.sendall(head(path))
        slow.wait_for_begun(1)
    line = slow.wait_for_line()
    assert (line["status"], line["error"]) == (499, "client gone")
    assert slow.logs.cancelled == slow.logs.begun
    assert 'http_response_status_code="499"' in slow.client.get("/metrics").text


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 1000"], b"x" * 1000),
        (["Content-Length: 1000"], b"x" * 999),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n0\r\n\r\n"),
        (["Transfer-Encoding: chunked"], b"3\r\nabc\r\n"),
    ],
)
def test_also_one_with_a_body(slow: Running, headers: list[str], body: bytes) -> None:
    with slow.dial() as peer:
        peer.sendall(head(ROUTES[1], *headers) + body)
        slow.wait_for_begun(1)
    assert slow.wait_for_line()["error"] == "client gone"


def test_also_one_with_another_request_behind_it(slow: Running) -> None:
    with slow.dial() as peer:
        peer.sendall(head(ROUTES[1]) + head("/healthz"))
        slow.wait_for_begun(1)
    assert slow.wait_for_line()["error"] == "client gone"


@pytest.mark.parametrize(
    "sent",
    [
        head(ROUTES[1], "Connection: close"),
        head(ROUTES[1], "Content-Length: 9") + b"x" * 9,
        head(ROUTES[1], "Transfer-Encoding: chunked") + b"9\r\n" + b"x" * 9 + b"\r\n0\r\n\r\n",
    ],
)
def test_who_stays_is_answered(slow: Running, sent: bytes) -> None:
    with slow.dial() as peer:
        peer.sendall(sent)
        slow.wait_for_begun(1)
        slow.logs.let_go.set()
        assert answers(peer, 1).startswith(b"HTTP/1.1 200 ")
    assert slow.wait_for_line()["status"] == 200
    assert slow.logs.cancelled == 0


def test_requests_sent_at_once_are_answered_in_their_order(slow: Running) -> None:
    with slow.dial() as peer:
        peer.sendall(head(ROUTES[1]) + head("/healthz") + head(ROUTES[1] + "?x=1"))
        slow.wait_for_begun(1)
        peer.sendall(head("/readyz"))
        slow.logs.let_go.set()
        said = answers(peer, 4)
    statuses = [part.split(b" ", 1)[0] for part in said.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"200", b"400", b"200"]
    assert said.index(b'"totals"') < said.index(b'"ok"') < said.index(b"unknown parameter")


def test_nobody_is_asked_to_send_a_body(slow: Running) -> None:
    with slow.dial() as peer:
        peer.sendall(head(ROUTES[1], "Content-Length: 9", "Expect: 100-continue"))
        slow.wait_for_begun(1)
        slow.logs.let_go.set()
        assert answers(peer, 1).startswith(b"HTTP/1.1 200 ")


def test_others_reports_go_on(slow: Running) -> None:
    with slow.dial() as stays:
        with slow.dial() as goes:
            goes.sendall(head(ROUTES[1]))
            slow.wait_for_begun(1)
            stays.sendall(head(ROUTES[0]))
            slow.wait_for_begun(2)
        assert slow.wait_for_line()["status"] == 499
        slow.logs.let_go.set()
        assert answers(stays, 1).startswith(b"HTTP/1.1 200 ")
    assert slow.logs.cancelled == 1


def test_what_another_waits_for_too_goes_on(slow: Running) -> None:
    with slow.dial() as stays:
        with slow.dial() as goes:
            goes.sendall(head(ROUTES[1]))
            slow.wait_for_begun(1)
            stays.sendall(head(ROUTES[1]))
            # Until the second is known to be there, too, who goes would take the report along.
            stays.sendall(head("/healthz"))
            slow.client.get("/healthz").raise_for_status()
        assert slow.wait_for_line()["status"] == 499
        slow.logs.let_go.set()
        assert answers(stays, 2).startswith(b"HTTP/1.1 200 ")
    assert (slow.logs.begun, slow.logs.cancelled) == (1, 0)


def test_nothing_is_left_of_many_who_went(slow: Running) -> None:
    slow.logs.let_go.set()
    slow.client.get(ROUTES[1]).raise_for_status()
    tasks = slow.tasks()
    slow.logs.let_go.clear()
    with contextlib.ExitStack() as peers:
        for number in range(50):
            path = f"{ROUTES[1]}?start=2026-04-01T00:00:{number:02d}Z"
            peers.enter_context(slow.dial()).sendall(head(path))
        slow.wait_for_begun(50)
    wait_until(lambda: len(slow.lines_of_reports()) == 51, "all lines", timeout_seconds=20)
    assert {line["status"] for line in slow.lines_of_reports()[1:]} == {499}
    assert slow.logs.cancelled == slow.logs.begun - 1
    wait_until(lambda: slow.tasks() <= tasks, "the end of all tasks", timeout_seconds=20)
