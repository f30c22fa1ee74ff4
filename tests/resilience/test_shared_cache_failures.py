"""Redis out, slow, full or no Redis at all: no answer, a count and a line, never an error."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import structlog
from redis.asyncio import Redis as Client

from oscar_metrics.errors import Reason
from oscar_metrics.resilience.breaker import FAILURES_IN_A_ROW
from tests.resilience.sharing import PATIENT, Shared, lines, sharing, until
from tests.servers.certificates import Authority
from tests.servers.redis import Redis
from tests.servers.toxiproxy import Proxy

HASTY = msgspec.structs.replace(PATIENT, timeout_seconds=0.05)
# Once Redis is left alone it is not asked again within a test.
LEFT_ALONE = msgspec.structs.replace(PATIENT, open_seconds=600.0, longest_open_seconds=600.0)
RESULTS = {"hit", "miss", "not_ours", "stored", "too_large", "cleared", "cancelled", *Reason}


async def recovered(shared: Shared) -> None:
    """Wait until answers are kept and found again."""

    async def kept_and_found() -> bool:
        await shared.kept(b"again", b"and again")
        return await shared.cache.get(b"again") == b"and again"

    await until(kept_and_found)
    assert shared.state() == "closed"


async def quiet() -> None:
    """Let so much time pass that the log tells what is over."""
    await asyncio.sleep(2 * PATIENT.open_seconds)


@pytest.mark.usefixtures("inside")
async def test_redis_that_is_down_is_left_alone_and_used_again_when_it_is_back(
    way: Proxy,
) -> None:
    with lines() as told:
        async with sharing(way.url) as shared:
            await shared.kept(b"question", b"answer")
            with way.down():
                for _ in range(20):
                    assert await shared.cache.get(b"question") is None
                    await shared.kept(b"other question", b"answer")
                    assert not await shared.cache.clear()
                counted = shared.counted()
                assert counted["get connect"]
                assert counted["get open"]
                assert shared.state() != "closed"
            await recovered(shared)
            await quiet()
            assert await shared.cache.get(b"question") == b"answer"
    assert told == ["shared cache is out", "shared cache is back"]


@pytest.mark.usefixtures("inside")
async def test_redis_that_hangs_costs_a_few_waits_and_then_nothing(redis_server: Redis) -> None:
    with lines() as told:
        hasty = msgspec.structs.replace(LEFT_ALONE, timeout_seconds=0.05)
        async with sharing(redis_server.url, hasty) as shared:
            await shared.kept(b"question", b"answer")
            redis_server.suspend()
            try:
                async with asyncio.timeout(30):  # thousands of waits would take longer
                    for _ in range(2000):
                        assert await shared.cache.get(b"question") is None
                        await shared.kept(b"question", b"answer")
            finally:
                redis_server.resume()
            counted = shared.counted()
            assert counted["get timeout"] + counted["put timeout"] == FAILURES_IN_A_ROW
            assert counted["get open"] + counted["put open"] == 4000 - FAILURES_IN_A_ROW
            assert shared.state() == "open"
            openings = "oscar_metrics_upstream_breaker_openings_total"
            labels = {"upstream": "redis"}
            assert shared.telemetry.registry.get_sample_value(openings, labels) == 1
    assert told == ["shared cache is out"]


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("latency", {"latency": 10_000}),
        ("latency", {"latency": 60, "jitter": 60}),
        ("bandwidth", {"rate": 1}),
        ("slow_close", {"delay": 10_000}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": 20}),
        ("reset_peer", {"timeout": 0}),
        ("slicer", {"average_size": 50, "size_variation": 20, "delay": 10}),
        ("limit_data", {"bytes": 500}),
    ],
)
async def test_whatever_the_network_does_an_answer_is_right_or_none(
    way: Proxy, kind: str, attributes: dict[str, int]
) -> None:
    answers = {b"%d" % n: os.urandom(3000) for n in range(4)}
    async with sharing(way.url, HASTY) as shared:
        with way.toxic(kind, **attributes):
            for _ in range(5):
                for question, answer in answers.items():
                    await shared.kept(question, answer)
                found = await asyncio.gather(*map(shared.cache.get, answers))
                assert all(
                    one in (None, answer)
                    for one, answer in zip(found, answers.values(), strict=True)
                )
        await recovered(shared)
        assert {counted.split()[1] for counted in shared.counted()} <= RESULTS


async def test_a_call_that_is_cancelled_leaves_its_answer_to_nobody(
    way: Proxy, inside: Client
) -> None:
    settings = msgspec.structs.replace(PATIENT, connections=1)
    async with sharing(way.url, settings) as shared:
        await shared.kept(b"one", b"answer to one")
        await shared.kept(b"another", b"answer to another")
        with way.toxic("latency", latency=300):
            for number in range(3):
                before = await reads(inside)
                asking = asyncio.create_task(shared.cache.get(b"one"))

                async def asked(before: int = before) -> bool:
                    return await reads(inside) > before

                await until(asked)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert shared.counted()["get cancelled"] == number + 1
                assert await shared.cache.get(b"another") == b"answer to another"
        assert shared.state() == "closed"
        await recovered(shared)
        assert await shared.cache.get(b"one") == b"answer to one"
        assert "get not_ours" not in shared.counted()
        # No connection too many is open: this one's and the operator's.

        async def two() -> bool:
            return len(await inside.client_list()) == 2

        await until(two)


async def reads(inside: Client) -> int:
    stats = await inside.info("commandstats")
    return int(stats.get("cmdstat_getrange", {"calls": 0})["calls"])


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are seen on Linux only")
@pytest.mark.usefixtures("inside")
async def test_what_could_not_be_sent_is_not_held_while_redis_hangs(redis_server: Redis) -> None:
    settings = msgspec.structs.replace(HASTY, most_bytes=32 << 20)
    async with sharing(redis_server.url, settings) as shared:
        before = descriptors()
        # So that there are connections, over which an answer is sent at once.
        await asyncio.gather(*(shared.kept(b"%d" % n, b"answer") for n in range(5)))
        assert descriptors() > before + 1
        redis_server.suspend()
        try:
            await asyncio.gather(*(shared.kept(b"%d" % n, bytes(32 << 20)) for n in range(5)))
            assert shared.counted()["put timeout"] == 5

            async def let_go() -> bool:
                return descriptors() <= before

            await until(let_go)
        finally:
            redis_server.resume()
        await recovered(shared)


async def test_a_full_redis_still_gives_what_it_has(redis_server: Redis, inside: Client) -> None:
    with lines() as told:
        async with sharing(redis_server.url) as shared:
            await shared.kept(b"question", b"answer")
            await inside.config_set("maxmemory", "1")
            try:
                for _ in range(30):
                    await shared.kept(b"other question", b"answer")
                    assert await shared.cache.get(b"question") == b"answer"
            finally:
                await inside.config_set("maxmemory", "0")
            assert shared.counted()["put refused"] == 30
            assert shared.state() == "closed"
            await quiet()
            await recovered(shared)
    assert told == ["shared cache takes no answers", "shared cache takes answers again"]


async def test_a_redis_that_is_only_read_still_gives_what_it_has(
    redis_server: Redis, inside: Client
) -> None:
    async with sharing(redis_server.url) as shared:
        await shared.kept(b"question", b"answer")
        # Of a master that nobody has seen.
        await inside.replicaof("127.0.0.1", "1")
        try:
            await shared.kept(b"other question", b"answer")
            assert await shared.cache.get(b"question") == b"answer"
            assert shared.counted()["put refused"] == 1
            await inside.config_set("replica-serve-stale-data", "no")
            assert await shared.cache.get(b"question") is None
            assert not await shared.cache.clear()
        finally:
            await inside.config_set("replica-serve-stale-data", "yes")
            await inside.replicaof("no", "one")
        await recovered(shared)


@pytest.mark.parametrize("who", ["", "nobody:hunter2@", ":hunter2@"])
async def test_credentials_that_are_refused_are_not_told(
    redis_server: Redis, inside: Client, who: str
) -> None:
    await inside.config_set("requirepass", "s3cret")
    url = f"redis://{who}{urlsplit(redis_server.url).netloc}"
    try:
        with structlog.testing.capture_logs() as told:
            async with sharing(url, LEFT_ALONE) as shared:
                for _ in range(10):
                    assert await shared.cache.get(b"question") is None
                assert shared.counted() == {"get unauthorized": 5, "get open": 5}
    finally:
        await inside.config_set("requirepass", "")
    assert [line["event"] for line in told] == ["shared cache is out"]
    assert "hunter2" not in repr(told)


_COMMAND = re.compile(rb"^\*\d+\r$", re.MULTILINE)


@asynccontextmanager
async def saying(answer: bytes, *, then_close: bool = False) -> AsyncIterator[str]:
    """A server that says the same to every command, at the URL that is returned."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while sent := await reader.read(65536):
                writer.write(answer * len(_COMMAND.findall(sent)))
                await writer.drain()
                if then_close:
                    break
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(converse, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"redis://{host}:{port}"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n\r\n<html>", "bad_answer"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "connect"),
        (b"-ERR max number of clients reached\r\n", "connect"),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", "refused"),
        (b"-MOVED nonsense\r\n", "bad_answer"),
        (b"-CLUSTERDOWN Hash slot not served\r\n", "refused"),
        (b"-MISCONF Errors writing to the AOF file\r\n", "refused"),
        (b"-NOPERM this user has no permissions\r\n", "refused"),
        (b"-\xff\xfe\r\n", "refused"),
        (b":1\r\n", "bad_answer"),
        (b"*2\r\n$1\r\n0\r\n*0\r\n", "bad_answer"),
        (b"*1\r\n" * 5000, "bad_answer"),
        (b"$five\r\nhello\r\n", "bad_answer"),
        (b"\r\n", "bad_answer"),
        (b"x" * 200_000, "bad_answer"),
    ],
)
async def test_what_is_no_answer_of_redis_is_none(answer: bytes, reason: str) -> None:
    async with saying(answer) as url, sharing(url, LEFT_ALONE) as shared:
        for _ in range(FAILURES_IN_A_ROW):
            assert await shared.cache.get(b"question") is None
        assert shared.counted() == {f"get {reason}": FAILURES_IN_A_ROW}
        assert shared.state() == "open"
    async with saying(answer) as url, sharing(url) as shared:
        await shared.kept(b"question", b"answer")
        assert "put stored" not in shared.counted()
        if not answer.startswith(b"*2"):  # that is what a Redis without any names says
            assert not await shared.cache.clear()
        assert {counted.split()[1] for counted in shared.counted()} <= RESULTS


@pytest.mark.parametrize(
    "answer",
    [b"", b"$", b"$5\r\nhel", b"$99999999999999\r\nx", b"*1000000000\r\n:1\r\n", b"$-7\r\n"],
)
async def test_half_an_answer_is_none(answer: bytes) -> None:
    for then_close in (True, False):
        async with saying(answer, then_close=then_close) as url, sharing(url, HASTY) as shared:
            assert await shared.cache.get(b"question") is None
            await shared.kept(b"question", b"answer")
            if then_close:
                assert not await shared.cache.clear()
            assert {counted.split()[1] for counted in shared.counted()} <= RESULTS
            assert "put stored" not in shared.counted()


@asynccontextmanager
async def over_tls(redis: Redis, certificate: Path, key: Path) -> AsyncIterator[str]:
    """TLS before a Redis, whose own program was built without."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    inner = urlsplit(redis.url)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while sent := await reader.read(65536):
            writer.write(sent)
            await writer.drain()
        writer.close()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(inner.hostname, inner.port)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(carry(reader, there_writer))
                both.create_task(carry(there_reader, writer))
        except* ConnectionError:
            pass

    async with await asyncio.start_server(converse, "127.0.0.1", 0, ssl=context) as server:
        yield f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.usefixtures("inside")
async def test_over_tls_only_a_server_that_is_vouched_for_is_told_anything(
    redis_server: Redis, tmp_path: Path
) -> None:
    authority = Authority("ours")
    file = authority.write(tmp_path / "ca.crt")
    right = authority.issue(tmp_path, "right")
    wrong = authority.issue(tmp_path, "wrong", hosts=("elsewhere.example.org",))
    trusting = msgspec.structs.replace(PATIENT, ca_file=str(file))
    async with over_tls(redis_server, *right) as url:
        async with sharing(url, trusting) as shared:
            await shared.kept(b"question", b"answer")
            assert await shared.cache.get(b"question") == b"answer"
        async with sharing(url) as shared:
            assert await shared.cache.get(b"question") is None
            assert shared.counted() == {"get connect": 1}
    async with over_tls(redis_server, *wrong) as url, sharing(url, trusting) as shared:
        assert await shared.cache.get(b"question") is None
        assert shared.counted() == {"get connect": 1}


@pytest.mark.usefixtures("inside")
async def test_closing_waits_for_nobody(redis_server: Redis) -> None:
    async with sharing(redis_server.url) as shared:
        await shared.kept(b"question", b"answer")
        redis_server.suspend()
        try:
            asking = asyncio.create_task(shared.cache.get(b"question"))
            await asyncio.sleep(0)
            await shared.cache.aclose()
            assert await asking is None
        finally:
            redis_server.resume()
