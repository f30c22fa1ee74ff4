"""The Redis and the way to it that these tests share; each test finds it empty and as it starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis as Client

from tests.servers.build import require
from tests.servers.redis import Redis
from tests.servers.toxiproxy import Proxy, Toxiproxy


@pytest.fixture(scope="package")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    require("redis")
    with Redis.start(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="package")
def way(tmp_path_factory: pytest.TempPathFactory, redis_server: Redis) -> Iterator[Proxy]:
    require("toxiproxy")
    with Toxiproxy.start(tmp_path_factory.mktemp("toxiproxy")) as toxiproxy:
        yield toxiproxy.proxy("redis", redis_server.url)


@pytest.fixture
async def inside(redis_server: Redis) -> AsyncIterator[Client]:
    """Redis as its operator sees it."""
    async with Client.from_url(redis_server.url, protocol=2) as client:
        await client.flushall()
        await client.config_resetstat()
        yield client
