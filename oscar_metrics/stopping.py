"""The web server, and how it stops: it lets reports finish for a while, then ends them."""

from __future__ import annotations

import asyncio
import os
import signal
from socket import socket
from types import FrameType

import structlog
import uvicorn

from oscar_metrics.handlers.bounded_http import BoundedHttp

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# What is told to end at the end of the grace period ends within so long, or is left behind.
_UNWIND_SECONDS = 0.5
# After the grace period the system ends the process, whatever its threads are busy with.
_LAST_SECONDS = 0.95


class Server(uvicorn.Server):
    """uvicorn's server, which sets `stop` for reports to end when its grace period is over.

    A second SIGTERM or SIGINT ends the process at once, and so does the system (SIGALRM) where
    it has not ended a second after the grace period; the ledger's file bears that.
    """

    def __init__(self, config: uvicorn.Config, *, grace_seconds: int, stop: asyncio.Event) -> None:
        super().__init__(config)
        # A float is as good: it is what asyncio.wait_for is given.
        config.timeout_graceful_shutdown = grace_seconds + _UNWIND_SECONDS  # type: ignore[assignment]
        self._grace_seconds = grace_seconds
        self._stop = stop
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Begin to answer."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at the first signal, and at the second without waiting for anything."""
        if self.should_exit and self._loop is not None:
            # Not from here: it may have interrupted somebody who is writing to the log.
            self._loop.call_soon_threadsafe(_end_at_once, sig)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Take no more requests, let those under way finish, end the rest."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        _log.info(
            "stopping",
            requests_under_way=len(self.server_state.tasks),
            grace_seconds=self._grace_seconds,
        )
        signal.setitimer(signal.ITIMER_REAL, self._grace_seconds + _LAST_SECONDS)
        grace_is_over = loop.call_later(self._grace_seconds, self._end_the_rest)
        await super().shutdown(sockets)
        grace_is_over.cancel()
        _log.info("stopped", seconds=round(loop.time() - began, 3))
        # The line is written by the next turn, and uvicorn ends the process before there is one.
        await asyncio.sleep(0)

    def _end_the_rest(self) -> None:
        _log.warning("ending what has not finished", requests=len(self.server_state.tasks))
        self._stop.set()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedHttp):
                connection.drop_if_begun()


def _end_at_once(sig: int) -> None:
    _log.warning("ended at once", signal=signal.Signals(sig).name)
    signal.signal(sig, signal.SIG_DFL)
    os.kill(os.getpid(), sig)
