"""HTTP with an end to everything a peer sends: httptools reads for as long as it goes on."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Request line and headers together; a proxy's default is 8 to 32 KiB.
MAX_HEAD_BYTES = 64 * 1024
# Browsers send a dozen and proxies add some. Those that may follow a body count, too.
MAX_HEADERS = 128
# Reports are asked for without a body; what a client sends nevertheless is not read.
MAX_BODY_BYTES = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which answers 400 and closes when a head is too large.

    It closes when a body goes on after the answer, and when a peer that waits for no answer
    has not finished a head within `head_seconds`.
    """

    head_seconds = 20.0

    _in_head = True
    _head_bytes = 0
    # Of it, what was read whole: much of that may come at once.
    _parsed_bytes = 0
    _body_bytes = 0
    _headers_seen = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(  # type: ignore[override] # as in uvicorn, which has only such transports
        self, transport: asyncio.Transport
    ) -> None:
        """Wait for the first head, and not for ever."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Count the next request anew."""
        self._in_head, self._head_bytes, self._body_bytes, self._headers_seen = True, 0, 0, 0
        self._parsed_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Keep the target, or a part of it."""
        self._count_parsed(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what is raised here the parser turns into a request it cannot read."""
        self._headers_seen += 1
        if self._headers_seen > MAX_HEADERS:
            raise ValueError(f"more than {MAX_HEADERS} headers")
        self._count_parsed(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """What follows is no head."""
        self._in_head = False
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a body; reading pauses by itself until there is an answer."""
        self._body_bytes += len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Let the parser have it, and see whether it is too much, or too slow."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.send_400_response(f"Request head of more than {MAX_HEAD_BYTES} bytes.")
        is_answered = self.cycle is None or self.cycle.response_complete
        if is_answered and self._body_bytes > MAX_BODY_BYTES:
            self.transport.close()
        elif is_answered and self._patience is None:
            # Any data ends uvicorn's own patience with an idle connection.
            self._wait_for_head()

    def _count_parsed(self, *parts: bytes) -> None:
        self._parsed_bytes += sum(map(len, parts))
        if self._parsed_bytes > MAX_HEAD_BYTES:
            raise ValueError(f"a head of more than {MAX_HEAD_BYTES} bytes")

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(self.head_seconds, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
