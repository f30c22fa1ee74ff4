"""What a real Loki says by parts of quarter-hours is what it says of the span, taken apart."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import CallLog, LogStream, SlotPart, SlottedLog
from oscar_metrics.outcome import GapReason, Ok, Outcome, Partial, Unavailable, with_facts
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.slotted_tallying import lines_of, part_of
from oscar_metrics.timerange import DAY_NS, HOUR_NS, MILLISECOND_NS, SECOND_NS, SLOT_NS, Span
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.loki_streams import COUNTRIES, Streams, call

EXECUTIONS = frozenset({LogStream.EXECUTIONS})


async def ask(streams: Streams, span: Span) -> Outcome[SlottedLog]:
    """What reading a span by slots gives; the same, added up, as reading it whole."""
    logs = LokiLogs(streams.settings, telemetry=streams.telemetry)
    try:
        outcomes = await logs.read_slots(
            span, EXECUTIONS, COUNTRIES, now_ns=streams.now_ns, deadline=None
        )
    finally:
        await logs.aclose()
    parts, whole = outcomes[LogStream.EXECUTIONS], await streams.read(span.start_ns, span.stop_ns)
    if isinstance(parts, Unavailable):
        assert parts == whole
    else:
        assert with_facts(parts, together(parts.facts)) == whole
    return parts


def together(slotted: SlottedLog) -> CallLog:
    tallies = Counter({key: 0 for log in slotted.values() for key in log.tallies})
    for log in slotted.values():
        tallies.update(log.tallies)
    seen, understood = lines_of(slotted)
    return CallLog(tallies=tallies, lines_seen=seen, lines_understood=understood)


def totals(outcome: Outcome[SlottedLog]) -> dict[SlotPart, int]:
    assert isinstance(outcome, Ok | Partial), outcome
    return {part: log.tallies.total() for part, log in outcome.facts.items()}


@pytest.fixture(scope="module")
def busy(loki: Loki) -> tuple[Streams, list[int]]:
    """Two hours in three streams: scattered lines, and heaps around the boundaries of slots."""
    streams = Streams(loki, page_lines=60, instant_lines=70)
    dice = random.Random(11)
    times: list[int] = []
    for pod in "abc":
        entries = set()
        for number in range(300):
            at_ns = streams.slot_ns + dice.randrange(2 * HOUR_NS)
            entries.add((at_ns, call(f"u{number % 5}", status=dice.choice((200, 404, 999)))))
        for slot in range(9):
            for offset_ns in (-MILLISECOND_NS, -1, 0, 1, MILLISECOND_NS):
                at_ns = streams.slot_ns + slot * SLOT_NS + offset_ns
                heap = range(dice.choice((0, 1, 3, 40)))
                entries |= {(at_ns, call(note=f"{number}")) for number in heap}
        streams.write(sorted(entries), pod=pod, country=dice.choice(("ES", "FR")))
        times += [at_ns for at_ns, line in entries if " | 999 | " not in line]
    return streams, times


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    slots=st.tuples(st.integers(0, 3), st.integers(4, 8)),
    off_ns=st.tuples(
        st.sampled_from((0, 1, -1, 77 * SECOND_NS)), st.sampled_from((0, 1, -1, 77 * SECOND_NS))
    ),
)
async def test_each_line_is_in_its_part_of_the_asked_span(
    busy: tuple[Streams, list[int]], slots: tuple[int, int], off_ns: tuple[int, int]
) -> None:
    streams, times = busy
    span = Span(
        streams.slot_ns + slots[0] * SLOT_NS + off_ns[0],
        streams.slot_ns + slots[1] * SLOT_NS + off_ns[1],
    )
    expected = Counter(part_of(at_ns) for at_ns in times if at_ns in span)
    found = totals(await ask(streams, span))
    assert {part: count for part, count in found.items() if count} == expected


async def test_a_heap_at_one_instant_is_in_its_part(loki: Loki) -> None:
    streams = Streams(loki, page_lines=10, instant_lines=10)
    at_ns = streams.slot_ns + SLOT_NS
    streams.write([(at_ns, call(note=f"{n}")) for n in range(95)])
    streams.write([(at_ns + 1, call(note=f"{n}")) for n in range(35)])
    found = totals(await ask(streams, Span(streams.slot_ns, at_ns + SLOT_NS)))
    slot = at_ns // SLOT_NS
    assert found == {SlotPart(slot, first=True): 95, SlotPart(slot, first=False): 35}


async def test_lines_that_only_a_metric_query_finds_are_in_their_part(loki: Loki) -> None:
    # Loki passes over the chunk that ends at the very millisecond where an hour begins.
    streams = Streams(loki)
    hour_ns = streams.now_ns // HOUR_NS * HOUR_NS - 30 * HOUR_NS
    streams.write([(hour_ns - n * SECOND_NS, call(note=f"{n}")) for n in range(50)], country="ES")
    streams.flush(hour_ns - HOUR_NS, hour_ns + HOUR_NS, 50)
    found = totals(await ask(streams, Span(hour_ns - HOUR_NS, hour_ns + HOUR_NS)))
    slot = hour_ns // SLOT_NS
    assert found == {SlotPart(slot - 1, first=False): 49, SlotPart(slot, first=True): 1}


async def test_silent_slots_are_gaps_and_have_no_part(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write([(streams.slot_ns, call()), (streams.slot_ns + 3 * SLOT_NS, "probe")])
    outcome = await ask(streams, Span(streams.slot_ns, streams.slot_ns + HOUR_NS))
    assert isinstance(outcome, Partial)
    assert totals(outcome) == {part_of(streams.slot_ns): 1}
    assert [(gap.span.length_ns, gap.reason) for gap in outcome.gaps] == [
        (2 * SLOT_NS, GapReason.NO_LINES)
    ]


async def test_both_logs_are_read_and_one_that_is_not_there_is_missing(loki: Loki) -> None:
    streams = Streams(loki, exposed_namespace="nowhere")
    streams.write([(streams.slot_ns, call())])
    logs = LokiLogs(streams.settings, telemetry=streams.telemetry)
    span = Span(streams.slot_ns, streams.slot_ns + SLOT_NS)
    try:
        outcomes = await logs.read_slots(
            span, frozenset(LogStream), COUNTRIES, now_ns=streams.now_ns, deadline=None
        )
    finally:
        await logs.aclose()
    assert isinstance(outcomes[LogStream.EXECUTIONS], Ok)
    exposed = outcomes[LogStream.EXPOSED]
    assert isinstance(exposed, Unavailable)
    # Silence, and not failure, so that it need not be asked again and again.
    assert {gap.reason for gap in exposed.gaps} == {GapReason.NO_LINES}


async def kept_from(streams: Streams, seconds: float | None = None) -> int | None:
    logs = LokiLogs(streams.settings, telemetry=streams.telemetry)
    try:
        return await logs.kept_from(streams.now_ns, seconds)
    finally:
        await logs.aclose()


@pytest.mark.parametrize(
    ("limits", "kept_ns"),
    [
        ({"retention_period": "48h", "max_query_lookback": "0s"}, 2 * DAY_NS),
        ({"retention_period": "48h", "max_query_lookback": "24h"}, DAY_NS),
        ({"max_query_lookback": "36h"}, 36 * HOUR_NS),
        ({}, None),
    ],
)
async def test_how_far_back_loki_reaches_is_what_its_limits_say(
    tmp_path: Path, limits: dict[str, str], kept_ns: int | None
) -> None:
    require("loki")
    with Loki.start(tmp_path, limits=limits) as server:
        streams = Streams(server)
        # A slot more than the limit is given up, since time passes while Loki is asked.
        expected = None if kept_ns is None else streams.now_ns - kept_ns + SLOT_NS
        assert await kept_from(streams) == expected


async def test_how_far_back_is_not_known_of_a_loki_that_does_not_say(loki: Loki) -> None:
    streams = Streams(loki)

    def silent(request: Request) -> Reply | None:
        return Reply(status=404) if "limits" in request.path else None

    def hangs(_request: Request) -> Reply | None:
        return HANG

    async with interposed(loki.url, silent) as url:
        assert await kept_from(streams.at(url)) is None
    async with interposed(loki.url, hangs) as url:
        assert await kept_from(streams.at(url), 0.0) is None
