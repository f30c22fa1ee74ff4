"""What `check` says of pods that Prometheus knows of, and of what it has measured of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from oscar_metrics.facts import ServiceKey
from oscar_metrics.findings import Finding, Level
from oscar_metrics.sources.prometheus_answers import Sample
from oscar_metrics.sources.prometheus_api import PrometheusApi, PrometheusSettings
from oscar_metrics.sources.prometheus_check import PrometheusCheck
from oscar_metrics.sources.prometheus_pods_check import named, unscraped
from oscar_metrics.telemetry import Telemetry
from tests.servers.build import require
from tests.servers.prometheus import Prometheus
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.usage_scene import HOUR, Scene

SECRET = "jane.doe@egi.eu"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def scene(prometheus: Prometheus) -> Scene:
    made = Scene(prometheus)
    made.start = (time.time() // HOUR - 8) * HOUR
    return made


def list_pods(scene: Scene, pods: Mapping[str, str], label: str = "label_oscar_service") -> None:
    """Have kube-state-metrics show pods, by the service that their label names."""
    every_minute = [(round((scene.start + n * 60) * 1000), 1.0) for n in range(60)]
    scene.server.remote_write(
        (
            {
                "__name__": "kube_pod_labels",
                "namespace": scene.namespace,
                "pod": pod,
                **({label: service} if service else {}),
            },
            every_minute,
        )
        for pod, service in pods.items()
    )


async def check(scene: Scene, url: str = "") -> list[Finding]:
    async with scene.usage(url) as usage:
        return await usage.check(time.time_ns())


def about(found: list[Finding], text: str) -> list[tuple[Level, str]]:
    return [(one.level, one.says) for one in found if text in f"{one.says} {one.change}"]


LABELS = (
    ({"label_oscar_service": "cowsay"}, "cowsay"),
    ({"label_app": "oscar-svc-exp-demo"}, "demo"),
    ({"label_serving_knative_dev_service": "fn"}, "fn"),
)


def samples(*counts: tuple[Mapping[str, str], float], namespace: str = "svc") -> list[Sample]:
    return [Sample({"namespace": namespace, **labels}, count) for labels, count in counts]


def test_services_none_of_whose_pods_was_scraped() -> None:
    listed = samples(*((labels, 3) for labels, _ in LABELS), ({"label_app": "other"}, 9))
    missed = samples((LABELS[0][0], 3), (LABELS[1][0], 2), ({"label_app": "other"}, 9))
    assert unscraped(listed, missed) == ([ServiceKey("svc", "cowsay")], 5, 9)
    assert unscraped(listed, []) == ([], 0, 9)
    assert unscraped([], []) == ([], 0, 0)


def test_few_services_are_named() -> None:
    services = [ServiceKey("svc", f"s{n}") for n in range(7)]
    assert named(services) == "svc/s0, svc/s1, svc/s2, svc/s3, svc/s4 and 2 more"
    assert named(services[:1]) == "svc/s0"


async def test_a_whole_pipeline_is_all_right(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        scene = Scene(server)
        scene.start = (time.time() // HOUR - 24) * HOUR
        hours = (time.time() - scene.start) / HOUR
        pods = {"cowsay-dpl-5d9c7b6f4-x2x2x": "cowsay", "demo-dpl-5d9c7b6f4-x2x2x": "demo"}
        scene.write([scene.pod(pod, 0, 30 * HOUR) for pod in pods], hours=hours)
        list_pods(scene, pods)
        held = {"namespace": scene.namespace, "pod": next(iter(pods)), "resource": "nvidia_com_gpu"}
        asked = {"__name__": "kube_pod_container_resource_requests", **held}
        server.remote_write([(asked, [(round(time.time() * 1000), 1.0)])])
        found = await check(scene)
    assert [one.says for one in found if one.level is not Level.OK] == []
    assert about(found, "2 pods of services were never scraped")


async def test_pods_that_are_all_measured_are_all_right(scene: Scene) -> None:
    pods = {f"cowsay-7f9f9-{n}": "cowsay" for n in range(3)}
    scene.write([scene.pod(pod) for pod in pods])
    list_pods(scene, pods)
    found = await check(scene)
    assert about(found, "never scraped") == [
        (Level.OK, "0 of 3 pods of services were never scraped in the last day")
    ]
    for text in ("no CPU series", "no label of their service", "scraped once only"):
        assert about(found, text) == []


async def test_services_without_series_are_named(scene: Scene) -> None:
    scene.write([scene.pod("cowsay-7f9f9-x")])
    lost = {f"lost-{n}-x": f"lost-{n}" for n in range(7)}
    list_pods(scene, {"cowsay-7f9f9-x": "cowsay", **lost, "odd-x": SECRET})
    found = await check(scene)
    (said,) = about(found, "7 services had pods in the last day and no CPU series of them")
    names = [f"{scene.namespace}/lost-{n}" for n in range(5)]
    assert said == (
        Level.WARNING,
        "7 services had pods in the last day and no CPU series of them: "
        + ", ".join(names)
        + " and 2 more",
    )
    assert about(found, "7 of 8 pods of services were never scraped")[0][0] is Level.WARNING
    assert SECRET not in " ".join(one.says for one in found)


async def test_jobs_that_are_too_short_for_the_scraping_are_named(scene: Scene) -> None:
    long = {f"cowsay-long-{n}": "cowsay" for n in range(4)}
    seen_once = {f"cowsay-short-{n}": "cowsay" for n in range(4)}
    unseen = {f"cowsay-gone-{n}": "cowsay" for n in range(2)}
    scene.write([scene.pod(pod) for pod in long])
    scene.write([scene.pod(pod, 600, 612) for pod in seen_once], interval=60)
    list_pods(scene, {**long, **seen_once, **unseen})
    found = await check(scene)
    assert about(found, "no CPU series of them") == []
    measured = {sample["metric"]["pod"] for sample in last_day(scene)}
    gone = 10 - len(measured)
    assert gone >= 2
    assert about(found, f"{gone} of 10 pods of services were never scraped")[0][0] is Level.WARNING


def last_day(scene: Scene) -> list[dict[str, dict[str, str]]]:
    selected = f'container_cpu_usage_seconds_total{{namespace="{scene.namespace}",container!=""}}'
    return scene.server.query(f"group by (pod) (last_over_time({selected}[1d]))")


async def test_containers_that_were_sampled_once_are_counted(scene: Scene) -> None:
    scene.write([scene.pod("cowsay-long")])
    # One scrape in two minutes, and a life of two and a half.
    scene.write([scene.pod(f"cowsay-{n}", n * 300, n * 300 + 30) for n in range(40)], interval=40)
    found = await check(scene)
    ((level, text),) = about(found, "scraped once only")
    assert level is Level.WARNING
    once, _, containers, *_ = text.split()
    assert 0 < int(once) < int(containers) == len(last_day(scene))


async def test_pods_without_the_label_of_a_service_are_counted(scene: Scene) -> None:
    scene.write([scene.pod(pod) for pod in ("cowsay-a", "cowsay-b", "cowsay-c")])
    list_pods(scene, {"cowsay-a": "cowsay", "cowsay-b": ""})
    found = await check(scene)
    ((level, text),) = about(found, "no label of their service in kube_pod_labels")
    assert level is Level.WARNING
    assert text.startswith("2 of 3 pods")


async def test_a_question_that_is_too_much_is_said_and_stops_nothing(scene: Scene) -> None:
    scene.write([scene.pod("cowsay-a")])
    refusal = Reply(status=422, body=b'{"status":"error","error":"too many samples: jane"}')

    def refuse(request: Request) -> Reply | None:
        # The first question about pods, and none that was asked of their labels before.
        return refusal if request.parameters.get("query", "").startswith("count by") else None

    async with interposed(scene.server.url, refuse) as url:
        found = await check(scene, url)
    assert about(found, "pods could not be looked at: Prometheus refused because")
    assert "jane" not in " ".join(one.says for one in found)


async def test_one_that_is_slow_does_not_keep_check_for_ever(scene: Scene) -> None:
    def hang(request: Request) -> Reply | None:
        return HANG if "container_cpu" in request.parameters.get("query", "") else None

    async with interposed(scene.server.url, hang) as url:
        api = PrometheusApi(PrometheusSettings(url=url), Telemetry())
        found = await PrometheusCheck(
            PrometheusSettings(url=url), api, time.time_ns(), seconds=1
        ).findings()
        await api.aclose()
    assert about(found, "answers queries")
    assert found[-1].says == "not everything could be looked at in 1 s"
