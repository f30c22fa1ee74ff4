"""The users' log-in with tokens of a real Keycloak."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.auth import tokens
from oscar_metrics.auth.caller import Caller
from oscar_metrics.auth.oidc import OidcAuth
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.findings import Level
from oscar_metrics.sources.upstream import UpstreamLimits
from tests.auth.authorising import auth, outcome
from tests.auth.authorising import settings as made_settings
from tests.auth.made_issuer import MadeIssuer
from tests.auth.making import CLAIMS, key, token
from tests.servers.keycloak import Keycloak

VO = "vo.example.eu"
REALMS = ("egi", "ai4eosc", "plain")


class Clock:
    """The time, and how far a test is ahead of it."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


def accepting(keycloak: Keycloak, **more: Any) -> OidcSettings:
    issuers = [keycloak.issuer(realm) for realm in REALMS]
    # A machine that does much else keeps Keycloak waiting.
    limits = UpstreamLimits(timeout_seconds=30, attempts=1)
    fields: dict[str, Any] = {"groups": (VO,), "client_id": "oscar", "limits": limits}
    return made_settings(*issuers, **(fields | more))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def oidc(keycloak: Keycloak, clock: Clock) -> AsyncIterator[OidcAuth]:
    made = auth(accepting(keycloak), clock)
    yield made
    await made.aclose()


def claims_of(text: str) -> dict[str, Any]:
    part = text.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


@pytest.mark.parametrize("realm", REALMS)
async def test_users_of_every_layout_of_groups_are_let_in(
    keycloak: Keycloak, oidc: OidcAuth, realm: str
) -> None:
    for user, let_in in (("alice", True), ("bob", True), ("dave", False), ("erin", False)):
        expected = Caller(user=keycloak.subject(realm, user)) if let_in else 401
        assert await outcome(oidc, keycloak.token(realm, user)) == expected


async def test_every_user_is_let_in_by_a_star_and_nobody_by_nothing(
    keycloak: Keycloak, clock: Clock
) -> None:
    text = keycloak.token("egi", "dave")
    for groups, expected in ((("*",), Caller(user=keycloak.subject("egi", "dave"))), ((), 401)):
        oidc = auth(accepting(keycloak, groups=groups), clock)
        assert await outcome(oidc, text) == expected
        await oidc.aclose()


async def test_users_admin_see_everything(keycloak: Keycloak, clock: Clock) -> None:
    people = [keycloak.subject("egi", user) for user in ("alice", "erin")]
    oidc = auth(accepting(keycloak, users_admin=tuple(people)), clock)

    alice = await outcome(oidc, keycloak.token("egi", "alice"))
    assert alice == Caller(user=people[0], administrator=True)
    bob = await outcome(oidc, keycloak.token("egi", "bob"))
    assert bob == Caller(user=keycloak.subject("egi", "bob"))
    # Alice of another realm is somebody else, and Erin is in no group that is let in.
    other = await outcome(oidc, keycloak.token("plain", "alice"))
    assert other == Caller(user=keycloak.subject("plain", "alice"))
    assert await outcome(oidc, keycloak.token("egi", "erin")) == 401
    await oidc.aclose()


async def test_tokens_for_somebody_else_are_refused(keycloak: Keycloak, clock: Clock) -> None:
    bob = Caller(user=keycloak.subject("egi", "bob"))
    given = {client: keycloak.token("egi", "bob", client) for client in ("oscar", "other")}
    given["no-audience"] = keycloak.token("egi", "bob", "no-audience")
    assert claims_of(given["oscar"])["azp"] == "oscar"
    for client_id, expected in (
        ("oscar", {"oscar": bob, "other": 401, "no-audience": bob}),
        ("other", {"oscar": 401, "other": bob, "no-audience": bob}),
        ("", {"oscar": bob, "other": bob, "no-audience": bob}),
    ):
        oidc = auth(accepting(keycloak, client_id=client_id), clock)
        found = {client: await outcome(oidc, text) for client, text in given.items()}
        assert found == expected
        await oidc.aclose()


async def test_an_issuer_that_is_not_accepted(keycloak: Keycloak, clock: Clock) -> None:
    oidc = auth(made_settings(keycloak.issuer("egi"), groups=("*",)), clock)
    assert await outcome(oidc, keycloak.token("plain", "bob")) == 401
    await oidc.aclose()


async def test_an_expired_token_is_refused(
    keycloak: Keycloak, oidc: OidcAuth, clock: Clock
) -> None:
    text = keycloak.token("plain", "bob", "brief")
    assert await outcome(oidc, text) == Caller(user=keycloak.subject("plain", "bob"))
    clock.ahead_seconds = 20
    assert await outcome(oidc, text) == 401


def forgeries(text: str) -> dict[str, str]:
    header, claims, signature = text.split(".")
    kid = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
    own = key("RS256", kid)
    told = claims_of(text)
    bare = token(told, signer=own, header={"alg": "none"}).rpartition(".")[0]
    return {
        "none": f"{bare}.",
        "none, with a signature": f"{bare}.{signature}",
        "no signature": f"{header}.{claims}.",
        "another user": token({**told, "sub": "eve"}, signer=own).rpartition(".")[0]
        + f".{signature}",
        "another key": token(told, signer=own),
        "another key of an unknown name": token(told, signer=key()),
        "its key within": token(
            told,
            signer=own,
            header={"alg": "RS256", "kid": kid, "jwk": own.as_dict(private=False)},
        ),
    }


async def test_forged_tokens_are_refused(keycloak: Keycloak, oidc: OidcAuth) -> None:
    text = keycloak.token("egi", "bob")
    for how, forged in forgeries(text).items():
        assert await outcome(oidc, forged) == 401, how
    assert await outcome(oidc, text) == Caller(user=keycloak.subject("egi", "bob"))


@pytest.fixture(scope="module")
def real(keycloak: Keycloak) -> tuple[str, tuple[tokens.Key, ...]]:
    """A token, and the keys of its issuer."""
    answer = httpx.get(f"{keycloak.issuer('egi')}/protocol/openid-connect/certs")
    return keycloak.token("egi", "bob"), tokens.keys_of(answer.json()["keys"])


@given(data=st.data())
def test_no_byte_of_a_real_token_can_be_changed(
    real: tuple[str, tuple[tokens.Key, ...]], data: st.DataObject
) -> None:
    text, keys = real
    place = data.draw(st.integers(0, len(text) - 1))
    byte = data.draw(st.characters(max_codepoint=127).filter(lambda each: each != text[place]))

    def fault(changed: str) -> tokens.Fault | None:
        found = tokens.read(changed, algorithms=OidcSettings().algorithms)
        return found if isinstance(found, tokens.Fault) else tokens.signature_fault(found, keys)

    assert fault(text) is None
    assert fault(text[:place] + byte + text[place + 1 :]) is not None


async def test_a_log_out_is_seen_after_user_seconds(
    keycloak: Keycloak, oidc: OidcAuth, clock: Clock
) -> None:
    carol = Caller(user=keycloak.subject("plain", "carol"))
    text = keycloak.token("plain", "carol")
    assert await outcome(oidc, text) == carol

    keycloak.logout("plain", "carol")

    assert await outcome(oidc, text) == carol
    clock.ahead_seconds = 60
    assert await outcome(oidc, text) == 401
    assert await outcome(oidc, keycloak.token("plain", "carol")) == carol


async def test_a_new_key_is_known_at_once_and_an_old_one_until_it_is_withdrawn(
    keycloak: Keycloak, oidc: OidcAuth, clock: Clock
) -> None:
    bob = Caller(user=keycloak.subject("ai4eosc", "bob"))
    before = keycloak.token("ai4eosc", "bob")
    assert await outcome(oidc, before) == bob

    keycloak.rotate_keys("ai4eosc")
    clock.ahead_seconds = 61
    assert await outcome(oidc, keycloak.token("ai4eosc", "bob")) == bob
    assert await outcome(oidc, before) == bob

    keycloak.rotate_keys("ai4eosc", retire=True)
    clock.ahead_seconds = 122
    assert await outcome(oidc, keycloak.token("ai4eosc", "bob")) == bob
    assert await outcome(oidc, before) == 401


async def test_an_issuer_that_hangs_stops_and_comes_back(keycloak: Keycloak, clock: Clock) -> None:
    bob = Caller(user=keycloak.subject("egi", "bob"))
    text, another = keycloak.token("egi", "bob"), keycloak.token("egi", "bob")
    wrong = forgeries(text)
    brief = accepting(keycloak, limits=UpstreamLimits(timeout_seconds=2, attempts=1))
    async with MadeIssuer.start() as made:
        given = msgspec.structs.replace(
            brief, groups=(VO, "users"), issuers=(*brief.issuers, made.url)
        )
        oidc, late = auth(given, clock), auth(given, clock)
        assert await outcome(oidc, text) == bob
        keycloak.suspend()
        try:
            assert await outcome(oidc, another) == 503
        finally:
            keycloak.resume()
        assert await outcome(oidc, another) == bob

        keycloak.stop()
        try:
            # One who starts now, and one who knows the keys and what was said of a token.
            assert await outcome(late, text) == 503
            assert await outcome(oidc, text) == bob
            clock.ahead_seconds = 61
            assert await outcome(oidc, text) == 503
            for how, forged in wrong.items():
                # A key it does not know may be newer than those it knows.
                expected = 503 if "unknown name" in how else 401
                assert await outcome(oidc, forged) == expected, how
            for each in (oidc, late):
                assert await outcome(each, wrong["none"]) == 401
                now = clock()
                claims: dict[str, Any] = {"exp": now + 60, "iat": now, "aud": "oscar"}
                assert await outcome(each, made.token(**claims)) == Caller(user=CLAIMS["sub"])
                assert await outcome(each, made.token(**claims | {"exp": now - 60})) == 401
        finally:
            keycloak.restart()
        clock.ahead_seconds = 75
        assert await outcome(oidc, text) == bob
        assert await outcome(late, text) == bob
        for how, forged in wrong.items():
            assert await outcome(oidc, forged) == 401, how
        await oidc.aclose()
        await late.aclose()


async def test_check_finds_nothing_wrong_but_that_it_is_not_https(oidc: OidcAuth) -> None:
    found = await oidc.check()

    assert [finding.level for finding in found] == [Level.WARNING] * 3
    assert all("not https" in finding.says for finding in found)
