"""What issuers do wrong, and what becomes of their users: an issuer made by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from oscar_metrics.auth.caller import Caller
from oscar_metrics.auth.oidc import OidcAuth
from oscar_metrics.errors import SettingsError
from oscar_metrics.findings import Level
from tests.auth.authorising import Clock, auth, outcome, settings
from tests.auth.made_issuer import DISCOVERY, KEYS, USERINFO, MadeIssuer
from tests.auth.making import CLAIMS, NOW, key, token

ALICE = Caller(user=CLAIMS["sub"])
REDIRECT = {"status": "302 Found", "headers": {"Location": "/elsewhere"}}


@pytest.fixture
async def issuer() -> AsyncIterator[MadeIssuer]:
    async with MadeIssuer.start() as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock(NOW)


@pytest.fixture
async def oidc(issuer: MadeIssuer, clock: Clock) -> AsyncIterator[OidcAuth]:
    made = auth(settings(issuer.url), clock)
    yield made
    await made.aclose()


async def test_a_user_is_who_their_issuer_says(issuer: MadeIssuer, oidc: OidcAuth) -> None:
    text = issuer.token()

    assert await outcome(oidc, text) == ALICE
    assert issuer.calls == {DISCOVERY: 1, KEYS: 1, USERINFO: 1}
    *others, last = issuer.requests
    assert f"Authorization: Bearer {text}\r\n" in last
    assert not any("Authorization" in each for each in others)


BAD_ANSWERS: list[tuple[Any, dict[str, Any]]] = [
    (b"<html>Welcome</html>", {"headers": {"Content-Type": "text/html"}}),
    (b"eyJhbGciOiJSUzI1NiJ9.e30.AAAA", {"headers": {"Content-Type": "application/jwt"}}),
    (b'{"sub": "a11ce@exa', {}),
    (b"", {}),
    (["sub"], {}),
    ({"sub": "x" * 2**17}, {}),
    ({"error": "x"}, {"status": "500 Internal Server Error"}),
    ({}, {"status": "502 Bad Gateway"}),
    ({}, {"status": "429 Too Many Requests"}),
    ({}, {"status": "404 Not Found"}),
    ({}, REDIRECT),
    (b"\x1f\x8b", {"headers": {"Content-Encoding": "gzip"}}),
]


@pytest.mark.parametrize("path", [DISCOVERY, KEYS, USERINFO])
@pytest.mark.parametrize(("body", "how"), BAD_ANSWERS)
async def test_an_issuer_that_answers_nonsense_is_out(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock, path: str, body: Any, how: dict[str, Any]
) -> None:
    good = issuer.answers[path]
    issuer.says(path, body, **how)
    assert await outcome(oidc, issuer.token()) == 503

    issuer.answers[path] = good
    clock.now += 11
    assert await outcome(oidc, issuer.token()) == ALICE


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
async def test_a_token_its_issuer_refuses_is_refused(
    issuer: MadeIssuer, oidc: OidcAuth, status: str
) -> None:
    issuer.says(USERINFO, {"error": "invalid_token"}, status=status)
    assert await outcome(oidc, issuer.token()) == 401


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://other.example"},
        {"issuer": None},
        {"issuer": "{url}/more"},
        {"jwks_uri": None},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "/keys"},
        {"userinfo_endpoint": None},
        {"userinfo_endpoint": ["{host}/userinfo"]},
        {"userinfo_endpoint": "http://name:password@127.0.0.1/userinfo"},
        {"userinfo_endpoint": "http://"},
    ],
)
async def test_a_discovery_document_must_be_the_issuers_own(
    issuer: MadeIssuer, oidc: OidcAuth, document: dict[str, Any]
) -> None:
    changed = {
        name: value.format(url=issuer.url, host=issuer.host) if isinstance(value, str) else value
        for name, value in document.items()
    }
    issuer.says(DISCOVERY, issuer.document | changed)

    assert await outcome(oidc, issuer.token()) == 503
    assert issuer.calls == {DISCOVERY: 1}


async def test_endpoints_keep_their_query(issuer: MadeIssuer, oidc: OidcAuth) -> None:
    issuer.says(
        DISCOVERY,
        {
            "issuer": issuer.url + "/",
            "jwks_uri": f"{issuer.host}{KEYS}?p=a&q=",
            "userinfo_endpoint": f"{issuer.host}{USERINFO}?schema=openid",
        },
    )
    issuer.answers[f"{KEYS}?p=a&q="] = issuer.answers[KEYS]
    issuer.answers[f"{USERINFO}?schema=openid"] = issuer.answers[USERINFO]

    assert await outcome(oidc, issuer.token()) == ALICE


@pytest.mark.parametrize(
    "claims",
    [
        {},
        {"sub": None},
        {"sub": 5},
        {"sub": ""},
        {"sub": "somebody else"},
        {"sub": CLAIMS["sub"] + " "},
        {"sub": CLAIMS["sub"].upper()},
    ],
)
async def test_userinfo_must_be_about_the_user_of_the_token(
    issuer: MadeIssuer, oidc: OidcAuth, claims: dict[str, Any]
) -> None:
    issuer.says(USERINFO, {"group_membership": ["users"], **claims})
    assert await outcome(oidc, issuer.token()) == 401


@pytest.mark.parametrize("subject", ["oscar", "cluster_admin", "nil", "minio", "", "x" * 256])
async def test_nobody_is_one_of_oscars_own_users(
    issuer: MadeIssuer, oidc: OidcAuth, subject: str
) -> None:
    issuer.says(USERINFO, {"sub": subject, "group_membership": ["users"]})
    nameless = token(
        {name: value for name, value in CLAIMS.items() if name != "sub"} | {"iss": issuer.url}
    )

    assert await outcome(oidc, issuer.token(sub=subject)) == 401
    assert await outcome(oidc, nameless) == 401


@pytest.mark.parametrize(
    ("groups", "allowed", "expected"),
    [
        (["users"], ("users",), ALICE),
        (["others", "users"], ("x", "users"), ALICE),
        (["others"], ("users",), 401),
        ([], ("users",), 401),
        (["users"], (), 401),
        ([], ("*",), ALICE),
    ],
)
async def test_one_group_must_be_let_in(
    issuer: MadeIssuer, clock: Clock, groups: list[str], allowed: tuple[str, ...], expected: Any
) -> None:
    issuer.says(USERINFO, {"sub": CLAIMS["sub"], "group_membership": groups})
    oidc = auth(settings(issuer.url, groups=allowed), clock)
    assert await outcome(oidc, issuer.token()) == expected
    await oidc.aclose()


@pytest.mark.parametrize(
    ("groups", "expected"), [(["users"], Caller(user=CLAIMS["sub"], administrator=True)), ([], 401)]
)
async def test_a_user_who_sees_everything_must_be_in_a_group_too(
    issuer: MadeIssuer, clock: Clock, groups: list[str], expected: Any
) -> None:
    issuer.says(USERINFO, {"sub": CLAIMS["sub"], "group_membership": groups})
    oidc = auth(settings(issuer.url, users_admin=(CLAIMS["sub"],)), clock)
    assert await outcome(oidc, issuer.token()) == expected
    await oidc.aclose()


async def test_wrong_tokens_are_told_so_while_their_issuer_is_out(
    issuer: MadeIssuer, oidc: OidcAuth
) -> None:
    issuer.says(DISCOVERY, {}, status="503 Service Unavailable")
    assert await outcome(oidc, issuer.token()) == 503

    for wrong in (
        "nonsense",
        issuer.token(exp=NOW - 60),
        issuer.token(nbf=NOW + 60),
        issuer.token(sub="oscar"),
        token(),  # of an issuer that is not ours
        issuer.token().rpartition(".")[0] + ".",
    ):
        # A signature is not looked at before there are keys; with none it is not known to be wrong.
        expected = 503 if wrong.endswith(".") else 401
        assert await outcome(oidc, wrong) == expected


async def test_signatures_are_told_apart_while_an_issuer_is_out_that_was_there_before(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    assert await outcome(oidc, issuer.token()) == ALICE
    issuer.answers.clear()
    clock.now += 20

    # What was believed of this token is believed until a minute is over.
    assert await outcome(oidc, issuer.token()) == ALICE
    assert await outcome(oidc, issuer.token(jti="another")) == 503
    assert await outcome(oidc, issuer.token(jti="another")[:-4] + "AAAA") == 401
    # It may be of a key that is newer than ours.
    assert await outcome(oidc, issuer.token(signer=key("RS256", "second"))) == 503
    clock.now += 41
    assert await outcome(oidc, issuer.token()) == 503


async def test_one_issuer_that_is_out_is_no_matter_to_the_others(
    issuer: MadeIssuer, clock: Clock
) -> None:
    async with MadeIssuer.start() as other:
        other.hold(DISCOVERY)
        oidc = auth(settings(other.url, issuer.url), clock)
        hanging = asyncio.create_task(outcome(oidc, other.token()))
        await asyncio.sleep(0)

        assert await outcome(oidc, issuer.token()) == ALICE
        assert not hanging.done()
        assert await hanging == 503
        await oidc.aclose()


@pytest.mark.parametrize("path", [DISCOVERY, KEYS, USERINFO])
async def test_an_issuer_that_hangs_holds_nobody_for_long(
    issuer: MadeIssuer, oidc: OidcAuth, path: str
) -> None:
    issuer.hold(path)
    tokens = [issuer.token(jti=str(number)) for number in range(10)]
    # Half a second for keys and half for userinfo, and something for a busy machine.
    with structlog.testing.capture_logs() as logs:
        async with asyncio.timeout(10):
            outcomes = await asyncio.gather(*(outcome(oidc, each) for each in tokens))

    assert outcomes == [503] * 10
    assert issuer.url in [line.get("issuer") for line in logs]
    if path != USERINFO:
        assert issuer.calls[path] == 1


async def test_who_asks_of_one_token_at_once_shares_one_answer(
    issuer: MadeIssuer, oidc: OidcAuth
) -> None:
    held = issuer.hold(USERINFO)
    asking = [asyncio.create_task(outcome(oidc, issuer.token())) for _ in range(20)]
    await issuer.called.wait()
    held.set()

    assert await asyncio.gather(*asking) == [ALICE] * 20
    assert issuer.calls == {DISCOVERY: 1, KEYS: 1, USERINFO: 1}


@pytest.mark.parametrize("path", [DISCOVERY, USERINFO])
async def test_who_gives_up_takes_nobody_along(
    issuer: MadeIssuer, oidc: OidcAuth, path: str
) -> None:
    held = issuer.hold(path)
    first, second, third = (asyncio.create_task(outcome(oidc, issuer.token())) for _ in range(3))
    await issuer.called.wait()
    for each in (first, second):
        each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await each
    held.set()

    assert await third == ALICE
    assert await outcome(oidc, issuer.token()) == ALICE


async def test_an_answer_is_believed_for_user_seconds(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    assert await outcome(oidc, issuer.token()) == ALICE
    issuer.says(USERINFO, {}, status="401 Unauthorized")
    clock.now += 59
    assert await outcome(oidc, issuer.token()) == ALICE
    clock.now += 1
    assert await outcome(oidc, issuer.token()) == 401

    # A refusal is believed for five seconds.
    issuer.says(USERINFO, {"sub": CLAIMS["sub"], "group_membership": ["users"]})
    calls = issuer.calls[USERINFO]
    assert await outcome(oidc, issuer.token()) == 401
    assert issuer.calls[USERINFO] == calls
    clock.now += 5
    assert await outcome(oidc, issuer.token()) == ALICE


async def test_an_answer_is_believed_no_longer_than_its_token(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    text = issuer.token(exp=NOW + 30)
    assert await outcome(oidc, text) == ALICE
    clock.now += 29
    assert await outcome(oidc, text) == ALICE
    assert issuer.calls[USERINFO] == 1
    clock.now += 1
    # Within the leeway it is still good, and its issuer is asked.
    assert await outcome(oidc, text) == ALICE
    assert issuer.calls[USERINFO] == 2
    clock.now += 10
    assert await outcome(oidc, text) == 401


async def test_a_clock_set_back_makes_no_answer_last(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    assert await outcome(oidc, issuer.token()) == ALICE
    clock.now -= 100
    issuer.says(USERINFO, {}, status="401 Unauthorized")
    assert await outcome(oidc, issuer.token()) == 401


async def test_only_so_many_answers_are_kept(issuer: MadeIssuer, clock: Clock) -> None:
    oidc = auth(settings(issuer.url, tokens_kept=2), clock)
    first, second, third = (issuer.token(jti=str(number)) for number in range(3))
    for text in (first, second, first, third):
        assert await outcome(oidc, text) == ALICE
    assert issuer.calls[USERINFO] == 3

    # The second was used the longest ago.
    for text, calls in ((first, 3), (third, 3), (second, 4)):
        assert await outcome(oidc, text) == ALICE
        assert issuer.calls[USERINFO] == calls
    await oidc.aclose()


async def test_tokens_that_were_made_up_push_no_others_out(
    issuer: MadeIssuer, clock: Clock
) -> None:
    oidc = auth(settings(issuer.url, tokens_kept=1), clock)
    assert await outcome(oidc, issuer.token()) == ALICE
    for number in range(5):
        assert await outcome(oidc, issuer.token(jti=str(number))[:-4] + "AAAA") == 401
        assert await outcome(oidc, issuer.token(exp=number)) == 401
    assert await outcome(oidc, issuer.token()) == ALICE
    assert issuer.calls[USERINFO] == 1
    await oidc.aclose()


async def test_a_new_key_is_fetched_and_names_of_keys_that_are_not_there_fetch_nothing(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    assert await outcome(oidc, issuer.token()) == ALICE
    clock.now += 10
    new = issuer.token(signer=key("RS256", "second"))
    issuer.has_keys(key(), key("RS256", "second"))
    assert await outcome(oidc, new) == ALICE
    assert issuer.calls[KEYS] == 2

    forged = [issuer.token(signer=key("RS256", "third"), jti=str(each)) for each in range(20)]
    assert {await outcome(oidc, each) for each in forged} == {401}
    assert issuer.calls[KEYS] == 2
    clock.now += 10
    assert {await outcome(oidc, each) for each in forged} == {401}
    assert issuer.calls[KEYS] == 3


async def test_a_key_that_was_withdrawn_is_of_no_use_after_some_hours(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    def fresh(signer: Any) -> str:
        return issuer.token(signer=signer, exp=clock.now + 60, iat=clock.now)

    assert await outcome(oidc, fresh(key())) == ALICE
    issuer.has_keys(key("RS256", "second"))
    clock.now += 4 * 3600 - 1
    assert await outcome(oidc, fresh(key())) == ALICE
    clock.now += 1
    assert await outcome(oidc, fresh(key())) == 401
    assert await outcome(oidc, fresh(key("RS256", "second"))) == ALICE


async def test_keys_are_kept_while_they_cannot_be_read_anew(
    issuer: MadeIssuer, oidc: OidcAuth, clock: Clock
) -> None:
    assert await outcome(oidc, issuer.token()) == ALICE
    bodies: list[Any] = [b"<html>", {"keys": []}, {"keys": "none"}, {"keys": [{"kty": "oct"}]}]
    for body in bodies:
        issuer.says(KEYS, body)
        clock.now += 4 * 3600
        text = issuer.token(exp=clock.now + 60)
        assert await outcome(oidc, text) == ALICE


@pytest.mark.parametrize("algorithm", ["PS256", "ES256", "ES512", "EdDSA"])
async def test_issuers_may_sign_otherwise(
    issuer: MadeIssuer, oidc: OidcAuth, algorithm: str
) -> None:
    issuer.has_keys(key(algorithm))
    assert await outcome(oidc, issuer.token(algorithm=algorithm)) == ALICE


async def test_algorithms_can_be_narrowed(issuer: MadeIssuer, clock: Clock) -> None:
    oidc = auth(settings(issuer.url, algorithms=("ES256",)), clock)
    assert await outcome(oidc, issuer.token()) == 401
    assert not issuer.calls
    await oidc.aclose()


@pytest.mark.parametrize(
    ("configured", "named", "expected"),
    [
        ("{url}", "{url}", ALICE),
        ("{url}/", "{url}", ALICE),
        ("{url}", "{url}/", ALICE),
        ("{url}", "{url}//", 401),
        ("{url}", "{url}/.", 401),
        ("{url}", "{upper}", 401),
        ("{url}", "{url}?", 401),
        ("{url}", "", 401),
    ],
)
async def test_an_issuers_name_must_be_its_own_but_for_the_last_slash(
    issuer: MadeIssuer, clock: Clock, configured: str, named: str, expected: Any
) -> None:
    def name(pattern: str) -> str:
        return pattern.format(url=issuer.url, upper=issuer.url.replace("realms", "Realms"))

    oidc = auth(settings(name(configured)), clock)
    assert await outcome(oidc, issuer.token(iss=name(named))) == expected
    await oidc.aclose()


async def test_with_oidc_off_every_token_is_wrong(issuer: MadeIssuer, clock: Clock) -> None:
    given = settings(issuer.url)
    oidc = auth(type(given)(issuers=given.issuers, groups=("*",)), clock)

    assert await outcome(oidc, issuer.token()) == 401
    assert not issuer.calls
    assert [finding.level for finding in await oidc.check()] == [Level.WARNING]


@pytest.mark.parametrize(
    "url",
    [
        "issuer.example",
        "ftp://issuer.example",
        "https://",
        "https://name:password@issuer.example",
        "https://issuer.example/?realm=a",
        "https://issuer.example/#a",
        "https://issuer.example:port/",
    ],
)
def test_an_issuer_that_is_no_url_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match="OIDC_ISSUERS"):
        auth(settings(url), Clock(NOW))


async def test_nothing_secret_is_logged(issuer: MadeIssuer, clock: Clock) -> None:
    given = settings(issuer.url, client_id="oscar", client_secret="the client's secret")
    oidc = auth(given, clock)
    text = issuer.token(aud="oscar")
    with structlog.testing.capture_logs() as logs:
        # An issuer that says of what it was sent that it does not like it.
        issuer.says(USERINFO, text.encode(), status="401 Unauthorized")
        assert await outcome(oidc, text) == 401
        issuer.says(USERINFO, {"error": text}, status="500 Internal Server Error")
        clock.now += 5
        assert await outcome(oidc, text) == 503
        issuer.says(USERINFO, {}, status="302 Found", headers={"Location": f"/?token={text}"})
        assert await outcome(oidc, text) == 503
        issuer.says(USERINFO, b"", headers={"Content-Encoding": text})
        assert await outcome(oidc, text) == 503
        assert await outcome(oidc, text[:-4] + "AAAA") == 401
    await oidc.aclose()

    assert logs
    said = f"{logs!r} {given!r} {oidc!r}"
    assert not any(secret in said for secret in (*text.split("."), "the client's secret"))
