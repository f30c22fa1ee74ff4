"""The request logs read from pods: OSCAR's manager and the gateway, where there is no Loki.

Every container of every pod is read, its run now and the one before, as a stream: lines
become tallies as they pass. `kubernetes_pods` says what that covers, and why not more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Annotated, Generic, Protocol, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.facts import CallLog, LogStream, SlottedLog
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import GapReason, Outcome, Unavailable, not_understood, settle
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.kubernetes import APPLY_RBAC, CHANGE
from oscar_metrics.sources.kubernetes_client import KubernetesClient, Page, not_asked_for
from oscar_metrics.sources.kubernetes_log_lines import KubeletLines
from oscar_metrics.sources.kubernetes_pods import (
    Container,
    Pod,
    Reading,
    Run,
    containers_of,
    gaps_of,
)
from oscar_metrics.sources.slotted_tallying import SlottedTallier, lines_of
from oscar_metrics.sources.tallying import Tallier
from oscar_metrics.timerange import SECOND_NS, Span, format_instant, parse_instant

L = TypeVar("L")
L_co = TypeVar("L_co", covariant=True)

_ORIGIN = "pod-logs"
_PODS = msgspec.json.Decoder(Page[Pod])
# Enough for the time at the beginning of a line.
_PROBE_BYTES = 64
_GONE = "read from the pods there are now; what deleted pods had logged is not in it"


class PodLogsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose logs are read, and how much of them."""

    # The namespace of OSCAR's manager; its pods have the label app=oscar.
    namespace: str = "oscar"
    # The namespace of the gateway, and the label app.kubernetes.io/name of its pods.
    exposed_namespace: str = "ingress-nginx"
    exposed_app: str = "ingress-nginx"
    # Base host of services with hosts of their own (Traefik); blank: by path only.
    ingress_host: str = ""
    # Containers read at a time, of each of the two logs.
    concurrency: Annotated[int, Meta(ge=1)] = 4
    # Pods of one log; with more, the log is not read at all.
    most_pods: Annotated[int, Meta(ge=1)] = 500
    # A longer line (bytes) is cut.
    line_bytes: Annotated[int, Meta(ge=1024)] = 256 * 1024
    # Bytes one report reads of each of the two logs; what is beyond is a gap.
    report_bytes: Annotated[int, Meta(ge=2**20)] = 4 * 1024**3


class PodLogs:
    """The request logs of one cluster's pods."""

    origin = _ORIGIN

    def __init__(self, client: KubernetesClient, settings: PodLogsSettings) -> None:
        self._client = client
        self._settings = settings

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]:
        """What each of the logs says of the span; one that fails leaves the other alone."""
        host = self._settings.ingress_host
        return await self._read(
            span,
            {stream: Tallier(stream, countries, ingress_host=host) for stream in streams},
            lambda log: (log.lines_seen, log.lines_understood),
            now_ns=now_ns,
            deadline=deadline,
        )

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        """The same by parts of quarter-hours."""
        host = self._settings.ingress_host
        return await self._read(
            span,
            {stream: SlottedTallier(stream, countries, ingress_host=host) for stream in streams},
            lines_of,
            now_ns=now_ns,
            deadline=deadline,
        )

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:  # noqa: ARG002 - what every log source is asked
        """Not known: when logs are rotated depends on what is written to them."""
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        """Whether the pods of both logs are found and readable, and how far back they reach."""
        findings = []
        for stream in LogStream:
            source = _PodSource(self._client, self._settings, stream)
            try:
                findings += await source.check(now_ns)
            except UpstreamError as exc:
                findings.append(
                    _finding(Level.PROBLEM, f"{source.where}: {exc}", CHANGE.get(exc.reason, ""))
                )
            except _NothingToRead as exc:
                findings.append(_finding(Level.PROBLEM, str(exc), source.change))
            except _LogGone:
                says = f"{source.where}: a log is not where the kubelet looks for it"
                findings.append(_finding(Level.PROBLEM, says, "look at the kubelet's own log"))
        return findings

    async def _read(
        self,
        span: Span,
        tallies: dict[LogStream, _Tally[L]],
        lines: Callable[[L], tuple[int, int]],
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[L]]:
        async with asyncio.TaskGroup() as group:
            tasks = {
                stream: group.create_task(
                    _StreamReading(
                        _PodSource(self._client, self._settings, stream),
                        self._settings,
                        span,
                        tally,
                        lines,
                    ).outcome(now_ns, deadline)
                )
                for stream, tally in tallies.items()
            }
        return {stream: task.result() for stream, task in tasks.items()}


class _NothingToRead(Exception):
    """There are no pods to read, or too many; the text says which."""


class _LogGone(Exception):
    """The kubelet has no log of this run any more."""


class _TooMuch(Exception):
    """The report has read as many bytes as it may."""


class _PodSource:
    """The pods that write one of the logs."""

    def __init__(
        self, client: KubernetesClient, settings: PodLogsSettings, stream: LogStream
    ) -> None:
        if stream is LogStream.EXECUTIONS:
            self._namespace, self._label = settings.namespace, ("app", "oscar")
            self.change = "set OSCAR_NAMESPACE to the namespace of OSCAR's manager"
        else:
            self._namespace = settings.exposed_namespace
            self._label = ("app.kubernetes.io/name", settings.exposed_app)
            self.change = "set LOKI_EXPOSED_NAMESPACE and LOKI_EXPOSED_APP to the gateway's"
        self._selector = "=".join(self._label)
        self.where = f"pods {self._selector} in namespace {self._namespace}"
        self._client = client
        self._most_pods = settings.most_pods
        self._pods_path = f"/api/v1/namespaces/{quote(self._namespace, safe='')}/pods"

    async def containers(self) -> list[Container]:
        """The containers of all pods; raises _NothingToRead where there are none."""
        name, value = self._label

        def keep(pod: Pod) -> tuple[str, list[Container]]:
            about = pod.metadata
            if about.namespace != self._namespace or (about.labels or {}).get(name) != value:
                raise not_asked_for("a pod of another namespace or label")
            return about.uid, containers_of(pod)

        pods = await self._client.list_all(
            self._pods_path,
            {"labelSelector": self._selector},
            _PODS,
            keep,
            kind="PodList",
            most=self._most_pods,
        )
        if pods.cut:
            raise _NothingToRead(f"{self.where}: there are more than {self._most_pods}")
        if not pods.items:
            raise _NothingToRead(f"{self.where}: there are none")
        if len({uid for uid, _ in pods.items}) < len(pods.items):
            raise not_asked_for("a pod twice")
        return [container for _, containers in pods.items for container in containers]

    def log(
        self, run: Run, **params: str
    ) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A run's log in pieces, each line behind its time."""
        params |= {"container": run.container, "timestamps": "true"}
        if run.previous:
            params["previous"] = "true"
        return self._client.stream(f"{self._pods_path}/{quote(run.pod, safe='')}/log", params)

    async def first_ns(self, run: Run) -> int | None:
        """The time of a log's oldest line, or None where it is empty; raises _LogGone."""
        beginning = b""
        async with self.log(run, limitBytes=str(_PROBE_BYTES)) as pieces:
            async for piece in pieces:
                beginning += piece
                if len(beginning) >= _PROBE_BYTES:
                    break
        if not beginning:
            return None
        try:
            return parse_instant(beginning.split(b" ", 1)[0].decode())
        except ValueError:
            # Where a log should be, the kubelet then says that it cannot find it.
            raise _LogGone from None

    async def check(self, now_ns: int) -> list[Finding]:
        for verb, resource in (("list", "pods"), ("get", "pods/log")):
            if not await self._client.may(verb, resource, namespace=self._namespace):
                says = f"may not {verb} {resource} in namespace {self._namespace}"
                return [_finding(Level.PROBLEM, says, APPLY_RBAC)]
        containers = await self.containers()
        span = Span(now_ns - SECOND_NS, now_ns)
        runs = [run for container in containers for run in container.runs if not run.previous]
        if not runs or gaps_of(span, containers, {}):
            return [_finding(Level.PROBLEM, f"{self.where}: none runs", "look at their events")]
        since_ns = [await self._covered_since_ns(run) for run in runs]
        says = f"{self.where}: {len(runs)} containers, logs complete since "
        return [_finding(Level.OK, says + format_instant(max(since_ns)))]

    async def _covered_since_ns(self, run: Run) -> int:
        reading = Reading()
        reading.failed, reading.first_ns = None, await self.first_ns(run)
        return reading.covered(run).start_ns


class _Tally(Protocol[L_co]):
    """Counts lines; what it counted is an L."""

    def add_timed(self, lines: Iterable[tuple[int, str]]) -> None:
        """Count lines with their instants."""

    def result(self) -> L_co:
        """What was counted so far."""


class _StreamReading(Generic[L]):
    """One log read for one report."""

    def __init__(
        self,
        source: _PodSource,
        settings: PodLogsSettings,
        span: Span,
        tally: _Tally[L],
        lines: Callable[[L], tuple[int, int]],
    ) -> None:
        self._source = source
        self._settings = settings
        self._span = span
        self._tally = tally
        self._lines = lines
        self._containers: list[Container] = []
        self._readings: dict[Run, Reading] = {}
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._bytes_left = settings.report_bytes
        self._doubts: set[str] = set()

    async def outcome(self, now_ns: int, deadline: float | None) -> Outcome[L]:
        """What the log says of the span by the deadline."""
        try:
            async with asyncio.timeout_at(deadline):
                self._containers = await self._source.containers()
                await self._read()
                await self._notice_restarts()
        except TimeoutError:
            note = f"{self._source.where}: kubernetes {REASON_TEXT[Reason.DEADLINE]}"
            if not self._containers:
                return Unavailable(origin=_ORIGIN, notes=(note,))
            self._doubts.add(note)
        except UpstreamError as exc:
            if not self._containers:
                return Unavailable(origin=_ORIGIN, notes=(f"{self._source.where}: {exc}",))
            self._doubts.add(f"whether a pod restarted meanwhile is not known: {exc}")
        except _NothingToRead as exc:
            return Unavailable(origin=_ORIGIN, notes=(str(exc),))
        calls = self._tally.result()
        lines_seen, lines_understood = self._lines(calls)
        self._doubts.update(not_understood(lines_seen, lines_understood))
        gaps = gaps_of(self._span, self._containers, self._readings)
        return settle(
            calls,
            origin=_ORIGIN,
            asked=self._span,
            now_ns=now_ns,
            gaps=gaps,
            doubts=sorted(self._doubts),
            notes=(_GONE,),
            anything_read=bool(lines_seen),
        )

    async def _read(self) -> None:
        wanted = [
            [run for run in container.runs if self._touches(run)] for container in self._containers
        ]
        self._readings = {run: Reading() for runs in wanted for run in runs}
        async with asyncio.TaskGroup() as group:
            for runs in wanted:
                group.create_task(self._read_container(runs))

    def _touches(self, run: Run) -> bool:
        # Times of runs are rounded down to seconds, so the last lines may come after the stop.
        return (
            run.started_ns < self._span.stop_ns
            and run.span.stop_ns > self._span.start_ns - SECOND_NS
        )

    async def _read_container(self, runs: list[Run]) -> None:
        """Read a container's runs, the older first.

        If it restarts meanwhile, that order can miss a run, which is noticed, and never reads
        one twice.
        """
        async with self._slots:
            for run in runs:
                reading = self._readings[run]
                try:
                    await self._read_run(run, reading)
                    reading.failed = None
                except UpstreamError as exc:
                    if exc.reason in (Reason.NOT_FOUND, Reason.REFUSED):
                        reading.failed = GapReason.ROTATED  # the pod, or that run, is gone
                    else:
                        reading.failed = GapReason.FAILED
                        self._doubts.add(f"pod {run.pod}: {exc}")
                except _LogGone:
                    reading.failed = GapReason.ROTATED
                except _TooMuch:
                    reading.failed = GapReason.TOO_MUCH

    async def _read_run(self, run: Run, reading: Reading) -> None:
        """Tally a run's lines of the span, and find out from when on its log is there."""
        lines = KubeletLines(self._span, line_bytes=self._settings.line_bytes)
        params: dict[str, str] = {}
        begins_before = run.started_ns < self._span.start_ns
        if begins_before:
            whole_ns = self._span.start_ns // SECOND_NS * SECOND_NS
            params["sinceTime"] = format_instant(whole_ns)
        async with self._source.log(run, **params) as pieces:
            async for piece in pieces:
                self._bytes_left -= len(piece)
                if self._bytes_left < 0:
                    raise _TooMuch
                self._tally.add_timed(lines.feed(piece))
                reading.first_ns, reading.reached_ns = lines.first_ns, lines.reached_ns
                if lines.past_span:
                    break
            self._tally.add_timed(lines.end())
        reading.first_ns = lines.first_ns
        if lines.odd:
            self._doubts.add(f"pod {run.pod}: {lines.odd} lines of its log have no time")
        if begins_before:
            # Asked after the reading: what is rotated away in between is then not claimed.
            first_ns = await self._source.first_ns(run)
            if reading.first_ns is None or (first_ns is not None and first_ns < reading.first_ns):
                reading.first_ns = first_ns
        elif lines.first_ns is None and lines.began:
            raise _LogGone

    async def _notice_restarts(self) -> None:
        """Take back what was read of containers that restarted while it was."""
        try:
            containers = await self._source.containers()
        except _NothingToRead:
            return  # gone, not restarted
        runs = [run for container in containers for run in container.runs]
        there = {run.uid for run in runs}
        same = {(run.uid, run.container, run.started_ns, run.previous) for run in runs}
        for run, reading in self._readings.items():
            mark = (run.uid, run.container, run.started_ns, run.previous)
            if run.uid in there and mark not in same:
                reading.failed, reading.reached_ns = GapReason.FAILED, 0
                self._doubts.add(f"pod {run.pod}: it restarted while its log was read")


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_ORIGIN, level=level, says=says, change=change)
