"""Ends work on a report that nobody waits for any more, or that the stopping server must end."""

from __future__ import annotations

import asyncio

from litestar.types import ASGIApp, HTTPRequestEvent, Message, Receive, Scope, Send

from oscar_metrics.errors import ClientGone, NotNow
from oscar_metrics.handlers.bounded_http import MAX_BODY_BYTES
from oscar_metrics.tasks import task_group

# Another server, or this one after its start, takes it.
_RETRY_AFTER_SECONDS = 1
_NO_BODY: HTTPRequestEvent = {"type": "http.request", "body": b"", "more_body": False}


class EndedEarly:
    """A report route's middleware, which cancels the handler, guards included.

    Raises ClientGone where the connection closes before an answer has begun, NotNow where
    `stop` is set before. What is cancelled waits until its upstream calls have ended, too.
    """

    def __init__(self, app: ASGIApp, *, stop: asyncio.Event) -> None:
        self._app = app
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, and see whether its answer is still wanted."""
        begun = False

        async def noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        async def gone() -> None:
            if await _disconnected(receive) and not begun:
                raise ClientGone

        async def stopped() -> None:
            await self._stop.wait()
            if not begun:
                raise NotNow(
                    "the server is stopping",
                    detail="the report had not finished; ask again",
                    retry_after_seconds=_RETRY_AFTER_SECONDS,
                )

        async with task_group() as group:
            watching = [group.create_task(stopped())]
            if not _waits_to_send_a_body(scope):
                watching.append(group.create_task(gone()))
            await self._app(scope, _nothing, noting)
            for watch in watching:
                watch.cancel()


async def _disconnected(receive: Receive) -> bool:
    """Wait for the end of the connection; False where so large a body comes that it is not read."""
    body_bytes = 0
    while body_bytes <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return True
        body_bytes += len(message["body"])
    return False


async def _nothing() -> HTTPRequestEvent:
    """What handlers read: a body means nothing here, and the watch has what comes."""
    return _NO_BODY


def _waits_to_send_a_body(scope: Scope) -> bool:
    """Whether to listen would ask the client to send on (`Expect: 100-continue`)."""
    return any(name == b"expect" for name, _ in scope["headers"])
