"""What stands in for MaxMind's update server, which nobody else can run."""

from __future__ import annotations

import base64
import gzip
import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.servers.certificates import Authority

_ACCOUNT = ("424242", "a licence key")
_EDITION = "GeoLite2-Country"


class Failure(StrEnum):
    """How an update can fail."""

    UNAUTHORISED = "401"
    BROKEN = "500"
    PAGE = "a page"
    CUT = "half of it"
    OTHER = "another file than was promised"
    HANGS = "nothing"


class MaxMind(ThreadingHTTPServer):
    """Serves one edition to one account over TLS, in the form that geoipupdate 6 asks for.

    `failing` says how it fails, if it does.
    """

    def __init__(self, directory: Path) -> None:
        self.database = b""
        self.failing: Failure | None = None
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Update)
        authority = Authority("test updates")
        certificate, key = authority.issue(directory, "updates")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.authority = authority.write(directory / "updates-ca.crt")

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[MaxMind]:
        """Start one with its certificate under `directory`, and stop it at the end."""
        with cls(directory) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                yield server
            finally:
                server.ended.set()
                server.shutdown()

    @property
    def environment(self) -> dict[str, str]:
        """What makes geoipupdate ask here, and as whom."""
        return {
            "GEOIPUPDATE_HOST": f"127.0.0.1:{self.server_port}",
            "GEOIPUPDATE_ACCOUNT_ID": _ACCOUNT[0],
            "GEOIPUPDATE_LICENSE_KEY": _ACCOUNT[1],
            "SSL_CERT_FILE": str(self.authority),
        }


class _Update(BaseHTTPRequestHandler):
    server: MaxMind

    def do_GET(self) -> None:
        path, _, had = self.path.partition("?db_md5=")
        user = base64.b64encode(":".join(_ACCOUNT).encode()).decode()
        failing = self.server.failing
        digest = hashlib.md5(self.server.database, usedforsecurity=False).hexdigest()
        if failing is Failure.HANGS:
            self.server.ended.wait()
        elif failing is Failure.UNAUTHORISED or self.headers["Authorization"] != f"Basic {user}":
            self._answer(401, b"no such account")
        elif failing is Failure.BROKEN or path != f"/geoip/databases/{_EDITION}/update":
            self._answer(500, b"out of order")
        elif failing is Failure.PAGE:
            self._answer(200, b"<html>Please log in</html>")
        elif had == digest:
            self._answer(304, b"")
        else:
            self._send(digest)

    def _send(self, digest: str) -> None:
        failing = self.server.failing
        database = b"something else" if failing is Failure.OTHER else self.server.database
        body = gzip.compress(database)
        headers = {
            "X-Database-MD5": digest,
            "Last-Modified": self.date_time_string(),
            "Content-Length": str(len(body)),
        }
        self._answer(200, body[: len(body) // 2] if failing is Failure.CUT else body, headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
