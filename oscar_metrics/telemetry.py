"""The process's own metrics and log: what we say of ourselves, with bounded labels only."""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import threading
from functools import cached_property
from json import JSONEncoder
from typing import TextIO

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Telemetry:
    """One process's metrics, on a registry of its own; one instance is made at start-up.

    Label values come from closed sets (route templates, upstream and source names,
    `errors.Reason`), never from a request or an upstream's text.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.http_requests = Histogram(
            "http_server_request_duration_seconds",
            "Duration of requests answered, by route template.",
            ("http_route", "http_request_method", "http_response_status_code"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.connections = Gauge(
            "oscar_metrics_connections",
            "Clients' connections that have a place.",
            registry=self.registry,
        )
        self.connections_refused = Counter(
            "oscar_metrics_connections_refused_total",
            "Clients' connections that were told to come again, because all places were taken.",
            registry=self.registry,
        )
        self.tasks = Gauge(
            "oscar_metrics_tasks",
            "Tasks of the event loop, the one that answers this among them.",
            registry=self.registry,
        )
        self.upstream_calls = Histogram(
            "oscar_metrics_upstream_call_duration_seconds",
            "Duration of calls to other systems; reason is `ok` or why it was of no use.",
            ("upstream", "reason"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # Whether each upstream is asked, as the gauge below has it.
        self.breakers: dict[str, str] = {}
        self.breaker_state = Gauge(
            "oscar_metrics_upstream_breaker_state",
            "1 for the state: closed (it is asked), open (it is not), half-open (by one call).",
            ("upstream", "state"),
            registry=self.registry,
        )
        self.breaker_openings = Counter(
            "oscar_metrics_upstream_breaker_openings_total",
            "How often it was no longer asked for a while, after failing again and again.",
            ("upstream",),
            registry=self.registry,
        )
        self.calls_refused = Counter(
            "oscar_metrics_upstream_calls_refused_total",
            "Calls that were not made, because the upstream is not asked for a while.",
            ("upstream",),
            registry=self.registry,
        )
        self.retries = Counter(
            "oscar_metrics_upstream_retries_total",
            "Retries that might have helped: made, over budget, or too late for the report.",
            ("upstream", "decision"),
            registry=self.registry,
        )
        self.retries_allowed = Gauge(
            "oscar_metrics_upstream_retries_allowed",
            "Retries that the calls of the last minute allow.",
            ("upstream",),
            registry=self.registry,
        )
        self.retries_left = Gauge(
            "oscar_metrics_upstream_retries_left",
            "Those of them that were not made.",
            ("upstream",),
            registry=self.registry,
        )
        self.places = Gauge(
            "oscar_metrics_upstream_places",
            "Calls that may be under way at once.",
            ("upstream",),
            registry=self.registry,
        )
        self.calls_in_progress = Gauge(
            "oscar_metrics_upstream_calls_in_progress",
            "Calls that are under way.",
            ("upstream",),
            registry=self.registry,
        )
        self.calls_waiting = Gauge(
            "oscar_metrics_upstream_calls_waiting",
            "Calls that wait for a place, of their report's share or of all.",
            ("upstream",),
            registry=self.registry,
        )
        self.answers = Counter(
            "oscar_metrics_answers_total",
            "Reports answered, by where they came from: made, shared (made for others who asked"
            " the same), or kept: fresh, stale (made anew meanwhile), old (as nothing else could"
            " be made).",
            ("came",),
            registry=self.registry,
        )
        self.reports_made = Gauge(
            "oscar_metrics_reports_in_progress",
            "Reports being made, by how long their ranges are, and large ones being sent.",
            ("lane",),
            registry=self.registry,
        )
        self.reports_waiting = Gauge(
            "oscar_metrics_reports_waiting",
            "Reports waiting for their turn.",
            ("lane",),
            registry=self.registry,
        )
        self.reports_refused = Counter(
            "oscar_metrics_reports_refused_total",
            "Reports refused because too many were asked for at once, and how that was found.",
            ("lane", "reason"),
            registry=self.registry,
        )
        self.cache_bytes = Gauge(
            "oscar_metrics_cache_bytes",
            "Memory that kept answers take.",
            registry=self.registry,
        )
        self.cache_answers = Gauge(
            "oscar_metrics_cache_answers", "Answers that are kept.", registry=self.registry
        )
        self.cache_evicted = Counter(
            "oscar_metrics_cache_evicted_total",
            "Answers dropped from memory to make room for others.",
            registry=self.registry,
        )
        self.shared_cache = Counter(
            "oscar_metrics_shared_cache_total",
            "What became of answers read from Redis (get), kept there (put) or removed (clear).",
            ("operation", "result"),
            registry=self.registry,
        )
        self.source_outcomes = Counter(
            "oscar_metrics_source_outcomes_total",
            "What sources said when asked for a report: ok, partial or missing.",
            ("source", "status"),
            registry=self.registry,
        )
        self.lines_seen = Counter(
            "oscar_metrics_log_lines_seen_total",
            "Log lines recognised as ours while reading for reports, by origin.",
            ("origin",),
            registry=self.registry,
        )
        self.lines_understood = Counter(
            "oscar_metrics_log_lines_understood_total",
            "Log lines that became part of a tally, by origin.",
            ("origin",),
            registry=self.registry,
        )

    @cached_property
    def ledger(self) -> LedgerTelemetry:
        """The ledger's metrics; where there is none, nobody asks and none are shown."""
        return LedgerTelemetry(self.registry)


class LedgerTelemetry:
    """What the sealing of hours comes to; labels are the four kinds and the verdicts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, says: str, *labels: str) -> Gauge:
            return Gauge(f"oscar_metrics_ledger_{name}", says, labels, registry=registry)

        self.usable = gauge("usable", "Whether the ledger can be read and written (1) or not (0).")
        self.sealed_up_to = gauge(
            "sealed_up_to_timestamp_seconds", "The end of the newest sealed hour.", "kind"
        )
        self.lag = gauge(
            "lag_seconds", "How long ago the newest sealed hour ended, as last looked at.", "kind"
        )
        self.unsealed_hours = gauge(
            "unsealed_hours", "Hours that ended, are within reach and are not sealed.", "kind"
        )
        self.provisional_hours = gauge(
            "provisional_hours", "Sealed hours that are looked at again.", "kind"
        )
        self.partial_hours = gauge(
            "partial_hours", "Sealed hours of which something is missing.", "kind"
        )
        self.expiring_hours = gauge(
            "expiring_hours", "Unsealed hours that their source drops within a day.", "kind"
        )
        self.expiring_seconds = gauge(
            "expiring_seconds_left",
            "Until a source drops the first unsealed hour; infinite when none is near.",
            "kind",
        )
        self.seals = Counter(
            "oscar_metrics_ledger_seals_total",
            "Hours looked at, by what became of them.",
            ("kind", "verdict"),
            registry=registry,
        )


class LogLines:
    """Lines for a file: what is merely informative is written by turns of the event loop.

    To write one takes as long as all else that is done for a report that is kept, and a turn
    answers several. Whatever else is said is written at once, after what was said before.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._waiting: list[str] = []

    def info(self, line: str) -> None:
        """Write a line when the event loop has its next turn; at once where there is none."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.at_once(line)
            return
        with self._lock:
            self._waiting.append(line)
            is_first = len(self._waiting) == 1
        if is_first:
            loop.call_soon(self.flush)

    def at_once(self, line: str) -> None:
        """Write a line, and those that wait before it."""
        with self._lock:
            self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            if self._waiting:
                text = "\n".join([*self._waiting, ""])
                self._waiting.clear()
                self._file.write(text)
                self._file.flush()

    # As structlog calls them.
    debug = msg = info
    warning = warn = error = critical = fatal = failure = exception = log = at_once


def configure_logging(*, json: bool, level: str) -> None:
    """Send structured lines to standard error: JSON for machines, plain text on a terminal."""
    # Other packages' own chatter; what matters of it is logged where it is caught.
    logging.getLogger().addHandler(logging.NullHandler())
    lines = LogLines(sys.stderr)
    atexit.register(lines.flush)
    renderer: structlog.typing.Processor = (
        _as_json if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=lambda *_: lines,
    )


# Made once: `json.dumps` makes one for each line.
_json_encoder = JSONEncoder(default=repr)


def _as_json(_: object, __: str, event: structlog.typing.EventDict) -> str:
    return _json_encoder.encode(event)
