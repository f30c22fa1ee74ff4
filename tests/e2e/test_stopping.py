"""A server that is told to stop: what is under way may finish for a while, and is then ended."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.e2e.running import NOTHING, PASSWORD, USERNAME, command_here, started
from tests.servers.process import Process, wait_until

SUMMARY = "/system/metrics/summary"
# What ends by itself long after every test.
PATIENT = {**NOTHING, "OSCAR_METRICS_DEADLINE_SECONDS": "120"}
GRACE_SECONDS = 1


class Mute:
    """A server that takes questions, and answers them all with HTML once it is let speak."""

    def __init__(self) -> None:
        self.let_speak = threading.Event()
        self.asked = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._pool = ThreadPoolExecutor(64)
        self._pool.submit(self._listen)

    def _listen(self) -> None:
        while True:
            try:
                peer, _ = self._listening.accept()
            except OSError:
                return
            self._pool.submit(self._answer, peer)

    def _answer(self, peer: socket.socket) -> None:
        with peer:
            peer.recv(65536)
            self.asked += 1
            self.let_speak.wait(60)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")

    def close(self) -> None:
        self.let_speak.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._pool.shutdown()


@pytest.fixture
def mute() -> Iterator[Mute]:
    server = Mute()
    yield server
    server.close()


@contextmanager
def asking(client: httpx.Client, mute: Mute, times: int) -> Iterator[list[Future[httpx.Response]]]:
    """Summaries that are under way, each on a connection of its own."""
    before = connections(client)

    url = client.base_url.join(SUMMARY)

    def ask() -> httpx.Response:
        return httpx.get(url, auth=(USERNAME, PASSWORD), timeout=60)

    with ThreadPoolExecutor(times) as pool:
        asked = [pool.submit(ask) for _ in range(times)]
        wait_until(lambda: bool(mute.asked), "a question", timeout_seconds=20)
        wait_until(lambda: connections(client) == before + times, "reports", timeout_seconds=20)
        client.get("/healthz").raise_for_status()
        yield asked


def connections(client: httpx.Client) -> int:
    """How many the system has to a server's port (proc_net_tcp(5); 01 is ESTABLISHED)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    port = f"{client.base_url.port:04X}"
    return sum(line[1].endswith(f":{port}") and line[3] == "01" for line in lines)


def log_of(server: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log_path.read_text().splitlines()]


def events(server: Process) -> list[str]:
    return [line["event"] for line in log_of(server) if line["event"] != "upstream call failed"]


def refuses(client: httpx.Client) -> bool:
    address = urlsplit(str(client.base_url))
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_reports_may_finish(mute: Mute, tmp_path: Path) -> None:
    settings = {**PATIENT, "LOKI_URL": mute.url, "OSCAR_METRICS_GRACE_SECONDS": "60"}
    with (
        started(settings, tmp_path) as (client, server),
        socket.create_connection(
            (urlsplit(str(client.base_url)).hostname, urlsplit(str(client.base_url)).port)
        ) as idle,
        asking(client, mute, 2) as answers,
    ):
        idle.settimeout(30)
        server.send(signal.SIGTERM)
        assert idle.recv(1) == b"", "a connection nobody uses is closed"
        assert refuses(client)
        assert not any(answer.done() for answer in answers)
        mute.let_speak.set()
        for answer in answers:
            response = answer.result(60)
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
        assert server.ended(30) == -signal.SIGTERM
    said = events(server)
    assert said[-1] == "stopped"
    assert said.count("report") == 2
    assert "ending what has not finished" not in said


def test_what_has_not_finished_is_ended(mute: Mute, tmp_path: Path) -> None:
    grace = {"OSCAR_METRICS_GRACE_SECONDS": str(GRACE_SECONDS)}
    with (
        started({**PATIENT, **grace, "LOKI_URL": mute.url}, tmp_path) as (client, server),
        asking(client, mute, 5) as answers,
    ):
        server.send(signal.SIGTERM)
        for answer in answers:
            response = answer.result(30)
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/json"
            assert response.headers["connection"] == "close"
            assert int(response.headers["retry-after"]) >= 1
            assert response.json()["error"] == "the server is stopping"
        server.ended(30)
    lines = log_of(server)
    stopping, ending, stopped = (
        next(line for line in lines if line["event"] == event)
        for event in ("stopping", "ending what has not finished", "stopped")
    )
    assert stopping["requests_under_way"] == ending["requests"] == 5
    assert stopping["grace_seconds"] == GRACE_SECONDS
    assert stopped["seconds"] >= GRACE_SECONDS
    reports = [line for line in lines if line["event"] == "report"]
    assert {(line["status"], line["error"]) for line in reports} == {
        (503, "the server is stopping")
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)],
)
def test_the_second_signal_ends_it_at_once(
    mute: Mute, tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    settings = {**PATIENT, "LOKI_URL": mute.url, "OSCAR_METRICS_GRACE_SECONDS": "600"}
    with (
        started(settings, tmp_path) as (client, server),
        asking(client, mute, 1) as [answer],
    ):
        server.send(first)
        wait_until(lambda: "stopping" in events(server), "the first", timeout_seconds=20)
        server.send(second)
        assert server.ended(20) == -second
        assert isinstance(answer.exception(20), httpx.TransportError)
    assert events(server)[-1] == "ended at once"


def test_who_does_not_read_an_answer_keeps_nothing_from_ending(tmp_path: Path) -> None:
    logs = tmp_path / "many.log"
    logs.write_text(
        "".join(
            "[GIN-EXECUTIONS-LOGGER] 2026-01-20T10:00:00Z | 200 | 12ms | 10.0.0.1 |"
            f" POST /run/cowsay | {'x' * 200}{number}\n"
            for number in range(60_000)
        )
    )
    settings = {
        **PATIENT,
        "OSCAR_METRICS_LOG_FILES": str(logs),
        "OSCAR_METRICS_GRACE_SECONDS": str(GRACE_SECONDS),
    }
    with started(settings, tmp_path) as (client, server):
        asked = {
            "group_by": "user",
            "start": "2026-01-20T00:00:00Z",
            "end": "2026-01-20T23:59:59Z",
        }
        request = client.build_request("GET", "/system/metrics/breakdown", params=asked)
        authorization = httpx.BasicAuth(USERNAME, PASSWORD)._auth_header
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect((request.url.host, request.url.port))
            peer.sendall(
                b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n"
                % (request.url.raw_path, authorization.encode())
            )
            assert peer.recv(1) == b"H"
            server.send(signal.SIGTERM)
            server.ended(30)
    assert events(server)[-1] == "stopped"


def test_nothing_is_sealed_halfway(log_folder: Path, tmp_path: Path) -> None:
    settings = {
        **PATIENT,
        "OSCAR_METRICS_LOG_FILES": str(log_folder / "*"),
        "OSCAR_METRICS_LEDGER": str(tmp_path / "ledger.duckdb"),
        "OSCAR_METRICS_LEDGER_BACKFILL_DAYS": "3650",
        "OSCAR_METRICS_GRACE_SECONDS": "0",
    }
    for sealed in (1, 30):
        with started(settings, tmp_path) as (client, server):

            def seals(client: httpx.Client = client) -> int:
                text = client.get("/metrics").text
                return sum(
                    int(float(line.split()[-1]))
                    for line in text.splitlines()
                    if line.startswith("oscar_metrics_ledger_seals_total{")
                )

            wait_until(lambda: seals() >= sealed, "hours", timeout_seconds=40)  # noqa: B023 - called here
            server.send(signal.SIGTERM)
            server.ended(20)
        done = command_here(["ledger", "verify"], settings)
        assert done.returncode == 0, done.stdout
