"""Ends work on a report that nobody waits for any more, or that the stopping server must end."""

from __future__ import annotations

import asyncio

from litestar.types import (
    ASGIApp,
    HTTPDisconnectEvent,
    HTTPReceiveMessage,
    HTTPRequestEvent,
    Message,
    Receive,
    Scope,
    Send,
)

from oscar_metrics.errors import ClientGone, NotNow
from oscar_metrics.handlers.bounded_http import MAX_BODY_BYTES
from oscar_metrics.tasks import task_group

# Another server, or this one after its start, takes it.
_RETRY_AFTER_SECONDS = 1
# What handlers read: a body means nothing here.
_NO_BODY: HTTPRequestEvent = {"type": "http.request", "body": b"", "more_body": False}
_GONE: HTTPDisconnectEvent = {"type": "http.disconnect"}


class EndedEarly:
    """A report route's middleware, which cancels the handler, guards included.

    Raises ClientGone where the connection closes before an answer has begun, NotNow where
    `stop` is set before. What is cancelled waits until its upstream calls have ended, too. An
    answer that has begun is told of a connection that closes, and ends itself.
    """

    def __init__(self, app: ASGIApp, *, stop: asyncio.Event) -> None:
        self._app = app
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and see whether its answer is still wanted."""
        watch = _Watch(receive, send, self._stop)
        async with task_group() as group:
            watching = [group.create_task(watch.stopped())]
            if not _waits_to_send_a_body(scope):
                watching.append(group.create_task(watch.gone()))
            await self._app(scope, watch.receive, watch.send)
            for task in watching:
                task.cancel()


class _Watch:
    """One request, and what is known of whoever waits for its answer."""

    def __init__(self, receive: Receive, send: Send, stop: asyncio.Event) -> None:
        self._receive = receive
        self._send = send
        self._stop = stop
        self._begun = False
        self._left = asyncio.Event()

    async def send(self, message: Message) -> None:
        """Send, and know that there is no other answer any more."""
        self._begun = True
        await self._send(message)

    async def receive(self) -> HTTPReceiveMessage:
        """No body, until the answer has begun; then wait for the client to go."""
        if not self._begun:
            return _NO_BODY
        await self._left.wait()
        return _GONE

    async def gone(self) -> None:
        """Wait until the client goes."""
        if await _disconnected(self._receive):
            if not self._begun:
                raise ClientGone
            self._left.set()

    async def stopped(self) -> None:
        """Wait until the server is to end what it does."""
        await self._stop.wait()
        if not self._begun:
            raise NotNow(
                "the server is stopping",
                detail="the report had not finished; ask again",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )


async def _disconnected(receive: Receive) -> bool:
    """Wait for the end of the connection; False where so large a body comes that it is not read."""
    body_bytes = 0
    while body_bytes <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return True
        body_bytes += len(message["body"])
    return False


def _waits_to_send_a_body(scope: Scope) -> bool:
    """Whether to listen would ask the client to send on (`Expect: 100-continue`)."""
    return any(name == b"expect" for name, _ in scope["headers"])
