from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.outcome import Gap, GapReason, join_gaps
from oscar_metrics.sources.kubernetes_pods import (
    Container,
    Pod,
    Reading,
    Run,
    containers_of,
    gaps_of,
)
from oscar_metrics.timerange import SECOND_NS, Span, format_instant, merge

# Instants in these tests are whole seconds since the epoch.
Seconds = tuple[int, int]


def pod(*statuses: dict[str, Any], start: int | None = 0, name: str = "p") -> Pod:
    status = {"containerStatuses": list(statuses)}
    if start is not None:
        status["startTime"] = at(start)  # type: ignore[assignment]
    return msgspec.convert({"metadata": {"name": name, "uid": name}, "status": status}, Pod)


def at(seconds: int) -> str:
    return format_instant(seconds * SECOND_NS)


def running(since: int, *, restarts: int = 0, before: Seconds | None = None) -> dict[str, Any]:
    last = ended(*before) if before else {}
    state = {"running": {"startedAt": at(since)}}
    return {"name": "c", "restartCount": restarts, "state": state, "lastState": last}


def waiting(*, restarts: int, before: Seconds | None) -> dict[str, Any]:
    last = ended(*before) if before else {}
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    return {"name": "c", "restartCount": restarts, "state": state, "lastState": last}


def over(start: int, stop: int) -> dict[str, Any]:
    return {"name": "c", "restartCount": 0, "state": ended(start, stop), "lastState": {}}


def ended(start: int, stop: int) -> dict[str, Any]:
    return {"terminated": {"startedAt": at(start), "finishedAt": at(stop)}}


def read(first: int | None, *, reached: int = 0, failed: GapReason | None = None) -> Reading:
    reading = Reading()
    reading.first_ns = None if first is None else first * SECOND_NS
    reading.reached_ns = reached * SECOND_NS
    reading.failed = failed
    return reading


def gaps(
    containers: list[Container], readings: dict[Run, Reading], span: Seconds = (1000, 2000)
) -> list[tuple[int, int, GapReason]]:
    asked = Span(span[0] * SECOND_NS, span[1] * SECOND_NS)
    found = join_gaps(gaps_of(asked, containers, readings), asked)
    return [
        (gap.span.start_ns // SECOND_NS, gap.span.stop_ns // SECOND_NS, gap.reason) for gap in found
    ]


R, F, D = GapReason.ROTATED, GapReason.FAILED, GapReason.DEADLINE


@pytest.mark.parametrize(
    ("pods", "first_lines", "expected"),
    [
        # One pod, running since before the span, with lines from before it.
        ([pod(running(500))], {500: 900}, []),
        # Rotated: its oldest line is inside the span.
        ([pod(running(500))], {500: 1200}, [(1000, 1200, R)]),
        # Its first line came as it started: nothing was rotated.
        ([pod(running(1300))], {1300: 1309}, [(1000, 1300, R)]),
        ([pod(running(1300))], {1300: 1311}, [(1000, 1311, R)]),
        # Silent, and the kubelet vouches for it.
        ([pod(running(500))], {500: None}, []),
        # Restarted once: before its first run there was nobody known; the pause is no gap.
        (
            [pod(running(1500, restarts=1, before=(1200, 1490)), start=1200)],
            {1200: 1200, 1500: 1500},
            [(1000, 1200, R)],
        ),
        # The run before had rotated its log when it stopped.
        (
            [pod(running(1500, restarts=1, before=(900, 1490)), start=900)],
            {900: 1400, 1500: 1500},
            [(1000, 1400, R)],
        ),
        # Restarted five times: what ran before the known runs is lost.
        (
            [pod(running(1500, restarts=5, before=(1400, 1490)), start=100)],
            {1400: 1400, 1500: 1500},
            [(1000, 1400, R)],
        ),
        # Waiting for its next restart: dead, and known to be.
        ([pod(waiting(restarts=0, before=(900, 1500)))], {900: 900}, []),
        # Ended for good: whoever served later is not known.
        ([pod(over(900, 1500))], {900: 900}, [(1500, 2000, R)]),
        # A second replica came later and covers from its own start only.
        ([pod(running(500)), pod(running(1600), name="q")], {500: 900, 1600: 1601}, []),
        # Two replicas: a stretch needs both.
        (
            [pod(running(500)), pod(running(501), name="q")],
            {500: 900, 501: 1700},
            [(1000, 1700, R)],
        ),
        # One replica's lost runs are a gap although the other is whole.
        (
            [pod(running(500)), pod(running(1500, restarts=2, before=(1490, 1495)), name="q")],
            {500: 900, 1490: 1490, 1500: 1500},
            [(1000, 1490, R)],
        ),
        # Created, and not started yet.
        ([pod(start=None)], {}, [(1000, 2000, R)]),
        # Restarting, with no run told of: it may have run all the time.
        (
            [pod(running(500)), pod(waiting(restarts=3, before=None), start=1100, name="q")],
            {500: 900},
            [(1100, 2000, R)],
        ),
    ],
)
def test_what_logs_cover(
    pods: list[Pod], first_lines: dict[int, int | None], expected: list[tuple[int, int, GapReason]]
) -> None:
    containers = [container for one in pods for container in containers_of(one)]
    readings = {
        run: read(first_lines[run.started_ns // SECOND_NS])
        for container in containers
        for run in container.runs
    }

    assert gaps(containers, readings) == expected


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (read(None, failed=F), [(1000, 2000, F)]),
        (read(900, reached=1400, failed=F), [(1400, 2000, F)]),
        (read(1200, reached=1400, failed=D), [(1000, 1200, R), (1400, 2000, D)]),
        # The newest line is no later than the oldest: nothing can be said to be whole.
        (read(1200, reached=1150, failed=D), [(1000, 1200, R), (1200, 2000, D)]),
        (Reading(), [(1000, 2000, D)]),
    ],
)
def test_a_reading_that_did_not_end_covers_what_it_reached(
    reading: Reading, expected: list[tuple[int, int, GapReason]]
) -> None:
    (container,) = containers_of(pod(running(500)))

    assert gaps([container], {container.runs[0]: reading}) == expected


def test_a_failure_of_the_run_before_is_no_gap_of_the_run_now() -> None:
    (container,) = containers_of(pod(running(1500, restarts=1, before=(900, 1490))))
    before, now = container.runs

    assert gaps([container], {before: read(None, failed=R), now: read(1500)}) == [(1000, 1490, R)]


def test_containers_that_wait_for_their_first_start_have_no_runs() -> None:
    status = {"name": "c", "state": {"waiting": {"reason": "ContainerCreating"}}}

    assert containers_of(pod(status)) == []


def test_each_container_of_a_pod_counts() -> None:
    main = running(500)
    sidecar = {**running(1400), "name": "sidecar"}

    names = [container.runs[0].container for container in containers_of(pod(main, sidecar))]

    assert names == ["c", "sidecar"]


def test_times_that_make_no_sense_do_not_turn_a_run_around() -> None:
    (container,) = containers_of(pod(over(1500, 1400)))

    assert container.runs[0].span == Span(1500 * SECOND_NS, 1500 * SECOND_NS)


PODS = st.lists(
    st.one_of(
        st.builds(running, st.integers(0, 3000), restarts=st.integers(0, 3)),
        st.builds(
            lambda start, length, pause, restarts: running(
                start + length + pause, restarts=restarts, before=(start, start + length)
            ),
            st.integers(0, 2000),
            st.integers(0, 900),
            st.integers(0, 100),
            st.integers(1, 3),
        ),
        st.builds(
            lambda start, length: over(start, start + length),
            st.integers(0, 2000),
            st.integers(0, 900),
        ),
    ).map(lambda status: pod(status, start=0)),
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(pods=PODS, cut=st.integers(1000, 2000), data=st.data())
def test_the_gaps_of_two_halves_are_those_of_the_whole(
    pods: list[Pod], cut: int, data: st.DataObject
) -> None:
    containers = [container for one in pods for container in containers_of(one)]
    readings = {
        run: read(
            data.draw(st.none() | st.integers(0, 3000)),
            reached=data.draw(st.integers(0, 3000)),
            failed=data.draw(st.sampled_from([None, F])),
        )
        for container in containers
        for run in container.runs
    }

    def spans(*parts: Seconds) -> list[Span]:
        found: list[Gap] = []
        for start, stop in parts:
            found += gaps_of(Span(start * SECOND_NS, stop * SECOND_NS), containers, readings)
        return merge(gap.span for gap in found)

    assert spans((1000, cut), (cut, 2000)) == spans((1000, 2000))
