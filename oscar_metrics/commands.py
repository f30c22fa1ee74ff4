"""How what the command line asks for is done: in a running server, or by the command itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from oscar_metrics import wire
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR
from oscar_metrics.command_requests import (
    AskBreakdown,
    AskedRange,
    AskSummary,
    AskValue,
    Backfill,
    Export,
    Forget,
    Forgotten,
    ImportFiles,
    ReportRequest,
    Request,
    Show,
    Verify,
)
from oscar_metrics.errors import BadRequest, LedgerError
from oscar_metrics.facts import Roster
from oscar_metrics.findings import Finding
from oscar_metrics.ledger.backfill import Backfilled
from oscar_metrics.ledger.coverage import Coverage, coverage
from oscar_metrics.ledger.importing import ImportReport, import_files
from oscar_metrics.ledger.sealer import Sealer
from oscar_metrics.ledger.store import LedgerStore, Progress
from oscar_metrics.outcome import Unavailable
from oscar_metrics.periods import with_periods
from oscar_metrics.scope import Viewer
from oscar_metrics.settings import Settings
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.tables import Report
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, ReportRange, Span, report_range

_requests: msgspec.json.Decoder[Request] = msgspec.json.Decoder(Request)
_BREAKDOWNS: dict[wire.GroupBy, Any] = {
    wire.GroupBy.SERVICE: wire.ServiceBreakdown,
    wire.GroupBy.USER: wire.UserBreakdown,
    wire.GroupBy.COUNTRY: wire.CountryBreakdown,
    wire.GroupBy.OWNER: wire.OwnerBreakdown,
    wire.GroupBy.VO: wire.AffiliationBreakdown,
    wire.GroupBy.PROJECT: wire.AffiliationBreakdown,
}
_RESULTS: dict[type[Request], Any] = {
    AskSummary: wire.Summary,
    AskValue: wire.Value,
    Show: Coverage,
    Verify: list[Finding],
    Export: list[str],
    Forget: Forgotten,
    ImportFiles: ImportReport,
    Backfill: Backfilled,
}


def result_type(request: Request) -> Any:
    """What a request's result is, to decode it as."""
    if isinstance(request, AskBreakdown):
        return _BREAKDOWNS[request.group_by]
    return _RESULTS[type(request)]


class Reporter:
    """Makes reports; needs no ledger."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    async def report(self, request: ReportRequest) -> Report:
        """The report, or BadRequest where it cannot be made as asked."""
        asked = self._range(request.asked)
        admitted = await self._aggregator.admit(
            Viewer(caller=ADMINISTRATOR), self._aggregator.deadline()
        )
        match request:
            case AskSummary():
                return await self._aggregator.summary(admitted, asked)
            case AskBreakdown():
                return await self._aggregator.breakdown(
                    admitted,
                    asked,
                    request.group_by,
                    group_by_text=request.group_by.value,
                    include_users=request.include_users,
                    include_usage=request.include_usage,
                )
            case AskValue():
                if not request.service.strip():
                    raise BadRequest("service_id is required")
                return await self._aggregator.value(
                    admitted, asked, request.service, request.metric
                )

    def _range(self, asked: AskedRange) -> ReportRange:
        return with_periods(
            report_range(
                asked.start,
                asked.end,
                self._aggregator.now_ns(),
                as_of=asked.as_of,
                restated_since=asked.restated_since,
            ),
            asked.interval,
            asked.tz,
            self._aggregator.periods_max,
        )


class Commands:
    """Does what is asked of the ledger, one import at a time."""

    def __init__(
        self,
        store: LedgerStore,
        sealer: Sealer,
        reporter: Reporter,
        sources: Sources,
        settings: Settings,
        now_ns: Callable[[], int],
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._reporter = reporter
        self._sources = sources
        self._settings = settings
        self._now_ns = now_ns
        self._importing = asyncio.Lock()

    async def work(self, request: bytes, progress: Progress) -> Any:
        """The same as `do`, of a request in JSON."""
        try:
            decoded = _requests.decode(request)
        except msgspec.DecodeError as exc:
            raise LedgerError(
                "the server that holds the ledger does not know this command:"
                " it is of another version; use its own command"
            ) from exc
        return await self.do(decoded, progress)

    async def do(self, request: Request, progress: Progress) -> Any:
        """The result of a request, of its `result_type`."""
        result: Any
        match request:
            case Show():
                result = await self._show(request)
            case Verify():
                result = await self._store.verify(progress)
            case Export():
                folder = Path(request.folder)
                written = await self._store.export(folder, request.form, progress)
                result = [str(path) for path in written]
            case Forget():
                result = await self._forget(request.user)
            case ImportFiles():
                result = await self._import(request, progress)
            case Backfill():
                result = await self._sealer.backfill(self._backfilled(request), progress)
            case _:
                result = await self._reporter.report(request)
        return result

    async def _forget(self, user: str) -> Forgotten:
        pseudonym = await self._store.forget(user, now_ns=self._now_ns())
        claims = self._sources.claims
        was_remembered = claims is not None and await claims.forget(user)
        return Forgotten(pseudonym=pseudonym, was_remembered=was_remembered)

    async def _show(self, request: Show) -> Coverage:
        now_ns = self._now_ns()
        start_ns = 0
        if request.start is not None:
            start_ns = report_range(request.start, request.end, now_ns).span.start_ns
        stop_ns = report_range(None, request.end, now_ns).span.stop_ns
        # Hours that nobody has had the time to seal are no holes.
        due_ns = now_ns - self._settings.ledger.first_look_minutes * 60 * SECOND_NS
        return await coverage(
            self._store,
            whole_hours(Span(start_ns, stop_ns), until_ns=due_ns),
            whole_from_start=request.start is not None,
        )

    async def _import(self, request: ImportFiles, progress: Progress) -> ImportReport:
        await asyncio.to_thread(self._sources.geoip.refresh)
        roster = await self._sources.roster.read(self._now_ns())
        known = Roster() if isinstance(roster, Unavailable) else roster.facts
        # A second import would make the store forget what the first has put together.
        async with self._importing:
            return await import_files(
                self._store,
                [Path(file) for file in request.files],
                Countries(self._sources.geoip, known),
                now_ns=self._now_ns,
                ingress_host=self._settings.log_files.ingress_host,
                limits=self._settings.log_files.limits,
                progress=progress,
            )

    def _backfilled(self, request: Backfill) -> Span:
        now_ns = self._now_ns()
        stop_ns = report_range(None, request.end, now_ns).span.stop_ns
        start_ns = stop_ns - self._settings.ledger.backfill_days * DAY_NS
        if request.start is not None:
            start_ns = report_range(request.start, request.end, now_ns).span.start_ns
        return whole_hours(Span(start_ns, stop_ns), until_ns=now_ns)


def whole_hours(span: Span, *, until_ns: int) -> Span:
    """The hours a span touches that have ended at an instant."""
    start_ns = max(0, span.start_ns) // HOUR_NS * HOUR_NS
    stop_ns = min(-(-span.stop_ns // HOUR_NS), until_ns // HOUR_NS) * HOUR_NS
    return Span(start_ns, max(start_ns, stop_ns))
