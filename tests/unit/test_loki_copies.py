from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.sources.logql import LogQuery, Matcher
from oscar_metrics.sources.loki_answers import Entry, StreamLines
from oscar_metrics.sources.loki_copies import distinct_at, each_once
from oscar_metrics.sources.loki_splitting import halve

A, SHARD, B = {"pod": "a"}, {"pod": "a", "__stream_shard__": "7"}, {"pod": "b"}
SPAIN, PORTUGAL = {"pod": "a", "country": "ES"}, {"pod": "a", "country": "PT"}


def streams(*given: tuple[dict[str, str], list[tuple[int, str]]]) -> list[StreamLines]:
    return [StreamLines(labels, [Entry(*pair) for pair in values]) for labels, values in given]


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ([], []),
        ([(A, [(1, "x"), (1, "x"), (2, "x")])], [(A, [(1, "x"), (2, "x")])]),
        ([(A, [(1, "y"), (1, "x"), (1, "y")])], [(A, [(1, "y"), (1, "x")])]),
        # What two pods say alike they both said.
        ([(A, [(1, "x")]), (B, [(1, "x")])], [(A, [(1, "x")]), (B, [(1, "x")])]),
        ([(SHARD, [(2, "x")]), (A, [(1, "y"), (2, "x")])], [(SHARD, [(2, "x")]), (A, [(1, "y")])]),
        ([(A, [(1, "x")]), (SPAIN, [(1, "x")])], [(SPAIN, [(1, "x")])]),
        ([(PORTUGAL, [(1, "x")]), (SPAIN, [(1, "x")])], [(SPAIN, [(1, "x")])]),
        (
            [(PORTUGAL, [(1, "x")]), (SPAIN, [(2, "x")])],
            [(PORTUGAL, [(1, "x")]), (SPAIN, [(2, "x")])],
        ),
    ],
)  # fmt: skip
def test_what_was_sent_twice_is_there_once(sent: Any, expected: Any) -> None:
    assert each_once(streams(*sent)) == streams(*expected)


labels = st.fixed_dictionaries(
    {"pod": st.sampled_from("ab")},
    optional={"__stream_shard__": st.sampled_from("12"), "country": st.sampled_from(["ES", "PT"])},
)
pairs = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("xy")))


@given(st.lists(st.tuples(labels, pairs), unique_by=lambda each: frozenset(each[0].items())))
def test_each_line_of_each_pod_is_there_once_and_in_order(
    sent: list[tuple[dict[str, str], list[tuple[int, str]]]],
) -> None:
    once = each_once(streams(*((labels, sorted(pairs)) for labels, pairs in sent)))
    found = [(s.stream["pod"], e.at_ns, e.line) for s in once for e in s.values]
    assert sorted(found) == sorted({(of["pod"], *pair) for of, pairs in sent for pair in pairs})
    assert all(s.values == sorted(s.values, key=lambda e: e.at_ns) for s in once)


def test_lines_given_as_labels_are_distinct_too() -> None:
    groups = [{**labels, "line": line} for labels in (A, SHARD, SPAIN, B) for line in "xy"]
    found = distinct_at(5, groups, "line")
    assert [(s.stream, [(e.at_ns, e.line) for e in s.values]) for s in found] == [
        (SPAIN, [(5, "x")]),
        (SPAIN, [(5, "y")]),
        (B, [(5, "x")]),
        (B, [(5, "y")]),
    ]


def test_copies_are_not_split_from_each_other() -> None:
    query = LogQuery((Matcher("app", "=", "oscar"),))
    assert halve(query, streams((SPAIN, [(1, "x")]), (SHARD, [(1, "x")]))) is None
    halves = halve(query, streams((SPAIN, [(1, "x")]), (B, [(1, "x")])))
    assert halves is not None
    assert "pod" in halves[0].pipeline
