"""Ends work on a report that nobody waits for any more, or that the stopping server must end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from litestar.connection import ASGIConnection
from litestar.types import Receive, Scope

from oscar_metrics.errors import ClientGone, NotNow
from oscar_metrics.handlers.bounded_http import MAX_BODY_BYTES
from oscar_metrics.tasks import task_group

T = TypeVar("T")
Connection = ASGIConnection[Any, Any, Any, Any]

# Another server, or this one after its start, takes it.
_RETRY_AFTER_SECONDS = 1


class EndedEarly:
    """Cancels work for a request once its connection closes, or once `stop` is set.

    What is cancelled is waited for, until its upstream calls have ended, too.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    async def unless_gone(self, connection: Connection, work: Coroutine[Any, Any, T]) -> T:
        """What the work comes to, which is watched from when it first waits for something.

        Raises what it raises, ClientGone where the connection closes before it has ended, NotNow
        where `stop` is set before.
        """
        begun = _Begun(work)
        if begun.has_ended:
            return begun.result
        async with task_group() as group:
            watching = [group.create_task(self._stopped())]
            if not _waits_to_send_a_body(connection.scope):
                watching.append(group.create_task(_gone(connection.receive)))
            result = await begun
            for task in watching:
                task.cancel()
        return result

    async def _stopped(self) -> None:
        await self._stop.wait()
        raise NotNow(
            "the server is stopping",
            detail="the report had not finished; ask again",
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )


async def disconnected(receive: Receive) -> bool:
    """Wait for the end of the connection; False where so large a body comes that it is not read."""
    body_bytes = 0
    while body_bytes <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return True
        body_bytes += len(message["body"])
    return False


async def _gone(receive: Receive) -> None:
    if await disconnected(receive):
        raise ClientGone


def _waits_to_send_a_body(scope: Scope) -> bool:
    """Whether to listen would ask the client to send on (`Expect: 100-continue`)."""
    return any(name == b"expect" for name, _ in scope["headers"])


class _Begun(Generic[T]):
    """Work that has been begun, by the task that is to await it, and has got to its first wait.

    What is kept is answered without one: no task is made to watch over that.
    """

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self.has_ended = False
        try:
            self._waits_for = work.send(None)
        except StopIteration as ended:
            self.result: T = ended.value
            self.has_ended = True

    def __await__(self) -> Generator[Any, Any, T]:
        """Hand on what it waits for, and what comes of that, until it has ended."""
        waits_for = self._waits_for
        while True:
            raised: BaseException | None = None
            try:
                came = yield waits_for
            except BaseException as exc:  # noqa: BLE001 - the work is to decide what it means
                raised = exc
            try:
                waits_for = self._work.send(came) if raised is None else self._work.throw(raised)
            except StopIteration as ended:
                result: T = ended.value
                return result
