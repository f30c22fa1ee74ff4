"""What happens to pods while their logs are read, which no real cluster does on time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from oscar_metrics.facts import CallLog, LogStream, Roster
from oscar_metrics.outcome import Gap, GapReason, Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.pod_logs import PodLogs, PodLogsSettings
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span, format_instant, parse_instant
from tests.unit.test_kubernetes_client import Answer, client_of, half, reply

T_NS = parse_instant("2026-04-24T10:00:00Z")
SPAN = Span(T_NS, T_NS + HOUR_NS)
NOW_NS = SPAN.stop_ns + HOUR_NS


def pods(started_ns: int, *, restarts: int = 0, before: tuple[int, int] | None = None) -> bytes:
    last: dict[str, Any] = {}
    if before is not None:
        started, finished = map(format_instant, before)
        last = {"terminated": {"startedAt": started, "finishedAt": finished}}
    status = {
        "name": "oscar",
        "restartCount": restarts,
        "state": {"running": {"startedAt": format_instant(started_ns)}},
        "lastState": last,
    }
    about = {"name": "oscar-0", "uid": "1", "namespace": "oscar", "labels": {"app": "oscar"}}
    pod = {"metadata": about, "status": {"containerStatuses": [status]}}
    return reply(json.dumps({"kind": "PodList", "items": [pod], "metadata": {}}).encode())


def log(*instants_ns: int) -> bytes:
    return "".join(
        f"{format_instant(at_ns)} [GIN-EXECUTIONS-LOGGER] {format_instant(at_ns)} | 200 | 1ms | "
        f"10.0.0.1 | POST    /run/svc | u\n"
        for at_ns in instants_ns
    ).encode()


LINES = log(T_NS - SECOND_NS, *(T_NS + n * SECOND_NS for n in range(100)))


async def read(answer: Answer, tmp_path: Path, seconds: float = 5.0) -> Outcome[CallLog]:
    async with client_of(answer, tmp_path) as (client, _):
        outcomes = await PodLogs(client, PodLogsSettings()).read(
            SPAN,
            frozenset({LogStream.EXECUTIONS}),
            Countries(GeoIP.open(None), Roster()),
            now_ns=NOW_NS,
            deadline=asyncio.get_running_loop().time() + seconds,
        )
    return outcomes[LogStream.EXECUTIONS]


async def test_a_restart_while_a_log_is_read_makes_its_runs_a_gap(tmp_path: Path) -> None:
    began_ns, restarted_ns = T_NS - HOUR_NS, NOW_NS - SECOND_NS
    lists = [
        pods(began_ns),
        pods(restarted_ns, restarts=1, before=(began_ns, restarted_ns - SECOND_NS)),
    ]

    outcome = await read(lambda line: reply(LINES) if "/log" in line else lists.pop(0), tmp_path)

    assert isinstance(outcome, Partial)
    assert outcome.gaps == (Gap(span=SPAN, reason=GapReason.FAILED),)
    assert "pod oscar-0: it restarted while its log was read" in outcome.notes


async def test_pods_that_are_gone_after_the_reading_were_read(tmp_path: Path) -> None:
    lists = [pods(T_NS - HOUR_NS), reply(b'{"kind":"PodList","items":[],"metadata":{}}')]

    outcome = await read(lambda line: reply(LINES) if "/log" in line else lists.pop(0), tmp_path)

    assert isinstance(outcome, Ok), outcome
    assert outcome.facts.lines_understood == 100


async def test_whether_a_pod_restarted_is_a_doubt_where_nobody_says(tmp_path: Path) -> None:
    lists = [pods(T_NS - HOUR_NS), reply(b"", "500 Internal Server Error")]

    outcome = await read(lambda line: reply(LINES) if "/log" in line else lists.pop(0), tmp_path)

    assert isinstance(outcome, Partial)
    assert outcome.gaps == ()
    assert outcome.notes[0].startswith("whether a pod restarted meanwhile is not known")


@pytest.mark.parametrize(
    ("beginning", "reason"),
    [
        # The line is cut: what was read stands, and from a minute before its end on is a gap.
        (half(LINES), GapReason.FAILED),
        (half(LINES).replace(b"Connection: close\r\n", b""), GapReason.DEADLINE),
    ],
)
async def test_a_log_that_ends_too_soon_covers_what_came(
    beginning: bytes, reason: GapReason, tmp_path: Path
) -> None:
    def answer(line: str) -> bytes:
        return beginning if "/log" in line else pods(T_NS - HOUR_NS)

    outcome = await read(answer, tmp_path, seconds=0.5)

    assert isinstance(outcome, Partial)
    assert outcome.facts.lines_understood == 100
    assert outcome.gaps[-1] == Gap(
        span=Span(T_NS + (99 - 60) * SECOND_NS, SPAN.stop_ns), reason=reason
    )


@pytest.mark.parametrize(
    ("log_reply", "reason"),
    [
        # So the kubelet says, with a good status, that a log is gone.
        (reply(b"unable to retrieve container logs for containerd://5ec2e7"), GapReason.ROTATED),
        (reply(b'{"reason":"BadRequest"}', "400 Bad Request"), GapReason.ROTATED),
        (reply(b"", "404 Not Found"), GapReason.ROTATED),
        (reply(b"", "500 Internal Server Error"), GapReason.FAILED),
        (reply(b"", "403 Forbidden"), GapReason.FAILED),
    ],
)
@pytest.mark.parametrize("started_ns", [T_NS - HOUR_NS, T_NS])
async def test_a_log_that_is_not_handed_out_is_unavailable(
    log_reply: bytes, reason: GapReason, started_ns: int, tmp_path: Path
) -> None:
    outcome = await read(lambda line: log_reply if "/log" in line else pods(started_ns), tmp_path)

    assert isinstance(outcome, Unavailable)
    assert reason in outcome.notes[0]
    assert "5ec2e7" not in str(outcome)


async def test_lines_without_a_time_are_a_doubt(tmp_path: Path) -> None:
    body = LINES + b"rpc error: code = Unknown\n"

    outcome = await read(
        lambda line: reply(body) if "/log" in line else pods(T_NS - HOUR_NS), tmp_path
    )

    assert isinstance(outcome, Partial)
    assert outcome.notes[0] == "pod oscar-0: 1 lines of its log have no time"


async def test_more_pods_than_are_read_is_unavailable(tmp_path: Path) -> None:
    two = json.loads(pods(T_NS).partition(b"\r\n\r\n")[2])
    two["items"] *= 2
    answer = reply(json.dumps(two).encode())

    async with client_of(lambda _: answer, tmp_path) as (client, _):
        outcomes = await PodLogs(client, PodLogsSettings(most_pods=1)).read(
            SPAN,
            frozenset({LogStream.EXECUTIONS}),
            Countries(GeoIP.open(None), Roster()),
            now_ns=NOW_NS,
            deadline=None,
        )

    assert {stream: outcome.notes for stream, outcome in outcomes.items()} == {
        LogStream.EXECUTIONS: ("pods app=oscar in namespace oscar: there are more than 1",),
    }


NOT_ITS_API = "kubernetes answered something that is not its API (a proxy's page, or a wrong URL?)"


@pytest.mark.parametrize(
    "changed",
    [
        {"namespace": "other"},
        {"labels": {"app": "other"}},
        {"labels": None},
        {},  # the same pod twice
    ],
)
async def test_pods_that_were_not_asked_for_are_not_read(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    said = json.loads(pods(T_NS - HOUR_NS).partition(b"\r\n\r\n")[2])
    another = json.loads(json.dumps(said["items"][0]))
    another["metadata"] |= {"uid": "2", **changed} if changed else {}
    said["items"].append(another)

    outcome = await read(
        lambda line: reply(LINES) if "/log" in line else reply(json.dumps(said).encode()), tmp_path
    )

    assert isinstance(outcome, Unavailable)
    assert outcome.notes == (f"pods app=oscar in namespace oscar: {NOT_ITS_API}",)


PORTAL = b"<html>\n<body>\nPlease log in\n</body>\n</html>\n"


@pytest.mark.parametrize(
    "answer",
    [
        reply(PORTAL, "200 OK", "Content-Type: text/html; charset=utf-8"),
        reply(LINES, "200 OK", "Content-Encoding: gzip"),
        # As long as the connection lasts: nobody can tell the end of it from a failure.
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + LINES,
        reply(b"", "302 Found", "Location: http://127.0.0.1:1/"),
        # As if nothing had been logged.
        reply(b"", "204 No Content"),
        reply(b"", "206 Partial Content"),
    ],
)
async def test_what_is_no_log_is_not_read(answer: bytes, tmp_path: Path) -> None:
    outcome = await read(lambda line: answer if "/log" in line else pods(T_NS - HOUR_NS), tmp_path)

    assert isinstance(outcome, Unavailable)
    assert f"pod oscar-0: {NOT_ITS_API}" in outcome.notes
    assert [gap.reason for gap in outcome.gaps] == [GapReason.FAILED]


async def test_a_page_that_calls_itself_text_is_no_log_either(tmp_path: Path) -> None:
    outcome = await read(
        lambda line: reply(PORTAL) if "/log" in line else pods(T_NS - HOUR_NS), tmp_path
    )

    assert isinstance(outcome, Unavailable)
