from __future__ import annotations

import functools
import math
import ssl
import struct
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import kubernetes
import pytest

from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.kwok import cri_line
from tests.servers.loki import Loki
from tests.servers.process import ServerError
from tests.servers.prometheus import STALE, Prometheus

HOUR_NS = 3600 * 10**9


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("loki")
    with Loki.start(tmp_path_factory.mktemp("loki")) as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus"), retention="30d") as server:
        yield server


def test_loki_shows_every_line_of_a_past_month_once_flushed(loki: Loki) -> None:
    start_ns = (time.time_ns() // HOUR_NS - 90 * 24) * HOUR_NS
    spread = [(start_ns + n * 10**8, f"spread {n}") for n in range(6_000)]
    together = [(start_ns + 7 * 10**9, f"together {n}") for n in range(6_000)]
    other = [(start_ns + n * 10**6, "x" * 400) for n in range(20_000)]
    loki.push([({"app": "old"}, together + spread), ({"app": "other"}, other)])

    loki.flush_and_wait('{app="old"}', start_ns, start_ns + HOUR_NS, 12_000)

    assert loki.count('{app="old"} |= "together"', start_ns, start_ns + HOUR_NS) == 6_000
    assert loki.count('{app="other"}', start_ns, start_ns + HOUR_NS) == 20_000
    # [start, end): the line at the end's own instant is not in it, the one at the start's is.
    assert loki.count('{app="old"} |= "spread"', start_ns, start_ns + 10**9) == 10


def test_loki_says_which_lines_are_missing_instead_of_waiting_for_ever(loki: Loki) -> None:
    start_ns = (time.time_ns() // HOUR_NS - 2) * HOUR_NS
    loki.push([({"app": "few"}, [(start_ns, "one")])])

    with pytest.raises(ServerError, match=r"1 of 2 lines of \{app=\"few\"\}"):
        loki.flush_and_wait(
            '{app="few"}', start_ns, start_ns + HOUR_NS, expected=2, timeout_seconds=1
        )


def test_loki_has_its_default_query_limits(loki: Loki) -> None:
    answer = httpx.get(
        f"{loki.url}/loki/api/v1/drilldown-limits", headers={"X-Scope-OrgID": "fake"}
    ).json()

    limits = answer["limits"]
    assert limits["max_entries_limit_per_query"] == 5_000
    assert limits["max_query_series"] == 500
    assert limits["max_query_length"] == "30d1h"


def test_loki_refuses_connections_while_stopped_and_comes_back_with_its_lines(
    tmp_path: Path,
) -> None:
    require("loki")
    limits = {"max_entries_limit_per_query": 7, "retention_period": "30d"}
    start_ns = (time.time_ns() // HOUR_NS - 1) * HOUR_NS
    with Loki.start(tmp_path, limits=limits) as loki:
        loki.push([({"app": "kept"}, [(start_ns, "a line")])])
        loki.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(loki.url)
        loki.restart()

        assert loki.count('{app="kept"}', start_ns, start_ns + HOUR_NS) == 1
        told = httpx.get(
            f"{loki.url}/loki/api/v1/drilldown-limits", headers={"X-Scope-OrgID": "fake"}
        ).json()["limits"]
        assert told["max_entries_limit_per_query"] == 7
        assert told["retention_period"] == "30d"


def test_prometheus_takes_a_counter_of_three_days_ago(prometheus: Prometheus) -> None:
    start_ms = (int(time.time()) // 3600 - 72) * 3_600_000
    # More series and samples than one request takes: 200 series of an hour at 15 s, then the end.
    prometheus.remote_write(
        (
            {"__name__": "jobs_total", "job": f"job-{n}"},
            [
                *((start_ms + 15_000 * k, 2.0 * k) for k in range(241)),
                (start_ms + 15_000 * 241, STALE),
            ],
        )
        for n in range(200)
    )
    end_seconds = start_ms / 1000 + 3600

    (increase,) = prometheus.query("sum(increase(jobs_total[1h]))", time_seconds=end_seconds)
    (series,) = prometheus.query("count(jobs_total)", time_seconds=end_seconds)

    assert float(increase["value"][1]) == pytest.approx(200 * 480, rel=0.01)
    assert series["value"][1] == "200"
    assert prometheus.query("jobs_total", time_seconds=end_seconds + 15) == []


def test_prometheus_tells_its_lowest_timestamp_and_retention(prometheus: Prometheus) -> None:
    (lowest,) = prometheus.query("prometheus_tsdb_lowest_timestamp_seconds")
    runtime = httpx.get(f"{prometheus.url}/api/v1/status/runtimeinfo").json()["data"]

    assert float(lowest["value"][1]) <= time.time()
    assert runtime["storageRetention"] == "30d"


def test_prometheus_scrapes_what_it_is_told_and_keeps_it_over_a_restart(tmp_path: Path) -> None:
    require("prometheus")
    unreachable = {
        "job_name": "nobody",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": ["127.0.0.1:1"]}],
    }
    start_ms = (int(time.time()) - 3_600) * 1_000
    with Prometheus.start(
        tmp_path, scrape_configs=[unreachable], flags=["--query.max-samples=50"]
    ) as prometheus:
        prometheus.remote_write([({"__name__": "kept"}, [(start_ms, -1.5)])])
        prometheus.stop()
        with pytest.raises(httpx.ConnectError):
            httpx.get(prometheus.url)
        prometheus.restart()

        (kept,) = prometheus.query("kept", time_seconds=start_ms / 1000)
        assert kept["value"][1] == "-1.5"
        deadline = time.monotonic() + 10
        while not (up := prometheus.query('up{job="nobody"}')) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [sample["value"][1] for sample in up] == ["0"]
        with pytest.raises(ServerError, match="too many samples"):
            prometheus.query('{__name__=~".+"}')


def test_a_stale_marker_keeps_its_bits() -> None:
    assert math.isnan(STALE)
    assert struct.pack("<d", STALE) == bytes.fromhex("020000000000f07f")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    for name in ("etcd", "kube-apiserver", "kwok"):
        require(name)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as server:
        yield server


def get(
    cluster: KubeCluster, path: str, token: str | None = None, **parameters: str
) -> httpx.Response:
    return httpx.get(
        f"{cluster.url}{path}",
        params=parameters,
        headers={"Authorization": f"Bearer {token or cluster.admin_token}"},
        verify=ssl.create_default_context(cafile=str(cluster.ca_file)),
    )


def config_map(name: str, value: str) -> dict[str, Any]:
    labels = {"oscar_service": name}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "oscar-svc", "name": name, "labels": labels},
        "data": {"function_config.yaml": value},
    }


def test_an_object_applied_twice_is_what_the_second_manifest_says(cluster: KubeCluster) -> None:
    created = cluster.apply(config_map("plants", "name: plants"))
    updated = cluster.apply(config_map("plants", "name: flowers"))

    (listed,) = get(cluster, "/api/v1/configmaps", labelSelector="oscar_service=plants").json()[
        "items"
    ]
    assert listed["data"] == {"function_config.yaml": "name: flowers"}
    assert listed["metadata"]["uid"] == created["metadata"]["uid"] == updated["metadata"]["uid"]


def test_applying_into_a_namespace_leaves_its_owner_alone(cluster: KubeCluster) -> None:
    owner = {"oscar.grycap.upv.es/owner": "somebody"}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "oscar-svc-somebody", "annotations": owner},
        }
    )
    manifest = config_map("theirs", "name: theirs")
    manifest["metadata"]["namespace"] = "oscar-svc-somebody"
    cluster.apply(manifest)

    namespace = get(cluster, "/api/v1/namespaces/oscar-svc-somebody").json()
    assert namespace["metadata"]["annotations"] == owner


def test_a_refused_or_unknown_object_is_an_error(cluster: KubeCluster) -> None:
    with pytest.raises(ServerError, match="422"):
        cluster.apply(config_map("Not-A-Name", ""))
    with pytest.raises(ServerError, match="no Gadget in v1"):
        cluster.apply({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "one"}})


def test_the_plain_user_may_do_what_a_role_allows_and_no_more(cluster: KubeCluster) -> None:
    assert get(cluster, "/api/v1/configmaps", cluster.user_token).status_code == 403
    rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}
    group = "rbac.authorization.k8s.io"
    cluster.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": "reader"},
            "rules": [rule],
        }
    )
    cluster.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "metrics"}],
        }
    )

    deadline = time.monotonic() + 10  # the authorizer hears of it a moment later
    while (status := get(cluster, "/api/v1/configmaps", cluster.user_token).status_code) == 403:
        assert time.monotonic() < deadline
    assert status == 200
    assert get(cluster, "/api/v1/pods", cluster.user_token).status_code == 403


def test_the_kubernetes_client_takes_the_kubeconfig(cluster: KubeCluster) -> None:
    cluster.add_node("node-2")

    loaded = kubernetes.config.new_client_from_config(  # type: ignore[no-untyped-call]
        str(cluster.kubeconfig(cluster.admin_token))
    )
    with loaded:
        nodes = kubernetes.client.CoreV1Api(loaded).list_node().to_dict()["items"]
    assert {node["metadata"]["name"] for node in nodes} == {"node-1", "node-2"}


def test_a_pods_log_is_read_through_the_apiserver(cluster: KubeCluster) -> None:
    start_ns = 1_777_000_000 * 10**9
    lines = [
        cri_line(start_ns, "first"),
        cri_line(start_ns + 10**9 + 5, "second, ", partial=True),
        cri_line(start_ns + 10**9 + 6, "in two parts"),
        cri_line(start_ns + 2 * 10**9, "third"),
    ]
    before = [cri_line(start_ns - 60 * 10**9, "before the restart")]
    started_at = datetime.fromtimestamp(start_ns // 10**9, UTC)
    labels = {"app": "oscar"}
    cluster.add_pod(
        "oscar",
        "oscar-0",
        labels,
        ["oscar", "sidecar"],
        {"oscar": lines},
        previous_log_lines={"oscar": before},
        started_at=started_at,
    )

    path = "/api/v1/namespaces/oscar/pods/oscar-0"
    log = functools.partial(get, cluster, f"{path}/log", container="oscar", timestamps="true")
    assert log().text.splitlines() == [
        "2026-04-24T03:06:40.000000000Z first",
        "2026-04-24T03:06:41.000000005Z second, in two parts",
        "2026-04-24T03:06:42.000000000Z third",
    ]
    assert log(sinceTime="2026-04-24T03:06:42Z").text == "2026-04-24T03:06:42.000000000Z third\n"
    assert log(previous="true").text == "2026-04-24T03:05:40.000000000Z before the restart\n"
    assert get(cluster, f"{path}/log", container="sidecar").text == ""
    pod = get(cluster, path).json()
    status = {status["name"]: status for status in pod["status"]["containerStatuses"]}
    assert status["oscar"]["restartCount"] == 1
    assert status["oscar"]["state"]["running"]["startedAt"] == "2026-04-24T03:06:40Z"
    assert status["oscar"]["lastState"]["terminated"]["finishedAt"] == "2026-04-24T03:05:40Z"
    assert status["sidecar"]["restartCount"] == 0

    cluster.set_pod_log("oscar", "oscar-0", "oscar", lines[:1])

    assert log().text == "2026-04-24T03:06:40.000000000Z first\n"


def test_a_line_that_no_runtime_writes_is_refused(cluster: KubeCluster) -> None:
    with pytest.raises(ValueError, match="not a line that a container runtime writes"):
        cluster.add_pod("oscar", "wrong", {}, ["oscar"], {"oscar": ["no timestamp"]})


def test_the_apiserver_comes_back_with_its_objects_and_its_kubelets(cluster: KubeCluster) -> None:
    cluster.apply(config_map("kept", "name: kept"))
    cluster.stop()
    with pytest.raises(httpx.ConnectError):
        get(cluster, "/version")
    cluster.restart()

    path = "/api/v1/namespaces/oscar-svc/configmaps/kept"
    assert get(cluster, path).json()["data"] == {"function_config.yaml": "name: kept"}
    cluster.add_pod("oscar", "later", {}, ["oscar"], {"oscar": [cri_line(0, "hello")]})
    assert get(cluster, "/api/v1/namespaces/oscar/pods/later/log").text == "hello\n"
