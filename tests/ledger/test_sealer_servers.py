"""The sealer over a real Loki, Prometheus and Kubernetes API: what is sealed is what is live."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from oscar_metrics.facts import LogStream, Roster, ServiceKey
from oscar_metrics.ledger.seals import SealHead, SealKind
from oscar_metrics.outcome import Ok, Unavailable
from oscar_metrics.resilience.gate import Protection
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.kubernetes import InventorySettings, KubernetesInventory
from oscar_metrics.sources.kubernetes_client import KubernetesClient, KubernetesSettings
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.sums import of_tallies
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span
from tests.ledger.sealing_scene import (
    EXECUTIONS,
    EXPOSED,
    INVENTORY,
    MINUTE_NS,
    USAGE,
    Scene,
    gateway,
)
from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.prometheus import Prometheus
from tests.sources.loki_streams import Streams, call
from tests.sources.test_kubernetes import bind, service_map
from tests.sources.usage_scene import HOUR
from tests.sources.usage_scene import Scene as UsageScene

GROUPING = ("service", "user", "kind", "result")
# The scene's clock jumps by hours, the one by which an upstream is left alone does not.
SOON = Protection(longest_open_seconds=0.01)
LIMITS = UpstreamLimits(attempts=1, timeout_seconds=10, protection=SOON)


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("loki")
    limits = {"retention_period": "72h"}
    with Loki.start(tmp_path_factory.mktemp("loki"), limits=limits) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    for name in ("etcd", "kube-apiserver", "kwok"):
        require(name)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as server:
        bind(server)
        yield server


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with Scene.open(tmp_path) as scene:
        yield scene


async def sealed(scene: Scene, kind: SealKind, hour: int) -> SealHead | None:
    heads = await scene.store.heads(kind, Span(hour * HOUR_NS, (hour + 1) * HOUR_NS))
    return heads[0] if heads else None


@asynccontextmanager
async def loki_sources(streams: Streams) -> AsyncIterator[tuple[Sources, LokiLogs]]:
    logs = LokiLogs(streams.settings, telemetry=streams.telemetry)
    try:
        yield Sources(geoip=GeoIP.open(None), roster=Rosters(), logs=logs), logs
    finally:
        await logs.aclose()


async def test_an_hour_of_loki_that_grows_ends_as_it_is_live(loki: Loki, scene: Scene) -> None:
    hour = time.time_ns() // HOUR_NS - 1
    span = Span(hour * HOUR_NS, (hour + 1) * HOUR_NS)
    streams = Streams(loki, exposed_app="gateway")
    streams.settings = type(streams.settings)(
        url=loki.url,
        namespace=streams.namespace,
        exposed_namespace=streams.namespace,
        exposed_app="gateway",
    )
    slots = range(span.start_ns, span.stop_ns, SLOT_NS)
    streams.keep_alive(span.start_ns, span.stop_ns)
    streams.write([(ns + i, call(f"user-{i}")) for ns in slots for i in range(5)])
    streams.write([(ns, gateway(ns)) for ns in slots], app="gateway")
    async with loki_sources(streams) as (sources, logs):
        scene.sealer = scene.new_sealer(sources)
        scene.now_ns = span.stop_ns + 10 * MINUTE_NS
        await scene.work()
        first = await sealed(scene, EXECUTIONS, hour)
        assert first is not None
        assert (first.revision, first.lines_understood, first.missing_ns) == (1, 20, 0)
        assert (first.origin, first.next_look_ns) == ("loki", span.stop_ns + 4 * HOUR_NS)
        exposed = await sealed(scene, EXPOSED, hour)
        assert exposed is not None
        assert (exposed.lines_understood, exposed.missing_ns) == (4, 0)

        # A collector that had been held up delivers what is missing.
        streams.write([(span.start_ns + i, call("late")) for i in range(7)], pod="held-up")
        scene.now_ns = span.stop_ns + 4 * HOUR_NS
        await scene.work()
        scene.now_ns = span.stop_ns + 24 * HOUR_NS
        await scene.work()
        last = await sealed(scene, EXECUTIONS, hour)
        assert last is not None
        assert (last.revision, last.lines_understood, last.next_look_ns) == (2, 27, None)

        live = await logs.read(
            span,
            frozenset(LogStream),
            Countries(GeoIP.open(None), Roster()),
            now_ns=scene.now_ns,
            deadline=None,
        )
    for stream, outcome in live.items():
        assert isinstance(outcome, Ok), outcome
        stored = await scene.store.call_sums(stream, [span], [GROUPING], rows_max=1000)
        assert stored == of_tallies(outcome.facts.tallies, [GROUPING])


async def test_what_loki_is_about_to_drop_is_told(loki: Loki, scene: Scene) -> None:
    """Loki keeps 72 hours; what nobody could read of them runs out."""
    streams = Streams(loki, limits=LIMITS)
    hour = streams.now_ns // HOUR_NS - 1
    async with loki_sources(streams) as (sources, _):
        scene.settings = type(scene.settings)(backfill_days=10)
        scene.sealer = scene.new_sealer(sources)
        scene.now_ns = (hour + 1) * HOUR_NS + 10 * MINUTE_NS
        # Asks for what is kept, and seals one day.
        await scene.sealer.step()
        loki.stop()
        try:
            scene.now_ns += 11 * MINUTE_NS
            await scene.work()
            status = scene.sealer.status().kinds[EXECUTIONS]
            assert status.unsealed_hours > 0
            assert status.last_error in (
                "Loki could not be reached",
                "Loki is not asked for a while, after it failed again and again",
            )
        finally:
            loki.restart()
        scene.now_ns += 11 * MINUTE_NS
        await scene.sealer.step()
        loki.stop()
        try:
            expiring = scene.sealer.status().kinds[EXECUTIONS].expiring
            assert expiring is not None
            assert 0 < expiring.seconds_left < 3600
            scene.now_ns += 11 * MINUTE_NS
            await scene.work()
            assert scene.sample("expiring_hours", kind="executions") > 0
        finally:
            loki.restart()
        # Nothing is asked for that Loki does not keep any more.
        scene.now_ns += 70 * MINUTE_NS
        await scene.work()
        assert scene.sealer.status().kinds[EXECUTIONS].unsealed_hours == 0
        heads = await scene.store.heads(EXECUTIONS, Span(0, scene.now_ns))
        assert heads[0].hour * HOUR_NS > scene.now_ns - 72 * HOUR_NS


async def test_usage_and_inventory_are_sealed_as_they_are_live(
    prometheus: Prometheus, cluster: KubeCluster, scene: Scene
) -> None:
    usage = UsageScene(prometheus)
    usage.write(usage.jobs("cowsay", 60, 90, hours=3))
    prometheus.restart()  # it says since when it keeps samples only then
    hour = usage.ns(0) // HOUR_NS
    cluster.apply(service_map(usage.namespace, "cowsay"))
    kubeconfig = cluster.kubeconfig(cluster.user_token)
    client = KubernetesClient(
        KubernetesSettings(config=str(kubeconfig), attempts=1, timeout_seconds=5, protection=SOON),
        Telemetry(),
    )
    async with aclosing(client), usage.usage(limits=LIMITS) as source:
        inventory = KubernetesInventory(client, InventorySettings())
        scene.sealer = scene.new_sealer(
            Sources(geoip=GeoIP.open(None), roster=Rosters(), usage=source, inventory=inventory)
        )
        scene.now_ns = (hour + 1) * HOUR_NS + 10 * MINUTE_NS
        await scene.work()
        head = await sealed(scene, INVENTORY, hour)
        assert head is not None
        assert (head.origin, head.next_look_ns) == ("kubernetes", None)
        found = await scene.store.inventory(as_of_ns=scene.now_ns)
        assert found is not None
        assert [service.name for service in found[0].services] == ["cowsay"]
        assert await sealed(scene, INVENTORY, hour - 1) is None

        # Both are down when the next hour is due, and one of them a look later still.
        prometheus.stop()
        cluster.stop()
        try:
            scene.now_ns += HOUR_NS
            await scene.work()
            assert await sealed(scene, USAGE, hour + 1) is None
            status = scene.sealer.status()
            assert status.kinds[USAGE].last_error
            assert status.kinds[INVENTORY].last_error
        finally:
            prometheus.restart()
        scene.now_ns += 5 * MINUTE_NS
        await scene.work()
        head = await sealed(scene, USAGE, hour + 1)
        assert head is not None
        assert head.method.startswith("cpu-estimate")
        cluster.restart()

        span = Span(hour * HOUR_NS, (hour + 2) * HOUR_NS)
        known = await inventory.read(now_ns=scene.now_ns, deadline=None)
        live = await source.read(span, known, now_ns=scene.now_ns, deadline=None)
        assert not isinstance(live, Unavailable)
        assert live.facts.cpu_seconds is not None
        stored = (await scene.store.usage_sums([span]))[0].cpu_seconds
        assert stored is not None
        # Also of the hour whose services were known from the seal before it.
        key = ServiceKey(usage.namespace, "cowsay")
        assert stored[key] == pytest.approx(live.facts.cpu_seconds[key], abs=0.01)
        assert stored[key] > HOUR / 2
