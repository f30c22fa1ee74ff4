from __future__ import annotations

import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.servers.build import require
from tests.servers.certificates import Authority
from tests.servers.process import ServerError
from tests.servers.toxiproxy import Proxy, Toxiproxy

ANSWER = bytes(range(256)) * 200
REQUEST = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n"


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers every GET with ANSWER; of `/until-closed` only the connection's end is its end."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/until-closed":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Keep quiet."""


class Server(http.server.ThreadingHTTPServer):
    """An upstream whose clients may leave whenever they like."""

    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet."""


@contextmanager
def serve(context: ssl.SSLContext | None = None) -> Iterator[str]:
    with Server(("127.0.0.1", 0), Upstream) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Toxiproxy]:
    require("toxiproxy")
    with Toxiproxy.start(tmp_path_factory.mktemp("toxiproxy")) as server:
        yield server


@pytest.fixture(scope="module")
def proxy(toxiproxy: Toxiproxy) -> Iterator[Proxy]:
    with serve() as upstream:
        yield toxiproxy.proxy("web", upstream)


def get(proxy: Proxy, path: str = "", timeout_seconds: float = 30) -> bytes:
    answer = httpx.get(f"{proxy.url}/{path}", timeout=timeout_seconds, trust_env=False)
    assert answer.status_code == httpx.codes.OK
    return answer.content


def connect(proxy: Proxy) -> socket.socket:
    host, _, port = proxy.address.partition(":")
    return socket.create_connection((host, int(port)), timeout=5)


def seconds_of_answer(proxy: Proxy) -> float:
    began = time.monotonic()
    assert get(proxy, "until-closed") == ANSWER
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("kind", "attributes", "at_least_seconds"),
    [
        ("latency", {"latency": 200}, 0.2),
        ("latency", {"latency": 200, "jitter": 50}, 0.15),
        ("bandwidth", {"rate": 200}, len(ANSWER) / 200_000 * 0.9),
        ("slow_close", {"delay": 200}, 0.2),
        # The pieces of what is read at once, 32 KiB at most, of up to average + variation bytes.
        ("slicer", {"average_size": 2_000, "size_variation": 500, "delay": 10_000}, 0.2),
    ],
)
def test_a_slow_network_brings_everything_late(
    proxy: Proxy, kind: str, attributes: dict[str, int], at_least_seconds: float
) -> None:
    with proxy.toxic(kind, **attributes):
        assert seconds_of_answer(proxy) >= at_least_seconds

    assert get(proxy) == ANSWER


@pytest.mark.parametrize(
    ("kind", "attributes", "error"),
    [
        ("timeout", {"timeout": 0}, httpx.ReadTimeout),
        ("timeout", {"timeout": 100}, httpx.RemoteProtocolError),
        ("reset_peer", {"timeout": 0}, httpx.ReadError),
        ("reset_peer", {"timeout": 100}, httpx.ReadError),
        ("limit_data", {"bytes": 10}, httpx.RemoteProtocolError),
        ("latency", {"latency": 60_000}, httpx.ReadTimeout),
    ],
)
def test_a_broken_network_is_an_error_until_it_is_mended(
    proxy: Proxy, kind: str, attributes: dict[str, int], error: type[Exception]
) -> None:
    with proxy.toxic(kind, **attributes), pytest.raises(error):
        get(proxy, timeout_seconds=1)

    assert get(proxy) == ANSWER


def test_an_answer_is_cut_at_the_byte_told(proxy: Proxy) -> None:
    with (
        proxy.toxic("limit_data", bytes=1_000),
        connect(proxy) as connection,
        connection.makefile("rb") as received,
    ):
        connection.sendall(REQUEST)
        assert len(received.read()) == 1_000


def test_down_refuses_connections_and_closes_those_there_are(proxy: Proxy) -> None:
    with connect(proxy) as connection, connection.makefile("rb") as received:
        connection.sendall(REQUEST)
        while received.readline() != b"\r\n":
            pass
        assert received.read(len(ANSWER)) == ANSWER
        with proxy.down():
            assert received.read(1) == b""
            with pytest.raises(httpx.ConnectError):
                get(proxy)

    assert get(proxy) == ANSWER


def test_toxics_add_up_and_go_one_by_one(proxy: Proxy) -> None:
    with proxy.toxic("latency", latency=200):
        with proxy.toxic("slow_close", delay=200):
            assert seconds_of_answer(proxy) >= 0.4
            with proxy.down(), pytest.raises(httpx.ConnectError):
                get(proxy)
        with proxy.toxic("timeout", timeout=0), pytest.raises(httpx.ReadTimeout):
            get(proxy, timeout_seconds=1)
        assert seconds_of_answer(proxy) >= 0.2


@pytest.mark.parametrize(
    ("toxic", "said"),
    [
        (lambda proxy: proxy.toxic("gremlin"), "invalid toxic type"),
        (lambda proxy: proxy.toxic("latency", delay=5), "latency has no attribute delay"),
    ],
)
def test_a_toxic_it_does_not_know_is_refused_and_does_nothing(
    proxy: Proxy, toxic: Callable[[Proxy], AbstractContextManager[None]], said: str
) -> None:
    with pytest.raises(ServerError, match=said), toxic(proxy):
        pass

    assert get(proxy) == ANSWER


def test_an_upstream_of_tls_is_itself_what_the_client_verifies(
    toxiproxy: Toxiproxy, tmp_path: Path
) -> None:
    authority = Authority("test authority")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue(tmp_path, "server"))
    verified = ssl.create_default_context(cafile=authority.write(tmp_path / "ca.crt"))
    with serve(context) as upstream:
        proxy = toxiproxy.proxy("tls", f"https://{upstream}/path")
        assert proxy.url == f"https://{proxy.address}/path"
        with httpx.Client(verify=verified, trust_env=False) as client:
            assert client.get(proxy.url).content == ANSWER
            with (
                proxy.toxic("limit_data", bytes=3_000),
                pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)),
            ):
                client.get(proxy.url)
            assert client.get(proxy.url).content == ANSWER


def test_it_never_hangs_when_clients_leave_in_the_middle_of_answers(proxy: Proxy) -> None:
    """As reports do at their deadline, while the next fault comes."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            try:
                with connect(proxy) as connection:
                    connection.sendall(REQUEST)
                    connection.recv(10)
            except OSError:
                over.wait(0.001)

    clients = [threading.Thread(target=come_and_go) for _ in range(10)]
    for client in clients:
        client.start()
    try:
        for _ in range(10):
            for kind, attributes in (
                ("latency", {"latency": 10, "jitter": 10}),
                ("bandwidth", {"rate": 1_000}),
                ("slicer", {"average_size": 100, "size_variation": 10, "delay": 10}),
                ("limit_data", {"bytes": 20_000}),
            ):
                with proxy.toxic(kind, **attributes):
                    over.wait(0.02)
    finally:
        over.set()
        for client in clients:
            client.join()

    assert get(proxy) == ANSWER
