"""Failed log-ins are counted by address; good ones are never refused."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import pytest
from structlog.testing import capture_logs

from oscar_metrics.auth.access_settings import AccessSettings
from tests.contract.neighbours import basic, bearer, neighbourhood

PATH = "/system/metrics/summary"
WRONG_PASSWORD, WRONG_TOKEN = basic(password="wrong"), bearer("mallory's")
TWO_MAY_FAIL = AccessSettings(failed_logins_per_minute=2)


def statuses(client: httpx.Client, *asked: Mapping[str, str]) -> list[int]:
    return [client.get(PATH, headers=headers).status_code for headers in asked]


@pytest.mark.parametrize("wrong", [WRONG_PASSWORD, WRONG_TOKEN, {"Authorization": "Digest x"}])
def test_too_many_failures_are_429_and_the_right_credentials_get_in(
    wrong: Mapping[str, str],
) -> None:
    with neighbourhood(access=TWO_MAY_FAIL) as client:
        assert statuses(client, wrong, wrong, wrong, basic(), bearer("alice"), wrong) == [
            *(401, 401, 429),
            *(200, 200, 429),
        ]
        refused = client.get(PATH, headers=wrong)
        assert refused.json()["error"] == "too many failed log-ins"
        assert 0 < int(refused.headers["retry-after"]) <= 60
        assert "www-authenticate" not in refused.headers
        assert client.get(PATH).status_code == 401
        assert client.get("/healthz", headers=wrong).status_code == 200


def test_who_did_not_try_and_whose_issuer_is_out_do_not_count() -> None:
    with neighbourhood(access=TWO_MAY_FAIL) as client:
        idle = [{}, bearer("out")] * 5
        assert statuses(client, *idle, WRONG_TOKEN, WRONG_TOKEN, WRONG_TOKEN)[-3:] == [
            *(401, 401, 429),
        ]


def test_nobody_guesses_the_password_unseen_where_no_log_in_is_needed() -> None:
    with capture_logs() as logged, neighbourhood(access=TWO_MAY_FAIL) as client:
        for headers in ({}, bearer("alice"), WRONG_TOKEN, *[WRONG_PASSWORD] * 3):
            response = client.get("/readyz", headers=headers)
            assert (response.status_code, response.json()) == (200, {"status": "ready"})
        assert "sources" in client.get("/readyz", headers=basic()).json()
        assert statuses(client, WRONG_PASSWORD) == [429]
    failed = [line for line in logged if line["event"] == "log-in failed"]
    assert [(line["route"], line["address"]) for line in failed] == [("/readyz", "127.0.0.1")] * 3


def from_address(address: str) -> Mapping[str, str]:
    return {**WRONG_PASSWORD, "X-Forwarded-For": address}


def test_behind_a_trusted_proxy_each_address_is_counted_on_its_own() -> None:
    access = AccessSettings(failed_logins_per_minute=1, trusted_proxies=("127.0.0.0/8",))
    with neighbourhood(access=access) as client:
        assert statuses(
            client,
            from_address("203.0.113.1"),
            from_address("203.0.113.2"),
            from_address("198.51.100.7, 203.0.113.1"),
            from_address("2001:db8::1"),
            from_address("2001:db8::2"),
        ) == [401, 401, 429, 401, 429]


def test_nobody_else_is_believed_about_an_address() -> None:
    access = AccessSettings(failed_logins_per_minute=1, trusted_proxies=("192.0.2.1",))
    with neighbourhood(access=access) as client:
        asked = [from_address(f"203.0.113.{number}") for number in range(3)]
        assert statuses(client, *asked) == [401, 429, 429]


@pytest.mark.parametrize(
    ("authorizations", "challenge"),
    [
        ([basic(), basic()], "Basic"),
        ([basic(), bearer("alice")], "Bearer"),
        ([bearer("alice"), bearer("alice")], "Bearer"),
        ([{"Authorization": "Bearer " + "x" * 40_000}], "Bearer"),
        ([{"Authorization": "Basic " + "x" * 40_000}], "Basic"),
    ],
)
def test_odd_credentials_are_wrong_credentials(
    authorizations: list[Mapping[str, str]], challenge: str
) -> None:
    with neighbourhood() as client:
        lines = [("Authorization", one["Authorization"]) for one in authorizations]
        response = client.get(PATH, headers=httpx.Headers(lines))
    assert (response.status_code, response.json()) == (401, {"error": "unauthorized"})
    assert response.headers["www-authenticate"].split()[0] == challenge
