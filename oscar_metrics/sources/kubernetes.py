"""What is deployed and whose it is: OSCAR's services and namespaces, from the Kubernetes API.

A service is a ConfigMap with the label `oscar_service`, in any namespace; its FDL says the
rest. A user's namespace carries its owner as an annotation and outlives the services in it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.facts import CLUSTER_ADMIN, Inventory, NamespaceOwner, Service
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.kubernetes_client import (
    KubernetesClient,
    Listing,
    Page,
    not_asked_for,
)
from oscar_metrics.sources.kubernetes_errors import NAME
from oscar_metrics.sources.kubernetes_fdl import read_fdl
from oscar_metrics.timerange import parse_instant

T = TypeVar("T")

APPLY_RBAC = "apply deploy/rbac.yaml and run with the service account it makes"

_SERVICE_LABEL = "oscar_service"
_MANAGED_BY, _OSCAR = "app.kubernetes.io/managed-by", "oscar"
# Of what is the matter with many, so many are named.
_NAMED = 10
_CLOCK_SECONDS = 5.0


class InventorySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where services live, and how many are read."""

    # The shared namespace of services; it belongs to the administrator.
    services_namespace: str = "oscar-svc"
    # Services, and namespaces, beyond this are not listed and the inventory is partial.
    most_services: Annotated[int, Meta(ge=1)] = 20_000


class KubernetesInventory:
    """The inventory of one cluster. What an FDL says is remembered until its ConfigMap changes."""

    def __init__(self, client: KubernetesClient, settings: InventorySettings) -> None:
        self._client = client
        self._settings = settings
        # What was seen in the last listing, by uid and version: grows with what exists.
        self._read: dict[tuple[str, str], Service | None] = {}

    async def read(self, *, now_ns: int, deadline: float | None) -> Outcome[Inventory]:
        """Services and owners as they are now, sorted; `Partial` names what could not be read."""
        try:
            async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
                listing = group.create_task(_or_error(self._services()))
                naming = group.create_task(_or_error(self._owners()))
        except TimeoutError:
            return Unavailable(origin=NAME, notes=(f"{NAME} {REASON_TEXT[Reason.DEADLINE]}",))
        services, owners = listing.result(), naming.result()
        if isinstance(services, UpstreamError):
            return Unavailable(origin=NAME, notes=(str(services),))
        doubts = _services_doubts(services)
        if isinstance(owners, UpstreamError):
            doubts.append(f"the owners of namespaces are missing: {owners}")
            owners = Listing(items=[], cut=True)
        elif owners.cut:
            doubts.append("the owners of some namespaces are missing: there are too many")
        found = [listed.service for listed in services.items]
        owned, conflicts = self._owned(owners.items, found)
        doubts += conflicts
        inventory = Inventory(
            services=tuple(sorted(found, key=lambda service: (service.namespace, service.name))),
            owners=tuple(sorted(owned, key=lambda owner: owner.namespace)),
            cut=True if services.cut or owners.cut else UNSET,
            created_ns={
                f"{listed.service.namespace}/{listed.service.name}": listed.created_ns
                for listed in services.items
                if listed.created_ns is not None
            },
        )
        if doubts:
            return Partial(
                facts=inventory, origin=NAME, notes=tuple(doubts), last_updated_ns=now_ns
            )
        return Ok(facts=inventory, origin=NAME, last_updated_ns=now_ns)

    async def check(self, now_ns: int) -> list[Finding]:
        """Whether the cluster answers, lets us list what is needed, and what it holds."""
        try:
            version = await self._client.get("/version", {}, _VERSION)
            findings = [_finding(Level.OK, f"Kubernetes {version.gitVersion} answers")]
            findings += self._clock_findings()
            for resource in ("configmaps", "namespaces"):
                if await self._client.may("list", resource):
                    says = f"{resource} may be listed in all namespaces"
                    findings.append(_finding(Level.OK, says))
                else:
                    says = f"{resource} may not be listed in all namespaces"
                    findings.append(_finding(Level.PROBLEM, says, APPLY_RBAC))
        except UpstreamError as exc:
            return [_finding(Level.PROBLEM, str(exc), CHANGE.get(exc.reason, ""))]
        outcome = await self.read(now_ns=now_ns, deadline=None)
        return findings + _inventory_findings(outcome)

    async def _services(self) -> Listing[_Listed]:
        """Every service, with what its ConfigMap says of it."""
        seen: dict[tuple[str, str], Service | None] = {}

        def keep(item: _ConfigMap) -> _Listed:
            about = item.metadata
            key = (about.uid, about.resourceVersion)
            labels = about.labels or {}
            if _SERVICE_LABEL not in labels:
                raise not_asked_for("a ConfigMap of no service")
            label = labels[_SERVICE_LABEL] or about.name
            if key in self._read:
                service = self._read[key]
            else:
                text = "" if item.data is None else item.data.fdl
                service = read_fdl(text, namespace=about.namespace, label=label)
            seen[key] = service
            return _Listed(
                key=key,
                service=service or Service(namespace=about.namespace, name=label),
                readable=service is not None,
                created_ns=_instant_ns(about.creationTimestamp),
            )

        listing = await self._client.list_all(
            "/api/v1/configmaps",
            {"labelSelector": _SERVICE_LABEL},
            _CONFIG_MAPS,
            keep,
            kind="ConfigMapList",
            most=self._settings.most_services,
        )
        if len({listed.key for listed in listing.items}) < len(listing.items):
            raise not_asked_for("a ConfigMap twice")
        self._read = seen
        return listing

    async def _owners(self) -> Listing[NamespaceOwner]:
        def keep(item: _Namespace) -> NamespaceOwner:
            if (item.metadata.labels or {}).get(_MANAGED_BY) != _OSCAR:
                raise not_asked_for("a namespace that is not OSCAR's")
            annotations = item.metadata.annotations
            owner = annotations.owner if annotations else ""
            return NamespaceOwner(namespace=item.metadata.name, owner=owner)

        return await self._client.list_all(
            "/api/v1/namespaces",
            {"labelSelector": f"{_MANAGED_BY}={_OSCAR}"},
            _NAMESPACES,
            keep,
            kind="NamespaceList",
            most=self._settings.most_services,
        )

    def _owned(
        self, owners: list[NamespaceOwner], services: list[Service]
    ) -> tuple[list[NamespaceOwner], list[str]]:
        """Whose each namespace is, by its annotation, and a doubt naming those two owners share.

        Some OSCAR versions give two users one namespace, and its annotation is then the last
        one's: nobody can say whose a deleted service in it was (ownership.py says nobody's).
        """
        shared = self._settings.services_namespace
        owned = {
            owner.namespace: owner.owner
            for owner in owners
            if owner.owner and owner.namespace != shared
        }
        conflicting = {
            service.namespace
            for service in services
            if service.owner and owned.get(service.namespace, service.owner) != service.owner
        }
        doubts = []
        if conflicting:
            doubts.append(
                "whose deleted services were is not known in namespaces with services of others "
                f"than their owner: {_some(conflicting)}"
            )
        owned[shared] = CLUSTER_ADMIN
        return [NamespaceOwner(namespace=space, owner=owned[space]) for space in owned], doubts

    def _clock_findings(self) -> list[Finding]:
        difference = self._client.clock_difference_seconds
        if difference is None or abs(difference) <= _CLOCK_SECONDS:
            return []
        says = f"its clock and ours differ by {abs(difference):.0f} s"
        return [_finding(Level.WARNING, says, "synchronise the clocks of both machines (NTP)")]


# What helps against a failure of the API as a whole.
CHANGE = {
    Reason.CONNECT: "check OSCAR_METRICS_KUBERNETES and the way to the API server",
    Reason.TLS: "check certificate-authority in the kubeconfig",
    Reason.TIMEOUT: "check the way to the API server, and how busy it is",
    Reason.UNAUTHORIZED: "renew the credentials: the kubeconfig's, or the service account's token",
    Reason.FORBIDDEN: APPLY_RBAC,
    Reason.BAD_ANSWER: "check the server's URL in the kubeconfig: something else answers there",
}


class _Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A service, its ConfigMap's uid and version, whether its FDL could be read, and its age."""

    key: tuple[str, str]
    service: Service
    readable: bool
    created_ns: int | None


class _About(msgspec.Struct, frozen=True):
    name: str
    namespace: str
    uid: str
    resourceVersion: str  # noqa: N815 - the API's own name
    labels: dict[str, str] | None = None
    creationTimestamp: str = ""  # noqa: N815 - as above


class _Data(msgspec.Struct, frozen=True):
    """The one entry of a ConfigMap that is looked at; it holds secrets, so it is never shown."""

    fdl: str = msgspec.field(name="function_config.yaml", default="")

    def __repr__(self) -> str:
        return "<data of a ConfigMap>"


class _ConfigMap(msgspec.Struct, frozen=True):
    metadata: _About
    data: _Data | None = None


class _Annotations(msgspec.Struct, frozen=True):
    owner: str = msgspec.field(name="oscar.grycap.upv.es/owner", default="")


class _NamespaceAbout(msgspec.Struct, frozen=True):
    name: str
    labels: dict[str, str] | None = None
    annotations: _Annotations | None = None


class _Namespace(msgspec.Struct, frozen=True):
    metadata: _NamespaceAbout


class _Version(msgspec.Struct, frozen=True):
    gitVersion: str  # noqa: N815 - the API's own name


_CONFIG_MAPS = msgspec.json.Decoder(Page[_ConfigMap])
_NAMESPACES = msgspec.json.Decoder(Page[_Namespace])
_VERSION = msgspec.json.Decoder(_Version)


async def _or_error(asking: Awaitable[T]) -> T | UpstreamError:
    try:
        return await asking
    except UpstreamError as exc:
        return exc


def _instant_ns(timestamp: str) -> int | None:
    try:
        return parse_instant(timestamp)
    except ValueError:
        return None


def _services_doubts(services: Listing[_Listed]) -> list[str]:
    doubts = []
    unreadable = [
        f"{listed.service.namespace}/{listed.service.name}"
        for listed in services.items
        if not listed.readable
    ]
    if unreadable:
        doubts.append(
            "owner and visibility are missing of services whose definition cannot be read: "
            + _some(unreadable)
        )
    if services.cut:
        doubts.append(f"only the first {len(services.items)} services are listed")
    return doubts


def _inventory_findings(outcome: Outcome[Inventory]) -> list[Finding]:
    if isinstance(outcome, Unavailable):
        return [_finding(Level.PROBLEM, note) for note in outcome.notes]
    services = outcome.facts.services
    namespaces = len({service.namespace for service in services})
    if services:
        says = f"{len(services)} services in {namespaces} namespaces"
        findings = [_finding(Level.OK, says)]
    else:
        says = f"no ConfigMap has the label {_SERVICE_LABEL}: no service is deployed"
        findings = [_finding(Level.WARNING, says, "if there should be, check the cluster asked")]
    return findings + [_finding(Level.WARNING, note) for note in outcome.notes]


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return ", ".join(ordered[:_NAMED]) + more


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=NAME, level=level, says=says, change=change)
