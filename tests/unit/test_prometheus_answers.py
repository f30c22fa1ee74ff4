from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.sources import prometheus_answers
from oscar_metrics.sources.prometheus_answers import NO_NUMBERS, Answer, Asked, Sample, Samples

AT_MS = 1_800_000_000_000
INSTANTS = range(AT_MS, AT_MS + 3 * 60_000 + 1, 60_000)
AT, LATER = 1_800_000_000, 1_800_000_060
_ANSWER = msgspec.json.Decoder(Answer)


def answer(kind: str, result: Any, **beside: Any) -> Answer:
    data = {"resultType": kind, "result": result}
    return _ANSWER.decode(json.dumps({"status": "success", "data": data, **beside}))


def asked(*, by: Collection[str] | None = ("a",), below_zero: bool = False) -> Asked:
    labels = None if by is None else frozenset(by)
    return Asked(labels=labels, below_zero=below_zero, most_series=2)


def one(value: Any, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "value": value}


def many(*values: Any, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "values": list(values)}


def vector(kind: str, result: Any, **how: Any) -> tuple[list[Sample], set[str]]:
    doubts: set[str] = set()
    return prometheus_answers.vector(answer(kind, result), AT_MS, asked(**how), doubts), doubts


def matrix(kind: str, result: Any, **how: Any) -> tuple[list[Samples], set[str]]:
    doubts: set[str] = set()
    return prometheus_answers.matrix(answer(kind, result), INSTANTS, asked(**how), doubts), doubts


@pytest.mark.parametrize(
    ("kind", "result", "expected"),
    [
        ("vector", [], []),
        ("vector", [one([AT, "1.5"], a="x")], [Sample({"a": "x"}, 1.5)]),
        ("vector", [one([AT, "1"]), one([AT, "2"], a="")], None),  # more than `a` may be blank
        ("scalar", [AT, "3"], [Sample({}, 3.0)]),
    ],
)
def test_numbers_of_an_instant(kind: str, result: Any, expected: list[Sample] | None) -> None:
    found, doubts = vector(kind, result)
    assert expected is None or found == expected
    assert not doubts


@pytest.mark.parametrize("text", ["NaN", "+Inf", "-Inf", "-1"])
def test_what_cannot_be_is_left_out_and_said(text: str) -> None:
    assert vector("vector", [one([AT, text]), one([AT, "1"], a="x")]) == (
        [Sample({"a": "x"}, 1.0)],
        {NO_NUMBERS},
    )
    assert matrix("matrix", [many([AT, text], [LATER, "1"])]) == (
        [Samples({}, ((AT_MS + 60_000, 1.0),))],
        {NO_NUMBERS},
    )


def test_ages_may_be_below_zero() -> None:
    assert vector("scalar", [AT, "-1"], below_zero=True) == ([Sample({}, -1.0)], set())


@pytest.mark.parametrize(
    ("kind", "result", "reason"),
    [
        ("matrix", [], Reason.BAD_ANSWER),
        ("streams", [], Reason.BAD_ANSWER),
        ("string", [AT, "1"], Reason.BAD_ANSWER),
        ("vector", None, Reason.BAD_ANSWER),
        ("vector", {}, Reason.BAD_ANSWER),
        ("vector", [many([AT, "1"])], Reason.BAD_ANSWER),
        ("vector", [{"metric": {}, "histogram": [AT, {}]}], Reason.BAD_ANSWER),
        ("vector", [{"value": [AT, "1"]}], Reason.BAD_ANSWER),
        ("vector", [one([AT, "one"])], Reason.BAD_ANSWER),
        ("vector", [one([AT, 1])], Reason.BAD_ANSWER),
        ("vector", [one([LATER, "1"])], Reason.BAD_ANSWER),
        ("vector", [one([1e300, "1"])], Reason.BAD_ANSWER),
        ("vector", [one([-1, "1"])], Reason.BAD_ANSWER),
        ("vector", [one([AT, "1"], b="x")], Reason.BAD_ANSWER),
        ("vector", [one([AT, "1"], a="x"), one([AT, "1"], a="x")], Reason.BAD_ANSWER),
        ("vector", [one([AT, "1"], a=text) for text in "xyz"], Reason.TOO_LARGE),
        ("scalar", [LATER, "1"], Reason.BAD_ANSWER),
        ("scalar", [], Reason.BAD_ANSWER),
    ],
)
def test_what_is_no_answer_of_an_instant(kind: str, result: Any, reason: Reason) -> None:
    with pytest.raises(UpstreamError) as caught:
        vector(kind, result)
    assert caught.value.reason is reason


def test_series_of_a_range() -> None:
    result = [many([AT, "1"], [LATER, "2"], a="x"), many([LATER, "3"])]
    expected = [
        Samples({"a": "x"}, ((AT_MS, 1.0), (AT_MS + 60_000, 2.0))),
        Samples({}, ((AT_MS + 60_000, 3.0),)),
    ]
    assert matrix("matrix", result) == (expected, set())


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        ("vector", []),
        ("vector", [one([AT, "1"])]),
        ("matrix", [one([AT, "1"])]),
        ("matrix", [many()]),
        ("matrix", [{"metric": {}, "values": [], "histograms": [[AT, {}]]}]),
        ("matrix", [many([AT - 60, "1"])]),  # before the range
        ("matrix", [many([AT + 240, "1"])]),  # after it
        ("matrix", [many([AT + 30, "1"])]),  # beside the steps
        ("matrix", [many([LATER, "1"], [AT, "1"])]),
        ("matrix", [many([AT, "1"], [AT, "1"])]),
        ("matrix", [many([AT, "1"], b="x")]),
        ("matrix", [many([AT, "1"]), many([LATER, "1"])]),
        ("matrix", [many([1e300, "1"])]),
    ],
)
def test_what_is_no_answer_of_a_range(kind: str, result: Any) -> None:
    with pytest.raises(UpstreamError) as caught:
        matrix(kind, result)
    assert caught.value.reason is Reason.BAD_ANSWER


@pytest.mark.parametrize(
    ("beside", "doubtful"),
    [
        ({}, False),
        ({"warnings": [], "infos": None}, False),
        ({"warnings": ["PromQL warning: a name"], "infos": ["PromQL info: a name"]}, False),
        ({"warnings": ["a store is down"]}, True),
        ({"infos": ["a store is down"]}, True),
        ({"isPartial": True}, True),
    ],
)
def test_what_the_server_itself_doubts(beside: dict[str, Any], *, doubtful: bool) -> None:
    assert answer("vector", [], **beside).doubtful() is doubtful
