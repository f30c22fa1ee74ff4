from __future__ import annotations

import base64

import pytest

from oscar_metrics.auth.attempts import FailedLogins
from oscar_metrics.auth.authenticator import Authenticator
from oscar_metrics.auth.basic import BASIC_CHALLENGE, BEARER_CHALLENGE, BasicAuth
from oscar_metrics.auth.caller import ADMINISTRATOR, Caller
from oscar_metrics.errors import NotNow, TooManyFailures, Unauthorized
from tests.contract.serving import KnownTokens

ALICE = Caller(user="alice@egi.eu")
OUT = NotNow("identity provider unavailable", detail="", retry_after_seconds=5)
USERS = KnownTokens({"alice": ALICE, "out": OUT})


def basic(credentials: str) -> str:
    return "Basic " + base64.b64encode(credentials.encode()).decode()


RIGHT, WRONG = basic("oscar:pw"), basic("oscar:nope")


def authenticator(*, users: KnownTokens | None = USERS, per_minute: int = 100) -> Authenticator:
    failures = FailedLogins(per_minute=per_minute, addresses_most=10)
    return Authenticator(BasicAuth("oscar", "pw"), users, failures)


@pytest.mark.parametrize(
    ("authorization", "caller"),
    [
        ([RIGHT], ADMINISTRATOR),
        ([RIGHT.replace("B", "b", 1)], ADMINISTRATOR),
        (["Bearer alice"], ALICE),
    ],
)
async def test_right_credentials(authorization: list[str], caller: Caller) -> None:
    assert await authenticator().caller(authorization, "1.2.3.4", 0) == caller


@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        ([], BASIC_CHALLENGE),
        ([""], BASIC_CHALLENGE),
        ([WRONG], BASIC_CHALLENGE),
        (["Digest username=oscar"], BASIC_CHALLENGE),
        (["Basic " + "A" * 60_000], BASIC_CHALLENGE),
        # Only `Bearer ` is a token's.
        (["Bearer bob"], BEARER_CHALLENGE),
        (["Bearer"], BEARER_CHALLENGE),
        (["Bearer "], BEARER_CHALLENGE),
        (["Bearer  alice"], BEARER_CHALLENGE),
        (["bearer alice"], BASIC_CHALLENGE),
        (["BEARER alice"], BASIC_CHALLENGE),
        (["Bearer\talice"], BASIC_CHALLENGE),
        # Several are none.
        ([RIGHT, RIGHT], BASIC_CHALLENGE),
        ([RIGHT, "Bearer alice"], BEARER_CHALLENGE),
        (["", RIGHT], BASIC_CHALLENGE),
    ],
)
async def test_wrong_credentials(authorization: list[str], challenge: str) -> None:
    with pytest.raises(Unauthorized) as refused:
        await authenticator().caller(authorization, "1.2.3.4", 0)
    assert refused.value.challenge == challenge


async def test_without_users_a_token_is_nobodys() -> None:
    with pytest.raises(Unauthorized) as refused:
        await authenticator(users=None).caller(["Bearer alice"], "1.2.3.4", 0)
    assert refused.value.challenge == BEARER_CHALLENGE


@pytest.mark.parametrize("wrong", [WRONG, "Bearer bob", "Digest x"])
async def test_past_the_limit_wrong_credentials_are_told_to_wait_and_right_ones_get_in(
    wrong: str,
) -> None:
    door = authenticator(per_minute=2)
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await door.caller([wrong], "1.2.3.4", 0)
    with pytest.raises(TooManyFailures) as refused:
        await door.caller([wrong], "1.2.3.4", 1)
    assert refused.value.retry_after_seconds == 59
    assert await door.caller([RIGHT], "1.2.3.4", 1) == ADMINISTRATOR
    assert await door.caller(["Bearer alice"], "1.2.3.4", 1) == ALICE
    # Neither does that make the failures forgotten, nor do they concern anybody else.
    with pytest.raises(TooManyFailures):
        await door.caller([wrong], "1.2.3.4", 1)
    with pytest.raises(Unauthorized):
        await door.caller([wrong], "5.6.7.8", 1)


async def test_who_did_not_try_and_who_could_not_be_told_are_not_counted() -> None:
    door = authenticator(per_minute=1)
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await door.caller([], "1.2.3.4", 0)
        with pytest.raises(NotNow):
            await door.caller(["Bearer out"], "1.2.3.4", 0)
    with pytest.raises(Unauthorized):
        await door.caller([WRONG], "1.2.3.4", 0)
