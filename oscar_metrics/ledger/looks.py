"""When each hour is looked at, and what is due next. Pure.

An hour is looked at some minutes after its end, some hours later for late lines, and a last
time after a day; where something is missing that may come back, also in between and after,
ever more rarely.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from enum import IntEnum
from typing import TypeGuard

import msgspec

from oscar_metrics.ledger.candidates import GONE, why_missing
from oscar_metrics.ledger.seals import Candidate, SealHead, SealKind
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.outcome import FAILING
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, Span

# What is asked together: one question to a request log answers for both of its streams.
TOGETHER = (
    frozenset({SealKind.EXECUTIONS, SealKind.EXPOSED}),
    frozenset({SealKind.INVENTORY}),
    frozenset({SealKind.USAGE}),
)
# One question is for a UTC day at most.
HOURS_MOST = 24
# Past the last look, hours that may yet be made whole are tried at waits of up to this.
_LONGEST_WAIT_NS = 30 * DAY_NS
# Failures of an hour in a row before it is sealed as missing: some two and a half hours.
_TRIES = 6
# A source without a line for so long had none before.
EMPTY_DAYS = 35


class Rank(IntEnum):
    """What is done before what."""

    FIRST = 0  # an hour that ended and was not asked for yet
    LOOK = 1  # the second or the last look
    RETRY = 2  # something was missing
    HOLE = 3  # an hour of long ago that is not sealed


class Try(msgspec.Struct, frozen=True, kw_only=True):
    """Failures in a row, and when to try again."""

    count: int
    not_before_ns: int


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one kind: its seals, the hours that failed, and how far back to go.

    `floor` is the oldest hour whose hole is filled; `holes_not_before_ns` holds all of them up.
    """

    heads: Mapping[int, SealHead]
    tries: Mapping[int, Try]
    floor: int
    holes_not_before_ns: int = 0


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One question: adjacent hours, `first` to `last`, of kinds that are asked together."""

    kinds: frozenset[SealKind]
    first: int
    last: int
    rank: Rank

    @property
    def span(self) -> Span:
        """The hours as a span."""
        return Span(self.first * HOUR_NS, (self.last + 1) * HOUR_NS)


class Looks:
    """The times of looks, by the settings."""

    def __init__(self, settings: LedgerSettings) -> None:
        self._first_ns = settings.first_look_minutes * 60 * SECOND_NS
        self._last_ns = settings.last_look_hours * HOUR_NS
        self._second_ns = min(settings.second_look_hours * HOUR_NS, self._last_ns)
        self._retry_ns = settings.retry_minutes * 60 * SECOND_NS

    def newest_due(self, now_ns: int) -> int:
        """The newest hour whose first look is due."""
        return (now_ns - self._first_ns) // HOUR_NS - 1

    def is_regular(self, head: SealHead) -> bool:
        """Whether the next look is the second or the last, and not one in between."""
        end_ns = (head.hour + 1) * HOUR_NS
        return head.next_look_ns in (end_ns + self._second_ns, end_ns + self._last_ns)

    def is_past_last(self, hour: int, now_ns: int) -> bool:
        """Whether the last look at an hour is due, or was."""
        return now_ns >= (hour + 1) * HOUR_NS + self._last_ns

    def oldest_watched(self, now_ns: int) -> int:
        """The oldest hour that ended so lately that it is no hole of the past yet."""
        return max(0, (now_ns - 2 * self._last_ns) // HOUR_NS)

    def is_watched(self, hour: int, now_ns: int) -> bool:
        """Whether an hour is none of the past yet."""
        return hour >= self.oldest_watched(now_ns)

    def next_look_ns(self, hour: int, looks: int, now_ns: int, *, may_heal: bool) -> int | None:
        """When to look again after so many looks, the last one now; None when final."""
        end_ns = (hour + 1) * HOUR_NS
        times = (end_ns + self._second_ns, end_ns + self._last_ns)
        regular_ns = next((time for time in times if time > now_ns), None)
        if not may_heal:
            return regular_ns
        wait_ns = self.wait_ns(looks)
        if regular_ns is not None:
            return min(now_ns + wait_ns, regular_ns)
        return now_ns + wait_ns if wait_ns <= _LONGEST_WAIT_NS else None

    def wait_ns(self, tries: int) -> int:
        """How long to wait after so many tries: doubled by each."""
        return self._retry_ns << min(tries - 1, 40)

    def decided(
        self,
        candidate: Candidate,
        head: SealHead | None,
        *,
        accountable: bool,
        failures: int,
        now_ns: int,
    ) -> Candidate | None:
        """The candidate as it is to be sealed, or None for an hour to leave as it is.

        What was sealed while the clock stood later cannot be replaced before that time, and
        is looked at again then.
        `accountable` is an hour after others that are sealed, `failures` how often in a row
        nothing could be said of it, now included. What a source that failed says nothing of
        is sealed as missing when its last look is past and it was tried for some time; what a
        source does not keep, only when its hour came and went under the sealer's eyes.
        """
        missing = why_missing(candidate)
        if missing & FAILING and not (
            self.is_past_last(candidate.hour, now_ns)
            and failures >= _TRIES
            and (accountable or head is not None)
        ):
            return None
        expected = accountable and self.is_watched(candidate.hour, now_ns)
        if missing and missing <= GONE and head is None and not expected:
            return None
        looks = head.looks + 1 if head is not None else 1
        if candidate.kind is SealKind.INVENTORY:
            return candidate  # it has no past to look at again
        may_heal = candidate.stands_in or any(gap.reason in FAILING for gap in candidate.gaps)
        next_look_ns = self.next_look_ns(candidate.hour, looks, now_ns, may_heal=may_heal)
        if is_from_later(head, now_ns):
            next_look_ns = head.sealed_at_ns + self._retry_ns
        return msgspec.structs.replace(candidate, looks=looks, next_look_ns=next_look_ns)


def is_from_later(head: SealHead | None, now_ns: int) -> TypeGuard[SealHead]:
    """Whether a seal was made while the clock stood later than it does now."""
    return head is not None and head.sealed_at_ns > now_ns


def due(kind: SealKind, known: Known, looks: Looks, now_ns: int) -> dict[int, Rank]:
    """The hours of one kind that are due now."""
    newest = looks.newest_due(now_ns)
    if kind is SealKind.INVENTORY:
        # It has no past: only the hour that just ended can be sealed.
        if newest in known.heads or _waits(known.tries.get(newest), now_ns):
            return {}
        return {newest: Rank.RETRY if newest in known.tries else Rank.FIRST}
    found: dict[int, Rank] = {}
    for hour in missing_hours(known, looks, now_ns):
        tried = known.tries.get(hour)
        if _waits(tried, now_ns):
            continue
        if looks.is_watched(hour, now_ns):
            found[hour] = Rank.FIRST if tried is None else Rank.RETRY
        elif now_ns >= known.holes_not_before_ns:
            found[hour] = Rank.HOLE
    for hour, head in known.heads.items():
        if hour > newest or not _is_looked_at(head, now_ns):
            continue
        if not _waits(known.tries.get(hour), now_ns):
            regular = looks.is_regular(head) and hour not in known.tries
            found[hour] = Rank.LOOK if regular else Rank.RETRY
    return found


def missing_hours(known: Known, looks: Looks, now_ns: int) -> Iterator[int]:
    """The hours that could be sealed and are not, oldest first: holes, and those just ended."""
    oldest = min(known.floor, looks.oldest_watched(now_ns))
    hours = range(oldest, looks.newest_due(now_ns) + 1)
    return (hour for hour in hours if hour not in known.heads)


def next_work(
    due_hours: Mapping[SealKind, Mapping[int, Rank]], hours_most: Callable[[SealKind, int], int]
) -> Work | None:
    """The most urgent question: of the first rank the newest hour, with those before it.

    Adjacent hours are asked together if they are of one UTC day and equally urgent, at most
    `hours_most` of a kind and its newest hour.
    """
    ranked = [
        (rank, -hour, kind) for kind, hours in due_hours.items() for hour, rank in hours.items()
    ]
    if not ranked:
        return None
    rank, negative_hour, chosen = min(ranked, key=lambda one: one[:2])
    together = next(kinds for kinds in TOGETHER if chosen in kinds)

    def wanted(hour: int) -> frozenset[SealKind]:
        return frozenset(k for k in together if due_hours.get(k, {}).get(hour) is rank)

    last = first = -negative_hour
    kinds = wanted(last)
    most = min(hours_most(kind, last) for kind in kinds)
    while last - first + 1 < most and first % HOURS_MOST and wanted(first - 1) == kinds:
        first -= 1
    return Work(kinds=kinds, first=first, last=last, rank=rank)


def bottom(heads: Mapping[int, SealHead]) -> int | None:
    """The oldest hour of so many days of nothing in a row that none before has anything.

    None where there is no such stretch. A day counts when all its hours are sealed as missing.
    """
    nothing: dict[int, int] = {}
    for hour, head in heads.items():
        if head.missing_ns >= HOUR_NS:
            nothing[hour // 24] = nothing.get(hour // 24, 0) + 1
    empty: Collection[int] = {day for day, hours in nothing.items() if hours == 24}
    in_a_row = 0
    for day in sorted(empty, reverse=True):
        in_a_row = in_a_row + 1 if day + 1 in empty else 1
        if in_a_row == EMPTY_DAYS:
            return day * 24
    return None


def _is_looked_at(head: SealHead, now_ns: int) -> bool:
    if head.next_look_ns is None:
        # What comes from later is not final: its hour may not even have been over.
        return is_from_later(head, now_ns)
    return head.next_look_ns <= now_ns


def _waits(tried: Try | None, now_ns: int) -> bool:
    return tried is not None and now_ns < tried.not_before_ns
