"""Settings of who may see what, and of how callers are told apart."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the cluster a caller sees, and how much of its people."""

    # What users see: services they own, or also counts of what others let them use.
    scope: Literal["owned", "visible"] = "owned"
    # Whether users are shown by pseudonyms, to everyone. The same key gives the same ones.
    pseudonyms: bool = False
    # What pseudonyms are made with: whoever has it can find out whose they are, and with another
    # one everybody gets a new one. At least 16 characters.
    pseudonym_key: str = ""
    # Countries with fewer users than this are withheld; 0 or 1: none are.
    country_users_least: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    # Addresses and networks of proxies whose word about a caller's address is taken.
    trusted_proxies: tuple[str, ...] = ()
    # Log-ins that may fail from one address in a minute; those that fail beyond it are answered
    # with 429. Good ones are never refused.
    failed_logins_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 10
    # Addresses whose failed log-ins are remembered, the oldest forgotten first.
    addresses_kept: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    # Origins of web pages that may call us: `*` for all, `off` where an ingress answers for us.
    cors_origins: tuple[str, ...] = ("*",)

    def __repr__(self) -> str:
        # Whatever prints settings must not print the key.
        return f"AccessSettings(scope={self.scope!r}, pseudonyms={self.pseudonyms!r}, …)"
