"""How long an answer is good for what, and which make room for others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.resilience.report_cache import (
    CacheSettings,
    Freshness,
    Made,
    ReportCache,
    freshness,
)

SECOND_NS = 1_000_000_000
SETTINGS = CacheSettings(
    open_seconds=5, closed_seconds=600, revalidate_seconds=10, error_seconds=3600
)
FRESH, STALE, OLD = Freshness.FRESH, Freshness.STALE, Freshness.OLD


@pytest.mark.parametrize(
    ("fresh_seconds", "age_seconds", "unchanged", "expected"),
    [
        (5, 0, True, FRESH),
        (5, 4.999, True, FRESH),
        (5, 5, True, STALE),
        (5, 14.999, True, STALE),
        (5, 15, True, OLD),
        (600, 599, True, FRESH),
        (600, 609, True, STALE),
        (600, 610, True, OLD),
        # The ledger has changed: no longer than if the range were open.
        (600, 0, False, STALE),
        (600, 14, False, STALE),
        (600, 15, False, OLD),
        (5, 0, False, STALE),
        # Whose freshness is turned off is never shown without trying.
        (0, 0, True, OLD),
        (5, 3599, True, OLD),
        (5, 3600, True, None),
        # A clock that was set back.
        (600, -1, True, None),
    ],
)
def test_what_an_answer_is_good_for(
    fresh_seconds: int, age_seconds: float, unchanged: bool, expected: Freshness | None
) -> None:
    made = Made(at_ns=1000 * SECOND_NS, fresh_seconds=fresh_seconds)
    now_ns = made.at_ns + int(age_seconds * SECOND_NS)
    assert freshness(made, SETTINGS, now_ns=now_ns, unchanged=unchanged) is expected


def test_nothing_stands_in_where_that_is_turned_off() -> None:
    settings = CacheSettings(error_seconds=0)
    made = Made(at_ns=0, fresh_seconds=5)
    assert freshness(made, settings, now_ns=20 * SECOND_NS, unchanged=True) is None


def test_those_used_longest_ago_make_room() -> None:
    cache: ReportCache[str] = ReportCache(3 * (1000 + 2048))
    for key in "abc":
        cache.put(key, key.upper(), size_bytes=1000)
    assert cache.get("a") == "A"
    cache.put("d", "D", size_bytes=1000)
    assert [cache.get(key) for key in "abcd"] == ["A", None, "C", "D"]
    assert (cache.evicted, len(cache)) == (1, 3)


def test_an_answer_under_a_known_key_takes_its_place() -> None:
    cache: ReportCache[str] = ReportCache(10_000)
    cache.put("a", "old", size_bytes=5000)
    cache.put("a", "new", size_bytes=10)
    assert (cache.get("a"), len(cache), cache.size_bytes) == ("new", 1, 10 + 2048)
    cache.clear()
    assert (cache.get("a"), len(cache), cache.size_bytes) == (None, 0, 0)


@given(
    puts=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4000)), max_size=40),
    bound=st.integers(0, 20_000),
)
def test_it_never_takes_more_than_it_may(puts: list[tuple[int, int]], bound: int) -> None:
    cache: ReportCache[int] = ReportCache(bound)
    for key, size_bytes in puts:
        cache.put(key, size_bytes, size_bytes=size_bytes)
        assert cache.size_bytes <= bound
        assert cache.get(key) in (size_bytes, None)
    held = [value for key in range(6) if (value := cache.get(key)) is not None]
    assert cache.size_bytes == sum(held) + 2048 * len(held)
