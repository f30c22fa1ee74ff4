"""What our reader says of a Loki that the pipeline wrote to, and what it should say."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import msgspec

from oscar_metrics.facts import CallLog, CountryFrom, LogStream, Roster
from oscar_metrics.outcome import Ok, Outcome, Partial
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import Span
from tests.corpus.corpus import Corpus
from tests.corpus.platform import BASE_HOST
from tests.servers.loki import Loki

STREAMS = frozenset(LogStream)


def settings_of(loki: Loki, manager: str = "oscar", gateway: str = "ingress-nginx") -> LokiSettings:
    """How our reader finds the lines of a manager and a gateway, by namespace and app."""
    return LokiSettings(
        url=loki.url,
        namespace=manager,
        app=manager,
        exposed_namespace=gateway,
        exposed_app=gateway,
        ingress_host=BASE_HOST,
    )


def truth(corpus: Corpus, stream: LogStream) -> CallLog:
    """What is true of a corpus whose countries the pipeline told by address."""
    exact = corpus.truth(stream, corpus.span)
    tallies: Counter[object] = Counter()
    for key, calls in exact.tallies.items():
        known = key.country_from is CountryFrom.GEOIP
        tallies[key._replace(country_from=CountryFrom.LABEL) if known else key] += calls
    return msgspec.structs.replace(exact, tallies=tallies)


async def read(settings: LokiSettings, span: Span) -> dict[LogStream, Outcome[CallLog]]:
    """What the lines in a span say, with nothing but the pipeline to tell countries."""
    logs = LokiLogs(settings, telemetry=Telemetry())
    try:
        return await logs.read(
            span,
            STREAMS,
            Countries(GeoIP.open(None), Roster()),
            now_ns=time.time_ns(),
            deadline=None,
        )
    finally:
        await logs.aclose()


def facts(outcome: Outcome[CallLog]) -> CallLog:
    """The facts of an outcome that has some."""
    assert isinstance(outcome, Ok | Partial), outcome
    return outcome.facts


async def read_until(
    settings: LokiSettings, span: Span, lines: int, *, timeout_seconds: float = 60
) -> dict[LogStream, Outcome[CallLog]]:
    """The same once that many lines of calls have arrived, or as it is when time is up."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        outcomes = await read(settings, span)
        seen = sum(
            outcome.facts.lines_seen
            for outcome in outcomes.values()
            if isinstance(outcome, Ok | Partial)
        )
        if seen >= lines or time.monotonic() > deadline:
            return outcomes
        await asyncio.sleep(0.3)
