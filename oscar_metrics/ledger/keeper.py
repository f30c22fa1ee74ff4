"""Has the ledger open while a server runs: tries again where it cannot, and lets go in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from oscar_metrics.errors import LedgerError
from oscar_metrics.ledger.command_address import listening
from oscar_metrics.ledger.command_socket import Work, answer_commands
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.ledger.store import LedgerStore

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# Another command may have had the file for a moment, or a full disk may have got room.
_TRY_AGAIN_SECONDS = 5


@asynccontextmanager
async def kept_open(
    holder: LedgerHolder,
    settings: LedgerSettings,
    keep: Callable[[LedgerStore], Awaitable[None]],
) -> AsyncIterator[None]:
    """The ledger in `holder` within the block, or there why not; tried before the block begins.

    `keep` is what a server does with an open ledger; it is cancelled at the end of the block.
    """
    async with asyncio.TaskGroup() as group:
        await _open(holder, settings)
        keeping = group.create_task(_keep(holder, settings, keep))
        try:
            yield
        finally:
            keeping.cancel()


async def open_ledger(settings: LedgerSettings, *, create: bool) -> LedgerStore:
    """The ledger of these settings; raises LedgerError, and LedgerHeld where another has it."""
    return await asyncio.to_thread(
        DuckLedger.open,
        settings.path,
        create=create,
        memory_mb=settings.memory_mb,
        threads=settings.threads,
    )


async def answer_for_ever(settings: LedgerSettings, work: Work) -> None:
    """Answer the commands that find the file held; without them where no socket can be made."""
    try:
        with listening(settings.path) as listener:
            await answer_commands(listener, work)
    except LedgerError as exc:
        _log.warning("commands cannot ask this server", problem=str(exc))
    except Exception:  # noqa: BLE001 - reports and sealing go on without
        _log.exception("commands can no longer ask this server")


async def _keep(
    holder: LedgerHolder,
    settings: LedgerSettings,
    keep: Callable[[LedgerStore], Awaitable[None]],
) -> None:
    try:
        while holder.store is None:
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
            await _open(holder, settings)
        await keep(holder.store)
    finally:
        store, holder.store, holder.problem = holder.store, None, "the server is stopping"
        if store is not None:
            await store.aclose()


async def _open(holder: LedgerHolder, settings: LedgerSettings) -> None:
    try:
        holder.store = await open_ledger(settings, create=True)
        problem = ""
    except LedgerError as exc:
        problem = str(exc)
    except Exception:  # noqa: BLE001 - reports must go on whatever happens to the ledger
        problem = "it cannot be opened, which is a mistake of ours; the server's log says more"
        if problem != holder.problem:
            _log.exception("ledger could not be opened")
    if holder.store is not None:
        _log.info("ledger open", file=settings.file)
    elif problem != holder.problem:
        _log.error("ledger cannot be used", file=settings.file, problem=problem)
    holder.problem = problem
