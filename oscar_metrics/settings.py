"""The settings tree: one flat list of names, from the environment and a TOML file.

Both use the same names (docs/configuration.md), and the environment wins. Settings stand
beside what they set, as structs; their names follow from their place in the tree, but for
those OSCAR's operators already know. A bad one stops the start with its name and what was
expected.
"""

from __future__ import annotations

import difflib
import errno
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Meta

from oscar_metrics.errors import SettingsError
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.sources.kubernetes import InventorySettings
from oscar_metrics.sources.kubernetes_client import KubernetesSettings
from oscar_metrics.sources.log_files import LogFilesSettings
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.sources.pod_logs import PodLogsSettings
from oscar_metrics.sources.prometheus import PrometheusSettings
from oscar_metrics.sources.roster import RosterSettings


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
    # The user roster, a CSV file with the header id,name,membership,country; nothing for none.
    roster_file: str = ""
    roster: RosterSettings = RosterSettings()
    log_files: LogFilesSettings = LogFilesSettings()
    loki: LokiSettings = LokiSettings()
    pod_logs: PodLogsSettings = PodLogsSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    inventory: InventorySettings = InventorySettings()
    prometheus: PrometheusSettings = PrometheusSettings()
    ledger: LedgerSettings = LedgerSettings()

    def __repr__(self) -> str:
        # Whatever prints settings must not print the password.
        return f"Settings(host={self.host!r}, port={self.port!r}, …)"


OFF = "off"
# The most a settings file, or a file that holds a secret, may have.
_MOST_BYTES = 1024 * 1024
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
}
# What Traefik's pods and log lines are labelled with by its chart.
_TRAEFIK = "traefik"
# What OSCAR's chart calls one of them.
ALIASES = {"LOKI_EXPOSED_APP_LABEL": "LOKI_EXPOSED_APP"}


def _fields(struct: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    """The path of every leaf of the tree."""
    for field in msgspec.structs.fields(struct):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields(field.type, f"{path}{field.name}.")
        else:
            yield path + field.name


def _names() -> dict[str, tuple[str, ...]]:
    named = {path for paths in _KEPT.values() for path in paths}
    ours = {
        _PREFIX + path.replace(".limits.", ".").replace(".", "_").upper(): (path,)
        for path in _fields(Settings)
        if path not in named
    }
    return {**_KEPT, **ours}


# Every name, and the places in the tree it sets.
NAMES = _names()
# Also read from the file that `<NAME>_FILE` names.
SECRETS = frozenset(
    name for name in NAMES if name.endswith(("_PASSWORD", "_TOKEN")) or name == "OSCAR_USERNAME"
)

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
    texts: dict[str, Any] = {}
    for name, value in _from_file(file).items():
        if name not in NAMES:
            raise _unknown(name, f"in {file}")
        texts[name] = value
    for name in environ:
        if name.startswith(_PREFIX) and not _known(name) and not _SERVICE_LINK.fullmatch(name):
            raise _unknown(name, "in the environment")
    texts.update(_from_environment(environ))
    if str(texts.get("EXPOSED_SERVICES_ROUTE_KIND", "")).strip() == "httproute":
        namespace = texts.get("HTTPROUTE_GATEWAY_NAMESPACE", Settings().gateway_namespace)
        texts.setdefault("LOKI_EXPOSED_NAMESPACE", namespace)
        texts.setdefault("LOKI_EXPOSED_APP", _TRAEFIK)
    tree: dict[str, Any] = {}
    for name, value in texts.items():
        for path in NAMES[name]:
            _put(tree, path, value.strip() if isinstance(value, str) else value)
    settings = _convert(tree)
    for name in sorted(SENT & texts.keys()):
        _check_sendable(name, str(texts[name]))
    _check_url("LOKI_URL", settings.loki.url, unless="")
    _check_url("PROMETHEUS_URL", settings.prometheus.url, unless=OFF)
    return settings


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = tomllib.loads(_text_of(file))
    except OSError as exc:
        raise SettingsError("--config", f"cannot read {file}: {exc.strerror}") from exc
    except ValueError as exc:  # TOML's and UTF-8's errors are ValueErrors
        raise SettingsError("--config", f"{file} is not TOML: {exc}") from exc
    return {ALIASES.get(name, name): value for name, value in values.items() if value != ""}


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Known names that are set to something; secrets from `<NAME>_FILE` where only that is set."""
    found: dict[str, str] = {}
    for name in (*ALIASES, *NAMES):
        value = environ.get(name, "")
        if not value.strip() and name in SECRETS and (path := environ.get(f"{name}_FILE", "")):
            value = _secret_from(f"{name}_FILE", Path(path))
        if name == "OSCAR_SERVICE_PORT" and "://" in value:
            continue  # a Service called `oscar` puts tcp://… here
        if value.strip():
            found[ALIASES.get(name, name)] = value
    return found


def _secret_from(name: str, path: Path) -> str:
    try:
        return _text_of(path).strip()
    except (OSError, ValueError) as exc:
        raise SettingsError(
            name, f"cannot read {path}: expected a text file of at most {_MOST_BYTES} bytes"
        ) from exc


def _text_of(path: Path) -> str:
    """A small regular file's text; raises OSError or ValueError for anything else."""
    if not path.is_file():  # a pipe or a device would be waited for
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError("too large")
    return content.decode("utf-8")


def _known(name: str) -> bool:
    return name in NAMES or name in ALIASES or (name.removesuffix("_FILE") in SECRETS)


def _unknown(name: str, where: str) -> SettingsError:
    close = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean {close[0]}?" if close else "see docs/configuration.md for every name"
    return SettingsError(name, f"unknown setting {where}; {hint}")


def _check_sendable(name: str, text: str) -> None:
    # What goes into a header; the value itself may be a secret and is not said.
    if not (text.strip().isascii() and text.strip().isprintable()):
        raise SettingsError(name, "expected printable ASCII characters only, on one line")


def _check_url(name: str, url: str, *, unless: str) -> None:
    try:
        _ = httpx.URL(url).host
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        good = False
    if url != unless and not good:
        raise SettingsError(name, "expected a URL such as http://host:port or https://host/path")


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *branches, leaf = path.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
    tree[leaf] = value


def _convert(tree: dict[str, Any]) -> Settings:
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as exc:
        text = str(exc)
        where = match[1] if (match := _WHERE.search(text)) else ""
        names = [name for name, paths in NAMES.items() if where in paths]
        expected = _WHERE.sub("", text).removesuffix(" - at ").strip()
        for word, plain in _PLAIN.items():
            expected = expected.replace(f"`{word}`", plain)
        raise SettingsError(names[0] if names else where, expected) from None
