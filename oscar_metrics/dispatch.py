"""Where a command is done: here, with the ledger opened, or by the server that holds it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import msgspec

from oscar_metrics.app import (
    create_aggregator,
    create_commands,
    create_oidc,
    create_sealer,
    create_shared_answers,
    create_sources,
)
from oscar_metrics.command_requests import (
    Backfill,
    ImportFiles,
    LedgerRequest,
    ReportRequest,
    Request,
)
from oscar_metrics.commands import Reporter, result_type
from oscar_metrics.errors import (
    REASON_TEXT,
    BadRequest,
    LedgerError,
    LedgerHeld,
    SettingsError,
)
from oscar_metrics.findings import Finding, Level
from oscar_metrics.ledger.command_address import connected
from oscar_metrics.ledger.command_socket import ask
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.keeper import open_ledger
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.ledger.store import LedgerStore, Progress
from oscar_metrics.settings import Settings
from oscar_metrics.tables import Report
from oscar_metrics.telemetry import Telemetry

# Whoever holds the file may be a server that is starting or stopping, or a short command.
_TRIES = 6
_BETWEEN_TRIES_SECONDS = 0.5


async def perform(settings: Settings, request: LedgerRequest, progress: Progress) -> Any:
    """The result of a request; raises LedgerError where it cannot be had."""
    if not settings.ledger.is_on:
        raise SettingsError("OSCAR_METRICS_LEDGER", "off: this command needs the ledger's file")
    # Only what seals something makes a file where there is none.
    create = isinstance(request, ImportFiles | Backfill)
    return await _here_or_there(settings, request, progress, create=create)


async def make_report(settings: Settings, request: ReportRequest) -> Report:
    """A report, from the ledger as far as there is one; without it where it cannot be used."""
    ledger = settings.ledger
    if not ledger.is_on:
        return await _live(settings, request, None)
    problem = ""
    if _may_be_there(ledger.path):
        try:
            report: Report = await _here_or_there(settings, request, _nobody, create=False)
        except LedgerError as exc:
            problem = str(exc)
        else:
            return report
    return await _live(settings, request, LedgerHolder(problem=problem, rows_max=ledger.rows_max))


async def check(settings: Settings) -> list[Finding]:
    """What stands in the way of complete reports: of each source, and of the ledger.

    Also whether answers can be kept where they are to be.
    """
    telemetry = Telemetry()
    kept = await _kept_findings(settings, telemetry)
    sources = create_sources(settings, telemetry)
    aggregator = create_aggregator(settings, sources, telemetry, ledger=None, deadline_seconds=None)
    oidc = create_oidc(settings, telemetry)
    try:
        users = [] if oidc is None else await oidc.check()
        return [*await aggregator.check(), *users, await _ledger_finding(settings.ledger), *kept]
    finally:
        await aggregator.aclose()
        if oidc is not None:
            await oidc.aclose()


async def _kept_findings(settings: Settings, telemetry: Telemetry) -> list[Finding]:
    shared = create_shared_answers(settings, telemetry)
    if shared is None:
        return []
    try:
        trouble = await shared.trouble()
    finally:
        await shared.aclose()
    if trouble is None:
        return [Finding(source="redis", level=Level.OK, says="answers can be kept in Redis")]
    why = REASON_TEXT[trouble.reason]
    return [
        Finding(
            source="redis",
            level=Level.WARNING,
            says=f"Redis {why}{f' ({trouble.detail})' if trouble.detail else ''}: reports are made"
            " without it, and kept in memory only",
            change="look at OSCAR_METRICS_CACHE and at Redis; docs/caching.md says what it needs",
        )
    ]


async def _ledger_finding(ledger: LedgerSettings) -> Finding:
    level, says, change = Level.OK, f"{ledger.file} can be opened", ""
    if not ledger.is_on:
        says = "off: every report asks its sources, and ends where they end"
    elif not _may_be_there(ledger.path):
        says = f"{ledger.file} is not there yet: the server makes it"
        folder = next(path for path in ledger.path.absolute().parents if path.exists())
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            level, says = (
                Level.PROBLEM,
                f"{ledger.file} cannot be made: {folder} may not be written",
            )
            change = "make its folder, or name another file (OSCAR_METRICS_LEDGER)"
    else:
        try:
            store = await open_ledger(ledger, create=False)
        except LedgerHeld:
            says = f"{ledger.file} is open in another process, such as the server"
        except LedgerError as exc:
            level, says = Level.PROBLEM, f"{ledger.file} cannot be used: {exc}"
            change = "see docs/ledger.md; until then reports are made without it"
        else:
            await store.aclose()
    return Finding(source="ledger", level=level, says=says, change=change)


async def _here_or_there(
    settings: Settings, request: Request, progress: Progress, *, create: bool
) -> Any:
    """The result, whoever holds the file; raises LedgerHeld where that is not to be found out."""
    for tried in range(_TRIES):
        try:
            store = await open_ledger(settings.ledger, create=create)
        except LedgerHeld:
            encoded = _encoded(request)
            try:
                connection = connected(settings.ledger.path)
            except LedgerHeld:
                if tried + 1 == _TRIES:
                    raise
                await asyncio.sleep(_BETWEEN_TRIES_SECONDS)
                continue
            answer = await ask(connection, encoded, progress)
            return msgspec.json.decode(answer, type=result_type(request))
        return await _here(settings, store, request, progress)
    raise AssertionError("the last try returns or raises")


def _may_be_there(file: Path) -> bool:
    """Whether there is a file, or it cannot be told, and opening it will say why."""
    try:
        return file.exists()
    except OSError:
        return True


def _encoded(request: Request) -> bytes:
    try:
        return msgspec.json.encode(request)
    except UnicodeEncodeError as exc:
        raise BadRequest("a name on the command line is not UTF-8") from exc


async def _here(
    settings: Settings, store: LedgerStore, request: Request, progress: Progress
) -> Any:
    """The result, with the ledger open in this process; it is closed then."""
    telemetry = Telemetry()
    try:
        sources = create_sources(settings, telemetry)
        try:
            sealer = create_sealer(settings, sources, telemetry, store)
            commands = create_commands(settings, sources, telemetry, store, sealer)
            return await commands.do(request, progress)
        finally:
            for connection in sources.connections:
                await connection.aclose()
    finally:
        await store.aclose()


async def _live(settings: Settings, request: ReportRequest, holder: LedgerHolder | None) -> Report:
    telemetry = Telemetry()
    aggregator = create_aggregator(
        settings,
        create_sources(settings, telemetry),
        telemetry,
        ledger=holder,
        deadline_seconds=None,
    )
    try:
        return await Reporter(aggregator).report(request)
    finally:
        await aggregator.aclose()


def _nobody(done: int, total: int, doing: str) -> None:
    """Reports do not say how far they are."""
