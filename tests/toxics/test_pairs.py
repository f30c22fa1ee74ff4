"""Rows of all pairs: every pair is there, and there are far fewer of them than combinations."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.toxics.pairs import all_pairs

COLUMNS = st.lists(st.integers(1, 6), min_size=2, max_size=5).map(
    lambda sizes: {f"column-{n}": range(size) for n, size in enumerate(sizes)}
)


@given(COLUMNS)
def test_every_two_values_of_different_columns_meet(columns: dict[str, range]) -> None:
    rows = all_pairs(columns)
    assert {
        (left, row[left], right, row[right])
        for row in rows
        for left, right in itertools.combinations(columns, 2)
    } == {
        (left, a, right, b)
        for left, right in itertools.combinations(columns, 2)
        for a, b in itertools.product(columns[left], columns[right])
    }


@given(COLUMNS)
def test_no_row_is_for_nothing(columns: dict[str, range]) -> None:
    rows = all_pairs(columns)
    assert len(rows) <= math.prod(map(len, columns.values()))
    met: set[tuple[str, int, str, int]] = set()
    for row in rows:
        pairs = {
            (left, row[left], right, row[right])
            for left, right in itertools.combinations(columns, 2)
        }
        assert pairs - met
        met |= pairs


def test_rows_are_few_and_always_the_same() -> None:
    columns = {"upstream": range(5), "toxic": range(9), "question": range(5), "caller": range(3)}
    rows = all_pairs(columns)
    # 45 is the least there can be; all combinations are 675.
    assert 45 <= len(rows) <= 54
    assert rows == all_pairs(columns)


@pytest.mark.parametrize("columns", [{}, {"one": [1, 2]}, {"one": [1], "two": []}])
def test_what_has_no_pairs_is_refused(columns: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="two columns"):
        all_pairs(columns)
