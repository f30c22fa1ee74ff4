"""Decides whom to ask for which stretch, asks them at once, and hands the facts to reports.

Every source is asked under one deadline and none can fail a report: what a source could
not say is an outcome, and the report names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

import msgspec
import structlog

from oscar_metrics import groupings, reports, wire
from oscar_metrics.completeness import sentence
from oscar_metrics.facts import (
    CallLog,
    Inventory,
    LogStream,
    Roster,
    ServiceCount,
    Tallies,
    Usage,
)
from oscar_metrics.findings import Finding, Level
from oscar_metrics.groupings import Needs
from oscar_metrics.outcome import Outcome, Unavailable, with_facts
from oscar_metrics.reports import Calls
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.interfaces import LogSource, Sources
from oscar_metrics.sums import CallSums, Grouping, of_tallies
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import ReportRange, Span, format_instant
from oscar_metrics.wire import GroupBy, Metric, SourceName, SourceState

F = TypeVar("F")
_Report = TypeVar(
    "_Report",
    wire.Summary,
    wire.ServiceBreakdown,
    wire.UserBreakdown,
    wire.CountryBreakdown,
    wire.Value,
    wire.ServiceMetric,
)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_BOTH = frozenset(LogStream)


class LastSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What a source said when it was last asked."""

    status: SourceState
    notes: str
    at: str


class Aggregator:
    """Answers reports from sources; made once, shared by every request.

    `now_ns` is the clock (nanoseconds since the epoch). `deadline_seconds` bounds every
    report; None is for the command line, which waits as long as it takes. `periods_max` is
    how many periods a series may have.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        telemetry: Telemetry,
        now_ns: Callable[[], int],
        deadline_seconds: float | None,
        periods_max: int = 2000,
    ) -> None:
        self.now_ns = now_ns
        self.periods_max = periods_max
        self._sources = sources
        self._telemetry = telemetry
        self._deadline_seconds = deadline_seconds
        self._last_said: dict[SourceName, LastSaid] = {}

    async def summary(self, asked: ReportRange) -> wire.Summary:
        """Totals over a range."""
        asking = self._begin(asked.span)
        async with asyncio.TaskGroup() as group:
            inventory = group.create_task(asking.inventory())
            usage = group.create_task(asking.usage(inventory))
            calls = group.create_task(asking.calls(groupings.SUMMARY))
        return self._said(
            reports.summary(
                asked, asking.now_ns, inventory.result(), usage.result(), calls.result()
            )
        )

    async def breakdown(
        self,
        asked: ReportRange,
        group_by: GroupBy,
        *,
        group_by_text: str,
        include_users: bool,
        include_usage: bool,
    ) -> wire.Breakdown:
        """Rows per service, user or country; usage is for services only."""
        asking = self._begin(asked.span)
        if group_by is not GroupBy.SERVICE:
            calls = await asking.calls(groupings.BREAKDOWNS[group_by])
            if group_by is GroupBy.USER:
                return self._said(
                    reports.user_breakdown(asked, asking.now_ns, calls, group_by=group_by_text)
                )
            return self._said(
                reports.country_breakdown(asked, asking.now_ns, calls, group_by=group_by_text)
            )
        async with asyncio.TaskGroup() as group:
            both = group.create_task(asking.calls(groupings.BREAKDOWNS[group_by]))
            if include_usage:
                inventory = group.create_task(asking.inventory())
                usage = group.create_task(asking.usage(inventory))
        return self._said(
            reports.service_breakdown(
                asked,
                asking.now_ns,
                both.result(),
                group_by=group_by_text,
                include_users=include_users,
                inventory=inventory.result() if include_usage else None,
                usage=usage.result() if include_usage else None,
            )
        )

    async def value(self, asked: ReportRange, service: str, metric: Metric) -> wire.Value:
        """One of `SERVICE_METRICS` of one service; zero where nothing is known of it."""
        asking = self._begin(asked.span)
        source = reports.source_of(metric)
        outcome: Outcome[Usage] | Outcome[ServiceCount]
        if source is SourceName.USAGE:
            outcome = await asking.usage_of_known_services()
        else:
            stream = LogStream(source.value)
            users = metric is Metric.USERS_PER_SERVICE
            counted = await asking.counts(service, frozenset({stream}), users=users)
            outcome = counted[stream]
        figure = reports.service_metric(asked, asking.now_ns, service, metric, outcome)
        return self._said(reports.value(asked, service, figure))

    async def service(self, asked: ReportRange, service: str) -> wire.ServiceMetrics:
        """Every metric of one service."""
        asking = self._begin(asked.span)
        async with asyncio.TaskGroup() as group:
            usage = group.create_task(asking.usage_of_known_services())
            counts = group.create_task(asking.counts(service, _BOTH, users=True))
        figures = []
        for metric in wire.SERVICE_METRICS:
            source = reports.source_of(metric)
            outcome = (
                usage.result()
                if source is SourceName.USAGE
                else counts.result()[LogStream(source.value)]
            )
            figure = reports.service_metric(asked, asking.now_ns, service, metric, outcome)
            figures.append(self._said(figure))
        return reports.service_metrics(asked, service, figures)

    async def owners(self) -> Outcome[wire.Owners]:
        """Who an administrator may filter by, from namespaces and services."""
        asking = self._begin(Span(0, 0))
        return reports.owners(await asking.inventory())

    def last_said(self) -> dict[SourceName, LastSaid]:
        """What each source said when it was last asked for a report."""
        return dict(self._last_said)

    async def check(self) -> list[Finding]:
        """What every configured source finds in the way of a complete report."""
        sources, now_ns = self._sources, self.now_ns()
        asked = (sources.inventory, sources.usage, sources.logs, sources.fallback_logs)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(source.check(now_ns)) for source in asked if source]
            tasks.append(group.create_task(sources.roster.check()))
        found = [finding for task in tasks for finding in task.result()]
        return [*_not_configured(sources), *found, *sources.geoip.check(now_ns)]

    async def aclose(self) -> None:
        """Let go of every source's connections."""
        for connection in self._sources.connections:
            await connection.aclose()

    def _begin(self, span: Span) -> _Asking:
        return _Asking(self._sources, self._telemetry, self.now_ns(), self._deadline(), span)

    def _deadline(self) -> float | None:
        if self._deadline_seconds is None:
            return None
        return asyncio.get_running_loop().time() + self._deadline_seconds

    def _said(self, report: _Report) -> _Report:
        for source in report.sources:
            self._telemetry.source_outcomes.labels(source.name, source.status).inc()
            self._last_said[source.name] = LastSaid(
                status=source.status,
                notes=source.notes or "",
                at=format_instant(self.now_ns()),
            )
        return report


_NO_CLUSTER = Unavailable(
    origin="",
    notes=("no Kubernetes cluster is configured (OSCAR_METRICS_KUBERNETES)",),
)
_NO_USAGE = Unavailable(origin="", notes=("no Prometheus is configured (PROMETHEUS_URL)",))
_NO_LOGS = Unavailable(
    origin="",
    notes=(
        "no request log is configured (LOKI_URL, OSCAR_METRICS_LOG_FILES, or a cluster's pod logs)",
    ),
)
# How long past the deadline a source may take to hand over what it has.
_HAND_OVER_SECONDS = 0.5


class _Asking:
    """The questions of one report: one clock reading, one deadline, one span."""

    def __init__(
        self,
        sources: Sources,
        telemetry: Telemetry,
        now_ns: int,
        deadline: float | None,
        span: Span,
    ) -> None:
        self.now_ns = now_ns
        self._sources = sources
        self._telemetry = telemetry
        self._deadline = deadline
        self._span = span

    async def inventory(self) -> Outcome[Inventory]:
        source = self._sources.inventory
        if source is None:
            return _NO_CLUSTER
        return await self._guarded(
            "kubernetes", source.read(now_ns=self.now_ns, deadline=self._deadline)
        )

    async def usage(self, inventory: Awaitable[Outcome[Inventory]]) -> Outcome[Usage]:
        source = self._sources.usage
        if source is None:
            return _NO_USAGE
        known = await inventory
        return await self._guarded(
            "prometheus",
            source.read(self._span, known, now_ns=self.now_ns, deadline=self._deadline),
        )

    async def usage_of_known_services(self) -> Outcome[Usage]:
        return await self.usage(self.inventory()) if self._sources.usage else _NO_USAGE

    async def calls(self, needs: Needs) -> Calls:
        roster = await self._roster()
        logs = await self._tallies(frozenset(needs), roster)
        sums = {stream: _sums(log, needs[stream]) for stream, log in logs.items()}
        return Calls(
            executions=sums.get(LogStream.EXECUTIONS, _NO_LOGS),
            exposed=sums.get(LogStream.EXPOSED, _NO_LOGS),
            geoip=self._sources.geoip.outcome(),
            roster=roster,
        )

    async def counts(
        self, service: str, streams: frozenset[LogStream], *, users: bool
    ) -> dict[LogStream, Outcome[ServiceCount]]:
        """One service's calls in each stream: counted by the engine where it can."""
        counting = self._sources.counting
        counted: dict[LogStream, Outcome[ServiceCount]] = {}
        if counting is not None:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    stream: group.create_task(
                        self._guarded(
                            counting.origin,
                            counting.count_service(
                                self._span,
                                stream,
                                service,
                                users=users and stream is LogStream.EXECUTIONS,
                                now_ns=self.now_ns,
                                deadline=self._deadline,
                            ),
                        )
                    )
                    for stream in streams
                }
            counted = {stream: task.result() for stream, task in tasks.items()}
            if self._sources.fallback_logs is None:
                return counted
        rest = frozenset(
            stream for stream in streams if isinstance(counted.get(stream, _NO_LOGS), Unavailable)
        )
        if not rest:
            return counted
        tallied = await self._tallies(rest, await self._roster())
        return counted | {
            stream: reports.service_count(
                _sums(outcome, groupings.ONE_SERVICE[stream], service=service)
            )
            for stream, outcome in tallied.items()
        }

    async def _tallies(
        self, streams: frozenset[LogStream], roster: Outcome[Roster]
    ) -> dict[LogStream, Outcome[CallLog]]:
        sources = self._sources
        await asyncio.to_thread(sources.geoip.refresh)
        known = {} if isinstance(roster, Unavailable) else roster.facts
        countries = Countries(sources.geoip, known)
        outcomes = await self._read(sources.logs, streams, countries)
        unread = frozenset(s for s in streams if isinstance(outcomes[s], Unavailable))
        if not unread or sources.fallback_logs is None:
            return outcomes
        instead = await self._read(sources.fallback_logs, unread, countries)
        return outcomes | {
            stream: _instead_of(outcomes[stream], outcome) for stream, outcome in instead.items()
        }

    async def _read(
        self, source: LogSource | None, streams: frozenset[LogStream], countries: Countries
    ) -> dict[LogStream, Outcome[CallLog]]:
        if source is None:
            return dict.fromkeys(streams, _NO_LOGS)
        outcomes = await self._guarded(
            source.origin,
            source.read(
                self._span, streams, countries, now_ns=self.now_ns, deadline=self._deadline
            ),
        )
        if isinstance(outcomes, Unavailable):
            return dict.fromkeys(streams, outcomes)
        for outcome in outcomes.values():
            if not isinstance(outcome, Unavailable):
                log = outcome.facts
                self._telemetry.lines_seen.labels(source.origin).inc(log.lines_seen)
                self._telemetry.lines_understood.labels(source.origin).inc(log.lines_understood)
        return outcomes

    async def _roster(self) -> Outcome[Roster]:
        return await self._guarded("file", self._sources.roster.read(self.now_ns))

    async def _guarded(self, origin: str, answer: Awaitable[F]) -> F | Unavailable:
        """The answer; a source that breaks its promise not to raise is missing, and logged."""
        backstop = None if self._deadline is None else self._deadline + _HAND_OVER_SECONDS
        try:
            async with asyncio.timeout_at(backstop):
                return await answer
        except TimeoutError:
            return Unavailable(
                origin=origin, notes=("had not finished when the report's deadline came",)
            )
        except Exception:  # noqa: BLE001 - one source's bug must not take the others' facts along
            _log.exception("source raised", origin=origin)
            return Unavailable(origin=origin, notes=("failed in a way that is our own mistake",))


def _not_configured(sources: Sources) -> list[Finding]:
    """What reports will miss because nobody was named to ask."""
    absent = (
        (sources.logs, SourceName.REQUEST_LOGS, Level.PROBLEM, _NO_LOGS),
        (sources.inventory, SourceName.INVENTORY, Level.WARNING, _NO_CLUSTER),
        (sources.usage, SourceName.USAGE, Level.WARNING, _NO_USAGE),
    )
    return [
        Finding(source=name, level=level, says=sentence(outcome.notes), change="configure one")
        for source, name, level, outcome in absent
        if source is None
    ]


def _sums(
    outcome: Outcome[CallLog], asked: Collection[Grouping], *, service: str | None = None
) -> Outcome[CallSums]:
    """What a request log says, added up; of one service name's calls only, or of all."""
    if isinstance(outcome, Unavailable):
        return outcome
    tallies = outcome.facts.tallies
    if service is not None:
        tallies = Tallies({key: n for key, n in tallies.items() if key.service == service})
    return with_facts(outcome, of_tallies(tallies, asked))


def _instead_of(failed: Outcome[CallLog], outcome: Outcome[CallLog]) -> Outcome[CallLog]:
    """The second source's outcome, saying what it stands in for; the first's if it has none."""
    if isinstance(outcome, Unavailable):
        return failed
    note = f"read instead of {failed.origin}, which said: {sentence(failed.notes)}"
    return msgspec.structs.replace(outcome, notes=(*outcome.notes, note))
