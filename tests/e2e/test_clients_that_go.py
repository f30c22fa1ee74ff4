"""Clients that go while the real Loki hangs, and while large log files are read."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.running import NOTHING, PASSWORD, USERNAME, started
from tests.servers.loki import Loki
from tests.servers.process import Process, wait_until

CLIENTS = 10
RANGE = {"start": "2026-02-27T00:00:00Z", "end": "2026-03-01T23:59:59Z"}
BREAKDOWN = {**RANGE, "group_by": "user"}
LINES = 1_500_000


@pytest.fixture(scope="module")
def large_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes a while to read."""
    path = tmp_path_factory.mktemp("large") / "manager.log"
    with path.open("w") as file:
        for number in range(LINES):
            at = f"2026-02-{27 + number * 2 // LINES}T{number * 48 // LINES % 24:02}:00:00Z"
            file.write(
                f"[GIN-EXECUTIONS-LOGGER] {at} | 200 | {number}ms | 10.0.0.1 | POST /run/cowsay"
                f" | user-{number % 1000}\n"
            )
    return path


def reports(server: Process) -> list[dict[str, Any]]:
    lines = map(json.loads, server.log_path.read_text().splitlines())
    return [line for line in lines if line["event"] == "report"]


def opened(server: Process) -> list[str]:
    """What the process has open."""
    found = []
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return found


@contextlib.contextmanager
def clients(client: httpx.Client) -> Iterator[None]:
    """Clients that have asked for breakdowns, each for another, and go at the end of the block."""
    authorization = httpx.BasicAuth(USERNAME, PASSWORD)._auth_header
    with contextlib.ExitStack() as peers:
        for number in range(1, CLIENTS + 1):
            parameters = {**BREAKDOWN, "start": f"2026-02-27T00:00:{number:02d}Z"}
            request = client.build_request("GET", "/system/metrics/breakdown", params=parameters)
            peer = peers.enter_context(
                socket.create_connection((request.url.host, request.url.port))
            )
            peer.sendall(
                b"GET %b HTTP/1.1\r\nHost: x\r\nAuthorization: %b\r\n\r\n"
                % (request.url.raw_path, authorization.encode())
            )
        yield


def all_gone(server: Process, before: int) -> bool:
    return len(reports(server)) == before + CLIENTS


def test_nothing_is_asked_of_loki_for_those_who_went(loki: Loki, tmp_path: Path) -> None:
    settings = {**NOTHING, "LOKI_URL": loki.url, "OSCAR_METRICS_DEADLINE_SECONDS": "120"}
    with started(settings, tmp_path) as (client, server):
        whole = client.get("/system/metrics/breakdown", params=BREAKDOWN).json()["items"]
        assert whole
        before = len(opened(server))
        loki.suspend()
        try:
            with clients(client):
                wait_until(
                    lambda: len(opened(server)) > before + CLIENTS, "questions", timeout_seconds=20
                )
            wait_until(lambda: all_gone(server, 1), "their ends", timeout_seconds=20)
            wait_until(lambda: len(opened(server)) <= before, "descriptors", timeout_seconds=20)
        finally:
            loki.resume()
        assert {(line["status"], line["error"]) for line in reports(server)[1:]} == {
            (499, "client gone")
        }
        assert client.get("/system/metrics/breakdown", params=BREAKDOWN).json()["items"] == whole
        wait_until(lambda: len(opened(server)) <= before, "descriptors", timeout_seconds=20)


def test_nor_are_log_files_read_on(large_log: Path, tmp_path: Path) -> None:
    settings = {**NOTHING, "OSCAR_METRICS_LOG_FILES": str(large_log)}
    with started(settings, tmp_path) as (client, server):
        with clients(client):
            wait_until(lambda: str(large_log) in opened(server), "reading", timeout_seconds=20)
        wait_until(lambda: all_gone(server, 0), "their ends", timeout_seconds=20)
        wait_until(lambda: str(large_log) not in opened(server), "its end", timeout_seconds=20)
        assert {line["status"] for line in reports(server)} == {499}
