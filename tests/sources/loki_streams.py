"""A Loki for a test: streams of its own in a shared server, and how to ask it."""

from __future__ import annotations

import asyncio
import copy
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from oscar_metrics.facts import CallLog, LogStream, Roster, ServiceCount
from oscar_metrics.findings import Finding
from oscar_metrics.outcome import Ok, Outcome, Partial
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.sources.tallying import Tallier
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span
from tests.servers.loki import Loki

COUNTRIES = Countries(GeoIP.open(None), Roster())
_numbers = itertools.count()


class Streams:
    """Streams that only one test writes and reads, told from others by their namespace.

    `slot_ns` begins a slot of two hours ago: lines of then are visible as soon as they are
    written, and those slots are over.
    """

    def __init__(self, loki: Loki, **settings: object) -> None:
        self.loki = loki
        self.namespace = f"test-{next(_numbers)}"
        self.now_ns = time.time_ns()
        self.telemetry = Telemetry()
        self.slot_ns = self.now_ns // SLOT_NS * SLOT_NS - 2 * HOUR_NS
        self.settings = msgspec.convert(
            {
                "url": loki.url,
                "namespace": self.namespace,
                "limits": UpstreamLimits(attempts=1, timeout_seconds=10),
                **settings,
            },
            LokiSettings,
        )

    def at(self, url: str) -> Streams:
        """The same streams, asked for at another URL."""
        there = copy.copy(self)
        there.settings = msgspec.structs.replace(self.settings, url=url)
        return there

    def write(self, entries: Sequence[tuple[int, str]], **labels: str) -> None:
        """Write lines to the stream with these labels beside namespace and app."""
        stream = {"namespace": self.namespace, "app": "oscar", **labels}
        self.loki.push([(stream, entries)])

    def keep_alive(self, start_ns: int, stop_ns: int) -> None:
        """A line that is no call, a minute before the end of each slot."""
        slots = range(start_ns // SLOT_NS, -(-stop_ns // SLOT_NS))
        self.write([((slot + 1) * SLOT_NS - 60 * SECOND_NS, "probe") for slot in slots])

    def flush(self, start_ns: int, stop_ns: int, expected: int) -> None:
        """Make lines of more than two and a half hours ago visible."""
        self.loki.flush_and_wait(f'{{namespace="{self.namespace}"}}', start_ns, stop_ns, expected)

    def calls(self, reason: str) -> float:
        """How many calls to Loki ended with a reason (`ok` for none)."""
        labels = {"upstream": "loki", "reason": reason}
        name = "oscar_metrics_upstream_call_duration_seconds_count"
        return self.telemetry.registry.get_sample_value(name, labels) or 0

    async def read(
        self,
        start_ns: int,
        stop_ns: int,
        *,
        stream: LogStream = LogStream.EXECUTIONS,
        seconds: float | None = None,
    ) -> Outcome[CallLog]:
        """What reading a span gives, by a source made for this one call."""
        logs = LokiLogs(self.settings, telemetry=self.telemetry)
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        try:
            outcomes = await logs.read(
                Span(start_ns, stop_ns),
                frozenset({stream}),
                COUNTRIES,
                now_ns=self.now_ns,
                deadline=deadline,
            )
        finally:
            await logs.aclose()
        return outcomes[stream]

    async def check(self) -> list[Finding]:
        """What `check` finds."""
        logs = LokiLogs(self.settings, telemetry=self.telemetry)
        try:
            return await logs.check(self.now_ns)
        finally:
            await logs.aclose()

    async def count(
        self,
        start_ns: int,
        stop_ns: int,
        service: str,
        *,
        users: bool = True,
        stream: LogStream = LogStream.EXECUTIONS,
    ) -> Outcome[ServiceCount]:
        """What counting one service gives, by a source made for this one call."""
        logs = LokiLogs(self.settings, telemetry=self.telemetry)
        try:
            return await logs.count_service(
                Span(start_ns, stop_ns),
                stream,
                service,
                users=users,
                now_ns=self.now_ns,
                deadline=None,
            )
        finally:
            await logs.aclose()


def call(
    user: str = "alice",
    service: str = "cowsay",
    *,
    kind: str = "run",
    status: int = 200,
    note: str = "",
) -> str:
    """An execution line; `note` (in the latency) makes it differ from others like it."""
    return (
        f"[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:00:00Z | {status} | {note}ms | 10.0.0.1 |"
        f" POST    /{kind}/{service} | {user}"
    )


def facts(outcome: Outcome[CallLog]) -> CallLog:
    """The facts of an outcome that has some."""
    assert isinstance(outcome, Ok | Partial), outcome
    return outcome.facts


def total(outcome: Outcome[CallLog]) -> int:
    """How many calls an outcome counts."""
    return sum(facts(outcome).tallies.values())


def line_by_line(lines: Iterable[str], labels: Mapping[str, str] | None = None) -> CallLog:
    """What the same lines are, read one by one without Loki."""
    tallier = Tallier(LogStream.EXECUTIONS, COUNTRIES)
    tallier.add(list(lines), country_label=(labels or {}).get("country", ""))
    return tallier.result()
