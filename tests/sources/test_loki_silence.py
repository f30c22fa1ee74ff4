"""What Loki does not say: silence, what it deleted and what is not understood."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from oscar_metrics.errors import SettingsError
from oscar_metrics.facts import Kind, LogStream
from oscar_metrics.outcome import Gap, GapReason, Ok, Partial, Unavailable
from oscar_metrics.sources.loki import queries
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Span
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.loki_streams import Streams, call, facts, total


async def test_a_quarter_hour_without_any_line_is_a_gap(loki: Loki) -> None:
    streams = Streams(loki)
    slots = [streams.slot_ns + n * SLOT_NS for n in range(6)]
    streams.write([(slots[0], call())])  # a call
    streams.write([(slots[2], "probe")], pod="other")  # alive, by its first instant
    streams.write([(slots[5] + SLOT_NS - 2_000_000, "probe")])
    outcome = await streams.read(slots[0], slots[5] + SLOT_NS)
    assert isinstance(outcome, Partial), outcome
    assert outcome.gaps == (
        Gap(span=Span(slots[1], slots[2]), reason=GapReason.NO_LINES),
        Gap(span=Span(slots[3], slots[5]), reason=GapReason.NO_LINES),
    )
    assert total(outcome) == 1
    # Life anywhere in a slot speaks for any part of it.
    part = await streams.read(slots[2] + SECOND_NS, slots[2] + 2 * SECOND_NS)
    assert isinstance(part, Ok), part
    counted = await streams.count(slots[0], slots[5] + SLOT_NS, "cowsay")
    assert isinstance(counted, Partial), counted
    assert counted.gaps == outcome.gaps


async def test_the_future_is_no_gap_and_the_present_is_as_alive_as_the_last_slot(
    loki: Loki,
) -> None:
    streams = Streams(loki)
    present_ns = streams.now_ns // SLOT_NS * SLOT_NS
    streams.write([(present_ns - SECOND_NS, "probe")])
    outcome = await streams.read(present_ns, present_ns + 5 * HOUR_NS)
    assert isinstance(outcome, Ok), outcome
    assert total(outcome) == 0
    ahead = await streams.read(streams.now_ns + SECOND_NS, streams.now_ns + DAY_NS)
    assert isinstance(ahead, Ok), ahead


async def test_streams_that_do_not_exist_are_compared_with_those_that_do(loki: Loki) -> None:
    streams = Streams(loki, exposed_namespace="nowhere", exposed_app="ingress-nginx")
    loki.push([({"namespace": "traefik", "app": "traefik"}, [(streams.slot_ns, "GET /")])])
    outcome = await streams.read(
        streams.slot_ns, streams.slot_ns + HOUR_NS, stream=LogStream.EXPOSED
    )
    assert isinstance(outcome, Unavailable)
    first, namespaces, apps = outcome.notes
    assert first == (
        'Loki has no streams {namespace="nowhere", app="ingress-nginx"} of the last 30 days'
    )
    assert namespaces.startswith("namespace is not nowhere anywhere, but ")
    assert "traefik" in namespaces
    assert apps.startswith("app is not ingress-nginx anywhere, but oscar, traefik")


async def test_silence_of_streams_that_exist_is_no_zero(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write([(streams.slot_ns, call())])
    outcome = await streams.read(streams.slot_ns + SLOT_NS, streams.slot_ns + HOUR_NS)
    assert isinstance(outcome, Unavailable)
    assert "no line of any kind in the range" in outcome.notes[0]


async def test_what_the_index_knows_to_be_empty_is_neither_paged_nor_trusted_too_soon(
    loki: Loki,
) -> None:
    streams = Streams(loki)
    start_ns = streams.now_ns // DAY_NS * DAY_NS - 60 * DAY_NS
    end_ns = start_ns + 50 * DAY_NS
    empty = await streams.read(start_ns, end_ns)
    assert isinstance(empty, Unavailable), empty
    # Paged by the hour, 50 days would take 1,200.
    assert streams.calls("ok") < 100
    # The empty answers may be in Loki's cache; lines that come late are seen all the same.
    late_ns = start_ns + 31 * DAY_NS + 5
    streams.write([(late_ns, call()), (late_ns + 1, call())])
    streams.flush(start_ns, end_ns, 2)
    outcome = await streams.read(start_ns, end_ns)
    assert isinstance(outcome, Partial), outcome
    assert total(outcome) == 2
    day_ns = late_ns // DAY_NS * DAY_NS
    assert outcome.gaps == (
        Gap(span=Span(start_ns, day_ns), reason=GapReason.NO_LINES),
        Gap(span=Span(day_ns + SLOT_NS, end_ns), reason=GapReason.NO_LINES),
    )
    # Of the last hours the index knows nothing yet.
    streams.write([(streams.slot_ns, call("new"))])
    recent = await streams.read(streams.now_ns - 5 * DAY_NS, streams.now_ns)
    assert total(recent) == 1


async def test_what_loki_deletes_or_hides_is_a_gap(tmp_path: Path) -> None:
    require("loki")
    limits = {"retention_period": "48h", "max_query_lookback": "72h"}
    with Loki.start(tmp_path, limits=limits) as server:
        streams = Streams(server)
        now_ns = streams.now_ns
        streams.write([(streams.slot_ns, call())])
        outcome = await streams.read(now_ns - 5 * DAY_NS, now_ns)
        assert isinstance(outcome, Partial), outcome
        assert outcome.gaps[0] == Gap(
            span=Span(now_ns - 5 * DAY_NS, now_ns - 2 * DAY_NS + SLOT_NS),
            reason=GapReason.RETENTION,
        )
        assert total(outcome) == 1
        gone = Span(now_ns - 5 * DAY_NS, now_ns - 4 * DAY_NS)
        older = await streams.read(gone.start_ns, gone.stop_ns)
        assert older == Unavailable(
            origin="loki",
            notes=("all of the range: older than the source keeps",),
            gaps=(Gap(span=gone, reason=GapReason.RETENTION),),
        )
        found = [finding.says for finding in await streams.check()]
        assert "it keeps lines for 2 days: what is older is a gap in reports" in found


async def test_lines_that_cannot_be_understood_are_counted_and_named(loki: Loki) -> None:
    streams = Streams(loki)
    start_ns = streams.slot_ns
    broken = "[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:00:00Z | 200 | POST /run/cowsay"
    streams.write([(start_ns, call()), (start_ns + 1, broken), (start_ns + 2, "about /run/ning")])
    outcome = await streams.read(start_ns, start_ns + SLOT_NS)
    assert isinstance(outcome, Partial), outcome
    assert (outcome.facts.lines_seen, outcome.facts.lines_understood) == (2, 1)
    assert outcome.notes[0] == "1 of 2 lines recognised as calls could not be understood"
    counted = await streams.count(start_ns, start_ns + SLOT_NS, "cowsay")
    assert isinstance(counted, Partial), counted
    assert counted.facts.calls == {Kind.SYNC: 1}


async def test_exposed_requests_of_a_gateway(loki: Loki) -> None:
    streams = Streams(loki, exposed_app="oscar", ingress_host="example.org")
    streams.settings = msgspec.structs.replace(
        streams.settings,
        exposed_namespace=streams.namespace,
        exposed_query='{namespace="{{namespace}}"} |~ "/exposed|RequestHost"',
    )
    start_ns = streams.slot_ns
    nginx = (
        '172.18.0.1 - - [23/Jan/2026:18:13:07 +0000] "GET /system/services/{}/exposed/ HTTP/1.1"'
        ' 200 17 "-" "curl/8.7.1" 109 0.003 [oscar-svc-{}-svc-80] [] 10.244.0.223:80 17 0.002 200 a'
    )
    traefik = (
        '{{"RequestHost":"{}.example.org","ClientHost":"79.1.1.1","ServiceName":"o-{}-svc-80@k"}}'
    )
    streams.write(
        [
            (start_ns, nginx.format("demo", "demo")),
            (start_ns + 1, nginx.format("demo-2", "demo-2")),
            (start_ns + 2, traefik.format("DEMO", "demo")),
            (start_ns + 3, traefik.format("other", "other")),
        ]
    )
    outcome = await streams.read(start_ns, start_ns + SLOT_NS, stream=LogStream.EXPOSED)
    assert sorted(key.service for key in facts(outcome).tallies) == [
        "demo",
        "demo",
        "demo-2",
        "other",
    ]
    counted = await streams.count(start_ns, start_ns + SLOT_NS, "demo", stream=LogStream.EXPOSED)
    assert isinstance(counted, Ok), counted
    assert counted.facts.calls == {Kind.EXPOSED: 2}


def test_a_query_that_is_none_stops_the_start(loki: Loki) -> None:
    with pytest.raises(SettingsError, match="LOKI_EXPOSED_QUERY: expected a log query"):
        queries(LokiSettings(url=loki.url, exposed_query="rate(x)"))
