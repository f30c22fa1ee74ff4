"""Who asks for a report. Pure."""

from __future__ import annotations

import msgspec


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Someone who was let in.

    `user` is the OIDC subject, or blank for who logged in with the administrator's name and
    password. `administrator` is whether they see the whole cluster.
    """

    user: str = ""
    administrator: bool = False


ADMINISTRATOR = Caller(administrator=True)
