"""Each upstream stopped in turn: the answer says which numbers are missing, and recovers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import yaml

from tests.corpus import platform
from tests.e2e.running import command_line, running
from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.kwok import cri_line
from tests.servers.loki import Loki
from tests.servers.process import wait_until
from tests.servers.prometheus import Prometheus

ROOT = Path(__file__).parents[2]
SECOND_NS = 1_000_000_000
PLANTED_URL_PASSWORD = "planted-url-password"


class Stack(msgspec.Struct):
    """Every upstream, a server before them, and what all of them know: ten calls, one CPU-hour."""

    loki: Loki
    prometheus: Prometheus
    cluster: KubeCluster
    client: httpx.Client
    settings: dict[str, str]
    directory: Path
    started_ns: int

    def range(self) -> dict[str, str]:
        seconds = self.started_ns // SECOND_NS

        def at(offset: int) -> str:
            return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds + offset))

        return {"start": at(-3600), "end": at(0)}

    def get(self, path: str, **parameters: str) -> Any:
        answer = self.client.get(path, params={**self.range(), **parameters})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def summary(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        body = self.get("/system/metrics/summary")
        return body["totals"], {source["name"]: source for source in body["sources"]}

    def upstreams(self) -> dict[str, str]:
        """Of each upstream, whether it is asked."""
        answer: dict[str, str] = self.client.get("/readyz").json()["upstreams"]
        return answer

    def wait_for(
        self, what: str, is_so: Callable[[dict[str, Any], dict[str, dict[str, Any]]], bool]
    ) -> None:
        """What was out is not asked for a moment after it is back."""
        wait_until(lambda: is_so(*self.summary()), what, timeout_seconds=60)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    for server in ("loki", "prometheus", "etcd", "kube-apiserver", "kwok"):
        require(server)
    directory = tmp_path_factory.mktemp("stack")
    for name in ("loki", "prometheus", "cluster", "server"):
        (directory / name).mkdir()
    now_ns = time.time_ns()
    lines = [execution(now_ns - 3570 * SECOND_NS + 36 * i * SECOND_NS, i) for i in range(99)]
    with (
        Loki.start(directory / "loki") as loki,
        Prometheus.start(directory / "prometheus") as prometheus,
        KubeCluster.start(directory / "cluster") as cluster,
    ):
        loki.push([({"namespace": "oscar", "app": "oscar", "pod": "oscar-0"}, lines)])
        loki.push(
            [
                (
                    {"namespace": "ingress-nginx", "app": "ingress-nginx", "pod": "gw"},
                    [(at_ns, "-") for at_ns, _ in lines],
                )
            ]
        )
        for manifest in platform.manifests():
            cluster.apply(manifest)
        for document in yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()):
            cluster.apply(document)
        cluster.add_pod(
            "oscar",
            "oscar-0",
            {"app": "oscar"},
            ["oscar"],
            {"oscar": [cri_line(at_ns, line) for at_ns, line in lines]},
            started_at=datetime.fromtimestamp(now_ns // SECOND_NS - 7200, UTC),
        )
        fill(prometheus, now_ns)
        settings = {
            "LOKI_URL": loki.url.replace("//", f"//operator:{PLANTED_URL_PASSWORD}@"),
            "PROMETHEUS_URL": prometheus.url,
            "OSCAR_METRICS_KUBERNETES": str(cluster.kubeconfig(cluster.admin_token)),
            "OSCAR_METRICS_DEADLINE_SECONDS": "10",
            "OSCAR_METRICS_LOKI_ATTEMPTS": "1",
            **{
                f"OSCAR_METRICS_{name}_LONGEST_OPEN_SECONDS": "0.5"
                for name in ("LOKI", "PROMETHEUS", "KUBERNETES")
            },
        }
        with running(settings, directory / "server") as client:
            # What was known before an outage is not to stand in for what is looked at here.
            client.headers["Cache-Control"] = "no-cache"
            yield Stack(
                loki=loki,
                prometheus=prometheus,
                cluster=cluster,
                client=client,
                settings=settings,
                directory=directory / "server",
                started_ns=now_ns,
            )


def execution(at_ns: int, number: int) -> tuple[int, str]:
    """When, and the line of, one call of cowsay by a user of its own."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ns // SECOND_NS))
    return at_ns, (
        f"[GIN-EXECUTIONS-LOGGER] {at} | 200 |  12ms | 10.0.0.1 | POST    /run/cowsay"
        f" | user-{number}"
    )


def fill(prometheus: Prometheus, now_ns: int) -> None:
    """One container of cowsay that has used a core for two hours."""
    labels = {
        "namespace": "oscar-svc",
        "pod": "cowsay-0",
        "container": "main",
        "service": "cowsay",
    }
    times_ms = range(now_ns // 1_000_000 - 7_200_000, now_ns // 1_000_000, 30_000)
    born = times_ms[0] / 1000
    prometheus.remote_write(
        [
            (
                {"__name__": "container_cpu_usage_seconds_total", "cpu": "total", **labels},
                [(at, at / 1000 - born) for at in times_ms],
            ),
            (
                {"__name__": "container_start_time_seconds", **labels},
                [(at, born) for at in times_ms],
            ),
        ]
    )


def test_with_everything_up_every_number_is_there(stack: Stack) -> None:
    totals, sources = stack.summary()
    assert totals["requests_count_total"] == 99
    assert totals["users_count"] == 99
    assert totals["services_count_active"] == len(platform.DEPLOYED)
    assert totals["cpu_hours_total"] == pytest.approx(1.0, rel=0.02)
    assert sources["request-logs"]["origin"] == "loki"
    # One service has GPUs, and nothing here measures them.
    assert [name for name, value in totals.items() if value is None] == ["gpu_hours_total"]
    row = next(
        item
        for item in stack.get(
            "/system/metrics/breakdown", group_by="service", include_usage="true"
        )["items"]
        if item["key"] == "cowsay"
    )
    assert row["cpu_hours"] == pytest.approx(1.0, rel=0.02)


def test_without_prometheus_hours_are_null_and_the_rest_stands(stack: Stack) -> None:
    stack.prometheus.stop()
    try:
        totals, sources = stack.summary()
        value = stack.get("/system/metrics/value", service_id="cowsay", metric="cpu-hours")
        zero = stack.get("/system/metrics")["totals"]
    finally:
        stack.prometheus.restart()
    assert (totals["cpu_hours_total"], totals["gpu_hours_total"]) == (None, None)
    assert totals["requests_count_total"] == 99
    assert sources["usage-metrics"]["status"] == "missing"
    assert sources["usage-metrics"]["affects"] == ["cpu_hours_total", "gpu_hours_total"]
    assert value["value"] is None
    assert zero["cpu_hours_total"] == 0
    hours = pytest.approx(1.0, rel=0.02)
    stack.wait_for("CPU-hours", lambda totals, _: totals["cpu_hours_total"] == hours)


def test_without_loki_the_pods_own_logs_stand_in(stack: Stack) -> None:
    stack.loki.stop()
    try:
        totals, sources = stack.summary()
        value = stack.get(
            "/system/metrics/value", service_id="cowsay", metric="requests-sync-per-service"
        )
    finally:
        stack.loki.restart()
    assert totals["requests_count_total"] == 99
    assert sources["request-logs"]["origin"] == "pod-logs"
    assert "read instead of loki" in sources["request-logs"]["notes"]
    # There is no gateway pod to read instead.
    assert totals["requests_count_exposed"] is None
    assert sources["exposed-request-logs"]["status"] == "missing"
    assert value["value"] == 99
    stack.wait_for("Loki", lambda _, sources: sources["request-logs"]["origin"] == "loki")


def test_without_kubernetes_only_the_inventory_is_missing(stack: Stack) -> None:
    stack.cluster.stop()
    try:
        totals, sources = stack.summary()
        owners = stack.client.get("/system/metrics/owners")
    finally:
        stack.cluster.restart()
    assert totals["services_count_active"] is None
    assert totals["requests_count_total"] == 99
    assert sources["service-inventory"]["status"] == "missing"
    assert (owners.status_code, owners.json()["error"]) == (503, "service inventory unavailable")
    assert "retry-after" in owners.headers
    deployed = len(platform.DEPLOYED)
    stack.wait_for("services", lambda totals, _: totals["services_count_active"] == deployed)


def test_with_everything_down_it_is_ready_and_says_so(stack: Stack) -> None:
    for upstream in (stack.loki, stack.prometheus, stack.cluster):
        upstream.stop()
    try:
        totals, sources = stack.summary()
        for _ in range(5):
            stack.summary()
        left_alone = stack.upstreams()
        ready = stack.client.get("/readyz")
        breakdown = stack.get("/system/metrics/breakdown", group_by="user")
        done = command_line(["check", "--json"], stack.settings, stack.directory)
    finally:
        for upstream in (stack.loki, stack.prometheus, stack.cluster):
            upstream.restart()
    assert {value for value in totals.values() if value not in ([], None)} == set()
    assert all(source["notes"] for source in sources.values())
    assert sources["request-logs"]["status"] == "missing"
    assert ready.status_code == 200
    assert ready.json()["sources"]["request-logs"]["status"] == "missing"
    assert breakdown["items"] == []
    assert left_alone.keys() == {"loki", "Prometheus", "kubernetes"}
    assert "closed" not in left_alone.values()
    assert done.returncode == 3, done.stderr
    problems = {f["source"] for f in json.loads(done.stdout) if f["level"] == "problem"}
    assert len(problems) >= 3
    wait_until(
        lambda: bool(stack.summary()) and set(stack.upstreams().values()) == {"closed"},
        "every upstream asked again",
        timeout_seconds=60,
    )
    assert stack.summary()[0]["requests_count_total"] == 99


def test_no_secret_was_said_anywhere(stack: Stack) -> None:
    done = command_line(["check"], stack.settings, stack.directory)
    said = (
        (stack.directory / "server.log").read_text()
        + done.stdout
        + done.stderr
        + stack.client.get("/metrics").text
        + stack.client.get("/readyz").text
        + stack.client.get("/system/metrics/owners").text
        + json.dumps(stack.summary())
    )
    for secret in (PLANTED_URL_PASSWORD, platform.PLANTED_TOKEN, stack.cluster.admin_token):
        assert secret not in said


def test_its_own_metrics_tell_what_happened(stack: Stack) -> None:
    text = stack.client.get("/metrics").text
    assert "oscar_metrics_upstream_calls_total" in text or "upstream_call_duration" in text
    assert 'oscar_metrics_upstream_breaker_openings_total{upstream="Prometheus"}' in text
    assert 'upstream="loki",' in text or 'upstream="loki"' in text
    assert 'source="usage-metrics",status="missing"' in text
    assert 'http_route="/system/metrics/summary"' in text
    assert 'oscar_metrics_log_lines_seen_total{origin="loki"}' in text
