"""Answers in pieces, on a socket: made as they are read, and whole, or seen to be cut."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar, Request, Response, route
from litestar.enums import HttpMethod
from structlog.testing import capture_logs

from oscar_metrics.handlers import audit
from oscar_metrics.handlers.bounded_http import BoundedHttp
from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.handlers.cors import Cors
from oscar_metrics.handlers.edge import Edge
from oscar_metrics.handlers.streamed import Streamed
from oscar_metrics.resilience.lanes import LaneSettings
from oscar_metrics.telemetry import Telemetry
from tests.contract.neighbours import basic
from tests.contract.serving import WHOLE, aggregator, call, listening, log, serving
from tests.contract.test_bounds import dial, rest
from tests.servers.process import wait_until

PIECE = b"x" * 64 * 1024
ENDLESS = 1 << 40
# What the system holds between two processes, and more.
HELD_BYTES = 32 * 1024 * 1024


class Pieces:
    """The routes, and what became of the last answer."""

    def __init__(self) -> None:
        self.made = 0
        self.last: Generator[bytes, None, None] = self._make(0)
        self.loop: asyncio.AbstractEventLoop | None = None

    def _make(self, count: int) -> Generator[bytes, None, None]:
        for number in range(count):
            self.made = number + 1
            yield PIECE

    def is_closed(self) -> bool:
        return inspect.getgeneratorstate(self.last) == inspect.GEN_CLOSED

    async def answer(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        audit.begin(request)
        self.loop = asyncio.get_running_loop()
        self.made, self.last = 0, self._make(request.path_params["count"])
        return Streamed(self.last, {"Content-Type": "text/csv", "X-Own": "1"})

    async def small(self) -> Response[bytes]:
        return Response(b"small")


class Served:
    """A server of them."""

    def __init__(self, client: httpx.Client, pieces: Pieces, connections: set[object]) -> None:
        self.client = client
        self.pieces = pieces
        self._connections = connections

    def end(self) -> None:
        """What a stopping server does in the end."""
        assert self.pieces.loop is not None
        for connection in list(self._connections):
            assert isinstance(connection, BoundedHttp)
            self.pieces.loop.call_soon_threadsafe(connection.drop_if_begun)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving_pieces(ConnectionSettings()) as served:
        yield served


@pytest.fixture(scope="module")
def impatient() -> Iterator[Served]:
    settings = ConnectionSettings(read_seconds=READ_SECONDS, read_bytes=READ_BYTES)
    with serving_pieces(settings) as served:
        yield served


@contextlib.contextmanager
def serving_pieces(settings: ConnectionSettings) -> Iterator[Served]:
    pieces = Pieces()
    reads = [HttpMethod.GET, HttpMethod.HEAD]
    routes = [
        route("/pieces/{count:int}", http_method=reads)(pieces.answer),
        route("/small", http_method=reads)(pieces.small),
    ]
    litestar = Litestar(routes, openapi_config=None, logging_config=None)
    telemetry = Telemetry()
    app = Edge(litestar, Cors(()), telemetry)
    with (
        listening(app, telemetry, settings) as (url, server),
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        yield Served(client, pieces, server.server_state.connections)  # type: ignore[arg-type]


def ask(
    served: Served, path: str, version: str = "1.1", *, held_bytes: int | None = None
) -> socket.socket:
    """A peer that has asked, whose system holds as much for it as it likes, or so much."""
    peer = dial(served.client, held_bytes)
    peer.sendall(f"GET {path} HTTP/{version}\r\nHost: x\r\n\r\n".encode())
    return peer


@pytest.mark.parametrize("count", [0, 1, 100])
def test_all_pieces_arrive(served: Served, count: int) -> None:
    for _ in range(2):
        response = served.client.get(f"/pieces/{count}")
        assert response.status_code == 200
        assert response.content == PIECE * count
        assert response.headers["transfer-encoding"] == "chunked"
        assert response.headers["content-type"] == "text/csv"
        assert response.headers["x-own"] == "1"
        assert response.headers["x-content-type-options"] == "nosniff"
    assert served.pieces.is_closed()


def test_asking_for_the_head_makes_no_piece(served: Served) -> None:
    response = served.client.head(f"/pieces/{ENDLESS}")
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["content-type"] == "text/csv"
    assert served.pieces.made == 0
    assert served.pieces.is_closed()
    assert served.client.get("/small").content == b"small"


def test_who_knows_no_chunks_gets_it_whole(served: Served) -> None:
    with ask(served, "/pieces/100", version="1.0") as peer:
        head, _, body = rest(peer).partition(b"\r\n\r\n")
    assert body == PIECE * 100
    assert b"\r\ncontent-length: %d\r\n" % len(body) in head
    assert b"chunked" not in head


def stopped_at(pieces: Pieces) -> int:
    """How many are made when no more are."""
    before = -1
    while before != pieces.made:
        before = pieces.made
        time.sleep(0.3)
    return before


def test_no_more_is_made_than_is_read(served: Served) -> None:
    with ask(served, f"/pieces/{ENDLESS}") as peer:
        assert peer.recv(1) == b"H"
        made = stopped_at(served.pieces)
        assert made * len(PIECE) < HELD_BYTES
        for _ in range(2 * HELD_BYTES // len(PIECE)):
            peer.recv(len(PIECE), socket.MSG_WAITALL)
        assert served.pieces.made > made
        assert not served.pieces.is_closed()


@pytest.mark.parametrize("is_reading", [True, False])
def test_when_the_reader_goes_no_more_is_made(served: Served, is_reading: bool) -> None:
    with capture_logs() as lines:
        with ask(served, f"/pieces/{ENDLESS}") as peer:
            assert peer.recv(1) == b"H"
            if is_reading:
                peer.recv(HELD_BYTES, socket.MSG_WAITALL)
            else:
                stopped_at(served.pieces)
            assert not served.pieces.is_closed()
        wait_until(served.pieces.is_closed, "its end", timeout_seconds=20)
        wait_until(lambda: bool(lines), "its line", timeout_seconds=20)
    said = {(line["event"], line["status"], line["error"]) for line in lines}
    assert said == {("report", 200, "client gone")}


def test_others_are_answered_meanwhile(served: Served) -> None:
    with ask(served, f"/pieces/{ENDLESS}") as peer:

        def read() -> None:
            with contextlib.suppress(ConnectionResetError):
                while peer.recv(1 << 20):
                    pass

        reading = threading.Thread(target=read)
        reading.start()
        for _ in range(50):
            assert served.client.get("/small").content == b"small"
        made = served.pieces.made
        wait_until(lambda: served.pieces.made > made, "more of it", timeout_seconds=20)
        peer.shutdown(socket.SHUT_RDWR)
        reading.join()


READ_SECONDS, READ_BYTES = 1.0, 1024 * 1024


@pytest.mark.parametrize(("share", "is_cut"), [(0.5, True), (3, False)])
def test_who_reads_on_and_on_but_too_slowly_is_cut_off(
    impatient: Served, share: float, is_cut: bool
) -> None:
    # Some of it is read all the time, and a piece well within what a client may need for more.
    step_seconds = 0.05
    step_bytes = int(READ_BYTES / READ_SECONDS * step_seconds * share)
    with ask(impatient, f"/pieces/{ENDLESS}", held_bytes=len(PIECE)) as peer:
        for _ in range(int(4 * READ_SECONDS / step_seconds)):
            peer.recv(step_bytes)
            time.sleep(step_seconds)
            if impatient.pieces.is_closed():
                break
        assert impatient.pieces.is_closed() == is_cut


@pytest.mark.parametrize("is_reading", [True, False])
def test_a_stopping_server_cuts_it_so_that_it_shows(served: Served, is_reading: bool) -> None:
    with ask(served, f"/pieces/{ENDLESS}") as peer:
        assert peer.recv(1) == b"H"
        if not is_reading:
            stopped_at(served.pieces)
        served.end()
        wait_until(served.pieces.is_closed, "its end", timeout_seconds=20)
        assert not rest(peer).endswith(b"0\r\n\r\n")
    with pytest.raises(httpx.RemoteProtocolError):
        read_until_ended(served)


def read_until_ended(served: Served) -> None:
    with served.client.stream("GET", f"/pieces/{ENDLESS}") as response:
        for number, _ in enumerate(response.iter_raw()):
            if number == 10:
                served.end()


def test_so_many_are_sent_at_a_time_and_no_more() -> None:
    users = {call("cowsay", f"user-{number}", "ES"): 1 for number in range(60_000)}
    world = msgspec.structs.replace(WHOLE, executions=log(users))
    telemetry = Telemetry()
    lanes = LaneSettings(streams_at_once=1)
    path = "/system/metrics/breakdown?group_by=user&start=2026-04-01T00:00:00Z"
    with serving(aggregator(world, telemetry), telemetry, lanes=lanes) as client:
        address = client.base_url.host, client.base_url.port or 0
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.connect(address)
            head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic()['Authorization']}"
            slow.sendall(f"{head}\r\n\r\n".encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")
            refused = client.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert refused.json()["error"] == "too many large reports at once"
            small = client.get("/system/metrics/cowsay?metric=cpu-hours")
            assert small.status_code == 200
        wait_until(lambda: client.get(path).is_success, "the place", timeout_seconds=20)
        whole = client.get(path)
        assert len(whole.json()["items"]) == len(users)
        assert "etag" not in whole.headers
