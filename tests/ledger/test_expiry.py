"""Which unsealed hours a source is about to drop."""

from __future__ import annotations

import pytest

from oscar_metrics.ledger.expiry import Expiring, Reach, expiring
from oscar_metrics.timerange import HOUR_NS, Span

DAY = 24


def reach(hour: float) -> Reach:
    return Reach(kept_from_ns=int(hour * HOUR_NS), moves=True)


@pytest.mark.parametrize(
    ("unsealed", "kept_from", "expected"),
    [
        ([], 100, None),
        ([100 + DAY], 100, None),
        # Already dropped in part: there is nothing left to warn of.
        ([99], 99.5, None),
        (
            [110, 101, 300],
            100.5,
            Expiring(hours=2, span=Span(101 * HOUR_NS, 111 * HOUR_NS), seconds_left=1800),
        ),
    ],
)
def test_the_nearest_decides_how_long_is_left(
    unsealed: list[int], kept_from: float, expected: Expiring | None
) -> None:
    assert expiring(unsealed, reach(kept_from)) == expected


def test_a_source_that_drops_nothing_warns_of_nothing() -> None:
    begins = Reach(kept_from_ns=100 * HOUR_NS)
    assert expiring([101], None) is None
    assert expiring([101], begins) is None
    assert expiring([101], begins.then(begins.kept_from_ns)) is None
    # Once seen to move, it moves, though it is not seen at every look.
    moved = begins.then(begins.kept_from_ns + 1)
    assert expiring([101], moved) is not None
    assert expiring([101], moved.then(moved.kept_from_ns)) is not None


def test_an_hour_is_kept_when_all_of_it_is() -> None:
    assert reach(100).first_hour == 100
    assert reach(100.5).first_hour == 101
