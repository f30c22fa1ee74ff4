"""An issuer that fails again and again is not asked for a while, and its users are told so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
import pytest

from oscar_metrics.auth.caller import Caller
from oscar_metrics.auth.oidc import OidcAuth
from oscar_metrics.errors import NotNow
from oscar_metrics.resilience.gate import Protection
from tests.auth.authorising import LIMITS, Clock, auth, outcome, settings
from tests.auth.made_issuer import DISCOVERY, USERINFO, MadeIssuer
from tests.auth.making import CLAIMS, NOW

ALICE = Caller(user=CLAIMS["sub"])
SOON = Protection(open_seconds=0.2, longest_open_seconds=0.2)
LONG = Protection(open_seconds=30.0)


@pytest.fixture
async def issuer() -> AsyncIterator[MadeIssuer]:
    async with MadeIssuer.start() as made:
        yield made


def asking(issuer: MadeIssuer, clock: Clock, protection: Protection) -> OidcAuth:
    limits = msgspec.structs.replace(LIMITS, protection=protection)
    return auth(settings(issuer.url, limits=limits), clock)


async def until_let_in(oidc: OidcAuth, issuer: MadeIssuer) -> None:
    deadline = time.monotonic() + 30
    number = 0
    while await outcome(oidc, issuer.token(jti=f"back-{number}")) != ALICE:
        assert time.monotonic() < deadline
        number += 1
        await asyncio.sleep(0.02)


async def test_its_users_get_503_at_once_with_when_to_come_back_and_wrong_tokens_401(
    issuer: MadeIssuer,
) -> None:
    oidc = asking(issuer, Clock(NOW), LONG)
    assert await outcome(oidc, issuer.token()) == ALICE
    issuer.says(USERINFO, {}, status="503 Service Unavailable")
    for number in range(5):
        assert await outcome(oidc, issuer.token(jti=str(number))) == 503
    asked = issuer.calls.copy()

    with pytest.raises(NotNow) as caught:
        await oidc.caller(issuer.token(jti="next"))
    assert 20 < caught.value.retry_after_seconds <= 36
    assert "is not asked for a while" in (caught.value.detail or "")
    # Whom it spoke for lately stays in, and what is wrong can be told without it.
    assert await outcome(oidc, issuer.token()) == ALICE
    assert await outcome(oidc, issuer.token(jti="next")[:-4] + "AAAA") == 401
    assert await outcome(oidc, issuer.token(exp=NOW - 60)) == 401
    assert issuer.calls == asked
    await oidc.aclose()


@pytest.mark.parametrize("how", ["fails", "hangs"])
@pytest.mark.parametrize("path", [DISCOVERY, USERINFO])
async def test_it_is_asked_again_and_its_users_are_let_in(
    issuer: MadeIssuer, path: str, how: str
) -> None:
    clock = Clock(NOW)
    oidc = asking(issuer, clock, SOON)
    good = issuer.answers[path]
    if how == "hangs":
        issuer.hold(path)
    issuer.says(path, {}, status="500 Internal Server Error")
    for number in range(6):
        assert await outcome(oidc, issuer.token(jti=str(number), exp=NOW + 900)) == 503
        clock.now += 11  # else its keys would not be asked for again
    issuer.held.clear()
    issuer.answers[path] = good
    clock.now = NOW + 66
    await until_let_in(oidc, issuer)
    await oidc.aclose()


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
async def test_refusals_are_no_failures_of_the_issuer(issuer: MadeIssuer, status: str) -> None:
    oidc = asking(issuer, Clock(NOW), LONG)
    good = issuer.answers[USERINFO]
    issuer.says(USERINFO, {}, status=status)
    refused = 503 if status.startswith("404") else 401
    for number in range(30):
        assert await outcome(oidc, issuer.token(jti=str(number))) == refused
    issuer.answers[USERINFO] = good
    assert await outcome(oidc, issuer.token(jti="good")) == ALICE
    await oidc.aclose()


async def test_keys_are_read_as_soon_as_it_is_asked_again(issuer: MadeIssuer) -> None:
    """That it was not asked is not remembered as a try, of which there are few."""
    clock = Clock(NOW)
    oidc = asking(issuer, clock, Protection(open_seconds=1.0))
    good = issuer.answers[DISCOVERY]
    issuer.says(DISCOVERY, {}, status="503 Service Unavailable")
    for number in range(5):
        assert await outcome(oidc, issuer.token(jti=str(number), exp=NOW + 900)) == 503
        clock.now += 11
    issuer.answers[DISCOVERY] = good
    # The clock that keeps its keys stands still from here on; the one of the breaker does not.
    assert await outcome(oidc, issuer.token(jti="open", exp=NOW + 900)) == 503
    deadline = time.monotonic() + 30
    while await outcome(oidc, issuer.token(jti="soon", exp=NOW + 900)) != ALICE:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert issuer.calls[DISCOVERY] == 6
    await oidc.aclose()
