"""A real Redis (or Valkey): one process that keeps nothing on disk."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.build import program
from tests.servers.process import Process, free_port

_HOST = "127.0.0.1"


class Redis:
    """A running Redis at `url`, without a password."""

    def __init__(self, directory: Path, maxmemory: str) -> None:
        self._address = (_HOST, free_port())
        self.url = "redis://{}:{}".format(*self._address)
        command: list[str | Path] = [program("redis")]
        settings = {
            "bind": _HOST,
            "port": str(self._address[1]),
            "dir": str(directory),
            "save": "",
            "maxmemory": maxmemory,
        }
        for name, value in settings.items():
            command += [f"--{name}", value]
        self._process = Process("redis", command, directory / "redis.log")

    @classmethod
    @contextmanager
    def start(cls, directory: Path, *, maxmemory: str = "0") -> Iterator[Redis]:
        """Start Redis with its log in `directory` and stop it at the end.

        `maxmemory` is a size such as `8mb`, 0 for all there is; once that much is in use Redis
        refuses to write more (it evicts nothing by default). Raises ServerError with the end of
        the log if it does not come up.
        """
        redis = cls(directory, maxmemory)
        try:
            redis.restart()
            yield redis
        finally:
            redis.stop()

    def stop(self) -> None:
        """Stop Redis, suspended or not; all that it holds is gone."""
        self._process.stop()

    def restart(self) -> None:
        """Start an empty Redis on the same port, and stop the one before if it runs."""
        self.stop()
        self._process.start(self._ready, timeout_seconds=30)

    def suspend(self) -> None:
        """Let it hang: connections are taken, and nothing is answered until `resume`."""
        self._process.suspend()

    def resume(self) -> None:
        """Let a suspended Redis go on; what was asked in between is answered."""
        self._process.resume()

    def _ready(self) -> bool:
        try:
            with socket.create_connection(self._address, timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(7) == b"+PONG\r\n"
        except OSError:
            return False
