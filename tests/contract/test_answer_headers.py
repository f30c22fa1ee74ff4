"""What browsers are told: who may read an answer, and what may be done with one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus

import httpx
import pytest

from oscar_metrics.auth.access_settings import AccessSettings
from tests.contract.neighbours import CREDENTIALS, NO_INVENTORY, basic, bearer, neighbourhood

DASHBOARD = "https://dashboard.example.org"
ASKS = {
    "Origin": DASHBOARD,
    "Access-Control-Request-Method": "GET",
    "Access-Control-Request-Headers": "authorization",
}
REPORTS = (
    "/system/metrics",
    "/system/metrics/summary",
    "/system/metrics/breakdown?group_by=user",
    "/system/metrics/x",
)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with neighbourhood() as client:
        yield client


@pytest.fixture(scope="module")
def listed() -> Iterator[httpx.Client]:
    with neighbourhood(access=AccessSettings(cors_origins=(DASHBOARD,))) as client:
        yield client


@pytest.fixture(scope="module")
def off() -> Iterator[httpx.Client]:
    with neighbourhood(access=AccessSettings(cors_origins=("off",))) as client:
        yield client


def words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")}


@pytest.mark.parametrize("path", REPORTS)
def test_a_preflight_is_answered_to_anybody(client: httpx.Client, path: str) -> None:
    response = client.options(path, headers=ASKS)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert words(response.headers["access-control-allow-methods"]) >= {"get"}
    allowed = words(response.headers["access-control-allow-headers"])
    assert allowed >= {"authorization", "content-type", "accept", "prefer"}
    assert allowed >= {"cache-control", "if-none-match"}
    assert int(response.headers["access-control-max-age"]) >= 600
    assert "access-control-allow-credentials" not in response.headers


@pytest.mark.parametrize(
    "headers", [{}, {"Origin": DASHBOARD}, {"Access-Control-Request-Method": "GET"}]
)
def test_other_options_are_what_they_were(
    client: httpx.Client, off: httpx.Client, headers: Mapping[str, str]
) -> None:
    for one in (client, off):
        response = one.options("/system/metrics/summary", headers=headers)
        assert response.status_code == 204
        assert words(response.headers["allow"]) == {"get", "head", "options"}


ANSWERS: list[tuple[str, Mapping[str, str], int]] = [
    ("/system/metrics/summary", CREDENTIALS["administrator"], 200),
    ("/system/metrics/breakdown?group_by=user&format=csv", CREDENTIALS["alice"], 200),
    ("/system/metrics/summary?end=x", CREDENTIALS["alice"], 400),
    ("/system/metrics/summary", {}, 401),
    ("/system/metrics/summary", basic(password="wrong"), 401),
    ("/system/metrics/summary", bearer("x"), 401),
    ("/system/metrics/plants", CREDENTIALS["alice"], 403),
    ("/system/metrics?owner=x", CREDENTIALS["root"], 404),
    ("/system/metrics/a/b", {}, 404),
    ("/system/metrics/summary", bearer("out"), 503),
]


@pytest.mark.parametrize(("path", "headers", "status"), ANSWERS)
def test_pages_may_read_answers_and_errors(
    client: httpx.Client, path: str, headers: Mapping[str, str], status: int
) -> None:
    response = client.get(path, headers={**headers, "Origin": DASHBOARD})
    assert response.status_code == status
    assert response.headers.get_list("access-control-allow-origin") == ["*"]
    assert words(response.headers["access-control-expose-headers"]) == {
        "age",
        "content-disposition",
        "etag",
        "preference-applied",
        "retry-after",
        "www-authenticate",
        "x-completeness",
        "x-ignored-parameters",
    }


def test_too_many_failures_and_mistakes_may_be_read_too() -> None:
    access = AccessSettings(failed_logins_per_minute=1)
    with neighbourhood(NO_INVENTORY, access=access) as client:
        asked = [client.get(REPORTS[0], headers=bearer("x")) for _ in range(2)]
        asked.append(client.get(REPORTS[0], headers=bearer("alice")))
    assert [response.status_code for response in asked] == [401, 429, 503]
    assert all(response.headers["access-control-allow-origin"] == "*" for response in asked)


@pytest.mark.parametrize(("path", "headers", "status"), ANSWERS)
def test_only_listed_origins_are_echoed(
    listed: httpx.Client, path: str, headers: Mapping[str, str], status: int
) -> None:
    for origin in (DASHBOARD, "https://other.example.org", None):
        given = {} if origin is None else {"Origin": origin}
        response = listed.get(path, headers={**headers, **given})
        assert response.status_code == status
        assert "origin" in words(response.headers["vary"])
        allowed = response.headers.get("access-control-allow-origin")
        assert allowed == (DASHBOARD if origin == DASHBOARD else None)
        assert ("access-control-expose-headers" in response.headers) == (origin == DASHBOARD)


def test_a_preflight_of_another_origin_allows_nothing(listed: httpx.Client) -> None:
    assert listed.options(REPORTS[0], headers=ASKS).headers["vary"] == "Origin"
    response = listed.options(REPORTS[0], headers={**ASKS, "Origin": "https://other.example.org"})
    assert response.status_code == 204
    assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize(("path", "headers", "status"), ANSWERS)
def test_where_an_ingress_answers_for_us_we_say_nothing(
    off: httpx.Client, path: str, headers: Mapping[str, str], status: int
) -> None:
    answers = [
        off.get(path, headers={**headers, "Origin": DASHBOARD}),
        off.options("/system/metrics", headers=ASKS),
    ]
    assert answers[0].status_code == status
    for response in answers:
        assert not [name for name in response.headers if name.startswith("access-control")]
        assert "origin" not in words(response.headers.get("vary", ""))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/schema", "/nope"])
def test_pages_elsewhere_have_no_business_with_the_process_itself(
    client: httpx.Client, path: str
) -> None:
    for response in (client.get(path, headers=ASKS), client.options(path, headers=ASKS)):
        assert not [name for name in response.headers if name.startswith("access-control")]


OPEN: list[tuple[str, Mapping[str, str], int]] = [
    (path, {}, 200)
    for path in ("/healthz", "/readyz", "/metrics", "/schema", "/schema/page/swagger-ui.js")
]


@pytest.mark.parametrize(("path", "headers", "status"), [*ANSWERS, *OPEN, ("/nope", {}, 404)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_answer_is_nothing_to_run_or_frame(
    client: httpx.Client, path: str, headers: Mapping[str, str], status: int, method: str
) -> None:
    response = client.request(method, path, headers=headers)
    assert response.status_code == status
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert response.headers.get_list("referrer-policy") == ["no-referrer"]
    assert response.headers.get_list("content-security-policy") == [
        "default-src 'none'; frame-ancestors 'none'"
    ]
    if path not in ("/metrics", "/schema", "/schema/page/swagger-ui.js"):
        is_report = (
            status == HTTPStatus.OK and path.startswith("/system/") and "/owners" not in path
        )
        kept = "private, no-cache" if is_report else "no-store"
        assert response.headers["cache-control"] == kept
    if path.startswith("/system/"):
        assert "authorization" in words(response.headers["vary"])
