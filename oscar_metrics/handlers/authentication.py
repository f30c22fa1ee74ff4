"""Lets a request in: who is asking is found out once, before anything else is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from litestar.connection import ASGIConnection

from oscar_metrics.auth.addresses import Address, Proxies, counted_as
from oscar_metrics.auth.authenticator import Authenticator, is_bearer
from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import REASON_TEXT, NotNow, Reason, TooManyFailures, Unauthorized
from oscar_metrics.handlers import audit
from oscar_metrics.handlers.fields import fields
from oscar_metrics.privacy import Privacy

Connection = ASGIConnection[Any, Any, Any, Any]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_CALLER = "caller"
# The issuer is asked anew then.
_RETRY_AFTER_SECONDS = 5


class Authentication:
    """Of every report route; what came of it is in the request's audit line."""

    def __init__(self, authenticator: Authenticator, proxies: Proxies, privacy: Privacy) -> None:
        self._authenticator = authenticator
        self._proxies = proxies
        self._privacy = privacy

    async def let_in(self, connection: Connection, deadline: float | None) -> None:
        """Keep the caller in the request's state; raises what `Authenticator.caller` does.

        And NotNow where who it is had to be asked, and had not been said by the deadline.
        """
        authorization = _authorization(connection)
        audit.begin(connection)
        is_user = any(map(is_bearer, authorization))
        if any(authorization):
            audit.note(connection, via="bearer" if is_user else "basic")
        address = self._address(connection)
        try:
            # Only who has a token may have to be asked about.
            async with asyncio.timeout_at(deadline if is_user else None):
                caller = await self._caller(authorization, address)
        except TimeoutError:
            raise NotNow(
                "identity provider unavailable",
                detail=f"the issuer of this token {REASON_TEXT[Reason.DEADLINE]}",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from None
        except (Unauthorized, TooManyFailures):
            audit.note(connection, address=address and str(address))
            raise
        who = self._privacy.user(caller.user) if caller.user else "administrator"
        audit.note(connection, who=who)
        connection.scope["state"][_CALLER] = caller

    async def is_administrator(self, connection: Connection) -> bool:
        """Whether it is the administrator's log-in, where nobody needs one.

        One that fails is counted as anywhere, so that nobody can guess unseen.
        """
        authorization = _authorization(connection)
        if not any(authorization) or any(map(is_bearer, authorization)):
            return False
        address = self._address(connection)
        try:
            await self._caller(authorization, address)
        except (Unauthorized, TooManyFailures):
            _log.info(
                "log-in failed", route=connection.scope["path_template"], address=str(address)
            )
            return False
        return True

    async def _caller(self, authorization: Sequence[str], address: Address | None) -> Caller:
        now = asyncio.get_running_loop().time()
        return await self._authenticator.caller(authorization, counted_as(address), now)

    def _address(self, connection: Connection) -> Address | None:
        return self._proxies.address(
            connection.client.host if connection.client else "",
            fields(connection.scope, b"x-forwarded-for"),
        )


def _authorization(connection: Connection) -> Sequence[str]:
    return fields(connection.scope, b"authorization")


def caller_of(connection: Connection) -> Caller:
    """Who was let in."""
    caller: Caller = connection.scope["state"][_CALLER]
    return caller
