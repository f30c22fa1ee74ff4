"""What a peer may send has an end; spoken to on a socket, as no client library would."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs

from oscar_metrics.handlers.bounded_http import MAX_BODY_BYTES, MAX_HEADERS
from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.telemetry import Telemetry
from tests.contract.neighbours import basic
from tests.contract.serving import WHOLE, aggregator, call, log, serving
from tests.servers.process import wait_until

# Waits a moment only.
HASTY = ConnectionSettings(head_seconds=0.2, read_seconds=1.0)
MAX_HEAD_BYTES = HASTY.head_bytes

# Its CSV by user is more than the system holds between two processes.
LARGE = msgspec.structs.replace(
    WHOLE,
    executions=log({call("cowsay", f"{'x' * 1000}{number}", "ES"): 1 for number in range(12_000)}),
)


@pytest.fixture(scope="module")
def whole() -> Iterator[httpx.Client]:
    telemetry = Telemetry()
    with serving(aggregator(WHOLE, telemetry), telemetry) as client:
        yield client


@pytest.fixture(scope="module")
def hasty() -> Iterator[httpx.Client]:
    telemetry = Telemetry()
    with serving(aggregator(WHOLE, telemetry), telemetry, connections=HASTY) as client:
        yield client


def dial(client: httpx.Client, held_bytes: int | None = None) -> socket.socket:
    """A connection; `held_bytes` is what the system is to hold for who does not read."""
    address = urlsplit(str(client.base_url))
    peer = socket.socket()
    peer.settimeout(20)
    if held_bytes is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, held_bytes)
    peer.connect((address.hostname, address.port))
    return peer


def rest(peer: socket.socket) -> bytes:
    """All that is sent until the other side closes."""
    said = b""
    try:
        while data := peer.recv(65536):
            said += data
    except ConnectionResetError:
        pass  # closed on us with something of ours unread
    return said


def head(*headers: str, path: str = "/system/metrics/summary") -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", f"Authorization: {basic()['Authorization']}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode()


def response(said: bytes) -> httpx.Response:
    """What was answered, of which nothing is missing and after which nothing follows."""
    head_, _, body = said.partition(b"\r\n\r\n")
    line, *headers = head_.decode().split("\r\n")
    pairs = (header.partition(": ") for header in headers)
    answered = httpx.Response(
        int(line.split(" ")[1]),
        headers=[(name, value) for name, _, value in pairs],
        content=body,
    )
    assert answered.headers["content-length"] == str(len(body))
    return answered


CLOSE = "Connection: close"
ERRORS = {
    400: "invalid request",
    413: "request body is too large",
    431: "request head is too large",
}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (head(CLOSE), 200),
        (head(*(f"X-{number}: y" for number in range(MAX_HEADERS - 3)), CLOSE), 200),
        (head(*(f"X-{number}: y" for number in range(MAX_HEADERS)), CLOSE), 431),
        (head("X: " + "y" * (MAX_HEAD_BYTES // 2), CLOSE), 200),
        (b"GET /" + b"x" * (MAX_HEAD_BYTES + 1), 431),
        (head("X: " + "y" * MAX_HEAD_BYTES)[:-4], 431),
        # All of it there at once.
        (head("X: " + "y" * MAX_HEAD_BYTES, CLOSE), 431),
        (head(*(f"X: {'y' * (MAX_HEAD_BYTES // 3)}" for _ in range(3)), CLOSE), 431),
        (head(CLOSE, path=f"/{'x' * MAX_HEAD_BYTES}"), 431),
        # A body that is announced.
        (head(f"Content-Length: {MAX_BODY_BYTES}", CLOSE), 200),
        (head(f"Content-Length: {MAX_BODY_BYTES + 1}"), 413),
        (head(f"Content-Length: {2**63}"), 413),
        (head(f"Content-Length: {'0' * 5000}1", CLOSE), 200),
        (head(f"Content-Length: {MAX_BODY_BYTES + 1}", path="/healthz"), 413),
        (head("Content-Length: -1"), 400),
        (head("Content-Length: 1", "Content-Length: 2"), 400),
        (head("Content-Length: 1", "Transfer-Encoding: chunked"), 400),
        (b"GET / HTTP/1.1\r\nA\x00: b\r\n\r\n", 400),
    ],
    ids=lambda value: str(value)[:60],
)
def test_requests_at_and_past_the_bounds(whole: httpx.Client, sent: bytes, status: int) -> None:
    with dial(whole) as peer:
        peer.sendall(sent)
        said = rest(peer)
    assert said.split(b" ", 2)[1] == str(status).encode()
    if status != 200:
        answered = response(said)
        assert answered.json()["error"] == ERRORS[status]
        assert answered.headers["connection"] == "close"
        assert answered.headers["content-type"] == "application/json"
        assert answered.headers["cache-control"] == "no-store"
        assert answered.headers["x-content-type-options"] == "nosniff"
        assert "date" in answered.headers


def test_a_body_of_no_known_length_is_not_read_to_its_end(whole: httpx.Client) -> None:
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    with dial(whole) as peer:
        peer.sendall(head("Transfer-Encoding: chunked") + chunk)
        assert peer.recv(4096).startswith(b"HTTP/1.1 200 ")
        # More than the buffers between us hold.
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            peer.sendall(chunk * 16 * 1024)


def test_headers_after_a_body_count_too(whole: httpx.Client) -> None:
    trailers = b"".join(b"X-%d: y\r\n" % number for number in range(MAX_HEADERS))
    with dial(whole) as peer:
        peer.sendall(head("Transfer-Encoding: chunked") + b"0\r\n" + trailers)
        assert rest(peer)


def test_a_small_body_is_no_harm(whole: httpx.Client) -> None:
    for _ in range(2):
        response = whole.request("GET", "/system/metrics/summary", content=b"x" * 1000)
        assert response.status_code == 200
        response = whole.request("GET", "/healthz", content=iter([b"x" * 1000] * 3))
        assert response.status_code == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"\r\n\r\n", b"GET"],
)
def test_who_does_not_finish_a_head_is_not_waited_for(hasty: httpx.Client, sent: bytes) -> None:
    with dial(hasty) as peer:
        peer.sendall(sent)
        assert rest(peer) == b""


@pytest.mark.parametrize("then", [b"GET /healthz HTTP/1.1\r\n", b"\r\n"])
def test_nor_after_an_answer(hasty: httpx.Client, then: bytes) -> None:
    with dial(hasty) as peer:
        peer.sendall(head())
        assert peer.recv(1).startswith(b"H")
        peer.sendall(then)
        said = rest(peer)
    assert said.startswith(b"TTP/1.1 200 ")
    assert said.count(b"TTP/1.1") == 1


def test_who_is_idle_after_an_answer_is_waited_for(hasty: httpx.Client) -> None:
    with dial(hasty) as peer:
        for _ in range(2):
            peer.sendall(head(path="/healthz"))
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
            peer.settimeout(3 * HASTY.head_seconds)
            with pytest.raises(TimeoutError):
                peer.recv(1)
            peer.settimeout(20)


@pytest.fixture(scope="module")
def large() -> Iterator[httpx.Client]:
    telemetry = Telemetry()
    with serving(aggregator(LARGE, telemetry), telemetry, connections=HASTY) as client:
        yield client


LARGE_CSV = head(CLOSE, path="/system/metrics/breakdown?group_by=user&format=csv")


@pytest.mark.parametrize(
    ("sent", "then"),
    [
        (LARGE_CSV, b""),
        # Nor does it help to go on asking.
        (LARGE_CSV.replace(CLOSE.encode(), b"X: y"), head(path="/healthz")),
    ],
)
def test_who_does_not_read_the_answer_is_not_waited_for(
    large: httpx.Client, sent: bytes, then: bytes
) -> None:
    with capture_logs() as lines, dial(large) as peer:
        peer.sendall(sent)
        assert peer.recv(1) == b"H"
        peer.sendall(then)
        wait_until(
            lambda: any(line["event"] == "client does not read its answer" for line in lines),
            "its end",
            timeout_seconds=20,
        )
        said = rest(peer)
    assert not said.endswith(b"ES:1\n")
    assert large.get("/healthz").is_success


def test_who_reads_slowly_is_waited_for(large: httpx.Client) -> None:
    with capture_logs() as lines, dial(large) as peer:
        peer.sendall(LARGE_CSV)
        said = bytearray()
        while data := peer.recv(1 << 20, socket.MSG_WAITALL):
            said += data
            time.sleep(0.15)
    assert said.endswith(b"ES:1\n")
    assert [line["event"] for line in lines] == ["report"]
