"""An operator's own query, asked once for each service, by whole hours."""

from __future__ import annotations

import asyncio
from collections import Counter

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.facts import Inventory, Service, ServiceKey
from oscar_metrics.outcome import Measure
from oscar_metrics.sources import promql
from oscar_metrics.sources.prometheus_api import RANGE_POINTS, PrometheusApi
from oscar_metrics.sources.prometheus_windows import (
    HOUR_MS,
    Part,
    Pieces,
    Seconds,
    Window,
    answers,
    failures,
    parts,
    pieces_of,
    sum_of,
)

_SECONDS_PER_HOUR = 3600.0


class TemplateReading:
    """What a template says of the services of an inventory; it gives hours, as OSCAR's does.

    It is asked over the whole UTC hours of a range and over what the range cuts off them,
    and what it says is added up: whether that is what it would say of the range at once,
    only its author knows. One that mentions no range is asked once, for what that is worth.
    """

    def __init__(
        self,
        api: PrometheusApi,
        template: str,
        measure: Measure,
        *,
        services_namespace: str,
        concurrency: int,
        slotted: bool,
        doubts: set[str],
    ) -> None:
        self._api = api
        self._template = template
        self._measure = measure.upper()
        self._by_hours = "range" in promql.placeholders(template)
        self._slotted = slotted
        self._services_namespace = services_namespace
        self._general_doubts = doubts
        self._narrowing = api.narrowing("template", measure, least=1)
        self._slots = asyncio.Semaphore(concurrency)
        self._pieces: Pieces = {}
        self._answered: set[ServiceKey] = set()
        self._waiting: set[ServiceKey] = set()
        self._failed: set[ServiceKey] = set()
        self._failures: set[Reason] = set()
        self._without_data = 0

    async def add(self, inventory: Inventory, window: Window) -> None:
        """Ask for every service; returns when all are answered or have failed."""
        keys = self._keys(inventory.services)
        whole = Part(window, window.length_ms)
        asked = parts(window, HOUR_MS) if self._by_hours else [whole]
        self._waiting.update(keys)
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(self._one(key, asked))

    @property
    def seconds(self) -> Seconds | None:
        """What was answered; None where no service has any data."""
        asked = len(self._answered) + self._without_data + len(self._failed) + len(self._waiting)
        return sum_of(self._pieces.values()) if self._answered or not asked else None

    @property
    def pieces(self) -> Pieces | None:
        """The same by hour, if `slotted`; None also where the template knows no hours."""
        return self._pieces if self._by_hours and self.seconds is not None else None

    def doubts(self) -> list[str]:
        """What is missing, for people."""
        doubts = failures(self._failures)
        if unanswered := len(self._failed) + len(self._waiting):
            doubts.append(f"{self._measure} time of {unanswered} services could not be read")
        if self.seconds is None and self._without_data:
            doubts.append(f"the configured {self._measure} query has no data for any service")
        elif not self._by_hours:
            doubts.append(
                f"the configured {self._measure} query does not mention {{{{range}}}}: it says "
                "the same of every range"
            )
        return doubts

    @property
    def note(self) -> str:
        """What is to be known of its figures."""
        return (
            f"{self._measure} time is what the configured query says of whole hours, added up: "
            "it need not be what the query says of a range at once"
        )

    def _keys(self, services: tuple[Service, ...]) -> list[ServiceKey]:
        """What to ask for: a template without {{namespace}} cannot tell services of one name."""
        named = [s for s in services if promql.is_name(s.name) and promql.is_name(s.namespace)]
        if "namespace" in promql.placeholders(self._template):
            return sorted({ServiceKey(s.namespace, s.name) for s in named})
        times = Counter(s.name for s in named)
        return sorted(
            {ServiceKey(s.namespace if times[s.name] == 1 else "", s.name) for s in named}
        )

    async def _one(self, key: ServiceKey, asked: list[Part]) -> None:
        async with self._slots:
            try:
                said = [await self._ask(key, part) for part in asked]
            except UpstreamError as exc:
                self._failed.add(key)
                self._failures.add(exc.reason)
            else:
                self._keep(said, key)
            self._waiting.discard(key)

    async def _ask(self, key: ServiceKey, part: Part) -> Pieces:
        query = promql.fill(
            self._template,
            service=key.service,
            namespace=key.namespace,
            prefix=self._services_namespace,
            range_ms=part.step_ms,
        )
        window, step_ms = part

        async def ask(first: int, stop: int) -> Pieces:
            start_ms = window.start_ms
            steps = Window(start_ms + first * step_ms, start_ms + stop * step_ms)
            some = Part(steps, step_ms)
            said = await answers(self._api, query, some, self._general_doubts)
            return pieces_of(some, [(key, samples) for samples in said])

        count = window.length_ms // step_ms
        said = await self._narrowing.pieces(count, RANGE_POINTS, ask)
        return {piece: seconds for pieces in said for piece, seconds in pieces.items()}

    def _keep(self, said: list[Pieces], key: ServiceKey) -> None:
        hours = {piece: seconds for pieces in said for piece, seconds in pieces.items()}
        if not self._slotted:
            hours = {Window(0, 0): sum_of(hours.values())}
        if not any(hours.values()):
            self._without_data += 1
            return
        self._answered.add(key)
        for piece, seconds in hours.items():
            kept = self._pieces.setdefault(piece, {})
            if key in seconds:
                kept[key] = seconds[key] * _SECONDS_PER_HOUR
