"""What sources say together of the last day, and none of them can tell alone; for `check`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping

from oscar_metrics.facts import (
    CallLog,
    CountryFrom,
    Inventory,
    LogStream,
    Result,
    ServiceKey,
    Usage,
)
from oscar_metrics.findings import DOCS, FEW_WITHOUT_COUNTRY, Finding, Level
from oscar_metrics.live import Live
from oscar_metrics.outcome import Outcome, Unavailable, not_understood
from oscar_metrics.sources.line_forms import EXPECTED
from oscar_metrics.sources.loki_answers import ORIGIN as LOKI
from oscar_metrics.sources.prometheus_pods_check import named
from oscar_metrics.timerange import DAY_NS, Span
from oscar_metrics.wire import SourceName

_WAYS = {
    CountryFrom.LABEL: "by a label",
    CountryFrom.GEOIP: "by the GeoIP database",
    CountryFrom.CLAIM: "by the user's log-in",
    CountryFrom.ROSTER: "by the roster",
    CountryFrom.NOTHING: "by nothing",
}


async def last_day(live: Live, now_ns: int, *, has_geoip: bool) -> list[Finding]:
    """Reads the last day once, as a report on it would, within the deadline of `live`."""
    day = Span(now_ns - DAY_NS, now_ns)
    inventory = await live.inventory()
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(live.logs(day, frozenset(LogStream), slotted=False))
        using = group.create_task(live.usage(day, inventory))
    logs = {
        stream: outcome
        for stream, outcome in reading.result().items()
        if not isinstance(outcome, Unavailable)
    }
    calls = [outcome.facts for outcome in logs.values()]
    return [
        *unknown_forms({s: outcome.facts for s, outcome in logs.items() if outcome.origin != LOKI}),
        *countries(calls, has_geoip=has_geoip),
        *without_cpu(inventory, using.result(), calls),
    ]


def unknown_forms(logs: Mapping[LogStream, CallLog]) -> list[Finding]:
    """Lines that could not be read, by log; Loki's own check shows one of them too."""
    return [
        Finding(
            source=stream,
            level=Level.WARNING,
            says=f"in the last day, {doubt}",
            change=f"expected is {EXPECTED[stream]}{DOCS}",
        )
        for stream, log in logs.items()
        for doubt in not_understood(log.lines_seen, log.lines_understood)
    ]


def countries(logs: Iterable[CallLog], *, has_geoip: bool) -> list[Finding]:
    """Of how many calls the country was decided in which way."""
    ways: Counter[CountryFrom] = Counter()
    for log in logs:
        for key, count in log.tallies.items():
            ways[key.country_from] += count
    if not (total := ways.total()):
        return []
    said = ", ".join(f"{ways[way]:,} {text}" for way, text in _WAYS.items() if ways[way])
    says = f"of {total:,} calls of the last day the country is told: {said}"
    source = SourceName.COUNTRIES
    if ways[CountryFrom.NOTHING] <= FEW_WITHOUT_COUNTRY * total:
        return [Finding(source=source, level=Level.OK, says=says)]
    change = (
        "their addresses are private, cut off, or in no database: see that the gateway hands on"
        " its clients' own"
        if has_geoip
        else "set OSCAR_METRICS_GEOIP_DATABASE, or have the pipeline add it (country.alloy)"
    )
    return [Finding(source=source, level=Level.WARNING, says=says, change=change + DOCS)]


def without_cpu(
    inventory: Outcome[Inventory], usage: Outcome[Usage], logs: Iterable[CallLog]
) -> list[Finding]:
    """The services that are deployed, were called, and used nothing."""
    if isinstance(inventory, Unavailable) or isinstance(usage, Unavailable):
        return []
    used = usage.facts.cpu_seconds
    if used is None:
        return []
    called = {
        ServiceKey(key.namespace, key.service)
        for log in logs
        for key in log.tallies
        if key.result is Result.OK
    }
    ran = [
        ServiceKey(service.namespace, service.name)
        for service in inventory.facts.services
        # Older lines do not say in which namespace.
        if {ServiceKey(service.namespace, service.name), ServiceKey("", service.name)} & called
    ]
    if not ran:
        return []
    idle = sorted(key for key in ran if not used.get(key))
    if not idle:
        says = f"all {len(ran)} services that were called in the last day have CPU time"
        return [Finding(source=SourceName.USAGE, level=Level.OK, says=says)]
    return [
        Finding(
            source=SourceName.USAGE,
            level=Level.WARNING,
            says=f"{len(idle)} of {len(ran)} services that were called in the last day have no CPU"
            f" time: {named(idle)}",
            change="scrape the kubelets of all nodes they run on at least every 30 s, and keep"
            f" their namespaces and the labels of their pods{DOCS}",
        )
    ]
