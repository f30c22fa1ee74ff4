"""Has everyone a report needs asked at once, and hands the facts to reports.

Every source is asked under one deadline and none can fail a report: what a source could
not say is an outcome, and the report names it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from oscar_metrics import (
    affiliation_reports,
    figures,
    groupings,
    owner_reports,
    reports,
    wire,
)
from oscar_metrics.admission import Admitted
from oscar_metrics.asking import Asking, bounds_ns
from oscar_metrics.completeness import private, sentence
from oscar_metrics.errors import Forbidden, LedgerError
from oscar_metrics.facts import LogStream, ServiceCount, Usage
from oscar_metrics.findings import Finding, Level
from oscar_metrics.groupings import Needs
from oscar_metrics.last_day import last_day
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.reading import LedgerReading
from oscar_metrics.ledger.seals import Restated
from oscar_metrics.ledger.store import Changes, Version
from oscar_metrics.live import NO_CLUSTER, NO_LOGS, NO_USAGE, Live
from oscar_metrics.outcome import Outcome, Unavailable, with_facts
from oscar_metrics.ownership import Ownership
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.scope import ScopeMode, Viewer
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sums import CallSums
from oscar_metrics.tasks import task_group, worked_out
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import ReportRange, format_instant
from oscar_metrics.usage_hours import hours_by_service
from oscar_metrics.usage_sums import UsageByPeriod, total_usage
from oscar_metrics.wire import GroupBy, Metric, SourceName, SourceState

T = TypeVar("T")
_SHOW_EVERYTHING = Privacy()
# Every report that is not kept waits for it, where answers are kept outside the process.
_VERSION_SECONDS = 0.5
# `check` says what it knows by then of the last day's calls.
_LAST_DAY_SECONDS = 60.0
_Report = TypeVar("_Report", bound=wire.Summary | wire.Breakdown | wire.Value)


class LastSaid(msgspec.Struct, frozen=True, kw_only=True):
    """What a source said when it was last asked."""

    status: SourceState
    notes: str
    at: str


class Aggregator:
    """Answers reports from sources; made once, shared by every request.

    `now_ns` is the clock (nanoseconds since the epoch). `deadline_seconds` bounds every
    report; None is for the command line, which waits as long as it takes. A caller may ask
    for another deadline, up to `deadline_most_seconds`. `periods_max` is
    how many periods a series may have. `ledger` is None where none is configured. `mode` is
    what callers who are no administrators see, `privacy` how users are shown to everyone.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        telemetry: Telemetry,
        now_ns: Callable[[], int],
        deadline_seconds: float | None,
        deadline_most_seconds: int = 120,
        periods_max: int = 2000,
        ledger: LedgerHolder | None = None,
        mode: ScopeMode = ScopeMode.OWNED,
        privacy: Privacy = _SHOW_EVERYTHING,
    ) -> None:
        self.now_ns = now_ns
        self.periods_max = periods_max
        self.privacy = privacy
        self._mode = mode
        self._sources = sources
        self._ledger = ledger
        self._telemetry = telemetry
        self._deadline_seconds = deadline_seconds
        self._deadline_most_seconds = deadline_most_seconds
        self._last_said: dict[SourceName, LastSaid] = {}

    def granted(self, wait_seconds: int | None) -> int | None:
        """How long a caller who would wait so long may: no longer than anyone."""
        return None if wait_seconds is None else min(wait_seconds, self._deadline_most_seconds)

    def deadline(self, wait_seconds: int | None = None) -> float | None:
        """When a report that is begun now is to be answered, by the event loop's clock.

        Within `wait_seconds`, as they were granted, or what everyone has; None for no end.
        """
        seconds = self.seconds_allowed(wait_seconds)
        return None if seconds is None else asyncio.get_running_loop().time() + seconds

    def seconds_allowed(self, wait_seconds: int | None) -> float | None:
        """How long a report may take that is asked for so; None for no end."""
        return self._deadline_seconds if wait_seconds is None else wait_seconds

    def ledger_changes(self) -> Changes | None:
        """How often the ledger has changed; None where there is none to be read."""
        store = None if self._ledger is None else self._ledger.store
        return None if store is None else store.changes

    async def ledger_version(self) -> Version | None:
        """Which state the ledger is in; None where that cannot be told soon."""
        if self._ledger is None:
            return Version(people="", facts="")
        store = self._ledger.store
        try:
            async with asyncio.timeout(_VERSION_SECONDS):
                return None if store is None else await store.version()
        except (LedgerError, TimeoutError):
            return None

    async def admit(self, viewer: Viewer, deadline: float | None) -> Admitted:
        """Decide what a viewer sees, and begin the one report that is made for them.

        Raises NotNow where that cannot be decided, NotFound for an owner nobody knows.
        """
        now_ns = self.now_ns()
        admitted = Admitted(
            viewer,
            Live(self._sources, self._telemetry, now_ns=now_ns, deadline=deadline),
            self._ledger,
            self.privacy,
            now_ns=now_ns,
            deadline=deadline,
            mode=self._mode,
        )
        await admitted.decide()
        return admitted

    async def summary(self, admitted: Admitted, asked: ReportRange) -> wire.Summary:
        """Totals over a range."""
        asking = self._begin(admitted, asked)
        needs = groupings.of_summary(self.privacy)
        async with task_group() as group:
            inventory = group.create_task(asking.inventory())
            usage = group.create_task(asking.usage())
            calls = group.create_task(self._calls(asking, needs))
            restated = group.create_task(asking.restated(needs, usage=True))
        report = await _built(
            calls.result(),
            lambda: reports.summary(
                asked,
                asking.knows_ns,
                inventory.result(),
                _total(usage.result()),
                calls.result(),
                privacy=self.privacy,
                usage_by_period=_by_period(usage.result()),
            ),
        )
        return self._said(report, restated.result())

    async def breakdown(
        self,
        admitted: Admitted,
        asked: ReportRange,
        group_by: GroupBy,
        *,
        group_by_text: str,
        include_users: bool,
        include_usage: bool,
    ) -> wire.Breakdown:
        """Rows per service, user, country, owner, VO or project.

        Usage is for services and owners only. Raises Forbidden for owners where the viewer's
        caller is no administrator.
        """
        by_owner = group_by is GroupBy.OWNER
        if by_owner and not admitted.viewer.caller.administrator:
            raise Forbidden
        ownership = await _ownership(admitted) if by_owner else None
        asking = self._begin(admitted, asked, ownership)
        needs = groupings.of_breakdown(group_by, self.privacy)
        with_usage = include_usage and group_by in (GroupBy.SERVICE, GroupBy.OWNER)
        async with task_group() as group:
            told = group.create_task(self._calls(asking, needs))
            used = group.create_task(asking.usage()) if with_usage else None
            rests_on_it = with_usage and not by_owner
            deployed = group.create_task(asking.inventory()) if rests_on_it else None
            again = group.create_task(asking.restated(needs, usage=with_usage))
        calls, knows_ns, privacy = told.result(), asking.knows_ns, self.privacy
        # Whose each service is, is told by what is deployed now.
        now = asking.told(await admitted.live.inventory()) if by_owner else None
        usage = None if used is None else _total(used.result())
        by_period = None if used is None else _by_period(used.result())

        def made() -> wire.Breakdown:
            if now is not None:
                return owner_reports.owner_breakdown(
                    asked,
                    knows_ns,
                    calls,
                    now,
                    ownership,
                    group_by=group_by_text,
                    privacy=privacy,
                    usage=usage,
                    usage_by_period=by_period,
                )
            if group_by is GroupBy.USER:
                return reports.user_breakdown(
                    asked, knows_ns, calls, group_by=group_by_text, privacy=privacy
                )
            if group_by is GroupBy.VO or group_by is GroupBy.PROJECT:
                return affiliation_reports.affiliation_breakdown(
                    asked, knows_ns, calls, by=group_by, group_by=group_by_text, privacy=privacy
                )
            if group_by is GroupBy.COUNTRY:
                return reports.country_breakdown(
                    asked, knows_ns, calls, group_by=group_by_text, privacy=privacy
                )
            return reports.service_breakdown(
                asked,
                knows_ns,
                calls,
                group_by=group_by_text,
                include_users=include_users,
                privacy=privacy,
                inventory=None if deployed is None else deployed.result(),
                usage=usage,
                usage_by_period=by_period,
            )

        return self._said(await _built(calls, made), again.result())

    async def value(
        self, admitted: Admitted, asked: ReportRange, service: str, metric: Metric
    ) -> wire.Value:
        """One of `SERVICE_METRICS` of one service; zero where nothing is known of it.

        Raises Forbidden where the viewer may not know of it.
        """
        asking = self._begin(admitted, asked)
        await _refuse_unseen(admitted, asking, service)
        source = figures.source_of(metric)
        outcome: Outcome[Usage] | Outcome[ServiceCount]
        if source is SourceName.USAGE:
            outcome = _total(await asking.usage(service=service))
            restated = await asking.restated((), usage=True)
        else:
            stream = LogStream(source.value)
            users = metric is Metric.USERS_PER_SERVICE
            outcome = (await asking.counts(service, [stream], users=users))[stream]
            restated = await asking.restated([stream], usage=False)
        figure = self._figure(asking, asked, service, metric, outcome)
        return self._said(figures.value(asked, service, figure), restated)

    async def service(
        self, admitted: Admitted, asked: ReportRange, service: str
    ) -> wire.ServiceMetrics:
        """Every metric of one service; raises Forbidden where the viewer may not know of it."""
        asking = self._begin(admitted, asked)
        await _refuse_unseen(admitted, asking, service)
        async with task_group() as group:
            usage = group.create_task(asking.usage(service=service))
            counts = group.create_task(asking.counts(service, LogStream, users=True))
            restated = group.create_task(asking.restated(LogStream, usage=True))
        found = []
        for metric in wire.SERVICE_METRICS:
            source = figures.source_of(metric)
            outcome = (
                _total(usage.result())
                if source is SourceName.USAGE
                else counts.result()[LogStream(source.value)]
            )
            figure = self._figure(asking, asked, service, metric, outcome)
            self._remember(figure.sources)
            found.append(figure)
        report = figures.service_metrics(asked, service, found)
        again = restated.result()
        return report if again is None else reports.with_restated(report, again)

    async def owners(self, admitted: Admitted) -> Outcome[wire.Owners]:
        """Whom an administrator may filter by: who owns, or owned, a namespace or a service."""
        everyone = owner_reports.owners(await admitted.ownership(), self.privacy)
        return private(with_facts(await admitted.live.inventory(), everyone), self.privacy)

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
        found = [*_not_configured(sources), *found, *sources.geoip.check(now_ns)]
        if sources.logs is None:
            return found
        deadline = asyncio.get_running_loop().time() + _LAST_DAY_SECONDS
        live = Live(sources, self._telemetry, now_ns=now_ns, deadline=deadline)
        has_geoip = not isinstance(sources.geoip.outcome(), Unavailable)
        return found + await last_day(live, now_ns, has_geoip=has_geoip)

    async def aclose(self) -> None:
        """Let go of every source's connections."""
        for connection in self._sources.connections:
            await connection.aclose()

    def _begin(
        self, admitted: Admitted, asked: ReportRange, ownership: Ownership | None = None
    ) -> Asking:
        holder, reading = self._ledger, None
        if holder is not None and holder.store is not None:
            reading = LedgerReading(
                holder.store,
                asked.span,
                now_ns=admitted.now_ns,
                as_of_ns=asked.as_of_ns,
                bounds_ns=bounds_ns(asked),
                rows_max=holder.rows_max,
                deadline=admitted.deadline,
            )
        return Asking(
            admitted.live,
            asked,
            now_ns=admitted.now_ns,
            ledger=reading,
            problem="" if holder is None else holder.problem,
            scope=admitted.scope(),
            ownership=ownership,
        )

    async def _calls(self, asking: Asking, needs: Needs) -> Calls:
        sums = await asking.calls(needs)
        return Calls(
            executions=sums.get(LogStream.EXECUTIONS, NO_LOGS),
            exposed=sums.get(LogStream.EXPOSED, NO_LOGS),
            geoip=asking.told(self._sources.geoip.outcome()),
            roster=await asking.roster(),
        )

    def _figure(
        self,
        asking: Asking,
        asked: ReportRange,
        service: str,
        metric: Metric,
        outcome: Outcome[Usage] | Outcome[ServiceCount],
    ) -> wire.ServiceMetric:
        return figures.service_metric(
            asked, asking.knows_ns, service, metric, outcome, privacy=self.privacy
        )

    def _said(self, report: _Report, restated: list[Restated] | None) -> _Report:
        self._remember(report.sources)
        return report if restated is None else reports.with_restated(report, restated)

    def _remember(self, sources: Iterable[wire.SourceStatus]) -> None:
        for source in sources:
            self._telemetry.source_outcomes.labels(source.name, source.status).inc()
            self._last_said[source.name] = LastSaid(
                status=source.status,
                notes=source.notes or "",
                at=format_instant(self.now_ns()),
            )


async def _ownership(admitted: Admitted) -> Ownership | None:
    """Whose each service is; None without an inventory."""
    inventory = await admitted.live.inventory()
    return None if isinstance(inventory, Unavailable) else await admitted.ownership()


async def _refuse_unseen(admitted: Admitted, asking: Asking, service: str) -> None:
    """Raise Forbidden for a service that never was in the scope of a user.

    An administrator may know of all. One that no inventory knows may have been deployed before
    there were any: records in the viewer's own namespace show it.
    """
    if admitted.viewer.caller.administrator or admitted.has_service(service):
        return
    async with task_group() as group:
        usage = group.create_task(asking.usage(service=service))
        counts = group.create_task(asking.counts(service, LogStream, users=False))
    used = usage.result()
    called = [count for count in counts.result().values() if not isinstance(count, Unavailable)]
    if any(any(count.facts.calls.values()) for count in called):
        return
    if isinstance(used, Unavailable) or not hours_by_service(total_usage(used.facts)).get(service):
        raise Forbidden


async def _built(calls: Calls, build: Callable[[], T]) -> T:
    """A report of some calls, which takes a second where there are many groups of them."""
    return await worked_out(build, rows=_groups(calls.executions) + _groups(calls.exposed))


def _groups(calls: Outcome[CallSums]) -> int:
    return 0 if isinstance(calls, Unavailable) else calls.facts.size


def _not_configured(sources: Sources) -> list[Finding]:
    """What reports will miss because nobody was named to ask."""
    absent = (
        (sources.logs, SourceName.REQUEST_LOGS, Level.PROBLEM, NO_LOGS),
        (sources.inventory, SourceName.INVENTORY, Level.WARNING, NO_CLUSTER),
        (sources.usage, SourceName.USAGE, Level.WARNING, NO_USAGE),
    )
    return [
        Finding(source=name, level=level, says=sentence(outcome.notes), change="configure one")
        for source, name, level, outcome in absent
        if source is None
    ]


def _total(outcome: Outcome[UsageByPeriod]) -> Outcome[Usage]:
    if isinstance(outcome, Unavailable):
        return outcome
    return with_facts(outcome, total_usage(outcome.facts))


def _by_period(outcome: Outcome[UsageByPeriod]) -> Mapping[int, Usage] | None:
    return None if isinstance(outcome, Unavailable) else outcome.facts
