"""One question for usage: what is asked of Prometheus, and what came of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import msgspec

from oscar_metrics.facts import Inventory, SlotUsage, Usage, UsageMethod
from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    Unavailable,
    settle,
    with_facts,
)
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import ORIGIN, PrometheusApi, PrometheusSettings
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
from oscar_metrics.sources.prometheus_slots import Measured, slots_of
from oscar_metrics.sources.prometheus_templates import TemplateReading
from oscar_metrics.sources.prometheus_windows import (
    HOUR_MS,
    Ask,
    Pieces,
    Seconds,
    Window,
    Windows,
    failures,
    together,
)
from oscar_metrics.timerange import DAY_NS, HOUR_NS, MILLISECOND_NS, SECOND_NS, Span, windows

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


class UsageReading:
    """One report's questions, and what came of them when they were done or cut short."""

    def __init__(
        self,
        settings: PrometheusSettings,
        api: PrometheusApi,
        span: Span,
        inventory: Outcome[Inventory],
        now_ns: int,
        *,
        slotted: bool,
    ) -> None:
        self._slotted = slotted
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
        # How hours without any series are measured, and how GPUs are.
        self._cpu_method = UsageMethod.CPU_ESTIMATE
        self._gpu_method: UsageMethod | None = None
        self._missing: dict[Measure, list[Span]] = {Measure.CPU: [], Measure.GPU: []}

    async def run(self) -> None:
        """Ask everything; what was answered is kept when cut short. Raises UpstreamError."""
        window, api = self._window, self._api
        if window.length_ms <= 0:
            return
        now_ms = self._now_ns // MILLISECOND_NS
        # What ended shortly before the range may still count in it.
        from_ms = max(0, window.start_ms - promql.REACH_MS)

        def values(label: str, matching: str) -> Coroutine[Any, Any, frozenset[str]]:
            return api.label_values(label, matching, self._doubts, from_ms=from_ms, now_ms=now_ms)

        metrics = await values("__name__", f"{{{promql.one_of('__name__', promql.METRICS)}}}")
        about: dict[str, Coroutine[Any, Any, Any]] = {
            metric: scrapes_of(api, metric, window, self._doubts, now_ms=now_ms)
            for metric in (promql.CPU, promql.POD_REQUESTS)
            if metric in metrics
        }
        if promql.CPU in metrics:
            about["namespaces"] = values("namespace", promql.CPU)
        found = await together(about)
        cpu, requests = found.get(promql.CPU), found.get(promql.POD_REQUESTS)
        if cpu is not None and cpu.missing:
            self._gaps += cpu.gaps(await retained_from_ms(api, now_ms))
        self._prepared = True
        if promql.STARTED not in metrics:
            self._cpu_method = UsageMethod.CPU_INCREASE
        pods = Pods(
            api,
            self._namespace,
            known=promql.POD_LABELS in metrics,
            completions=promql.POD_COMPLETED in metrics,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(
                self._read_cpu(cpu, pods, has_namespace=bool(found.get("namespaces")))
            )
            group.create_task(self._read_gpu(requests, pods, metrics))

    async def _read_cpu(self, scrapes: Scrapes | None, pods: Pods, *, has_namespace: bool) -> None:
        doubts = self._measure_doubts[Measure.CPU]
        if scrapes is not None:
            self._last_updated_ms = scrapes.last_ms
            self._missing[Measure.CPU] += [window.span for window in scrapes.missing]
            if scrapes.down:
                self._doubts.add(scrapes.down)
        if self._settings.cpu_query != promql.CPU_QUERY:
            self._cpu_method = UsageMethod.CPU_TEMPLATE
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
            now_ms=self._now_ns // MILLISECOND_NS,
            doubts=self._doubts,
        )
        seen = self._windows_with_samples(scrapes)
        self._cpu = self._new_windows(Measure.CPU)
        await self._cpu.add(seen, self._cpu_reading.measure)

    async def _read_gpu(self, scrapes: Scrapes | None, pods: Pods, metrics: frozenset[str]) -> None:
        doubts = self._measure_doubts[Measure.GPU]
        phases = promql.POD_PHASE in metrics
        ask: Ask
        if self._settings.gpu_query != promql.GPU_QUERY:
            self._gpu_method = UsageMethod.GPU_TEMPLATE
            await self._by_template(self._settings.gpu_query, Measure.GPU)
            return
        if scrapes is not None:
            if not phases:
                doubts.append(NO_PHASES)
            self._gpu_method = UsageMethod.GPU_ALLOCATED
            self._missing[Measure.GPU] += [window.span for window in scrapes.missing]
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
        elif promql.GPU_USAGE in metrics:
            self._gpu_method = UsageMethod.GPU_COUNTER
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
        self._gpu = self._new_windows(Measure.GPU)
        await self._gpu.add(seen, ask)

    async def _by_template(self, template: str, measure: Measure) -> None:
        if isinstance(self._inventory, Unavailable):
            text = _NO_INVENTORY_FOR_TEMPLATE.format(measure.upper())
            self._measure_doubts[measure].append(text)
            return
        reading = TemplateReading(
            self._api,
            template,
            measure,
            services_namespace=self._settings.services_namespace,
            concurrency=self._settings.limits.places_of_one,
            slotted=self._slotted,
            doubts=self._doubts,
        )
        if measure is Measure.CPU:
            self._cpu = reading
        else:
            self._gpu = reading
        await reading.add(self._inventory.facts, self._window)

    def slots(self) -> Outcome[tuple[SlotUsage, ...]]:
        """The same as `outcome`, slot by slot."""
        outcome = self.outcome()
        gpu: Measured | None = None
        if self._no_gpus:
            gpu = Measured(pieces={}, missing=(), method=lambda _: None)
        elif (pieces := _pieces(self._gpu)) is not None:
            missing = tuple(self._missing[Measure.GPU])
            gpu = Measured(pieces=pieces, missing=missing, method=lambda _: self._gpu_method)
        cpu: Measured | None = None
        if (pieces := _pieces(self._cpu)) is not None:
            missing = tuple(self._missing[Measure.CPU])
            cpu = Measured(pieces=pieces, missing=missing, method=self._cpu_method_of)
        return with_facts(outcome, slots_of(self._window, cpu, gpu))

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
        # Where there is no cluster to ask, it is all that can be known, and a remark.
        if self._told_by_form() and self._inventory.origin:
            self._doubts.add(_NO_INVENTORY)
        if cpu is None and (gpu is None or self._no_gpus):
            return Unavailable(origin=ORIGIN, notes=self._why_nothing())
        measures = {measure for measure, doubts in self._measure_doubts.items() if doubts}
        missing = {m for m, seconds in ((Measure.CPU, cpu), (Measure.GPU, gpu)) if seconds is None}
        outcome = settle(
            Usage(cpu_seconds=cpu, gpu_seconds=gpu, methods=self._methods(missing)),
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
            # What ended just before nothing was scraped any more is known a little later.
            anything_read=any((cpu or {}).values()) or any((gpu or {}).values()),
        )
        if not isinstance(outcome, Partial) or outcome.gaps or self._doubts:
            return outcome
        return msgspec.structs.replace(outcome, measures=frozenset(measures | missing))

    def _methods(self, missing: set[Measure]) -> frozenset[UsageMethod]:
        methods: set[UsageMethod] = set()
        if Measure.CPU not in missing:
            by_hour = self._cpu_reading.methods if self._cpu_reading else {}
            methods |= set(by_hour.values()) or {self._cpu_method}
        if Measure.GPU not in missing and self._gpu_method:
            methods.add(self._gpu_method)
        return frozenset(methods)

    def _cpu_method_of(self, hour: int) -> UsageMethod:
        by_hour = self._cpu_reading.methods if self._cpu_reading else {}
        return by_hour.get(hour, self._cpu_method)

    def _seconds(
        self, measured: Windows | TemplateReading | None, measure: Measure
    ) -> Seconds | None:
        doubts = self._measure_doubts[measure]
        if isinstance(measured, TemplateReading):
            doubts += measured.doubts()
            return measured.seconds
        if measured is None:
            return None
        doubts += failures(measured.failures)
        self._missing[measure] += [gap.span for gap in measured.gaps]
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

    def _told_by_form(self) -> bool:
        """Whether services had to be told by what names look like: a cut or foreign one is lost."""
        return self._names.by_form and bool(self._cpu_reading or self._gpu)

    def _notes(self, cpu: Seconds | None) -> list[str]:
        templates = (reading for reading in (self._cpu, self._gpu) if reading)
        notes = [each.note for each in templates if isinstance(each, TemplateReading)]
        if self._told_by_form() and _NO_INVENTORY not in self._doubts:
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

    def _new_windows(self, measure: Measure) -> Windows:
        return Windows(
            self._settings.shortest_window_seconds * 1000,
            self._settings.limits.places_of_one,
            self._api.narrowing("window", measure, least=HOUR_MS),
            slotted=self._slotted,
        )

    def _all_windows(self) -> list[Window]:
        # Of whole hours, since what is measured by hours must not be cut elsewhere.
        width_ns = self._settings.window_seconds * SECOND_NS // HOUR_NS * HOUR_NS
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
                gap.start_ms <= window.start_ms - promql.REACH_MS and window.stop_ms <= gap.stop_ms
                for gap in scrapes.missing
            )
        ]


def _pieces(measured: Windows | TemplateReading | None) -> Pieces | None:
    if isinstance(measured, Windows) and measured.nothing_answered:
        return None
    return None if measured is None else measured.pieces
