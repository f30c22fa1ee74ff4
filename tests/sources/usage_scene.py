"""A stretch of the past on a real Prometheus, with containers whose usage is known."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from oscar_metrics.facts import Inventory, Service, SlotUsage, Usage
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.prometheus import PrometheusSettings, PrometheusUsage
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS, Span
from tests.servers.prometheus import Prometheus
from tests.sources.cadvisor import (
    Container,
    Relabelling,
    Scraping,
    jobs,
    scraped,
    with_service,
)

F = TypeVar("F")

HOUR = 3600.0
_slices = itertools.count(2)


class Scene:
    """Twelve hours and a namespace of its own, so that scenes on one server do not meet."""

    def __init__(self, server: Prometheus) -> None:
        self.server = server
        number = next(_slices)
        self.start = (time.time() // HOUR - 12 * number) * HOUR
        self.namespace = f"scene{number}-svc"
        self.dice = random.Random(3)
        self.containers: list[Container] = []

    def write(
        self,
        containers: Iterable[Container],
        relabelling: Relabelling = with_service,
        *,
        interval: float = 30,
        outages: Sequence[tuple[float, float]] = (),
        stale_markers: bool = True,
        hours: float = 6,
        **target: Any,
    ) -> None:
        """Scrape the containers from an hour before `start` to `hours` after it."""
        new = list(containers)
        scraping = Scraping(
            self.start - HOUR + 7.3,
            self.start + hours * HOUR,
            interval,
            outages=outages,
            stale_markers=stale_markers,
        )
        self.server.remote_write(scraped(new, scraping, relabelling, **target))
        self.containers += new

    async def read(
        self,
        start: float = 0,
        stop: float = 6 * HOUR,
        inventory: Outcome[Inventory] | None = None,
        *,
        deadline: float | None = None,
        url: str = "",
        **settings: Any,
    ) -> Outcome[Usage]:
        """What the source says of a stretch, in seconds after `start`."""
        async with self.usage(url, **settings) as usage:
            return await usage.read(
                Span(self.ns(start), self.ns(stop)),
                self.deployed("cowsay", "demo") if inventory is None else inventory,
                now_ns=time.time_ns(),
                deadline=deadline,
            )

    async def read_slots(
        self,
        start: float = 0,
        stop: float = 6 * HOUR,
        inventory: Outcome[Inventory] | None = None,
        *,
        deadline: float | None = None,
        url: str = "",
        **settings: Any,
    ) -> Outcome[tuple[SlotUsage, ...]]:
        """The same slot by slot."""
        async with self.usage(url, **settings) as usage:
            return await usage.read_slots(
                Span(self.ns(start), self.ns(stop)),
                self.deployed("cowsay", "demo") if inventory is None else inventory,
                now_ns=time.time_ns(),
                deadline=deadline,
            )

    @asynccontextmanager
    async def usage(
        self, url: str = "", *, telemetry: Telemetry | None = None, **settings: Any
    ) -> AsyncIterator[PrometheusUsage]:
        """The source itself, for the scene's namespace."""
        made = PrometheusUsage(
            PrometheusSettings(
                url=url or self.server.url, services_namespace=self.namespace, **settings
            ),
            telemetry=telemetry or Telemetry(),
        )
        try:
            yield made
        finally:
            await made.aclose()

    def deployed(self, *names: str, gpu: bool = False, namespace: str = "") -> Ok[Inventory]:
        """An inventory of these services."""
        services = tuple(
            Service(namespace=namespace or self.namespace, name=name, enable_gpu=gpu)
            for name in names
        )
        return Ok(facts=Inventory(services=services), origin="kubernetes")

    def pod(self, pod: str, start: float = 0, stop: float = HOUR, cores: float = 1) -> Container:
        """A container of a pod, in seconds after `start`."""
        return Container(self.namespace, pod, self.start + start, self.start + stop, cores)

    def jobs(
        self, service: str, count: int, life: float, *, hours: float = 4, spread: float = 0.3
    ) -> list[Container]:
        """Job pods of one service, begun evenly over the first hours."""
        return jobs(
            service,
            count,
            life,
            spread=spread,
            start=self.start,
            stop=self.start + hours * HOUR,
            dice=self.dice,
            namespace=self.namespace,
        )

    def ns(self, seconds: float) -> int:
        """An instant so long after `start`."""
        return round(self.start) * SECOND_NS + round(seconds * SECOND_NS)

    def truth(self, service: str = "", start: float = 0, stop: float = 6 * HOUR) -> float:
        """The CPU-seconds the containers of a service used in a stretch."""
        return math.fsum(
            container.cpu_seconds(self.start + start, self.start + stop)
            for container in self.containers
            if container.pod.startswith(service)
        )


def cpu(outcome: Outcome[Usage], service: str = "cowsay") -> float:
    """The CPU-seconds of the services of one name."""
    assert not isinstance(outcome, Unavailable), outcome.notes
    assert outcome.facts.cpu_seconds is not None, outcome.notes
    return math.fsum(v for key, v in outcome.facts.cpu_seconds.items() if key.service == service)


def noted(outcome: Outcome[Any], text: str) -> bool:
    """Whether a note has this in it."""
    return any(text in note for note in outcome.notes)


def without(*names: str) -> Relabelling:
    """A relabelling that drops labels."""
    return lambda labels: {k: v for k, v in labels.items() if k not in names}


def only(outcome: Outcome[F]) -> Partial[F]:
    """The outcome, which has to be partial."""
    assert isinstance(outcome, Partial), outcome.notes
    return outcome
