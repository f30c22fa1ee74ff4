from __future__ import annotations

import random
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import CountryFrom, Kind
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Gap, GapReason, Ok, Partial, Unavailable
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.loki_streams import Streams, call, facts, total


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
        # Loki weighs only what is written out.
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
    assert streams.calls("too_slow") > 0


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
    assert "Loki gave up on the question, which took it too long" in outcome.notes
    assert total(outcome) == 3_600 - gap.span.length_ns // SECOND_NS


async def test_credentials_and_tenant_are_sent(loki: Loki) -> None:
    seen: list[Request] = []

    def look(request: Request) -> Reply:
        seen.append(request)
        return Reply(status=404)

    async with interposed(loki.url, look) as url:
        await Streams(loki, url=url, tenant="team", credentials={"token": "t"}).check()
        basic = {"username": "u", "password": "p"}
        await Streams(loki, url=url, credentials=basic).check()
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


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ("limits", b'{"limits": {"max_entries_limit_per_query": -5}}'),
        ("limits", b'{"limits": {"retention_period": "' + b"9" * 5000 + b'y"}}'),
        ("split", b'{"data": {"stats": {"summary": {"splits": 86400000000000}}}}'),
        ("split", b'{"data": {"stats": {"summary": {"splits": -5}}}}'),
        ("split", b'{"data": {"stats": {"summary": {"splits": 0}}}}'),
    ],
)
async def test_what_loki_says_of_itself_and_cannot_be_changes_no_number(
    loki: Loki, route: str, said: bytes
) -> None:
    streams = Streams(loki)
    streams.write([(streams.slot_ns + n * SECOND_NS, call(f"{n}")) for n in range(900)])
    asked = 0

    def absurd(request: Request) -> Reply | None:
        nonlocal asked
        asked += 1
        about = "split" if "om_asked=" in request.parameters.get("query", "") else request.path
        return Reply(body=said) if route in about else None

    async with interposed(loki.url, absurd) as url:
        outcome = await streams.at(url).read(streams.slot_ns, streams.slot_ns + SLOT_NS)
    assert isinstance(outcome, Ok), outcome
    assert total(outcome) == 900
    assert asked < 20


async def test_what_loki_warns_of_may_be_missing(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write([(streams.slot_ns + n * SECOND_NS, call(f"{n}")) for n in range(10)])
    warned = b',"warnings":["a querier is down"]}'

    def warning(request: Request) -> Reply | None:
        if "direction" not in request.parameters:
            return None
        real = httpx.get(f"{loki.url}{request.path}", params=request.parameters)
        return Reply(body=real.content.rstrip()[:-1] + warned)

    async with interposed(loki.url, warning) as url:
        there = streams.at(url)
        outcome = await there.read(streams.slot_ns, streams.slot_ns + SLOT_NS)
        counted = await there.count(streams.slot_ns, streams.slot_ns + SLOT_NS, "cowsay")
    for found in (outcome, counted):
        assert isinstance(found, Partial), found
        assert found.doubts == ("Loki says that its answers may be incomplete",)
    assert total(outcome) == 10


async def test_a_loki_that_never_answers_in_time_says_nothing(tmp_path: Path) -> None:
    require("loki")
    with Loki.start(tmp_path, limits={"query_timeout": "1ms"}) as server:
        streams = Streams(server, window_seconds=900, narrowest_window_seconds=600)
        step_ns = SLOT_NS // 20_000
        streams.write([(streams.slot_ns + n * step_ns, call(f"{n}")) for n in range(20_000)])
        outcome = await streams.read(streams.slot_ns, streams.slot_ns + SLOT_NS)
    asked = Span(streams.slot_ns, streams.slot_ns + SLOT_NS)
    assert outcome == Unavailable(
        origin="loki",
        notes=("Loki gave up on the question, which took it too long",),
        gaps=(Gap(span=asked, reason=GapReason.FAILED),),
    )


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
    edge, gap = outcome.gaps
    # Whether that is all there was at its beginning could not be asked any more.
    assert edge.span == Span(start_ns, start_ns + 1)
    assert {edge.reason, gap.reason} == {GapReason.FAILED}
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
