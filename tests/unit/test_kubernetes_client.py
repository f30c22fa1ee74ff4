"""What no real API server can be made to say, said by a few lines on a loopback port."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.outcome import Ok, Partial, Unavailable
from oscar_metrics.sources.kubernetes import InventorySettings, KubernetesInventory
from oscar_metrics.sources.kubernetes_client import KubernetesClient, KubernetesSettings, Page
from oscar_metrics.telemetry import Telemetry

Answer = Callable[[str], bytes | None]
NO_SERVICES = b'{"kind":"ConfigMapList","items":[],"metadata":{}}'
NO_NAMESPACES = b'{"kind":"NamespaceList","items":[],"metadata":{}}'


@contextlib.asynccontextmanager
async def client_of(
    answer: Answer, tmp_path: Path, *, attempts: int = 1, timeout_seconds: float = 5.0
) -> AsyncIterator[tuple[KubernetesClient, Telemetry]]:
    """A client of a server that answers each request line with `answer`; None: never."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if length := re.search(r"content-length: (\d+)", head, re.IGNORECASE):
                    await reader.readexactly(int(length[1]))
                reply = answer(head.partition("\r\n")[0])
                if reply is None:
                    return
                writer.write(reply)
                await writer.drain()
                if b"Connection: close" in reply:
                    writer.close()
                    return

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    telemetry = Telemetry()
    settings = KubernetesSettings(
        config=str(kubeconfig(tmp_path, port)), attempts=attempts, timeout_seconds=timeout_seconds
    )
    client = KubernetesClient(settings, telemetry)
    try:
        yield client, telemetry
    finally:
        await client.aclose()
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


def kubeconfig(tmp_path: Path, port: int) -> Path:
    path = tmp_path / "config"
    entries = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "5ec2e7"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    path.write_text(json.dumps(entries))
    return path


def reply(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def half(body: bytes) -> bytes:
    """An answer that ends before its time."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\nConnection: close\r\n\r\n" + body


HTML = b"<html><body>Please log in</body></html>"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (reply(HTML, "200 OK", "Content-Type: text/html"), "something that is not its API"),
        (reply(b'{"items":[{"metadata"'), "something that is not its API"),
        (reply(b"{}"), "something that is not its API"),
        (reply(b'{"kind":"ConfigMapList","items":"none","metadata":{}}'), "something that is not"),
        (reply(NO_NAMESPACES), "something that is not its API"),
        (reply(b'{"items":[],"metadata":{}}'), "something that is not its API"),
        (reply(NO_SERVICES, "200 OK", "Content-Encoding: gzip"), "something that is not its API"),
        (reply(b'{"kind":"Status","status":"Failure"}'), "something that is not its API"),
        (reply(b"\xff\xfe"), "something that is not its API"),
        (reply(b"", "302 Found", "Location: https://login.example.org/"), "not its API"),
        (reply(HTML, "502 Bad Gateway"), "kubernetes failed"),
        (reply(b"", "404 Not Found"), "does not know what was asked"),
        (half(b'{"items":['), "could not be reached"),
        (b"nonsense\r\n\r\n", "something that is not its API"),
        (None, "did not answer in time"),
    ],
)
async def test_what_is_no_answer_is_unavailable(
    answer: bytes | None, says: str, tmp_path: Path
) -> None:
    async with client_of(lambda _: answer, tmp_path, timeout_seconds=0.3) as (client, _):
        inventory = KubernetesInventory(client, InventorySettings())
        outcome = await inventory.read(now_ns=0, deadline=None)

    assert isinstance(outcome, Unavailable)
    assert says in outcome.notes[0]
    assert "log in" not in outcome.notes[0]


async def test_a_list_whose_token_expired_starts_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(line: str) -> bytes:
        asked.append(line)
        if "configmaps" not in line:
            return reply(NO_NAMESPACES)
        if "continue" in line and len(asked) < 4:
            return reply(b'{"kind":"Status","reason":"Expired"}', "410 Gone")
        name = "second" if "continue" in line else "first"
        following = "" if "continue" in line else "more"
        return reply(page(name, following))

    async with client_of(answer, tmp_path) as (client, _):
        inventory = KubernetesInventory(client, InventorySettings())
        outcome = await inventory.read(now_ns=0, deadline=None)

    assert isinstance(outcome, Ok)
    assert [service.name for service in outcome.facts.services] == ["first", "second"]


@pytest.mark.parametrize("status", ["410 Gone", "400 Bad Request"])
async def test_a_list_that_expires_for_ever_is_given_up(status: str, tmp_path: Path) -> None:
    asked: list[str] = []

    def answer(line: str) -> bytes:
        asked.append(line)
        return reply(b"", status) if "continue" in line else reply(page("first", "more"))

    async with client_of(answer, tmp_path) as (client, _):
        outcome = await KubernetesInventory(client, InventorySettings()).read(
            now_ns=0, deadline=None
        )

    assert isinstance(outcome, Unavailable)
    assert sum("configmaps" in line for line in asked) <= 6


NUMBERS = itertools.count()


def endless(line: str) -> bytes:
    """Pages that are never the last, each with the same token."""
    return reply(page("more" if "continue" in line else "first", "more"))


def never_anything(_: str) -> bytes:
    """Empty pages, each with a token of its own."""
    said = json.loads(NO_SERVICES) | {"metadata": {"continue": str(next(NUMBERS))}}
    return reply(json.dumps(said).encode())


def the_same_twice(line: str) -> bytes:
    return reply(page("first", "" if "continue" in line else "more"))


def of_another_label(_: str) -> bytes:
    return reply(page("first", "").replace(b'"oscar_service"', b'"app"'))


@pytest.mark.parametrize("answer", [endless, never_anything, the_same_twice, of_another_label])
async def test_services_that_were_not_asked_for_are_not_listed(
    answer: Callable[[str], bytes], tmp_path: Path
) -> None:
    asked = 0

    def counted_answer(line: str) -> bytes:
        nonlocal asked
        asked += 1
        return reply(NO_NAMESPACES) if "namespaces" in line else answer(line)

    async with client_of(counted_answer, tmp_path) as (client, _):
        inventory = KubernetesInventory(client, InventorySettings())
        outcome = await inventory.read(now_ns=0, deadline=None)

    assert isinstance(outcome, Unavailable)
    assert "something that is not its API" in outcome.notes[0]
    assert asked < 150


async def test_namespaces_of_others_leave_owners_missing(tmp_path: Path) -> None:
    said = json.loads(NO_NAMESPACES)
    said["items"] = [{"metadata": {"name": "a", "annotations": {"oscar.grycap.upv.es/owner": "b"}}}]
    answer = reply(json.dumps(said).encode())

    async with client_of(
        lambda line: answer if "namespaces" in line else reply(page("first", "")), tmp_path
    ) as (client, _):
        outcome = await KubernetesInventory(client, InventorySettings()).read(
            now_ns=0, deadline=None
        )

    assert isinstance(outcome, Partial)
    assert [owner.namespace for owner in outcome.facts.owners] == ["oscar-svc"]
    assert outcome.notes[0].startswith("the owners of namespaces are missing: ")


def page(name: str, following: str) -> bytes:
    about = {
        "name": name,
        "namespace": "ns",
        "uid": name,
        "resourceVersion": "1",
        "labels": {"oscar_service": name},
    }
    data = {"function_config.yaml": f"name: {name}"}
    return json.dumps(
        {
            "kind": "ConfigMapList",
            "items": [{"metadata": about, "data": data}],
            "metadata": {"continue": following},
        }
    ).encode()


async def test_a_busy_server_is_asked_again_and_the_call_is_counted_once(tmp_path: Path) -> None:
    replies = [
        reply(b"", "429 Too Many Requests", "Retry-After: 0"),
        reply(b"", "503 Service Unavailable", "Retry-After: 0"),
        reply(NO_SERVICES),
    ]
    async with client_of(lambda _: replies.pop(0), tmp_path, attempts=3) as (client, telemetry):
        await _list(client)

    assert replies == []
    assert counted(telemetry) == {"ok": 1.0}


async def test_a_refusal_is_final_and_counted_by_its_reason(tmp_path: Path) -> None:
    replies = [reply(b"", "403 Forbidden"), reply(NO_SERVICES)]
    async with client_of(lambda _: replies.pop(0), tmp_path, attempts=3) as (client, telemetry):
        with pytest.raises(UpstreamError) as caught:
            await _list(client)

    assert caught.value.reason is Reason.FORBIDDEN
    assert counted(telemetry) == {"forbidden": 1.0}


@pytest.mark.parametrize("status", ["403 Forbidden", "500 No", "502 Bad Gateway"])
async def test_a_page_that_repeats_our_token_is_not_logged(status: str, tmp_path: Path) -> None:
    echo = reply(b"you sent: Authorization: Bearer 5ec2e7", status)
    async with client_of(lambda _: echo, tmp_path) as (client, _):
        with capture_logs() as logged, pytest.raises(UpstreamError) as caught:
            await client.get("/version", {}, msgspec.json.Decoder(dict[str, str]))
    assert status[:3] in caught.value.detail
    assert "5ec2e7" not in f"{caught.value.detail} {logged}"


async def test_a_deadline_ends_the_call_and_its_connection(tmp_path: Path) -> None:
    async with client_of(lambda _: None, tmp_path) as (client, telemetry):
        inventory = KubernetesInventory(client, InventorySettings())
        deadline = asyncio.get_running_loop().time() + 0.1
        outcome = await inventory.read(now_ns=0, deadline=deadline)

    assert outcome == Unavailable(
        origin="kubernetes",
        notes=("kubernetes had not finished when the report's deadline came",),
    )
    assert counted(telemetry) == {"cancelled": 2.0}


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", ["its clock and ours differ"]),
        ("no date", []),
    ],
)
async def test_check_tells_of_a_clock_that_differs(
    date: str, expected: list[str], tmp_path: Path
) -> None:
    def answer(line: str) -> bytes:
        if "/version" in line:
            return reply(b'{"gitVersion":"v1.36.3"}', "200 OK", f"Date: {date}")
        if line.startswith("POST"):
            return reply(b'{"status":{"allowed":true}}')
        return reply(NO_NAMESPACES if "namespaces" in line else NO_SERVICES)

    async with client_of(answer, tmp_path) as (client, _):
        findings = await KubernetesInventory(client, InventorySettings()).check(0)

    says = [finding.says for finding in findings if "clock" in finding.says]
    assert [text[:25] for text in says] == expected


async def _list(client: KubernetesClient) -> None:
    decoder = msgspec.json.Decoder(Page[dict[str, str]])
    await client.list_all("/api/v1/configmaps", {}, decoder, len, kind="ConfigMapList", most=10)


def counted(telemetry: Telemetry) -> dict[str, float]:
    return {
        sample.labels["reason"]: sample.value
        for metric in telemetry.registry.collect()
        for sample in metric.samples
        if sample.name == "oscar_metrics_upstream_call_duration_seconds_count"
    }
