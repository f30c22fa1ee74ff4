"""The process's own metrics and log: what we say of ourselves, with bounded labels only."""

from __future__ import annotations

import logging
import sys

import stamina.instrumentation
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
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
        self.upstream_calls = Histogram(
            "oscar_metrics_upstream_call_duration_seconds",
            "Duration of calls to other systems; reason is `ok` or why it was of no use.",
            ("upstream", "reason"),
            buckets=_SECONDS,
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


def configure_logging(*, json: bool, level: str) -> None:
    """Send structured lines to standard error: JSON for machines, plain text on a terminal."""
    # Other packages' own chatter; what matters of it is logged where it is caught.
    logging.getLogger().addHandler(logging.NullHandler())
    stamina.instrumentation.set_on_retry_hooks([])
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
