"""What an issuer's claims say of a user that calls can be attributed by. Pure.

No more than that is taken of them: no name, and of an e-mail address its domain only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from oscar_metrics.facts import CountryFrom, Person

# Of more groups, or longer ones, than anybody has, the rest is left out.
_MOST_GROUPS = 100
_MOST_CHARACTERS = 200


def person_of(
    subject: str, groups: Collection[str], claims: Mapping[str, Any], *, country_claim: str
) -> Person:
    """A user as their log-in tells of them; the country is as it is written there.

    `email` is the domain alone, after its `@`; blank where the issuer says that the address was
    not verified, since users may write there what they like.
    """
    domain = ""
    if claims.get("email_verified") not in (False, "false"):
        _, at, rest = _text(claims.get("email")).rpartition("@")
        domain = rest.strip().lower() if at else ""
    return Person(
        id=subject,
        email=f"@{domain}" if domain else "",
        groups=tuple(sorted(filter(_fits, groups))[:_MOST_GROUPS]),
        country=_text(_claim(claims, country_claim)),
        country_from=CountryFrom.CLAIM,
    )


def _claim(claims: Mapping[str, Any], name: str) -> object:
    """A claim by its name, or by the names that lead to it with dots between them."""
    if name in claims:
        return claims[name]
    first, dot, rest = name.partition(".")
    inner = claims.get(first) if dot else None
    return _claim(inner, rest) if isinstance(inner, Mapping) else None


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) and _fits(value) else ""


def _fits(text: str) -> bool:
    return len(text) <= _MOST_CHARACTERS and text.isprintable()
