"""CPU core-seconds by service: the additive estimate of `promql`, or `increase` without it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import ServiceKey
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import UPSTREAM, PrometheusApi, Sample, Samples
from oscar_metrics.sources.prometheus_labels import POD_LABEL_NAMES, PodKey, ServiceNames
from oscar_metrics.sources.prometheus_samples import SampledWindow, age_seconds
from oscar_metrics.sources.prometheus_windows import Seconds, TooWideError, Window, together

_HOUR_MS = 3_600_000
# Containers that restarted within one series, read sample by sample: pods per question, and
# the most per window.
_RESTARTED_PODS = 20
_RESTARTED_MOST = 1000
# Containers that ended after a single sample are looked at one by one; with more the window
# is halved.
_SINGLES_MOST = 5000

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


class Pods:
    """What kube-state-metrics says of pods' own labels."""

    def __init__(self, api: PrometheusApi, namespace: str, *, known: bool) -> None:
        self._api = api
        self._namespace = namespace
        self._known = known

    async def labels(self, window: Window, doubts: set[str]) -> dict[PodKey, dict[str, str]]:
        """The labels of the pods of a window, as far as they are known."""
        if not self._known:
            return {}
        query = promql.pod_labels(self._namespace, POD_LABEL_NAMES, window.length_ms)
        labels: dict[PodKey, dict[str, str]] = {}
        for sample in await self._api.vector(query, window.stop_ms, doubts):
            labels.setdefault(pod_of(sample.labels), {}).update(sample.labels)
        return labels


# The labels an answer is for, and core-seconds.
_Amount = tuple[Mapping[str, str], float]


class _Form(NamedTuple):
    """How one window's containers are selected, told apart and grouped."""

    matchers: str
    group: tuple[str, ...]
    by_container: bool
    restarts: bool


class CpuReading:
    """CPU of one report: asked window by window, with what there is to say about it."""

    def __init__(
        self,
        api: PrometheusApi,
        namespace: str,
        names: ServiceNames,
        pods: Pods,
        *,
        interval_ms: int,
        doubts: set[str],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._names = names
        self._pods = pods
        self._interval_ms = interval_ms
        self._general_doubts = doubts
        self._doubts: set[str] = set()
        self._singles: Counter[int] = Counter()
        self._not_seen_before = 0
        self._without_start = 0

    async def measure(self, window: Window) -> Seconds:
        """Core-seconds in one window. Raises UpstreamError, and TooWideError for mixed data."""
        if window.length_ms <= 0:
            return {}
        query = promql.forms(self._namespace, window.length_ms)
        said = await self._api.numbers(query, window.stop_ms, self._general_doubts)
        counts = Counter({form: round(count) for form, count in said.items()})
        if not counts:
            return {}
        form = self._form(counts)
        if not (counts["apart"] + counts["by_pod"] and counts["started"]):
            return await self._increase(window, form, counts)
        if counts["no_pod"] + counts["no_container"]:
            if window.length_ms > _HOUR_MS:
                raise TooWideError
            self._doubts.add(_TWO_FORMS)
        return await self._estimate(window, form, counts)

    def doubts(self) -> list[str]:
        """What may be wrong with the figures, for people."""
        doubts = sorted(self._doubts)
        seconds = self._interval_ms // 1000
        # Ages at the only sample spread evenly up to a container's life, and never before a
        # life less one interval: young ones are many only where lives are short.
        if self._singles[0] >= 3 and 2 * self._singles[0] > self._singles[3]:
            doubts.append(
                f"containers that live less than the {seconds} s between scrapes are not all "
                f"seen, and some {4 * self._singles[0]} here were about that short: CPU time may "
                "be too low"
            )
        if self._not_seen_before:
            doubts.append(
                f"{self._not_seen_before} containers had been running unseen for an hour and more "
                "and count from when they were first seen"
            )
        if self._without_start:
            doubts.append(
                f"{self._without_start} containers have no start time in Prometheus and count "
                "from their first sample"
            )
        return doubts

    def _form(self, counts: Counter[str]) -> _Form:
        matchers = [self._namespace]
        if counts["apart"] + counts["by_pod"]:
            matchers.append(promql.CONTAINERS)
            # Only where they change something: such matchers cost Prometheus a look at every
            # value of the label.
            if counts["no_pod"]:
                matchers.append('pod!=""')
            if counts["apart"] and counts["by_pod"]:
                # The kubelet's own summary shows the same containers without `id`.
                matchers.append('id!=""')
            group = ("namespace", "pod" if counts["no_service"] else "service")
            return _Form(",".join(matchers), group, by_container=True, restarts=not counts["apart"])
        if counts["no_pod"]:
            matchers.append(promql.CONTAINERS)
        group = ("namespace", "service" if counts["no_pod"] + counts["no_container"] else "pod")
        return _Form(",".join(matchers), group, by_container=False, restarts=False)

    async def _estimate(self, window: Window, form: _Form, counts: Counter[str]) -> Seconds:
        question = promql.CpuQuestion(
            matchers=form.matchers,
            group=form.group,
            window_ms=window.length_ms,
            stop_ms=window.stop_ms,
            interval_ms=self._interval_ms,
            restarts=form.restarts,
        )
        queries = {
            "growth": question.growth,
            "tails": question.tails,
            "resumed": question.resumed_tails,
            "singles": question.singles,
            "resumed_singles": question.resumed_singles,
            "unseen": question.not_seen_before,
        }
        if form.restarts:
            queries["restarted"] = question.restarted
        said: dict[str, list[Sample]] = await together(
            {name: self._vector(query, window.stop_ms) for name, query in queries.items()}
        )
        if len(said["singles"]) > _SINGLES_MOST:
            raise UpstreamError(UPSTREAM, Reason.LIMIT, f"{len(said['singles'])} short containers")
        amounts: list[_Amount] = [(s.labels, s.value) for s in (*said["growth"], *said["tails"])]
        amounts += [(s.labels, -s.value) for s in said["resumed"]]
        if singles := said["singles"]:
            ages = await self._vector(question.ages_of_singles, window.stop_ms)
            amounts += self._tails_of_singles(singles, ages)
            for sample in ages:
                quarter = int(4000 * sample.value // self._interval_ms)
                self._singles[max(0, min(quarter, 3))] += 1
        if resumed := said["resumed_singles"]:
            ages = await self._vector(question.ages_of_resumed_singles, window.stop_ms)
            amounts += [(at, -tail) for at, tail in self._tails_of_singles(resumed, ages)]
        if restarted := said.get("restarted"):
            amounts += await self._by_samples(window, form, question, restarted)
        self._not_seen_before += sum(round(sample.value) for sample in said["unseen"])
        contained = counts["apart"] + counts["by_pod"]
        self._without_start += max(0, contained - counts["started"])
        return await self._by_service(window, form, amounts)

    def _tails_of_singles(self, values: Iterable[Sample], ages: Iterable[Sample]) -> list[_Amount]:
        """Half an interval at the average rate up to the only sample."""
        age_of = {frozenset(sample.labels.items()): sample.value for sample in ages}
        half_seconds = self._interval_ms / 2000
        return [
            (sample.labels, sample.value / age_seconds(age_of[key]) * half_seconds)
            for sample in values
            if (key := frozenset(sample.labels.items())) in age_of
        ]

    async def _by_samples(
        self,
        window: Window,
        form: _Form,
        question: promql.CpuQuestion,
        restarted: Sequence[Sample],
    ) -> list[_Amount]:
        """The seconds of containers that restarted within one series."""
        if len(restarted) > _RESTARTED_MOST:
            raise UpstreamError(UPSTREAM, Reason.LIMIT, f"{len(restarted)} restarted containers")
        sampled = SampledWindow(
            start_ms=window.start_ms,
            stop_ms=window.stop_ms,
            interval_ms=self._interval_ms,
            ended_after_ms=question.ended_after_ms,
        )
        containers = {_container(sample.labels): sample.labels for sample in restarted}
        pods = sorted({(namespace, pod) for namespace, pod, _ in containers})
        reach = promql.duration(window.length_ms + promql.REACH_MS)
        amounts: list[_Amount] = []
        for some in (pods[n : n + _RESTARTED_PODS] for n in range(0, len(pods), _RESTARTED_PODS)):
            matchers = f"{form.matchers},{promql.one_of('pod', sorted({pod for _, pod in some}))}"
            read = await together(
                {
                    metric: self._api.samples(
                        f"{promql.selector(metric, matchers)}[{reach}]",
                        window.stop_ms,
                        self._general_doubts,
                    )
                    for metric in (promql.CPU, promql.STARTED)
                }
            )
            counters, starts = (_by_container(read[m]) for m in (promql.CPU, promql.STARTED))
            for container in containers.keys() & counters.keys():
                if container[:2] in some:
                    seconds = sampled.cpu_seconds(counters[container], starts.get(container, ()))
                    amounts.append((containers[container], seconds))
        return amounts

    async def _increase(self, window: Window, form: _Form, counts: Counter[str]) -> Seconds:
        if counts["apart"] + counts["by_pod"]:
            self._doubts.add(_NO_START_TIMES)
        else:
            self._doubts.add(_NO_PODS if not counts["pods"] else _NO_START_TIMES)
            if not counts["no_pod"]:
                self._doubts.add(_NO_CONTAINERS)
        amounts: list[_Amount] = []
        for part in _hours(window):
            whole = part.length_ms >= _HOUR_MS
            query = promql.increase(
                promql.CPU,
                form.matchers,
                form.group,
                _HOUR_MS if whole else part.length_ms,
                by_container=form.by_container,
            )
            if not whole:
                amounts += [(s.labels, s.value) for s in await self._vector(query, part.stop_ms)]
                continue
            for series in await self._api.steps(
                query, part.start_ms + _HOUR_MS, part.stop_ms, _HOUR_MS, self._general_doubts
            ):
                amounts.append((series.labels, math.fsum(value for _, value in series.points)))
        return await self._by_service(window, form, amounts)

    async def _by_service(self, window: Window, form: _Form, amounts: Iterable[_Amount]) -> Seconds:
        by_pod = "pod" in form.group
        labels = await self._pods.labels(window, self._general_doubts) if by_pod else {}
        parts: dict[ServiceKey, list[float]] = {}
        for found, value in amounts:
            if by_pod:
                pod = pod_of(found)
                key = self._names.of_pod(pod, labels.get(pod, {}))
            else:
                key = self._names.of_label(found.get("namespace", ""), found.get("service", ""))
            parts.setdefault(key, []).append(value)
        return {key: math.fsum(values) for key, values in parts.items()}

    async def _vector(self, query: str, at_ms: int) -> list[Sample]:
        return await self._api.vector(query, at_ms, self._general_doubts)


def pod_of(labels: Mapping[str, str]) -> PodKey:
    """The pod that labels name."""
    return PodKey(labels.get("namespace", ""), labels.get("pod", ""))


def _container(labels: Mapping[str, str]) -> tuple[str, str, str]:
    return (*pod_of(labels), labels.get("container", ""))


def _by_container(series: Iterable[Samples]) -> dict[tuple[str, str, str], list[Samples]]:
    containers: dict[tuple[str, str, str], list[Samples]] = {}
    for one in series:
        containers.setdefault(_container(one.labels), []).append(one)
    return containers


def _hours(window: Window) -> list[Window]:
    """The window cut into the whole UTC hours in it, together, and what is before and after."""
    first_ms = -(-window.start_ms // _HOUR_MS) * _HOUR_MS
    last_ms = window.stop_ms // _HOUR_MS * _HOUR_MS
    if first_ms >= last_ms:
        first_ms = last_ms = min(max(first_ms, window.start_ms), window.stop_ms)
    parts = (
        Window(window.start_ms, first_ms),
        Window(first_ms, last_ms),
        Window(last_ms, window.stop_ms),
    )
    return [part for part in parts if part.length_ms]
