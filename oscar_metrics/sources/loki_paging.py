"""Every line a query selects, read page by page and counted once.

A page holds the first lines of a window up to a limit. Where it is full, the lines of its
last nanosecond may not all be in it: they are left to the next page, which begins there.
So what lies before the point reached is always counted whole, and nothing is counted twice,
whatever the lines look like and whichever streams they are of.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter

import msgspec

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import CallLog
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.logql import LogQuery
from oscar_metrics.sources.loki_api import LokiApi, LokiSettings, StreamLines
from oscar_metrics.sources.loki_splitting import halve
from oscar_metrics.sources.tallying import Tallier
from oscar_metrics.timerange import SECOND_NS, SLOT_NS, Span, merge, windows

COUNTRY_LABELS = ("geoip_country_code", "geoip_country_name", "country", "country_code")
# The same answer awaits every other window.
HOPELESS = frozenset(
    {
        Reason.CONNECT,
        Reason.TLS,
        Reason.UNAUTHORIZED,
        Reason.FORBIDDEN,
        Reason.NOT_FOUND,
        Reason.REFUSED,
    }
)
# Loki may manage with less time, or fewer lines, in one question.
TOO_MUCH = frozenset({Reason.LIMIT, Reason.TIMEOUT, Reason.TOO_LARGE})
_FEWEST_LINES = 10
_AT_NS = attrgetter("at_ns")


class Paging:
    """One query's lines over some spans, counted by a Tallier.

    At any time: `log()` is what was counted, `counted` in which stretches but for `gaps`,
    `slots` the quarter-hours with any line, `reasons` why something failed.
    """

    def __init__(
        self,
        api: LokiApi,
        settings: LokiSettings,
        query: LogQuery,
        new_tallier: Callable[[], Tallier],
    ) -> None:
        self.slots: set[int] = set()
        self.gaps: list[Gap] = []
        self.reasons: set[Reason] = set()
        self._api = api
        self._settings = settings
        self._query = query
        self._new_tallier = new_tallier
        self._tallier = new_tallier()
        self._instants = NOTHING_COUNTED
        self._windows: list[_Window] = []
        self._fails_in_a_row = 0
        self._stop = False
        # Where a window proved too much for Loki, the next ones begin narrower.
        self._width_ns = settings.window_seconds * SECOND_NS

    async def read(self, spans: Iterable[Span]) -> None:
        """Count every line in the spans, as far as Loki answers."""
        width_ns = self._settings.window_seconds * SECOND_NS
        waiting = (window for span in spans for window in windows(span, width_ns))
        async with asyncio.TaskGroup() as group:
            for _ in range(self._settings.limits.concurrency):
                group.create_task(self._work(waiting))

    @property
    def counted(self) -> list[Span]:
        """The stretches of which every line was counted, but for `gaps`."""
        return merge(Span(window.span.start_ns, window.reached_ns) for window in self._windows)

    def log(self) -> CallLog:
        """What was counted."""
        return add_up(self._tallier.result(), self._instants)

    async def _work(self, waiting: Iterator[Span]) -> None:
        while not self._stop and (span := next(waiting, None)) is not None:
            window = _Window(span=span, reached_ns=span.start_ns)
            self._windows.append(window)
            try:
                await self._read_window(window)
                self._fails_in_a_row = 0
            except UpstreamError as exc:
                self.reasons.add(exc.reason)
                self._fails_in_a_row += 1
                if exc.reason in HOPELESS or self._fails_in_a_row >= self._settings.failed_windows:
                    self._stop = True

    async def _read_window(self, window: _Window) -> None:
        lines = self._settings.page_lines
        narrowest_ns = self._settings.narrowest_window_seconds * SECOND_NS
        width_ns = 2 * self._width_ns
        if self._api.known.query_length_ns:
            width_ns = min(width_ns, self._api.known.query_length_ns)
        while window.left.length_ns:
            part = window.left
            part = Span(part.start_ns, min(part.stop_ns, part.start_ns + width_ns))
            limit = self._allowed(lines)
            try:
                page = await self._api.lines(self._query, part, limit)
            except UpstreamError as exc:
                if self._api.learn(exc, asked=limit):
                    continue
                if exc.reason is Reason.TOO_LARGE and limit > _FEWEST_LINES:
                    lines = limit // 2
                elif exc.reason in TOO_MUCH and part.length_ns > narrowest_ns:
                    self._width_ns = width_ns = part.length_ns // 2
                else:
                    raise
            else:
                await self._take(page, window, part, limit)
        self._width_ns = width_ns

    async def _take(self, page: list[StreamLines], window: _Window, part: Span, limit: int) -> None:
        if _size(page) < limit:
            self._count(page, part.stop_ns)
            window.reached_ns = part.stop_ns
            return
        last_ns = max(stream.values[-1].at_ns for stream in page)
        if any(stream.values[0].at_ns < last_ns for stream in page):
            self._count(page, last_ns)
            window.reached_ns = last_ns
        else:
            await self._read_instant(last_ns, page, limit)
            window.reached_ns = last_ns + 1

    async def _read_instant(self, at_ns: int, page: list[StreamLines], limit: int) -> None:
        """Count the lines of one nanosecond that fill a page: all of them, or a gap."""
        self.slots.add(at_ns // SLOT_NS)
        instant = Span(at_ns, at_ns + 1)
        tallier = self._new_tallier()
        lines = self._settings.instant_lines
        query = self._query
        parts: list[LogQuery] = []
        splits = 0
        while True:
            if _size(page) < limit:
                _tally(tallier, page, instant.stop_ns)
            elif limit < self._allowed(lines):
                parts.append(query)
            else:
                splits += 1
                halves = halve(query, page) if splits < self._settings.instant_parts else None
                if halves is None:
                    self.gaps.append(Gap(span=instant, reason=GapReason.TOO_DENSE))
                    return
                parts += halves
            if not parts:
                break
            query = parts.pop()
            page, limit = await self._ask_instant(query, instant, lines)
            lines = min(lines, limit)
        self._instants = add_up(self._instants, tallier.result())

    async def _ask_instant(
        self, query: LogQuery, instant: Span, lines: int
    ) -> tuple[list[StreamLines], int]:
        """The first lines of an instant, and how many were asked for at last."""
        while True:
            limit = self._allowed(lines)
            try:
                return await self._api.lines(query, instant, limit), limit
            except UpstreamError as exc:
                if self._api.learn(exc, asked=limit):
                    continue
                if exc.reason not in TOO_MUCH or limit <= _FEWEST_LINES:
                    raise
                lines = limit // 2

    def _allowed(self, lines: int) -> int:
        return min(lines, self._api.known.entries or lines)

    def _count(self, page: list[StreamLines], stop_ns: int) -> None:
        _tally(self._tallier, page, stop_ns)
        for stream in page:
            at = 0
            while at < len(stream.values) and stream.values[at].at_ns < stop_ns:
                slot = stream.values[at].at_ns // SLOT_NS
                self.slots.add(slot)
                at = bisect_left(stream.values, (slot + 1) * SLOT_NS, lo=at, key=_AT_NS)


class _Window(msgspec.Struct, kw_only=True):
    """A stretch being read, counted up to `reached_ns`."""

    span: Span
    reached_ns: int

    @property
    def left(self) -> Span:
        return Span(self.reached_ns, self.span.stop_ns)


NOTHING_COUNTED = CallLog(tallies=Counter(), lines_seen=0, lines_understood=0)


def add_up(one: CallLog, other: CallLog) -> CallLog:
    """Both logs together."""
    if not other.lines_seen:
        return one
    return CallLog(
        tallies=one.tallies + other.tallies,
        lines_seen=one.lines_seen + other.lines_seen,
        lines_understood=one.lines_understood + other.lines_understood,
    )


def _tally(tallier: Tallier, page: list[StreamLines], stop_ns: int) -> None:
    for stream in page:
        count = bisect_left(stream.values, stop_ns, key=_AT_NS)
        labels = map(stream.stream.get, COUNTRY_LABELS)
        country = next((label for label in labels if label), "")
        tallier.add([entry.line for entry in stream.values[:count]], country_label=country)


def _size(page: list[StreamLines]) -> int:
    return sum(len(stream.values) for stream in page)
