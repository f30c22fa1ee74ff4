"""A real Toxiproxy: proxies before servers, which make the network between as bad as told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.servers.build import program
from tests.servers.process import Process, ServerError, free_port

_HOST = "127.0.0.1"


class Toxiproxy:
    """A running Toxiproxy, without proxies at first.

    It never frees what a client left unread when it went: some 100 kB, under latency all the rest
    of the answer (32 MB at most). A long run with many such clients starts a new one now and then.
    """

    def __init__(self, directory: Path) -> None:
        port = free_port()
        self._client = httpx.Client(base_url=f"http://{_HOST}:{port}", timeout=30, trust_env=False)
        self._process = Process(
            "toxiproxy",
            [program("toxiproxy"), f"-host={_HOST}", f"-port={port}"],
            directory / "toxiproxy.log",
            environment={"LOG_LEVEL": "error"},
        )
        self._proxies: list[Proxy] = []

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[Toxiproxy]:
        """Start Toxiproxy with its log in `directory` and stop it, and all proxies, at the end.

        Raises ServerError with the end of the log if it does not come up.
        """
        toxiproxy = cls(directory)
        try:
            toxiproxy.restart()
            yield toxiproxy
        finally:
            toxiproxy._process.stop()
            toxiproxy._client.close()

    def restart(self) -> None:
        """Start Toxiproxy anew, with all proxies and toxics as they were; none may be changing."""
        self._process.stop()
        self._process.start(self._ready, timeout_seconds=30)
        for proxy in self._proxies:
            proxy.make()

    def proxy(self, name: str, upstream: str) -> Proxy:
        """Put a proxy, which does no harm yet, before `upstream`: host:port, or a URL.

        It passes bytes on, so TLS is between its client and the upstream. Raises ServerError if
        the name is taken.
        """
        proxy = Proxy(self._client, name, upstream)
        proxy.make()
        self._proxies.append(proxy)
        return proxy

    def _ready(self) -> bool:
        return self._client.get("/version").status_code == httpx.codes.OK


class Proxy:
    """The way to one upstream, by `address` (host:port) or by `url`.

    `url` is http, or has the scheme and path of the upstream's URL.

    Whenever a toxic comes or goes, the connections of that moment are closed, and for some
    milliseconds none is taken. Toxiproxy could change those that are open, but hangs for good when
    a client leaves one meanwhile: https://github.com/Shopify/toxiproxy/issues/558
    """

    def __init__(self, client: httpx.Client, name: str, upstream: str) -> None:
        parts = urlsplit(upstream if "://" in upstream else f"http://{upstream}")
        self.name = name
        self.address = f"{_HOST}:{free_port()}"
        self.url = parts._replace(netloc=self.address).geturl()
        self._client = client
        self._upstream = parts.netloc
        self._toxics: list[tuple[str, Mapping[str, int]]] = []
        self._down = False

    @contextmanager
    def toxic(self, kind: str, **attributes: int) -> Iterator[None]:
        """Do this to all that the upstream sends, beside the toxics that are in force already.

        | kind | attributes | what its client sees |
        |---|---|---|
        | latency | latency, jitter (ms) | bytes late by latency ± jitter |
        | bandwidth | rate (kB/s) | bytes no faster than that |
        | slow_close | delay (ms) | the end of the connection late |
        | timeout | timeout (ms) | nothing, and with it the end; with 0 nothing for ever |
        | reset_peer | timeout (ms) | a reset instead of the first byte, that much later |
        | slicer | average_size, size_variation (bytes), delay (µs) | bytes in little pieces |
        | limit_data | bytes | the end of the connection after so many bytes |

        Raises ServerError if Toxiproxy knows no such kind or attribute.
        """
        toxic = (kind, attributes)
        self._toxics.append(toxic)
        try:
            self._remake()
            yield
        finally:
            self._toxics.remove(toxic)
            self._remake()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Refuse connections, and close those that there are."""
        self._down = True
        try:
            self._remake()
            yield
        finally:
            self._down = False
            self._remake()

    def _remake(self) -> None:
        self._call("DELETE", f"/proxies/{self.name}")
        self.make()

    def make(self) -> None:
        """Have Toxiproxy know it, and the toxics in force."""
        path = f"/proxies/{self.name}"
        proxy = {"name": self.name, "listen": self.address, "upstream": self._upstream}
        self._call("POST", "/proxies", {**proxy, "enabled": False})
        for n, (kind, attributes) in enumerate(self._toxics):
            toxic = {"name": f"toxic-{n}", "type": kind, "attributes": attributes}
            taken = self._call("POST", f"{path}/toxics", toxic)["attributes"]
            if unknown := attributes.keys() - taken.keys():  # it passes over them in silence
                raise ServerError(f"toxiproxy's {kind} has no attribute {', '.join(unknown)}")
        if not self._down:
            self._call("POST", path, {"enabled": True})

    def _call(self, method: str, path: str, content: Mapping[str, object] | None = None) -> Any:
        answer = self._client.request(method, path, json=content)
        if not answer.is_success:
            raise ServerError(f"toxiproxy refused: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None
