"""An issuer made by hand, for what no real one can be made to say, and to count its calls."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.auth.making import CLAIMS, key, public, token

DISCOVERY = "/realms/plain/.well-known/openid-configuration"
KEYS = "/keys"
USERINFO = "/userinfo"


class MadeIssuer:
    """Answers what `answers` has for a path; `held` ones only once the event is set."""

    def __init__(self, server: asyncio.Server, scheme: str) -> None:
        port = server.sockets[0].getsockname()[1]
        self.host = f"{scheme}://127.0.0.1:{port}"
        self.url = f"{self.host}/realms/plain"
        self.calls: Counter[str] = Counter()
        self.called = asyncio.Event()
        # The last requests, as they came.
        self.requests: deque[str] = deque(maxlen=10)
        self.held: dict[str, asyncio.Event] = {}
        self.answers: dict[str, bytes] = {}
        self.document = {
            "issuer": self.url,
            "jwks_uri": self.host + KEYS,
            "userinfo_endpoint": self.host + USERINFO,
            "authorization_endpoint": self.host + "/authorize",
            "token_endpoint": self.host + "/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        self.says(DISCOVERY, self.document)
        self.has_keys(key())
        self.says(USERINFO, {"sub": CLAIMS["sub"], "group_membership": ["users"]})

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, tls: ssl.SSLContext | None = None) -> AsyncIterator[MadeIssuer]:
        """Answer on a free port; what is held is dropped at the end."""
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                await issuer._answer(reader, writer)
            finally:
                connections.discard(task)
                writer.close()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        issuer = cls(server, "https" if tls else "http")
        try:
            yield issuer
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    def says(
        self,
        path: str,
        body: Any,
        *,
        status: str = "200 OK",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answer this from now on; a `body` that is not bytes is sent as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        self.answers[path] = "\r\n".join(lines).encode() + b"\r\n\r\n" + content

    def has_keys(self, *keys: Any) -> None:
        """Publish these keys from now on."""
        self.says(KEYS, {"keys": public(*keys, use="sig")})

    def hold(self, path: str) -> asyncio.Event:
        """Answer nothing on this path until the event is set; `called` is set when it is asked."""
        self.held[path] = asyncio.Event()
        return self.held[path]

    def token(self, *, algorithm: str = "RS256", signer: Any = None, **claims: Any) -> str:
        """A token of ours."""
        return token({**CLAIMS, "iss": self.url, **claims}, algorithm=algorithm, signer=signer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(request)
            path = request.split(" ")[1]
            self.calls[path] += 1
            if (event := self.held.get(path)) is not None:
                self.called.set()
                await event.wait()
            missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(self.answers.get(path, missing))
            await writer.drain()
