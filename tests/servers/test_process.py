from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers.process import Process, ServerError, free_port

STARTS_A_CHILD = """
import pathlib, sys, time
from tests.servers.process import Process
child = Process("sleeper", ["sleep", "600"], pathlib.Path(sys.argv[1]))
child.start(lambda: True, timeout_seconds=10)
print(child._running.pid, flush=True)
time.sleep(600)
"""


def running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_ports_are_not_given_twice() -> None:
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == 50


def test_a_server_that_exits_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    server = Process("broken", ["sh", "-c", "echo no such flag; exit 3"], tmp_path / "log")

    with pytest.raises(ServerError, match=r"(?s)broken exited with 3.*no such flag"):
        server.start(lambda: False, timeout_seconds=10)


def test_a_server_that_is_never_ready_is_an_error_and_stopped(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/pid; exec sleep 600"
    server = Process("slow", ["sh", "-c", script], tmp_path / "log")

    with pytest.raises(ServerError, match=r"slow ready: not within 0\.5 s"):
        server.start(lambda: False, timeout_seconds=0.5)

    assert not running(int((tmp_path / "pid").read_text()))


def test_a_server_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    script = f"trap '' TERM; echo $$ > {tmp_path}/pid; while true; do sleep 0.1; done"
    server = Process("stubborn", ["sh", "-c", script], tmp_path / "log")
    server.start((tmp_path / "pid").exists, timeout_seconds=10)

    server.stop(grace_seconds=0.2)

    assert not running(int((tmp_path / "pid").read_text()))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_server_dies_with_tests_that_were_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTS_A_CHILD, tmp_path / "log"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as tests:
        assert tests.stdout is not None
        child = int(tests.stdout.readline())
        assert running(child)
        os.kill(tests.pid, signal.SIGKILL)

    deadline = time.monotonic() + 10
    while running(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)
