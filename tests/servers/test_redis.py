from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest

from tests.servers.build import require
from tests.servers.redis import Redis

Reply = bytes | int | None


class Connection:
    """Enough of https://redis.io/docs/latest/develop/reference/protocol-spec/ for these tests."""

    def __init__(self, sent: socket.socket, received: BinaryIO) -> None:
        self._sent = sent
        self._received = received

    def ask(self, *words: bytes) -> Reply:
        """Send a command and return its reply; an error is what it says, with its `-`."""
        lengths = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._sent.sendall(b"*%d\r\n%b" % (len(words), lengths))
        return self.reply()

    def reply(self) -> Reply:
        line = self._received.readline()
        if not line:
            raise ConnectionError("the connection ended")
        kind, rest = line[:1], line[1:-2]
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._received.read(size + 2)[:-2]
        return line[:-2]


@contextmanager
def connect(redis: Redis, timeout_seconds: float = 30) -> Iterator[Connection]:
    parts = urlsplit(redis.url)
    assert parts.scheme == "redis"
    with (
        socket.create_connection((parts.hostname, parts.port), timeout_seconds) as sent,
        sent.makefile("rb") as received,
    ):
        yield Connection(sent, received)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    require("redis")
    with Redis.start(tmp_path_factory.mktemp("redis"), maxmemory="8mb") as server:
        yield server


def test_redis_keeps_any_bytes_until_they_expire(redis: Redis) -> None:
    value = bytes(range(256)) * 100
    with connect(redis) as connection:
        assert connection.ask(b"SET", b"kept", value, b"PX", b"60000") == b"+OK"
        assert connection.ask(b"SET", b"brief", value, b"PX", b"1") == b"+OK"
        while connection.ask(b"EXISTS", b"brief"):
            pass
        assert connection.ask(b"GET", b"kept") == value
        assert connection.ask(b"GET", b"brief") is None
        assert 0 < int(connection.ask(b"PTTL", b"kept") or 0) <= 60_000


def test_a_full_redis_refuses_to_write_and_still_reads(redis: Redis) -> None:
    value = b"x" * 100_000
    with connect(redis) as connection:
        assert connection.ask(b"SET", b"first", value) == b"+OK"
        replies = [connection.ask(b"SET", b"%d" % n, value) for n in range(100)]
        assert replies[0] == b"+OK"
        assert isinstance(replies[-1], bytes)
        assert replies[-1].startswith(b"-OOM ")
        assert connection.ask(b"GET", b"first") == value

        assert connection.ask(b"FLUSHALL") == b"+OK"
        assert connection.ask(b"SET", b"first", value) == b"+OK"


def test_a_suspended_redis_takes_connections_and_answers_once_it_goes_on(redis: Redis) -> None:
    redis.suspend()
    try:
        with connect(redis) as patient:
            with connect(redis, timeout_seconds=0.5) as connection, pytest.raises(TimeoutError):
                connection.ask(b"PING")
            redis.resume()
            assert patient.ask(b"PING") == b"+PONG"
    finally:
        redis.resume()


def test_redis_comes_back_empty_on_the_same_port(tmp_path: Path) -> None:
    require("redis")
    with Redis.start(tmp_path) as redis:
        with connect(redis) as connection:
            assert connection.ask(b"SET", b"key", b"value") == b"+OK"
            redis.stop()
            with pytest.raises(ConnectionError):
                connection.ask(b"GET", b"key")
        with pytest.raises(ConnectionRefusedError), connect(redis):
            pass
        redis.restart()

        with connect(redis) as connection:
            assert connection.ask(b"GET", b"key") is None
    assert [path.name for path in tmp_path.iterdir()] == ["redis.log"]
