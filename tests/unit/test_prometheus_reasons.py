"""What Prometheus and its relatives mean by an error."""

from __future__ import annotations

import pytest

from oscar_metrics.errors import Reason
from oscar_metrics.sources.prometheus_api import reason_of

TOO_MUCH = [
    (422, "query processing would load too many samples into memory in query execution"),
    (400, "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query"),
    # Mimir
    (
        422,
        "the query exceeded the maximum number of series (…) add more label matchers to the query",
    ),
    (422, "the query time range exceeds the limit (query length: 1h, limit: 5m)"),
    # VictoriaMetrics
    (422, "cannot select more than -search.maxSamplesPerQuery=10 samples"),
    (422, "the number of matching timeseries exceeds 3; either narrow down the search"),
    (400, "the number of matching timeseries exceeds 3; either narrow down the search"),
    (400, "too many points for the given start=1, end=2 and step=1: 541; the maximum is 100"),
    # Thanos
    (422, "rpc error: code = ResourceExhausted desc = exceeded series limit"),
]
ITS_OWN = [
    'found duplicate series for the match group {pod="a"} on the right hand-side',
    "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)",
    "multiple matches for labels: grouping labels must ensure unique matches",
    "vector cannot contain metrics with the same labelset",
]


@pytest.mark.parametrize(("status", "text"), TOO_MUCH)
def test_a_limit_is_no_fault_of_the_question(status: int, text: str) -> None:
    assert reason_of(status, text) is Reason.LIMIT


@pytest.mark.parametrize("text", ITS_OWN)
def test_a_question_that_is_wrong_is_not_asked_by_halves(text: str) -> None:
    assert reason_of(422, text) is Reason.REFUSED


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (503, "query timed out in expression evaluation", Reason.TOO_SLOW),
        (503, '{"errorType":"timeout"}', Reason.TOO_SLOW),
        (503, "no healthy upstream", None),
        (400, "parse error", None),
        (504, "<html>Gateway Time-out</html>", None),
    ],
)
def test_of_others_the_status_speaks_unless_it_is_slow(
    status: int, text: str, reason: Reason | None
) -> None:
    assert reason_of(status, text) is reason
