"""Answers that outlive the server in a real Redis, and what becomes of them when it fails."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from oscar_metrics.facts import LogStream
from oscar_metrics.handlers.shared_answers import SharedAnswers
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.resilience.shared_cache import SharedCache, SharedCacheSettings, cache_key
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import NOW_NS, RANGE, serving
from tests.contract.test_kept_answers import ALICE, FAILED, PATHS, SUMMARY, TOKENS, World, get
from tests.contract.test_kept_no_longer import OUT, inventory
from tests.ledger.stores import FIRST, executions
from tests.servers.process import wait_until
from tests.servers.redis import Redis

KEY = cache_key(["a secret of the settings"])


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    with Redis.start(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
def store(outside: Redis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(outside.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def world() -> World:
    return World()


@contextmanager
def served(world: World, url: str, *, timeout_seconds: float = 1.0) -> Iterator[httpx.Client]:
    """A server that was just started, with nothing in its memory."""
    telemetry = Telemetry()
    settings = CacheSettings(store=url)
    cache = SharedCache(url, KEY, SharedCacheSettings(timeout_seconds=timeout_seconds), telemetry)
    with serving(
        world.aggregator(telemetry),
        telemetry,
        users=TOKENS,
        cache=settings,
        shared=SharedAnswers(cache, settings),
    ) as client:
        yield client


def wait_for_kept(store: redis.Redis, count: int) -> None:
    wait_until(lambda: store.dbsize() == count, "kept answers", timeout_seconds=10)


@pytest.mark.parametrize("path", PATHS)
def test_a_restart_starts_warm(world: World, outside: Redis, store: redis.Redis, path: str) -> None:
    with served(world, outside.url) as client:
        first = get(client, path)
        wait_for_kept(store, 1)
    world.pass_seconds(30)
    world.calls, made = dict.fromkeys(LogStream, FAILED), world.made
    with served(world, outside.url) as client:
        again = get(client, path)
        assert (again.content, again.headers["age"]) == (first.content, "30")
        assert again.headers["etag"] == first.headers["etag"]
    assert world.made == made


def test_it_is_warm_for_who_asked_only(world: World, outside: Redis, store: redis.Redis) -> None:
    with served(world, outside.url) as client:
        get(client)
        wait_for_kept(store, 1)
    with served(world, outside.url) as client:
        assert "age" not in get(client, **ALICE).headers
        assert "age" in get(client).headers


def test_what_is_old_there_stands_in_where_a_source_fails(
    world: World, outside: Redis, store: redis.Redis
) -> None:
    with served(world, outside.url) as client:
        first = get(client)
        wait_for_kept(store, 1)
    world.pass_seconds(2000)
    world.calls = dict.fromkeys(LogStream, FAILED)
    with served(world, outside.url) as client:
        old = get(client)
    assert old.headers["age"] == "2000"
    assert json.loads(old.content)["totals"] == json.loads(first.content)["totals"]


def test_garbage_is_no_answer(world: World, outside: Redis, store: redis.Redis) -> None:
    with served(world, outside.url) as client:
        first = get(client)
        wait_for_kept(store, 1)
    (name,) = store.keys()
    store.set(name, b"garbage")
    with served(world, outside.url) as client:
        again = get(client)
        assert "age" not in again.headers
        assert again.content == first.content
        wait_until(lambda: store.get(name) != b"garbage", "a new answer", timeout_seconds=10)


def test_without_redis_reports_are_made(world: World, outside: Redis, store: redis.Redis) -> None:
    del store
    try:
        outside.stop()
        with served(world, outside.url) as client:
            first = get(client)
            assert "age" not in first.headers
            assert "age" in get(client).headers  # from memory
            assert client.get("/readyz").status_code == 200
    finally:
        outside.restart()


def test_a_ledger_that_changed_meanwhile_is_read_again(
    world: World, outside: Redis, store: redis.Redis, tmp_path: Path
) -> None:
    file = tmp_path / "ledger.duckdb"

    @contextmanager
    def with_ledger() -> Iterator[httpx.Client]:
        ledger = DuckLedger.open(file, create=True, memory_mb=64, threads=1)
        world.ledger = LedgerHolder(ledger, rows_max=1000)
        with served(world, outside.url) as client:
            yield client

    with with_ledger() as client:
        get(client)
        wait_for_kept(store, 1)
    with with_ledger() as client:
        assert "age" in get(client).headers
    asyncio.run(_seal(file))
    with with_ledger() as client:
        assert "age" not in client.get(SUMMARY, params=RANGE).headers


async def _seal(file: Path) -> None:
    ledger = DuckLedger.open(file, create=True, memory_mb=64, threads=1)
    await ledger.seal([executions(FIRST)], now_ns=NOW_NS)
    await ledger.aclose()


def test_what_looking_for_them_takes_is_part_of_the_deadline(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"redis://127.0.0.1:{hanging.getsockname()[1]}"
        with served(world, url, timeout_seconds=2.0) as client:
            asked = time.monotonic()
            get(client)
            took_seconds = time.monotonic() - asked
    assert took_seconds >= 2
    assert world.deadline is not None
    # An event loop's clock is this one; a second for whatever else the machine does.
    assert world.deadline - asked < 31


def test_who_was_refused_is_not_shown_what_stands_there(
    world: World, outside: Redis, store: redis.Redis
) -> None:
    def status(client: httpx.Client) -> int:
        path = "/system/metrics/cowsay"
        return client.get(path, params=RANGE, headers=ALICE, auth=None).status_code

    with served(world, outside.url) as client:
        assert status(client) == 200
        wait_for_kept(store, 1)
    world.pass_seconds(100)
    world.inventory = inventory()
    with served(world, outside.url) as client:
        assert status(client) == 403
        assert store.dbsize() == 0
    world.inventory = OUT
    with served(world, outside.url) as client:
        assert status(client) == 503
