"""How many connections there may be: who comes too much is told so, and idle ones make room."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from structlog.testing import capture_logs

from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.handlers.places import SPARE
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import WHOLE, aggregator, serving
from tests.contract.test_bounds import CLOSE, dial, head, response, rest
from tests.servers.process import wait_until

MOST = 3
HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\n"
SUMMARY, HEALTH = "/system/metrics/summary", "/healthz"


@pytest.fixture
def full() -> Iterator[httpx.Client]:
    """A server that takes few; the client has no connection yet."""
    telemetry = Telemetry()
    with serving(
        aggregator(WHOLE, telemetry), telemetry, connections=ConnectionSettings(most=MOST)
    ) as client:
        yield client


@contextlib.contextmanager
def peers(client: httpx.Client, count: int, sending: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        dialled = [stack.enter_context(dial(client)) for _ in range(count)]
        for peer in dialled:
            peer.sendall(sending)
        yield dialled


def asked(client: httpx.Client, path: str) -> httpx.Response:
    """What is answered on a connection of its own."""
    with dial(client) as peer:
        peer.sendall(head(path=path))
        answered = peer.recv(65536)
        return response(answered + (rest(peer) if b"connection: close" in answered else b""))


def refused(client: httpx.Client) -> float:
    line = next(
        line
        for line in asked(client, "/metrics").text.splitlines()
        if line.startswith("oscar_metrics_connections_refused_total")
    )
    return float(line.split()[-1])


def test_who_has_no_place_is_told_to_come_again(full: httpx.Client) -> None:
    with capture_logs() as lines, peers(full, MOST, HALF_A_HEAD):
        for times in (1, 2):
            answered = asked(full, SUMMARY)
            assert answered.status_code == 503
            assert answered.headers["content-type"] == "application/json"
            assert answered.headers["connection"] == "close"
            assert int(answered.headers["retry-after"]) >= 1
            assert answered.json()["error"] == "too many connections"
            assert refused(full) == times
    assert [line["event"] for line in lines] == ["connections are refused"]
    wait_until(lambda: asked(full, SUMMARY).is_success, "a place", timeout_seconds=20)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/healthz?x=y"])
def test_whoever_looks_after_the_process_gets_through(full: httpx.Client, path: str) -> None:
    with peers(full, MOST, HALF_A_HEAD), dial(full) as peer:
        peer.sendall(head(path=path) + head(path=path))
        said = rest(peer)
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in said
    assert said.count(b"HTTP/1.1 ") == 1


def test_when_all_are_taken_nobody_is_listened_to(full: httpx.Client) -> None:
    with peers(full, MOST + SPARE, HALF_A_HEAD):
        with dial(full) as silent:
            assert response(rest(silent)).status_code == 503
        with dial(full) as peer:
            peer.sendall(head(CLOSE, path=HEALTH))
            assert response(rest(peer)).status_code == 503


@pytest.mark.parametrize("before", [b"", head(path=HEALTH)], ids=["new", "answered"])
def test_who_has_been_idle_for_longest_makes_room(full: httpx.Client, before: bytes) -> None:
    with dial(full) as first:
        first.sendall(head(path=HEALTH))
        assert first.recv(65536).startswith(b"HTTP/1.1 200 ")
        with peers(full, MOST - 1, before) as others:
            for peer in others if before else []:
                assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
            wait_until(lambda: asked(full, SUMMARY).is_success, "room", timeout_seconds=20)
            assert rest(first) == b""
            for peer in others:
                peer.sendall(head(path=HEALTH))
                assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("soft", "hard", "most", "expected"),
    [
        (4096, 8192, 1000, (1000, 4096)),
        (1024, 8192, 1000, (1000, 1000 + SPARE + 256)),
        (1024, 1024, 1000, (1024 - SPARE - 256, 1024)),
        (256, 512, 1000, (512 - SPARE - 256, 512)),
        (256, 256, 1000, (64, 256)),
        (256, 256, 10, (10, 256)),
    ],
)
def test_there_are_no_more_than_the_system_lets_us_open(
    soft: int, hard: int, most: int, expected: tuple[int, int]
) -> None:
    # In a process of its own: what is lowered here cannot be raised again.
    script = f"""
import resource
from oscar_metrics.handlers.places import within_descriptors
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
said = within_descriptors({most}), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
print(said == {expected}, said)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    *warning, last = done.stdout.splitlines()
    assert last == f"True {expected}"
    assert bool(warning) == (expected[0] < most)
    assert all("ulimit -n" in line for line in warning)
