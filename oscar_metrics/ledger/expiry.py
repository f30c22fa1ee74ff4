"""Which hours a source is about to drop that are not sealed, and how long is left. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, Span

# An hour nearer than this to what the source does not keep is about to be lost.
WARNED_NS = DAY_NS


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """From when on a source keeps everything (ns), and whether that was seen to move.

    A folder of archives begins where it begins; only what moves on will drop more.
    """

    kept_from_ns: int
    moves: bool = False

    def then(self, kept_from_ns: int) -> Reach:
        """The reach when the source was asked again."""
        return Reach(
            kept_from_ns=kept_from_ns, moves=self.moves or kept_from_ns > self.kept_from_ns
        )

    @property
    def first_hour(self) -> int:
        """The oldest hour of which everything is kept."""
        return -(-self.kept_from_ns // HOUR_NS)


class Expiring(msgspec.Struct, frozen=True, kw_only=True):
    """Hours that will be lost unless they are sealed soon; `span` is from the first to the last."""

    hours: int
    span: Span
    seconds_left: int


def expiring(unsealed: Iterable[int], reach: Reach | None) -> Expiring | None:
    """Of the unsealed hours those about to be dropped; None where there are none.

    What a source keeps moves on as fast as time does: of an hour as much is left as lies
    between the first instant that is kept and its own.
    """
    if reach is None or not reach.moves:
        return None
    left_ns = {hour: hour * HOUR_NS - reach.kept_from_ns for hour in unsealed}
    soon = sorted(hour for hour, left in left_ns.items() if 0 <= left < WARNED_NS)
    if not soon:
        return None
    return Expiring(
        hours=len(soon),
        span=Span(soon[0] * HOUR_NS, (soon[-1] + 1) * HOUR_NS),
        seconds_left=left_ns[soon[0]] // SECOND_NS,
    )
