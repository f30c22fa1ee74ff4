"""GPU-seconds by service: GPUs allocated × time, as kube-state-metrics shows them."""

from __future__ import annotations

from collections.abc import Mapping

from oscar_metrics.errors import UpstreamError
from oscar_metrics.facts import ServiceKey
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import PrometheusApi
from oscar_metrics.sources.prometheus_cpu import Pods, pod_of
from oscar_metrics.sources.prometheus_labels import ServiceNames
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
)

NOT_MEASURED = (
    "nothing in Prometheus measures GPUs: neither kube-state-metrics "
    "(kube_pod_container_resource_requests) nor container_gpu_usage_seconds_total"
)
BY_COUNTER = (
    "GPU time is Prometheus' `increase` of container_gpu_usage_seconds_total by whole hours: time "
    "that GPUs were busy, not time they were held, and short jobs are missing"
)
NO_PHASES = (
    "GPU time may include that of finished pods that are still listed, because Prometheus has no "
    "kube_pod_status_phase"
)

_BY_POD = ("namespace", "pod")
_BY_SERVICE = ("namespace", "service", "pod")


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

    async def measure(self, window: Window) -> Pieces:
        """GPU-seconds by quarter-hour. Raises UpstreamError."""
        found = [
            (part, await answers(self._api, self._query(part), part, self._doubts, by=_BY_POD))
            for part in parts(window, QUARTER_MS)
            if _off_step(part.window.start_ms) < _off_step(part.window.stop_ms)
        ]
        if not any(held for _, held in found):
            return {}
        labels = await self._pods.labels(window, self._doubts)
        pieces: Pieces = {}
        for part, held in found:
            pods = ((pod_of(samples.labels), samples) for samples in held)
            amounts = [(self._names.of_pod(pod, labels.get(pod, {})), each) for pod, each in pods]
            pieces |= pieces_of(part, amounts)
        return pieces

    def _query(self, part: Part) -> str:
        piece = part.piece(part.window.stop_ms)
        stop_ms = _off_step(piece.stop_ms)
        return promql.gpus_allocated(
            self._namespace,
            stop_ms - _off_step(piece.start_ms),
            self._interval_ms,
            offset_ms=piece.stop_ms - stop_ms,
            phases=self._phases,
        )


class GpuCounter:
    """The counter that OSCAR's own query asks for, where someone exports it."""

    def __init__(
        self, api: PrometheusApi, namespace: str, names: ServiceNames, doubts: set[str]
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._names = names
        self._doubts = doubts

    async def measure(self, window: Window) -> Pieces:
        """GPU-seconds by whole hour. Raises UpstreamError."""
        pieces: Pieces = {}
        for part in parts(window, HOUR_MS):
            query = promql.increase(
                promql.GPU_USAGE,
                self._namespace,
                _BY_SERVICE,
                part.step_ms,
                by_container=False,
            )
            try:
                grown = await answers(self._api, query, part, self._doubts, by=_BY_SERVICE)
            except UpstreamError as exc:
                raise WholeHoursError(exc) from exc
            pieces |= pieces_of(part, [(self._key(each.labels), each) for each in grown])
        return pieces

    def _key(self, labels: Mapping[str, str]) -> ServiceKey:
        pod = pod_of(labels)
        if service := labels.get("service", ""):
            return self._names.of_label(pod.namespace, service)
        return self._names.of_pod(pod, {})


def _off_step(at_ms: int) -> int:
    """The instant, never at a step itself: Prometheus 2 counts one at both ends of a window.

    Steps are whole seconds.
    """
    return at_ms - 1 if at_ms % 1000 == 0 else at_ms
