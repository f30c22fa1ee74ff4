"""HTTP with an end to everything a peer sends, or does not read: uvicorn waits for ever."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any, NoReturn, cast

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.handlers.places import Place, Places
from oscar_metrics.handlers.refusals import NO_PLACE, NO_REQUEST, Refusal, head_too_large
from oscar_metrics.telemetry import Telemetry

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Browsers send a dozen and proxies add some. Those that may follow a body count, too.
MAX_HEADERS = 128
# Reports are asked for without a body; what a client sends nevertheless is not read.
MAX_BODY_BYTES = 64 * 1024
# What the system holds of an answer besides what is on its way; of itself it would hold MBs for
# each who reads slowly, and say in as large steps what was read.
_UNSENT_BYTES = 128 * 1024
# What we hold of an answer in pieces before we wait: some pieces, so that the next ones are made
# while those are on their way.
_WRITTEN_BYTES = 256 * 1024

# Whoever looks after the process asks these, and just when it has too much to do.
_ALWAYS_ANSWERED = frozenset({b"/healthz", b"/readyz", b"/metrics"})
# Who has no place is not waited for as long as others.
_SPARE_HEAD_SECONDS = 5.0


def bounded_http(settings: ConnectionSettings, telemetry: Telemetry) -> type[HttpToolsProtocol]:
    """What uvicorn calls for each connection of one server."""
    places = Places(settings.most, telemetry)
    made = functools.partial(BoundedHttp, settings=settings, places=places)
    return cast("type[HttpToolsProtocol]", made)  # it is called, and nothing else


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which refuses what is too much, in our words, and closes.

    It closes when a body goes on after the answer, when a peer that waits for no answer has not
    finished a head within `head_seconds`, and when one has kept us waiting for `read_seconds`
    without reading `read_bytes` of an answer.
    """

    _in_head = True
    _head_bytes = 0
    # Of it, what was read whole: much of that may come at once.
    _parsed_bytes = 0
    _body_bytes = 0
    _headers_seen = 0
    _patience: asyncio.TimerHandle | None = None
    _has_place = True
    # What is wrong with the request, where we know better than the parser.
    _refusal = NO_REQUEST
    # Since when the peer has not read on, and how much was left to be read then.
    _paused_at = 0.0
    _unread_bytes = 0
    # What came of that before, since the peer had read enough.
    _waited_seconds = 0.0
    _read_bytes = 0
    _reading_patience: asyncio.TimerHandle | None = None
    # The request being answered; `cycle` is the last one that came.
    _answering: RequestResponseCycle | None = None

    def __init__(
        self, *args: Any, settings: ConnectionSettings, places: Places, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._settings = settings
        self._places = places
        self.timeout_keep_alive = settings.idle_seconds

    def connection_made(  # type: ignore[override] # as in uvicorn, which has only such transports
        self, transport: asyncio.Transport
    ) -> None:
        """Wait for the first head, and not for ever; without a place, not at all."""
        super().connection_made(transport)
        accepted: socket.socket = transport.get_extra_info("socket")
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        transport.set_write_buffer_limits(high=_WRITTEN_BYTES)
        place = self._places.take(self, self.loop.time())
        self._has_place = place is Place.TAKEN
        if place is Place.NONE:
            self._end_with(NO_PLACE)
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer, and tell whoever makes an answer, which uvicorn tells the last only."""
        self._places.leave(self)
        self._stop_waiting()
        self._stop_watching_reader()
        if cycle := self._unanswered():
            _tell_gone(cycle)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read as fast as we write: see that it reads at all."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has read on."""
        super().resume_writing()
        self._stop_watching_reader()

    def on_response_complete(self) -> None:
        """Go on with what came meanwhile, or with nothing."""
        super().on_response_complete()
        if self._unanswered() is None:
            self._places.is_idle(self, self.loop.time())

    def timeout_keep_alive_handler(self) -> None:
        """Close, once the peer has read what was answered, and not later than it must."""
        super().timeout_keep_alive_handler()
        if self.transport.get_write_buffer_size() and self._reading_patience is None:
            self._watch_reader()

    def end_if_idle(self) -> bool:
        """Close, unless the peer has not read all of its last answer yet; whether it did."""
        if self.transport.get_write_buffer_size():
            return False
        self.transport.close()
        return True

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
            self._refuse(head_too_large(f"at most {MAX_HEADERS} headers are read"))
        self._count_parsed(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """What follows is no head; without a place, few requests are let through."""
        self._in_head = False
        self._stop_waiting()
        if not self._has_place and self.url.partition(b"?")[0] not in _ALWAYS_ANSWERED:
            self._refuse(NO_PLACE)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a body; reading pauses by itself until there is an answer."""
        self._body_bytes += len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        """Let the parser have it, and see whether it is too much, or too slow."""
        self._places.is_busy(self)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._settings.head_bytes:
                self._end_with(self._too_long())
                return
        is_answered = self.cycle is None or self.cycle.response_complete
        if is_answered and self._body_bytes > MAX_BODY_BYTES:
            self.transport.close()
        elif is_answered and self._patience is None:
            # Any data ends uvicorn's own patience with an idle connection.
            self._wait_for_head()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read as a request, or was refused while it was."""
        del msg
        self._end_with(self._refusal)

    def drop_if_begun(self) -> None:
        """Close at once where nothing else can be answered: an answer has begun, or none is due."""
        if self._answering is None or self._answering.response_started:
            self.transport.abort()

    def _unanswered(self) -> RequestResponseCycle | None:
        """The request being answered, while it is."""
        return (
            None
            if self._answering is None or self._answering.response_complete
            else self._answering
        )

    def _count_parsed(self, *parts: bytes) -> None:
        self._parsed_bytes += sum(map(len, parts))
        if self._parsed_bytes > self._settings.head_bytes:
            self._refuse(self._too_long())

    def _refuse(self, refusal: Refusal) -> NoReturn:
        """End the parsing, after which uvicorn has the refusal sent."""
        self._refusal = refusal
        raise refusal

    def _too_long(self) -> Refusal:
        return head_too_large(f"at most {self._settings.head_bytes} bytes are read")

    def _end_with(self, refusal: Refusal) -> None:
        """Say why, unless that would be taken for the answer to another request, and close."""
        cycle = self._unanswered()
        if cycle is not None and cycle.more_body and not cycle.response_started:
            _tell_gone(cycle)  # it is about this one's own body
            cycle = None
        if cycle is None:
            self.transport.write(refusal.as_sent(self.server_state.default_headers))
        if refusal is NO_PLACE:
            self._places.refuse()
        self.transport.close()

    def _wait_for_head(self) -> None:
        seconds = self._settings.head_seconds
        if not self._has_place:
            seconds = min(seconds, _SPARE_HEAD_SECONDS)
        self._patience = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _watch_reader(self) -> None:
        """Wait for as long as the peer may still keep us waiting for what it has to read."""
        self._paused_at = self.loop.time()
        self._unread_bytes = self.transport.get_write_buffer_size()
        left_seconds = self._settings.read_seconds - self._waited_seconds
        self._reading_patience = self.loop.call_later(left_seconds, self._look_at_reader)

    def _look_at_reader(self) -> None:
        self._note_read()
        if self._waited_seconds:
            left_bytes = self.transport.get_write_buffer_size()
            _log.info("client does not read its answer", unread_bytes=left_bytes)
            self.transport.abort()
        else:
            self._watch_reader()

    def _stop_watching_reader(self) -> None:
        if self._reading_patience is not None:
            self._reading_patience.cancel()
            self._reading_patience = None
            self._note_read()

    def _note_read(self) -> None:
        """Add up what was read while we waited; enough of it makes up for the waiting."""
        self._read_bytes += self._unread_bytes - self.transport.get_write_buffer_size()
        self._waited_seconds += self.loop.time() - self._paused_at
        if self._read_bytes >= self._settings.read_bytes:
            self._read_bytes, self._waited_seconds = 0, 0.0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        # Without a place, one question is answered.
        cycle.keep_alive = cycle.keep_alive and self._has_place
        super()._start_asgi_task(cycle, app)


def _tell_gone(cycle: RequestResponseCycle) -> None:
    """Whoever makes the answer is to end; nothing more of it is sent."""
    cycle.disconnected = True
    cycle.message_event.set()
