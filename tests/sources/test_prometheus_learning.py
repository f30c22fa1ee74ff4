"""Limits of a real Prometheus that are met once, kept to by later reports, and not for ever."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oscar_metrics.facts import ServiceKey, Usage
from oscar_metrics.outcome import GapReason, Ok, Outcome, Partial, Unavailable
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.resilience.gate import Protection
from oscar_metrics.resilience.learned import FIRST_WAIT_SECONDS
from oscar_metrics.sources.prometheus import PrometheusUsage
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import Span, subtract
from tests.servers.build import require
from tests.servers.prometheus import Prometheus
from tests.servers.toxiproxy import Toxiproxy
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.learning import Cost, Counted, later
from tests.sources.usage_scene import HOUR, Scene, cpu, only

TOO_MANY = Reply(
    status=422,
    body=b'{"status":"error","errorType":"execution","error":"query processing would load too many'
    b' samples into memory in query execution"}',
)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    require("prometheus")
    with Prometheus.start(tmp_path_factory.mktemp("prometheus")) as server:
        yield server


class Reports:
    """Reports of one source over a stretch of a scene, one after the other."""

    def __init__(
        self, scene: Scene, usage: PrometheusUsage, telemetry: Telemetry, stop: float
    ) -> None:
        self._scene = scene
        self._usage = usage
        self._span = Span(scene.ns(0), scene.ns(stop))
        self._counted = Counted(telemetry)

    async def read(self) -> tuple[Outcome[Usage], Cost]:
        return await self._counted.of(
            lambda: self._usage.read(
                self._span,
                self._scene.deployed("cowsay"),
                now_ns=time.time_ns(),
                deadline=None,
            )
        )


async def test_too_many_samples_are_asked_for_once(tmp_path: Path) -> None:
    require("prometheus")
    with Prometheus.start(tmp_path, flags=["--query.max-samples=2000"]) as server:
        scene, telemetry = Scene(server), Telemetry()
        scene.write(scene.jobs("cowsay", 400, 600))
        async with scene.usage(telemetry=telemetry) as usage:
            reports = Reports(scene, usage, telemetry, 6 * HOUR)
            said = [await reports.read() for _ in range(2)]
    for outcome, _ in said:
        assert isinstance(outcome, Ok), outcome.notes
        assert cpu(outcome) == pytest.approx(scene.truth(), rel=0.02)
    (once, first), (again, second) = said
    assert cpu(again) == pytest.approx(cpu(once), rel=1e-12)
    assert first.too_much > second.too_much == 0
    assert second.asked < first.asked


async def test_whether_anything_was_scraped_is_asked_within_limits_too(tmp_path: Path) -> None:
    """Ten hours of it are more samples than this server takes into account at once."""
    require("prometheus")
    with Prometheus.start(tmp_path, flags=["--query.max-samples=200"]) as server:
        scene, telemetry = Scene(server), Telemetry()
        scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", -1800, 9 * HOUR)], hours=10)
        async with scene.usage(telemetry=telemetry) as usage:
            reports = Reports(scene, usage, telemetry, 10 * HOUR)
            said = [await reports.read() for _ in range(2)]
    for outcome, _ in said:
        assert isinstance(outcome, Ok), outcome.notes
        assert cpu(outcome) == pytest.approx(9 * HOUR, rel=0.01)
    assert said[1][1].too_much < said[0][1].too_much


async def test_windows_become_wide_again_when_more_is_allowed(prometheus: Prometheus) -> None:
    scene, telemetry = Scene(prometheus), Telemetry()
    scene.write(scene.jobs("cowsay", 100, 600, hours=9), hours=10)
    most_hours = 2.0

    def too_many(request: Request) -> Reply | None:
        asked = [float(request.parameters.get(name, 0)) for name in ("start", "end")]
        wide = asked[1] - asked[0] >= most_hours * HOUR
        return TOO_MANY if wide and "sum by" in request.parameters.get("query", "") else None

    async with (
        interposed(prometheus.url, too_many) as url,
        scene.usage(url, telemetry=telemetry) as usage,
    ):
        reports = Reports(scene, usage, telemetry, 10 * HOUR)
        said = [await reports.read() for _ in range(2)]
        most_hours = math.inf
        said.append(await reports.read())
        with later(FIRST_WAIT_SECONDS):
            said += [await reports.read() for _ in range(2)]
    assert [cpu(outcome) for outcome, _ in said] == pytest.approx([cpu(said[0][0])] * 5, rel=1e-12)
    assert cpu(said[0][0]) == pytest.approx(scene.truth(stop=10 * HOUR), rel=0.02)
    first, second, third, _, last = [cost for _, cost in said]
    assert first.too_much > second.too_much == 0
    assert third.asked == second.asked < first.asked
    assert last.asked < second.asked / 2


async def test_an_own_query_is_asked_for_as_many_hours_as_are_answered(
    prometheus: Prometheus,
) -> None:
    scene, telemetry = Scene(prometheus), Telemetry()
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", -1800, 5 * HOUR)])
    own = (
        'sum(increase(container_cpu_usage_seconds_total{namespace=~"{{services_namespace}}.*",'
        'service=~"{{service}}.*",container!="",container!="POD"}[{{range}}])) / 3600'
    )
    most_hours = 2.0

    def too_many(request: Request) -> Reply | None:
        asked = [float(request.parameters.get(name, 0)) for name in ("start", "end")]
        wide = asked[1] - asked[0] >= most_hours * HOUR
        return TOO_MANY if wide and "increase" in request.parameters.get("query", "") else None

    async with (
        interposed(prometheus.url, too_many) as url,
        scene.usage(url, telemetry=telemetry, cpu_query=own) as usage,
    ):
        reports = Reports(scene, usage, telemetry, 6 * HOUR)
        said = [await reports.read() for _ in range(2)]
        most_hours = math.inf
        direct = await scene.read(cpu_query=own)
    assert [cpu(outcome) for outcome, _ in said] == pytest.approx([cpu(direct)] * 2, rel=1e-12)
    assert cpu(direct) > 4 * HOUR
    assert said[0][1].too_much > said[1][1].too_much == 0


async def test_more_hours_than_prometheus_hands_out_points_are_asked_in_parts(
    prometheus: Prometheus,
) -> None:
    scene = Scene(prometheus)
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 5 * HOUR)])
    own = "sum(count_over_time(up[{{range}}])) * 0 + 1"
    outcome = only(await scene.read(-12_000 * HOUR, 6 * HOUR, cpu_query=own, look_back_days=600))
    assert {gap.reason for gap in outcome.gaps} <= {GapReason.RETENTION, GapReason.NOT_SCRAPED}
    assert 3 * HOUR <= cpu(outcome) <= 500 * HOUR


async def test_at_a_deadline_the_sum_is_of_the_windows_that_are_not_gaps(
    prometheus: Prometheus, tmp_path: Path
) -> None:
    require("toxiproxy")
    scene = Scene(prometheus)
    scene.write(scene.jobs("cowsay", 60, 500, hours=6))
    span = Span(scene.ns(0), scene.ns(6 * HOUR))
    by_hour = [seconds_of(await scene.read(hour * HOUR, (hour + 1) * HOUR)) for hour in range(6)]
    hours_read = set()
    with Toxiproxy.start(tmp_path) as toxiproxy:
        proxy = toxiproxy.proxy("prometheus", prometheus.url)
        with proxy.toxic("latency", latency=80, jitter=20):
            for tenths in range(6, 120, 3):
                outcome = await scene.read(
                    url=proxy.url,
                    window_seconds=3600,
                    deadline=asyncio.get_running_loop().time() + tenths / 10,
                )
                if isinstance(outcome, Unavailable):
                    continue
                gaps = outcome.gaps if isinstance(outcome, Partial) else ()
                assert {gap.reason for gap in gaps} <= {GapReason.DEADLINE}
                missing = [gap.span for gap in gaps]
                whole = [
                    hour
                    for hour in range(6)
                    if not any(
                        Span(scene.ns(hour * HOUR), scene.ns((hour + 1) * HOUR)).clip(gap).length_ns
                        for gap in missing
                    )
                ]
                assert sum(part.length_ns for part in subtract(span, missing)) == (
                    len(whole) * 3600 * 10**9
                )
                known = math.fsum(by_hour[hour] for hour in whole)
                assert seconds_of(outcome) == pytest.approx(known, rel=1e-9)
                hours_read.add(len(whole))
                if isinstance(outcome, Ok):
                    break
    assert max(hours_read) == 6
    assert len(hours_read) > 1, hours_read


async def test_what_no_deadline_leaves_time_for_is_asked_in_halves_by_the_next_report(
    prometheus: Prometheus,
) -> None:
    """Or each report would ask for the same again, and none ever have an answer."""
    scene = Scene(prometheus)
    scene.write([scene.pod("cowsay-dpl-5d9c7b6f4-x2x2x", 0, 6 * HOUR)], hours=7)

    def hang(request: Request) -> Reply | None:
        asked = [float(request.parameters.get(name, 0)) for name in ("start", "end")]
        wide = asked[1] - asked[0] >= 2 * HOUR
        return HANG if wide and "sum by" in request.parameters.get("query", "") else None

    limits = UpstreamLimits(protection=Protection(unanswered_seconds=0.3))
    said = []
    async with (
        interposed(prometheus.url, hang) as url,
        scene.usage(url, limits=limits) as usage,
    ):
        for _ in range(4):
            deadline = asyncio.get_running_loop().time() + 3
            with asking_for(Asker(deadline)):
                said.append(
                    await usage.read(
                        Span(scene.ns(0), scene.ns(6 * HOUR)),
                        scene.deployed("cowsay"),
                        now_ns=time.time_ns(),
                        deadline=deadline,
                    )
                )
    assert isinstance(said[0], Unavailable)
    assert isinstance(said[-1], Ok), said[-1]
    assert cpu(said[-1]) == pytest.approx(6 * HOUR, rel=0.01)


def seconds_of(outcome: Outcome[Usage]) -> float:
    assert isinstance(outcome, Ok | Partial)
    found: dict[ServiceKey, float] = outcome.facts.cpu_seconds or {}
    return math.fsum(found.values())
