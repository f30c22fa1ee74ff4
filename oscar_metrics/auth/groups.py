"""The groups of a user, as their issuer's userinfo tells them. Pure.

Three layouts are known, told apart by the issuer's path, as OSCAR does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

# In OIDC_GROUPS: every user of the issuers is let in.
EVERYBODY = "*"
_EGI_GROUP = "urn:mace:egi.eu:group:"


def groups_of(issuer: str, claims: Mapping[str, Any]) -> frozenset[str]:
    """The groups that `claims`, of `issuer`'s userinfo, name; what is not understood is left out.

    EGI Check-in (path …/realms/egi) names them in `entitlements`, the fifth field of
    `urn:mace:egi.eu:group:<group>:role=…#…`, in any case; AI4EOSC (…/realms/ai4eosc) in
    `realm_access.roles`; any other in `group_membership`.
    """
    path = urlsplit(issuer).path.rstrip("/")
    if path.endswith("/realms/egi"):
        return frozenset(filter(None, map(_egi_group, _texts(claims.get("entitlements")))))
    if path.endswith("/realms/ai4eosc"):
        access = claims.get("realm_access")
        return frozenset(_texts(access.get("roles") if isinstance(access, Mapping) else None))
    return frozenset(_texts(claims.get("group_membership")))


def let_in(groups: Collection[str], allowed: Collection[str]) -> bool:
    """Whether a user in `groups` is let in by `allowed`, which is what OIDC_GROUPS lists."""
    return EVERYBODY in allowed or not frozenset(allowed).isdisjoint(groups)


def _egi_group(entitlement: str) -> str:
    name = entitlement.strip().lower()
    return name.split(":")[4] if name.startswith(_EGI_GROUP) else ""


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
