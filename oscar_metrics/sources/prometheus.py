"""CPU and GPU time of services, from Prometheus or a relative of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from oscar_metrics.errors import UpstreamError
from oscar_metrics.facts import Inventory, Usage
from oscar_metrics.findings import Finding
from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    Unavailable,
    settle,
)
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import ORIGIN, PrometheusApi, PrometheusSettings
from oscar_metrics.sources.prometheus_check import PrometheusCheck
from oscar_metrics.sources.prometheus_cpu import CpuReading, Pods
from oscar_metrics.sources.prometheus_gpu import (
    BY_COUNTER,
    NO_PHASES,
    NOT_MEASURED,
    AllocatedGpus,
    GpuCounter,
)
from oscar_metrics.sources.prometheus_labels import ServiceNames
from oscar_metrics.sources.prometheus_scrapes import Scrapes, retained_from_ms, scrapes_of
from oscar_metrics.sources.prometheus_templates import TemplateReading
from oscar_metrics.sources.prometheus_windows import Seconds, Window, Windows, failures, together
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, MILLISECOND_NS, SECOND_NS, Span, windows

__all__ = ["PrometheusSettings", "PrometheusUsage"]

_NOTHING = Usage(cpu_seconds={}, gpu_seconds={})
# Namespaces beyond the prefix that one query names: its length is bounded by proxies.
_MORE_NAMESPACES = 50
_NAMED_UNKNOWN = 5

_NO_CPU = (
    "Prometheus has no container_cpu_usage_seconds_total in the range: nothing measures CPU time"
)
_NO_NAMESPACE = "Prometheus' CPU series carry no namespace, so that no service can be found"
_NO_INVENTORY = (
    "services were recognised by the form of labels and pod names only, because the inventory of "
    "services could not be read"
)
_NO_INVENTORY_FOR_TEMPLATE = (
    "the configured {} query is asked for each service, and the inventory of services could not "
    "be read"
)


class PrometheusUsage:
    """Asks one Prometheus how much each service used."""

    origin = ORIGIN

    def __init__(self, settings: PrometheusSettings, *, telemetry: Telemetry) -> None:
        self._settings = settings
        self._api = PrometheusApi(settings, telemetry)

    async def read(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[Usage]:
        """CPU core-seconds and GPU-seconds by service; `ServiceKey(namespace, "")` is unattributed.

        How each is measured is described in `promql` and, in words, among the notes where it
        is not exact.
        """
        reading = _Reading(self._settings, self._api, span, inventory, now_ns)
        try:
            async with asyncio.timeout_at(deadline):
                await reading.run()
        except TimeoutError:
            pass  # what was not answered is still waiting there
        except UpstreamError as exc:
            return Unavailable(origin=ORIGIN, notes=(str(exc),))
        return reading.outcome()

    async def check(self, now_ns: int) -> list[Finding]:
        """What stands between it and complete usage."""
        return await PrometheusCheck(self._settings, self._api, now_ns).findings()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()


class _Reading:
    """One report's questions, and what came of them when they were done or cut short."""

    def __init__(
        self,
        settings: PrometheusSettings,
        api: PrometheusApi,
        span: Span,
        inventory: Outcome[Inventory],
        now_ns: int,
    ) -> None:
        self._settings = settings
        self._api = api
        self._asked = span
        self._now_ns = now_ns
        self._inventory = inventory
        self._names = ServiceNames(inventory)
        self._namespace = promql.namespaces(settings.services_namespace, self._namespaces())
        oldest_ns = now_ns - settings.look_back_days * DAY_NS
        start_ns = max(span.start_ns, oldest_ns)
        self._span = Span(start_ns, max(start_ns, min(span.stop_ns, now_ns)))
        self._window = Window(
            self._span.start_ns // MILLISECOND_NS, self._span.stop_ns // MILLISECOND_NS
        )
        self._gaps: list[Gap] = []
        if oldest_ns > span.start_ns:
            early = Span(span.start_ns, min(span.stop_ns, oldest_ns))
            self._gaps.append(Gap(span=early, reason=GapReason.RETENTION))
        self._doubts: set[str] = set()
        self._measure_doubts: dict[Measure, list[str]] = {Measure.CPU: [], Measure.GPU: []}
        self._prepared = False
        self._last_updated_ms: int | None = None
        self._cpu: Windows | TemplateReading | None = None
        self._cpu_reading: CpuReading | None = None
        self._gpu: Windows | TemplateReading | None = None
        self._no_gpus = False

    async def run(self) -> None:
        """Ask everything; what was answered is kept when cut short. Raises UpstreamError."""
        window, api = self._window, self._api
        if window.length_ms <= 0:
            return
        now_ms = self._now_ns // MILLISECOND_NS

        def values(label: str, metric: str) -> Coroutine[Any, Any, frozenset[str]]:
            return api.label_values(label, metric, from_ms=window.start_ms, now_ms=now_ms)

        def scrapes(metric: str) -> Coroutine[Any, Any, Scrapes | None]:
            return scrapes_of(api, metric, window, self._doubts, now_ms=now_ms)

        found = await together(
            {
                "cpu": scrapes(promql.CPU),
                "requests": scrapes(promql.POD_REQUESTS),
                "retained": retained_from_ms(api, now_ms),
                "namespaces": values("namespace", promql.CPU),
                "labels": values("__name__", promql.POD_LABELS),
                "gpus": values("__name__", promql.GPU_USAGE),
                "phases": values("__name__", promql.POD_PHASE),
            }
        )
        self._prepared = True
        pods = Pods(api, self._namespace, known=bool(found["labels"]))
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._read_cpu(found["cpu"], pods, found["retained"], bool(found["namespaces"]))
            )
            group.create_task(
                self._read_gpu(
                    found["requests"],
                    pods,
                    counter=bool(found["gpus"]),
                    phases=bool(found["phases"]),
                )
            )

    async def _read_cpu(
        self, scrapes: Scrapes | None, pods: Pods, retained_ms: int | None, has_namespace: bool
    ) -> None:
        doubts = self._measure_doubts[Measure.CPU]
        if scrapes is not None:
            self._gaps += scrapes.gaps(retained_ms)
            self._last_updated_ms = scrapes.last_ms
            if scrapes.down:
                self._doubts.add(scrapes.down)
        if self._settings.cpu_query != promql.CPU_QUERY:
            await self._by_template(self._settings.cpu_query, Measure.CPU)
            return
        if scrapes is None or not has_namespace:
            doubts.append(_NO_CPU if scrapes is None else _NO_NAMESPACE)
            return
        self._cpu_reading = CpuReading(
            self._api,
            self._namespace,
            self._names,
            pods,
            interval_ms=scrapes.interval_ms,
            doubts=self._doubts,
        )
        seen = self._windows_with_samples(scrapes)
        if not seen:
            return
        self._cpu = self._new_windows()
        await self._cpu.add(seen, self._cpu_reading.measure)

    async def _read_gpu(
        self, scrapes: Scrapes | None, pods: Pods, *, counter: bool, phases: bool
    ) -> None:
        doubts = self._measure_doubts[Measure.GPU]
        ask: Callable[[Window], Awaitable[Seconds]]
        if self._settings.gpu_query != promql.GPU_QUERY:
            await self._by_template(self._settings.gpu_query, Measure.GPU)
            return
        if scrapes is not None:
            if not phases:
                doubts.append(NO_PHASES)
            if missing_ms := sum(window.length_ms for window in scrapes.missing):
                doubts.append(
                    f"kube-state-metrics was not scraped for {missing_ms / 3_600_000:.3g} h of the "
                    "range: GPU time is missing there"
                )
            ask = AllocatedGpus(
                self._api,
                self._namespace,
                self._names,
                pods,
                interval_ms=scrapes.interval_ms,
                phases=phases,
                doubts=self._doubts,
            ).measure
            seen = self._windows_with_samples(scrapes)
        elif counter:
            doubts.append(BY_COUNTER)
            ask = GpuCounter(self._api, self._namespace, self._names, self._doubts).measure
            seen = self._all_windows()
        else:
            self._no_gpus = isinstance(self._inventory, Ok) and not any(
                service.enable_gpu for service in self._inventory.facts.services
            )
            if not self._no_gpus:
                doubts.append(NOT_MEASURED)
            return
        if seen:
            self._gpu = self._new_windows()
            await self._gpu.add(seen, ask)

    async def _by_template(self, template: str, measure: Measure) -> None:
        if isinstance(self._inventory, Unavailable):
            text = _NO_INVENTORY_FOR_TEMPLATE.format(measure.upper())
            self._measure_doubts[measure].append(text)
            return
        reading = TemplateReading(
            self._api,
            template,
            services_namespace=self._settings.services_namespace,
            concurrency=self._settings.limits.concurrency,
            doubts=self._doubts,
        )
        if measure is Measure.CPU:
            self._cpu = reading
        else:
            self._gpu = reading
        await reading.add(self._inventory.facts, self._window)

    def outcome(self) -> Outcome[Usage]:
        """What was found out, with all that is missing."""
        if self._window.length_ms <= 0 and not self._gaps:
            return settle(_NOTHING, origin=ORIGIN, asked=self._asked, now_ns=self._now_ns)
        if not self._prepared and self._window.length_ms > 0:
            text = "Prometheus had not finished when the report's deadline came"
            return Unavailable(origin=ORIGIN, notes=(text,))
        cpu, gpu = self._seconds(self._cpu, Measure.CPU), self._seconds(self._gpu, Measure.GPU)
        if self._no_gpus:
            gpu = {}
        if self._cpu_reading is not None:
            self._measure_doubts[Measure.CPU] += self._cpu_reading.doubts()
        if cpu is None and (gpu is None or self._no_gpus):
            return Unavailable(origin=ORIGIN, notes=self._why_nothing())
        measures = {measure for measure, doubts in self._measure_doubts.items() if doubts}
        missing = {m for m, seconds in ((Measure.CPU, cpu), (Measure.GPU, gpu)) if seconds is None}
        outcome = settle(
            Usage(cpu_seconds=cpu, gpu_seconds=gpu),
            origin=ORIGIN,
            asked=self._asked,
            now_ns=self._now_ns,
            gaps=self._gaps,
            doubts=[
                *(text for doubts in self._measure_doubts.values() for text in doubts),
                *sorted(self._doubts),
            ],
            notes=self._notes(cpu),
            last_updated_ns=self._last_updated_ns(),
        )
        general = bool(self._doubts or (isinstance(outcome, Partial) and outcome.gaps))
        if isinstance(outcome, Ok) or general:
            return outcome
        return msgspec.structs.replace(outcome, measures=frozenset(measures | missing))

    def _seconds(
        self, measured: Windows | TemplateReading | None, measure: Measure
    ) -> Seconds | None:
        doubts = self._measure_doubts[measure]
        if isinstance(measured, TemplateReading):
            doubts += measured.doubts(measure.upper())
            return measured.seconds
        if measured is None:
            return None
        doubts += failures(measured.failures)
        if measure is Measure.CPU:
            self._gaps += measured.gaps
        elif lost_ns := sum(gap.span.length_ns for gap in measured.gaps):
            doubts.append(f"GPU time could not be read for {lost_ns / 3.6e12:.3g} h of the range")
        return None if measured.nothing_answered else measured.seconds

    def _why_nothing(self) -> tuple[str, ...]:
        notes = [*self._measure_doubts[Measure.CPU], *sorted(self._doubts)]
        reasons = sorted({gap.reason for gap in self._gaps})
        if not notes:
            notes = [f"nothing was read for the range: {', '.join(reasons)}"]
        return tuple(notes)

    def _notes(self, cpu: Seconds | None) -> list[str]:
        notes = []
        if self._names.by_form and (self._cpu_reading or self._gpu):
            notes.append(_NO_INVENTORY)
        unattributed = math.fsum(s for key, s in (cpu or {}).items() if not key.service)
        if unknown := sorted({label for _, label in self._names.unknown}):
            named = [label for label in unknown if promql.is_name(label)][:_NAMED_UNKNOWN]
            examples = f", for example {', '.join(named)}" if named else ""
            notes.append(
                f"{unattributed / 3600:.4g} CPU-hours are of no known service "
                f"({len(unknown)} labels or pods{examples})"
            )
        return notes

    def _last_updated_ns(self) -> int | None:
        last_ms = self._last_updated_ms
        return None if last_ms is None else min(last_ms * MILLISECOND_NS, self._now_ns)

    def _namespaces(self) -> list[str]:
        if isinstance(self._inventory, Unavailable):
            return []
        facts = self._inventory.facts
        found = {service.namespace for service in facts.services}
        found |= {owner.namespace for owner in facts.owners}
        prefix = self._settings.services_namespace
        return sorted(name for name in found if not name.startswith(prefix))[:_MORE_NAMESPACES]

    def _new_windows(self) -> Windows:
        return Windows(
            self._settings.shortest_window_seconds * 1000, self._settings.limits.concurrency
        )

    def _all_windows(self) -> list[Window]:
        width_ns = self._settings.window_seconds * SECOND_NS
        return [
            Window(part.start_ns // MILLISECOND_NS, part.stop_ns // MILLISECOND_NS)
            for part in windows(self._span, width_ns)
        ]

    def _windows_with_samples(self, scrapes: Scrapes) -> list[Window]:
        """All but those that lie, with the hour before them, where nothing was scraped."""
        return [
            window
            for window in self._all_windows()
            if not any(
                gap.start_ms <= max(self._window.start_ms, window.start_ms - promql.REACH_MS)
                and window.stop_ms <= gap.stop_ms
                for gap in scrapes.missing
            )
        ]
