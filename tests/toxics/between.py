"""A server of a few lines before a real one: it passes requests on, or answers something odd."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import msgspec

_PASSED_ON = ("authorization", "cache-control", "x-scope-orgid", "accept")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request on its way."""

    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        """Without the query."""
        return urlsplit(self.target).path

    @property
    def parameters(self) -> dict[str, str]:
        """The query; the last of a name."""
        return dict(parse_qsl(urlsplit(self.target).query))


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: it ends with the connection, so that what is announced need not be so."""

    status: str = "200 OK"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    body: Iterable[bytes] = ()
    # Announce the length of the body, where it is one piece.
    sized: bool = True

    @classmethod
    def of(cls, body: bytes, status: str = "200 OK", **headers: str) -> Reply:
        """A whole body, with some headers: `retry_after` for `Retry-After`."""
        named = {"Content-Type": "application/json"} | {
            name.replace("_", "-").title(): value for name, value in headers.items()
        }
        return cls(status=status, headers=tuple(named.items()), body=(body,))


# What becomes of a request, given how to ask the real server; None passes its answer on.
Odd = Callable[[Request, Callable[[], httpx.Response]], Reply | None]


def passed_on(_: Request, __: Callable[[], httpx.Response]) -> None:
    """Nothing odd."""


class Between(ThreadingHTTPServer):
    """Before one real server, over TLS; `odd` and `tls` may be set at any time.

    `heads` are those of the requests so far, `odd_answers` how many were not passed on, and
    `sent_bytes` what was taken off our hands of their bodies. `tls` is None for plain HTTP.
    """

    daemon_threads = True

    def __init__(self, real_url: str, real_tls: ssl.SSLContext | None, tls: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.odd: Odd = passed_on
        self.tls: ssl.SSLContext | None = tls
        self.heads: list[str] = []
        self.odd_answers = 0
        self.sent_bytes = 0
        self.lock = threading.Lock()
        self.real = httpx.Client(
            base_url=real_url, verify=real_tls or True, trust_env=False, timeout=30
        )

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"https://127.0.0.1:{self.server_port}"

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, real_url: str, tls: ssl.SSLContext, *, real_tls: ssl.SSLContext | None = None
    ) -> Iterator[Between]:
        """Answer on a free port of loopback until the block ends."""
        between = cls(real_url, real_tls, tls)
        thread = threading.Thread(target=between.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield between
        finally:
            between.shutdown()
            thread.join()
            between.server_close()
            between.real.close()

    @contextlib.contextmanager
    def answering(self, odd: Odd) -> Iterator[None]:
        """Be odd until the block ends."""
        self.heads.clear()
        self.odd_answers = self.sent_bytes = 0
        self.odd = odd
        try:
            yield
        finally:
            self.odd = passed_on

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up, or do not believe a certificate."""


class _Handler(BaseHTTPRequestHandler):
    server: Between
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.request.settimeout(20)
        if self.server.tls is not None:
            # In the thread of its own: nobody waits for another's handshake.
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()

    def finish(self) -> None:
        # The server closes the socket that was accepted, and not what was made of it.
        with contextlib.suppress(OSError), self.request:
            super().finish()

    def do_GET(self) -> None:
        self.close_connection = True
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(target=self.path, headers=headers)
        with self.server.lock:
            self.server.heads.append(f"{self.requestline}\n{self.headers}")

        def ask() -> httpx.Response:
            passed = {name: headers[name] for name in _PASSED_ON if name in headers}
            passed["accept-encoding"] = "identity"
            return self.server.real.get(self.path, headers=passed)

        reply = self.server.odd(request, ask)
        if reply is None:
            real = ask()
            kind = real.headers.get("content-type", "text/plain")
            status = f"{real.status_code} {real.reason_phrase}"
            self._send(Reply.of(real.content, status, content_type=kind), odd=False)
        else:
            self._send(reply, odd=True)

    def _send(self, reply: Reply, *, odd: bool) -> None:
        body: Iterable[bytes] = reply.body
        lines = [f"HTTP/1.1 {reply.status}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in reply.headers]
        if isinstance(body, tuple) and reply.sized:
            lines.append(f"Content-Length: {sum(map(len, body))}")
        with self.server.lock:
            self.server.odd_answers += odd
        self.wfile.write("\r\n".join((*lines, "", "")).encode("latin-1"))
        for piece in body:
            self.wfile.write(piece)
            with self.server.lock:
                self.server.sent_bytes += odd * len(piece)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        """Say nothing on standard error."""
