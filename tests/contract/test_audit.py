"""Every request for a report leaves one line in the log, and nothing in it a caller chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.privacy import Privacy
from oscar_metrics.scope import ScopeMode
from tests.contract.neighbours import (
    ALICE,
    BOB,
    CREDENTIALS,
    NEIGHBOURS,
    NO_INVENTORY,
    basic,
    bearer,
    neighbourhood,
)
from tests.contract.serving import RANGE, World

START, END = RANGE["start"], RANGE["end"]
SPAN = f"start={START}&end={END}"
ASKED = {"start": START, "end": END}
METRICS = "/system/metrics"
ONE = f"{METRICS}/{{serviceName}}"

Line = dict[str, Any]


def lines_of(
    path: str,
    headers: Mapping[str, str],
    world: World = NEIGHBOURS,
    **settings: Any,
) -> list[Line]:
    """What is logged of reports while a server lives that is asked for one."""
    with capture_logs() as logged, neighbourhood(world, **settings) as client:
        client.get(path, headers=headers)
    return [dict(line) for line in logged if line["event"] == "report"]


def line_of(
    path: str, headers: Mapping[str, str], world: World = NEIGHBOURS, **settings: Any
) -> Line:
    [line] = lines_of(path, headers, world, **settings)
    assert line.pop("event") == "report"
    assert line.pop("log_level") == "info"
    assert 0 <= line.pop("seconds") < 60
    return line


ADMINISTRATOR = {"who": "administrator", "via": "basic", "scope": "cluster"}
ROOT = {"who": "root@egi.eu", "via": "bearer", "scope": "cluster"}
OWN = {"who": ALICE, "via": "bearer", "scope": "own"}
WHOLE = {"status": 200, "completeness": "ok", "came": "made"}


@pytest.mark.parametrize(
    ("path", "name", "line"),
    [
        ("", "administrator", {**ADMINISTRATOR, "route": METRICS, "rows": 1}),
        ("/summary", "root", {**ROOT, "route": f"{METRICS}/summary", "rows": 1}),
        (
            "/breakdown?group_by=Country",
            "administrator",
            {
                **ADMINISTRATOR,
                "route": f"{METRICS}/breakdown",
                "group_by": "country",
                "rows": 4,
            },
        ),
        (
            f"/breakdown?group_by=user&format=csv&owner={BOB}",
            "administrator",
            {
                **ADMINISTRATOR,
                "scope": f"owner:{BOB}",
                "route": f"{METRICS}/breakdown",
                "group_by": "user",
                "rows": 2,
                # Of what names no namespace nobody knows whose it is.
                "completeness": "partial",
                "came": "made",
            },
        ),
        (
            "/value?service_id=plants&metric=requests-sync-per-service",
            "root",
            {
                **ROOT,
                "route": f"{METRICS}/value",
                "metric": "requests-sync-per-service",
                "rows": 1,
            },
        ),
        ("/alices-shared", "alice", {**OWN, "route": ONE, "rows": 6}),
        (
            "/alices-shared?metric=users-per-service",
            "alice",
            {**OWN, "route": ONE, "metric": "users-per-service", "rows": 1},
        ),
    ],
)
def test_a_report(path: str, name: str, line: Line) -> None:
    asked = f"{METRICS}{path}{'&' if '?' in path else '?'}{SPAN}"
    said = line_of(asked, CREDENTIALS[name])
    assert said == {**ASKED, **WHOLE, **line}


def test_the_list_of_owners() -> None:
    assert line_of(f"{METRICS}/owners", CREDENTIALS["root"]) == {
        **ROOT,
        "status": 200,
        "completeness": "ok",
        "route": f"{METRICS}/owners",
        "rows": 3,
    }


@pytest.mark.parametrize(
    ("path", "headers", "line"),
    [
        (
            f"/plants?{SPAN}",
            CREDENTIALS["alice"],
            {**OWN, **ASKED, "route": ONE, "status": 403, "error": "forbidden"},
        ),
        (
            "/owners",
            CREDENTIALS["alice"],
            {
                "who": ALICE,
                "via": "bearer",
                "route": f"{METRICS}/owners",
                "status": 403,
                "error": "forbidden",
            },
        ),
        (
            f"?{SPAN}&owner=secret-text",
            CREDENTIALS["administrator"],
            {
                **ADMINISTRATOR,
                **ASKED,
                "scope": "owner",
                "route": METRICS,
                "status": 404,
                "error": "metrics owner not found",
            },
        ),
        (
            "/summary?end=secret-text",
            CREDENTIALS["alice"],
            {
                "who": ALICE,
                "via": "bearer",
                "route": f"{METRICS}/summary",
                "status": 400,
                "error": "invalid end timestamp",
            },
        ),
        (
            "/summary",
            bearer("out"),
            {
                "via": "bearer",
                "route": f"{METRICS}/summary",
                "status": 503,
                "error": "identity provider unavailable",
            },
        ),
        (
            "/summary",
            bearer("secret-text"),
            {
                "via": "bearer",
                "address": "127.0.0.1",
                "route": f"{METRICS}/summary",
                "status": 401,
                "error": "unauthorized",
            },
        ),
        (
            "/secret-text",
            {},
            {"address": "127.0.0.1", "route": ONE, "status": 401, "error": "unauthorized"},
        ),
    ],
)
def test_a_refusal(path: str, headers: Mapping[str, str], line: Line) -> None:
    said = line_of(f"{METRICS}{path}", headers)
    assert said == line
    assert "secret-text" not in str(said)


def test_a_refusal_for_want_of_the_inventory() -> None:
    line = line_of(f"{METRICS}?{SPAN}", CREDENTIALS["alice"], NO_INVENTORY)
    assert line == {
        **ASKED,
        "who": ALICE,
        "via": "bearer",
        "route": METRICS,
        "status": 503,
        "error": "service inventory unavailable",
    }


def test_too_many_failures() -> None:
    with (
        capture_logs() as logged,
        neighbourhood(access=AccessSettings(failed_logins_per_minute=1)) as client,
    ):
        for _ in range(2):
            client.get(METRICS, headers=basic(password="secret-text"))
    lines = [line for line in logged if line["event"] == "report"]
    assert [(line["status"], line["address"]) for line in lines] == [
        (401, "127.0.0.1"),
        (429, "127.0.0.1"),
    ]
    assert lines[1]["error"] == "too many failed log-ins"
    assert "secret-text" not in str(logged)


def test_people_are_shown_as_reports_show_them() -> None:
    privacy = Privacy(pseudonym_key="0123456789abcdef")
    shown = privacy.user(ALICE)
    line = line_of(f"{METRICS}?owner={shown}", CREDENTIALS["root"], privacy=privacy)
    assert line["scope"] == f"owner:{shown}"
    assert ALICE not in str(line)
    # An id is no owner then: else whose a pseudonym is could be tried out.
    line = line_of(f"{METRICS}?owner={ALICE}", CREDENTIALS["root"], privacy=privacy)
    assert line["status"] == 404
    assert shown not in str(line)
    line = line_of(METRICS, CREDENTIALS["alice"], privacy=privacy, mode=ScopeMode.VISIBLE)
    assert (line["who"], line["scope"]) == (shown, "visible")


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/schema", "/nope"])
def test_what_is_no_report_leaves_no_line(path: str) -> None:
    assert lines_of(path, CREDENTIALS["administrator"]) == []
