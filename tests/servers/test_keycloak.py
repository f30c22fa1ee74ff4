from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import pytest

from tests.servers.keycloak import Keycloak
from tests.servers.process import ServerError
from tests.servers.realms import CLIENTS, PEOPLE

REALMS = list(PEOPLE)


def part(token: str, index: int) -> Any:
    text = token.split(".")[index]
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def header(token: str) -> Any:
    return part(token, 0)


def claims(token: str) -> Any:
    return part(token, 1)


def userinfo(keycloak: Keycloak, realm: str, token: str) -> httpx.Response:
    return httpx.get(
        f"{keycloak.issuer(realm)}/protocol/openid-connect/userinfo",
        headers={"Authorization": f"Bearer {token}"},
        timeout=60,
    )


def published(keycloak: Keycloak, realm: str) -> set[str]:
    """Return the ids of the keys that the realm has for signatures."""
    answer = httpx.get(f"{keycloak.issuer(realm)}/protocol/openid-connect/certs", timeout=60)
    return {key["kid"] for key in answer.json()["keys"] if key["use"] == "sig"}


@pytest.mark.parametrize("realm", REALMS)
def test_a_token_names_its_issuer_and_its_user(keycloak: Keycloak, realm: str) -> None:
    token = keycloak.token(realm, "alice")

    told = httpx.get(f"{keycloak.issuer(realm)}/.well-known/openid-configuration", timeout=60)
    assert claims(token)["iss"] == keycloak.issuer(realm) == told.json()["issuer"]
    assert claims(token)["sub"] == keycloak.subject(realm, "alice")
    assert header(token)["alg"] == "RS256"
    assert header(token)["kid"] in published(keycloak, realm)


def test_a_realm_can_be_reached_by_another_way_for_a_while(keycloak: Keycloak) -> None:
    elsewhere = keycloak.url.replace("127.0.0.1", "localhost")
    with keycloak.reached_by("plain", elsewhere) as issuer:
        assert issuer == keycloak.issuer("plain").replace("127.0.0.1", "localhost")
        told = httpx.get(f"{issuer}/.well-known/openid-configuration", timeout=60).json()
        assert claims(keycloak.token("plain", "bob"))["iss"] == issuer == told["issuer"]
        assert told["userinfo_endpoint"].startswith(issuer)
    assert claims(keycloak.token("plain", "bob"))["iss"] == keycloak.issuer("plain")


@pytest.mark.parametrize(
    ("client", "audience"),
    [
        ("oscar", ["oscar", "account"]),
        ("brief", ["oscar", "account"]),
        ("other", ["other", "account"]),
        ("no-audience", None),
    ],
)
def test_clients_differ_in_audience_and_lifespan(
    keycloak: Keycloak, client: str, audience: list[str] | None
) -> None:
    told = claims(keycloak.token("egi", "bob", client))

    assert told.get("aud") == audience
    assert told["exp"] - told["iat"] == CLIENTS[client][1]


@pytest.mark.parametrize("user", ["alice", "bob", "dave"])
def test_each_realm_tells_groups_in_its_own_way(keycloak: Keycloak, user: str) -> None:
    def told(realm: str) -> Any:
        answer = userinfo(keycloak, realm, keycloak.token(realm, user))
        assert answer.status_code == httpx.codes.OK
        content = answer.json()
        assert content["sub"] == keycloak.subject(realm, user)
        assert content["name"] == f"{user.title()} Example"
        return content

    def groups(realm: str) -> set[str]:
        return set(PEOPLE[realm][user].groups)

    assert set(told("egi")["entitlements"]) == groups("egi")
    roles = {role for role in told("ai4eosc")["realm_access"]["roles"] if role.startswith("vo.")}
    assert roles == groups("ai4eosc")
    assert set(told("plain").get("group_membership", [])) == groups("plain")


def test_a_wrong_password_gets_no_token(keycloak: Keycloak) -> None:
    with pytest.raises(ServerError, match="401"):
        keycloak.token("master", "admin", client="admin-cli")


def test_userinfo_refuses_the_tokens_of_before_a_logout(keycloak: Keycloak) -> None:
    ended = keycloak.token("plain", "erin")
    untouched = keycloak.token("plain", "bob")
    assert userinfo(keycloak, "plain", ended).status_code == httpx.codes.OK

    keycloak.logout("plain", "erin")

    assert userinfo(keycloak, "plain", ended).status_code == httpx.codes.UNAUTHORIZED
    assert userinfo(keycloak, "plain", untouched).status_code == httpx.codes.OK
    again = keycloak.token("plain", "erin")
    assert userinfo(keycloak, "plain", again).status_code == httpx.codes.OK


def test_userinfo_refuses_an_expired_token(keycloak: Keycloak) -> None:
    token = keycloak.token("plain", "erin", "brief")
    expires_seconds = claims(token)["exp"]

    while (answer := userinfo(keycloak, "plain", token)).status_code == httpx.codes.OK:
        assert time.time() < expires_seconds + 60
        time.sleep(0.2)

    assert answer.status_code == httpx.codes.UNAUTHORIZED
    assert time.time() >= expires_seconds


def test_a_new_key_signs_and_the_old_one_is_published_until_it_is_retired(
    keycloak: Keycloak,
) -> None:
    before = keycloak.token("plain", "bob")
    old = header(before)["kid"]

    second = keycloak.rotate_keys("plain")

    assert header(keycloak.token("plain", "bob"))["kid"] == second
    assert published(keycloak, "plain") == {old, second}
    assert userinfo(keycloak, "plain", before).status_code == httpx.codes.OK

    third = keycloak.rotate_keys("plain", retire=True)

    assert header(keycloak.token("plain", "bob"))["kid"] == third
    assert published(keycloak, "plain") == {third}
    assert userinfo(keycloak, "plain", before).status_code == httpx.codes.UNAUTHORIZED


def test_while_it_is_suspended_it_takes_connections_and_answers_nothing(
    keycloak: Keycloak,
) -> None:
    token = keycloak.token("egi", "bob")
    keycloak.suspend()
    try:
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(keycloak.issuer("egi"), timeout=0.5)
    finally:
        keycloak.resume()

    assert userinfo(keycloak, "egi", token).status_code == httpx.codes.OK


def test_it_comes_back_with_its_keys_and_sessions(keycloak: Keycloak) -> None:
    token = keycloak.token("egi", "bob")
    keycloak.stop()
    try:
        with pytest.raises(httpx.ConnectError):
            httpx.get(keycloak.url)
    finally:
        keycloak.restart()

    assert header(token)["kid"] in published(keycloak, "egi")
    assert userinfo(keycloak, "egi", token).status_code == httpx.codes.OK
