"""Who may ask what: every refusal of the contract for the administrator and for users."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator

import httpx
import pytest

from oscar_metrics.admission import Admitted
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR, Caller
from oscar_metrics.scope import ScopeMode, Viewer
from tests.contract.neighbours import (
    ALICE,
    ALICES_REQUESTS,
    ALL_REQUESTS,
    BOB,
    CREDENTIALS,
    NO_INVENTORY,
    bearer,
    neighbourhood,
)
from tests.contract.serving import RANGE

SPAN = f"start={RANGE['start']}&end={RANGE['end']}"
BAD_END = "end=yesterday"
ADMINISTRATORS, USERS = ("administrator", "root"), ("alice", "bob", "nobody")
EVERYBODY = (*ADMINISTRATORS, *USERS)
OWNER_IS_FOR_ADMINISTRATORS = "owner filter is only available with admin authentication"
NOT_FOUND = "metrics owner not found"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with neighbourhood() as client:
        yield client


Expected = tuple[int, str | None]
OK: Expected = (200, None)
FORBIDDEN: Expected = (403, "forbidden")


def bad(text: str) -> Expected:
    return (400, text)


# What is asked; what administrators are answered; what alice is.
TABLE: list[tuple[str, Expected, Expected]] = [
    ("", OK, OK),
    ("summary", OK, OK),
    *((f"breakdown?group_by={key}", OK, OK) for key in ("service", "user", "country")),
    ("breakdown?group_by=service&format=csv", OK, OK),
    ("breakdown?group_by=owner", OK, FORBIDDEN),
    ("breakdown?group_by=OWNER&format=csv", OK, FORBIDDEN),
    ("owners", OK, FORBIDDEN),
    ("owners?nope=1", OK, FORBIDDEN),
    # The owner filter.
    *(
        (f"{route}{joined}owner={owner}", administrators, bad(OWNER_IS_FOR_ADMINISTRATORS))
        for route, joined in (
            ("", "?"),
            ("summary", "?"),
            ("breakdown?group_by=service", "&"),
            ("value?service_id=cowsay&metric=cpu-hours", "&"),
            ("cowsay", "?"),
            ("cowsay?metric=gpu-hours", "&"),
        )
        for owner, administrators in (
            (BOB, OK),
            (ALICE, OK),
            ("cluster_admin", OK),
            ("nobody", (404, NOT_FOUND)),
        )
    ),
    *(
        (f"{route}{joined}owner={blank}", OK, OK)
        for route, joined in (("", "?"), ("summary", "?"), ("breakdown?group_by=user", "&"))
        for blank in ("", "%20")
    ),
    # /value: service, owner and scope, metric, time, what is unknown.
    ("value?owner=nobody", bad("service_id is required"), bad("service_id is required")),
    (
        "value?service_id=cowsay&owner=nobody&metric=nope",
        (404, NOT_FOUND),
        bad(OWNER_IS_FOR_ADMINISTRATORS),
    ),
    (
        f"value?service_id=cowsay&metric=nope&{BAD_END}",
        bad("invalid metric key"),
        bad("invalid metric key"),
    ),
    (
        f"value?service_id=cowsay&metric=cpu-hours&{BAD_END}&nope=1",
        bad("invalid end timestamp"),
        bad("invalid end timestamp"),
    ),
    (
        "value?service_id=cowsay&metric=cpu-hours&nope=1",
        bad("unknown parameter"),
        bad("unknown parameter"),
    ),
    ("value?service_id=plants&metric=nope", bad("invalid metric key"), FORBIDDEN),
    # The path route: service, scope, time, owner, metric.
    (f"%20?{BAD_END}", bad("serviceName is required"), bad("serviceName is required")),
    (
        f"cowsay?{BAD_END}&owner=nobody&metric=nope",
        bad("invalid end timestamp"),
        bad("invalid end timestamp"),
    ),
    ("cowsay?owner=nobody&metric=nope", (404, NOT_FOUND), bad(OWNER_IS_FOR_ADMINISTRATORS)),
    ("cowsay?metric=nope", bad("invalid metric key"), bad("invalid metric key")),
    (
        "cowsay?metric=countries-list",
        bad("unsupported metric for value query"),
        bad("unsupported metric for value query"),
    ),
    (f"plants?{BAD_END}&metric=nope", bad("invalid end timestamp"), FORBIDDEN),
    ("plants?owner=nobody", (404, NOT_FOUND), FORBIDDEN),
    # /breakdown: time, group_by present, format, csv and users, owner and scope, group_by known.
    (
        f"breakdown?{BAD_END}&owner=nobody",
        bad("invalid end timestamp"),
        bad("invalid end timestamp"),
    ),
    ("breakdown?owner=nobody", bad("group_by is required"), bad("group_by is required")),
    (
        "breakdown?group_by=owner&format=xml&owner=nobody",
        bad("invalid format"),
        bad("invalid format"),
    ),
    (
        "breakdown?group_by=service&format=csv&include_users=true&owner=nobody",
        bad("include_users is not supported for csv"),
        bad("include_users is not supported for csv"),
    ),
    (
        "breakdown?group_by=nope&owner=nobody",
        (404, NOT_FOUND),
        bad(OWNER_IS_FOR_ADMINISTRATORS),
    ),
    (
        f"breakdown?group_by=owner&owner={BOB}",
        OK,
        bad(OWNER_IS_FOR_ADMINISTRATORS),
    ),
    ("breakdown?group_by=nope", bad("unsupported group_by"), bad("unsupported group_by")),
    # Time comes before owner and scope where no service is named.
    (
        f"summary?{BAD_END}&owner=nobody",
        bad("invalid end timestamp"),
        bad("invalid end timestamp"),
    ),
    (f"?{BAD_END}&owner=nobody", bad("invalid end timestamp"), bad("invalid end timestamp")),
    # What exists, existed, and never did.
    *(
        (path.format(name), OK, alices)
        for path in ("{0}", "{0}?metric=cpu-hours", "value?service_id={0}&metric=cpu-hours")
        for name, alices in (
            ("cowsay", OK),
            ("alices-shared", OK),
            ("alices-deleted", OK),
            ("plants", FORBIDDEN),
            ("bobs-shared", FORBIDDEN),
            ("bobs-deleted", FORBIDDEN),
            ("grayify", FORBIDDEN),
            ("nowhere", FORBIDDEN),
        )
    ),
]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("asked", "administrators", "alices"), TABLE)
def test_each_caller_is_answered_what_is_theirs(
    client: httpx.Client, asked: str, administrators: Expected, alices: Expected, method: str
) -> None:
    span = "" if "end=" in asked else f"{'&' if '?' in asked else '?'}{SPAN}"
    for name in (*ADMINISTRATORS, "alice"):
        status, error = alices if name == "alice" else administrators
        response = client.request(
            method, f"/system/metrics/{asked}{span}", headers=CREDENTIALS[name]
        )
        assert response.status_code == status, name
        if method == "GET" and error is not None:
            assert response.json()["error"] == error, name


ABOUT_ONE_SERVICE = (
    "{0}",
    "{0}/",
    "{0}?metric=cpu-hours",
    "{0}?metric=nope",
    "{0}?metric=countries-list",
    "{0}?end=yesterday",
    "{0}?start=2026-05-01T00:00:00Z&end=2026-04-01T00:00:00Z",
    "{0}?owner=alice@egi.eu",
    "{0}?nope=1",
    "{0}?as_of=2026-04-30T00:00:00Z",
    "{0}?restated_since=2026-04-30T00:00:00Z",
    "value?service_id={0}",
    "value?service_id={0}&metric=cpu-hours",
    "value?service_id={0}&metric=requests-exposed-per-service",
    "value?service_id={0}&metric=nope",
    "value?service_id={0}&metric=cpu-hours&start=yesterday",
    "value?service_id={0}&metric=cpu-hours&nope=1",
    "value?service_id={0}&metric=cpu-hours&as_of=2026-04-30T00:00:00Z",
)


def said(response: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """All of an answer but for when it was given."""
    headers = [(name, value) for name, value in response.headers.items() if name != "date"]
    return response.status_code, response.content, headers


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ABOUT_ONE_SERVICE)
@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("alice", ("plants", "bobs-shared", "bobs-deleted", "grayify")),
        ("bob", ("alices-shared", "alices-deleted", "grayify")),
        ("nobody", ("cowsay", "plants", "alices-deleted", "grayify")),
    ],
)
def test_what_is_foreign_and_what_never_was_are_one_answer(
    client: httpx.Client, name: str, foreign: tuple[str, ...], path: str, method: str
) -> None:
    answers = [
        said(
            client.request(
                method, f"/system/metrics/{path.format(service)}", headers=CREDENTIALS[name]
            )
        )
        for service in (*foreign, "nowhere", "n", "n" * 2000, "a%22%0A")
    ]
    assert all(answer == answers[0] for answer in answers)
    status, body, _ = answers[0]
    assert status == 403
    assert body == (b'{"error":"forbidden"}' if method == "GET" else b"")


def total(client: httpx.Client, name: str, asked: str = "") -> int:
    response = client.get(f"/system/metrics/summary?{SPAN}{asked}", headers=CREDENTIALS[name])
    requests: int = response.json()["totals"]["requests_count_total"]
    return requests


def test_everybody_has_their_own_numbers(client: httpx.Client) -> None:
    assert [total(client, name) for name in EVERYBODY] == [
        ALL_REQUESTS,
        ALL_REQUESTS,
        ALICES_REQUESTS,
        100,
        0,
    ]


@pytest.mark.parametrize("name", ADMINISTRATORS)
def test_an_administrator_who_narrows_a_report_has_the_owners_numbers(
    client: httpx.Client, name: str
) -> None:
    assert total(client, name, f"&owner={ALICE}") == ALICES_REQUESTS
    assert total(client, name, "&owner=cluster_admin") == 50
    foreign = client.get(
        f"/system/metrics/plants?{SPAN}&owner={ALICE}", headers=CREDENTIALS[name]
    ).json()
    assert [metric["value"] for metric in foreign["metrics"]] == [0, 0, 0, 0, 0, 0]


def test_what_is_public_is_seen_where_that_is_set_and_its_users_are_not() -> None:
    with neighbourhood(mode=ScopeMode.VISIBLE) as client:
        headers = CREDENTIALS["alice"]
        assert client.get("/system/metrics/grayify", headers=headers).status_code == 200
        assert client.get("/system/metrics/bobs-shared", headers=headers).status_code == 403
        report = client.get(f"/system/metrics/summary?{SPAN}", headers=headers).json()
    assert report["totals"]["requests_count_total"] == ALICES_REQUESTS + 50
    assert report["totals"]["users"] == [ALICE, BOB]


@pytest.mark.parametrize(
    "path",
    [
        "",
        "summary",
        "breakdown?group_by=user",
        "cowsay",
        "nowhere",
        "value?service_id=plants&metric=nope",
    ],
)
def test_without_an_inventory_users_get_nothing_and_administrators_their_reports(
    path: str,
) -> None:
    with neighbourhood(NO_INVENTORY) as client:
        for name in USERS:
            response = client.get(f"/system/metrics/{path}", headers=CREDENTIALS[name])
            assert (response.status_code, response.headers["retry-after"]) == (503, "15")
            body = response.json()
            assert body["error"] == "service inventory unavailable"
            assert body["detail"].startswith("service-inventory: ")
        for name in ADMINISTRATORS:
            response = client.get(f"/system/metrics/{path}", headers=CREDENTIALS[name])
            assert response.status_code == (400 if "nope" in path else 200)


def test_an_issuer_that_is_out_is_503(client: httpx.Client) -> None:
    response = client.get("/system/metrics/summary", headers=bearer("out"))
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json() == {"error": "identity provider unavailable", "detail": "it is out"}


def test_what_was_restated_is_told_of_the_whole_cluster_only(client: httpx.Client) -> None:
    asked = "/system/metrics/summary?restated_since=2026-04-30T00:00:00Z"
    told = client.get(asked, headers=CREDENTIALS["alice"])
    assert (told.status_code, told.json()["parameter"]) == (400, "restated_since")


VIEWERS = [
    Viewer(caller=caller, owner=owner)
    for caller in (
        ADMINISTRATOR,
        Caller(user="root", administrator=True),
        Caller(user="root"),
        Caller(user="alice"),
        Caller(user="alice", administrator=True),
    )
    for owner in ("", "alice", "bob")
]


def test_two_different_viewers_never_share_an_answer() -> None:
    """Whatever is kept for a viewer is kept under the viewer: equal ones see the same."""
    for one, other in itertools.combinations(VIEWERS, 2):
        assert one != other
    assert len(set(VIEWERS)) == len(VIEWERS)
    again = Viewer(caller=Caller(user="alice"), owner="bob")
    assert hash(again) == hash(Viewer(caller=Caller(user="alice"), owner="bob"))
    assert again == Viewer(caller=Caller(user="alice"), owner="bob")


def test_no_report_is_made_but_for_someone_who_was_admitted() -> None:
    not_reports = {"admit", "check", "aclose", "ledger_version"}
    reports = [
        method
        for name, method in inspect.getmembers(Aggregator, inspect.iscoroutinefunction)
        if not name.startswith("_") and name not in not_reports
    ]
    assert {method.__name__ for method in reports} >= {
        "summary",
        "breakdown",
        "value",
        "service",
        "owners",
    }
    for method in reports:
        _, first, *_ = inspect.signature(method, eval_str=True).parameters.values()
        assert first.annotation is Admitted, method.__name__
        assert first.default is inspect.Parameter.empty
    assert inspect.signature(Admitted, eval_str=True).parameters["viewer"].annotation is Viewer
