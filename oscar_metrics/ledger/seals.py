"""What the ledger stores and what it says of it. Pure.

A seal is one hour's facts of one kind, with where they came from and what they cover; a
correction is a new revision of the seal, never an edit.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import msgspec

from oscar_metrics.facts import Inventory, LogStream, SlottedLog, SlotUsage
from oscar_metrics.outcome import Gap, Measure
from oscar_metrics.timerange import HOUR_NS, Span


class SealKind(StrEnum):
    """What is sealed, hour by hour."""

    EXECUTIONS = "executions"
    EXPOSED = "exposed"
    USAGE = "usage"
    INVENTORY = "inventory"


KIND_OF = {LogStream.EXECUTIONS: SealKind.EXECUTIONS, LogStream.EXPOSED: SealKind.EXPOSED}


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """What a source said of one hour (its number since the epoch) of one kind.

    Exactly one of `calls`, `usage` and `inventory` is set. `method` says how usage was
    measured. `gaps`, `doubts`, `measures` (what the doubts are about; empty for everything)
    and `notes` (which cast no doubt) are the outcome's, cut to the hour; counts of lines
    that were not understood are no doubt here, since the calls' counts of lines say so.
    Times are in UTC nanoseconds; `next_look_ns` is None for an hour that is final.
    `stands_in` is what a second source says while the first, which may know more, is silent;
    it is not stored.
    """

    kind: SealKind
    hour: int
    origin: str
    method: str = ""
    gaps: tuple[Gap, ...] = ()
    doubts: tuple[str, ...] = ()
    measures: frozenset[Measure] = frozenset()
    notes: tuple[str, ...] = ()
    looks: int = 1
    next_look_ns: int | None = None
    stands_in: bool = False
    calls: SlottedLog | None = None
    usage: tuple[SlotUsage, ...] | None = None
    inventory: Inventory | None = None

    @property
    def span(self) -> Span:
        """The hour as a span."""
        return Span(self.hour * HOUR_NS, (self.hour + 1) * HOUR_NS)


class Verdict(StrEnum):
    """What became of a candidate."""

    SEALED = "sealed"  # nothing was sealed of that hour before
    REVISED = "revised"  # it had seen more: a new revision was written
    SAME = "same"  # it says what the seal says
    KEPT = "kept"  # the seal has seen more
    AMBIGUOUS = "ambiguous"  # each has seen calls that the other has not: the seal was kept
    REFUSED = "refused"  # the clock stands before the seal's own time


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict over one candidate, and the lines both had seen."""

    kind: SealKind
    hour: int
    verdict: Verdict
    lines_seen: int = 0
    sealed_lines_seen: int = 0


class SealHead(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the newest revision of one hour's seal, without its facts.

    `missing_ns` is how much of the hour its gaps take away; `next_look_ns` is None when final.
    """

    kind: SealKind
    hour: int
    revision: int
    sealed_at_ns: int
    looks: int
    next_look_ns: int | None
    origin: str
    method: str
    missing_ns: int
    lines_seen: int
    lines_understood: int


class Stretch(msgspec.Struct, frozen=True, kw_only=True):
    """Adjacent seals that are alike: origin, method, doubts, notes, grain, finality, wholeness.

    `quarters` is the length of the slots they are stored in, in quarter-hours (1, 4 or 96).
    """

    span: Span
    quarters: int
    origin: str
    method: str
    doubts: tuple[str, ...]
    measures: frozenset[Measure]
    notes: tuple[str, ...]
    final: bool
    whole: bool
    first_sealed_at_ns: int
    last_sealed_at_ns: int
    lines_seen: int
    lines_understood: int


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger holds of one kind over a span: stretches in order, and their gaps."""

    stretches: tuple[Stretch, ...]
    gaps: tuple[Gap, ...]


# What is deployed is looked at every hour; a server that restarts may miss one or two.
UNKNOWN_MOST_NS = 3 * HOUR_NS


class Owns(NamedTuple):
    """That a service belonged to somebody; `service` is blank for the namespace itself.

    `owner` is blank for a service whose definition could not be read.
    """

    namespace: str
    service: str
    owner: str


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """Every owner that a sealed inventory ever named, and the hours inventories were sealed for.

    `known` are those hours where there is no more than `UNKNOWN_MOST_NS` between them, in order.
    """

    owners: frozenset[Owns]
    known: tuple[Span, ...] = ()


class Restated(msgspec.Struct, frozen=True, kw_only=True):
    """An hour that was sealed anew: what it counted as known before, and counts now.

    The unit is calls for executions and exposed requests, CPU core-hours for usage.
    """

    kind: SealKind
    span: Span
    sealed_at_ns: int
    was: float
    now: float
