"""Lines at the instants where Loki cuts a question in pieces: none of them is lost there.

Loki passes over a chunk whose last line is at the very millisecond a question begins, and
it cuts every log question itself at the multiples of `split_queries_by_interval`. A line
there that ends its chunk is in no answer, whatever is asked. Metric queries, which look
back from an instant, do count it: so these lines are counted both ways, and where the
numbers differ they are read as the labels of a metric query. Those queries count what Loki was
sent twice as two: never less than there is.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from operator import attrgetter

import msgspec

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.logql import LINE, LogQuery, count_at, count_up_to, lines_at
from oscar_metrics.sources.loki_answers import Entry, Series, StreamLines
from oscar_metrics.sources.loki_api import LokiApi, country_of
from oscar_metrics.sources.loki_copies import distinct_at
from oscar_metrics.sources.loki_tally import L, Tally
from oscar_metrics.timerange import MILLISECOND_NS, Span

_AT_NS = attrgetter("at_ns")


class _Edge(msgspec.Struct, kw_only=True):
    """What log questions said of one instant: lines by country, and lines counted elsewhere.

    `outermost` edges are those next to which nothing was asked, or little; `unsure` is why not
    all of its lines may be known, None where they are.
    """

    outermost: bool
    held: list[tuple[str, list[Entry]]] = []
    counted: int = 0
    looked_at: bool = False
    unsure: GapReason | None = GapReason.FAILED

    @property
    def lines(self) -> int:
        return self.counted + sum(len(entries) for _, entries in self.held)


class Edges:
    """The lines of one query at multiples of `step_ns`, kept apart until they are compared."""

    def __init__(self, api: LokiApi, query: LogQuery, step_ns: int) -> None:
        self.reasons: set[Reason] = set()
        self._api = api
        self._query = query
        self._step_ns = step_ns
        self._edges: dict[int, _Edge] = {}
        # Lines counted in the millisecond before an edge, of which the edge itself is no part.
        self._before: Counter[int] = Counter()
        # The steps in which a line has a time of whole milliseconds; where windows were read to.
        self._whole_milliseconds: set[int] = set()
        self._read_from: set[int] = set()
        self._read_to: set[int] = set()

    def begin(self, start_ns: int, *, first: bool, last: bool) -> None:
        """A window is read from here; the first or last of its span, or neither."""
        if start_ns % self._step_ns == 0:
            self._edges[start_ns] = _Edge(outermost=first or last)
        if first:
            self._read_to.add(start_ns)

    async def read(self, span: Span) -> None:
        """A window has been read: compare what can be by now.

        Not where a log seems to have finer times: see `compare`.
        """
        self._read_from.add(span.start_ns)
        self._read_to.add(span.stop_ns)
        for at_ns in (span.start_ns, span.stop_ns):
            if self._whole_milliseconds and at_ns in self._read_from & self._read_to:
                await self._look_at(at_ns)

    def take(self, streams: Sequence[StreamLines], stop_ns: int) -> None:
        """Take the lines at an edge out of a page of which what is before `stop_ns` counts."""
        for stream in streams:
            values = stream.values
            step = values[0].at_ns // self._step_ns
            if step not in self._whole_milliseconds and any(
                entry.at_ns % MILLISECOND_NS == 0 for entry in values
            ):
                self._whole_milliseconds.add(step)
            stop = bisect_left(values, stop_ns, key=_AT_NS)
            if stop and (next_ns := self._just_before(values[stop - 1].at_ns)):
                start = bisect_right(values, next_ns - MILLISECOND_NS, hi=stop, key=_AT_NS)
                self._before[next_ns] += stop - start
            if stop and (edge := self._edges.get(values[0].at_ns)) is not None:
                count = bisect_right(values, values[0].at_ns, key=_AT_NS)
                edge.held.append((country_of(stream.stream), values[:count]))
                del values[:count]

    def counted(self, at_ns: int, lines: int) -> None:
        """So many lines of an instant were read and counted elsewhere."""
        if at_ns in self._edges:
            self._edges[at_ns].counted += lines
        elif next_ns := self._just_before(at_ns):
            self._before[next_ns] += lines

    async def compare(self, concurrency: int) -> None:
        """Find out whether log questions handed out every line, and read what they did not.

        A log with finer times than milliseconds has no lines at edges: where no time is a
        whole one, only the outermost edges are looked at, beyond which nothing is known.
        """
        everywhere = bool(self._whole_milliseconds)
        waiting = iter(
            [at_ns for at_ns, edge in self._edges.items() if everywhere or edge.outermost]
        )

        async def work() -> None:
            for at_ns in waiting:
                await self._look_at(at_ns)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())

    @property
    def gaps(self) -> list[Gap]:
        """The instants whose lines are not known to be all."""
        return [
            Gap(span=Span(at_ns, at_ns + 1), reason=edge.unsure)
            for at_ns, edge in sorted(self._edges.items())
            if edge.unsure and (edge.looked_at or edge.outermost or self._is_suspect(at_ns))
        ]

    def count(self, tally: Tally[L]) -> None:
        """Have what is kept here counted."""
        for edge in self._edges.values():
            for country, entries in edge.held:
                tally.add(entries, country_label=country)

    def _is_suspect(self, at_ns: int) -> bool:
        step = at_ns // self._step_ns
        return not self._whole_milliseconds.isdisjoint((step - 1, step))

    async def _look_at(self, at_ns: int) -> None:
        edge = self._edges.get(at_ns)
        if edge is None or edge.looked_at:
            return
        edge.looked_at = True
        try:
            edge.unsure = None if await self._is_whole(at_ns, edge) else GapReason.TOO_DENSE
        except UpstreamError as exc:
            self.reasons.add(exc.reason)

    async def _is_whole(self, at_ns: int, edge: _Edge) -> bool:
        """Whether all lines of an instant are known by now."""
        # The first question is several times cheaper, and mostly the last.
        known = edge.lines + self._before[at_ns]
        if await self._count(count_up_to(self._query), at_ns) == known:
            return True
        if await self._count(count_at(self._query), at_ns) > edge.lines:
            # A line of a stream is a group of its own, however often Loki counts it.
            groups = [group.metric for group in await self._at(lines_at(self._query), at_ns)]
            there = distinct_at(at_ns, groups, LINE)
            if edge.counted:
                return len(there) == edge.lines
            edge.held = [(country_of(stream.stream), stream.values) for stream in there]
        return True

    async def _count(self, expression: str, at_ns: int) -> int:
        groups = await self._at(expression, at_ns, by=())
        return sum(count for group in groups for _, count in group.values)

    async def _at(
        self, expression: str, at_ns: int, *, by: Collection[str] | None = None
    ) -> list[Series]:
        return await self._api.by_step(expression, at_ns, at_ns, self._step_ns, by=by)

    def _just_before(self, at_ns: int) -> int:
        """The edge less than a millisecond after an instant; 0 where there is none."""
        next_ns = (at_ns // self._step_ns + 1) * self._step_ns
        return next_ns if next_ns - at_ns < MILLISECOND_NS else 0
