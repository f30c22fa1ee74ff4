"""What an operator should know, and change, before reports are asked of a Loki."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping

import msgspec

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import LogStream
from oscar_metrics.findings import DOCS, Finding, Level
from oscar_metrics.sources.logql import LogQuery
from oscar_metrics.sources.loki_answers import ORIGIN
from oscar_metrics.sources.loki_api import LokiApi, ServerLimits
from oscar_metrics.sources.loki_stream_check import StreamCheck
from oscar_metrics.sources.loki_survey import failures
from oscar_metrics.timerange import DAY_NS, Span

_MONTH_NS = 30 * DAY_NS
# The Date header has whole seconds and some way to go.
_CLOCK_SECONDS = 5.0
# It asks some fifteen questions, each of which may be tried again.
_MOST_SECONDS = 120.0
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


class Silence(msgspec.Struct, frozen=True, kw_only=True):
    """Why a query's streams are silent; `change` is blank where its labels are to be looked at."""

    notes: tuple[str, ...]
    change: str = ""


async def why_nothing(api: LokiApi, query: LogQuery, now_ns: int) -> Silence:
    """Why a query's streams are silent: nobody writes them now, or they never existed.

    An empty answer is no evidence of zero, so the labels are compared with those that exist.
    Raises UpstreamError.
    """
    month = Span(now_ns - min(_MONTH_NS, api.known.query_length_ns or _MONTH_NS), now_ns)
    if await api.streams(query, month):
        note = f"no line of any kind in the range from the streams {query.selector}"
        return Silence(notes=(note,), change=f"look at the log collector{DOCS}")
    days = month.length_ns / DAY_NS
    if not await api.label_names(month):
        return Silence(
            notes=(f"Loki has no streams at all of the last {days:.0f} days",),
            change="have a log collector deliver to it (docs/pipeline.md), or ask where one does:"
            " LOKI_URL, OSCAR_METRICS_LOKI_TENANT",
        )
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
    return Silence(notes=tuple(notes))


class LokiCheck:
    """Asks one Loki what reports will need of it."""

    def __init__(
        self,
        api: LokiApi,
        queries: Mapping[LogStream, LogQuery],
        *,
        ingress_host: str = "",
        seconds: float = _MOST_SECONDS,
    ) -> None:
        self._api = api
        self._queries = queries
        self._ingress_host = ingress_host
        self._seconds = seconds
        # Whether a log has no line of late.
        self._silent = False

    async def findings(self, now_ns: int) -> list[Finding]:
        """One finding for each thing looked at; never raises for Loki's failures."""
        found: list[Finding] = []
        try:
            async with asyncio.timeout(self._seconds):
                await self._api.ask_limits(now_ns)
                found += _limits(self._api.known) + _split(self._api.known)
                for stream, query in self._queries.items():
                    found += await self._stream(stream, query, now_ns)
                if self._silent:
                    found += await self._metadata()
        except UpstreamError as exc:
            says = failures([exc.reason])[0]
            return [_finding(Level.PROBLEM, says, _CHANGE.get(exc.reason, ""))]
        except TimeoutError:
            says = f"not everything could be looked at in {self._seconds:g} s"
            return [*found, _finding(Level.WARNING, says, "try again when Loki is less busy")]
        return [*found, self._clock()]

    async def _stream(self, stream: LogStream, query: LogQuery, now_ns: int) -> list[Finding]:
        day = Span(now_ns - DAY_NS, now_ns)
        streams = await self._api.streams(query, day)
        if not streams:
            self._silent = True
            level = Level.PROBLEM if stream is LogStream.EXECUTIONS else Level.WARNING
            why = await why_nothing(self._api, query, now_ns)
            change = why.change or f"set {_QUERY_SETTINGS[stream]}"
            return [_finding(level, f"{stream}: {'; '.join(why.notes)}", change)]
        found = [_finding(Level.OK, f"{stream}: {len(streams)} streams {query.selector}")]
        about = StreamCheck(
            self._api,
            stream,
            query,
            streams,
            now_ns,
            ingress_host=self._ingress_host,
            change=f"look at {_QUERY_SETTINGS[stream]}",
        )
        found += await about.findings()
        self._silent = self._silent or about.silent
        return found

    async def _metadata(self) -> list[Finding]:
        """Structured metadata that is not taken: whatever carries some is refused."""
        if await self._api.takes_metadata() is not False:
            return []
        says = "it takes no structured metadata, and refuses lines that carry some"
        change = f"deliver none: structured_metadata = {{}} in delivery.alloy{DOCS}"
        return [_finding(Level.WARNING, says, change)]

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
