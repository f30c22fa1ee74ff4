"""One service's calls, counted by Loki itself where that is the same as reading the lines.

Loki counts whole quarter-hours of lines whose form leaves nothing to interpret. All other
lines are counted too, in a group of their own: the quarter-hours that have any are paged,
as are the ends of the span and what Loki refuses to count.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import CallLog, Kind, ServiceCount
from oscar_metrics.outcome import Gap
from oscar_metrics.sources.log_lines import SEPARATOR, execution_from_fields
from oscar_metrics.sources.logql import (
    KIND,
    LOGGED,
    OTHER,
    PATH,
    USER,
    LogQuery,
    calls_by_group,
    groups,
)
from oscar_metrics.sources.loki_answers import Series
from oscar_metrics.sources.loki_api import LokiApi, LokiSettings
from oscar_metrics.sources.loki_paging import Paging
from oscar_metrics.sources.loki_survey import slot_ending
from oscar_metrics.sources.loki_tally import Tally
from oscar_metrics.sources.narrowing import REFUSED, TOO_MUCH
from oscar_metrics.timerange import DAY_NS, SLOT_NS, Span, merge, subtract, windows

_SLOTS_A_DAY = DAY_NS // SLOT_NS
# What Loki will not count an hour of at once is better paged.
_FEWEST_SLOTS = 4


class ServiceCounting:
    """Counts the calls of one service among the lines of `query`, which all mention it.

    As Paging, with `count()` for the log. Without `push_down`, and where Loki is known not to
    count so much, everything is paged.
    """

    def __init__(
        self,
        api: LokiApi,
        settings: LokiSettings,
        query: LogQuery,
        service: str,
        new_tally: Callable[[], Tally[CallLog]],
        *,
        users: bool,
        push_down: bool,
    ) -> None:
        self._push_down = push_down
        self._api = api
        self._concurrency = settings.limits.places_of_one
        self._service = service
        self._users = users
        self._expression = calls_by_group(query, users=users)
        # How many groups there are is a matter of the service.
        self._narrowing = api.narrowing("calls", service, users, least=_FEWEST_SLOTS // 2)
        # Two, so that one may page the ends while Loki counts what lies between.
        self._pagings = [Paging(api, settings, query, new_tally) for _ in range(2)]
        self._slots: set[int] = set()
        self._counted: list[Span] = []
        self._to_page: list[Span] = []
        self._calls: Counter[Kind] = Counter()
        self._callers: set[str] = set()

    async def read(self, spans: Iterable[Span]) -> None:
        """Count every line in the spans, as far as Loki answers."""
        inner: list[Span] = []
        ends: list[Span] = []
        for span in spans:
            # Loki's ranges hold their last instant and not their first: what it counts
            # begins a nanosecond after a slot's start, and is one slot short.
            first = Span(span.start_ns, -(-span.start_ns // SLOT_NS) * SLOT_NS + 1)
            last = Span(span.stop_ns // SLOT_NS * SLOT_NS - SLOT_NS + 1, span.stop_ns)
            if not self._counts(_SLOTS_A_DAY) or last.start_ns <= first.stop_ns:
                ends.append(span)
            else:
                inner += windows(Span(first.stop_ns - 1, last.start_ns - 1), DAY_NS)
                ends += (first, last)
        waiting = iter(inner)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pagings[0].read(ends))
            for _ in range(self._concurrency if inner else 0):
                group.create_task(self._work(waiting))
        await self._pagings[1].read(merge(self._to_page))

    @property
    def slots(self) -> set[int]:
        """The quarter-hours in which the service has any line."""
        return self._slots.union(*(paging.slots for paging in self._pagings))

    @property
    def counted(self) -> list[Span]:
        """The stretches of which every line was counted, but for `gaps`."""
        paged = (span for paging in self._pagings for span in paging.counted)
        return merge([*self._counted, *paged])

    @property
    def gaps(self) -> list[Gap]:
        """What paging had to leave out."""
        return [gap for paging in self._pagings for gap in paging.gaps]

    @property
    def reasons(self) -> set[Reason]:
        """Why something failed."""
        return self._pagings[0].reasons | self._pagings[1].reasons

    @property
    def lines(self) -> tuple[int, int]:
        """Of the lines that were paged: how many were recognised, how many understood."""
        logs = [paging.log() for paging in self._pagings]
        return sum(log.lines_seen for log in logs), sum(log.lines_understood for log in logs)

    def count(self) -> ServiceCount:
        """The service's calls, and with `users` who made them."""
        calls, callers = self._calls.copy(), set(self._callers)
        for paging in self._pagings:
            for key, count in paging.log().tallies.items():
                if key.service == self._service:
                    calls[key.kind] += count
                    callers.add(key.user)
        return ServiceCount(
            calls=dict(calls), users=frozenset(callers) if self._users else frozenset()
        )

    def _counts(self, slots: int) -> int:
        """How many of so many slots to have counted at once; 0 to page them instead."""
        count = self._narrowing.amount(slots)
        return count if self._push_down and count >= min(slots, _FEWEST_SLOTS) else 0

    async def _work(self, waiting: Iterator[Span]) -> None:
        for window in waiting:
            left = window
            while count := self._counts(left.length_ns // SLOT_NS):
                some = Span(left.start_ns, left.start_ns + count * SLOT_NS)
                try:
                    groups = await self._narrowing.ask(count, self._ask(some))
                except UpstreamError as exc:
                    if exc.reason in REFUSED and self._narrowing.may_be_less(exc, count):
                        continue
                    # Trying on would take as long again as it took Loki to give up.
                    self._push_down = self._push_down and exc.reason not in TOO_MUCH
                    break
                self._take(groups, _evaluated(some))
                left = Span(some.stop_ns, left.stop_ns)
            if left.length_ns:
                self._to_page.append(_evaluated(left))

    async def _ask(self, window: Span) -> list[Series]:
        return await self._api.by_step(
            self._expression,
            window.start_ns + SLOT_NS,
            window.stop_ns,
            SLOT_NS,
            by=groups(users=self._users),
        )

    def _take(self, groups: list[Series], whole: Span) -> None:
        calls = [
            (self._interpreted(group), group.values)
            for group in groups
            if not group.metric.get(OTHER)
        ]
        doubtful = {
            slot_ending(seconds) for call, values in calls if call is None for seconds, _ in values
        }
        for call, values in calls:
            counts = {slot_ending(seconds): count for seconds, count in values}
            self._slots |= counts.keys()
            count = sum(count for slot, count in counts.items() if slot not in doubtful)
            if call is not None and call[1] == self._service and count:
                self._calls[call[0]] += count
                self._callers.add(call[2])
        unread = [Span(slot * SLOT_NS + 1, (slot + 1) * SLOT_NS + 1) for slot in doubtful]
        self._to_page += unread
        self._counted += subtract(whole, unread)

    def _interpreted(self, group: Series) -> tuple[Kind, str, str] | None:
        """Kind, service and user of a group's calls; None where the lines must be read."""
        labels = group.metric
        rest = labels.get(USER, "" if self._users else "-")
        if logged := labels.get(LOGGED):
            rest = SEPARATOR.join((rest, logged, "-"))
        return execution_from_fields(labels.get(KIND, ""), labels.get(PATH, ""), rest)


def _evaluated(window: Span) -> Span:
    """What of time Loki counts for a window: its last instant, and not its first."""
    return Span(window.start_ns + 1, window.stop_ns + 1)
