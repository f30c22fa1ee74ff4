"""What `check` finds out about Prometheus, and what figures to expect from it."""

from __future__ import annotations

import asyncio
from collections import Counter

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.findings import Finding, Level
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import ORIGIN, PrometheusApi, PrometheusSettings
from oscar_metrics.sources.prometheus_pods_check import PodsCheck
from oscar_metrics.sources.prometheus_scrapes import Scrapes, retained_from_ms, scrapes_of
from oscar_metrics.sources.prometheus_windows import Window
from oscar_metrics.sources.upstream import version_of
from oscar_metrics.timerange import MILLISECOND_NS

_DAY_MS = 86_400_000
_CLOCK_SECONDS = 5
_SHORT_RETENTION_DAYS = 31
_LONG_INTERVAL_SECONDS = 60
# It asks some twenty questions, each of which may be tried again.
_MOST_SECONDS = 120.0
_TARGETS = "look at Prometheus' target page"
_FIXES = {
    Reason.UNAUTHORIZED: "set OSCAR_METRICS_PROMETHEUS_TOKEN",
    Reason.FORBIDDEN: "let the token's owner query, or set OSCAR_METRICS_PROMETHEUS_TENANT",
    Reason.TLS: "check the certificate behind PROMETHEUS_URL",
}
_CHECK_URL = "check PROMETHEUS_URL, with the path in front of /api/v1 where there is one"


class PrometheusCheck:
    """Asks what a report will need, about the last day, and says what to change."""

    def __init__(
        self,
        settings: PrometheusSettings,
        api: PrometheusApi,
        now_ns: int,
        *,
        seconds: float = _MOST_SECONDS,
    ) -> None:
        self._settings = settings
        self._seconds = seconds
        self._api = api
        now_ms = now_ns // MILLISECOND_NS
        self._day = Window(now_ms - _DAY_MS, now_ms)
        self._namespace = promql.namespaces(settings.services_namespace, ())
        self._found: list[Finding] = []

    async def findings(self) -> list[Finding]:
        """Everything that was looked at; ends early where Prometheus does not answer."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._look()
        except UpstreamError as exc:
            self._problem(str(exc), _FIXES.get(exc.reason, _CHECK_URL))
        except TimeoutError:
            self._warn(
                f"not everything could be looked at in {self._seconds:g} s",
                "try again when Prometheus is less busy",
            )
        return self._found

    async def _look(self) -> None:
        await self._api.vector("vector(1)", self._day.stop_ms, set())
        await self._server()
        await self._templates()
        if not await self._has(promql.CPU):
            self._problem(
                f"no {promql.CPU} in the last day: nothing measures CPU time",
                "let Prometheus scrape the kubelets' /metrics/cadvisor",
            )
        else:
            self._scrapes(
                await scrapes_of(self._api, promql.CPU, self._day, set(), now_ms=self._day.stop_ms)
            )
            await self._series()
        self._found += await PodsCheck(self._api, self._namespace, self._day).findings()
        await self._gpus()

    async def _server(self) -> None:
        try:
            build = await self._api.status("buildinfo")
            version = version_of(build.get("version"))
        except UpstreamError:
            version = ""
        self._ok(f"answers queries{f', version {version}' if version else ''}")
        behind = self._api.clock_difference_seconds
        if behind is not None and abs(behind) > _CLOCK_SECONDS:
            self._warn(
                f"its clock differs from ours by {behind:.0f} s", "synchronise the clocks (NTP)"
            )
        retained = await retained_from_ms(self._api, self._day.stop_ms)
        if retained is None:
            self._warn(
                "does not say how long it keeps samples: what is past that shows as not scraped",
                "",
            )
            return
        days = (self._day.stop_ms - retained) / _DAY_MS
        if days < _SHORT_RETENTION_DAYS:
            self._warn(
                f"has samples of the last {days:.3g} days only: usage before that is gone",
                "raise --storage.tsdb.retention.time",
            )
        else:
            self._ok(f"keeps samples for {days:.0f} days")

    async def _templates(self) -> None:
        for query, default, name in (
            (self._settings.cpu_query, promql.CPU_QUERY, "PROMETHEUS_CPU_QUERY"),
            (self._settings.gpu_query, promql.GPU_QUERY, "PROMETHEUS_GPU_QUERY"),
        ):
            if query == default:
                continue
            filled = promql.fill(
                query,
                service="check",
                namespace=self._settings.services_namespace,
                prefix=self._settings.services_namespace,
                range_ms=3_600_000,
            )
            try:
                await self._api.vector(filled, self._day.stop_ms, set())
            except UpstreamError as exc:
                self._problem(f"{name}: {exc}", "try the query in Prometheus' own page")
            else:
                self._ok(f"{name} is asked as it is, once for each service")
            if "service" not in promql.placeholders(query):
                self._problem(
                    f"{name} does not mention {{{{service}}}}: every service gets the same figure",
                    "put {{service}} into it",
                )
            if "range" not in promql.placeholders(query):
                self._problem(
                    f"{name} does not mention {{{{range}}}}: every range gets the same figure",
                    "put [{{range}}] into it",
                )

    def _scrapes(self, scrapes: Scrapes) -> None:
        if scrapes.last_ms is None:
            self._problem("no container was scraped in the last day", _TARGETS)
            return
        seconds = scrapes.interval_ms // 1000
        text = f"containers are scraped every {seconds} s"
        if seconds > _LONG_INTERVAL_SECONDS:
            self._warn(
                f"{text}: jobs shorter than that are not all seen",
                "set scrape_interval of the cAdvisor job to 30s",
            )
        else:
            self._ok(f"{text}; jobs shorter than that are not all seen")
        if missing_ms := sum(window.length_ms for window in scrapes.missing):
            self._warn(
                f"nothing was scraped for {missing_ms / 3_600_000:.3g} h of the last day",
                _TARGETS,
            )
        if scrapes.down:
            self._warn(scrapes.down, _TARGETS)

    async def _series(self) -> None:
        said = await self._api.numbers(
            promql.forms(self._namespace, self._day.length_ms), self._day.stop_ms, set()
        )
        counts = Counter({form: round(count) for form, count in said.items()})
        if not counts:
            self._warn(
                f"no container of a namespace {self._settings.services_namespace}* in the last day",
                "if services ran, check OSCAR_SERVICES_NAMESPACE and what the scrape keeps",
            )
            return
        contained = counts["apart"] + counts["by_pod"]
        if contained and counts["started"]:
            self._ok("containers and their start times are there: CPU time is exact to a few %")
        elif contained:
            self._warn(
                f"no {promql.STARTED}: CPU time is Prometheus' `increase`, which loses short jobs",
                f"let the cAdvisor job keep {promql.STARTED}",
            )
        else:
            self._warn(
                "series carry no pod: pods of a service share a series and CPU time is too low",
                f"let the cAdvisor job keep the labels pod, container and id, and {promql.STARTED}",
            )
        if counts["no_container"] or (counts["pods"] and not contained and not counts["no_pod"]):
            self._warn(
                "series carry no container: CPU time may be counted twice",
                "let the cAdvisor job keep the label container",
            )
        await self._doubles(counts)
        await self._services(counts)
        await self._timestamps()

    async def _doubles(self, counts: Counter[str]) -> None:
        if counts["pods"] and counts["apart"] + counts["by_pod"]:
            self._ok(
                "pods' own rows stand beside their containers': OSCAR's own query adds both, so "
                "expect about half of its figure here"
            )
        replicas = promql.selector(
            promql.CPU, f'{self._namespace},{promql.CONTAINERS},pod!="",id!=""'
        )
        query = f"max(count by (namespace,pod,container,id,name,cpu) ({replicas}))"
        twice = await self._api.vector(query, self._day.stop_ms, set())
        if any(sample.value > 1 for sample in twice):
            self._ok("containers are scraped more than once; each is counted once")

    async def _services(self, counts: Counter[str]) -> None:
        if not counts["apart"] + counts["by_pod"]:
            return
        if not counts["no_service"]:
            self._ok("every container has a `service` label")
            return
        labels = promql.pod_labels(self._namespace, ("label_oscar_service",), 3_600_000)
        if any(
            sample.labels.get("label_oscar_service")
            for sample in await self._api.vector(labels, self._day.stop_ms, set())
        ):
            self._ok("services are found by the labels of their pods (kube_pod_labels)")
        else:
            self._warn(
                "services are found by the names of their pods, which says less than their labels",
                "run kube-state-metrics with "
                "--metric-labels-allowlist=pods=[oscar_service,app,serving.knative.dev/service]",
            )

    async def _timestamps(self) -> None:
        """Whether samples carry the kubelet's times, and what becomes of ended series then."""
        sampled = promql.selector(promql.CPU, f"{self._namespace},{promql.CONTAINERS}")
        target = "job,instance,metrics_path"
        query = (
            f"count(max by ({target}) (timestamp({sampled}))"
            f" != on ({target}) max by ({target}) (timestamp(up)))"
        )
        own = await self._api.vector(query, self._day.stop_ms, set())
        if not any(sample.value for sample in own):
            return
        try:
            config = str((await self._api.status("config")).get("yaml", ""))
            on = "track_timestamps_staleness: true" in config
            tracked = "on" if on else "off"
        except UpstreamError:
            tracked = "unknown"
        self._ok(
            f"samples carry the kubelet's own times; track_timestamps_staleness is {tracked}. "
            "When off, an ended container is shown five minutes longer; figures here do not change"
        )

    async def _gpus(self) -> None:
        if self._settings.gpu_query != promql.GPU_QUERY:
            return
        for metric, says in (
            (promql.POD_REQUESTS, "GPU time is GPUs allocated x time, from kube-state-metrics"),
            (promql.GPU_USAGE, f"GPU time is the growth of {promql.GPU_USAGE}"),
        ):
            if await self._has(metric):
                self._ok(says)
                return
        self._warn(
            "nothing measures GPUs: GPU time is missing as soon as a service may use one",
            "let Prometheus scrape kube-state-metrics",
        )

    async def _has(self, metric: str) -> bool:
        day = self._day
        return bool(
            await self._api.label_values(
                "__name__", metric, set(), from_ms=day.start_ms, now_ms=day.stop_ms
            )
        )

    def _ok(self, says: str) -> None:
        self._found.append(Finding(source=ORIGIN, level=Level.OK, says=says))

    def _warn(self, says: str, change: str) -> None:
        self._found.append(Finding(source=ORIGIN, level=Level.WARNING, says=says, change=change))

    def _problem(self, says: str, change: str) -> None:
        self._found.append(Finding(source=ORIGIN, level=Level.PROBLEM, says=says, change=change))
