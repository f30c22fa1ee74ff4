"""What Loki answers, held against what it was asked. Pure.

An answer that does not fit its question is refused whole: lines of another time or of streams
that were not asked for, in no order, or more than were asked for; counts at other instants or
by other labels. What its `warnings` are about may be missing, and what Loki was sent twice may
be in it twice: see `loki_copies`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.sources.logql import LogQuery
from oscar_metrics.timerange import SECOND_NS, Span

ORIGIN = "loki"
NOT_ALL = "Loki says that its answers may be incomplete"
_AT_NS = attrgetter("at_ns")
# Stages behind which a stream's labels need not be those it was selected by.
_RELABELLING = re.compile(r"\|\s*(label_format|drop|keep)\b")


class Entry(msgspec.Struct, array_like=True, gc=False):
    """A line and its time; what may follow in the answer is ignored."""

    at_ns: int
    line: str


class StreamLines(msgspec.Struct):
    """Lines of one stream, in time order. Loki merges structured metadata into the labels."""

    stream: dict[str, str]
    values: list[Entry]


class Series(msgspec.Struct):
    """One group of a metric query that counts: (seconds since the epoch, count) pairs."""

    metric: dict[str, str]
    values: list[tuple[float, Annotated[int, Meta(ge=0)]]]


class _Streams(msgspec.Struct):
    resultType: Literal["streams"]  # noqa: N815 - Loki's name
    result: list[StreamLines]


class _Matrix(msgspec.Struct):
    resultType: Literal["matrix"]  # noqa: N815 - Loki's name
    result: list[Series]


class StreamsAnswer(msgspec.Struct):
    """An answer to a log query."""

    status: Literal["success"]
    data: _Streams
    warnings: list[str] | None = None


class MatrixAnswer(msgspec.Struct):
    """An answer to a metric query."""

    status: Literal["success"]
    data: _Matrix
    warnings: list[str] | None = None


def lines(answer: StreamsAnswer, query: LogQuery, span: Span, limit: int) -> list[StreamLines]:
    """The streams of an answer that have any line, each in time order; raises UpstreamError."""
    found = [stream for stream in answer.data.result if stream.values]
    if sum(len(stream.values) for stream in found) > limit:
        _refuse("more lines than were asked for")
    relabelled = _RELABELLING.search(query.pipeline) is not None
    for stream in found:
        instants = list(map(_AT_NS, stream.values))
        if instants[0] not in span or instants[-1] not in span:
            _refuse("lines of another time")
        # Sorting what is sorted is one look at each.
        if sorted(instants) != instants:
            _refuse("lines in no order")
    if not relabelled:
        wanted = [(each.name, each.value) for each in query.matchers if each.op == "="]
        if any(stream.stream.get(n, "") != value for stream in found for n, value in wanted):
            _refuse("lines of another stream")
    _look_for_two_alike([stream.stream for stream in found])
    return found


def steps(
    answer: MatrixAnswer, first_ns: int, last_ns: int, step_ns: int, by: Collection[str] | None
) -> list[Series]:
    """The groups of an answer, by labels of `by` or by any, at steps from first to last.

    Raises UpstreamError.
    """
    found = answer.data.result
    # Steps are whole seconds, and so are their multiples.
    instants = range(first_ns // SECOND_NS, last_ns // SECOND_NS + 1, step_ns // SECOND_NS)
    for group in found:
        if by is not None and not group.metric.keys() <= frozenset(by):
            _refuse("labels that were not asked for")
        times = [at for at, _ in group.values]
        if not all(at.is_integer() and int(at) in instants for at in times):
            _refuse("counts of other times")
        if any(after <= before for before, after in pairwise(times)):
            _refuse("counts in no order")
    _look_for_two_alike([group.metric for group in found])
    return found


def _look_for_two_alike(labels: Sequence[dict[str, str]]) -> None:
    if len({frozenset(each.items()) for each in labels}) < len(labels):
        _refuse("a stream twice")


def _refuse(detail: str) -> NoReturn:
    raise UpstreamError(ORIGIN, Reason.BAD_ANSWER, detail)
