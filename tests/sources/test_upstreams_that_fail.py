"""Real servers that stop, hang and come back: left alone meanwhile, and asked again after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Protocol

import msgspec
import pytest

from oscar_metrics.facts import Inventory, LogStream
from oscar_metrics.live import Live
from oscar_metrics.outcome import Ok, Outcome, Partial
from oscar_metrics.resilience.breaker import BreakerState
from oscar_metrics.resilience.gate import Protection
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.kubernetes import InventorySettings, KubernetesInventory
from oscar_metrics.sources.kubernetes_client import KubernetesClient, KubernetesSettings
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.prometheus import PrometheusUsage
from oscar_metrics.sources.prometheus_api import PrometheusSettings
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span
from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.prometheus import Prometheus
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.loki_streams import Streams, call

PROTECTION = Protection(open_seconds=0.3, longest_open_seconds=0.6, unanswered_seconds=0.3)
LIMITS = UpstreamLimits(protection=PROTECTION)
DEADLINE_SECONDS = 1.0
NOT_ASKED = "is not asked for a while, after it failed again and again"


class Server(Protocol):
    """What can be done to a server."""

    def stop(self) -> None: ...
    def restart(self) -> None: ...
    def suspend(self) -> None: ...
    def resume(self) -> None: ...


class Asked(msgspec.Struct):
    """An upstream, and how a report asks it."""

    name: str
    server: Any
    telemetry: Telemetry
    sources: Sources
    ask: Callable[[Live], Awaitable[Outcome[Any]]]

    async def report(self) -> Outcome[Any]:
        """What one report is told."""
        deadline = asyncio.get_running_loop().time() + DEADLINE_SECONDS
        live = Live(self.sources, self.telemetry, now_ns=time.time_ns(), deadline=deadline)
        return await self.ask(live)

    def counted(self, metric: str, **labels: str) -> float:
        labels = {"upstream": self.name, **labels}
        found = self.telemetry.registry.get_sample_value(f"oscar_metrics_upstream_{metric}", labels)
        return found or 0.0


def sources(**named: Any) -> Sources:
    return Sources(geoip=GeoIP.open(None), roster=Rosters(), **named)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    for name in ("loki", "prometheus", "etcd", "kube-apiserver", "kwok"):
        require(name)
    with (
        Loki.start(tmp_path_factory.mktemp("loki")) as loki,
        Prometheus.start(tmp_path_factory.mktemp("prometheus")) as prometheus,
        KubeCluster.start(tmp_path_factory.mktemp("cluster")) as cluster,
    ):
        yield {"loki": loki, "prometheus": prometheus, "kubernetes": cluster}


@asynccontextmanager
async def asking(name: str, server: Any) -> AsyncIterator[Asked]:
    telemetry = Telemetry()
    now_ns = time.time_ns()
    async with AsyncExitStack() as stack:
        if name == "loki":
            streams = Streams(server, limits=LIMITS)
            streams.write([(streams.slot_ns, call())])
            logs = LokiLogs(streams.settings, telemetry=telemetry)
            stack.push_async_callback(logs.aclose)
            stretch = Span(streams.slot_ns, streams.slot_ns + SLOT_NS)
            yield Asked(name, server, telemetry, sources(logs=logs), executions(stretch))
        elif name == "prometheus":
            settings = PrometheusSettings(url=server.url, limits=LIMITS)
            usage = PrometheusUsage(settings, telemetry=telemetry)
            stack.push_async_callback(usage.aclose)
            nothing = Ok(facts=Inventory(services=()), origin="kubernetes")
            hour = Span(now_ns - HOUR_NS, now_ns)
            yield Asked(
                "Prometheus",
                server,
                telemetry,
                sources(usage=usage),
                lambda live: live.usage(hour, nothing),
            )
        else:
            config = str(server.kubeconfig(server.admin_token))
            client = KubernetesClient(
                KubernetesSettings(config=config, protection=PROTECTION), telemetry
            )
            stack.push_async_callback(client.aclose)
            inventory = KubernetesInventory(client, InventorySettings())
            yield Asked(
                name, server, telemetry, sources(inventory=inventory), lambda live: live.inventory()
            )


def executions(stretch: Span) -> Callable[[Live], Awaitable[Outcome[Any]]]:
    async def ask(live: Live) -> Outcome[Any]:
        logs = await live.logs(stretch, frozenset({LogStream.EXECUTIONS}), slotted=False)
        return logs[LogStream.EXECUTIONS]

    return ask


@contextmanager
def out(server: Server, how: str) -> Iterator[None]:
    if how == "stopped":
        server.stop()
    else:
        server.suspend()
    try:
        yield
    finally:
        if how == "stopped":
            server.restart()
        else:
            server.resume()


async def until(asked: Asked, is_so: Callable[[Outcome[Any]], bool]) -> None:
    """Ask, report after report, until the outcome is as it should be."""
    deadline = time.monotonic() + 60
    while not is_so(outcome := await asked.report()):
        assert time.monotonic() < deadline, outcome
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["stopped", "suspended"])
@pytest.mark.parametrize("name", ["loki", "prometheus", "kubernetes"])
async def test_what_is_out_is_left_alone_and_asked_again_when_it_is_back(
    servers: dict[str, Any], name: str, how: str
) -> None:
    async with asking(name, servers[name]) as asked:
        before = type(await asked.report()), (await asked.report()).notes
        assert NOT_ASKED not in "".join(before[1])
        with out(asked.server, how):
            await asyncio.gather(*(asked.report() for _ in range(5)))
            await until(asked, lambda outcome: any(NOT_ASKED in note for note in outcome.notes))
            assert asked.counted("breaker_openings_total") >= 1
            assert asked.counted("calls_refused_total") >= 1
        await until(asked, lambda outcome: (type(outcome), outcome.notes) == before)
        assert asked.telemetry.breakers == {asked.name: BreakerState.CLOSED}
        assert asked.counted("breaker_state", state="closed") == 1


async def test_a_small_report_is_read_while_a_six_month_one_has_its_places(loki: Loki) -> None:
    """With half of the places taken by questions that are never answered, the rest is there."""
    streams = Streams(loki, limits=LIMITS)
    streams.write([(streams.slot_ns, call())])
    held = 0
    full = asyncio.Event()

    def hang_what_is_old(request: Request) -> Reply | None:
        nonlocal held
        start_ns = int(request.parameters.get("start", streams.now_ns))
        if "om_asked" in str(request.parameters) or start_ns > streams.slot_ns - HOUR_NS:
            return None
        held += 1
        if held == LIMITS.places_of_one:
            full.set()
        return HANG

    async with interposed(loki.url, hang_what_is_old) as url:
        logs = LokiLogs(streams.at(url).settings, telemetry=streams.telemetry)

        async def report(start_ns: int) -> Outcome[Any]:
            live = Live(sources(logs=logs), streams.telemetry, now_ns=streams.now_ns, deadline=None)
            return await executions(Span(start_ns, streams.slot_ns + SLOT_NS))(live)

        big = asyncio.create_task(report(streams.slot_ns - 180 * 24 * HOUR_NS))
        async with asyncio.timeout(30):
            await full.wait()
            small = await report(streams.slot_ns)
        assert isinstance(small, Ok | Partial)
        assert sum(small.facts.tallies.values()) == 1
        assert not big.done()
        assert held == LIMITS.places_of_one == 2
        big.cancel()
        with pytest.raises(asyncio.CancelledError):
            await big
        await logs.aclose()
