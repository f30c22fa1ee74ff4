"""What `check` says of a log in Loki, and so of the pipeline that brings it there."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_metrics.findings import Finding, Level
from oscar_metrics.sources.loki import queries
from oscar_metrics.sources.loki_api import LokiApi
from oscar_metrics.sources.loki_check import LokiCheck
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.interposed import HANG, Reply, Request, interposed
from tests.sources.loki_streams import Streams, call

PUBLIC, PRIVATE = "79.1.1.1", "10.0.0.1"
GATEWAY = (
    '{ip} - - [23/Jan/2026:18:13:07 +0000] "GET /system/services/demo/exposed/{n} HTTP/1.1"'
    ' {status} 17 "-" "curl/8.7.1" 109 0.003 [oscar-svc-demo-svc-80] [] 10.244.0.223:80 17 0.002'
    " 200 a"
)
# What must not be read in any finding.
PLANTED = ("jane.doe", "s3cr3t", "79.117.163", "eyJhbGci")


def says(found: list[Finding], level: Level, *texts: str) -> bool:
    return any(
        one.level is level and all(text in f"{one.says} {one.change}" for text in texts)
        for one in found
    )


def of(found: list[Finding], stream: str) -> list[Finding]:
    return [one for one in found if one.says.startswith(f"{stream}: ")]


def executions(count: int, ip: str, user: str = "alice") -> list[str]:
    return [call(user, note=f"{n}").replace(PRIVATE, ip) for n in range(count)]


def newly(streams: Streams, lines: list[str]) -> list[tuple[int, str]]:
    """Lines of the last second."""
    return [(streams.now_ns - SECOND_NS + n, line) for n, line in enumerate(lines)]


async def test_a_whole_pipeline_is_all_right(loki: Loki) -> None:
    streams = Streams(loki)
    slots = [
        (streams.now_ns // SLOT_NS - n) * SLOT_NS + (0 if n == 0 else 60 * SECOND_NS)
        for n in range(98)
    ]
    gateway = {"exposed_namespace": streams.namespace, "exposed_app": "gateway"}
    streams.settings = Streams(loki, namespace=streams.namespace, **gateway).settings
    lines = [GATEWAY.format(ip=PUBLIC, n=n, status=200) for n in range(5)]
    for app, calls in (("oscar", executions(5, PUBLIC)), ("gateway", lines)):
        streams.write([(at_ns, "probe") for at_ns in slots], app=app, pod="p")
        streams.write(newly(streams, calls), app=app, pod="p", geoip_country_code="ES")
        # A call from within the cluster has no country, and that is no fault.
        streams.write(newly(streams, [calls[0].replace(PUBLIC, "-")]), app=app, pod="q")
    streams.write(newly(streams, ["probe"]), pod="q")
    day_ns = streams.now_ns // DAY_NS * DAY_NS
    streams.flush(day_ns - 2 * DAY_NS, day_ns + DAY_NS, 2 * 98 + 12 + 1)
    # One in six is more than a few.
    found = await streams.check()
    worse = [one for one in found if one.level is not Level.OK]
    assert [one.says for one in worse] == [
        f"{stream}: 17% of 6 lines of the last day have no country label;"
        " 1 of 2 pods never have one"
        for stream in ("request-logs", "exposed-request-logs")
    ]
    for app in ("oscar", "gateway"):
        more = executions(9, PUBLIC, "bob")
        if app == "gateway":
            more = [GATEWAY.format(ip=PUBLIC, n=n, status=204) for n in range(9)]
        streams.write(newly(streams, more), app=app, pod="p", geoip_country_code="ES")
    found = await streams.check()
    assert [one.says for one in found if one.level is not Level.OK] == []
    for stream in ("request-logs", "exposed-request-logs"):
        about = of(found, stream)
        assert says(about, Level.OK, "a line in every quarter of an hour of the last day")
        assert says(about, Level.OK, "7% of 15 lines of the last day have no country label")
        assert says(about, Level.OK, "every call of the last day is of a known form")
    assert says(found, Level.OK, "its clock agrees with ours")


async def test_what_is_there_and_what_is_not_is_named(loki: Loki) -> None:
    streams = Streams(loki, exposed_namespace="nowhere", limits=UpstreamLimits(attempts=1))
    streams.write([(streams.now_ns - SECOND_NS, call())], country="ES")
    found = await streams.check()
    labels = f'{{namespace="{streams.namespace}", app="oscar"}}'
    assert says(found, Level.OK, f"request-logs: 1 streams {labels}")
    assert says(found, Level.WARNING, "exposed-request-logs: Loki has no streams")
    assert says(found, Level.WARNING, "1 of 1 streams have no label pod", "delivery.alloy")


async def test_a_loki_that_nothing_is_delivered_to_is_told_from_other_labels(
    tmp_path: Path,
) -> None:
    require("loki")
    with Loki.start(tmp_path) as server:
        streams = Streams(server)
        found = await streams.check()
        nothing = "request-logs: Loki has no streams at all of the last 30 days"
        assert says(found, Level.PROBLEM, nothing, "have a log collector deliver to it")


async def test_a_collector_that_stopped_days_ago_is_no_other_label(loki: Loki) -> None:
    streams = Streams(loki)
    stopped_ns = streams.slot_ns // DAY_NS * DAY_NS - 2 * DAY_NS
    streams.write([(stopped_ns, call())], pod="p")
    streams.flush(stopped_ns, stopped_ns + SECOND_NS, 1)
    found = await streams.check()
    assert says(found, Level.PROBLEM, "no line of any kind in the range", "log collector")


async def test_a_log_collector_that_stopped_is_named(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write([(streams.slot_ns, "probe")])
    found = await streams.check()
    assert says(found, Level.WARNING, "request-logs: no stream label names a country")
    assert says(found, Level.WARNING, "no line of the last day is let through by the query")
    assert says(found, Level.WARNING, "no line of any kind for", "since", "heartbeat.alloy")


async def test_silence_is_told_with_when_it_was_and_what_would_end_it(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write(newly(streams, executions(1, PUBLIC)), pod="p", country="ES")
    streams.keep_alive(streams.now_ns - 2 * HOUR_NS, streams.now_ns - HOUR_NS)
    found = await streams.check()
    assert says(found, Level.WARNING, "no line of any kind in 22.", "whether it was quiet or")
    assert says(found, Level.WARNING, "the longest time from", "run heartbeat.alloy")


async def test_lines_of_an_unknown_form_are_counted_and_shown_without_what_they_say(
    loki: Loki,
) -> None:
    streams = Streams(loki)
    settings = {"exposed_namespace": streams.namespace, "exposed_app": "gateway"}
    streams.settings = Streams(loki, namespace=streams.namespace, **settings).settings
    new = (
        "[GIN-EXECUTIONS-LOGGER] 2027-01-01 | v2 | 200 | 79.117.163.5 |"
        " POST /run/cowsay?token=s3cr3t{n} | jane.doe@egi.eu | Bearer eyJhbGci"
    )
    streams.write(newly(streams, [new.format(n=n) for n in range(3)]), pod="p")
    streams.write(newly(streams, [*executions(4, PUBLIC), "[GIN] | about /run/ning"]), pod="p")
    odd = GATEWAY.format(ip="79.117.163.5", n="?user=jane.doe@egi.eu", status="s3cr3t")
    known = GATEWAY.format(ip=PUBLIC, n=1, status=404)
    streams.write(newly(streams, [odd, known]), app="gateway", pod="p")
    found = await streams.check()
    assert says(
        of(found, "request-logs"),
        Level.WARNING,
        "3 lines of the last day are calls of an unknown form",
        "[GIN-EXECUTIONS-LOGGER] 9999-99-99 | a9 | 999 | 99.999.999.9 |"
        " POST /run/aaaa?aaaa=a9aa9a9 | aaaa.aaa@aaa.aa | aaaa aaaa",
        "expected is [GIN-EXECUTIONS-LOGGER] time | status",
    )
    assert says(
        of(found, "exposed-request-logs"),
        Level.WARNING,
        "1 lines of the last day are calls of an unknown form",
        'GET /system/services/aaaa/exposed/?aaaa=aaaa.aaa@aaa.aa aaaa/9.9" a9aa9a 99',
        "ingress-nginx",
    )
    everything = " ".join(f"{one.says} {one.change}" for one in found)
    assert not [secret for secret in PLANTED if secret in everything]


async def test_addresses_that_are_the_clusters_own_are_named(loki: Loki) -> None:
    streams = Streams(loki)
    streams.write(newly(streams, executions(3, PRIVATE)), pod="p")
    found = await streams.check()
    assert says(found, Level.WARNING, "newest 3 lines", "is private", "externalTrafficPolicy")
    # One that a database of countries may know, and those that are cut off, are another matter.
    streams.write(newly(streams, executions(1, PUBLIC)), pod="p")
    assert not says(await streams.check(), Level.WARNING, "is private")
    hidden = Streams(loki)
    hidden.write(newly(hidden, executions(3, "-")), pod="p")
    assert not says(await hidden.check(), Level.WARNING, "is private")


async def test_a_log_that_two_collectors_ship_is_named(loki: Loki) -> None:
    streams = Streams(loki)
    lines = newly(streams, executions(3, PUBLIC))
    streams.write(lines, pod="p", geoip_country_code="ES")
    assert not says(await streams.check(), Level.PROBLEM, "second time")
    # Later by the time at which the other read them, and under labels of its own.
    streams.write([(at_ns + 1000, line) for at_ns, line in lines[:2]], job="oscar/oscar")
    found = await streams.check()
    assert says(found, Level.PROBLEM, "2 of the 5 lines", "differ in job, pod")


async def test_lines_that_were_read_again_with_another_country_are_no_doubles(loki: Loki) -> None:
    streams = Streams(loki)
    lines = newly(streams, executions(3, PUBLIC))
    streams.write(lines, pod="p", geoip_country_code="ES")
    streams.write(lines[:1], pod="p")
    assert not says(await streams.check(), Level.PROBLEM, "second time")


async def test_a_loki_without_structured_metadata_is_named_where_lines_are_missing(
    tmp_path: Path,
) -> None:
    require("loki")
    with Loki.start(tmp_path, limits={"allow_structured_metadata": False}) as server:
        streams = Streams(server)
        said = "takes no structured metadata"
        assert says(await streams.check(), Level.WARNING, said, "structured_metadata = {}")
        exposed = {"exposed_namespace": streams.namespace, "exposed_app": "oscar"}
        streams.settings = Streams(server, namespace=streams.namespace, **exposed).settings
        streams.write(newly(streams, executions(3, PUBLIC)), pod="p")
        assert not says(await streams.check(), Level.WARNING, said)


@pytest.mark.parametrize(
    ("part", "what"),
    [("count_over_time", "silence"), ("!~ `", "forms of lines")],
)
async def test_what_cannot_be_looked_at_is_said_and_stops_nothing(
    loki: Loki, part: str, what: str
) -> None:
    streams = Streams(loki)
    streams.write(newly(streams, executions(3, PRIVATE)), pod="p")
    refusal = Reply(status=400, body=b"the query would read too many bytes: jane.doe s3cr3t")

    def refuse(request: Request) -> Reply | None:
        return refusal if part in request.parameters.get("query", "") else None

    async with interposed(loki.url, refuse) as url:
        found = await streams.at(url).check()
    assert says(found, Level.OK, "request-logs: 1 streams")
    says_what = f"request-logs: {what} could not be looked at: Loki refused because"
    assert says(found, Level.WARNING, says_what)
    assert says(found, Level.WARNING, "is private") is (what != "silence")
    everything = " ".join(one.says for one in found)
    assert not [secret for secret in PLANTED if secret in everything]


async def test_a_loki_that_hangs_ends_the_check(loki: Loki) -> None:
    streams = Streams(loki)
    async with interposed(loki.url, lambda _: HANG) as url:
        there = streams.at(url)
        api = LokiApi(there.settings, there.telemetry)
        found = await LokiCheck(api, queries(there.settings), seconds=0.2).findings(0)
        await api.aclose()
    assert [one.level for one in found] == [Level.WARNING]
    assert "not everything could be looked at in 0.2 s" in found[0].says
