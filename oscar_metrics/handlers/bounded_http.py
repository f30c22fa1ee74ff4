"""HTTP with an end to request heads: httptools gathers one for as long as it goes on."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Request line and headers together; a proxy's default is 8 to 32 KiB.
MAX_HEAD_BYTES = 64 * 1024


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which answers 400 and closes when a head is too large."""

    _in_head = True
    _head_bytes = 0

    def on_message_begin(self) -> None:
        """Count the next head anew."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """What follows is no head."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Let the parser have it, and see whether the head is still not over."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self.send_400_response(f"Request head of more than {MAX_HEAD_BYTES} bytes.")
