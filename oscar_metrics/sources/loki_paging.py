"""Every line a query selects, read page by page and counted once.

A page holds the first lines of a window up to a limit. Where it is full, the lines of its
last nanosecond may not all be in it: they are left to the next page, which begins there.
So what lies before the point reached is always counted whole, and nothing is counted twice,
whatever the lines look like and whichever streams they are of. And since all lines of a time
are in one page, so are all copies of a line that Loki was sent twice: they count once.
"""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Generic

import msgspec

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.logql import LogQuery
from oscar_metrics.sources.loki_answers import StreamLines
from oscar_metrics.sources.loki_api import LokiApi, LokiSettings, country_of
from oscar_metrics.sources.loki_copies import each_once
from oscar_metrics.sources.loki_edges import Edges
from oscar_metrics.sources.loki_splitting import halve
from oscar_metrics.sources.loki_tally import L, Tally
from oscar_metrics.sources.narrowing import TOO_MUCH
from oscar_metrics.timerange import MILLISECOND_NS, SECOND_NS, SLOT_NS, Span, merge, windows

# The same answer awaits every other window.
HOPELESS = frozenset(
    {
        Reason.CONNECT,
        Reason.OPEN,
        Reason.TLS,
        Reason.UNAUTHORIZED,
        Reason.FORBIDDEN,
        Reason.NOT_FOUND,
        Reason.REFUSED,
    }
)
# Too large an answer is one of too many lines, of whatever stretch.
_LARGE = frozenset({Reason.TOO_LARGE})
_FEWEST_LINES = 10
_AT_NS = attrgetter("at_ns")


class Paging(Generic[L]):
    """One query's lines over some spans, counted by a Tally.

    At any time: `log()` is what was counted, `counted` in which stretches but for `gaps`,
    `slots` the quarter-hours with any line, `reasons` why something failed.
    """

    def __init__(
        self,
        api: LokiApi,
        settings: LokiSettings,
        query: LogQuery,
        new_tally: Callable[[], Tally[L]],
    ) -> None:
        self.slots: set[int] = set()
        self._gaps: list[Gap] = []
        self._reasons: set[Reason] = set()
        self._api = api
        self._settings = settings
        self._query = query
        self._new_tally = new_tally
        self._tally = new_tally()
        self._windows: list[_Window] = []
        self._fails_in_a_row = 0
        self._stop = False
        self._window_ns = settings.window_seconds * SECOND_NS
        self._edges = Edges(api, query, self._window_ns)
        self._stretches = api.narrowing(
            "lines",
            query.selector,
            least=settings.narrowest_window_seconds * SECOND_NS,
            reasons=TOO_MUCH - _LARGE,
        )
        self._pages = api.narrowing("page", query.selector, least=_FEWEST_LINES, reasons=_LARGE)
        self._instants = api.narrowing("instant", query.selector, least=_FEWEST_LINES)

    async def read(self, spans: Iterable[Span]) -> None:
        """Count every line in the spans, as far as Loki answers."""
        concurrency = self._settings.limits.places_of_one
        if self._api.known.split_ns:
            # Every instant at which Loki splits has to begin a window.
            self._window_ns = math.gcd(self._window_ns, self._api.known.split_ns)
            self._edges = Edges(self._api, self._query, self._window_ns)
        waiting = self._begun(spans)
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work(waiting))
        if not self._stop:
            await self._edges.compare(concurrency)

    @property
    def counted(self) -> list[Span]:
        """The stretches of which every line was counted, but for `gaps`."""
        return merge(Span(window.span.start_ns, window.reached_ns) for window in self._windows)

    @property
    def gaps(self) -> list[Gap]:
        """What had to be left out within `counted`."""
        return [*self._gaps, *self._edges.gaps]

    @property
    def reasons(self) -> set[Reason]:
        """Why something failed."""
        return self._reasons | self._edges.reasons

    def log(self) -> L:
        """What was counted."""
        total = self._new_tally()
        total.include(self._tally.result())
        self._edges.count(total)
        return total.result()

    def _begun(self, spans: Iterable[Span]) -> Iterator[_Window]:
        for span in spans:
            for piece in windows(span, self._window_ns):
                first, last = piece.start_ns == span.start_ns, piece.stop_ns == span.stop_ns
                self._edges.begin(piece.start_ns, first=first, last=last)
                window = _Window(span=piece, reached_ns=piece.start_ns)
                self._windows.append(window)
                yield window

    async def _work(self, waiting: Iterator[_Window]) -> None:
        while not self._stop and (window := next(waiting, None)) is not None:
            try:
                await self._read_window(window)
                await self._edges.read(window.span)
                self._fails_in_a_row = 0
            except UpstreamError as exc:
                self._reasons.add(exc.reason)
                self._fails_in_a_row += 1
                if exc.reason in HOPELESS or self._fails_in_a_row >= self._settings.failed_windows:
                    self._stop = True

    async def _read_window(self, window: _Window) -> None:
        while window.left.length_ns:
            part = self._begin_of(window.left)
            lines = self._allowed(self._pages.amount(self._settings.page_lines))
            page = self._page(self._query, part, lines)
            try:
                found = await self._stretches.ask(part.length_ns, self._pages.ask(lines, page))
            except UpstreamError as exc:
                fewer = self._pages.may_be_less(exc, lines)
                if not fewer and not self._stretches.may_be_less(exc, part.length_ns):
                    raise
            else:
                await self._take(found, window, part)

    def _begin_of(self, span: Span) -> Span:
        """As much of a span as Loki is asked for at once."""
        most_ns = span.length_ns
        if self._api.known.query_length_ns:
            # One nanosecond for the question that begins before its time.
            most_ns = min(most_ns, max(1, self._api.known.query_length_ns - 1))
        return Span(span.start_ns, span.start_ns + self._stretches.amount(most_ns))

    async def _take(self, page: _Page, window: _Window, part: Span) -> None:
        if not page.full:
            self._count(page.streams, part.stop_ns)
            window.reached_ns = part.stop_ns
            return
        last_ns = max(stream.values[-1].at_ns for stream in page.streams)
        if any(stream.values[0].at_ns < last_ns for stream in page.streams):
            self._count(page.streams, last_ns)
            window.reached_ns = last_ns
        else:
            await self._read_instant(last_ns, page)
            window.reached_ns = last_ns + 1

    async def _read_instant(self, at_ns: int, page: _Page) -> None:
        """Count the lines of one nanosecond that fill a page: all of them, or a gap."""
        self.slots.add(at_ns // SLOT_NS)
        instant = Span(at_ns, at_ns + 1)
        tally = self._new_tally()
        query = self._query
        parts: list[LogQuery] = []
        splits = count = 0
        while True:
            if not page.full:
                _add(tally, page.streams, instant.stop_ns)
                count += _size(page.streams)
            elif page.limit < self._instant_lines:
                parts.append(query)
            else:
                splits += 1
                few = splits < self._settings.instant_parts
                halves = halve(query, page.streams) if few else None
                if halves is None:
                    self._gaps.append(Gap(span=instant, reason=GapReason.TOO_DENSE))
                    return
                parts += halves
            if not parts:
                break
            query = parts.pop()
            page = await self._ask_instant(query, instant)
        self._tally.include(tally.result())
        self._edges.counted(at_ns, count)

    async def _ask_instant(self, query: LogQuery, instant: Span) -> _Page:
        """The first lines of an instant, as many as Loki manages at once."""
        while True:
            lines = self._instant_lines
            try:
                return await self._instants.ask(lines, self._page(query, instant, lines))
            except UpstreamError as exc:
                if not self._instants.may_be_less(exc, lines):
                    raise

    async def _page(self, query: LogQuery, part: Span, lines: int) -> _Page:
        """The first lines of a stretch, as many of `lines` as Loki lets be asked for."""
        while True:
            limit = self._allowed(lines)
            try:
                return await self._ask(query, part, limit)
            except UpstreamError as exc:
                if not self._api.learn(exc, asked=limit):
                    raise

    async def _ask(self, query: LogQuery, part: Span, limit: int) -> _Page:
        """The first lines of a stretch.

        Loki passes over a chunk that ends at the very millisecond a question begins, so the
        question begins a nanosecond before. At an edge that helps nothing: see loki_edges.
        """
        start_ns = part.start_ns
        if start_ns % MILLISECOND_NS == 0 and start_ns % self._window_ns:
            early = Span(start_ns - 1, part.stop_ns)
            page = _Page(streams=await self._api.lines(query, early, limit), limit=limit)
            if page.leave_out_before(start_ns):
                return page
        return _Page(streams=await self._api.lines(query, part, limit), limit=limit)

    @property
    def _instant_lines(self) -> int:
        return self._allowed(self._instants.amount(self._settings.instant_lines))

    def _allowed(self, lines: int) -> int:
        return min(lines, self._api.known.entries or lines)

    def _count(self, streams: list[StreamLines], stop_ns: int) -> None:
        for stream in streams:
            at = 0
            while at < len(stream.values) and stream.values[at].at_ns < stop_ns:
                slot = stream.values[at].at_ns // SLOT_NS
                self.slots.add(slot)
                at = bisect_left(stream.values, (slot + 1) * SLOT_NS, lo=at, key=_AT_NS)
        self._edges.take(streams, stop_ns)
        _add(self._tally, streams, stop_ns)


class _Window(msgspec.Struct, kw_only=True):
    """A stretch being read, counted up to `reached_ns`."""

    span: Span
    reached_ns: int

    @property
    def left(self) -> Span:
        return Span(self.reached_ns, self.span.stop_ns)


class _Page:
    """The first lines of a stretch, each once; `full` when there may be more.

    `limit` were asked for, copies included.
    """

    def __init__(self, *, streams: list[StreamLines], limit: int) -> None:
        self.streams = each_once(streams)
        self.limit = limit
        self.full = _size(streams) >= limit

    def leave_out_before(self, start_ns: int) -> bool:
        """Drop what is before; False when that leaves nothing and there may be more."""
        for stream in self.streams:
            del stream.values[: bisect_left(stream.values, start_ns, key=_AT_NS)]
        self.streams = [stream for stream in self.streams if stream.values]
        return bool(self.streams) or not self.full


def _add(tally: Tally[L], streams: list[StreamLines], stop_ns: int) -> None:
    for stream in streams:
        count = bisect_left(stream.values, stop_ns, key=_AT_NS)
        tally.add(stream.values[:count], country_label=country_of(stream.stream))


def _size(streams: list[StreamLines]) -> int:
    return sum(len(stream.values) for stream in streams)
