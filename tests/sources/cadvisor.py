"""What a kubelet's cAdvisor shows of containers, scrape by scrape, with the truth beside it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from tests.servers.prometheus import STALE, Series

Labels = dict[str, str]
Relabelling = Callable[[Labels], Labels]

CPU = "container_cpu_usage_seconds_total"
STARTED = "container_start_time_seconds"
JOB = "kubernetes-nodes-cadvisor"


@dataclass(frozen=True)
class Container:
    """One life of a container: epoch seconds, and the cores it keeps busy."""

    namespace: str
    pod: str
    start: float
    stop: float
    cores: float
    name: str = "main"
    lingers: float = 0.0  # how long it is still shown once dead
    node: str = "n1"

    def cpu_seconds(self, start: float, stop: float) -> float:
        """The truth."""
        return self.cores * max(0.0, min(stop, self.stop) - max(start, self.start))

    def used_at(self, at: float) -> float:
        """What its counter shows."""
        return self.cores * (min(at, self.stop) - self.start)

    def shown_at(self, at: float) -> bool:
        """Whether cAdvisor shows it."""
        return self.start <= at < self.stop + self.lingers


@dataclass(frozen=True)
class Scraping:
    """Scrapes every `interval` seconds from `start` on; none within `outages`."""

    start: float
    stop: float
    interval: float
    outages: Sequence[tuple[float, float]] = ()
    stale_markers: bool = True

    def times(self) -> Iterator[float]:
        """Every time a scrape is tried."""
        for number in range(math.ceil((self.stop - self.start) / self.interval)):
            yield self.start + number * self.interval

    def works_at(self, at: float) -> bool:
        """Whether the target answers then."""
        return not any(start <= at < stop for start, stop in self.outages)


@dataclass
class Written:
    """Series under construction; as in Prometheus, the first sample of a scrape wins."""

    series: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = field(default_factory=dict)

    def scrape(self, at: float, rows: Iterable[tuple[Labels, float]], *, stale: bool) -> None:
        """Add one scrape's rows; series that are no longer there end with a stale marker."""
        at_ms = round(at * 1000)
        seen = set()
        for labels, value in rows:
            key = tuple(sorted(labels.items()))
            if key not in seen:
                seen.add(key)
                self.series.setdefault(key, []).append((at_ms, value))
        if stale:
            for key in self._open - seen:
                self.series[key].append((at_ms, STALE))
        self._open = seen

    _open: set[tuple[tuple[str, str], ...]] = field(default_factory=set)

    def all(self) -> list[Series]:
        """Every series, for remote write."""
        return [(dict(key), points) for key, points in self.series.items()]


def cadvisor(containers: Iterable[Container], at: float) -> Iterator[tuple[Labels, float]]:
    """What cAdvisor shows: containers, their pods' cgroups, and start times in whole seconds."""
    for container in containers:
        if not container.shown_at(at):
            continue
        uid = UUID(int=random.Random(f"{container.namespace}/{container.pod}").getrandbits(128))
        life = UUID(int=random.Random(repr(container)).getrandbits(128)).hex
        pod = {"namespace": container.namespace, "pod": container.pod, "node": container.node}
        shown = {
            **pod,
            "container": container.name,
            "id": f"/kubepods.slice/pod{uid}/{life}",
            "name": life,
            "image": "registry/image",
        }
        group = {**pod, "container": "", "id": f"/kubepods.slice/pod{uid}", "name": "", "image": ""}
        used = container.used_at(at)
        for labels in (shown, group):
            yield {**labels, "__name__": CPU, "cpu": "total"}, used
            yield {**labels, "__name__": STARTED}, float(math.floor(container.start))


def scraped(
    containers: Sequence[Container],
    scraping: Scraping,
    relabelling: Relabelling = dict,
    *,
    job: str = JOB,
    target: Mapping[str, str] | None = None,
) -> list[Series]:
    """The series a Prometheus has after scraping these containers, `up` among them."""
    target = {"job": job, "instance": "n1", **(target or {})}
    written = Written()
    waiting = sorted(containers, key=lambda container: container.start, reverse=True)
    shown: list[Container] = []
    for at in scraping.times():
        works = scraping.works_at(at)
        while waiting and waiting[-1].start <= at:
            shown.append(waiting.pop())
        shown = [c for c in shown if at < c.stop + c.lingers]
        rows = [
            ({k: v for k, v in {**target, **relabelling(labels)}.items() if v}, value)
            for labels, value in (cadvisor(shown, at) if works else ())
        ]
        rows.append(({"__name__": "up", **target}, float(works)))
        written.scrape(at, rows, stale=scraping.stale_markers)
    return written.all()


def of_service(pod: str) -> str:
    """The `service` label that OSCAR's relabelling makes of a pod's name."""
    parts = pod.split("-")
    if len(parts) > 2 and len(parts[-1]) == 5 and len(parts[-2]) >= 9:
        parts = parts[:-2]
        if len(parts) > 2 and parts[-1] == "deployment":
            parts = parts[:-2]
        return "-".join(parts)
    return ""


def with_service(labels: Labels) -> Labels:
    """All labels, and OSCAR's `service`."""
    return {**labels, "service": of_service(labels["pod"])}


def stock(labels: Labels) -> Labels:
    """OSCAR's stock monitoring: the CPU counter only, without what tells pods apart."""
    if labels["__name__"] != CPU:
        return {"__name__": "dropped"}
    kept = {k: v for k, v in labels.items() if k not in {"id", "name", "image", "pod", "node"}}
    return {**kept, "service": of_service(labels["pod"])}


def jobs(
    service: str,
    count: int,
    life: float,
    *,
    start: float,
    stop: float,
    dice: random.Random,
    spread: float = 0.3,
    namespace: str = "oscar-svc",
) -> list[Container]:
    """Job pods of one service, named as OSCAR names them, begun evenly over a stretch."""
    made = []
    for _ in range(count):
        uuid = UUID(int=dice.getrandbits(128), version=4)
        begun = dice.uniform(start, stop)
        lasted = life * dice.uniform(1 - spread, 1 + spread)
        pod = f"{service}-{uuid}-{dice.getrandbits(20):05x}"
        made.append(Container(namespace, pod, begun, begun + lasted, dice.uniform(0.2, 2.0)))
    return made
