"""Which forms Prometheus' CPU series have, hour by hour, and what follows for asking.

A form is that of a whole UTC hour, wherever a range is cut, so that ranges add up also
where the labels that a scrape keeps change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

from oscar_metrics.facts import UsageMethod
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_answers import name_of
from oscar_metrics.sources.prometheus_api import PrometheusApi
from oscar_metrics.sources.prometheus_windows import HOUR_MS, Window, answers, parts

_NO_START_TIMES = (
    "CPU time is Prometheus' `increase` by whole hours, because there are no start times of "
    "containers (container_start_time_seconds): jobs seen in one scrape only are missing, "
    "longer ones are estimated"
)
_NO_PODS = (
    "CPU time is Prometheus' `increase` by whole hours, because its series carry no pod: pods of "
    "one service on one node share a series, so part of their time is missing; jobs seen in one "
    "scrape only are missing, longer ones are estimated"
)
_NO_CONTAINERS = (
    "CPU time may be counted twice: Prometheus' series carry no container, so that a pod's own "
    "row cannot be told from those of its containers"
)
_TWO_FORMS = (
    "some of Prometheus' CPU series carry no pod beside others that do, and were left out: the "
    "scrape's labels have just changed, or two scrapes keep different ones"
)

Counts = Counter[str]


class Form(NamedTuple):
    """How containers are measured, selected, told apart and grouped."""

    method: UsageMethod
    matchers: str
    group: tuple[str, ...]
    by_container: bool
    restarts: bool


class Stretch(NamedTuple):
    """Some of a window in which the series have one form, and their counts hour by hour."""

    window: Window
    form: Form
    counts: tuple[Counts, ...]


async def stretches(
    api: PrometheusApi, namespace: str, window: Window, doubts: set[str], *, now_ms: int
) -> list[Stretch]:
    """What there is of a window, by form; hours without any series are left out.

    Raises UpstreamError.
    """
    first_ms = window.start_ms // HOUR_MS * HOUR_MS
    last_ms = -(-window.stop_ms // HOUR_MS) * HOUR_MS
    # What ends shortly before an hour does still counts in the next, which may have no series.
    asked = Window(first_ms - HOUR_MS, min(last_ms, now_ms))
    by_hour: dict[int, Counts] = {}
    for part in parts(asked, HOUR_MS):
        query = promql.forms(namespace, part.step_ms)
        for samples in await answers(api, query, part, doubts, by=promql.NAMED):
            for at_ms, value in samples.points:
                hour = (at_ms - 1) // HOUR_MS
                by_hour.setdefault(hour, Counter())[name_of(samples.labels)] = round(value)
    hours = [
        (hour, _form_of(namespace, counts), counts)
        for hour in range(first_ms // HOUR_MS, last_ms // HOUR_MS)
        if (counts := by_hour.get(hour) or by_hour.get(hour - 1))
    ]
    return list(_adjacent(hours, window))


def doubts_of(form: Form, counts: Counts) -> Iterator[str]:
    """What series of a form leave in doubt, for people."""
    contained = counts["apart"] + counts["by_pod"]
    if form.method is UsageMethod.CPU_ESTIMATE:
        if counts["no_pod"] + counts["no_container"]:
            yield _TWO_FORMS
    elif contained or counts["pods"]:
        yield _NO_START_TIMES
    else:
        yield _NO_PODS
    if not contained and not counts["no_pod"]:
        yield _NO_CONTAINERS


def _form_of(namespace: str, counts: Counts) -> Form:
    matchers = [namespace]
    if counts["apart"] + counts["by_pod"]:
        matchers.append(promql.CONTAINERS)
        # Only where they change something: such matchers cost Prometheus a look at every
        # value of the label.
        if counts["no_pod"]:
            matchers.append('pod!=""')
        if counts["apart"] and counts["by_pod"]:
            # The kubelet's own summary shows the same containers without `id`.
            matchers.append('id!=""')
        return Form(
            UsageMethod.CPU_ESTIMATE if counts["started"] else UsageMethod.CPU_INCREASE,
            ",".join(matchers),
            ("namespace", "pod" if counts["no_service"] else "service"),
            by_container=True,
            restarts=not counts["apart"],
        )
    if counts["no_pod"]:
        matchers.append(promql.CONTAINERS)
    return Form(
        UsageMethod.CPU_INCREASE,
        ",".join(matchers),
        ("namespace", "service" if counts["no_pod"] + counts["no_container"] else "pod"),
        by_container=False,
        restarts=False,
    )


def _adjacent(hours: list[tuple[int, Form, Counts]], window: Window) -> Iterator[Stretch]:
    """Hours of one form that follow each other, put together."""
    numbered = enumerate(hours)
    for _, run in groupby(numbered, key=lambda item: (item[1][0] - item[0], item[1][1])):
        found = [hour for _, hour in run]
        first, form, _ = found[0]
        start_ms, stop_ms = first * HOUR_MS, (first + len(found)) * HOUR_MS
        inside = Window(max(start_ms, window.start_ms), min(stop_ms, window.stop_ms))
        yield Stretch(inside, form, tuple(counts for _, _, counts in found))
