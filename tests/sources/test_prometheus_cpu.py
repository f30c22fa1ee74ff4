"""CPU time on a real Prometheus, against what the containers truly used."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_metrics.facts import ServiceKey
from oscar_metrics.outcome import GapReason, Measure, Ok, Partial, Unavailable
from tests.servers.build import require
from tests.servers.prometheus import Prometheus
from tests.sources.cadvisor import Container, Labels, of_service, stock, with_service
from tests.sources.usage_scene import HOUR, Scene, cpu, noted, only, without


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def scene(prometheus: Prometheus) -> Scene:
    return Scene(prometheus)


def long_job(scene: Scene, start: float, stop: float, cores: float = 0.5) -> Container:
    """One job pod of `cowsay`, in seconds after the scene's start."""
    (job,) = scene.jobs("cowsay", 1, 1)
    return scene.pod(job.pod, start, stop, cores)


@pytest.mark.parametrize("interval", [15, 30, 60])
async def test_jobs_of_one_to_five_scrape_intervals_are_right_within_3_percent(
    scene: Scene, interval: int
) -> None:
    names = [f"svc-{lives}" for lives in range(1, 6)]
    made = [
        scene.jobs(name, 700, lives * interval * 1.15, spread=0.15 / 1.15)
        for lives, name in enumerate(names, start=1)
    ]
    scene.write(itertools.chain(*made), interval=interval)

    outcome = await scene.read(inventory=scene.deployed(*names))

    for name in names:
        assert cpu(outcome, name) == pytest.approx(scene.truth(name), rel=0.03), name


async def test_jobs_shorter_than_a_scrape_interval_are_noted_as_missing(scene: Scene) -> None:
    scene.write(scene.jobs("cowsay", 700, 12))

    outcome = only(await scene.read())

    assert cpu(outcome) < 0.9 * scene.truth()
    assert noted(outcome, "live less than the 30 s between scrapes")
    assert outcome.measures == {Measure.CPU}
    assert not outcome.gaps


@pytest.mark.parametrize("window_seconds", [3600, 86_400])
async def test_windows_add_up_wherever_they_are_cut(scene: Scene, window_seconds: int) -> None:
    scene.write(scene.jobs("cowsay", 300, 60, hours=2))
    scene.write([long_job(scene, -2 * HOUR, 3 * HOUR)])
    whole = cpu(await scene.read(0, 4 * HOUR, window_seconds=window_seconds))
    cuts = sorted(scene.dice.uniform(0, 4 * HOUR) for _ in range(9))
    cuts += [cuts[-1] + 1e-9, cuts[-1] + 0.0004, cuts[-1] + 1.0]

    edges = [0, *cuts, 4 * HOUR]
    parts = [
        cpu(await scene.read(start, stop, window_seconds=window_seconds))
        for start, stop in itertools.pairwise(edges)
    ]

    assert sum(parts) == pytest.approx(whole, rel=1e-9)
    assert whole == pytest.approx(scene.truth(stop=4 * HOUR), rel=0.03)


async def test_what_ran_before_the_range_is_not_counted(scene: Scene) -> None:
    scene.write([long_job(scene, -HOUR, 5 * HOUR)])

    outcome = await scene.read(2 * HOUR, 3 * HOUR)

    assert isinstance(outcome, Ok), outcome.notes
    assert cpu(outcome) == pytest.approx(0.5 * HOUR, rel=0.01)


@pytest.mark.parametrize(
    "labels", [with_service, lambda row: without("id", "name")(with_service(row))]
)
async def test_a_restarted_container_counts_each_of_its_lives(scene: Scene, labels: object) -> None:
    first = long_job(scene, 100, 1000)
    lives = [first] + [
        Container(first.namespace, first.pod, scene.start + start, scene.start + stop, cores)
        # The last one overtakes the counter of the one before: it never seems to be reset.
        for start, stop, cores in ((1010, 1400, 0.1), (1420, 1700, 1.9), (1701, 5000, 1.5))
    ]
    scene.write(lives, labels)  # type: ignore[arg-type] # a lambda among the parameters

    whole = cpu(await scene.read())
    parts = [cpu(await scene.read(*edges)) for edges in ((0, 1350), (1350, 1500), (1500, 6 * HOUR))]

    assert whole == pytest.approx(scene.truth(), rel=0.02)
    assert sum(parts) == pytest.approx(whole, rel=1e-9)


async def test_a_scrape_outage_is_a_gap_and_long_jobs_are_right_across_it(scene: Scene) -> None:
    outage = (scene.start + 2 * HOUR, scene.start + 2.75 * HOUR)
    scene.write([long_job(scene, -1000, 5 * HOUR)], outages=[outage])

    outcome = only(await scene.read())
    before, after = await scene.read(stop=2.5 * HOUR), await scene.read(2.5 * HOUR)

    (gap,) = outcome.gaps
    assert gap.reason is GapReason.NOT_SCRAPED
    assert 40 * 60 <= gap.span.length_ns / 1e9 <= 50 * 60
    assert scene.ns(2 * HOUR) <= gap.span.start_ns <= gap.span.stop_ns <= scene.ns(2.75 * HOUR)
    assert cpu(outcome) == pytest.approx(scene.truth(), rel=0.01)
    assert cpu(before) + cpu(after) == pytest.approx(cpu(outcome), rel=1e-9)


async def test_after_a_long_outage_nothing_is_counted_that_may_have_been_counted_before(
    scene: Scene,
) -> None:
    outage = (scene.start + HOUR, scene.start + 4 * HOUR)
    scene.write([long_job(scene, -3000, 5 * HOUR)], outages=[outage])

    outcome = only(await scene.read(3 * HOUR, 6 * HOUR))

    assert cpu(outcome) == pytest.approx(0.5 * HOUR, rel=0.02)
    assert [gap.reason for gap in outcome.gaps] == [GapReason.NOT_SCRAPED]
    assert noted(outcome, "1 containers had been running unseen")


async def test_one_failed_scrape_at_the_edge_counts_nothing_twice(scene: Scene) -> None:
    failed = (scene.start + HOUR - 40, scene.start + HOUR - 1)
    scene.write([long_job(scene, -1000, 3 * HOUR)], outages=[failed])

    outcome = await scene.read(HOUR - 15, 2 * HOUR)

    assert isinstance(outcome, Ok), outcome.notes
    assert cpu(outcome) == pytest.approx(0.5 * HOUR, rel=0.03)


async def test_without_stale_markers_the_figures_are_the_same(scene: Scene) -> None:
    made = scene.jobs("cowsay", 700, 60)
    scene.write(made, stale_markers=False)

    outcome = await scene.read(window_seconds=3600)

    assert cpu(outcome) == pytest.approx(scene.truth(), rel=0.03)


async def test_dead_containers_that_are_still_shown_gain_nothing(scene: Scene) -> None:
    made = scene.jobs("cowsay", 700, 60)
    lingering = [Container(c.namespace, c.pod, c.start, c.stop, c.cores, lingers=120) for c in made]
    scene.write(lingering)

    assert cpu(await scene.read()) == pytest.approx(scene.truth(), rel=0.01)


async def test_a_cadvisor_that_is_scraped_twice_counts_once(scene: Scene) -> None:
    made = scene.jobs("cowsay", 300, 90)
    once = Scene(scene.server)
    once.write(
        replace(c, namespace=once.namespace, start=c.start + moved, stop=c.stop + moved)
        for moved in [once.start - scene.start]
        for c in made
    )
    scene.write(made, job="kubelet", target={"metrics_path": "/metrics/cadvisor"})
    scene.write(made, job="kubelet-2", target={"endpoint": "https", "instance": "other"})
    # The kubelet's summary of resources: the same containers with fewer labels.
    fewer = without("id", "name", "image", "cpu")
    scene.write(made, fewer, job="kubelet", target={"metrics_path": "/metrics/resource"})

    outcome = await scene.read()

    assert cpu(outcome) == pytest.approx(cpu(await once.read()), rel=0.01)


def kubelets_service(labels: Labels) -> Labels:
    return {**labels, "service": "prometheus-kube-prometheus-kubelet"}


async def test_the_kubelets_own_service_label_is_no_service(scene: Scene) -> None:
    scene.write(
        [
            long_job(scene, 0, HOUR),
            scene.pod("demo-dpl-5d9c7b6f4-x2x2x"),
            scene.pod("cowsay-00001-deployment-5d9c7b6f4-abcde"),
            scene.pod("a-service-with-a-0190c2a8-1111-4222-8333-444455556666-x1x1x"),
            scene.pod("delegated"),
        ],
        kubelets_service,
    )

    outcome = await scene.read(
        inventory=scene.deployed("cowsay", "demo", "a-service-with-a-long-name")
    )

    assert cpu(outcome, "demo") == pytest.approx(HOUR, rel=0.01)
    assert cpu(outcome, "cowsay") == pytest.approx(1.5 * HOUR, rel=0.01)
    assert cpu(outcome, "a-service-with-a-long-name") == pytest.approx(HOUR, rel=0.01)
    assert cpu(outcome, "") == pytest.approx(HOUR, rel=0.01)
    assert noted(outcome, "for example delegated")


async def test_a_pods_own_labels_say_its_service(scene: Scene) -> None:
    pods = {
        "delegated-by-name": {"label_oscar_service": "cowsay"},
        "any-7f9f9-x": {"label_app": "oscar-svc-exp-demo"},
        "other-7f9f9-x": {"label_serving_knative_dev_service": "deleted-service"},
    }
    scene.write([scene.pod(name) for name in pods], kubelets_service)
    every_minute = [(round((scene.start + n * 60) * 1000), 1.0) for n in range(60)]
    scene.server.remote_write(
        (
            {"__name__": "kube_pod_labels", "namespace": scene.namespace, "pod": pod, **labels},
            every_minute,
        )
        for pod, labels in pods.items()
    )

    outcome = await scene.read()

    for service in ("cowsay", "demo", "deleted-service"):
        assert cpu(outcome, service) == pytest.approx(HOUR, rel=0.01)


async def test_pods_that_ended_between_two_scrapes_are_counted_in_a_note(scene: Scene) -> None:
    seen, unseen, later = "cowsay-seen", "cowsay-too-short", "cowsay-of-the-next-range"
    scene.write([scene.pod(seen), scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 6 * HOUR)])
    for pod, ended in ((seen, HOUR), (unseen, 2.5 * HOUR), (later, 5 * HOUR)):
        labels = {"namespace": scene.namespace, "pod": pod}
        end = scene.start + ended
        listed = [(round((end + n * 60) * 1000), end - 1) for n in range(60)]
        scene.server.remote_write([({"__name__": "kube_pod_completion_time", **labels}, listed)])
    # While its image was fetched there was the pod, and no container yet.
    own = {"__name__": "container_cpu_usage_seconds_total", "id": "/kubepods/pod1"}
    fetching = [(round((scene.start + 2.4 * HOUR + n * 30) * 1000), 0.1) for n in range(10)]
    labels = {**own, "namespace": scene.namespace, "pod": unseen}
    scene.server.remote_write([(labels, fetching)])

    outcome = only(await scene.read(0, 4 * HOUR))

    assert noted(outcome, "1 pods ended without having been seen by any scrape (every 30 s)")
    assert outcome.measures == {Measure.CPU}
    assert not noted(await scene.read(0, 2 * HOUR), "by any scrape")


async def test_usage_of_no_known_service_is_counted_and_named(scene: Scene) -> None:
    user = Container(
        f"{scene.namespace}-alice", "hers-dpl-5d9c7b6f4-x2x2x", scene.start, scene.start + HOUR, 1
    )
    elsewhere = Container(
        "kube-system", "cowsay-dpl-5d9c7b6f4-x2x2x", scene.start, scene.start + HOUR, 1
    )
    scene.write([user, elsewhere, long_job(scene, 0, HOUR)])

    outcome = await scene.read()

    assert isinstance(outcome, Ok), outcome.notes
    assert outcome.facts.cpu_seconds is not None
    assert set(outcome.facts.cpu_seconds) == {
        ServiceKey(scene.namespace, "cowsay"),
        ServiceKey(f"{scene.namespace}-alice", ""),
    }
    assert noted(
        outcome, "CPU-hours are of no known service (1 labels or pods, for example hers-dpl)"
    )


async def test_services_in_namespaces_of_other_names_count_too(scene: Scene) -> None:
    scene.write([Container("team", "lab-dpl-5d9c7b6f4-x2x2x", scene.start, scene.start + HOUR, 1)])

    outcome = await scene.read(inventory=scene.deployed("lab", namespace="team"))

    assert cpu(outcome, "lab") == pytest.approx(HOUR, rel=0.01)


@pytest.mark.parametrize(("origin", "is_doubted"), [("kubernetes", True), ("", False)])
async def test_without_an_inventory_names_are_taken_by_their_form(
    scene: Scene, origin: str, is_doubted: bool
) -> None:
    scene.write([long_job(scene, 0, HOUR, 1.0), scene.pod("demo-dpl-5d9c7b6f4-x2x2x")])

    outcome = await scene.read(inventory=Unavailable(origin=origin, notes=("down",)))

    # An inventory that could have been read knows names that are cut, or of other namespaces.
    doubts = outcome.doubts if isinstance(outcome, Partial) else ()
    assert any("by the form of labels" in text for text in doubts) is is_doubted
    assert cpu(outcome, "cowsay") == pytest.approx(HOUR, rel=0.01)
    assert cpu(outcome, "demo") == pytest.approx(HOUR, rel=0.01)
    assert noted(outcome, "by the form of labels")


async def test_stock_monitoring_is_answered_by_increase_and_says_what_it_loses(
    scene: Scene,
) -> None:
    scene.write([long_job(scene, 0, 5 * HOUR), scene.pod("demo-dpl-5d9c7b6f4-x2x2x")], stock)

    outcome = only(await scene.read(0.3 * HOUR, 3.7 * HOUR))

    assert cpu(outcome) == pytest.approx(0.5 * 3.4 * HOUR, rel=0.02)
    assert outcome.measures == {Measure.CPU}
    assert noted(outcome, "series carry no pod")
    assert not noted(outcome, "counted twice")


async def test_without_a_container_label_pods_may_be_counted_twice_and_that_is_said(
    scene: Scene,
) -> None:
    scene.write(
        [scene.pod("demo-dpl-5d9c7b6f4-x2x2x")],
        lambda labels: {
            **without("container", "pod")(labels),
            "service": of_service(labels["pod"]),
        },
    )

    outcome = only(await scene.read())

    assert cpu(outcome, "demo") == pytest.approx(2 * HOUR, rel=0.05)
    assert noted(outcome, "may be counted twice")


async def test_without_start_times_increase_stands_in(scene: Scene) -> None:
    def no_starts(labels: Labels) -> Labels:
        kept = with_service(labels)
        return kept if "cpu" in kept else {"__name__": "dropped"}

    scene.write([long_job(scene, 0, 5 * HOUR)], no_starts)

    outcome = only(await scene.read(HOUR, 2 * HOUR))

    assert cpu(outcome) == pytest.approx(0.5 * HOUR, rel=0.02)
    assert noted(outcome, "no start times")


async def test_a_change_of_relabelling_loses_at_most_the_hour_it_happened_in(
    scene: Scene,
) -> None:
    changed = scene.start + 2.5 * HOUR
    job = long_job(scene, 0, 5 * HOUR)
    early = [(changed, scene.start + 9 * HOUR)]
    late = [(scene.start - 2 * HOUR, changed)]
    scene.write([job], stock, outages=early)
    scene.write([job], with_service, outages=late)
    scene.containers = [job]

    outcome = only(await scene.read())

    assert cpu(outcome) == pytest.approx(scene.truth(), rel=0.12)
    assert noted(outcome, "carry no pod")


async def test_a_query_with_too_many_samples_is_asked_in_halves(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path, flags=["--query.max-samples=2000"]) as server:
        scene = Scene(server)
        scene.write(scene.jobs("cowsay", 400, 600))
        outcome = await scene.read()
    assert isinstance(outcome, Ok), outcome.notes
    assert cpu(outcome) == pytest.approx(scene.truth(), rel=0.02)


async def test_what_is_too_much_even_for_the_shortest_window_is_a_gap(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path, flags=["--query.max-samples=450"]) as server:
        scene = Scene(server)
        scene.write([long_job(scene, 0, 4 * HOUR)])
        crowd = scene.jobs("demo", 200, 600, hours=0.003)
        scene.write(crowd)
        outcome = only(await scene.read())
    assert {gap.reason for gap in outcome.gaps} == {GapReason.FAILED}
    assert noted(outcome, "exceeds one of its limits")
    assert 0 < cpu(outcome) < scene.truth("cowsay")


async def test_partial_is_what_most_of_these_are_not(scene: Scene) -> None:
    """An ordinary day is Ok, without a note."""
    scene.write(scene.jobs("cowsay", 300, 120))

    outcome = await scene.read()

    assert isinstance(outcome, Ok), outcome.notes
    assert not isinstance(outcome, Partial)
    assert outcome.notes == ()
    assert outcome.last_updated_ns is not None
