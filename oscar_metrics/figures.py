"""One service's facts → its metrics, one by one or all together. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET

from oscar_metrics.callers import id_of
from oscar_metrics.completeness import statuses
from oscar_metrics.facts import Kind, ServiceCount, Usage
from oscar_metrics.outcome import Measure, Outcome, Unavailable, with_facts
from oscar_metrics.privacy import Privacy
from oscar_metrics.sums import CallSums
from oscar_metrics.timerange import ReportRange
from oscar_metrics.usage_hours import hours
from oscar_metrics.wire import Metric, ServiceMetric, ServiceMetrics, SourceName, Value

_VALUE_MEASURES = {Metric.CPU_HOURS: Measure.CPU, Metric.GPU_HOURS: Measure.GPU}


def service_metric(
    asked: ReportRange,
    now_ns: int,
    service: str,
    metric: Metric,
    outcome: Outcome[ServiceCount] | Outcome[Usage],
    *,
    privacy: Privacy,
) -> ServiceMetric:
    """One metric of one service, from the one source that supplies it."""
    source = source_of(metric)
    measure = _VALUE_MEASURES.get(metric)
    return ServiceMetric(
        metric=metric,
        value=_metric_value(service, metric, outcome),
        unit="hours" if measure else UNSET,
        sources=statuses(
            asked, now_ns, {source: outcome}, {source: (("value", measure),)}, privacy
        ),
    )


def value(asked: ReportRange, service: str, figure: ServiceMetric) -> Value:
    """The same figure as an answer of its own."""
    return Value(
        service_id=service,
        metric=figure.metric,
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        value=figure.value,
        unit=figure.unit,
        sources=figure.sources,
    )


def service_metrics(
    asked: ReportRange, service: str, figures: Iterable[ServiceMetric]
) -> ServiceMetrics:
    """Several figures as one answer."""
    return ServiceMetrics(
        service_name=service,
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        metrics=tuple(figures),
    )


def source_of(metric: Metric) -> SourceName:
    """Which source supplies a metric of one service."""
    if metric in _VALUE_MEASURES:
        return SourceName.USAGE
    if metric is Metric.REQUESTS_EXPOSED:
        return SourceName.EXPOSED_REQUEST_LOGS
    return SourceName.REQUEST_LOGS


def service_count(calls: Outcome[CallSums]) -> Outcome[ServiceCount]:
    """What sums of one service's calls (`groupings.ONE_SERVICE`) say of it."""
    if isinstance(calls, Unavailable):
        return calls
    sums = calls.facts
    kinds = {kind: count for (kind,), count in sums.by("kind").items()}
    users = sums.by("user") if ("user",) in sums.groups else ()
    ids = frozenset(id_of(user) for (user,) in users)
    return with_facts(calls, ServiceCount(calls=kinds, users=ids))


def _metric_value(
    service: str, metric: Metric, outcome: Outcome[ServiceCount] | Outcome[Usage]
) -> float | None:
    if isinstance(outcome, Unavailable):
        return None
    facts = outcome.facts
    if isinstance(facts, Usage):
        return hours(facts, _VALUE_MEASURES[metric], service)
    if metric is Metric.USERS_PER_SERVICE:
        return len(facts.users - {""})
    kinds = {
        Metric.REQUESTS_SYNC: Kind.SYNC,
        Metric.REQUESTS_ASYNC: Kind.ASYNC,
        Metric.REQUESTS_EXPOSED: Kind.EXPOSED,
    }
    return facts.calls.get(kinds[metric], 0)
