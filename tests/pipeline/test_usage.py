"""Usage as it is shipped: scraped by Prometheus and by the collector, up to our own figures."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from oscar_metrics.facts import Inventory, Service, ServiceKey, Usage, UsageMethod
from oscar_metrics.outcome import GapReason, Ok, Partial
from oscar_metrics.sources.prometheus import PrometheusSettings, PrometheusUsage
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS, Span
from tests.pipeline.usage_cluster import Exporters, Pod, Pods, exporting
from tests.servers.build import require
from tests.servers.collector import Collector
from tests.servers.kubernetes import NODE, KubeCluster
from tests.servers.process import wait_until
from tests.servers.prometheus import Prometheus
from tests.sources.cadvisor import Container

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy" / "prometheus"

_CONFIGURATION = """
import.file "usage" { filename = env("PIPELINE") + "/usage.alloy" }
import.file "delivery" { filename = env("PIPELINE") + "/delivery.alloy" }
usage.scrape "cluster" {
  kube_state_metrics = env("KUBE_STATE_METRICS")
  kubeconfig         = env("KUBECONFIG")
  token_file         = env("TOKEN_FILE")
  scrape_interval    = "1s"
  scrape_timeout     = "1s"
  forward_to         = [delivery.to_prometheus.default.receiver]
}
delivery.to_prometheus "default" { url = env("PROMETHEUS_WRITE_URL") }
"""

_SHORT, _LONG = 8.0, 15.0
_KEPT_LABELS = {
    *("__name__", "job", "instance", "namespace", "pod", "container", "cpu", "id", "name"),
    *("resource", "phase"),
    *("label_oscar_service", "label_app", "label_serving_knative_dev_service"),
}
_KEPT_METRICS = {
    "container_cpu_usage_seconds_total",
    "container_start_time_seconds",
    "container_memory_working_set_bytes",
    "kube_pod_labels",
    "kube_pod_completion_time",
    "kube_pod_container_resource_requests",
    "kube_pod_status_phase",
}
_RECORDED = {
    "namespace_pod_service:kube_pod_labels:max",
    "namespace_service:container_cpu_usage_seconds:rate2m",
    "namespace_service:container_memory_working_set_bytes:sum",
    "namespace_service:gpus_allocated:sum",
    "namespace_service:memory_gib_hours:1h",
    "namespace_service:gpu_hours:1h",
}
_NEVER_SCRAPED = 3
# What the collector sends is late by up to 20 s.
_RULES_LATE_SECONDS = 25


def lives(begin: float) -> tuple[Pod, ...]:
    """Pods of every kind, from `begin` on, for some 20 seconds.

    The names of job pods are of no use where services' names are long; what has another name than
    its service is of none either.
    """
    pods: list[Pod] = []

    def add(
        service: str,
        name: str,
        labels: dict[str, str],
        *containers: str,
        namespace: str = "oscar-svc",
        restarts: bool = False,
        **more: Any,
    ) -> None:
        number = len(pods)
        # Spread over the scrapes' interval, so that what one pod has too much another lacks.
        start = begin + 5 * (number * 0.618 % 1)
        stop = start + _SHORT + (_LONG - _SHORT) * (number * 0.414 % 1)
        cores = 0.5 + number % 3
        made = [Container(namespace, name, start, stop, cores, each) for each in containers]
        if restarts:
            middle = start + 5.0
            made = [
                Container(namespace, name, start, middle, cores, containers[0]),
                Container(namespace, name, middle + 0.5, stop, cores, containers[0]),
            ]
        pods.append(Pod(service, labels, tuple(made), **more))

    for number in range(12):
        unique = f"0190c2a8-1111-4222-8333-4445556666{number:02d}-x1x{number:02d}"
        for service in ("cowsay", "image-classification-plants", "image-classification-birds"):
            cut = service[:16] if len(service) >= 25 else service
            pod = f"{cut}-{service[-2]}{unique[1:]}"
            add(service, pod, {"oscar_service": service, "app": "job"}, "oscar-container")
        add("cowsay", f"nightly-{number}", {"oscar_service": "cowsay"}, "oscar-container")
        add(
            "cowsay",
            f"cowsay-{unique}",
            {"oscar_service": "cowsay"},
            "oscar-container",
            namespace="oscar-svc-alice",
        )
        add(
            "train",
            f"train-{unique}",
            {"oscar_service": "train"},
            "oscar-container",
            gpus=1 + number % 2,
            memory_gib=2.0,
        )
        add(
            "demo",
            f"demo-dpl-5d9c7b6f4-x2x{number:02d}",
            {"app": "oscar-svc-exp-demo", "oscar.grycap/user-service": "true"},
            "demo",
            restarts=number % 3 == 0,
        )
        add(
            "fn",
            f"fn-00001-deployment-5d9c7b6f4-x3x{number:02d}",
            {"serving.knative.dev/service": "fn", "app": "fn-00001"},
            "user-container",
            "queue-proxy",
        )
        add(
            "model",
            f"model-predictor-00001-deployment-5d9c7b6f4-x4x{number:02d}",
            {"app": "oscar-svc-ksv-model", "serving.knative.dev/service": "model-predictor"},
            "kserve-container",
            "queue-proxy",
        )
    for number in range(_NEVER_SCRAPED):
        name = f"cowsay-too-short-{number}"
        add("cowsay", name, {"oscar_service": "cowsay"}, "oscar-container", scraped=False)
    add("dns", "coredns-1", {"app": "dns"}, "dns", namespace="kube-system", memory_gib=4.0)
    return tuple(pods)


@dataclass(frozen=True)
class Scene:
    """What ran, and the two Prometheis that should know: `direct` scraped, `written` was sent."""

    pods: Pods
    direct: Prometheus
    written: Prometheus
    span: Span

    def server(self, way: str) -> Prometheus:
        """One of the two."""
        return self.direct if way == "direct" else self.written


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    for name in ("etcd", "kube-apiserver", "kwok", "prometheus", "grafana-agent-flow"):
        require(name)
    directory = tmp_path_factory.mktemp("usage")
    pods = Pods()
    with (
        KubeCluster.start(tmp_path_factory.mktemp("cluster")) as cluster,
        exporting(pods, directory / "kubelet") as exporters,
    ):
        allow(cluster)
        cluster.set_kubelet_port(NODE, exporters.kubelet_port)
        token = directory / "token"
        token.write_text(exporters.token)
        kubeconfig = cluster.kubeconfig(cluster.user_token)
        rules = directory / "rules.yaml"
        rules.write_text(every_second((SHIPPED / "rules.yaml").read_text()))
        scrape = directory / "scrape.yaml"
        scrape.write_text(scrape_file(exporters, kubeconfig, token))
        configuration = directory / "usage.alloy"
        configuration.write_text(_CONFIGURATION)
        environment = {
            "PIPELINE": str(ROOT / "alloy"),
            "KUBE_STATE_METRICS": exporters.state,
            "KUBECONFIG": str(kubeconfig),
            "TOKEN_FILE": str(token),
        }
        for way in ("direct", "written"):
            (directory / way).mkdir()
        with (
            Prometheus.start(
                directory / "direct", rule_files=[rules], scrape_config_files=[scrape]
            ) as direct,
            Prometheus.start(directory / "written", rule_files=[rules]) as written,
            Collector.start(
                directory,
                configuration,
                environment=environment | {"PROMETHEUS_WRITE_URL": f"{written.url}/api/v1/write"},
            ),
        ):
            for server in (direct, written):
                wait_until(partial(scrapes, server), "both jobs scraped", timeout_seconds=60)
            begin = time.time() + 1
            pods.pods = lives(begin)
            end = max(pod.stop for pod in pods.pods)
            time.sleep(max(0.0, end - time.time()))
            for server in (direct, written):
                wait_until(
                    partial(has_all, server, pods, end), "all of it seen", timeout_seconds=60
                )
            # What ended is only known to have ended after a while; Prometheus is asked about then.
            span = Span(int(begin - 60) * SECOND_NS, int(end + 600) * SECOND_NS)
            yield Scene(pods, direct, written, span)


def scrapes(server: Prometheus) -> bool:
    """Whether it has samples of kubelets and of kube-state-metrics."""
    return len(server.query('up{job=~"oscar-.+"} == 1')) == 2


def has_all(server: Prometheus, pods: Pods, end: float) -> bool:
    """Whether it knows that all pods have ended, and so do its rules."""
    ended = server.query("count(kube_pod_completion_time)")
    expected = sum(pod.service != "dns" for pod in pods.pods)
    if not ended or int(ended[0]["value"][1]) < expected:
        return False
    known = [datetime.fromisoformat(group["lastEvaluation"]) for group in groups(server)]
    return min(known).timestamp() - _RULES_LATE_SECONDS > end + 2


def groups(server: Prometheus) -> list[dict[str, Any]]:
    """The groups of rules it has loaded."""
    answer = httpx.get(f"{server.url}/api/v1/rules", trust_env=False).raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["groups"]
    return found


def allow(cluster: KubeCluster) -> None:
    """Let the cluster's plain user do what the manifest lets the scraper do."""
    for manifest in yaml.safe_load_all((SHIPPED / "rbac.yaml").read_text()):
        if "subjects" in manifest:
            user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "metrics"}
            manifest["subjects"] = [user]
        cluster.apply(manifest)


def every_second(rules: str) -> str:
    """The shipped rules, evaluated every second instead of every half minute."""
    for shipped, faster in (
        ("[1h:30s]) / 120", "[1h:1s]) / 3600"),
        ("interval: 30s", "interval: 1s"),
        ("interval: 5m", "interval: 5s"),
        ("query_offset: 1m", f"query_offset: {_RULES_LATE_SECONDS}s"),
    ):
        assert shipped in rules
        rules = rules.replace(shipped, faster)
    return rules


def scrape_file(exporters: Exporters, kubeconfig: Path, token: Path) -> str:
    """The shipped scrapes, every second, of these addresses."""
    shipped = yaml.safe_load((SHIPPED / "scrape.yaml").read_text())
    containers, pods = shipped["scrape_configs"]
    for scrape in (containers, pods):
        scrape |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    containers["authorization"]["credentials_file"] = str(token)
    containers["kubernetes_sd_configs"][0]["kubeconfig_file"] = str(kubeconfig)
    pods["static_configs"] = [{"targets": [exporters.state]}]
    return json.dumps(shipped)


async def read(scene: Scene, way: str) -> Partial[Usage]:
    """What our usage source says of everything that ran."""
    services = {pod.key for pod in scene.pods.pods if pod.key.namespace != "kube-system"}
    inventory = Inventory(
        services=tuple(
            Service(namespace=key.namespace, name=key.service, enable_gpu=key.service == "train")
            for key in services
        )
    )
    usage = PrometheusUsage(PrometheusSettings(url=scene.server(way).url), telemetry=Telemetry())
    try:
        outcome = await usage.read(
            scene.span,
            Ok(facts=inventory, origin="kubernetes"),
            now_ns=scene.span.stop_ns,
            deadline=asyncio.get_running_loop().time() + 60,
        )
    finally:
        await usage.aclose()
    # The last minutes are still to come, and three pods were never seen.
    assert isinstance(outcome, Partial), outcome
    return outcome


def is_near(said: dict[ServiceKey, float], truth: dict[ServiceKey, float]) -> None:
    """Fail unless every service has what it used within 3 %, and nothing else has any."""
    assert {key for key, value in said.items() if value} == set(truth)
    for key, value in truth.items():
        assert said[key] == pytest.approx(value, rel=0.03), key


@pytest.mark.parametrize("way", ["direct", "written"])
async def test_every_core_second_lands_on_its_service(scene: Scene, way: str) -> None:
    outcome = await read(scene, way)
    truth = scene.pods.cpu_seconds()
    truth.pop(ServiceKey("kube-system", "dns"))
    assert outcome.facts.cpu_seconds is not None
    is_near(dict(outcome.facts.cpu_seconds), truth)
    assert math.fsum(outcome.facts.cpu_seconds.values()) == pytest.approx(
        math.fsum(truth.values()), rel=0.01
    )
    assert outcome.facts.methods == {UsageMethod.CPU_ESTIMATE, UsageMethod.GPU_ALLOCATED}
    assert {gap.reason for gap in outcome.gaps} <= {GapReason.NOT_SCRAPED}


@pytest.mark.parametrize("way", ["direct", "written"])
async def test_gpus_are_counted_while_they_are_held(scene: Scene, way: str) -> None:
    outcome = await read(scene, way)
    assert outcome.facts.gpu_seconds is not None
    is_near(dict(outcome.facts.gpu_seconds), scene.pods.gpu_seconds())


@pytest.mark.parametrize("way", ["direct", "written"])
async def test_what_no_scrape_saw_is_in_the_note(scene: Scene, way: str) -> None:
    outcome = await read(scene, way)
    expected = f"{_NEVER_SCRAPED} pods ended without having been seen by any scrape (every 1 s): "
    assert [note for note in outcome.doubts if note.startswith(expected)]


@pytest.mark.parametrize("way", ["direct", "written"])
def test_only_what_reports_need_is_kept(scene: Scene, way: str) -> None:
    answer = httpx.get(
        f"{scene.server(way).url}/api/v1/series",
        params={"match[]": '{job=~"oscar-.+",__name__=~"(container|kube)_.+"}'},
        trust_env=False,
    )
    kept = answer.raise_for_status().json()["data"]
    assert {series["__name__"] for series in kept} == _KEPT_METRICS
    assert {label for series in kept for label in series} == _KEPT_LABELS
    assert not [series for series in kept if series["namespace"] == "kube-system"]
    containers = [series for series in kept if series["job"] == "oscar-containers"]
    assert not [series for series in containers if series["container"] in {"", "POD"}]
    scraped = [c for pod in scene.pods.pods if pod.scraped for c in pod.containers]
    assert len(containers) == 3 * (len(scraped) - 1)
    # Labels, phase, end: of every pod; GPUs of those that ask for some.
    pods = [pod for pod in scene.pods.pods if pod.service != "dns"]
    held = [pod for pod in pods if pod.gpus]
    assert len(kept) - len(containers) == 3 * len(pods) + len(held)


@pytest.mark.parametrize("way", ["direct", "written"])
def test_the_rules_are_taken_and_record_memory_and_gpus(scene: Scene, way: str) -> None:
    server = scene.server(way)
    rules = [rule for group in groups(server) for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == _RECORDED
    assert [rule for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []
    memory = scene.pods.memory_gib_seconds()
    memory.pop(ServiceKey("kube-system", "dns"))
    is_near(hours(server, "namespace_service:memory_gib_hours:1h"), memory)
    is_near(hours(server, "namespace_service:gpu_hours:1h"), scene.pods.gpu_seconds())
    cores = server.query("max_over_time(namespace_service:container_cpu_usage_seconds:rate2m[10m])")
    assert {service_of(sample["metric"]) for sample in cores} == set(memory)


@pytest.mark.parametrize("way", ["direct", "written"])
def test_prometheus_has_taken_the_configuration(scene: Scene, way: str) -> None:
    answer = httpx.get(f"{scene.server(way).url}/api/v1/status/config", trust_env=False)
    taken = yaml.safe_load(answer.raise_for_status().json()["data"]["yaml"])
    assert len(taken["rule_files"]) == 1
    assert len(taken.get("scrape_config_files", [])) == (way == "direct")


def hours(server: Prometheus, name: str) -> dict[ServiceKey, float]:
    """The recorded hours of each service, in seconds."""
    found = server.query(f"last_over_time({name}[10m])")
    return {service_of(each["metric"]): float(each["value"][1]) * 3600 for each in found}


def service_of(labels: dict[str, str]) -> ServiceKey:
    """Whose a recorded series is."""
    return ServiceKey(labels["namespace"], labels["service"])
