"""What Prometheus answers, held against what it was asked. Pure.

An answer that does not fit its question is refused whole: another kind of result, other
instants, labels that were not asked for, a series twice. A value that cannot be (no number, or
below zero where nothing is) is left out and makes the rest doubtful.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import msgspec

from oscar_metrics.errors import Reason, UpstreamError

T = TypeVar("T")

UPSTREAM = "Prometheus"
NOT_ALL = "Prometheus says that its answers may be incomplete"
NO_NUMBERS = "some of Prometheus' values are no numbers, or below zero, and were left out"
# Beside the data there are remarks about the expression, which begin so.
_ABOUT_EXPRESSION = "PromQL"
# The label under which `promql.named` tells its numbers apart.
_NAME = "is"


class Sample(msgspec.Struct, frozen=True):
    """One labelled number."""

    labels: dict[str, str]
    value: float


class Samples(msgspec.Struct, frozen=True):
    """One labelled series: (epoch milliseconds, number), in time order."""

    labels: dict[str, str]
    points: tuple[tuple[int, float], ...]


class Answer(msgspec.Struct, rename="camel"):
    """An answer as it comes; `data` is not looked at before it is known to be whole."""

    status: str
    data: msgspec.Raw
    warnings: list[str] | None = None
    infos: list[str] | None = None
    is_partial: bool = False

    def doubtful(self) -> bool:
        """Whether the server itself says that something may be missing."""
        said = (*(self.warnings or ()), *(self.infos or ()))
        return self.is_partial or any(not text.startswith(_ABOUT_EXPRESSION) for text in said)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a question lets its answer have.

    `labels` that a series may have, None for any; `below_zero` where that is nothing odd.
    """

    labels: frozenset[str] | None = None
    below_zero: bool = False
    most_series: int


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Vector(msgspec.Struct):
    metric: dict[str, str]
    value: tuple[float, str]


class _Matrix(msgspec.Struct):
    metric: dict[str, str]
    values: list[tuple[float, str]]


_ANSWER = msgspec.json.Decoder(Answer)
_DATA = msgspec.json.Decoder(_Data)
_SCALAR = msgspec.json.Decoder(tuple[float, str])
_VECTOR = msgspec.json.Decoder(list[_Vector])
_MATRIX = msgspec.json.Decoder(list[_Matrix])
_TEXTS = msgspec.json.Decoder(list[str])
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def vector(answer: Answer, at_ms: int, asked: Asked, doubts: set[str]) -> list[Sample]:
    """The numbers of an instant; a scalar is one without labels."""
    data = _decode(_DATA, answer.data)
    if data.result_type == "scalar":
        series = [_Vector({}, _decode(_SCALAR, data.result))]
    elif data.result_type == "vector":
        series = _decode(_VECTOR, data.result)
    else:
        _refuse("no instant vector")
    _look_at([each.metric for each in series], asked)
    samples = []
    for each in series:
        at, text = each.value
        if _milliseconds(at) != at_ms:
            _refuse("of another time")
        if _can_be(number := _number(text), asked):
            samples.append(Sample(each.metric, number))
        else:
            doubts.add(NO_NUMBERS)
    return samples


def matrix(answer: Answer, instants_ms: range, asked: Asked, doubts: set[str]) -> list[Samples]:
    """The series of a range; each of their times is one of `instants_ms`."""
    data = _decode(_DATA, answer.data)
    if data.result_type != "matrix":
        _refuse("no matrix")
    series = _decode(_MATRIX, data.result)
    _look_at([each.metric for each in series], asked)
    return [_samples(each, instants_ms, asked, doubts) for each in series]


def texts(answer: Answer) -> frozenset[str]:
    """The values of a label."""
    values = _decode(_TEXTS, answer.data)
    return frozenset(values)


def facts(answer: Answer) -> dict[str, Any]:
    """What a status page says."""
    return _decode(_OBJECT, answer.data)


def name_of(labels: Mapping[str, str]) -> str:
    """Which of the numbers of `promql.named` one is; raises UpstreamError."""
    return labels.get(_NAME) or _refuse("a number without a name")


def _samples(series: _Matrix, instants_ms: range, asked: Asked, doubts: set[str]) -> Samples:
    points = []
    before_ms = -1
    for at, text in series.values:
        at_ms = _milliseconds(at)
        if at_ms <= before_ms or at_ms not in instants_ms:
            _refuse("of other times")
        before_ms = at_ms
        if _can_be(number := _number(text), asked):
            points.append((at_ms, number))
        else:
            doubts.add(NO_NUMBERS)
    if not series.values:
        _refuse("a series without numbers")
    return Samples(series.metric, tuple(points))


def _look_at(labels: Sequence[dict[str, str]], asked: Asked) -> None:
    if len(labels) > asked.most_series:
        raise UpstreamError(UPSTREAM, Reason.TOO_LARGE, f"more than {asked.most_series} series")
    if asked.labels is not None and not all(each.keys() <= asked.labels for each in labels):
        _refuse("labels that were not asked for")
    if _count_distinct(labels) < len(labels):
        _refuse("a series twice")


def _count_distinct(labels: Iterable[dict[str, str]]) -> int:
    return len({frozenset(each.items()) for each in labels})


def _can_be(number: float, asked: Asked) -> bool:
    return math.isfinite(number) and (number >= 0 or asked.below_zero)


def _milliseconds(at: float) -> int:
    if not 0 <= at < 1e12:
        _refuse("a time that is none")
    return round(at * 1000)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        _refuse("a value that is no number")


def _decode(decoder: msgspec.json.Decoder[T], raw: msgspec.Raw) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        _refuse(type(exc).__name__)


def _refuse(detail: str) -> NoReturn:
    raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, detail)
