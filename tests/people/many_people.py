"""A realm of many people on a real Keycloak: groups, attributes, and who may read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.servers import realms
from tests.servers.keycloak import Keycloak

CLIENT = "oscar-metrics"
SECRET = "only-for-a-test"
# Clients whose service accounts lack roles.
NO_ROLE = "no-role"
QUERIES_ONLY = "queries-only"
_ROLES = {
    CLIENT: ["view-users"],
    NO_ROLE: [],
    QUERIES_ONLY: ["query-users", "query-groups"],
}
_CHUNK = 50
_PROFILE = {
    "attributes": [{"name": name} for name in ("username", "email", "firstName", "lastName")],
    "unmanagedAttributePolicy": "ADMIN_VIEW",
}

Json = dict[str, Any]


@contextmanager
def realm_of(
    keycloak: Keycloak, name: str, people: Sequence[Json], groups: Sequence[Json]
) -> Iterator[str]:
    """A realm with these users and groups, as Keycloak represents them, until the block ends."""
    keycloak.administer("POST", "/admin/realms", json=_representation(name, groups))
    try:
        add_people(keycloak, name, people)
        yield name
    finally:
        keycloak.administer("DELETE", f"/admin/realms/{name}")


def add_people(keycloak: Keycloak, realm: str, people: Sequence[Json]) -> None:
    """Add users to a realm, some at a time: many at once take Keycloak far longer each."""

    def add(start: int) -> None:
        keycloak.administer(
            "POST",
            f"/admin/realms/{realm}/partialImport",
            json={"ifResourceExists": "FAIL", "users": people[start : start + _CHUNK]},
        )

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(add, range(0, len(people), _CHUNK)))


def person(number: int) -> Json:
    """One of many: their name, country and groups follow from a number."""
    return {
        "id": identity(number),
        "username": f"user{number:06}",
        "enabled": True,
        "email": f"user{number:06}@{'upv' if number % 2 else 'egi'}.example.eu",
        "emailVerified": number % 10 > 0,
        "firstName": "User",
        "lastName": f"Number {number}",
        "attributes": {
            "country": ["ES" if number % 3 else "FR"],
            "subject": [f"{number}@egi.eu"],
            **({} if number % 4 else {"vo": ["vo.example.eu"], "status": ["external"]}),
        },
        "groups": groups_of(number),
    }


def identity(number: int) -> str:
    """The id in Keycloak, and so the `sub`, of a person."""
    return f"00000000-0000-4000-8000-{number:012}"


def groups_of(number: int) -> list[str]:
    """The groups a person is in: a fifth are in one, and of these a fifth in a group in a group.

    Keycloak takes several times as long to add who is in any.
    """
    if number % 5:
        return []
    return ["/vo.example.eu/guests"] if number % 25 == 0 else [f"/group{number // 5 % 20}"]


GROUPS: tuple[Json, ...] = (
    {"name": "vo.example.eu", "subGroups": [{"name": "guests"}]},
    *({"name": f"group{number}"} for number in range(20)),
)


def _representation(name: str, groups: Sequence[Json]) -> Json:
    return {
        "realm": name,
        "enabled": True,
        "sslRequired": "none",
        "components": {
            realms.KEY_PROVIDER: [
                realms.rsa_key("rsa", priority=100),
                realms.rsa_key("rsa-enc", priority=100),
                {
                    "name": "hmac",
                    "providerId": "hmac-generated",
                    "config": {"priority": ["100"], "algorithm": ["HS512"]},
                },
                {"name": "aes", "providerId": "aes-generated", "config": {"priority": ["100"]}},
            ],
            # Attributes that no profile names are kept, and shown to administrators.
            "org.keycloak.userprofile.UserProfileProvider": [
                {
                    "providerId": "declarative-user-profile",
                    "config": {
                        "kc.user.profile.config": [json.dumps(_PROFILE)],
                    },
                }
            ],
        },
        "groups": list(groups),
        "clients": [
            {
                "clientId": client,
                "secret": SECRET,
                "serviceAccountsEnabled": True,
                "standardFlowEnabled": False,
            }
            for client in _ROLES
        ],
        "users": [
            {
                "username": f"service-account-{client}",
                "enabled": True,
                "serviceAccountClientId": client,
                "clientRoles": {"realm-management": roles},
            }
            for client, roles in _ROLES.items()
        ],
    }
