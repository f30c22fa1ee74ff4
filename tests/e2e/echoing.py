"""An upstream that repeats what it was sent, in each of the ways an answer can go wrong."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

_FIRST = ("Authorization", "X-Scope-OrgID", "THANOS-TENANT")
# What an answer is: a status and a page, or what else can become of a request.
WAYS = ("200", "302", "400", "401", "403", "404", "429", "500", "503", "json", "half", "nothing")


class Echo(ThreadingHTTPServer):
    """Answers in the way that `way` says; `seen` holds the heads of the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.way = "200"
        self.seen: list[str] = []

    @property
    def port(self) -> int:
        return self.server_port

    @classmethod
    @contextlib.contextmanager
    def start(cls) -> Iterator[Echo]:
        """Answer on a free port of loopback until the block ends."""
        echo = cls()
        thread = Thread(target=echo.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield echo
        finally:
            echo.shutdown()
            thread.join()
            echo.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server: Echo

    def do_GET(self) -> None:
        # What is cut off must not be all that matters.
        first = [f"{name}: {self.headers[name]}" for name in _FIRST if name in self.headers]
        sent = "\n".join((*first, self.requestline, str(self.headers)))
        self.server.seen.append(sent)
        way = self.server.way
        if way == "nothing":
            self.close_connection = True
            return
        body = sent.encode()
        if way == "json":
            said = {name.lower(): value for name, value in self.headers.items()}
            keys = ("status", "version", "error", "message", "kind", "errorType", "warnings")
            text = " ".join(said.values())
            body = json.dumps(
                dict.fromkeys(keys, text) | {"data": text, "limits": {}, "items": text} | said
            ).encode()
        self.send_response(int(way) if way.isdecimal() else 200, said_of(sent))
        self.send_header("Content-Length", str(2 * len(body) if way == "half" else len(body)))
        self.send_header("Retry-After", "0")
        self.send_header("Location", f"http://127.0.0.1:1/{said_of(sent)}")
        self.send_header("X-Sent", said_of(sent))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = way == "half"

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing on standard error."""


def said_of(sent: str) -> str:
    """A request's head on one line."""
    return " ".join(sent.split())
