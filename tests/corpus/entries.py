"""What the corpus consists of: log entries, and the calls that are behind them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from oscar_metrics.facts import Kind, LogStream, Result


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it really was; `ip` is the bare address, `namespace` blank if the line has none."""

    namespace: str
    service: str
    user: str
    ip: str
    kind: Kind
    status: int

    @property
    def result(self) -> Result:
        """What the status stands for."""
        if self.status >= 500:
            return Result.SERVER_ERROR
        return Result.CLIENT_ERROR if self.status >= 400 else Result.OK


class Gateway(StrEnum):
    """What exposed requests come in by, each with a log form of its own."""

    NGINX = "ingress-nginx"
    TRAEFIK_PATH = "traefik-path"
    TRAEFIK_HOST = "traefik-host"


class Workload(StrEnum):
    """Whose log it is; the value is the name of its log file."""

    MANAGER = "oscar-manager"
    NGINX = "ingress-nginx"
    TRAEFIK = "traefik-access"


WORKLOAD_OF_GATEWAY = {
    Gateway.NGINX: Workload.NGINX,
    Gateway.TRAEFIK_PATH: Workload.TRAEFIK,
    Gateway.TRAEFIK_HOST: Workload.TRAEFIK,
}


class Cri(StrEnum):
    """How an entry stands in a log file: plain, or as the container runtime writes it."""

    NONE = "plain"
    FULL = "F"
    PARTS = "P"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A log entry: what was written, where, and what is behind it.

    `time_ns` is the time its transport gives; where `cri` is NONE the line's own time is the
    same. `ours` says that a reader should recognise it as a record of its stream; with `call`
    None it then cannot be understood. `country_labels` are the labels a pipeline that knows
    countries would have set, `country` what they say. `copies` is how often it was written.
    """

    workload: Workload
    time_ns: int
    line: str
    cri: Cri = Cri.NONE
    ours: bool = False
    call: Call | None = None
    country_labels: Mapping[str, str] = {}
    country: str = ""
    copies: int = 1

    @property
    def stream(self) -> LogStream:
        """The log stream it belongs to."""
        if self.workload is Workload.MANAGER:
            return LogStream.EXECUTIONS
        return LogStream.EXPOSED

    @property
    def pod(self) -> str:
        """The pod that wrote it; each workload has two, and the second's log has CRI form."""
        return PODS[self.workload][self.cri is not Cri.NONE]


PODS = {
    Workload.MANAGER: ("oscar-6d5f7b9c4d-k2x7k", "oscar-6d5f7b9c4d-w9q4z"),
    Workload.NGINX: ("ingress-nginx-controller-mx2lq", "ingress-nginx-controller-t7cvd"),
    Workload.TRAEFIK: ("traefik-5c9b8d7f6-2fqzn", "traefik-5c9b8d7f6-hr8wk"),
}

# The runtime stamps a line a little after its writer did.
RUNTIME_DELAYS_NS = (0, 81_000, 2_000_000, 4_999_999)
