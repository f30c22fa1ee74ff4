"""Pod logs through a real Kubernetes API, as the plain user that deploy/rbac.yaml makes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from oscar_metrics.facts import CallLog, LogStream, Roster
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Gap, GapReason, Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.kubernetes_client import KubernetesClient, KubernetesSettings
from oscar_metrics.sources.pod_logs import PodLogs, PodLogsSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span, format_instant, parse_instant
from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.kwok import cri_line

ROOT = Path(__file__).parents[2]
T_NS = parse_instant("2026-04-24T10:00:00Z")
NOW_NS = T_NS + 10 * HOUR_NS
SPAN = Span(T_NS, T_NS + HOUR_NS)
EXECUTIONS = frozenset({LogStream.EXECUTIONS})
EXPOSED = frozenset({LogStream.EXPOSED})
GATEWAY = {"app.kubernetes.io/name": "ingress-nginx"}
MINUTE_NS = 60 * SECOND_NS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    for name in ("etcd", "kube-apiserver", "kwok"):
        require(name)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as server:
        yield server


@pytest.fixture
def namespace(cluster: KubeCluster, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own, where the plain user may read logs by our manifest."""
    name: str = request.node.name.removeprefix("test_").replace("_", "-")[:63].strip("-")
    allow(cluster, name)
    return name


def allow(cluster: KubeCluster, namespace: str) -> None:
    """Apply what deploy/rbac.yaml says of logs, for another namespace and the tests' user."""
    for manifest in yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()):
        if manifest["kind"] == "ClusterRole":
            cluster.apply(manifest)
        if manifest["kind"] == "RoleBinding":
            user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "metrics"}
            manifest["subjects"] = [user]
            manifest["metadata"]["namespace"] = namespace
            cluster.apply(manifest)


@contextlib.asynccontextmanager
async def logs_of(
    cluster: KubeCluster, namespace: str, *, token: str = "", **settings: Any
) -> AsyncIterator[PodLogs]:
    kubeconfig = cluster.kubeconfig(token or cluster.user_token)
    client = KubernetesClient(
        KubernetesSettings(config=str(kubeconfig), attempts=1, timeout_seconds=10), Telemetry()
    )
    try:
        yield PodLogs(
            client,
            PodLogsSettings(namespace=namespace, exposed_namespace=namespace, **settings),
        )
    finally:
        await client.aclose()


async def read(
    cluster: KubeCluster,
    namespace: str,
    span: Span = SPAN,
    streams: frozenset[LogStream] = EXECUTIONS,
    **settings: Any,
) -> Outcome[CallLog]:
    async with logs_of(cluster, namespace, **settings) as logs:
        # The API hears of a new role a moment later.
        deadline = time.monotonic() + 10
        while True:
            outcomes = await logs.read(span, streams, nowhere(), now_ns=NOW_NS, deadline=None)
            (outcome,) = outcomes.values()
            if "does not let us" not in str(outcome) or time.monotonic() > deadline:
                return outcome
            await asyncio.sleep(0.05)


def nowhere() -> Countries:
    return Countries(GeoIP.open(None), Roster())


def execution(at_ns: int, service: str = "svc", **form: Any) -> str:
    return cri_line(at_ns, text_of(at_ns, service), **form)


def text_of(at_ns: int, service: str) -> str:
    time_text = format_instant(at_ns)
    return (
        f"[GIN-EXECUTIONS-LOGGER] {time_text} | 200 | 1ms | 10.0.0.1 | POST    /run/{service} | u"
    )


def request_line(at_ns: int, service: str) -> str:
    return cri_line(
        at_ns,
        f'172.18.0.1 - - [24/Apr/2026:10:00:00 +0000] "GET /system/services/{service}/exposed/ '
        f'HTTP/1.1" 200 17 "-" "curl/8.7.1" 109 0.003 [oscar-svc-{service}-svc-80] [] '
        "10.244.0.223:80 17 0.002 200 a72c",
        stream="stdout",
    )


def start(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // SECOND_NS, UTC)


def calls(outcome: Outcome[CallLog]) -> dict[str, int]:
    assert isinstance(outcome, Ok | Partial), outcome
    counts: dict[str, int] = {}
    for key, count in outcome.facts.tallies.items():
        counts[key.service] = counts.get(key.service, 0) + count
    return counts


def manager(
    cluster: KubeCluster, namespace: str, lines: list[str], name: str = "oscar-0", **more: Any
) -> None:
    more.setdefault("started_at", start(T_NS - HOUR_NS))
    cluster.add_pod(namespace, name, {"app": "oscar"}, ["oscar"], {"oscar": lines}, **more)


async def test_lines_are_kept_to_the_span_to_the_nanosecond(
    cluster: KubeCluster, namespace: str
) -> None:
    manager(
        cluster,
        namespace,
        [
            execution(T_NS - MINUTE_NS),
            execution(T_NS + 5, "same-second-before"),
            execution(T_NS + 6, "first"),
            execution(T_NS + SECOND_NS, "last"),
            execution(T_NS + SECOND_NS + 1, "after"),
        ],
    )

    outcome = await read(cluster, namespace, Span(T_NS + 6, T_NS + SECOND_NS + 1))

    assert isinstance(outcome, Ok), outcome
    assert calls(outcome) == {"first": 1, "last": 1}


async def test_two_halves_add_up_to_the_whole(cluster: KubeCluster, namespace: str) -> None:
    instants = [T_NS + n * 7 * SECOND_NS + n for n in range(500)]
    manager(cluster, namespace, [execution(T_NS - MINUTE_NS), *map(execution, instants)])
    cut_ns = instants[250]

    whole = calls(await read(cluster, namespace))["svc"]
    first = calls(await read(cluster, namespace, Span(SPAN.start_ns, cut_ns)))["svc"]
    second = calls(await read(cluster, namespace, Span(cut_ns, SPAN.stop_ns)))["svc"]

    assert first == 250
    assert first + second == whole == 500


async def test_long_lines_in_parts_count_once_and_copies_of_a_line_too(
    cluster: KubeCluster, namespace: str
) -> None:
    text = text_of(T_NS + SECOND_NS, "in-parts" + "?" + "q" * 20_000)
    parts = [text[:16_000], text[16_000:]]
    twice = execution(T_NS + 2 * SECOND_NS, "twice")
    manager(
        cluster,
        namespace,
        [
            execution(T_NS - MINUTE_NS),
            cri_line(T_NS + SECOND_NS, parts[0], partial=True),
            cri_line(T_NS + SECOND_NS + 9, parts[1]),
            twice,
            twice,
            execution(T_NS + 2 * SECOND_NS + 1, "twice"),
        ],
    )

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Ok), outcome
    assert calls(outcome) == {"in-parts": 1, "twice": 2}


async def test_a_line_begun_before_the_span_is_not_counted_in_it(
    cluster: KubeCluster, namespace: str
) -> None:
    text = text_of(T_NS - 1, "begun-before")
    manager(
        cluster,
        namespace,
        [
            execution(T_NS - MINUTE_NS),
            cri_line(T_NS - 1, text[:30], partial=True),
            cri_line(T_NS + 1, text[30:]),
            execution(T_NS + 2),
        ],
    )

    assert calls(await read(cluster, namespace)) == {"svc": 1}
    assert calls(await read(cluster, namespace, Span(T_NS - MINUTE_NS - 1, T_NS + 2))) == {
        "begun-before": 1,
        "svc": 1,
    }


async def test_the_run_before_is_read_too_and_the_pause_is_no_gap(
    cluster: KubeCluster, namespace: str
) -> None:
    restart_ns = T_NS + 30 * MINUTE_NS
    manager(
        cluster,
        namespace,
        [execution(restart_ns + SECOND_NS, "now")],
        previous_log_lines={
            "oscar": [
                execution(T_NS - MINUTE_NS, "outside"),
                execution(T_NS + MINUTE_NS, "before"),
                execution(T_NS + 29 * MINUTE_NS, "before"),
            ]
        },
        started_at=start(restart_ns),
    )

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Ok), outcome
    assert calls(outcome) == {"before": 2, "now": 1}


async def test_what_was_rotated_away_is_a_gap(cluster: KubeCluster, namespace: str) -> None:
    oldest_ns = T_NS + 20 * MINUTE_NS
    manager(cluster, namespace, [execution(oldest_ns), execution(oldest_ns + SECOND_NS)])

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Partial)
    assert calls(outcome) == {"svc": 2}
    assert outcome.gaps == (Gap(span=Span(T_NS, oldest_ns), reason=GapReason.ROTATED),)
    assert outcome.notes[0] == (
        "0.3333 h of the range: rotated away, or before the container started"
    )


async def test_before_the_oldest_pod_started_is_a_gap(cluster: KubeCluster, namespace: str) -> None:
    started_ns = T_NS + 20 * MINUTE_NS
    manager(
        cluster,
        namespace,
        [execution(started_ns + SECOND_NS)],
        started_at=start(started_ns),
    )

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Partial)
    assert outcome.gaps == (Gap(span=Span(T_NS, started_ns), reason=GapReason.ROTATED),)


async def test_a_span_before_every_pod_is_unavailable(cluster: KubeCluster, namespace: str) -> None:
    manager(cluster, namespace, [execution(T_NS)], started_at=start(T_NS))

    outcome = await read(cluster, namespace, Span(T_NS - 2 * HOUR_NS, T_NS - HOUR_NS))

    assert isinstance(outcome, Unavailable)
    assert GapReason.ROTATED in outcome.notes[0]


async def test_all_replicas_are_added_up_and_each_must_cover(
    cluster: KubeCluster, namespace: str
) -> None:
    rotated_ns = T_NS + 10 * MINUTE_NS
    manager(cluster, namespace, [execution(T_NS - MINUTE_NS), execution(T_NS + SECOND_NS)])
    manager(
        cluster, namespace, [execution(rotated_ns), execution(rotated_ns + SECOND_NS)], "oscar-1"
    )
    # A replica that was added later takes nothing away.
    manager(
        cluster,
        namespace,
        [execution(T_NS + 31 * MINUTE_NS, "late")],
        "oscar-2",
        started_at=start(T_NS + 30 * MINUTE_NS),
        # It is silent for a minute, which is longer than a start takes.
    )

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Partial)
    assert calls(outcome) == {"svc": 3, "late": 1}
    assert outcome.gaps == (
        Gap(span=Span(T_NS, rotated_ns), reason=GapReason.ROTATED),
        Gap(
            span=Span(T_NS + 30 * MINUTE_NS, T_NS + 31 * MINUTE_NS),
            reason=GapReason.ROTATED,
        ),
    )


async def test_a_silent_container_that_runs_is_evidence_of_no_calls(
    cluster: KubeCluster, namespace: str
) -> None:
    manager(cluster, namespace, [])

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Ok), outcome
    assert calls(outcome) == {}


async def test_requests_to_exposed_services_come_from_the_gateways_pods(
    cluster: KubeCluster, namespace: str
) -> None:
    lines = [request_line(T_NS - 1, "cow"), *(request_line(T_NS + n, "cow") for n in range(3))]
    cluster.add_pod(
        namespace,
        "gateway",
        GATEWAY,
        ["controller", "sidecar"],
        {"controller": lines, "sidecar": []},
        started_at=start(T_NS - HOUR_NS),
    )

    outcome = await read(cluster, namespace, streams=EXPOSED)

    assert isinstance(outcome, Ok), outcome
    assert calls(outcome) == {"cow": 3}
    async with logs_of(cluster, namespace) as logs:
        both = await logs.read(SPAN, EXECUTIONS | EXPOSED, nowhere(), now_ns=NOW_NS, deadline=None)
    assert both[LogStream.EXPOSED] == outcome
    assert both[LogStream.EXECUTIONS] == Unavailable(
        origin="pod-logs", notes=(f"pods app=oscar in namespace {namespace}: there are none",)
    )


async def test_without_the_right_to_read_logs_nothing_is_said(
    cluster: KubeCluster, namespace: str
) -> None:
    other = f"not-{namespace}"[:63]
    manager(cluster, other, [execution(T_NS)])

    async with logs_of(cluster, other) as logs:
        outcomes = await logs.read(SPAN, EXECUTIONS, nowhere(), now_ns=NOW_NS, deadline=None)
        findings = await logs.check(NOW_NS)

    outcome = outcomes[LogStream.EXECUTIONS]
    assert isinstance(outcome, Unavailable)
    assert "does not let us read this" in outcome.notes[0]
    assert {finding.level for finding in findings} == {Level.PROBLEM}
    assert all("deploy/rbac.yaml" in finding.change for finding in findings)


async def test_more_than_a_report_reads_is_a_gap(cluster: KubeCluster, namespace: str) -> None:
    lines = [
        execution(T_NS - MINUTE_NS),
        *(execution(T_NS + n * SECOND_NS, "x" * 200) for n in range(3000)),
    ]
    # Some 900 kB of lines and as much again beside them.
    manager(cluster, namespace, lines)
    manager(cluster, namespace, lines, "oscar-1")

    outcome = await read(cluster, namespace, report_bytes=2**20)

    assert isinstance(outcome, Partial)
    assert {gap.reason for gap in outcome.gaps} == {GapReason.TOO_MUCH}
    assert outcome.gaps[-1].span.stop_ns == SPAN.stop_ns
    assert isinstance(await read(cluster, namespace), Ok)


async def test_a_deadline_that_has_come_is_said(cluster: KubeCluster, namespace: str) -> None:
    manager(cluster, namespace, [execution(T_NS)])

    async with logs_of(cluster, namespace) as logs:
        outcomes = await logs.read(
            SPAN,
            EXECUTIONS,
            nowhere(),
            now_ns=NOW_NS,
            deadline=asyncio.get_running_loop().time() - 1,
        )

    outcome = outcomes[LogStream.EXECUTIONS]
    assert isinstance(outcome, Unavailable)
    assert "deadline" in outcome.notes[0]


async def test_a_kubelet_without_the_log_leaves_a_gap_and_the_other_pods(
    cluster: KubeCluster, namespace: str
) -> None:
    manager(cluster, namespace, [execution(T_NS - MINUTE_NS), execution(T_NS)])
    manager(cluster, namespace, [], "oscar-1")
    cluster._log_path(namespace, "oscar-1", "oscar").unlink()

    outcome = await read(cluster, namespace)

    assert isinstance(outcome, Partial)
    assert calls(outcome) == {"svc": 1}
    assert [gap.span for gap in outcome.gaps] == [SPAN]


async def test_check_tells_how_far_back_the_logs_reach(
    cluster: KubeCluster, namespace: str
) -> None:
    manager(cluster, namespace, [execution(T_NS)])
    cluster.add_pod(
        namespace,
        "gateway",
        GATEWAY,
        ["controller"],
        {"controller": [request_line(T_NS - HOUR_NS, "cow")]},
        started_at=start(T_NS - HOUR_NS),
    )
    await read(cluster, namespace)

    async with logs_of(cluster, namespace) as logs:
        findings = await logs.check(NOW_NS)

    assert [finding.says.partition(": ")[2] for finding in findings] == [
        "1 containers, logs complete since 2026-04-24T10:00:00Z",
        "1 containers, logs complete since 2026-04-24T09:00:00Z",
    ]
    assert {finding.level for finding in findings} == {Level.OK}
