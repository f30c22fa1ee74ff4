"""The invented platform: its services, users and callers' addresses, and what may trip a reader."""

from __future__ import annotations

from typing import Any

import yaml

from oscar_metrics.facts import Service
from tests.corpus.dice import Dice

SHARED_NAMESPACE = "oscar-svc"
BASE_HOST = "example.org"
# Planted in every service definition: it must never be seen outside the process.
PLANTED_TOKEN = "d1e2c0de5ec2e7d1e2c0de5ec2e7d1e2c0de5ec2e7"

_JANE = "9a2c41bd7e@egi.eu"
_GMOLTO = "62bb11b40398f73778b66f344d282242debb8ee3ebb106717a123ca213162926@egi.eu"
_VISION = "auth0|5f7c8ec7c33c6c004bbafe82"

NAMESPACE_OWNERS = {
    "oscar-svc-jane-7f3a": _JANE,
    "oscar-svc-gmolto": _GMOLTO,
    "oscar-svc-vision-lab": _VISION,
    # Nothing is deployed in it any more.
    "oscar-svc-retired": "f0e1d2c3b4@egi.eu",
}


def _service(namespace: str, name: str, **more: Any) -> Service:
    owner = NAMESPACE_OWNERS.get(namespace, "cluster_admin")
    return Service(namespace=namespace, name=name, owner=owner, **more)


DEPLOYED = (
    # One name in two namespaces.
    _service("oscar-svc", "cowsay", visibility="public"),
    _service("oscar-svc-jane-7f3a", "cowsay", visibility="private", owner_name="Jane_Doe"),
    # The gateway writes the same upstream, oscar-svc-gmolto-nginx-svc-80, for both.
    _service("oscar-svc", "gmolto-nginx", visibility="public"),
    _service("oscar-svc-gmolto", "nginx", visibility="restricted", allowed_users=(_JANE, _VISION)),
    # Names that look like parts of the lines they stand in.
    _service("oscar-svc", "job", visibility="public"),
    _service("oscar-svc-vision-lab", "exposed", visibility="private"),
    _service("oscar-svc", "x-svc-80", visibility="public"),
    _service("oscar-svc", "grayify", visibility="public", vo="vo.example.eu"),
    _service("oscar-svc", "simple-test", visibility="public"),
    _service("oscar-svc-jane-7f3a", "body-pose-detection", visibility="private"),
    _service(
        "oscar-svc-vision-lab",
        "yolov8-object-detection-on-satellite-images-v2",
        visibility="public",
        vo="vo.example.eu",
        enable_gpu=True,
    ),
    # Never called.
    _service("oscar-svc", "idle"),
)
# Called, and not deployed (any more).
RETIRED = (
    _service("oscar-svc-retired", "retired-model"),
    _service("oscar-svc", "flower-classifier"),
)
CALLED = (*(service for service in DEPLOYED if service.name != "idle"), *RETIRED)
# Some are far more popular than others.
CALL_WEIGHTS = {service: 1.0 / rank for rank, service in enumerate(CALLED, start=2)}
SCANNED_NAMES = ("wp-login.php", "admin", ".env", "test", "cgi-bin", "index.php", "shell")

ODD_USERS = (
    _JANE,
    _GMOLTO,
    _VISION,
    "Jane Doe",
    "two  spaces",
    "María-José Ñúñez@example.org",
    "用户@example.org",
    "🐄@example.org",
    "o'hara@example.org",
    '"quoted", comma; semicolon',
    "back\\slash@example.org",
    "=cmd|'/C calc'!A0",
    "+34600123123",
    "@everyone",
    "https://issuer.example.org/run/u1",
    "C=ES/O=Example/job/CN=Jane Doe",
    "%7Bescaped%7D@example.org",
)
NOT_PEOPLE = ("oscar", "nil", "minio")

# Where callers are, in two address families. Invented: the blocks are public ones, since
# addresses set aside for documentation rightly have no country, and stand for nobody.
COUNTRY_BLOCKS = {
    "ES": ("79.117.0.0/16", "88.10.0.0/16", "2a02:9000::/32"),
    "IT": ("79.1.0.0/16", "2a01:2000::/32"),
    "FR": ("90.20.0.0/16", "2a01:e00::/32"),
    "DE": ("91.10.0.0/16", "2a02:8070::/32"),
    "PT": ("62.48.0.0/16",),
    "NL": ("84.24.0.0/16",),
    "CZ": ("89.24.0.0/16", "2a00:1028::/32"),
    "US": ("23.20.0.0/16",),
    "BR": ("177.32.0.0/16",),
}
SCANNER_COUNTRIES = ("US", "NL", "BR")
# Public, and in no database of ours.
UNKNOWN_BLOCKS = ("101.44.0.0/16", "2401:4900::/32")
# How a pipeline may name a country, and what it then is.
COUNTRY_NAMES = {"Spain": "ES", "Italy": "IT", "France": "FR", "Germany": "DE", "Portugal": "PT"}
UNMAPPED_COUNTRY = "Atlantis"

_COUNTRY_WEIGHTS = {
    "ES": 34.0, "IT": 14.0, "FR": 11.0, "DE": 11.0, "PT": 7.0, "NL": 5.0, "CZ": 5.0, "US": 8.0,
    "BR": 5.0,
}  # fmt: skip
_PRIVATE = (
    "10.0.0.1", "10.244.0.17", "172.25.0.1", "192.168.1.40", "127.0.0.1", "::1", "fd12:3456::9a",
)  # fmt: skip


class People:
    """The platform's users, drawn once; each calls from a country of their own, mostly."""

    def __init__(self, dice: Dice, users: int) -> None:
        subjects = [f"{dice.digits(40)}@egi.eu" for _ in range(max(0, users - len(ODD_USERS)))]
        self.users = (*ODD_USERS, *subjects)
        self._homes = {user: self._addresses(dice) for user in self.users}
        # A few people make most of the calls.
        self._weights = {user: 1.0 / (1 + rank) ** 0.8 for rank, user in enumerate(self.users)}

    @staticmethod
    def _addresses(dice: Dice) -> tuple[str, ...]:
        country = dice.weighted(_COUNTRY_WEIGHTS)
        return tuple(_address_of_country(dice, country) for _ in range(3))

    def caller(self, dice: Dice) -> str:
        """One of the users, some far more often than others."""
        return dice.weighted(self._weights)

    def address(self, dice: Dice, user: str) -> str:
        """Where a call of this user comes from."""
        if dice.chance(0.12):
            return dice.pick(_PRIVATE)
        if dice.chance(0.05):
            return _address_in(dice, dice.pick(UNKNOWN_BLOCKS))
        if user in self._homes and not dice.chance(0.05):
            return dice.pick(self._homes[user])
        return _address_of_country(dice, dice.weighted(_COUNTRY_WEIGHTS))


def scanner_address(dice: Dice) -> str:
    """Where somebody who tries names comes from."""
    return _address_of_country(dice, dice.pick(SCANNER_COUNTRIES))


def country_of_address(ip: str) -> str:
    """What the GeoIP database of the corpus says of an address; blank where nothing."""
    return _COUNTRY_BY_START.get(_block_start(ip), "")


def roster_rows() -> list[tuple[str, str, str, str, str, str]]:
    """The roster's rows: id, name, membership, country, VO, project."""
    return [
        (_JANE, "Jane Doe", "member", "ES", "", "imaging"),
        (_GMOLTO, "G. Moltó", "member", "ES", "vo.example.eu", ""),
        (_VISION, "Vision Lab", "external", "DE", "vo.other.eu", "imaging"),
        ("María-José Ñúñez@example.org", "María-José", "member", "PT", "vo.example.eu", "climate"),
        ('"quoted", comma; semicolon', "", "external", "NL", "", ""),
        ("o'hara@example.org", "O'Hara", "member", "", "", ""),
        ("minio", "", "", "", "", ""),
    ]


def config_map(service: Service) -> dict[str, Any]:
    """The ConfigMap a service is deployed by, with a planted token."""
    definition = {
        "name": service.name,
        "image": f"registry.example.org/{service.name}:latest",
        "owner": service.owner,
        "visibility": service.visibility,
        "allowed_users": list(service.allowed_users),
        "labels": {"owner_name": service.owner_name},
        "vo": service.vo,
        "enable_gpu": service.enable_gpu,
        "token": PLANTED_TOKEN,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": service.name,
            "namespace": service.namespace,
            "labels": {"oscar_service": service.name},
        },
        "data": {
            "function_config.yaml": yaml.safe_dump(definition),
            "script.sh": "#!/bin/sh\ncat\n",
        },
    }


def namespace_manifest(namespace: str) -> dict[str, Any]:
    """The namespace as OSCAR makes it; the shared one names no owner."""
    metadata: dict[str, Any] = {"name": namespace}
    if owner := NAMESPACE_OWNERS.get(namespace):
        metadata["labels"] = {"app.kubernetes.io/managed-by": "oscar"}
        metadata["annotations"] = {"oscar.grycap.upv.es/owner": owner}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def manifests() -> list[dict[str, Any]]:
    """Every namespace and service of the platform, namespaces first."""
    namespaces = (SHARED_NAMESPACE, *NAMESPACE_OWNERS)
    everything = [namespace_manifest(name) for name in namespaces]
    everything += [config_map(service) for service in DEPLOYED]
    return everything


def _address_of_country(dice: Dice, country: str) -> str:
    return _address_in(dice, dice.pick(COUNTRY_BLOCKS[country]))


def _address_in(dice: Dice, block: str) -> str:
    """An address of one of the blocks above: a /16 of IPv4 or a /32 of IPv6."""
    start = _start_of_block(block)
    if ":" in start:
        return f"{start}:{dice.digits(3).lstrip('0') or '1'}::{1 + dice.below(9000):x}"
    return f"{start}.{dice.below(256)}.{1 + dice.below(254)}"


def _block_start(ip: str) -> str:
    separator = ":" if ":" in ip else "."
    return separator.join(ip.split(separator)[:2])


def _start_of_block(block: str) -> str:
    address = block.partition("/")[0]
    return address.removesuffix("::") if ":" in address else _block_start(address)


_COUNTRY_BY_START = {
    _start_of_block(block): country
    for country, blocks in COUNTRY_BLOCKS.items()
    for block in blocks
}
