"""What an operator should know, and change, before reports are asked of a Loki."""

from __future__ import annotations

import re
from collections.abc import Mapping

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import LogStream
from oscar_metrics.findings import Finding, Level
from oscar_metrics.sources.logql import LogQuery, lines_by_slot
from oscar_metrics.sources.loki_answers import ORIGIN
from oscar_metrics.sources.loki_api import COUNTRY_LABELS, LokiApi, ServerLimits
from oscar_metrics.sources.loki_survey import failures, slot_ending
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SLOT_NS, Span

_MONTH_NS = 30 * DAY_NS
# The Date header has whole seconds and some way to go.
_CLOCK_SECONDS = 5.0
_FRESH_NS = HOUR_NS
_NAMED_VALUES = 5
_LIKELY = re.compile(r"oscar|traefik|ingress|nginx|gateway|envoy|haproxy|contour|kong|istio")
_PLAIN = re.compile(r"[A-Za-z0-9._/-]{1,63}", re.ASCII)

_CHANGE = {
    Reason.CONNECT: "correct LOKI_URL, or let this process reach it",
    Reason.TLS: "correct LOKI_URL, or have it show a certificate this process trusts",
    Reason.UNAUTHORIZED: "set the tenant, and the user and password or the token that Loki wants",
    Reason.FORBIDDEN: "let our credentials read this tenant's logs",
    Reason.NOT_FOUND: "correct LOKI_URL: it is what stands before /loki/api/v1",
    Reason.BAD_ANSWER: "correct LOKI_URL: it is what stands before /loki/api/v1",
    Reason.REFUSED: "correct LOKI_QUERY and LOKI_EXPOSED_QUERY",
}
_QUERY_SETTINGS = {
    LogStream.EXECUTIONS: "OSCAR_NAMESPACE or LOKI_QUERY",
    LogStream.EXPOSED: "LOKI_EXPOSED_NAMESPACE and LOKI_EXPOSED_APP, or LOKI_EXPOSED_QUERY",
}


async def why_nothing(api: LokiApi, query: LogQuery, now_ns: int) -> tuple[str, ...]:
    """Why a query's streams are silent: nobody writes them now, or they never existed.

    An empty answer is no evidence of zero, so the labels are compared with those that exist.
    Raises UpstreamError.
    """
    month = Span(now_ns - min(_MONTH_NS, api.known.query_length_ns or _MONTH_NS), now_ns)
    if await api.streams(query, month):
        return (f"no line of any kind in the range from the streams {query.selector}",)
    days = month.length_ns / DAY_NS
    notes = [f"Loki has no streams {query.selector} of the last {days:.0f} days"]
    for matcher in query.matchers:
        values = await api.label_values(matcher.name, month)
        if not values:
            notes.append(f"no stream has a label {matcher.name}")
        elif matcher.op == "=" and matcher.value not in values:
            likely = [value for value in values if _PLAIN.fullmatch(value)]
            likely.sort(key=lambda value: (not _LIKELY.search(value), value))
            named = ", ".join(likely[:_NAMED_VALUES]) or "other values"
            notes.append(f"{matcher.name} is not {matcher.value} anywhere, but {named}")
    return tuple(notes)


class LokiCheck:
    """Asks one Loki what reports will need of it."""

    def __init__(self, api: LokiApi, queries: Mapping[LogStream, LogQuery]) -> None:
        self._api = api
        self._queries = queries

    async def findings(self, now_ns: int) -> list[Finding]:
        """One finding for each thing looked at; never raises for Loki's failures."""
        try:
            await self._api.ask_limits(now_ns)
            found = _limits(self._api.known) + _split(self._api.known)
            for stream, query in self._queries.items():
                found += await self._stream(stream, query, now_ns)
        except UpstreamError as exc:
            says = failures([exc.reason])[0]
            return [_finding(Level.PROBLEM, says, _CHANGE.get(exc.reason, ""))]
        return [*found, self._clock()]

    async def _stream(self, stream: LogStream, query: LogQuery, now_ns: int) -> list[Finding]:
        day = Span(now_ns - DAY_NS, now_ns)
        streams = await self._api.streams(query, day)
        if not streams:
            level = Level.PROBLEM if stream is LogStream.EXECUTIONS else Level.WARNING
            says = "; ".join(await why_nothing(self._api, query, now_ns))
            return [_finding(level, f"{stream}: {says}", f"set {_QUERY_SETTINGS[stream]}")]
        found = [_finding(Level.OK, f"{stream}: {len(streams)} streams {query.selector}")]
        found.append(await self._freshness(stream, query, now_ns))
        if not await self._api.lines(query, day, 1):
            says = f"{stream}: no line of the last day is let through by the query"
            found.append(_finding(Level.WARNING, says, f"look at {_QUERY_SETTINGS[stream]}"))
        if not any(stream_labels.keys() & set(COUNTRY_LABELS) for stream_labels in streams):
            says = f"{stream}: no stream label names a country"
            change = "have the log collector add geoip_country_code, or set a GeoIP database"
            found.append(_finding(Level.WARNING, says, change))
        return found

    async def _freshness(self, stream: LogStream, query: LogQuery, now_ns: int) -> Finding:
        present = now_ns // SLOT_NS
        first = present - DAY_NS // SLOT_NS + 1
        series = await self._api.by_step(
            lines_by_slot(query), (first + 1) * SLOT_NS, (present + 1) * SLOT_NS, SLOT_NS
        )
        slots = [slot_ending(seconds) for group in series for seconds, _ in group.values]
        if not slots:
            says = f"{stream}: no line of any kind in the last day"
            return _finding(Level.PROBLEM, says, "look at the log collector")
        silent_ns = now_ns - (max(slots) + 1) * SLOT_NS
        if silent_ns > _FRESH_NS:
            says = f"{stream}: no line of any kind for {silent_ns / HOUR_NS:.1f} h"
            return _finding(Level.WARNING, says, "look at the log collector")
        hours = len(slots) * SLOT_NS / HOUR_NS
        return _finding(Level.OK, f"{stream}: lines in {hours:g} of the last 24 h, and of late")

    def _clock(self) -> Finding:
        seconds = self._api.upstream.clock_difference_seconds or 0.0
        if abs(seconds) < _CLOCK_SECONDS:
            return _finding(Level.OK, "its clock agrees with ours")
        says = f"its clock differs from ours by {seconds:.0f} s"
        return _finding(Level.WARNING, says, "synchronise both: the newest calls may be missed")


def _split(known: ServerLimits) -> list[Finding]:
    if known.split_ns:
        return []
    says = "it splits queries at unknown times: lines exactly then may be missed"
    return [_finding(Level.WARNING, says, "have split_queries_by_interval divide a day evenly")]


def _limits(known: ServerLimits) -> list[Finding]:
    if known.entries is None:
        says = "it does not tell its limits: they are learned when it refuses"
        return [_finding(Level.WARNING, says, "let us ask /loki/api/v1/drilldown-limits")]
    lines = known.entries or "any number of"
    found = [_finding(Level.OK, f"Loki {known.version}, {lines} lines a query".replace(" ,", ","))]
    for limit_ns, what in (
        (known.retention_ns, "keeps lines for"),
        (known.lookback_ns, "lets queries look back"),
    ):
        if limit_ns:
            days = limit_ns / DAY_NS
            found.append(
                _finding(Level.OK, f"it {what} {days:g} days: what is older is a gap in reports")
            )
    return found


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=ORIGIN, level=level, says=says, change=change)
