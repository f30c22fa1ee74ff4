"""Answers kept in Redis: who finds them, for how long, and what stands there."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from redis.asyncio import Redis as Client

from oscar_metrics.errors import SettingsError
from oscar_metrics.resilience.shared_cache import (
    PREFIX,
    SharedCache,
    SharedCacheSettings,
    cache_key,
)
from oscar_metrics.telemetry import Telemetry
from tests.resilience.sharing import KEY, PATIENT, lines, sharing, until
from tests.servers.redis import Redis
from tests.servers.toxiproxy import Proxy


async def names(inside: Client) -> list[bytes]:
    return sorted([name async for name in inside.scan_iter()])


@pytest.mark.usefixtures("inside")
async def test_what_one_process_keeps_another_finds(redis_server: Redis) -> None:
    async with sharing(redis_server.url) as one, sharing(redis_server.url) as another:
        assert await another.cache.get(b"question") is None
        await one.kept(b"question", b"answer")
        assert await another.cache.get(b"question") == b"answer"
        assert await another.cache.get(b"other question") is None
        await one.kept(b"question", b"")
        assert await another.cache.get(b"question") == b""
        assert another.counted() == {"get miss": 2, "get hit": 2}
        assert one.counted() == {"put stored": 2}
        assert one.state() == "closed"


async def test_who_has_another_key_finds_nothing_and_disturbs_nothing(
    redis_server: Redis, inside: Client
) -> None:
    other_key = bytes(32)
    async with sharing(redis_server.url) as one, sharing(redis_server.url, key=other_key) as other:
        await one.kept(b"question", b"answer")
        assert await other.cache.get(b"question") is None
        await other.kept(b"question", b"another answer")
        assert await one.cache.get(b"question") == b"answer"
        assert len(await names(inside)) == 2


async def test_nothing_that_stands_in_redis_says_what_it_is(
    redis_server: Redis, inside: Client
) -> None:
    async with sharing(redis_server.url) as shared:
        await shared.kept(b"alice@example.org cowsay", b'{"user":"alice@example.org"}' * 50)
    (name,) = await names(inside)
    value = await inside.get(name)
    assert isinstance(value, bytes)
    assert name.startswith(PREFIX)
    for part in (b"alice", b"cowsay", b"user"):
        assert part not in name
        assert part not in value


async def test_an_answer_is_gone_when_its_time_is_up(redis_server: Redis, inside: Client) -> None:
    async with sharing(redis_server.url) as shared:
        for keep_seconds in (0, -1, 0.0001):
            await shared.cache.put(b"never", b"kept", keep_seconds=keep_seconds)
        assert await names(inside) == []
        await shared.cache.put(b"question", b"answer", keep_seconds=600)
        (name,) = await names(inside)
        assert 500_000 < await inside.pttl(name) <= 600_000
        await shared.cache.put(b"question", b"answer", keep_seconds=0.02)

        async def gone() -> bool:
            return await shared.cache.get(b"question") is None

        await until(gone)
        assert await names(inside) == []


async def test_an_answer_put_in_the_place_of_another_is_not_taken_for_it(
    redis_server: Redis, inside: Client
) -> None:
    with lines() as told:
        async with sharing(redis_server.url) as shared:
            await shared.kept(b"what alice sees", b"all")
            (first,) = await names(inside)
            await shared.kept(b"what bob sees", b"little")
            (second,) = set(await names(inside)) - {first}
            await inside.copy(first.decode(), second.decode(), replace=True)
            for _ in range(3):
                assert await shared.cache.get(b"what bob sees") is None
            assert await shared.cache.get(b"what alice sees") == b"all"
            assert shared.counted()["get not_ours"] == 3
            # What was put there is replaced.
            await shared.kept(b"what bob sees", b"little")
            assert await shared.cache.get(b"what bob sees") == b"little"
    assert told == ["shared cache holds what is not ours"]


@pytest.mark.parametrize(
    "put_there",
    [
        lambda inside, name: inside.set(name, b"garbage"),
        lambda inside, name: inside.set(name, b"0" * 5000),
        lambda inside, name: inside.rpush(name, b"garbage"),
        lambda inside, name: inside.hset(name, "garbage", "1"),
        lambda inside, name: inside.sadd(name, b"garbage"),
    ],
    ids=["text", "long text", "list", "hash", "set"],
)
async def test_garbage_in_the_place_of_an_answer_is_not_taken_for_it(
    redis_server: Redis, inside: Client, put_there: Callable[[Client, bytes], Awaitable[object]]
) -> None:
    async with sharing(redis_server.url) as shared:
        await shared.kept(b"question", b"answer")
        (name,) = await names(inside)
        await inside.delete(name)
        await put_there(inside, name)
        for _ in range(30):
            assert await shared.cache.get(b"question") is None
        assert shared.counted()["get not_ours"] == 30
        assert shared.state() == "closed"
        await shared.kept(b"question", b"answer")
        assert await shared.cache.get(b"question") == b"answer"


async def test_of_something_huge_no_more_is_read_than_told(
    redis_server: Redis, inside: Client
) -> None:
    settings = msgspec.structs.replace(PATIENT, most_bytes=100_000)
    async with sharing(redis_server.url, settings) as shared:
        await shared.kept(b"question", b"answer")
        (name,) = await names(inside)
        await inside.setrange(name, 300_000_000, b"!")
        tracemalloc.start()
        try:
            assert await shared.cache.get(b"question") is None
            assert tracemalloc.get_traced_memory()[1] < 2_000_000
        finally:
            tracemalloc.stop()
            await inside.delete(name)
        assert shared.counted()["get not_ours"] == 1


@pytest.mark.usefixtures("inside")
async def test_what_is_larger_than_told_is_not_kept(redis_server: Redis) -> None:
    settings = msgspec.structs.replace(PATIENT, most_bytes=100_000)
    async with sharing(redis_server.url, settings) as shared:
        await shared.kept(b"large", bytes(100_000))
        await shared.kept(b"larger", bytes(100_001))
        assert await shared.cache.get(b"large") == bytes(100_000)
        assert await shared.cache.get(b"larger") is None
        assert shared.counted() == {
            "put stored": 1,
            "put too_large": 1,
            "get hit": 1,
            "get miss": 1,
        }


async def test_clearing_removes_all_of_ours_and_nothing_else(
    redis_server: Redis, inside: Client
) -> None:
    async with sharing(redis_server.url) as shared, sharing(redis_server.url, key=bytes(32)) as old:
        await inside.mset({f"{n}": "somebody else's" for n in range(3000)})
        await asyncio.gather(*(shared.kept(b"%d" % n, b"answer") for n in range(2500)))
        await old.kept(b"question", b"kept before a setting was changed")
        assert len(await names(inside)) == 5501
        assert await shared.cache.clear()
        assert sorted(map(int, await names(inside))) == list(range(3000))
        assert await shared.cache.get(b"1") is None
        assert await shared.cache.clear()
        assert shared.counted()["clear cleared"] == 2


async def test_many_at_once_share_a_few_connections(inside: Client, way: Proxy) -> None:
    settings = msgspec.structs.replace(PATIENT, connections=3)
    async with sharing(way.url, settings) as shared:
        await asyncio.gather(*(shared.kept(b"%d" % n, b"answer %d" % n) for n in range(100)))
        found = await asyncio.gather(*(shared.cache.get(b"%d" % n) for n in range(100)))
        assert found == [b"answer %d" % n for n in range(100)]
        # Theirs, and the one that asks.
        assert 2 <= len(await inside.client_list()) <= 4

    async def closed() -> bool:
        return len(await inside.client_list()) == 1

    await until(closed)


async def test_the_url_names_the_user_the_password_and_the_number(
    redis_server: Redis, inside: Client
) -> None:
    user, password = "oscar@metrics", "a/b:c@d?e#f%g"
    await inside.acl_setuser(
        user,
        enabled=True,
        passwords=[f"+{password}"],
        keys=["*"],
        commands=["+getrange", "+set", "+scan", "+unlink", "+select"],
    )
    address = urlsplit(redis_server.url).netloc
    url = f"redis://oscar%40metrics:a%2Fb%3Ac%40d%3Fe%23f%25g@{address}/3"
    try:
        async with sharing(url) as shared:
            await shared.kept(b"question", b"answer")
            assert await shared.cache.get(b"question") == b"answer"
            async with Client.from_url(f"{redis_server.url}/3", protocol=2) as third:
                assert len(await names(third)) == 1
            assert await names(inside) == []
            assert await shared.cache.clear()
            assert await shared.cache.get(b"question") is None
    finally:
        await inside.acl_deluser(user)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis",
        "redis://",
        "http://hunter2@redis:6379",
        "unix:///hunter2",
        "redis://:hunter2@redis:port",
        "redis://:hunter2@redis:99999999",
        "redis://:hunter2@redis/zero",
        "redis://:hunter2@redis/-1",
        "redis://:hunter2@redis/0/1",
        "redis://:hunter2/hunter2@redis",
        "redis://:hunter2@[redis",
        # This would turn verification off.
        "rediss://:hunter2@redis?ssl_cert_reqs=none",
        "redis://:hunter2@redis#0",
    ],
)
async def test_a_bad_url_stops_the_start_and_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="OSCAR_METRICS_CACHE: expected redis://") as caught:
        SharedCache(url, KEY, SharedCacheSettings(), Telemetry())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("text", [None, "", "no certificate"])
async def test_authorities_of_no_use_stop_the_start(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(
        SettingsError, match=r"OSCAR_METRICS_CACHE_REDIS_CA_FILE: .*expected certif"
    ):
        SharedCache("rediss://redis", KEY, SharedCacheSettings(ca_file=str(file)), Telemetry())


def test_without_the_extra_the_start_stops_and_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['redis'] = None\n"
        "from oscar_metrics.resilience.shared_cache import *\n"
        "SharedCache('redis://redis', bytes(32), SharedCacheSettings(), Telemetry())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "SettingsError: OSCAR_METRICS_CACHE: " in done.stderr
    assert "pip install 'oscar-metrics[redis]'" in done.stderr


def test_who_keeps_nothing_in_redis_does_not_load_its_client() -> None:
    program = (
        "import sys, oscar_metrics.resilience.shared_cache\n"
        "sys.exit(' '.join({'redis', 'cryptography'} & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.strip() == ""


def test_the_key_is_another_one_for_other_settings() -> None:
    keys = [cache_key(["ab", "c"]), cache_key(["a", "bc"]), cache_key(["c", "ab"]), cache_key([])]
    assert len(set(keys)) == 4
    assert {len(key) for key in keys} == {32}
    assert cache_key(["ab", "c"]) == keys[0]
    # What the environment holds need not be text.
    assert len(cache_key(["\udcff"])) == 32
