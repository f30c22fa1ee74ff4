from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oscar_metrics.auth.attempts import FailedLogins


@pytest.mark.parametrize(
    ("at", "waits"),
    [
        ([0, 1, 2], [0, 0, 0]),
        ([0, 1, 2, 3], [0, 0, 0, 57]),
        ([0, 0, 0, 0.5, 59.5, 59.9], [0, 0, 0, 60, 1, 1]),
        # A new minute begins with the first failure after the old one.
        ([0, 0, 0, 0, 60, 60, 60, 61], [0, 0, 0, 60, 0, 0, 0, 59]),
        # Who keeps failing is not kept out for longer.
        ([0, *[30] * 100, 60], [0, 0, 0, *[30] * 98, 0]),
        # A clock that was set back begins anew.
        ([100, 100, 100, 100, 10], [0, 0, 0, 60, 0]),
    ],
)
def test_three_may_fail_in_a_minute(at: list[float], waits: list[int]) -> None:
    failures = FailedLogins(per_minute=3, addresses_most=10)
    assert [failures.add("a", now) for now in at] == waits


def test_addresses_are_counted_apart() -> None:
    failures = FailedLogins(per_minute=1, addresses_most=10)
    assert [failures.add(address, 0) for address in ("a", "b", "a", "b", "c")] == [0, 0, 60, 60, 0]


def test_the_address_that_failed_longest_ago_is_forgotten_first() -> None:
    failures = FailedLogins(per_minute=1, addresses_most=2)
    for address in ("a", "b", "a", "c"):
        failures.add(address, 0)
    assert failures.add("a", 1) == 59
    assert failures.add("b", 1) == 0


@example([(0, 68.25522234355087)] * 3, 1)
@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 200)), max_size=200), st.integers(1, 20))
def test_no_more_addresses_are_kept_than_may_be(failed: list[tuple[int, float]], most: int) -> None:
    failures = FailedLogins(per_minute=2, addresses_most=most)
    for address, now in sorted(failed, key=lambda one: one[1]):
        assert 0 <= failures.add(str(address), now) <= 60
        assert len(failures) <= most
