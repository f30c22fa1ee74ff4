"""Loki drops the last line of a chunk where a log query begins, and it begins some itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oscar_metrics.outcome import GapReason, Ok, Partial
from oscar_metrics.timerange import DAY_NS, HOUR_NS, MILLISECOND_NS, SECOND_NS, Span
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.loki_streams import Streams, call, facts, total

# On the hour, on the half, and elsewhere: all of them whole milliseconds.
WITHIN_NS = (0, 1800 * SECOND_NS, 420 * SECOND_NS, 420 * SECOND_NS + 5 * MILLISECOND_NS)


@pytest.fixture(scope="module", params=["1h", "30m"])
def loki(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loki]:
    require("loki")
    limits = {"split_queries_by_interval": request.param}
    with Loki.start(tmp_path_factory.mktemp("loki"), limits=limits) as server:
        yield server


@pytest.mark.parametrize("window_seconds", [3600, 3000])
async def test_the_last_line_of_a_chunk_is_counted_wherever_questions_begin(
    loki: Loki, window_seconds: int
) -> None:
    sets = [(Streams(loki, window_seconds=window_seconds), within_ns) for within_ns in WITHIN_NS]
    start_ns = sets[0][0].now_ns // DAY_NS * DAY_NS - 3 * DAY_NS
    end_ns = start_ns + DAY_NS
    for rounds in (1, 2):
        # What is written out ends a chunk, and what comes later begins another.
        for streams, within_ns in sets:
            at_ns = start_ns + 5 * HOUR_NS + within_ns
            times = [at_ns - n * SECOND_NS for n in range(60)]
            if rounds == 2:
                times = [at_ns + 1 + n * SECOND_NS for n in range(60)]
            streams.write([(time_ns, call(note=f"{time_ns}")) for time_ns in times])
        for streams, _ in sets:
            streams.flush(start_ns, end_ns, 60 * rounds)
    for streams, within_ns in sets:
        at_ns = start_ns + 5 * HOUR_NS + within_ns
        whole = await streams.read(start_ns, end_ns)
        before, after = await streams.read(start_ns, at_ns), await streams.read(at_ns, end_ns)
        assert (total(whole), total(before), total(after)) == (120, 59, 61)
        assert facts(before).tallies + facts(after).tallies == facts(whole).tallies
        for users in (True, False):
            counted = await streams.count(start_ns, end_ns, "cowsay", users=users)
            assert isinstance(counted, Ok | Partial)
            assert sum(counted.facts.calls.values()) == 120


async def test_edges_that_a_deadline_leaves_unsure_are_gaps(loki: Loki) -> None:
    streams = Streams(loki)
    start_ns = streams.now_ns // HOUR_NS * HOUR_NS - 6 * HOUR_NS
    lines = [start_ns + n * 60 * SECOND_NS for n in range(120)]
    streams.write([(at_ns, call(note=f"{at_ns}")) for at_ns in lines])
    streams.flush(start_ns, start_ns + 2 * HOUR_NS, len(lines))

    def hang_at_edges(request: Request) -> Reply | None:
        return HANG if "count_over_time" in request.parameters.get("query", "") else None

    async with interposed(loki.url, hang_at_edges) as url:
        outcome = await streams.at(url).read(start_ns, start_ns + 2 * HOUR_NS, seconds=1)
    assert isinstance(outcome, Partial)
    # Two windows at a time are read, each of which then waits for the edge where it begins. The
    # calls for these end a moment before the report, which may be enough to read one more.
    first, second, *_ = outcome.gaps
    assert first.span.start_ns == start_ns
    step_ns = second.span.start_ns - start_ns
    assert step_ns in (HOUR_NS, HOUR_NS // 2)
    edges = [gap.span for gap in outcome.gaps if gap.span.length_ns == 1]
    assert edges == [
        Span(start_ns + n * step_ns, start_ns + n * step_ns + 1) for n in range(len(edges))
    ]
    assert len(edges) >= 2
    unread = Span(start_ns + len(edges) * step_ns, start_ns + 2 * HOUR_NS)
    rest = [gap.span for gap in outcome.gaps if gap.span not in edges]
    assert rest == ([unread] if unread.length_ns else [])
    assert {gap.reason for gap in outcome.gaps} == {GapReason.DEADLINE}
    assert total(outcome) == len(edges) * step_ns // (60 * SECOND_NS)
