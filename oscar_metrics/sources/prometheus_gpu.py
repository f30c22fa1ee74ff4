"""GPU-seconds by service: GPUs allocated × time, as kube-state-metrics shows them."""

from __future__ import annotations

from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import PrometheusApi
from oscar_metrics.sources.prometheus_cpu import Pods, pod_of
from oscar_metrics.sources.prometheus_labels import ServiceNames
from oscar_metrics.sources.prometheus_windows import Seconds, Window

NOT_MEASURED = (
    "nothing in Prometheus measures GPUs: neither kube-state-metrics "
    "(kube_pod_container_resource_requests) nor container_gpu_usage_seconds_total"
)
BY_COUNTER = (
    "GPU time is Prometheus' `increase` of container_gpu_usage_seconds_total: time that GPUs were "
    "busy, not time they were held, and short jobs are missing"
)
NO_PHASES = (
    "GPU time may include that of finished pods that are still listed, because Prometheus has no "
    "kube_pod_status_phase"
)


class AllocatedGpus:
    """GPUs that running pods asked for, times how long."""

    def __init__(
        self,
        api: PrometheusApi,
        namespace: str,
        names: ServiceNames,
        pods: Pods,
        *,
        interval_ms: int,
        phases: bool,
        doubts: set[str],
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._names = names
        self._pods = pods
        self._interval_ms = interval_ms
        self._phases = phases
        self._doubts = doubts

    async def measure(self, window: Window) -> Seconds:
        """GPU-seconds in one window. Raises UpstreamError."""
        start_ms, stop_ms = self._off_step(window.start_ms), self._off_step(window.stop_ms)
        if stop_ms <= start_ms:
            return {}
        query = promql.gpus_allocated(
            self._namespace, stop_ms - start_ms, self._interval_ms, phases=self._phases
        )
        held = await self._api.vector(query, stop_ms, self._doubts)
        if not held:
            return {}
        labels = await self._pods.labels(window, self._doubts)
        seconds: Seconds = {}
        for sample in held:
            pod = pod_of(sample.labels)
            key = self._names.of_pod(pod, labels.get(pod, {}))
            seconds[key] = seconds.get(key, 0.0) + sample.value
        return seconds

    def _off_step(self, at_ms: int) -> int:
        """The instant, never at a step itself: Prometheus 2 counts one at both ends of a window."""
        return at_ms - 1 if at_ms % self._interval_ms == 0 else at_ms


class GpuCounter:
    """The counter that OSCAR's own query asks for, where someone exports it."""

    def __init__(
        self, api: PrometheusApi, namespace: str, names: ServiceNames, doubts: set[str]
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._names = names
        self._doubts = doubts

    async def measure(self, window: Window) -> Seconds:
        """GPU-seconds in one window. Raises UpstreamError."""
        if window.length_ms <= 0:
            return {}
        query = promql.increase(
            promql.GPU_USAGE,
            self._namespace,
            ("namespace", "service", "pod"),
            window.length_ms,
            by_container=False,
        )
        seconds: Seconds = {}
        for sample in await self._api.vector(query, window.stop_ms, self._doubts):
            pod = pod_of(sample.labels)
            if service := sample.labels.get("service", ""):
                key = self._names.of_label(pod.namespace, service)
            else:
                key = self._names.of_pod(pod, {})
            seconds[key] = seconds.get(key, 0.0) + sample.value
        return seconds
