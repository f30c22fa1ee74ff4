"""An issuer in a thread of its own, for tests that wait for a server process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread

from tests.auth.made_issuer import MadeIssuer


@contextlib.contextmanager
def threaded_issuer() -> Iterator[MadeIssuer]:
    """A hand-made issuer that answers until the block ends."""
    started: Future[tuple[MadeIssuer, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        ended = asyncio.Event()
        async with MadeIssuer.start() as issuer:
            started.set_result((issuer, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = Thread(target=asyncio.run, args=(run(),))
    thread.start()
    issuer, loop, ended = started.result(30)
    try:
        yield issuer
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
