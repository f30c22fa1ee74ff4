"""Our server as operators run it: a process of its own, configured by its environment."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from subprocess import CompletedProcess
from unittest.mock import patch

import httpx
import pytest

from oscar_metrics.cli import main
from tests.servers.process import Process, free_port

USERNAME, PASSWORD = "admin", "e2e-password"
NOTHING = {"OSCAR_METRICS_KUBERNETES": "off", "PROMETHEUS_URL": "off"}
# A test that is about the ledger names its file; the default would be in the tree.
NO_LEDGER = {"OSCAR_METRICS_LEDGER": "off"}


@contextmanager
def running(settings: Mapping[str, str], directory: Path) -> Iterator[httpx.Client]:
    """A client, logged in as the administrator, of a server with these settings."""
    with started(settings, directory) as (client, _):
        yield client


@contextmanager
def started(settings: Mapping[str, str], directory: Path) -> Iterator[tuple[httpx.Client, Process]]:
    """The same, with the process."""
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(directory),
        "OSCAR_USERNAME": USERNAME,
        "OSCAR_PASSWORD": PASSWORD,
        "OSCAR_SERVICE_PORT": str(port),
        **NO_LEDGER,
        **settings,
    }
    command = [sys.executable, "-m", "oscar_metrics", "serve"]
    server = Process("oscar-metrics", command, directory / "server.log", environment=environment)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", auth=(USERNAME, PASSWORD), timeout=60
    ) as client:

        def ready() -> bool:
            try:
                return client.get("/healthz").is_success
            except httpx.TransportError:
                return False

        server.start(ready, timeout_seconds=30)
        try:
            yield client, server
        finally:
            server.stop()


def command_line(
    arguments: list[str], settings: Mapping[str, str], directory: Path
) -> CompletedProcess[str]:
    """What `oscar-metrics` prints and exits with."""
    return subprocess.run(
        [sys.executable, "-m", "oscar_metrics", *arguments],
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(directory),
            "COLUMNS": "200",
            **NO_LEDGER,
            **settings,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def command_here(arguments: list[str], settings: Mapping[str, str]) -> CompletedProcess[str]:
    """The same within this process, which saves the second that another one takes to start."""
    out, err = io.StringIO(), io.StringIO()
    environment = {"COLUMNS": "200", **NO_LEDGER, **settings}
    umask = os.umask(0o022)
    try:
        with (
            patch.dict(os.environ, environment, clear=True),
            redirect_stdout(out),
            redirect_stderr(err),
            pytest.raises(SystemExit) as ended,
        ):
            main(arguments)
    finally:
        os.umask(umask)
    assert isinstance(ended.value.code, int)
    return CompletedProcess(arguments, ended.value.code, out.getvalue(), err.getvalue())
