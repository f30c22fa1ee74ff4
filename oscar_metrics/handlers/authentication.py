"""Lets a request in: who is asking is found out once, before anything else is looked at."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from oscar_metrics.auth.addresses import Proxies, counted_as
from oscar_metrics.auth.authenticator import Authenticator, is_bearer
from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import TooManyFailures, Unauthorized
from oscar_metrics.handlers import audit
from oscar_metrics.privacy import Privacy

Connection = ASGIConnection[Any, Any, Any, Any]

_CALLER = "caller"


class Authentication:
    """The guard of every report route; what came of it is in the request's audit line."""

    def __init__(self, authenticator: Authenticator, proxies: Proxies, privacy: Privacy) -> None:
        self._authenticator = authenticator
        self._proxies = proxies
        self._privacy = privacy

    async def guard(self, connection: Connection, _: BaseRouteHandler) -> None:
        """Keep the caller in the request's state; raises what `Authenticator.caller` does."""
        authorization = connection.headers.getall("authorization", [])
        audit.begin(connection)
        if any(authorization):
            via = "bearer" if any(map(is_bearer, authorization)) else "basic"
            audit.note(connection, via=via)
        address = self._proxies.address(
            connection.client.host if connection.client else "",
            connection.headers.getall("x-forwarded-for", []),
        )
        now = asyncio.get_running_loop().time()
        try:
            caller = await self._authenticator.caller(authorization, counted_as(address), now)
        except (Unauthorized, TooManyFailures):
            audit.note(connection, address=None if address is None else str(address))
            raise
        who = self._privacy.user(caller.user) if caller.user else "administrator"
        audit.note(connection, who=who)
        connection.scope["state"][_CALLER] = caller


def caller_of(connection: Connection) -> Caller:
    """Who was let in by the guard."""
    caller: Caller = connection.scope["state"][_CALLER]
    return caller
