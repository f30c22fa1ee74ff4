"""Turns the credentials of a request into who is asking, and counts those that are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from oscar_metrics.auth.attempts import FailedLogins
from oscar_metrics.auth.basic import BASIC_CHALLENGE, BEARER_CHALLENGE, BasicAuth
from oscar_metrics.auth.caller import ADMINISTRATOR, Caller
from oscar_metrics.errors import TooManyFailures, Unauthorized

_BEARER = "Bearer "


class UserTokens(Protocol):
    """Whoever knows users by their bearer tokens."""

    async def caller(self, token: str) -> Caller:
        """Whose token this is; raises Unauthorized where it is wrong, NotNow where nobody knows."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class Authenticator:
    """Knows the administrator, and users where there is someone who knows their tokens."""

    def __init__(
        self, administrator: BasicAuth, users: UserTokens | None, failures: FailedLogins
    ) -> None:
        self._administrator = administrator
        self._users = users
        self._failures = failures

    async def caller(self, authorization: Sequence[str], address: str, now: float) -> Caller:
        """Who is asking; `authorization` are the values of that header, one line each.

        Raises Unauthorized where they are nobody's, or TooManyFailures once that was so too
        often from `address`; right ones are looked at all the same. `now` is in seconds.
        """
        try:
            return await self._known(authorization)
        except Unauthorized:
            if not any(authorization):
                raise  # nobody tried to log in
            wait_seconds = self._failures.add(address, now)
            if not wait_seconds:
                raise
            raise TooManyFailures(
                detail="log-ins from this address keep failing; the right credentials still work",
                retry_after_seconds=wait_seconds,
            ) from None

    async def _known(self, authorization: Sequence[str]) -> Caller:
        if len(authorization) > 1:
            # Which of them a proxy looked at nobody knows.
            bearer = any(is_bearer(value) for value in authorization)
            raise Unauthorized(BEARER_CHALLENGE if bearer else BASIC_CHALLENGE)
        value = authorization[0] if authorization else ""
        if value.startswith(_BEARER) and self._users is not None:
            return await self._users.caller(value.removeprefix(_BEARER))
        self._administrator.check(value)
        return ADMINISTRATOR


def is_bearer(authorization: str) -> bool:
    """Whether a header's value is a token's: the scheme is written so, and no other way."""
    return authorization.partition(" ")[0] == _BEARER.strip()
