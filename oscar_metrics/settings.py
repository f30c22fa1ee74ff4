"""The settings tree: one flat list of names, from the environment and a TOML file.

Both use the same names (docs/configuration.md), and the environment wins. Settings stand
beside what they set, as structs; their names follow from their place in the tree, but for
those OSCAR's operators already know. A bad one stops the start with its name and what was
expected.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import msgspec
from msgspec import Meta

from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.errors import SettingsError
from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.resilience.lanes import LaneSettings
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.settings_checks import (
    check_access,
    check_cache,
    check_keycloak,
    check_oidc,
    check_readable,
    check_sendable,
    check_url,
    check_username,
)
from oscar_metrics.sources.keycloak_api import PREFIX as KEYCLOAK
from oscar_metrics.sources.keycloak_api import KeycloakSettings
from oscar_metrics.sources.kubernetes import InventorySettings
from oscar_metrics.sources.kubernetes_client import KubernetesSettings
from oscar_metrics.sources.log_files import LogFilesSettings
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.sources.pod_logs import PodLogsSettings
from oscar_metrics.sources.prometheus import PrometheusSettings
from oscar_metrics.sources.remembered_claims import RememberSettings
from oscar_metrics.sources.roster import RosterSettings
from oscar_metrics.sources.watched_files import text_of


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    # The administrator's name and password (Basic authentication); required to serve.
    username: str = ""
    password: str = ""
    # Address to listen on; 0.0.0.0 for every interface.
    host: str = "127.0.0.1"
    # Port to listen on.
    port: Annotated[int, Meta(ge=1, le=65535)] = 8080
    # How long one HTTP report may take, in seconds; what has not arrived by then is a gap.
    # The command line waits as long as it takes.
    deadline_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    # The most seconds a caller's `Prefer: wait=` makes of that; more is cut to so many.
    deadline_most_seconds: Annotated[int, Meta(ge=1, le=3600)] = 120
    # How long reports under way may go on once the server is told to stop, in seconds; those
    # that have not finished by then are answered with 503.
    grace_seconds: Annotated[int, Meta(ge=0, le=3600)] = 10
    connections: ConnectionSettings = ConnectionSettings()
    # Log lines as JSON (true) or as plain text.
    log_json: bool = True
    # The least serious log lines written: debug, info, warning or error.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    # How exposed services are reached: `ingress` (nginx) or `httproute` (Traefik). It decides
    # only where the gateway's log is looked for; every known form of line is read.
    route_kind: Literal["ingress", "httproute"] = "ingress"
    # The namespace of Traefik, with `httproute`.
    gateway_namespace: str = "traefik"
    # A country database in MMDB format (GeoLite2-Country or the like); nothing for none.
    geoip_database: str = ""
    # The roster file, a CSV whose header has some of the columns of sources/roster.py; blank: none.
    roster_file: str = ""
    roster: RosterSettings = RosterSettings()
    keycloak: KeycloakSettings = KeycloakSettings()
    remember: RememberSettings = RememberSettings()
    log_files: LogFilesSettings = LogFilesSettings()
    loki: LokiSettings = LokiSettings()
    pod_logs: PodLogsSettings = PodLogsSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    inventory: InventorySettings = InventorySettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    ledger: LedgerSettings = LedgerSettings()
    oidc: OidcSettings = OidcSettings()
    access: AccessSettings = AccessSettings()
    cache: CacheSettings = CacheSettings()
    lanes: LaneSettings = LaneSettings()

    def __repr__(self) -> str:
        # Whatever prints settings must not print the password.
        return f"Settings(host={self.host!r}, port={self.port!r}, …)"


OFF = "off"
_PREFIX = "OSCAR_METRICS_"

# Names that OSCAR's operators already know, and every place in the tree they set.
_KEPT: Mapping[str, tuple[str, ...]] = {
    "OSCAR_USERNAME": ("username",),
    "OSCAR_PASSWORD": ("password",),
    "OSCAR_SERVICE_PORT": ("port",),
    "OSCAR_NAMESPACE": ("loki.namespace", "pod_logs.namespace"),
    "OSCAR_SERVICES_NAMESPACE": ("inventory.services_namespace", "prometheus.services_namespace"),
    "PROMETHEUS_URL": ("prometheus.url",),
    "PROMETHEUS_CPU_QUERY": ("prometheus.cpu_query",),
    "PROMETHEUS_GPU_QUERY": ("prometheus.gpu_query",),
    "LOKI_URL": ("loki.url",),
    "LOKI_QUERY": ("loki.query",),
    "LOKI_EXPOSED_QUERY": ("loki.exposed_query",),
    "EXPOSED_SERVICES_ROUTE_KIND": ("route_kind",),
    "HTTPROUTE_GATEWAY_NAMESPACE": ("gateway_namespace",),
    "LOKI_EXPOSED_NAMESPACE": ("loki.exposed_namespace", "pod_logs.exposed_namespace"),
    "LOKI_EXPOSED_APP": ("loki.exposed_app", "pod_logs.exposed_app"),
    "INGRESS_HOST": ("loki.ingress_host", "pod_logs.ingress_host", "log_files.ingress_host"),
    "OSCAR_METRICS_KUBERNETES": ("kubernetes.config",),
    "OSCAR_METRICS_LOG_FILES": ("log_files.pattern",),
    "OSCAR_METRICS_LEDGER": ("ledger.file",),
    "OSCAR_METRICS_ROSTER": ("roster_file",),
    "OSCAR_METRICS_CACHE": ("cache.store",),
    "OIDC_ENABLE": ("oidc.enable",),
    "OIDC_ISSUERS": ("oidc.issuers",),
    "OIDC_GROUPS": ("oidc.groups",),
    "OIDC_CLIENT_ID": ("oidc.client_id",),
    "OIDC_CLIENT_SECRET": ("oidc.client_secret",),
    "OIDC_SUBJECT": ("oidc.subject",),
    "USERS_ADMIN": ("oidc.users_admin",),
}
# Branches of the tree that are not part of names.
_NAMELESS = frozenset({"limits", "protection", "credentials", "access", "lanes"})
# What Traefik's pods and log lines are labelled with by its chart.
_TRAEFIK = "traefik"
# What OSCAR's chart calls one of them.
ALIASES = {"LOKI_EXPOSED_APP_LABEL": "LOKI_EXPOSED_APP"}


def _fields(struct: type[msgspec.Struct], path: str = "") -> Iterator[tuple[str, Any]]:
    """The path of every leaf of the tree, and its type."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields(field.type, f"{path}{field.name}.")
        else:
            yield path + field.name, field.type


_TYPES = dict(_fields(Settings))


def _names() -> dict[str, tuple[str, ...]]:
    named = {path for paths in _KEPT.values() for path in paths}
    ours = {
        _PREFIX + "_".join(part for part in path.split(".") if part not in _NAMELESS).upper(): (
            path,
        )
        for path in _TYPES
        if path not in named
    }
    return {**_KEPT, **ours}


# Every name, and the places in the tree it sets.
NAMES = _names()
# Also read from the file that `<NAME>_FILE` names.
SECRETS = frozenset(
    name
    for name in NAMES
    if name.endswith(("_PASSWORD", "_TOKEN", "_SECRET", "_KEY"))
    or name in ("OSCAR_USERNAME", "OSCAR_METRICS_CACHE")
)
# Of these the file itself is a setting: it is read again whenever it changes.
WATCHED = frozenset(name for name in SECRETS if f"{name}_FILE" in NAMES)
# Texts in the environment that are lists, comma separated.
LISTS = frozenset(name for name in NAMES if get_origin(_TYPES[NAMES[name][0]]) is tuple)
# What is true or false may also be said to be on or off.
SWITCHES = frozenset(name for name in NAMES if _TYPES[NAMES[name][0]] is bool)
_SWITCH = {"on": "true", "off": "false"}

# Kubernetes injects these for every Service of the namespace; a Service called
# oscar-metrics would otherwise make names of ours up.
_SERVICE_LINK = re.compile(
    r"OSCAR(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_.+)?)"
)
# What a decoder calls the kinds of values, and what people do.
_PLAIN = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "array": "a list",
    "object": "a table",
}
_WHERE = re.compile(r"`\$\.?([^`]*)`")

# What is sent as a header.
SENT = frozenset(name for name in NAMES if name.endswith(("_TOKEN", "_TENANT")))


def load(environ: Mapping[str, str], file: Path | None = None) -> Settings:
    """Settings from `environ` over `file`; raises SettingsError naming the first bad one."""
    in_file = _from_file(file)
    for name in in_file:
        if not _known(name):
            raise _unknown(name, f"in {file}")
    for name in environ:
        if name.startswith(_PREFIX) and not _known(name) and not _SERVICE_LINK.fullmatch(name):
            raise _unknown(name, "in the environment")
    values = _merged(_set_by(environ), _set_by(in_file))
    if values.get("EXPOSED_SERVICES_ROUTE_KIND") == "httproute":
        namespace = values.get("HTTPROUTE_GATEWAY_NAMESPACE", Settings().gateway_namespace)
        values.setdefault("LOKI_EXPOSED_NAMESPACE", namespace)
        values.setdefault("LOKI_EXPOSED_APP", _TRAEFIK)
    tree: dict[str, Any] = {}
    for name, value in values.items():
        check_readable(name, value)
        for path in NAMES[name]:
            _put(tree, path, value)
    settings = _convert(tree)
    for name in sorted(SENT & values.keys()):
        check_sendable(name, str(values[name]))
    check_username(settings.username)
    check_url("LOKI_URL", settings.loki.url, unless="")
    check_url("PROMETHEUS_URL", settings.prometheus.url, unless=OFF)
    check_url(f"{KEYCLOAK}_URL", settings.keycloak.url, unless="")
    check_keycloak(settings.keycloak)
    check_oidc(settings.oidc)
    check_access(settings.access)
    check_cache(settings.cache)
    return settings


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(text_of("--config", file))
    except ValueError as exc:  # TOML's errors are ValueErrors
        raise SettingsError("--config", f"{file} is not TOML: {exc}") from exc


def _set_by(texts: Mapping[str, Any]) -> dict[str, Any]:
    """Known names that one place sets to something; a secret itself wins over its file."""
    found: dict[str, Any] = {}
    for name in (*ALIASES, *NAMES):
        value = _plain(name, texts.get(name, ""))
        if value == "" and name in SECRETS - WATCHED and (path := texts.get(f"{name}_FILE", "")):
            value = text_of(f"{name}_FILE", path).strip()
        if name == "OSCAR_SERVICE_PORT" and "://" in str(value):
            continue  # a Service called `oscar` puts tcp://… here
        if value != "":
            found[ALIASES.get(name, name)] = value
    for name in WATCHED & found.keys():
        found.pop(f"{name}_FILE", None)
    return found


def _plain(name: str, value: Any) -> Any:
    """A value without blanks around it, as a list where it is one; blank for an empty one."""
    if isinstance(value, str):
        value = value.strip()
        if name in LISTS:
            value = value.split(",")
        elif name in SWITCHES:
            value = _SWITCH.get(value.lower(), value)
    if isinstance(value, list):
        items = [item.strip() if isinstance(item, str) else item for item in value]
        return [item for item in items if item != ""] or ""
    return value


def _merged(environment: dict[str, Any], in_file: dict[str, Any]) -> dict[str, Any]:
    """The environment over the file; a secret, or its file, over both of the other's."""
    for name in WATCHED:
        both = {name, f"{name}_FILE"}
        if both & environment.keys():
            for one in both:
                in_file.pop(one, None)
    return {**in_file, **environment}


def _known(name: str) -> bool:
    return name in NAMES or name in ALIASES or name.removesuffix("_FILE") in SECRETS


def _unknown(name: str, where: str) -> SettingsError:
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else "see docs/configuration.md for every name"
    return SettingsError(name, f"unknown setting {where}; {hint}")


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *branches, leaf = path.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
    tree[leaf] = value


def _choices(path: str) -> tuple[Any, ...]:
    """What the setting at a path, or each item of its list, may be."""
    kind: Any = msgspec.inspect.type_info(Settings)
    for name in path.split("."):
        kind = next(field.type for field in kind.fields if field.name == name)
    kind = getattr(kind, "item_type", kind)
    return kind.values if isinstance(kind, msgspec.inspect.LiteralType) else tuple(kind.cls)


def _convert(tree: dict[str, Any]) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as exc:
        text = str(exc)
        where = match[1].partition("[")[0] if (match := _WHERE.search(text)) else ""
        names = [name for name, paths in NAMES.items() if where in paths]
        expected = _WHERE.sub("", text).removesuffix(" - at ").strip()
        if "enum value" in text:
            expected += f": expected {', '.join(map(str, _choices(where)))}"
        for word, plain in _PLAIN.items():
            expected = expected.replace(f"`{word}`", plain)
        raise SettingsError(names[0] if names else where, expected) from None
