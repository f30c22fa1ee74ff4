"""All pairs: few rows in which every two values of different columns meet once. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

# A row as it grows: by column, the number of its value there.
_Chosen = dict[int, int]
# Two (column, value) that are to meet, the column that is further left first.
_Pair = tuple[tuple[int, int], tuple[int, int]]


def all_pairs(columns: Mapping[str, Sequence[T]]) -> list[dict[str, T]]:
    """Rows in which each value of each column meets each value of each other one.

    Most faults show where two things meet, so these find most of what all combinations find. Each
    row is begun with a pair that has not met, and filled column by column with the value that
    brings most others together; on equal terms with the one that was used least. Always the same
    rows for the same columns. Raises ValueError for fewer than two columns, or an empty one.
    """
    if len(columns) < 2 or not all(columns.values()):
        raise ValueError("expected two columns or more, each with a value or more")
    sizes = [len(values) for values in columns.values()]
    # A dict for its order: it gives the same rows every time.
    missing: dict[_Pair, None] = dict.fromkeys(_pairs(sizes))
    used = [[0] * size for size in sizes]
    rows = []
    while missing:
        chosen: _Chosen = dict(next(iter(missing)))
        for column in sorted(set(range(len(sizes))) - chosen.keys(), key=lambda c: -sizes[c]):
            chosen[column] = _best(column, chosen, missing, used)
        for pair in itertools.combinations(sorted(chosen.items()), 2):
            missing.pop(pair, None)
        for column, value in chosen.items():
            used[column][value] += 1
        rows.append(chosen)
    return [
        {name: values[row[column]] for column, (name, values) in enumerate(columns.items())}
        for row in rows
    ]


def _pairs(sizes: Sequence[int]) -> list[_Pair]:
    return [
        ((left, a), (right, b))
        for left, right in itertools.combinations(range(len(sizes)), 2)
        for a in range(sizes[left])
        for b in range(sizes[right])
    ]


def _best(
    column: int, chosen: _Chosen, missing: Mapping[_Pair, None], used: Sequence[Sequence[int]]
) -> int:
    """The value of a column that has met fewest of what is chosen."""

    def met(value: int) -> tuple[int, int]:
        here = (column, value)
        new = sum((min(here, other), max(here, other)) in missing for other in chosen.items())
        return -new, used[column][value]

    return min(range(len(used[column])), key=met)
