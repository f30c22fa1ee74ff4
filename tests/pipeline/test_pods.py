"""The whole pipeline as it is shipped: pods' logs through a real Kubernetes API to our reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import yaml

from oscar_metrics.facts import LogStream
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span
from tests.corpus.corpus import Corpus, Mix
from tests.corpus.entries import Entry, Gateway
from tests.corpus.origins import pod_logs
from tests.corpus.platform import BASE_HOST
from tests.pipeline.reading import facts, read_until, settings_of, truth
from tests.servers.build import require
from tests.servers.collector import Collector
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.process import wait_until

ROOT = Path(__file__).parents[2]
ALLOY = ROOT / "alloy"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    """A cluster with the collector's service account, as the manifest makes it."""
    for name in ("etcd", "kube-apiserver", "kwok"):
        require(name)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as server:
        for manifest in yaml.safe_load_all((ROOT / "deploy/pipeline/rbac.yaml").read_text()):
            server.apply(manifest)
            if manifest["metadata"].get("namespace") == "ingress-nginx":
                manifest["metadata"]["namespace"] = "traefik"
                server.apply(manifest)
        yield server


class Pages(ThreadingHTTPServer):
    """The pages of the manager and the gateway that the heartbeat asks for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Page)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Page(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:
        self.server.asked.add(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Platform:
    """An hour of a manager's and a gateway's life, shown as far as it has come.

    Without what no reader of pods' logs is shown: of the lines of one nanosecond of a pod, the
    collector hands on the first.
    """

    def __init__(
        self,
        cluster: KubeCluster,
        *,
        hours_ago: int,
        gateways: tuple[Gateway, ...] = (Gateway.NGINX,),
        gateway: str = "ingress-nginx",
    ) -> None:
        stop_ns = time.time_ns() // SLOT_NS * SLOT_NS - hours_ago * HOUR_NS
        self.span = Span(stop_ns - HOUR_NS, stop_ns)
        mix = Mix(calls=1500, exposed=0.4, broken=20, gateways=gateways, heartbeat_seconds=60)
        entries: dict[tuple[str, int], Entry] = {}
        for entry in Corpus.generate(hours_ago, self.span, mix).entries:
            entries.setdefault((entry.pod, entry.time_ns), entry)
        self._entries = tuple(entries.values())
        self._cluster = cluster
        self._gateway = gateway
        self._name = f"-{hours_ago}"

    def show(self, start: int, stop: int) -> None:
        """Have the pods' logs hold these twelfths of the hour, and no others."""
        for log in pod_logs(self._between(start, stop)):
            if lines := [*log.previous, *log.lines]:
                of_manager = log.namespace == "oscar"
                self._cluster.add_pod(
                    log.namespace if of_manager else self._gateway,
                    log.pod + self._name,
                    log.labels if of_manager else {"app.kubernetes.io/name": self._gateway},
                    [log.container],
                    {log.container: lines},
                )

    def lines(self, start: int, stop: int) -> int:
        """How many lines those are."""
        return len(self._between(start, stop).entries)

    def calls(self, start: int, stop: int) -> int:
        """How many of them are recognised as calls."""
        corpus = self._between(start, stop)
        return sum(truth(corpus, stream).lines_seen for stream in LogStream)

    async def agrees_with(self, loki: Loki, stop: int) -> None:
        """Fail unless a report up to there says what is true, once as many lines are in Loki."""
        corpus = self._between(0, stop)
        expected = {stream: truth(corpus, stream) for stream in LogStream}
        settings = settings_of(loki, gateway=self._gateway)
        outcomes = await read_until(settings, corpus.span, self.calls(0, stop))
        for stream, log in expected.items():
            assert facts(outcomes[stream]) == log

    def _between(self, start: int, stop: int) -> Corpus:
        step_ns = self.span.length_ns // 12
        begin_ns = self.span.start_ns
        part = Span(begin_ns + start * step_ns, begin_ns + stop * step_ns)
        return Corpus(part, [entry for entry in self._entries if entry.time_ns in part])


def environment(cluster: KubeCluster, loki: Loki, geoip: Path, pages: Pages) -> dict[str, str]:
    """What the shipped configuration wants to know."""
    return {
        "PIPELINE": str(ALLOY),
        "LOKI_PUSH_URL": f"{loki.url}/loki/api/v1/push",
        "GEOIP_DATABASE": str(geoip),
        "MANAGER_URL": f"{pages.url}/health",
        "GATEWAY_URL": f"{pages.url}/oscar-metrics-heartbeat",
        "INGRESS_HOST": BASE_HOST,
        "KUBECONFIG": str(cluster.kubeconfig(cluster.token_of("monitoring", "oscar-pipeline"))),
    }


def wait_for_lines(collector: Collector, lines: float) -> None:
    """Until the collector, since it started, has read that many."""
    wait_until(
        lambda: collector.metric("oscar_pipeline_lines_total") >= lines,
        f"{lines} lines read",
        timeout_seconds=90,
    )


def wait_for_sent(collector: Collector, calls: int) -> None:
    """Until Loki has answered, to this collector, for that many."""
    wait_until(
        lambda: (
            collector.metric("loki_write_sent_entries_total")
            + collector.metric("loki_write_dropped_entries_total")
            >= calls
        ),
        f"{calls} calls sent",
        timeout_seconds=90,
    )


async def test_nothing_is_lost_or_doubled_whatever_goes_down(
    cluster: KubeCluster, loki: Loki, geoip: Path, pages: Pages, tmp_path: Path
) -> None:
    platform = Platform(cluster, hours_ago=1)
    platform.show(0, 3)
    with Collector.start(
        tmp_path,
        ALLOY / "with_ingress_nginx.alloy",
        environment=environment(cluster, loki, geoip, pages),
    ) as collector:
        await platform.agrees_with(loki, 3)

        # Loki is away, and comes back when the nodes have forgotten what was written meanwhile:
        # it waits on the collector's disk.
        before = collector.bytes_on_disk()
        loki.stop()
        platform.show(0, 6)
        wait_for_lines(collector, platform.lines(0, 6))
        assert collector.bytes_on_disk() - before > 20 * platform.calls(3, 6)
        platform.show(6, 8)
        loki.restart()
        await platform.agrees_with(loki, 8)

        # The collector ends, and another begins with nothing.
        collector.kill()
        collector.restart(forgetful=True)
        platform.show(6, 10)
        await platform.agrees_with(loki, 10)

        # It is restarted, as it is every week. All it reads it sends again.
        collector.restart(forgetful=True)
        wait_for_sent(collector, platform.calls(6, 10))
        await platform.agrees_with(loki, 10)

        # Both.
        loki.stop()
        platform.show(6, 12)
        wait_for_lines(collector, platform.lines(6, 12))
        collector.kill()
        collector.restart(forgetful=True)
        wait_for_lines(collector, platform.lines(6, 12))
        loki.restart()
        wait_for_sent(collector, platform.calls(6, 12))
        await platform.agrees_with(loki, 12)
        for app in ("oscar", "ingress-nginx"):
            assert len(values_of(loki, "pod", f'{{app="{app}"}}', platform.span)) == 2

        heartbeats = {"/health", "/oscar-metrics-heartbeat"}
        wait_until(lambda: pages.asked == heartbeats, "heartbeats", timeout_seconds=60)


async def test_the_logs_of_a_manager_and_of_traefik(
    cluster: KubeCluster, loki: Loki, geoip: Path, pages: Pages, tmp_path: Path
) -> None:
    gateways = (Gateway.TRAEFIK_PATH, Gateway.TRAEFIK_HOST)
    platform = Platform(cluster, hours_ago=0, gateways=gateways, gateway="traefik")
    platform.show(0, 12)
    with Collector.start(
        tmp_path,
        ALLOY / "with_traefik.alloy",
        environment=environment(cluster, loki, geoip, pages),
    ):
        await platform.agrees_with(loki, 12)
    # The last is Loki's own.
    assert labels_of(loki, '{app=~"oscar|traefik"}', platform.span) == {
        "namespace",
        "app",
        "pod",
        "geoip_country_code",
        "service_name",
    }
    start_ns, stop_ns = platform.span.start_ns, platform.span.stop_ns
    lines = loki.count('{app="traefik"}', start_ns, stop_ns)
    assert lines == loki.count('{app="traefik"} | container="traefik"', start_ns, stop_ns) > 0


def values_of(loki: Loki, label: str, selector: str, span: Span) -> set[str]:
    """The values a label has in streams with lines in a span."""
    return {stream[label] for stream in streams_of(loki, selector, span)}


def labels_of(loki: Loki, selector: str, span: Span) -> set[str]:
    """The labels of streams with lines in a span."""
    return {label for stream in streams_of(loki, selector, span) for label in stream}


def streams_of(loki: Loki, selector: str, span: Span) -> list[dict[str, str]]:
    answer = httpx.get(
        f"{loki.url}/loki/api/v1/series",
        params={"match[]": selector, "start": span.start_ns, "end": span.stop_ns},
        trust_env=False,
    )
    streams: list[dict[str, str]] = answer.raise_for_status().json()["data"]
    return streams
