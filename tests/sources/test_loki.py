from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_metrics.errors import SettingsError
from oscar_metrics.facts import CountryFrom, Kind, LogStream
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Gap, GapReason, Ok, Partial, Unavailable
from oscar_metrics.sources.loki import queries
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Span
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.loki_streams import Streams, call, facts, total


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("loki")
    with Loki.start(tmp_path_factory.mktemp("loki")) as server:
        yield server


@pytest.fixture(scope="module")
def small_loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """A Loki that allows little."""
    require("loki")
    limits = {
        "max_entries_limit_per_query": 100,
        "max_query_series": 5,
        "max_query_length": "10m",
    }
    with Loki.start(tmp_path_factory.mktemp("small-loki"), limits=limits) as server:
        yield server


@pytest.mark.parametrize("lines", [1, 4_999, 5_000, 5_001, 50_000])
async def test_every_line_is_counted(loki: Loki, lines: int) -> None:
    streams = Streams(loki)
    start_ns = streams.slot_ns
    step_ns = HOUR_NS // lines
    streams.write([(start_ns + n * step_ns, call(f"u{n % 7}")) for n in range(lines)])
    streams.keep_alive(start_ns, start_ns + HOUR_NS)
    outcome = await streams.read(start_ns, start_ns + HOUR_NS)
    assert isinstance(outcome, Ok)
    assert total(outcome) == lines == outcome.facts.lines_seen
    assert len({key.user for key in outcome.facts.tallies}) == min(lines, 7)


async def test_lines_of_one_nanosecond_across_the_edges_of_pages(loki: Loki) -> None:
    streams = Streams(loki)
    at_ns = streams.slot_ns + 10 * SECOND_NS
    entries = [(at_ns - n, call(note=f"before {n}")) for n in range(1, 4_991)]
    entries += [(at_ns, call(note=f"at {n}")) for n in range(4_999)]
    entries += [(at_ns + 1, call(note=f"next {n}")) for n in range(5_000)]
    entries += [(at_ns + 2, call(note=f"dense {n}")) for n in range(8_000)]
    entries += [(at_ns + 3, call(note="after"))]
    streams.write(entries)
    end_ns = streams.slot_ns + SLOT_NS
    assert total(await streams.read(streams.slot_ns, end_ns)) == 22_990
    assert total(await streams.read(at_ns, at_ns + 1)) == 4_999
    assert total(await streams.read(at_ns + 1, at_ns + 2)) == 5_000
    assert total(await streams.read(at_ns + 2, at_ns + 3)) == 8_000


async def test_one_nanosecond_of_many_streams_with_equal_lines(loki: Loki) -> None:
    streams = Streams(loki, page_lines=500, instant_lines=500)
    at_ns = streams.slot_ns
    for pod in range(40):
        streams.write([(at_ns, call(f"u{n}")) for n in range(60)], pod=f"p{pod}", country="ES")
    outcome = await streams.read(at_ns, at_ns + SLOT_NS)
    assert isinstance(outcome, Ok)
    assert total(outcome) == 2_400
    assert set(facts(outcome).tallies.values()) == {40}
    assert {(key.country, key.country_from) for key in outcome.facts.tallies} == {
        ("ES", CountryFrom.LABEL)
    }


async def test_equal_lines_of_one_time_count_once_in_a_stream_and_again_in_another(
    loki: Loki,
) -> None:
    streams = Streams(loki)
    at_ns = streams.slot_ns
    for pod in ("a", "b"):
        streams.write([(at_ns, call()), (at_ns, call()), (at_ns + 1, call())], pod=pod)
    assert total(await streams.read(at_ns, at_ns + SLOT_NS)) == 4


async def test_an_instant_with_more_lines_than_may_be_split_is_a_gap(loki: Loki) -> None:
    streams = Streams(loki, page_lines=10, instant_lines=10, instant_parts=3)
    at_ns = streams.slot_ns + SECOND_NS
    streams.write([(at_ns - 1, call()), (at_ns + 1, call())])
    streams.write([(at_ns, call(note=f"{n}")) for n in range(100)])
    outcome = await streams.read(streams.slot_ns, streams.slot_ns + SLOT_NS)
    assert isinstance(outcome, Partial)
    assert outcome.gaps == (Gap(span=Span(at_ns, at_ns + 1), reason=GapReason.TOO_DENSE),)
    assert total(outcome) == 2


@pytest.fixture(scope="module")
def crowded(loki: Loki) -> tuple[Streams, list[int]]:
    """Lines in heaps of up to 30 at a nanosecond, in three streams, read 20 at a time."""
    streams = Streams(loki, page_lines=20, instant_lines=25)
    dice = random.Random(7)
    times: list[int] = []
    for pod in "abc":
        entries = []
        for _ in range(60):
            at_ns = streams.slot_ns + dice.randrange(40) * dice.choice((1, SECOND_NS))
            entries += [(at_ns, call(note=f"{n}")) for n in range(dice.randrange(12))]
        entries = sorted(set(entries))
        streams.write(entries, pod=pod)
        times += [at_ns for at_ns, _ in entries]
    return streams, times


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts=st.lists(st.integers(0, 41), min_size=3, max_size=3, unique=True), unit=st.booleans())
async def test_spans_that_touch_add_up(
    crowded: tuple[Streams, list[int]], cuts: list[int], unit: bool
) -> None:
    streams, times = crowded
    a, b, c = (
        streams.slot_ns + cut * (SECOND_NS if unit else 1) + (0 if unit else 1)
        for cut in sorted(cuts)
    )
    first, second, both = [await streams.read(*ends) for ends in ((a, b), (b, c), (a, c))]
    assert total(both) == sum(a <= at_ns < c for at_ns in times)
    assert facts(first).tallies + facts(second).tallies == facts(both).tallies


async def test_small_limits_are_learned_and_kept_to(small_loki: Loki) -> None:
    streams = Streams(small_loki)
    start_ns, end_ns = streams.slot_ns, streams.slot_ns + HOUR_NS
    lines = [call(f"u{n}", kind=("run", "job")[n % 2]) for n in range(950)]
    entries = [(start_ns + n * HOUR_NS // 1000, line) for n, line in enumerate(lines)]
    entries += [(end_ns - 1, call(note=f"last {n}")) for n in range(350)]
    streams.write(entries)
    streams.keep_alive(start_ns, end_ns)
    outcome = await streams.read(start_ns, end_ns)
    assert isinstance(outcome, Ok), outcome
    assert total(outcome) == 1_300
    assert streams.calls("limit") > 0
    # Five series are not enough for so many users, so Loki's refusal leads to paging.
    counted = await streams.count(start_ns, end_ns, "cowsay")
    assert isinstance(counted, Ok), counted
    assert sum(counted.facts.calls.values()) == 1_300
    assert len(counted.facts.users) == 951


async def test_a_window_that_is_too_much_for_loki_is_halved(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    require("loki")
    directory = tmp_path_factory.mktemp("frugal-loki")
    with Loki.start(directory, limits={"max_query_bytes_read": "30KB"}) as server:
        streams = Streams(server)
        start_ns = streams.now_ns // HOUR_NS * HOUR_NS - 30 * HOUR_NS
        streams.write([(start_ns + n * SECOND_NS, call(f"u{n}")) for n in range(3_600)])
        # Loki weighs only what is written out, and counting the whole is too much as well.
        server.flush_and_wait(
            f'{{namespace="{streams.namespace}"}}', start_ns, start_ns + SECOND_NS, 1
        )
        outcome = await streams.read(start_ns, start_ns + HOUR_NS)
        assert isinstance(outcome, Ok), outcome
        assert total(outcome) == 3_600
        assert streams.calls("limit") > 0
        counted = await streams.count(start_ns, start_ns + HOUR_NS, "cowsay", users=False)
        assert isinstance(counted, Ok), counted
        assert counted.facts.calls == {Kind.SYNC: 3_600}


async def test_limits_nobody_tells_are_learned_from_refusals(small_loki: Loki) -> None:
    streams = Streams(small_loki)
    start_ns = streams.slot_ns
    streams.write([(start_ns + n * SECOND_NS, call(note=f"{n}")) for n in range(250)])

    def no_limits(request: Request) -> Reply | None:
        return Reply(status=404) if "limits" in request.path else None

    async with interposed(small_loki.url, no_limits) as url:
        outcome = await streams.at(url).read(start_ns, start_ns + SLOT_NS)
    assert isinstance(outcome, Ok), outcome
    assert total(outcome) == 250
    assert streams.calls("limit") > 0


async def test_time_outs_make_windows_smaller_until_loki_can_answer(loki: Loki) -> None:
    streams = Streams(loki)
    start_ns = streams.slot_ns
    streams.write([(start_ns + n * SECOND_NS, call(note=f"{n}")) for n in range(3_600)])

    def slow(request: Request) -> Reply | None:
        if "direction" not in request.parameters:
            return None
        length_ns = int(request.parameters["end"]) - int(request.parameters["start"])
        return Reply(status=504, body=b"request timed out") if length_ns > 7 * 60e9 else None

    async with interposed(loki.url, slow) as url:
        outcome = await streams.at(url).read(start_ns, start_ns + HOUR_NS)
    assert isinstance(outcome, Ok), outcome
    assert total(outcome) == 3_600
    assert streams.calls("timeout") > 0


async def test_a_window_given_up_is_a_gap_and_the_others_count(loki: Loki) -> None:
    streams = Streams(loki, window_seconds=900, narrowest_window_seconds=300)
    start_ns = streams.slot_ns
    streams.write([(start_ns + n * SECOND_NS, call(note=f"{n}")) for n in range(3_600)])
    broken = Span(start_ns + SLOT_NS + 450 * SECOND_NS, start_ns + SLOT_NS + 451 * SECOND_NS)

    def slow_once(request: Request) -> Reply | None:
        if "direction" in request.parameters:
            asked = Span(int(request.parameters["start"]), int(request.parameters["end"]))
            if asked.clip(broken).length_ns:
                return Reply(status=504, body=b"request timed out")
        return None

    async with interposed(loki.url, slow_once) as url:
        outcome = await streams.at(url).read(start_ns, start_ns + HOUR_NS)
    assert isinstance(outcome, Partial), outcome
    (gap,) = outcome.gaps
    assert gap.reason is GapReason.FAILED
    assert broken.clip(gap.span) == broken
    assert gap.span.stop_ns == start_ns + 2 * SLOT_NS
    assert "Loki did not answer in time" in outcome.notes
    assert total(outcome) == 3_600 - gap.span.length_ns // SECOND_NS


async def test_credentials_and_tenant_are_sent(loki: Loki) -> None:
    seen: list[Request] = []

    def look(request: Request) -> Reply:
        seen.append(request)
        return Reply(status=404)

    async with interposed(loki.url, look) as url:
        await Streams(loki, url=url, tenant="team", token="t").check()
        await Streams(loki, url=url, username="u", password="p").check()
    first, second = seen[1], seen[-1]
    assert (first.headers["x-scope-orgid"], first.headers["authorization"]) == ("team", "Bearer t")
    assert second.headers["authorization"] == "Basic dTpw"
    assert "x-scope-orgid" not in second.headers


OTHER_TIME = (
    b'{"status":"success","data":{"resultType":"streams","result":'
    b'[{"stream":{},"values":[["5","x"]]}]}}'
)
STRANGE_TIME = OTHER_TIME.replace(b'"5"', b'"soon"')


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(body=b"<html>sign in</html>", content_type="text/html"), "is not its API"),
        (Reply(body=b'{"status":"success","data":{"resultType":"str'), "is not its API"),
        (Reply(body=b'{"status":"success","data":{"resultType":"matrix","result":[]}}'), "not its"),
        (Reply(body=STRANGE_TIME), "is not its API"),
        (Reply(body=OTHER_TIME), "is not its API"),
        (Reply(body=b'{"status":"success"}', length=100), "could not be reached"),
        (Reply(status=302), "is not its API"),
        (Reply(status=401, body=b"no org id"), "refused our credentials"),
        (Reply(status=403), "does not let us read this"),
        (Reply(status=404), "does not know what was asked"),
        (Reply(status=400, body=b"parse error at line 1"), "refused the question"),
        (Reply(status=429, body=b"too many outstanding requests"), "too many"),
        (Reply(status=500, body=b"panic"), "failed"),
        (Reply(body=b" " * 2_000_000), "larger answer than is accepted"),
        (HANG, "did not answer in time"),
    ],
)
async def test_what_is_no_answer_is_no_number(loki: Loki, reply: Reply, says: str) -> None:
    limits = UpstreamLimits(attempts=1, timeout_seconds=0.2, body_bytes=1_000_000)
    streams = Streams(loki, limits=limits, narrowest_window_seconds=900)
    streams.write([(streams.slot_ns, call())])
    async with interposed(loki.url, lambda _: reply) as url:
        there = streams.at(url)
        outcome = await there.read(streams.slot_ns, streams.slot_ns + SLOT_NS)
        counted = await there.count(streams.slot_ns, streams.slot_ns + SLOT_NS, "cowsay")
        found = await there.check()
    assert isinstance(outcome, Unavailable), outcome
    assert isinstance(counted, Unavailable), counted
    assert says in "; ".join(outcome.notes)
    assert [finding.level for finding in found] == [Level.PROBLEM]


async def test_a_loki_that_never_answers_in_time_says_nothing(tmp_path: Path) -> None:
    require("loki")
    with Loki.start(tmp_path, limits={"query_timeout": "1ms"}) as server:
        streams = Streams(server, window_seconds=900, narrowest_window_seconds=600)
        step_ns = SLOT_NS // 20_000
        streams.write([(streams.slot_ns + n * step_ns, call(f"{n}")) for n in range(20_000)])
        outcome = await streams.read(streams.slot_ns, streams.slot_ns + SLOT_NS)
    assert outcome == Unavailable(origin="loki", notes=("Loki did not answer in time",))


async def test_a_loki_that_is_gone_says_nothing(tmp_path: Path) -> None:
    require("loki")
    with Loki.start(tmp_path) as server:
        streams = Streams(server)
        streams.write([(streams.slot_ns, call())])
        assert total(await streams.read(streams.slot_ns, streams.slot_ns + SLOT_NS)) == 1
        server.stop()
        outcome = await streams.read(streams.slot_ns, streams.slot_ns + SLOT_NS)
        assert outcome == Unavailable(origin="loki", notes=("Loki could not be reached",))


async def test_what_was_counted_before_loki_went_stands_and_the_rest_is_a_gap(loki: Loki) -> None:
    one_at_a_time = UpstreamLimits(attempts=1, timeout_seconds=5, concurrency=1)
    streams = Streams(loki, window_seconds=900, page_lines=100, limits=one_at_a_time)
    start_ns = streams.slot_ns
    streams.write([(start_ns + n * SECOND_NS, call(note=f"{n}")) for n in range(3_600)])
    pages = 0

    def gone_after_ten(request: Request) -> Reply | None:
        nonlocal pages
        pages += "direction" in request.parameters
        return Reply(length=10) if pages > 10 else None

    async with interposed(loki.url, gone_after_ten) as url:
        outcome = await streams.at(url).read(start_ns, start_ns + HOUR_NS)
    assert isinstance(outcome, Partial), outcome
    (gap,) = outcome.gaps
    assert gap.reason is GapReason.FAILED
    assert gap.span.stop_ns == start_ns + HOUR_NS
    assert total(outcome) == (gap.span.start_ns - start_ns) // SECOND_NS > 800
    assert "Loki could not be reached" in outcome.notes


async def test_a_deadline_leaves_what_was_counted_and_names_the_rest(loki: Loki) -> None:
    one_at_a_time = UpstreamLimits(attempts=1, timeout_seconds=5, concurrency=1)
    streams = Streams(loki, window_seconds=900, limits=one_at_a_time)
    start_ns = streams.slot_ns
    streams.write([(start_ns + n * SECOND_NS, call(note=f"{n}")) for n in range(3_600)])

    def hangs_in_the_third(request: Request) -> Reply | None:
        third = int(request.parameters.get("start", 0)) >= start_ns + 2 * SLOT_NS
        return HANG if third else None

    async with interposed(loki.url, hangs_in_the_third) as url:
        there = streams.at(url)
        outcome = await there.read(start_ns, start_ns + HOUR_NS, seconds=1.5)
        nothing = await there.read(start_ns, start_ns + HOUR_NS, seconds=-1)
    assert isinstance(outcome, Partial), outcome
    assert outcome.gaps == (
        Gap(span=Span(start_ns + 2 * SLOT_NS, start_ns + HOUR_NS), reason=GapReason.DEADLINE),
    )
    assert total(outcome) == 1_800
    assert nothing == Unavailable(
        origin="loki", notes=("Loki had not finished when the report's deadline came",)
    )


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
    assert first == 'Loki has no streams {namespace="nowhere", app="ingress-nginx"}'
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
    assert streams.calls("ok") < 20
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
        older = await streams.read(now_ns - 5 * DAY_NS, now_ns - 4 * DAY_NS)
        assert older == Unavailable(
            origin="loki", notes=("all of the range: older than the source keeps",)
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


async def test_check_names_what_is_there_and_what_is_not(loki: Loki) -> None:
    streams = Streams(loki, exposed_namespace="nowhere", limits=UpstreamLimits(attempts=1))
    streams.write([(streams.now_ns - SECOND_NS, call())], country="ES")
    found = {finding.says: finding.level for finding in await streams.check()}
    labels = f'{{namespace="{streams.namespace}", app="oscar"}}'
    assert found[f"request-logs: 1 streams {labels}"] is Level.OK
    assert found["request-logs: lines in 0.25 of the last 24 h, and of late"] is Level.OK
    assert found["its clock agrees with ours"] is Level.OK
    assert any(
        says.startswith("exposed-request-logs: Loki has no streams") and level is Level.WARNING
        for says, level in found.items()
    )


async def test_check_names_a_log_collector_that_stopped(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write([(streams.slot_ns, "probe")])
    found = {finding.says: finding.level for finding in await streams.check()}
    assert found["request-logs: no stream label names a country"] is Level.WARNING
    assert found["request-logs: no line of the last day is let through by the query"]
    assert any("no line of any kind for" in says for says in found)


def test_a_query_that_is_none_stops_the_start(loki: Loki) -> None:
    with pytest.raises(SettingsError, match="LOKI_EXPOSED_QUERY: expected a log query"):
        queries(LokiSettings(url=loki.url, exposed_query="rate(x)"))
