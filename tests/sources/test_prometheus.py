"""Usage as a whole on a real Prometheus: GPUs, own queries, failures, what is missing."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from oscar_metrics.facts import Inventory, ServiceKey, Usage
from oscar_metrics.findings import Level
from oscar_metrics.outcome import GapReason, Measure, Ok, Outcome, Unavailable
from oscar_metrics.sources.prometheus import PrometheusSettings, PrometheusUsage
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.sources.upstream_credentials import CredentialSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, SECOND_NS, Span
from tests.servers.build import require
from tests.servers.process import wait_until
from tests.servers.prometheus import Prometheus, Series
from tests.sources.cadvisor import Container, cadvisor, with_service
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.usage_scene import HOUR, Scene, cpu, noted, only, without

DOWN = Unavailable(origin="kubernetes", notes=("down",))


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture(scope="module")
def with_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Another server: kube-state-metrics is noticed by every report that could have used it."""
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def scene(prometheus: Prometheus) -> Scene:
    made = Scene(prometheus)
    made.write([made.pod("cowsay-dpl-5d9c7b6f4-x2x2x", -1800, 5 * HOUR)])
    return made


def gpu(outcome: Outcome[Usage]) -> dict[ServiceKey, float] | None:
    assert not isinstance(outcome, Unavailable), outcome.notes
    return outcome.facts.gpu_seconds


# --- GPUs -----------------------------------------------------------------------------------


def state_metrics(
    scene: Scene, pod: str, *, gpus: int, start: float, ran: float, listed: float
) -> list[Series]:
    """What kube-state-metrics shows of a pod every 30 s; it stays listed when it has finished."""
    common = {"namespace": scene.namespace, "pod": pod, "job": "kube-state-metrics"}
    times = [scene.start + 11 + n * 30 for n in range(720)]
    listed_at = [t for t in times if start <= t - scene.start < start + listed]
    running = [(t, float(t - scene.start < start + ran)) for t in listed_at]
    return [
        (
            {**common, "__name__": "kube_pod_container_resource_requests", "container": "main"}
            | {"resource": "nvidia_com_gpu", "unit": "integer"},
            [(round(t * 1000), float(gpus)) for t in listed_at],
        ),
        (
            {**common, "__name__": "kube_pod_status_phase", "phase": "Running"},
            [(round(t * 1000), value) for t, value in running],
        ),
        (
            {"__name__": "up", "job": "kube-state-metrics", "instance": "ksm"},
            [(round(t * 1000), 1.0) for t in times],
        ),
    ]


async def test_gpu_time_is_gpus_held_by_running_pods_and_adds_up(with_gpus: Prometheus) -> None:
    scene = Scene(with_gpus)
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x")])
    job = scene.jobs("demo", 1, 1)[0].pod
    rows = state_metrics(scene, job, gpus=2, start=600, ran=HOUR, listed=4 * HOUR)
    rows += state_metrics(
        scene, "cowsay-dpl-5d9c7b6f4-x2x2x", gpus=1, start=0, ran=5 * HOUR, listed=5 * HOUR
    )
    scene.server.remote_write(rows)

    whole = await scene.read()
    edges = [0, 1234.5, 1800, 3600, 3600.0001, 6 * HOUR]
    parts = [await scene.read(*cut) for cut in itertools.pairwise(edges)]

    assert isinstance(whole, Ok), whole.notes
    demo, cowsay = (ServiceKey(scene.namespace, name) for name in ("demo", "cowsay"))
    assert gpu(whole) == pytest.approx({demo: 2 * HOUR, cowsay: 5 * HOUR}, rel=0.02)
    for key in (demo, cowsay):
        added = sum((gpu(part) or {}).get(key, 0.0) for part in parts)
        assert added == pytest.approx((gpu(whole) or {})[key], rel=1e-9)


async def test_no_gpu_is_zero_only_where_no_service_may_use_one(scene: Scene) -> None:
    without_gpu = await scene.read()
    with_gpu = only(await scene.read(inventory=scene.deployed("cowsay", gpu=True)))
    unknown = only(await scene.read(inventory=DOWN))

    assert isinstance(without_gpu, Ok), without_gpu.notes
    assert gpu(without_gpu) == {}
    # Without the inventory it is not sure either whose the CPU time is.
    for outcome, in_doubt in ((with_gpu, {Measure.GPU}), (unknown, set[Measure]())):
        assert gpu(outcome) is None
        assert outcome.measures == in_doubt
        assert noted(outcome, "nothing in Prometheus measures GPUs")
        assert cpu(outcome) > 0


async def test_the_counter_of_oscars_own_query_is_used_where_somebody_exports_it(
    tmp_path: Path,
) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        scene = Scene(server)
        scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x")])
        labels = {"namespace": scene.namespace, "service": "cowsay-dpl"}
        points = [(round((scene.start + n * 30) * 1000), n * 15.0) for n in range(240)]
        server.remote_write([({"__name__": "container_gpu_usage_seconds_total", **labels}, points)])
        outcome = only(await scene.read(HOUR / 2, HOUR))
    assert gpu(outcome) == pytest.approx({ServiceKey(scene.namespace, "cowsay"): 900}, rel=0.02)
    assert outcome.measures == {Measure.GPU}
    assert noted(outcome, "container_gpu_usage_seconds_total")


# --- An operator's own queries --------------------------------------------------------------

OWN = (
    'sum(increase(container_cpu_usage_seconds_total{namespace="{{namespace}}",container="",'
    'service=~"{{ service }}(-.*)?"}[{{range}}])) / 3600'
)


async def test_an_own_query_is_asked_for_each_service(scene: Scene) -> None:
    outcome = await scene.read(
        HOUR, 2 * HOUR, inventory=scene.deployed("cowsay", "other"), cpu_query=OWN
    )

    assert isinstance(outcome, Ok), outcome.notes
    assert outcome.facts.cpu_seconds == pytest.approx(
        {ServiceKey(scene.namespace, "cowsay"): HOUR}, rel=0.02
    )


async def test_an_own_query_that_cannot_tell_namespaces_apart_counts_a_name_once(
    scene: Scene,
) -> None:
    own = OWN.replace("{{namespace}}", scene.namespace)
    here = scene.deployed("cowsay").facts.services
    there = scene.deployed("cowsay", namespace="elsewhere").facts.services
    inventory = Ok(facts=Inventory(services=here + there), origin="kubernetes")

    outcome = await scene.read(HOUR, 2 * HOUR, inventory, cpu_query=own)

    assert not isinstance(outcome, Unavailable)
    assert outcome.facts.cpu_seconds == pytest.approx({ServiceKey("", "cowsay"): HOUR}, rel=0.02)


async def test_an_own_query_without_data_for_any_service_is_missing(scene: Scene) -> None:
    own = 'sum(my_gpus{service="{{service}}"})'

    outcome = only(await scene.read(gpu_query=own))

    assert gpu(outcome) is None
    assert outcome.measures == {Measure.GPU}
    assert noted(outcome, "GPU query has no data for any service")


async def test_an_own_query_needs_the_inventory(scene: Scene) -> None:
    outcome = await scene.read(inventory=DOWN, cpu_query=OWN)

    assert isinstance(outcome, Unavailable)
    assert noted(outcome, "CPU query is asked for each service")


async def test_an_own_query_that_is_refused_is_missing_and_said(scene: Scene) -> None:
    outcome = await scene.read(cpu_query="sum(nonsense{{{service}}")

    assert isinstance(outcome, Unavailable)
    assert noted(outcome, "Prometheus refused the question")


# --- What is missing ------------------------------------------------------------------------


async def test_what_is_older_than_prometheus_keeps_is_a_gap(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path, retention="2d") as server:
        scene = Scene(server)
        scene.start = (time.time() // HOUR - 24) * HOUR
        scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", -3000, 5 * HOUR)])
        outcome = only(await scene.read(-60 * HOUR, 3 * HOUR))
        long_ago = await scene.read(-90 * HOUR, -80 * HOUR)
    assert [gap.reason for gap in outcome.gaps] == [GapReason.RETENTION, GapReason.NOT_SCRAPED]
    assert outcome.gaps[0].span.start_ns == scene.ns(-60 * HOUR)
    assert outcome.gaps[1].span.stop_ns == pytest.approx(scene.ns(-HOUR), abs=600 * SECOND_NS)
    assert isinstance(long_ago, Unavailable)
    assert noted(long_ago, "older than the source keeps")


async def test_what_is_older_than_the_setting_is_not_asked_for(scene: Scene) -> None:
    age_days = (time.time() - scene.start) / 86_400
    outcome = await scene.read(-30 * 24 * HOUR, HOUR, look_back_days=math.ceil(age_days))

    early = only(outcome).gaps[0]
    assert early.reason is GapReason.RETENTION
    assert early.span.start_ns == scene.ns(-30 * 24 * HOUR)


async def test_a_prometheus_without_cadvisor_is_no_source_of_usage(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        outcome = await Scene(server).read()
    assert isinstance(outcome, Unavailable)
    assert noted(outcome, "no container_cpu_usage_seconds_total")


async def test_the_future_and_nothing_at_all_are_not_missing(scene: Scene) -> None:
    ahead = time.time() - scene.start + HOUR
    assert gpu(await scene.read(ahead, ahead + HOUR)) == {}
    assert cpu(await scene.read(HOUR, HOUR)) == 0.0


async def test_a_name_that_is_no_name_reaches_no_query(scene: Scene) -> None:
    asked: list[str] = []

    def watch(request: Request) -> Reply | None:
        asked.append(request.parameters.get("query", ""))
        return None

    async with interposed(scene.server.url, watch) as url:
        inventory = scene.deployed("cowsay", '"}) or vector(1) #')
        outcome = await scene.read(inventory=inventory, cpu_query=OWN, url=url)
    assert cpu(outcome) > 0
    assert not any("vector(1)" in query for query in asked)


# --- Failures -------------------------------------------------------------------------------


async def test_a_stopped_prometheus_is_unavailable(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        scene = Scene(server)
        server.stop()
        outcome = await scene.read(limits=UpstreamLimits(attempts=1))
    assert isinstance(outcome, Unavailable)
    assert outcome.notes == ("Prometheus could not be reached",)


@pytest.mark.parametrize(
    ("reply", "note"),
    [
        (Reply(body=b"<html>Sign in</html>"), "not its API"),
        (Reply(body=b'{"status":"success","data":{"resultType":"vector","res'), "not its API"),
        (Reply(body=b'{"status":"success","data":[]}', length=99), "could not be reached"),
        (Reply(status=401), "refused our credentials"),
        (Reply(status=302, body=b"elsewhere"), "not its API"),
        (Reply(status=500, body=b"<html>"), "Prometheus failed"),
    ],
)
async def test_an_answer_that_is_no_use_is_unavailable(
    prometheus: Prometheus, reply: Reply, note: str
) -> None:
    async with interposed(prometheus.url, lambda _: reply) as url:
        outcome = await Scene(prometheus).read(url=url, limits=UpstreamLimits(attempts=1))
    assert isinstance(outcome, Unavailable)
    assert noted(outcome, note)


async def test_a_prometheus_that_hangs_is_unavailable_at_the_deadline(
    prometheus: Prometheus,
) -> None:
    async with interposed(prometheus.url, lambda _: HANG) as url:
        deadline = asyncio.get_running_loop().time() + 0.3
        outcome = await Scene(prometheus).read(url=url, deadline=deadline)
    assert isinstance(outcome, Unavailable)
    assert noted(outcome, "deadline")


async def test_windows_that_are_not_finished_at_the_deadline_are_gaps(scene: Scene) -> None:
    def hang_late(request: Request) -> Reply | None:
        late = float(request.parameters.get("end", 0)) > scene.start + 4 * HOUR
        return HANG if late and "sum by" in request.parameters.get("query", "") else None

    async with interposed(scene.server.url, hang_late) as url:
        deadline = asyncio.get_running_loop().time() + 4
        outcome = only(
            await scene.read(0, 5 * HOUR, url=url, deadline=deadline, window_seconds=3600)
        )
    assert [gap.reason for gap in outcome.gaps] == [GapReason.DEADLINE]
    assert outcome.gaps[0].span == Span(scene.ns(4 * HOUR), scene.ns(5 * HOUR))
    assert cpu(outcome) == pytest.approx(4 * HOUR, rel=0.01)


async def test_a_window_that_times_out_is_asked_in_halves(scene: Scene) -> None:
    slow = Reply(status=503, body=b'{"status":"error","errorType":"timeout","error":"query timed"}')
    refused = []

    def too_slow(request: Request) -> Reply | None:
        query = request.parameters.get("query", "")
        asked = [float(request.parameters.get(name, 0)) for name in ("start", "end")]
        if "sum by" in query and asked[1] - asked[0] > 3 * HOUR:
            refused.append(query)
            return slow
        return None

    async with interposed(scene.server.url, too_slow) as url:
        outcome = await scene.read(url=url)
    assert isinstance(outcome, Ok), outcome.notes
    assert cpu(outcome) == pytest.approx(cpu(await scene.read()), rel=1e-9)
    assert refused


@pytest.mark.parametrize(
    "beside", ['"warnings":["a store is down"]', '"isPartial":true,"trace":{}']
)
async def test_what_the_server_doubts_is_doubted(scene: Scene, beside: str) -> None:
    def doubtful(request: Request) -> Reply | None:
        kind = "matrix" if request.path.endswith("query_range") else "vector"
        empty = f'{{"status":"success",{beside},"data":{{"resultType":"{kind}","result":[]}}}}'
        asked = "count_over_time" in request.parameters.get("query", "")
        return Reply(body=empty.encode()) if asked else None

    async with interposed(scene.server.url, doubtful) as url:
        outcome = only(await scene.read(url=url))
    assert noted(outcome, "may be incomplete")
    assert not outcome.measures


async def test_credentials_are_sent_and_never_shown(prometheus: Prometheus) -> None:
    seen: list[Request] = []

    def watch(request: Request) -> Reply | None:
        seen.append(request)
        return None

    token = CredentialSettings(token="s3cret")
    async with interposed(prometheus.url, watch) as url:
        await Scene(prometheus).read(url=url, credentials=token, tenant="t1")
    assert all(request.headers["authorization"] == "Bearer s3cret" for request in seen)
    assert all(request.headers["x-scope-orgid"] == "t1" for request in seen)
    settings = PrometheusSettings(url="http://me:s3cret@host/", credentials=token)
    assert "s3cret" not in f"{settings!r} {settings}"


# --- Check ----------------------------------------------------------------------------------


async def findings(server: Prometheus, **settings: Any) -> list[tuple[Level, str]]:
    usage = PrometheusUsage(PrometheusSettings(url=server.url, **settings), telemetry=Telemetry())
    try:
        return [(found.level, found.says) for found in await usage.check(time.time_ns())]
    finally:
        await usage.aclose()


def says(found: list[tuple[Level, str]], level: Level, text: str) -> bool:
    return any(at is level and text in said for at, said in found)


async def test_check_of_a_good_prometheus(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        scene = Scene(server)
        scene.start = (time.time() // HOUR - 22) * HOUR
        scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 30 * HOUR)], hours=22)
        found = await findings(server, services_namespace=scene.namespace)
    assert says(found, Level.OK, "answers queries, version 3.")
    assert says(found, Level.OK, "keeps samples for 90 days")
    assert says(found, Level.OK, "scraped every 30 s")
    assert says(found, Level.OK, "start times are there")
    assert says(found, Level.OK, "expect about half of its figure")
    assert says(found, Level.OK, "every container has a `service` label")
    assert says(found, Level.WARNING, "nothing measures GPUs")
    assert not any(level is Level.PROBLEM for level, _ in found)


async def test_check_of_a_stock_prometheus_says_what_to_change(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path, retention="15d") as server:
        scene = Scene(server)
        scene.start = (time.time() // HOUR - 22) * HOUR
        scene.write(
            [scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 30 * HOUR)],
            lambda labels: {**without("pod", "container", "id")(labels), "service": "cowsay-dpl"},
            interval=120,
            hours=10,
        )
        found = await findings(server, services_namespace=scene.namespace)
    assert says(found, Level.WARNING, "last 15 days only")
    assert says(found, Level.WARNING, "scraped every 120 s")
    assert says(found, Level.WARNING, "nothing was scraped for 1")
    assert says(found, Level.WARNING, "series carry no pod")
    assert says(found, Level.WARNING, "may be counted twice")


async def test_check_of_own_queries(prometheus: Prometheus) -> None:
    found = await findings(prometheus, cpu_query="sum(nonsense{", gpu_query="vector(1)")
    assert says(found, Level.PROBLEM, "PROMETHEUS_CPU_QUERY: Prometheus refused the question")
    assert says(found, Level.OK, "PROMETHEUS_GPU_QUERY is asked as it is")
    assert says(found, Level.PROBLEM, "does not mention {{service}}")
    assert says(found, Level.PROBLEM, "does not mention {{range}}")


async def test_check_of_what_is_no_prometheus(prometheus: Prometheus) -> None:
    async with interposed(prometheus.url, lambda _: Reply(body=b"<html>")) as url:
        usage = PrometheusUsage(PrometheusSettings(url=url), telemetry=Telemetry())
        (found,) = await usage.check(time.time_ns())
        await usage.aclose()
    assert found.level is Level.PROBLEM
    assert "PROMETHEUS_URL" in found.change


# --- Scraped for real -----------------------------------------------------------------------


class Exporter(BaseHTTPRequestHandler):
    """Shows containers as cAdvisor does, to be scraped."""

    containers: tuple[Container, ...] = ()

    def do_GET(self) -> None:
        rows = []
        for labels, value in cadvisor(self.containers, time.time()):
            named = with_service(labels)
            shown = ",".join(f'{k}="{v}"' for k, v in named.items() if k != "__name__")
            rows.append(f"{named['__name__']}{{{shown}}} {value}\n")
        body = "".join(rows).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Keep quiet."""


async def test_containers_scraped_live_are_counted(tmp_path: Path) -> None:
    require("prometheus")
    begun = time.time()
    container = Container("oscar-svc", "cowsay-dpl-5d9c7b6f4-x2x2x", begun - 1, begun + 3600, 2.0)
    exporter = type("Bound", (Exporter,), {"containers": (container,)})
    http = ThreadingHTTPServer(("127.0.0.1", 0), exporter)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    scrape = {
        "job_name": "kubernetes-nodes-cadvisor",
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [f"127.0.0.1:{http.server_port}"]}],
    }
    try:
        with Prometheus.start(tmp_path, scrape_configs=[scrape]) as server:
            wait_until(
                lambda: bool(
                    server.query("count_over_time(container_cpu_usage_seconds_total[1h]) > 3")
                ),
                "four scrapes",
                timeout_seconds=30,
            )
            usage = PrometheusUsage(PrometheusSettings(url=server.url), telemetry=Telemetry())
            now_ns = time.time_ns()
            inventory = Scene(server).deployed("cowsay", namespace="oscar-svc")
            outcome = await usage.read(
                Span(now_ns - DAY_NS, now_ns), inventory, now_ns=now_ns, deadline=None
            )
            await usage.aclose()
    finally:
        http.shutdown()
        http.server_close()
    truth = container.cpu_seconds(0, now_ns / 1e9)
    assert truth - 2 * 2.0 <= cpu(outcome) <= truth
