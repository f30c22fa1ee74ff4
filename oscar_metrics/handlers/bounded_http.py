"""HTTP with an end to everything a peer sends, or does not read: uvicorn waits for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Request line and headers together; a proxy's default is 8 to 32 KiB.
MAX_HEAD_BYTES = 64 * 1024
# Browsers send a dozen and proxies add some. Those that may follow a body count, too.
MAX_HEADERS = 128
# Reports are asked for without a body; what a client sends nevertheless is not read.
MAX_BODY_BYTES = 64 * 1024
# What a peer must have read of an answer between two looks; 9 KiB a second, as it stands. The
# system holds some MB for it and reports what was read in large steps.
LEAST_READ_BYTES = 512 * 1024


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which answers 400 and closes when a head is too large.

    It closes when a body goes on after the answer, when a peer that waits for no answer has not
    finished a head within `head_seconds`, and when one has not read `LEAST_READ_BYTES` of an
    answer within `read_seconds`.
    """

    head_seconds = 20.0
    read_seconds = 60.0

    _in_head = True
    _head_bytes = 0
    # Of it, what was read whole: much of that may come at once.
    _parsed_bytes = 0
    _body_bytes = 0
    _headers_seen = 0
    _patience: asyncio.TimerHandle | None = None
    _unread_bytes = 0
    _reading_patience: asyncio.TimerHandle | None = None
    # The request being answered; `cycle` is the last one that came.
    _answering: RequestResponseCycle | None = None

    def connection_made(  # type: ignore[override] # as in uvicorn, which has only such transports
        self, transport: asyncio.Transport
    ) -> None:
        """Wait for the first head, and not for ever."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer, and tell whoever makes an answer, which uvicorn tells the last only."""
        self._stop_waiting()
        self._stop_watching_reader()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read as fast as we write: see that it reads at all."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        self._stop_watching_reader()

    def timeout_keep_alive_handler(self) -> None:
        """Close, once the peer has read what was answered, and not later than it must."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size() and self._reading_patience is None:
            self._watch_reader()

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

    def drop_if_answered(self) -> None:
        """Close at once where all that is left is for the peer to read its answer."""
        if self._answering is None or self._answering.response_complete:
            self.transport.abort()

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

    def _watch_reader(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._reading_patience = self.loop.call_later(self.read_seconds, self._look_at_reader)

    def _look_at_reader(self) -> None:
        left_bytes = self.transport.get_write_buffer_size()
        if self._unread_bytes - left_bytes < LEAST_READ_BYTES:
            _log.info("client does not read its answer", unread_bytes=left_bytes)
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching_reader(self) -> None:
        if self._reading_patience is not None:
            self._reading_patience.cancel()
            self._reading_patience = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)
