"""What sources say now of a stretch of time, for one report: under one deadline, guarded.

None can fail a report: one that breaks its promise not to raise is missing, and logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from oscar_metrics.completeness import sentence
from oscar_metrics.facts import CallLog, Inventory, LogStream, Roster, ServiceCount, Usage
from oscar_metrics.outcome import Outcome, Unavailable
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.guarding import guarded
from oscar_metrics.sources.interfaces import CountingLogSource, LogSource, Sources
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import Span

F = TypeVar("F")

NO_CLUSTER = Unavailable(
    origin="",
    notes=("no Kubernetes cluster is configured (OSCAR_METRICS_KUBERNETES)",),
)
NO_USAGE = Unavailable(origin="", notes=("no Prometheus is configured (PROMETHEUS_URL)",))
NO_LOGS = Unavailable(
    origin="",
    notes=(
        "no request log is configured (LOKI_URL, OSCAR_METRICS_LOG_FILES, or a cluster's pod logs)",
    ),
)
# How long past the deadline a source may take to hand over what it has.
_HAND_OVER_SECONDS = 0.5
# Stretches of one range that are asked of one kind of source at a time.
_AT_A_TIME = 4


class Live:
    """Asks the sources for one report; `deadline` is an event loop's time, or None."""

    def __init__(
        self, sources: Sources, telemetry: Telemetry, *, now_ns: int, deadline: float | None
    ) -> None:
        self._sources = sources
        self._telemetry = telemetry
        self._now_ns = now_ns
        self._deadline = deadline
        self._asker = Asker(deadline)
        self._usage_slots = asyncio.Semaphore(_AT_A_TIME)
        self._log_slots = asyncio.Semaphore(_AT_A_TIME)
        self._roster_lock = asyncio.Lock()
        self._roster: Outcome[Roster] | None = None
        self._inventory_lock = asyncio.Lock()
        self._inventory: Outcome[Inventory] | None = None
        self._countries: Countries | None = None

    @property
    def has_usage(self) -> bool:
        """Whether anyone can be asked for usage."""
        return self._sources.usage is not None

    @property
    def has_logs(self) -> bool:
        """Whether anyone can be asked for calls."""
        return self._sources.logs is not None

    async def inventory(self) -> Outcome[Inventory]:
        """What is deployed now; read once, so that one report is of one state.

        Within half of the time there is.
        """
        source = self._sources.inventory
        if source is None:
            return NO_CLUSTER
        async with self._inventory_lock:
            if self._inventory is None:
                # Usage, and whose everything is, wait for it, and are to be had in time as well.
                by = None if self._deadline is None else _half_way_to(self._deadline)
                read = source.read(now_ns=self._now_ns, deadline=by)
                self._inventory = await self._guarded("kubernetes", read, Asker(by))
            return self._inventory

    async def usage(self, span: Span, known: Outcome[Inventory]) -> Outcome[Usage]:
        """CPU and GPU time over a stretch."""
        source = self._sources.usage
        if source is None:
            return NO_USAGE
        async with self._usage_slots:
            return await self._guarded(
                "prometheus",
                source.read(span, known, now_ns=self._now_ns, deadline=self._deadline),
            )

    async def roster(self) -> Outcome[Roster]:
        """What is known of users; read once."""
        async with self._roster_lock:
            if self._roster is None:
                self._roster = await self._guarded("file", self._sources.roster.read(self._now_ns))
            return self._roster

    async def logs(
        self, span: Span, streams: frozenset[LogStream], *, slotted: bool
    ) -> dict[LogStream, Outcome[Any]]:
        """Each log's calls over a stretch: a CallLog, or `slotted` a SlottedLog.

        Where the log source says nothing at all, the one that stands in for it is asked.
        """
        sources = self._sources
        countries = await self._country_lookup()
        async with self._log_slots:
            outcomes = await self._read(sources.logs, span, streams, countries, slotted)
            unread = frozenset(s for s in streams if isinstance(outcomes[s], Unavailable))
            if not unread or sources.fallback_logs is None:
                return outcomes
            instead = await self._read(sources.fallback_logs, span, unread, countries, slotted)
        return outcomes | {
            stream: _instead_of(outcomes[stream], outcome) for stream, outcome in instead.items()
        }

    async def count(
        self, span: Span, stream: LogStream, service: str, *, users: bool
    ) -> Outcome[ServiceCount] | None:
        """One service's calls, counted by the log's engine; None where the log is to be read."""
        counting: CountingLogSource | None = self._sources.counting
        if counting is None:
            return None
        async with self._log_slots:
            outcome = await self._guarded(
                counting.origin,
                counting.count_service(
                    span,
                    stream,
                    service,
                    users=users,
                    now_ns=self._now_ns,
                    deadline=self._deadline,
                ),
            )
        if isinstance(outcome, Unavailable) and self._sources.fallback_logs is not None:
            return None
        return outcome

    async def _country_lookup(self) -> Countries:
        roster = await self.roster()
        if self._countries is None:
            geoip = self._sources.geoip
            await asyncio.to_thread(geoip.refresh)
            known = Roster() if isinstance(roster, Unavailable) else roster.facts
            self._countries = Countries(geoip, known)
        return self._countries

    async def _read(
        self,
        source: LogSource | None,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        slotted: bool,
    ) -> dict[LogStream, Outcome[Any]]:
        if source is None:
            return dict.fromkeys(streams, NO_LOGS)
        read: Callable[..., Awaitable[dict[LogStream, Outcome[Any]]]] = (
            source.read_slots if slotted else source.read
        )
        outcomes = await self._guarded(
            source.origin,
            read(span, streams, countries, now_ns=self._now_ns, deadline=self._deadline),
        )
        if isinstance(outcomes, Unavailable):
            return dict.fromkeys(streams, outcomes)
        for outcome in outcomes.values():
            if not isinstance(outcome, Unavailable):
                self._count_lines(source.origin, logs_in(outcome.facts))
        return outcomes

    def _count_lines(self, origin: str, logs: Iterable[CallLog]) -> None:
        for log in logs:
            self._telemetry.lines_seen.labels(origin).inc(log.lines_seen)
            self._telemetry.lines_understood.labels(origin).inc(log.lines_understood)

    async def _guarded(
        self, origin: str, answer: Awaitable[F], asker: Asker | None = None
    ) -> F | Unavailable:
        asker = asker or self._asker
        backstop = None if asker.deadline is None else asker.deadline + _HAND_OVER_SECONDS
        with asking_for(asker):
            return await guarded(origin, answer, backstop)


def _half_way_to(deadline: float) -> float:
    now = asyncio.get_running_loop().time()
    return now + max(0.0, deadline - now) / 2


class SharedReads:
    """Stretches of the logs, each read once for all the streams that want it."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        wanted: Mapping[Span, set[LogStream]],
        read: Callable[..., Awaitable[dict[LogStream, Outcome[Any]]]],
    ) -> None:
        self._group = group
        self._wanted = wanted
        self._read = read
        self._begun: dict[
            tuple[Span, frozenset[LogStream]], asyncio.Task[dict[LogStream, Outcome[Any]]]
        ] = {}

    async def of(self, span: Span, stream: LogStream) -> dict[LogStream, Outcome[Any]]:
        """What the logs say of a stretch, of this stream and of others that want it."""
        streams = frozenset(self._wanted.get(span, ()))
        if stream not in streams:
            # Its plan does not have the stretch open: the ledger failed to read it back.
            streams = frozenset(LogStream) - streams
        key = span, streams
        if key not in self._begun:
            self._begun[key] = self._group.create_task(self._of(span, streams))
        return await self._begun[key]

    async def _of(self, span: Span, streams: frozenset[LogStream]) -> dict[LogStream, Outcome[Any]]:
        return await self._read(span, streams)


def logs_in(facts: Any) -> list[CallLog]:
    """The logs of a CallLog or a SlottedLog."""
    return [facts] if isinstance(facts, CallLog) else list(facts.values())


def _instead_of(failed: Outcome[F], outcome: Outcome[F]) -> Outcome[F]:
    """The second source's outcome, saying what it stands in for; the first's if it has none."""
    if isinstance(outcome, Unavailable):
        return failed
    note = f"read instead of {failed.origin}, which said: {sentence(failed.notes)}"
    return msgspec.structs.replace(outcome, notes=(*outcome.notes, note))
