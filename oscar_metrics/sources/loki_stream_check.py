"""What the last day of one log in Loki tells of the pipeline that brings it there.

Some six questions a log, each about a day at most and none for more than a thousand lines.
What a question could not be asked of is said, and keeps nothing else from being looked at.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import LogStream
from oscar_metrics.findings import DOCS, FEW_WITHOUT_COUNTRY, Finding, Level
from oscar_metrics.sources import loki_samples
from oscar_metrics.sources.line_forms import EXPECTED, form_of
from oscar_metrics.sources.logql import (
    LogQuery,
    counted_by_slot,
    lines_by_slot,
    of_uncommon_form,
    without_labels,
)
from oscar_metrics.sources.loki_answers import ORIGIN, StreamLines
from oscar_metrics.sources.loki_api import COUNTRY_LABELS, LokiApi
from oscar_metrics.sources.loki_survey import failures, slot_ending
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SLOT_NS, Span, format_instant

_T = TypeVar("_T")

_SLOTS_A_DAY = DAY_NS // SLOT_NS
# A collector that stopped longer ago is named as such.
_FRESH_NS = HOUR_NS
_SAMPLE_LINES = 1000
_HOPELESS = frozenset({Reason.CONNECT, Reason.TLS, Reason.OPEN, Reason.UNAUTHORIZED})


class StreamCheck:
    """One log of one Loki: `streams` are the labels of those that had lines in the last day.

    `change` says what to look at where the query lets no line through. Afterwards `silent` is
    whether it has no line of late.
    """

    def __init__(
        self,
        api: LokiApi,
        stream: LogStream,
        query: LogQuery,
        streams: Sequence[Mapping[str, str]],
        now_ns: int,
        *,
        ingress_host: str,
        change: str,
    ) -> None:
        self._api = api
        self._stream = stream
        self._query = query
        self._streams = streams
        self._day = Span(now_ns - DAY_NS, now_ns)
        self._present = now_ns // SLOT_NS
        self._ingress_host = ingress_host
        self._change = change
        self._found: list[Finding] = []
        self.silent = False

    async def findings(self) -> list[Finding]:
        """One finding for each thing looked at; raises UpstreamError where Loki is gone."""
        self._pods()
        slots = await self._look("silence", lambda: self._by_slot(lines_by_slot(self._query)))
        if slots is not None:
            self._silence(slots)
        calls = await self._look("calls", lambda: self._by_slot(counted_by_slot(self._query)))
        if calls:
            await self._look("countries", lambda: self._countries(calls))
            await self._look("newest calls", lambda: self._newest(max(calls)))
            await self._look("forms of lines", self._forms)
        elif calls is not None:
            self._warn("no line of the last day is let through by the query", self._change)
            self._no_country_label()
        return self._found

    def _pods(self) -> None:
        without = sum("pod" not in labels for labels in self._streams)
        if without:
            self._warn(
                f"{without} of {len(self._streams)} streams have no label pod: pods share them, and"
                " lines of one that are an hour behind another's are refused",
                f"keep pod as a label, as delivery.alloy does{DOCS}",
            )

    async def _look(self, what: str, ask: Callable[[], Awaitable[_T]]) -> _T | None:
        try:
            return await ask()
        except UpstreamError as exc:
            if exc.reason in _HOPELESS:
                raise
            self._warn(f"{what} could not be looked at: {failures([exc.reason])[0]}", "")
            return None

    async def _by_slot(self, expression: str) -> dict[int, int]:
        """A count for each quarter-hour of the last day that has any, the present one included."""
        first = self._present - _SLOTS_A_DAY + 1
        series = await self._api.by_step(
            expression, (first + 1) * SLOT_NS, (self._present + 1) * SLOT_NS, SLOT_NS
        )
        return {slot_ending(seconds): n for group in series for seconds, n in group.values}

    def _silence(self, slots: Mapping[int, int]) -> None:
        newest_ns = (max(slots, default=0) + 1) * SLOT_NS
        silent_ns = self._day.stop_ns - newest_ns
        self.silent = silent_ns > _FRESH_NS
        if not slots:
            self._problem("no line of any kind in the last day", "look at the log collector")
            return
        if self.silent:
            self._warn(
                f"no line of any kind for {silent_ns / HOUR_NS:.1f} h,"
                f" since {format_instant(newest_ns)}",
                f"look at the log collector; with heartbeat.alloy it is never so silent{DOCS}",
            )
            return
        first = self._present - _SLOTS_A_DAY + 1
        silent = loki_samples.silences(slots, first, self._present - 1)
        if not silent:
            self._ok("a line in every quarter of an hour of the last day")
            return
        hours = sum(span.length_ns for span in silent) / HOUR_NS
        longest = max(silent, key=lambda span: span.length_ns)
        self._warn(
            f"no line of any kind in {hours:g} of the last 24 h, the longest time from"
            f" {format_instant(longest.start_ns)} to {format_instant(longest.stop_ns)}: nothing"
            " tells whether it was quiet or nothing was collected, so reports have gaps there",
            f"run heartbeat.alloy, whose requests make a line twice a minute{DOCS}",
        )

    async def _countries(self, calls: Mapping[int, int]) -> None:
        if self._no_country_label():
            return
        lines = sum(calls.values())
        unlabelled = without_labels(self._query, COUNTRY_LABELS)
        without = min(lines, sum((await self._by_slot(counted_by_slot(unlabelled))).values()))
        says = f"{without / lines:.0%} of {lines:,} lines of the last day have no country label"
        if without <= FEW_WITHOUT_COUNTRY * lines:
            self._ok(says)
            return
        silent, pods = loki_samples.pods_without_country(self._streams)
        if 0 < silent < pods:
            says += f"; {silent} of {pods} pods never have one"
        self._warn(says, f"have every collector add it, with country.alloy{DOCS}")

    def _no_country_label(self) -> bool:
        if any(labels.keys() & set(COUNTRY_LABELS) for labels in self._streams):
            return False
        self._warn(
            "no stream label names a country",
            f"have the log collector add geoip_country_code, or set a GeoIP database{DOCS}",
        )
        return True

    async def _newest(self, slot: int) -> None:
        found = await self._lines(self._query, Span(slot * SLOT_NS, (slot + 1) * SLOT_NS))
        twice = loki_samples.doubles(found)
        if twice.lines:
            labels = ", ".join(
                name for name in twice.labels if name.isascii() and name.isidentifier()
            )
            says = (
                f"{twice.lines} of the {twice.looked_at} lines of"
                f" {format_instant(slot * SLOT_NS)} and after are there a second time, in streams"
                f" that differ in {labels}: such calls are counted twice"
            )
            self._problem(says, f"have one collector ship this log, and stop the other{DOCS}")
        where = loki_samples.addresses(found, self._stream, ingress_host=self._ingress_host)
        if where.private and not where.public:
            self._warn(
                f"every address in the newest {where.private} lines without a country is private:"
                " nothing can tell where those calls came from",
                "let the gateway see its clients' addresses (externalTrafficPolicy: Local, or the"
                f" proxy protocol) and hand them on (X-Forwarded-For){DOCS}",
            )

    async def _forms(self) -> None:
        uncommon = of_uncommon_form(self._query, self._stream)
        found = await self._lines(uncommon, self._day)
        lines = loki_samples.not_understood(found, self._stream, ingress_host=self._ingress_host)
        if not lines:
            self._ok("every call of the last day is of a known form")
            return
        cut = sum(len(stream.values) for stream in found) >= self._most_lines
        count = f"{'at least ' if cut else ''}{len(lines):,}"
        self._warn(
            f"{count} lines of the last day are calls of an unknown form, such as (letters and"
            f" digits replaced): {form_of(lines[0])}",
            f"expected is {EXPECTED[self._stream]}{DOCS}",
        )

    async def _lines(self, query: LogQuery, span: Span) -> list[StreamLines]:
        return await self._api.lines(query, span, self._most_lines)

    @property
    def _most_lines(self) -> int:
        return min(_SAMPLE_LINES, self._api.known.entries or _SAMPLE_LINES)

    def _ok(self, says: str) -> None:
        self._add(Level.OK, says)

    def _warn(self, says: str, change: str) -> None:
        self._add(Level.WARNING, says, change)

    def _problem(self, says: str, change: str) -> None:
        self._add(Level.PROBLEM, says, change)

    def _add(self, level: Level, says: str, change: str = "") -> None:
        says = f"{self._stream}: {says}"
        self._found.append(Finding(source=ORIGIN, level=level, says=says, change=change))
