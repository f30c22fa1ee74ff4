"""What the sealer says of itself: in `/readyz`, the log and the metrics. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from oscar_metrics.ledger.expiry import Expiring, Reach, expiring
from oscar_metrics.ledger.looks import Known, Looks, missing_hours
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, format_instant


class ExpiringStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Unsealed hours that their source is about to drop: from when to when, and what is left."""

    hours: int
    start: str
    end: str
    seconds_left: int


class KindStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far one kind is sealed.

    `sealed_up_to` is the end of the newest sealed hour, `lag_seconds` how long ago that was.
    `unsealed_hours` are within reach, `next_hole` the newest of those of the past;
    `provisional_hours` will be looked at again, of `partial_hours` something is missing.
    `last_error` is why the last question that failed did.
    """

    sealed_up_to: str | None
    lag_seconds: int | None
    unsealed_hours: int
    provisional_hours: int
    partial_hours: int
    next_hole: str | None = None
    expiring: ExpiringStatus | None = None
    last_error: str | None = None


class LedgerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Whether there is a usable ledger, and how far it is.

    `problems` stand in the way; `doubts` are of hours that a source told in two ways, or
    that were not sealed for the clock's sake, the last ones first.
    """

    usable: bool
    problems: tuple[str, ...] = ()
    kinds: dict[SealKind, KindStatus] = {}
    doubts: tuple[str, ...] = ()


def kind_status(
    kind: SealKind,
    known: Known,
    reach: Reach | None,
    looks: Looks,
    *,
    last_error: str | None,
    now_ns: int,
) -> KindStatus:
    """How far a kind is."""
    heads = known.heads
    unsealed = [] if kind is SealKind.INVENTORY else list(missing_hours(known, looks, now_ns))
    holes = [hour for hour in unsealed if not looks.is_watched(hour, now_ns)]
    up_to_ns = (max(heads) + 1) * HOUR_NS if heads else None
    return KindStatus(
        sealed_up_to=None if up_to_ns is None else format_instant(up_to_ns),
        lag_seconds=None if up_to_ns is None else max(0, now_ns - up_to_ns) // SECOND_NS,
        unsealed_hours=len(unsealed),
        provisional_hours=sum(head.next_look_ns is not None for head in heads.values()),
        partial_hours=sum(head.missing_ns > 0 for head in heads.values()),
        next_hole=format_instant(holes[-1] * HOUR_NS) if holes else None,
        expiring=_in_words(expiring(_overdue(known, unsealed), reach)),
        last_error=last_error,
    )


def _overdue(known: Known, unsealed: Sequence[int]) -> list[int]:
    """Without those that have only just ended and were not asked for yet."""
    newest = unsealed[-1:]
    return [hour for hour in unsealed if hour in known.tries or [hour] != newest]


def _in_words(found: Expiring | None) -> ExpiringStatus | None:
    if found is None:
        return None
    return ExpiringStatus(
        hours=found.hours,
        start=format_instant(found.span.start_ns),
        end=format_instant(found.span.stop_ns),
        seconds_left=found.seconds_left,
    )
