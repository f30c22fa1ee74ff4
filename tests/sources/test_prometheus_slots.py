"""Usage slot by slot on a real Prometheus: it adds up to what a report says of the same span."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from oscar_metrics.facts import ServiceKey, SlotUsage, Usage, UsageMethod
from oscar_metrics.outcome import GapReason, Measure, Ok, Outcome, Unavailable
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SLOT_NS, Span
from tests.servers.build import require
from tests.servers.prometheus import Prometheus, Series
from tests.sources.cadvisor import Container, Relabelling, stock, with_service
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.usage_scene import HOUR, Scene, cpu, noted, only, without

QUARTER = 900.0
DOWN = Unavailable(origin="kubernetes", notes=("down",))
OWN = 'sum(increase(container_cpu_usage_seconds_total{service=~"{{service}}.*"}[{{range}}])) / 3600'


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


@pytest.fixture
def scene(prometheus: Prometheus) -> Scene:
    return Scene(prometheus)


def facts(outcome: Outcome[tuple[SlotUsage, ...]]) -> tuple[SlotUsage, ...]:
    assert not isinstance(outcome, Unavailable), outcome.notes
    return outcome.facts


def added(
    slots: Iterable[SlotUsage], measure: Measure = Measure.CPU
) -> dict[ServiceKey, float] | None:
    """The sums of a measure over slots; None where none of them measured it."""
    said = [
        slot.usage.cpu_seconds if measure is Measure.CPU else slot.usage.gpu_seconds
        for slot in slots
    ]
    known = [seconds for seconds in said if seconds is not None]
    keys = {key for seconds in known for key in seconds}
    if not known:
        return None
    return {key: math.fsum(seconds.get(key, 0.0) for seconds in known) for key in keys}


def methods(slots: Iterable[SlotUsage]) -> set[UsageMethod]:
    return {method for slot in slots for method in slot.usage.methods}


def seconds(outcome: Outcome[Usage]) -> dict[ServiceKey, float]:
    assert not isinstance(outcome, Unavailable), outcome.notes
    return outcome.facts.cpu_seconds or {}


# --- They add up ----------------------------------------------------------------------------


def troubled(scene: Scene) -> dict[str, list[Container]]:
    """Containers of two nodes: long ones, short ones, ones that begin or end at slots' edges."""
    dice = scene.dice
    nodes: dict[str, list[Container]] = {}
    for node in ("n1", "n2"):
        made = scene.jobs("cowsay", 60, 45, hours=5) + scene.jobs("cowsay", 12, 1500, hours=5)
        for job in scene.jobs("demo", 16, 1):
            begun, ended = sorted(dice.sample(range(22), 2))
            shifts = dice.choices((-30.0, -0.001, 0.0, 0.001, 7.3, 30.0), k=2)
            start, stop = begun * QUARTER + shifts[0], ended * QUARTER + shifts[1]
            made.append(replace(scene.pod(job.pod, start, stop), cores=dice.uniform(0.1, 2)))
        made.append(scene.pod(f"demo-dpl-{node}9c7b6f4-x2x2x", -40 * 60, 7 * HOUR))
        nodes[node] = [replace(container, node=node) for container in made]
    return nodes


def outages(scene: Scene) -> list[tuple[float, float]]:
    """Failed scrapes, minutes, more than an hour: some across the edges of slots and hours."""
    dice, found = scene.dice, []
    for lasted in (31, 31, 400, 1300, dice.uniform(3000, 3600), dice.uniform(3601, 8000)):
        start = scene.start + dice.uniform(-1800, 5 * HOUR)
        found.append((start, start + lasted))
    edge = scene.start + dice.randrange(1, 20) * QUARTER
    return [*found, (edge - 40, edge - 1), (edge + QUARTER - 1, edge + QUARTER + 320)]


NO_ID = without("id", "name")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("relabelling", [with_service, lambda row: NO_ID(with_service(row))])
async def test_slots_add_up_to_what_is_read_wherever_it_is_cut(
    scene: Scene, relabelling: Relabelling, seed: int
) -> None:
    """Across outages of one node and of both, failed scrapes, with and without stale markers."""
    scene.dice.seed(seed)
    for node, made in troubled(scene).items():
        scene.write(
            [*made, *_restarts(scene, made[0])],
            relabelling,
            outages=outages(scene),
            stale_markers=bool(seed % 2),
            target={"instance": node},
        )
    whole = await scene.read()
    slots = facts(await scene.read_slots())
    by_hour = [await scene.read_slots(n * HOUR, (n + 1) * HOUR) for n in range(6)]
    cut = scene.dice.uniform(0, 6 * HOUR)
    halves = [await scene.read(0, cut), await scene.read(cut)]

    assert {slot.quarters for slot in slots} == {1}
    assert added(slots) == pytest.approx(seconds(whole), rel=1e-9)
    hours = [slot for outcome in by_hour for slot in facts(outcome)]
    assert hours == list(slots)
    assert sum(map(cpu, halves)) == pytest.approx(cpu(whole), rel=1e-9)


def _restarts(scene: Scene, container: Container) -> list[Container]:
    """Further lives of a container: with no `id` label, within the same series."""
    lives, stop = [], container.stop
    for _ in range(12):
        start = stop + scene.dice.uniform(1, 900)
        stop = start + scene.dice.uniform(30, 1200)
        lives.append(replace(container, start=start, stop=stop, cores=scene.dice.uniform(0.1, 2)))
    return lives


async def test_slots_are_right(scene: Scene) -> None:
    made = scene.jobs("cowsay", 400, 100, hours=2)
    steady = scene.pod("demo-dpl-5d9c7b6f4-x2x2x", 0, 1.5 * HOUR)
    scene.write([*made, steady])

    outcome = await scene.read_slots(0, 3 * HOUR)

    assert isinstance(outcome, Ok), outcome.notes
    first = scene.ns(0) // SLOT_NS
    assert [slot.slot for slot in outcome.facts] == list(range(first, first + 12))
    for number, slot in enumerate(outcome.facts):
        start, stop = number * QUARTER, (number + 1) * QUARTER
        found = added([slot]) or {}
        # Of half a scrape at either end it is not known on which side of the edge it was.
        assert found.get(ServiceKey(scene.namespace, "demo"), 0.0) == pytest.approx(
            scene.truth("demo", start, stop), abs=60
        )
        assert slot.usage.gpu_seconds == {}
        assert slot.usage.methods == {UsageMethod.CPU_ESTIMATE}
    assert outcome.facts[-1].usage.cpu_seconds == {}
    assert added(outcome.facts) == pytest.approx(
        {
            ServiceKey(scene.namespace, name): scene.truth(name, 0, 3 * HOUR)
            for name in ("cowsay", "demo")
        },
        rel=0.03,
    )


async def test_slots_that_were_not_scraped_are_left_out_and_are_gaps(scene: Scene) -> None:
    outage = (scene.start + HOUR, scene.start + 2 * HOUR)
    job = scene.jobs("cowsay", 1, 1)[0].pod
    ends = replace(scene.pod(job, 0, HOUR - 20), name="ends")
    scene.write([ends, scene.pod(job, 0, 3 * HOUR)], outages=[outage])

    outcome = only(await scene.read_slots(0, 3 * HOUR))
    (dark,) = [await scene.read_slots(HOUR, 2 * HOUR)]

    (gap,) = outcome.gaps
    first = scene.ns(0) // SLOT_NS
    # What ended just before is known to have when five minutes have passed.
    assert [slot.slot - first for slot in outcome.facts] == [0, 1, 2, 3, 4, 8, 9, 10, 11]
    assert gap.reason is GapReason.NOT_SCRAPED
    assert gap.span == Span(scene.ns(HOUR), scene.ns(2 * HOUR))
    assert facts(dark) == tuple(slot for slot in outcome.facts if slot.slot == first + 4)
    assert 0 < sum((added(facts(dark)) or {}).values()) <= 30


# --- By hours -------------------------------------------------------------------------------


async def test_increase_is_asked_by_the_same_hours(scene: Scene) -> None:
    job = scene.jobs("cowsay", 1, 1)[0].pod
    scene.write([*scene.jobs("cowsay", 100, 200, hours=5), scene.pod(job, 0, 5 * HOUR)], stock)

    slots = facts(await scene.read_slots())
    whole = await scene.read()
    # Windows of 90 minutes, and a range that cuts hours.
    odd = await scene.read(window_seconds=5400)
    cut = await scene.read(0.4 * HOUR, 3.7 * HOUR)
    ends = [await scene.read(0.4 * HOUR, HOUR), await scene.read(3 * HOUR, 3.7 * HOUR)]

    assert [slot.quarters for slot in slots] == [4] * 6
    assert methods(slots) == {UsageMethod.CPU_INCREASE}
    assert added(slots) == pytest.approx(seconds(whole), rel=1e-12)
    assert seconds(odd) == pytest.approx(seconds(whole), rel=1e-12)
    inside = added(slots[1:3]) or {}
    assert cpu(cut) == pytest.approx(sum(map(cpu, ends)) + sum(inside.values()), rel=1e-12)


async def test_an_hour_of_increase_is_never_cut(scene: Scene) -> None:
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", -HOUR, 5 * HOUR)], stock)
    too_much = Reply(status=422, body=b'{"status":"error","error":"too many samples"}')
    asked: list[str] = []

    def refuse(request: Request) -> Reply | None:
        query = request.parameters.get("query", "")
        if "increase" not in query:
            return None
        asked.append(query)
        parameters = request.parameters
        wide = float(parameters.get("end", 0)) - float(parameters.get("start", 0)) > 0
        third = float(parameters.get("time", 0)) == scene.start + 3 * HOUR
        return too_much if wide or third else None

    async with interposed(scene.server.url, refuse) as url:
        slots = only(await scene.read_slots(0, 4 * HOUR, url=url))
        whole = only(await scene.read(0, 4 * HOUR, url=url))

    assert all("[3600s]" in query for query in asked)
    for outcome in (slots, whole):
        assert {gap.reason for gap in outcome.gaps} == {GapReason.FAILED}
        assert [gap.span for gap in outcome.gaps] == [Span(scene.ns(2 * HOUR), scene.ns(3 * HOUR))]
    assert len(slots.facts) == 3
    assert added(slots.facts) == pytest.approx(seconds(whole), rel=1e-12)


async def test_an_hour_of_the_estimate_is_cut_and_says_the_same(scene: Scene) -> None:
    scene.write(scene.jobs("cowsay", 100, 400, hours=2))
    too_much = Reply(status=422, body=b'{"status":"error","error":"too many samples"}')

    def refuse(request: Request) -> Reply | None:
        parameters = request.parameters
        long = float(parameters.get("end", 0)) - float(parameters.get("start", 0)) > QUARTER
        return too_much if long and "irate" in parameters.get("query", "") else None

    async with interposed(scene.server.url, refuse) as url:
        slots = await scene.read_slots(0, 2 * HOUR, url=url)

    assert slots == await scene.read_slots(0, 2 * HOUR)


@pytest.mark.parametrize("changed", [2.5, 3.0])
async def test_where_methods_differ_each_hour_has_its_own(scene: Scene, changed: float) -> None:
    job = scene.jobs("cowsay", 1, 1)[0].pod
    made = [scene.pod(job, 0, 5 * HOUR), *scene.jobs("demo", 60, 200, hours=5)]
    at = scene.start + changed * HOUR
    scene.write(made, stock, outages=[(at, scene.start + 9 * HOUR)])
    before = [(scene.start - 2 * HOUR, at)]
    scene.write(made, with_service, outages=before, target={"instance": "after"})

    slots = facts(await scene.read_slots())
    whole = await scene.read()
    by_hour = [facts(await scene.read_slots(n * HOUR, (n + 1) * HOUR)) for n in range(6)]

    methods_by_hour = [methods(hour) for hour in by_hour]
    first_estimate = math.floor(changed)
    assert methods_by_hour[:first_estimate] == [{UsageMethod.CPU_INCREASE}] * first_estimate
    assert methods_by_hour[first_estimate:] == [{UsageMethod.CPU_ESTIMATE}] * (6 - first_estimate)
    assert [slot for hour in by_hour for slot in hour] == list(slots)
    assert added(slots) == pytest.approx(seconds(whole), rel=1e-9)
    assert not isinstance(whole, Unavailable)
    assert whole.facts.methods == {UsageMethod.CPU_INCREASE, UsageMethod.CPU_ESTIMATE}


async def test_an_own_query_is_asked_by_whole_hours_and_a_note_says_so(scene: Scene) -> None:
    scene.write([*scene.jobs("cowsay", 100, 200, hours=5), scene.pod("demo-dpl-5d9c7b6f4-x2x2x")])

    slots = await scene.read_slots(cpu_query=OWN)
    whole = await scene.read(cpu_query=OWN)
    cut = await scene.read(0.4 * HOUR, 3.7 * HOUR, cpu_query=OWN)
    ends = [
        await scene.read(*end, cpu_query=OWN)
        for end in ((0.4 * HOUR, HOUR), (3 * HOUR, 3.7 * HOUR))
    ]

    assert [slot.quarters for slot in facts(slots)] == [4] * 6
    assert methods(facts(slots)) == {UsageMethod.CPU_TEMPLATE}
    assert added(facts(slots)) == pytest.approx(seconds(whole), rel=1e-12)
    inside = added(facts(slots)[1:3]) or {}
    assert cpu(cut) == pytest.approx(
        sum(map(cpu, ends)) + inside[ServiceKey(scene.namespace, "cowsay")], rel=1e-12
    )
    for outcome in (slots, whole, cut):
        assert isinstance(outcome, Ok), outcome.notes
        assert noted(outcome, "CPU time is what the configured query says of whole hours")


async def test_an_own_query_without_a_range_says_nothing_of_slots(scene: Scene) -> None:
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 5 * HOUR)])
    fixed = OWN.replace("{{range}}", "1h")

    slots = only(await scene.read_slots(0, 2 * HOUR, gpu_query=fixed))
    whole = only(await scene.read(0, 2 * HOUR, gpu_query=fixed))

    assert added(slots.facts, Measure.GPU) is None
    assert (whole.facts.gpu_seconds or {}).values()
    for outcome in (slots, whole):
        assert outcome.measures == {Measure.GPU}
        assert noted(outcome, "does not mention {{range}}")


# --- GPUs -----------------------------------------------------------------------------------


def held(scene: Scene, pod: str, gpus: int, stop: float) -> list[Series]:
    """What kube-state-metrics shows every 30 s of a pod with GPUs, from the scene's start on."""
    common = {"namespace": scene.namespace, "pod": pod, "job": "kube-state-metrics"}
    listed = [round((scene.start + 11 + n * 30) * 1000) for n in range(round(stop) // 30)]
    asked = {"__name__": "kube_pod_container_resource_requests", "resource": "nvidia_com_gpu"}
    phase = {"__name__": "kube_pod_status_phase", "phase": "Running"}
    every = [round((scene.start + 11 + n * 30) * 1000) for n in range(360)]
    up = {"__name__": "up", "job": "kube-state-metrics", "instance": "ksm"}
    return [
        ({**common, **asked, "container": "main"}, [(at, float(gpus)) for at in listed]),
        ({**common, **phase}, [(at, 1.0) for at in listed]),
        (up, [(at, 1.0) for at in every]),
    ]


async def test_gpus_that_are_held_are_there_by_quarter_hour(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        scene = Scene(server)
        job = scene.jobs("demo", 1, 1)[0].pod
        scene.write([scene.pod(job, 0, 3 * HOUR)])
        server.remote_write(held(scene, job, 2, 1.25 * HOUR))
        slots = only(await scene.read_slots(0, 4 * HOUR))
        whole = only(await scene.read(0, 4 * HOUR))
    key = ServiceKey(scene.namespace, "demo")
    by_slot = [(slot.usage.gpu_seconds or {}).get(key, 0.0) for slot in slots.facts]
    assert {slot.quarters for slot in slots.facts} == {1}
    assert by_slot[:5] == pytest.approx([2 * QUARTER] * 5, rel=0.04)
    assert sum(by_slot) == pytest.approx((whole.facts.gpu_seconds or {})[key], rel=1e-9)
    assert UsageMethod.GPU_ALLOCATED in whole.facts.methods
    # Where kube-state-metrics was not scraped, nothing is known of GPUs.
    assert [slot.usage.gpu_seconds is None for slot in slots.facts] == [False] * 12 + [True] * 4
    assert [UsageMethod.GPU_ALLOCATED in slot.usage.methods for slot in slots.facts] == (
        [True] * 12 + [False] * 4
    )


async def test_by_a_counter_of_gpus_both_measures_are_there_by_hour(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path) as server:
        scene = Scene(server)
        scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 1.6 * HOUR)])
        labels = {"namespace": scene.namespace, "service": "cowsay-dpl"}
        points = [(round((scene.start + n * 30) * 1000), n * 15.0) for n in range(240)]
        server.remote_write([({"__name__": "container_gpu_usage_seconds_total", **labels}, points)])
        slots = only(await scene.read_slots(0, 3 * HOUR))
        whole = only(await scene.read(0, 3 * HOUR))
    assert [slot.quarters for slot in slots.facts] == [4, 4, 4]
    assert methods(slots.facts) == {UsageMethod.CPU_ESTIMATE, UsageMethod.GPU_COUNTER}
    assert added(slots.facts) == pytest.approx(seconds(whole), rel=1e-9)
    assert added(slots.facts, Measure.GPU) == pytest.approx(whole.facts.gpu_seconds, rel=1e-9)


# --- What can be known ----------------------------------------------------------------------


async def test_slots_of_a_server_that_says_nothing(scene: Scene) -> None:
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x")])
    async with interposed(scene.server.url, lambda _: HANG) as url:
        deadline = asyncio.get_running_loop().time() + 0.3
        assert isinstance(await scene.read_slots(url=url, deadline=deadline), Unavailable)
    ahead = time.time() - scene.start + 2 * HOUR
    assert facts(await scene.read_slots(ahead, ahead + HOUR)) == ()


async def test_kept_from_is_the_retention_or_what_is_never_asked_for(
    prometheus: Prometheus,
) -> None:
    scene, now_ns = Scene(prometheus), time.time_ns()
    async with scene.usage() as usage:
        assert await usage.kept_from(now_ns, None) == pytest.approx(
            now_ns - 90 * DAY_NS, abs=HOUR_NS / 3600
        )
    async with scene.usage(look_back_days=30) as usage:
        assert await usage.kept_from(now_ns, None) == now_ns - 30 * DAY_NS


@pytest.mark.parametrize(
    "reply", [HANG, Reply(status=404), Reply(status=500), Reply(body=b"<html>")]
)
async def test_kept_from_is_not_known_where_nobody_says_so(
    prometheus: Prometheus, reply: Reply
) -> None:
    scene, now_ns = Scene(prometheus), time.time_ns()
    async with interposed(prometheus.url, lambda _: reply) as url, scene.usage(url) as usage:
        deadline = asyncio.get_running_loop().time() + 0.5
        assert await usage.kept_from(now_ns, deadline) is None


async def test_kept_by_size_too_is_what_is_there(tmp_path: Path) -> None:
    require("prometheus")
    begun_ns = time.time_ns()
    with Prometheus.start(tmp_path, flags=["--storage.tsdb.retention.size=1GB"]) as server:
        async with Scene(server).usage() as usage:
            kept_ns = await usage.kept_from(time.time_ns(), None)
    assert kept_ns is not None
    assert begun_ns - HOUR_NS <= kept_ns <= time.time_ns()
