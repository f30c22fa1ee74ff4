"""An operator's own query, asked once for each service over the whole range."""

from __future__ import annotations

import asyncio
import math
from collections import Counter

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import Inventory, Service, ServiceKey
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import PrometheusApi
from oscar_metrics.sources.prometheus_windows import Seconds, Window, failures

_SECONDS_PER_HOUR = 3600.0


class TemplateReading:
    """What a template says of the services of an inventory; it gives hours, as OSCAR's does."""

    def __init__(
        self,
        api: PrometheusApi,
        template: str,
        *,
        services_namespace: str,
        concurrency: int,
        doubts: set[str],
    ) -> None:
        self._api = api
        self._template = template
        self._services_namespace = services_namespace
        self._general_doubts = doubts
        self._slots = asyncio.Semaphore(concurrency)
        self._seconds: Seconds = {}
        self._waiting: set[ServiceKey] = set()
        self._failed: set[ServiceKey] = set()
        self._failures: set[Reason] = set()
        self._without_data = 0

    async def add(self, inventory: Inventory, window: Window) -> None:
        """Ask for every service; returns when all are answered or have failed."""
        keys = self._keys(inventory.services)
        self._waiting.update(keys)
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(self._one(key, window))

    @property
    def seconds(self) -> Seconds | None:
        """What was answered; None where no service has any data."""
        asked = len(self._seconds) + self._without_data + len(self._failed) + len(self._waiting)
        return self._seconds if self._seconds or not asked else None

    def doubts(self, measure: str) -> list[str]:
        """What is missing, for people."""
        doubts = failures(self._failures)
        if unanswered := len(self._failed) + len(self._waiting):
            doubts.append(f"{measure} time of {unanswered} services could not be read")
        if self.seconds is None and self._without_data:
            doubts.append(f"the configured {measure} query has no data for any service")
        return doubts

    def _keys(self, services: tuple[Service, ...]) -> list[ServiceKey]:
        """What to ask for: a template without {{namespace}} cannot tell services of one name."""
        named = [s for s in services if promql.is_name(s.name) and promql.is_name(s.namespace)]
        if "namespace" in promql.placeholders(self._template):
            return sorted({ServiceKey(s.namespace, s.name) for s in named})
        times = Counter(s.name for s in named)
        return sorted(
            {ServiceKey(s.namespace if times[s.name] == 1 else "", s.name) for s in named}
        )

    async def _one(self, key: ServiceKey, window: Window) -> None:
        query = promql.fill(
            self._template,
            service=key.service,
            namespace=key.namespace,
            prefix=self._services_namespace,
            range_ms=window.length_ms,
        )
        async with self._slots:
            try:
                samples = await self._api.vector(query, window.stop_ms, self._general_doubts)
            except UpstreamError as exc:
                self._failed.add(key)
                self._failures.add(exc.reason)
            else:
                if samples:
                    hours = math.fsum(sample.value for sample in samples)
                    self._seconds[key] = hours * _SECONDS_PER_HOUR
                else:
                    self._without_data += 1
            self._waiting.discard(key)
