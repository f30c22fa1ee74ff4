"""Calls added up by some fields of their keys, so that stored and live ones add up alike. Pure.

A report asks for the groupings it needs; whoever holds calls (a source's tallies, the
ledger) gives the sums by each of them, and sums of different stretches are added. A
distinct count is the number of different keys of a grouping, never a sum.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from oscar_metrics.facts import CallKey, SlotPart, SlottedLog, Tallies
from oscar_metrics.timerange import SLOT_NS, Span

# Fields of CallKey, in its order; `period` (the number of a period) may come first.
Grouping = tuple[str, ...]
PERIOD = "period"


class CallSums(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of calls by each grouping: the values of its fields, in its order, to a count."""

    groups: dict[Grouping, Counter[tuple[Any, ...]]]

    @property
    def size(self) -> int:
        """How many counts there are."""
        return sum(map(len, self.groups.values()))

    def by(self, *fields: str) -> Counter[tuple[Any, ...]]:
        """The counts by these fields, from the first grouping that has them all.

        Raises KeyError where none has.
        """
        for grouping, counts in self.groups.items():
            if grouping == fields:
                return counts
        for grouping, counts in self.groups.items():
            if set(fields) <= set(grouping):
                return _projected(counts, [grouping.index(field) for field in fields])
        raise KeyError(fields)


def of_tallies(tallies: Tallies, groupings: Collection[Grouping]) -> CallSums:
    """The sums of tallies; of groupings that do not ask for a period."""
    return CallSums(
        groups={
            grouping: _projected(tallies, [CallKey._fields.index(field) for field in grouping])
            for grouping in groupings
        }
    )


def of_slots(
    parts: SlottedLog, groupings: Collection[Grouping], bounds_ns: Sequence[int]
) -> CallSums:
    """The sums of slotted logs by period: period i is [bounds_ns[i], bounds_ns[i + 1])."""
    sums = nothing(groupings)
    by_period: dict[int, Tallies] = {}
    for part, log in parts.items():
        period = bisect_right(bounds_ns, span_of(part).start_ns) - 1
        by_period.setdefault(period, Counter()).update(log.tallies)
    for period, tallies in by_period.items():
        for grouping, counts in sums.groups.items():
            fields = [field for field in grouping if field != PERIOD]
            found = _projected(tallies, [CallKey._fields.index(field) for field in fields])
            for key, count in found.items():
                counts[(period, *key) if PERIOD in grouping else key] += count
    return sums


def nothing(groupings: Collection[Grouping]) -> CallSums:
    """The sums of no call at all."""
    return CallSums(groups={grouping: Counter() for grouping in groupings})


def together(all_sums: Iterable[CallSums], groupings: Collection[Grouping]) -> CallSums:
    """The sums of several stretches."""
    total = nothing(groupings)
    for sums in all_sums:
        for grouping, counts in total.groups.items():
            counts.update(sums.groups[grouping])
    return total


def over_all_periods(sums: CallSums) -> CallSums:
    """The sums of a series without its periods; as they are where there are none."""
    return CallSums(
        groups={
            grouping[1:]: _projected(counts, range(1, len(grouping)))
            for grouping, counts in sums.groups.items()
            if grouping[:1] == (PERIOD,)
        }
        or sums.groups
    )


def by_period(sums: CallSums, periods: int) -> list[CallSums]:
    """The sums of each of so many periods, from groupings that begin with `period`."""
    groupings = [grouping for grouping in sums.groups if grouping[:1] == (PERIOD,)]
    split = [nothing([grouping[1:] for grouping in groupings]) for _ in range(periods)]
    for grouping in groupings:
        counts_of = [sums_of.groups[grouping[1:]] for sums_of in split]
        for key, count in sums.groups[grouping].items():
            counts_of[key[0]][key[1:]] = count
    return split


def span_of(part: SlotPart) -> Span:
    """The stretch of time a part of a slot is."""
    start_ns = part.slot * SLOT_NS
    return Span(start_ns, start_ns + 1) if part.first else Span(start_ns + 1, start_ns + SLOT_NS)


def _projected(counts: Mapping[Any, int], positions: Sequence[int]) -> Counter[tuple[Any, ...]]:
    projected: Counter[tuple[Any, ...]] = Counter()
    if len(positions) > 1:
        pick = itemgetter(*positions)
        for key, count in counts.items():
            projected[pick(key)] += count
    else:
        for key, count in counts.items():
            projected[tuple(key[position] for position in positions)] += count
    return projected
