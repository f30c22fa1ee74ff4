"""CPU core-seconds by service: the additive estimate of `promql`, or `increase` without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import ServiceKey, UsageMethod
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_answers import UPSTREAM, Samples
from oscar_metrics.sources.prometheus_api import PrometheusApi
from oscar_metrics.sources.prometheus_forms import Form, Stretch, doubts_of, stretches
from oscar_metrics.sources.prometheus_labels import POD_LABEL_NAMES, PodKey, ServiceNames
from oscar_metrics.sources.prometheus_samples import SampledWindow, age_seconds
from oscar_metrics.sources.prometheus_windows import (
    HOUR_MS,
    QUARTER_MS,
    Part,
    Pieces,
    WholeHoursError,
    Window,
    answers,
    parts,
    pieces_of,
    together,
)

# Containers that restarted within one series, read sample by sample: pods per question, and
# the most per window.
_RESTARTED_PODS = 20
_RESTARTED_MOST = 1000
# Containers that ended after a single sample are looked at one by one; with more the window
# is halved.
_SINGLES_MOST = 5000


class Pods:
    """What kube-state-metrics says of pods: their own labels, and when they ended."""

    def __init__(
        self, api: PrometheusApi, namespace: str, *, known: bool, completions: bool
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._known = known
        self._completions = completions

    async def labels(self, window: Window, doubts: set[str]) -> dict[PodKey, dict[str, str]]:
        """The labels of the pods of a window, as far as they are known."""
        if not self._known:
            return {}
        query = promql.pod_labels(self._namespace, POD_LABEL_NAMES, window.length_ms)
        labels: dict[PodKey, dict[str, str]] = {}
        by = ("namespace", "pod", *POD_LABEL_NAMES)
        for sample in await self._api.vector(query, window.stop_ms, doubts, by=by):
            labels.setdefault(pod_of(sample.labels), {}).update(sample.labels)
        return labels

    async def never_scraped(self, window: Window, doubts: set[str]) -> int:
        """How many pods ended in a window without any container having been scraped."""
        if not self._completions:
            return 0
        query = promql.never_scraped(self._namespace, window.length_ms)
        counted = await self._api.vector(query, window.stop_ms, doubts, by=())
        return round(sum(sample.value for sample in counted))


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
        now_ms: int,
        doubts: set[str],
    ) -> None:
        # How each hour (its number since the epoch) was measured that had any series.
        self.methods: dict[int, UsageMethod] = {}
        self._api = api
        self._namespace = namespace
        self._names = names
        self._pods = pods
        self._interval_ms = interval_ms
        self._now_ms = now_ms
        self._general_doubts = doubts
        self._doubts: set[str] = set()
        self._singles: Counter[int] = Counter()
        self._not_seen_before = 0
        self._never_scraped = 0
        self._without_start = 0

    async def measure(self, window: Window) -> Pieces:
        """Core-seconds by quarter-hour, or by hour where `increase` stands in.

        Raises UpstreamError.
        """
        if window.length_ms <= 0:
            return {}
        pieces: Pieces = {}
        by_form = await stretches(
            self._api, self._namespace, window, self._general_doubts, now_ms=self._now_ms
        )
        for stretch in by_form:
            pieces |= await self._stretch(stretch)
        if all(stretch.form.method is UsageMethod.CPU_ESTIMATE for stretch in by_form):
            never_scraped = await self._pods.never_scraped(window, self._general_doubts)
            self._never_scraped += never_scraped  # not across the await: windows run side by side
        return pieces

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
        if self._never_scraped:
            doubts.append(
                f"{self._never_scraped} pods ended without having been seen by any scrape (every "
                f"{seconds} s): their CPU time is missing"
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

    async def _stretch(self, stretch: Stretch) -> Pieces:
        window, form, counts = stretch
        estimated = form.method is UsageMethod.CPU_ESTIMATE
        found = [
            (part, await (self._estimate(part, form) if estimated else self._increase(part, form)))
            for part in parts(window, QUARTER_MS if estimated else HOUR_MS)
        ]
        for hour in range(window.start_ms // HOUR_MS, -(-window.stop_ms // HOUR_MS)):
            self.methods[hour] = form.method
        for each in counts:
            self._doubts.update(doubts_of(form, each))
        if estimated:
            contained = (each["apart"] + each["by_pod"] - each["started"] for each in counts)
            self._without_start += max(0, *contained, 0)
        by_pod = "pod" in form.group and any(amounts for _, amounts in found)
        labels = await self._pods.labels(window, self._general_doubts) if by_pod else {}
        pieces: Pieces = {}
        for part, amounts in found:
            pieces |= pieces_of(
                part, [(self._key(samples.labels, form, labels), samples) for samples in amounts]
            )
        return pieces

    def _key(
        self, found: Mapping[str, str], form: Form, labels: Mapping[PodKey, Mapping[str, str]]
    ) -> ServiceKey:
        if "pod" in form.group:
            pod = pod_of(found)
            return self._names.of_pod(pod, labels.get(pod, {}))
        return self._names.of_label(found.get("namespace", ""), found.get("service", ""))

    async def _increase(self, part: Part, form: Form) -> list[Samples]:
        query = promql.increase(
            promql.CPU, form.matchers, form.group, part.step_ms, by_container=form.by_container
        )
        try:
            return await self._answers(query, part, form.group)
        except UpstreamError as exc:
            raise WholeHoursError(exc) from exc

    async def _estimate(self, part: Part, form: Form) -> list[Samples]:
        question = promql.CpuQuestion(
            matchers=form.matchers,
            group=form.group,
            window_ms=part.step_ms,
            lead_ms=part.window.start_ms % QUARTER_MS,
            interval_ms=self._interval_ms,
            restarts=form.restarts,
        )
        by_group, one_by_one = form.group, question.identity
        queries: dict[str, tuple[str, Collection[str]]] = {
            "growth": (question.growth, by_group),
            "tails": (question.tails, by_group),
            "resumed": (question.resumed_tails, by_group),
            "singles": (question.singles, one_by_one),
            "resumed_singles": (question.resumed_singles, one_by_one),
            "unseen": (question.not_seen_before, ()),
        }
        if form.restarts:
            queries["restarted"] = question.restarted, one_by_one
        said: dict[str, list[Samples]] = await together(
            {name: self._answers(query, part, by) for name, (query, by) in queries.items()}
        )
        singles, resumed = said["singles"], said["resumed_singles"]
        if len(singles) > _SINGLES_MOST:
            raise UpstreamError(UPSTREAM, Reason.LIMIT, f"{len(singles)} short containers")
        amounts = [*said["growth"], *said["tails"], *map(_taken_off, said["resumed"])]
        if singles:
            ages = await self._ages(question.ages_of_singles, part, one_by_one)
            amounts += self._tails_of_singles(singles, ages)
            for _, age in (point for samples in ages for point in samples.points):
                quarter = int(4000 * age // self._interval_ms)
                self._singles[max(0, min(quarter, 3))] += 1
        if resumed:
            ages = await self._ages(question.ages_of_resumed_singles, part, one_by_one)
            amounts += map(_taken_off, self._tails_of_singles(resumed, ages))
        if restarted := said.get("restarted"):
            amounts += await self._by_samples(part, form, question, restarted)
        self._not_seen_before += sum(
            round(count) for samples in said["unseen"] for _, count in samples.points
        )
        return amounts

    def _tails_of_singles(
        self, values: Iterable[Samples], ages: Iterable[Samples]
    ) -> list[Samples]:
        """Half an interval at the average rate up to the only sample."""
        age_of = {frozenset(samples.labels.items()): dict(samples.points) for samples in ages}
        half_seconds = self._interval_ms / 2000
        tails = []
        for samples in values:
            age_at = age_of.get(frozenset(samples.labels.items()), {})
            points = (
                (at_ms, value / age_seconds(age_at[at_ms]) * half_seconds)
                for at_ms, value in samples.points
                if at_ms in age_at
            )
            tails.append(Samples(samples.labels, tuple(points)))
        return tails

    async def _by_samples(
        self, part: Part, form: Form, question: promql.CpuQuestion, restarted: Sequence[Samples]
    ) -> list[Samples]:
        """The seconds of containers that restarted within one series."""
        if len(restarted) > _RESTARTED_MOST:
            raise UpstreamError(UPSTREAM, Reason.LIMIT, f"{len(restarted)} restarted containers")
        windows = {at_ms: self._sampled(part.piece(at_ms), question) for at_ms in _ends(restarted)}
        seen_from_ms = min(window.seen_from_ms for window in windows.values())
        reach_ms = part.window.stop_ms - seen_from_ms
        containers = {_container(samples.labels): samples for samples in restarted}
        pods = sorted({(namespace, pod) for namespace, pod, _ in containers})
        amounts: list[Samples] = []
        for some in (pods[n : n + _RESTARTED_PODS] for n in range(0, len(pods), _RESTARTED_PODS)):
            matchers = f"{form.matchers},{promql.one_of('pod', sorted({pod for _, pod in some}))}"
            read = await together(
                {
                    metric: self._api.samples(
                        promql.selector(metric, matchers),
                        reach_ms,
                        part.window.stop_ms,
                        self._general_doubts,
                    )
                    for metric in (promql.CPU, promql.STARTED)
                }
            )
            counters, starts = (_by_container(read[m]) for m in (promql.CPU, promql.STARTED))
            for container in containers.keys() & counters.keys():
                if container[:2] in some:
                    counter, start = counters[container], starts.get(container, ())
                    points = (
                        (at_ms, windows[at_ms].cpu_seconds(counter, start))
                        for at_ms, _ in containers[container].points
                    )
                    amounts.append(Samples(containers[container].labels, tuple(points)))
        return amounts

    def _sampled(self, piece: Window, question: promql.CpuQuestion) -> SampledWindow:
        return SampledWindow(
            start_ms=piece.start_ms,
            stop_ms=piece.stop_ms,
            reach_ms=question.reach_ms,
            interval_ms=self._interval_ms,
            ended_after_ms=question.ended_after_ms,
        )

    async def _answers(self, query: str, part: Part, by: Collection[str]) -> list[Samples]:
        return await answers(self._api, query, part, self._general_doubts, by=by)

    async def _ages(self, query: str, part: Part, by: Collection[str]) -> list[Samples]:
        # Of a container that was just started, on a node whose clock is behind.
        return await answers(self._api, query, part, self._general_doubts, by=by, below_zero=True)


def pod_of(labels: Mapping[str, str]) -> PodKey:
    """The pod that labels name."""
    return PodKey(labels.get("namespace", ""), labels.get("pod", ""))


def _taken_off(samples: Samples) -> Samples:
    return Samples(samples.labels, tuple((at_ms, -value) for at_ms, value in samples.points))


def _ends(answered: Iterable[Samples]) -> set[int]:
    return {at_ms for samples in answered for at_ms, _ in samples.points}


def _container(labels: Mapping[str, str]) -> tuple[str, str, str]:
    return (*pod_of(labels), labels.get("container", ""))


def _by_container(series: Iterable[Samples]) -> dict[tuple[str, str, str], list[Samples]]:
    containers: dict[tuple[str, str, str], list[Samples]] = {}
    for one in series:
        containers.setdefault(_container(one.labels), []).append(one)
    return containers
