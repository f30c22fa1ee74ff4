"""The realms of the Keycloak that the tests start: who is in them, and what they are told.

Each realm gives its groups as one kind of issuer does: `egi` as EGI Check-in, `ai4eosc` as AI4EOSC,
`plain` as others. All three have the same clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PASSWORD = "open sesame"
KEY_PROVIDER = "org.keycloak.keys.KeyProvider"

# By client: whom its tokens are for, and for how long.
CLIENTS: Mapping[str, tuple[str | None, int]] = {
    "oscar": ("oscar", 600),
    "brief": ("oscar", 3),
    "other": ("other", 600),
    "no-audience": (None, 600),
}


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user of a realm: the `sub` of their tokens, and their groups in the realm's own form.

    `country` is in the claim `address.country` of their userinfo, where they have one.
    """

    subject: str
    groups: tuple[str, ...] = ()
    country: str = ""


_VO = "urn:mace:egi.eu:group:vo.example.eu:role=member#aai.egi.eu"
_OTHER_VO = "urn:mace:egi.eu:group:vo.other.eu:role=member#aai.egi.eu"
_NO_GROUP = "urn:mace:egi.eu:res:vo.example.eu#aai.egi.eu"

PEOPLE: Mapping[str, Mapping[str, Person]] = {
    "egi": {
        "alice": Person(subject="a11ce00001@egi.eu", groups=(_VO, _OTHER_VO)),
        "bob": Person(subject="b0b0000002@egi.eu", groups=(_VO,)),
        "carol": Person(subject="ca20100003@egi.eu", groups=(_VO,)),
        "dave": Person(subject="dafe000004@egi.eu", groups=(_NO_GROUP,)),
        "erin": Person(subject="e214000005@egi.eu", groups=(_OTHER_VO,)),
        # An owner of the sample.
        "jane": Person(subject="9a2c41bd7e@egi.eu", groups=(_VO,), country="Portugal"),
    },
    "ai4eosc": {
        "alice": Person(subject="a11ce000-a14e", groups=("vo.example.eu", "vo.other.eu")),
        "bob": Person(subject="b0b00000-a14e", groups=("vo.example.eu",)),
        "carol": Person(subject="ca201000-a14e", groups=("vo.example.eu",)),
        "dave": Person(subject="dafe0000-a14e"),
        "erin": Person(subject="e2140000-a14e", groups=("vo.other.eu",)),
    },
    "plain": {
        "alice": Person(subject="a11ce000-91a1", groups=("vo.example.eu", "vo.other.eu")),
        "bob": Person(subject="b0b00000-91a1", groups=("vo.example.eu",)),
        "carol": Person(subject="ca201000-91a1", groups=("vo.example.eu",)),
        "dave": Person(subject="dafe0000-91a1"),
        "erin": Person(subject="e2140000-91a1", groups=("vo.other.eu",)),
    },
}

_EVERYWHERE = {"access.token.claim": "true", "userinfo.token.claim": "true"}
_USERINFO_ONLY = {"access.token.claim": "false", "userinfo.token.claim": "true"}
_HMAC = {"priority": ["100"], "algorithm": ["HS512"]}


def representation(realm: str) -> dict[str, Any]:
    """Return the realm as Keycloak imports it (`--import-realm`)."""
    people = PEOPLE[realm]
    groups = sorted({group for person in people.values() for group in person.groups})
    return {
        "realm": realm,
        "enabled": True,
        "sslRequired": "none",
        # The default takes 7 MiB and a tenth of a second for every log-in.
        "passwordPolicy": "hashAlgorithm(pbkdf2-sha256) and hashIterations(1)",
        "components": {
            KEY_PROVIDER: [
                rsa_key("rsa", priority=100),
                # Published beside the others, as every Keycloak does, and never for signatures.
                rsa_key("rsa-enc", priority=100),
                {"name": "hmac", "providerId": "hmac-generated", "config": _HMAC},
                {"name": "aes", "providerId": "aes-generated", "config": {"priority": ["100"]}},
            ]
        },
        "roles": {"realm": [{"name": name} for name in groups if realm == "ai4eosc"]},
        "groups": [{"name": name} for name in groups if realm == "plain"],
        "clients": [_client(realm, name) for name in CLIENTS],
        "users": [_user(realm, name, person) for name, person in people.items()],
    }


def rsa_key(provider: str, *, priority: int) -> dict[str, Any]:
    """Return a new key for a realm, to sign with (`rsa`) or to encrypt for (`rsa-enc`).

    Keycloak would make keys by itself, and take seconds for each.
    """
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    return {
        "name": f"{provider}-{priority}",
        "providerId": provider,
        "config": {"priority": [str(priority)], "privateKey": [pem]},
    }


def _client(realm: str, name: str) -> dict[str, Any]:
    audience, lifespan_seconds = CLIENTS[name]
    mappers = [_subject_mapper(), _group_mapper(realm), _country_mapper()]
    if audience is not None:
        mappers.append(
            {
                "name": "audience",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-audience-mapper",
                "config": {"included.custom.audience": audience, "access.token.claim": "true"},
            }
        )
    return {
        "clientId": name,
        "publicClient": True,
        "standardFlowEnabled": False,
        "directAccessGrantsEnabled": True,
        # The full scope has the roles of Keycloak's own client `account`, which is an audience too.
        "fullScopeAllowed": audience is not None,
        "attributes": {"access.token.lifespan": str(lifespan_seconds)},
        "protocolMappers": mappers,
    }


def _user(realm: str, name: str, person: Person) -> dict[str, Any]:
    attributes = {"subject": [person.subject]}
    if person.country:
        attributes["country"] = [person.country]
    if realm == "egi":
        attributes["entitlements"] = list(person.groups)
    return {
        "username": name,
        "enabled": True,
        # Complete, or Keycloak asks for the rest instead of logging in.
        "email": f"{name}@example.org",
        "emailVerified": True,
        "firstName": name.title(),
        "lastName": "Example",
        "credentials": [{"type": "password", "value": PASSWORD}],
        "attributes": attributes,
        "realmRoles": [
            f"default-roles-{realm}",
            *(person.groups if realm == "ai4eosc" else ()),
        ],
        "groups": [f"/{group}" for group in person.groups if realm == "plain"],
    }


def _subject_mapper() -> dict[str, Any]:
    """As EGI Check-in has it: `sub` is not Keycloak's own id, so tests know it beforehand."""
    return _mapper(
        "subject",
        "oidc-usermodel-attribute-mapper",
        {"user.attribute": "subject", "claim.name": "sub", **_EVERYWHERE},
    )


def _country_mapper() -> dict[str, Any]:
    """As OpenID Connect has it: the country is within `address`."""
    return _mapper(
        "country",
        "oidc-usermodel-attribute-mapper",
        {"user.attribute": "country", "claim.name": "address.country", **_USERINFO_ONLY},
    )


def _group_mapper(realm: str) -> dict[str, Any]:
    if realm == "egi":
        return _mapper(
            "entitlements",
            "oidc-usermodel-attribute-mapper",
            {
                "user.attribute": "entitlements",
                "claim.name": "entitlements",
                "multivalued": "true",
                **_USERINFO_ONLY,
            },
        )
    if realm == "ai4eosc":
        return _mapper(
            "roles",
            "oidc-usermodel-realm-role-mapper",
            {"claim.name": "realm_access.roles", "multivalued": "true", **_EVERYWHERE},
        )
    return _mapper(
        "groups",
        "oidc-group-membership-mapper",
        {"claim.name": "group_membership", "full.path": "false", **_USERINFO_ONLY},
    )


def _mapper(name: str, kind: str, config: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "protocol": "openid-connect",
        "protocolMapper": kind,
        "config": {"jsonType.label": "String", **config},
    }
