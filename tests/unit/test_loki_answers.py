from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.sources import loki_answers
from oscar_metrics.sources.logql import LogQuery, Matcher
from oscar_metrics.sources.loki_answers import (
    MatrixAnswer,
    StreamsAnswer,
)
from oscar_metrics.timerange import SECOND_NS, Span

QUERY = LogQuery((Matcher("app", "=", "oscar"), Matcher("pod", "=~", "oscar-.+")), "|= `x`")
SPAN = Span(100, 200)
LABELS = {"app": "oscar", "pod": "oscar-0"}
_STREAMS = msgspec.json.Decoder(StreamsAnswer, strict=False)
_MATRIX = msgspec.json.Decoder(MatrixAnswer, strict=False)


def stream(*times: int, **labels: str) -> dict[str, Any]:
    values = [[str(at), f"line {number}"] for number, at in enumerate(times)]
    return {"stream": LABELS | labels, "values": values}


def lines(*streams: dict[str, Any], query: LogQuery = QUERY, limit: int = 3) -> list[int]:
    data = {"resultType": "streams", "result": streams}
    answer = _STREAMS.decode(json.dumps({"status": "success", "data": data}))
    found = loki_answers.lines(answer, query, SPAN, limit)
    return [entry.at_ns for stream in found for entry in stream.values]


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        ([], []),
        ([stream()], []),
        ([stream(100, 150, 199)], [100, 150, 199]),
        ([stream(150, 150), stream(100, pod="oscar-1")], [150, 150, 100]),
    ],
)
def test_lines_that_were_asked_for(streams: list[dict[str, Any]], expected: list[int]) -> None:
    assert lines(*streams) == expected


@pytest.mark.parametrize(
    "streams",
    [
        [stream(99)],
        [stream(200)],
        [stream(150, 500, 160)],
        [stream(150, 140)],
        [stream(100, 101, 102, 103)],
        [stream(100, 101), stream(100, 101, pod="oscar-1")],
        [stream(100, app="other")],
        [{"stream": {"pod": "oscar-0"}, "values": [["100", "line"]]}],
        [stream(100), stream(101)],
    ],
)
def test_lines_that_were_not(streams: list[dict[str, Any]]) -> None:
    with pytest.raises(UpstreamError) as caught:
        lines(*streams)
    assert caught.value.reason is Reason.BAD_ANSWER


@pytest.mark.parametrize("stage", ["| drop app", "| label_format app=pod", "| keep pod"])
def test_labels_that_the_query_itself_changes_may_be_others(stage: str) -> None:
    assert lines(stream(100, app="other"), query=QUERY.then(stage)) == [100]


def group(*values: Any, **labels: str) -> dict[str, Any]:
    return {"metric": labels, "values": list(values)}


def steps(*groups: dict[str, Any]) -> list[Any]:
    data = {"resultType": "matrix", "result": groups}
    answer = _MATRIX.decode(json.dumps({"status": "success", "data": data}))
    found = loki_answers.steps(answer, 900 * SECOND_NS, 2700 * SECOND_NS, 900 * SECOND_NS, ["a"])
    return [each.values for each in found]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], []),
        ([group()], [[]]),
        ([group([900, "1"], [2700, "0"]), group([1800.0, "2"], a="x")],
         [[(900, 1), (2700, 0)], [(1800, 2)]]),
    ],
)  # fmt: skip
def test_counts_that_were_asked_for(groups: list[dict[str, Any]], expected: list[Any]) -> None:
    assert steps(*groups) == expected


@pytest.mark.parametrize(
    "groups",
    [
        [group([0, "1"])],
        [group([3600, "1"])],
        [group([1000, "1"])],
        [group([900.5, "1"])],
        [group([1e300, "1"])],
        [group([1800, "1"], [900, "1"])],
        [group([900, "1"], [900, "1"])],
        [group([900, "1"], b="x")],
        [group([900, "1"]), group([1800, "1"])],
    ],
)
def test_counts_that_were_not(groups: list[dict[str, Any]]) -> None:
    with pytest.raises(UpstreamError) as caught:
        steps(*groups)
    assert caught.value.reason is Reason.BAD_ANSWER


@pytest.mark.parametrize("count", ["-1", "NaN", "1.5", "+Inf", ""])
def test_counts_that_are_none(count: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        steps(group([900, count]))
