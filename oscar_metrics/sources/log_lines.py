"""What one log line says, for every form in which OSCAR and its gateways write calls. Pure.

Executions are written by OSCAR's manager, fields apart by ` | `, maybe behind a prefix of
the transport (CRI: `<time> stdout|stderr F|P `):

    [GIN-EXECUTIONS-LOGGER] time | status | latency | ip | POST /run/svc | user
    [GIN-EXECUTIONS-LOGGER] time | status | latency | ip | POST /job/svc | user | svc | namespace
    [GIN] time | status | latency | ip | POST /job/svc | user

Exposed requests are lines of ingress-nginx, or Traefik's JSON with routing by path or host.

A line is a call, or it is recognised and not understood, or it is none of ours. Recognised
is: the executions tag, unless the line plainly names another path or another method than
POST; a `[GIN]` line with a user behind a POST to /run/ or /job/ (without a user it is Gin's
own access log of a call that has its own line); a gateway line with the path
`/system/services/<svc>/exposed`, or Traefik's with a host one label under the ingress host
(with none configured, one whose first label is the service it was routed to: not understood).
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

import msgspec

from oscar_metrics.facts import Kind, LogStream, Result

EXECUTIONS_TAG = "[GIN-EXECUTIONS-LOGGER]"
GIN_TAG = "[GIN]"
SEPARATOR = " | "

_KINDS = {"run": Kind.SYNC, "job": Kind.ASYNC}
_PATHS = ("/run/", "/job/")
# Names are kept as they are written; what is longer, or could move a cursor, is no name.
_LONGEST_NAME = 253
_LONGEST_USER = 1000
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TAIL_ENDS = ("?", "/", '"', "#")


def stream_of(line: str) -> LogStream | None:
    """Which of the two logs a line is from, call or not; None where it does not show."""
    # The usual line of a manager, as it is or behind a CRI prefix.
    if line.startswith("[GIN") or line.startswith("F [GIN", line.find(" ") + 8):
        return LogStream.EXECUTIONS
    body = without_prefix(line)
    if body.startswith("{"):
        return LogStream.EXPOSED if '"Request' in body or '"RouterName"' in body else None
    if _TAGGED.match(body) or EXECUTIONS_TAG in body:
        return LogStream.EXECUTIONS
    return LogStream.EXPOSED if _ACCESS.match(body) else None


# Every logger of the manager writes its name first.
_TAGGED = re.compile(r"\[[A-Z][A-Z0-9-]*\] ")
_ACCESS = re.compile(r'\S+ - [^\[\]"]*\[[^\]"]*\] "')


class Unread(Enum):
    """Why a line is no call."""

    OTHER = "none of ours"
    NOT_UNDERSTOOD = "recognised, but not understood"


class Call(NamedTuple):
    """One call as its line has it; `namespace` and `user` are blank where the line has none."""

    kind: Kind
    namespace: str
    service: str
    user: str
    result: Result
    ip: str


def read_execution(line: str) -> Call | Unread:
    """The execution a manager's line stands for."""
    head, *fields = line.split(SEPARATOR, 4)
    tagged = EXECUTIONS_TAG in head
    if not tagged and GIN_TAG not in head:
        return Unread.OTHER
    if len(fields) < 4:
        return Unread.NOT_UNDERSTOOD if tagged else Unread.OTHER
    status, _latency, ip, rest = fields
    return interpret_execution(rest, status, ip, tagged=tagged)


def interpret_execution(rest: str, status: str, ip: str, *, tagged: bool) -> Call | Unread:
    """The execution of a line already cut at its fourth separator; `rest` begins at the method."""
    # A blank user at the end may have lost the space behind its separator on the way.
    request, *fields = (rest + " ").split(SEPARATOR)
    if not fields and not tagged:
        return Unread.OTHER
    remembered = len(request) <= _LONGEST_REMEMBERED
    asked = _asked(request) if remembered else _asked.__wrapped__(request)
    if isinstance(asked, Unread):
        return asked if tagged else Unread.OTHER
    execution = _execution(*asked, fields)
    result = result_of(status)
    if execution is None or result is None:
        return Unread.NOT_UNDERSTOOD
    return Call(*execution, result, ip.strip())


# The same few requests come again and again; a long query does not.
_LONGEST_REMEMBERED = 200


@lru_cache(maxsize=4096)
def _asked(request: str) -> tuple[Kind, str] | Unread:
    """Kind and service that a request names; NOT_UNDERSTOOD for one that was cut short."""
    method, _, path = request.strip().strip('"').partition(" ")
    path = path.strip().strip('"')
    if method != "POST" and (path or not "POST".startswith(method)):
        return Unread.OTHER
    if not path.startswith(_PATHS):
        cut_short = any(start.startswith(path) for start in _PATHS)
        return Unread.NOT_UNDERSTOOD if cut_short else Unread.OTHER
    kind, _, tail = path[1:].partition("/")
    return _KINDS[kind], _service_of(tail)


def result_of(status: str) -> Result | None:
    """What an HTTP status says became of a call; None for what is no status of 100 to 599."""
    return _RESULTS.get(status.strip())


_RESULTS = (
    {str(status): Result.OK for status in range(100, 400)}
    | {str(status): Result.CLIENT_ERROR for status in range(400, 500)}
    | {str(status): Result.SERVER_ERROR for status in range(500, 600)}
)


def _service_of(tail: str) -> str:
    """The service in what follows `/run/` or `/job/`."""
    tail = tail.strip()
    for end in _TAIL_ENDS:
        if end in tail:
            tail = tail[: tail.index(end)]
    return tail.strip()


def _execution(kind: Kind, service: str, fields: list[str]) -> tuple[Kind, str, str, str] | None:
    namespace = ""
    if len(fields) == 3:
        service = fields[1].strip() or service
        namespace = fields[2].strip()
    elif len(fields) != 1:
        return None
    user = fields[0].strip()
    too_long = max(len(service), len(namespace)) > _LONGEST_NAME or len(user) > _LONGEST_USER
    if not service or too_long or not _is_plain(f"{service}{namespace}{user}"):
        return None
    return kind, namespace, service, user


def _is_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and _is_plain(text)


def _is_plain(text: str) -> bool:
    return text.isprintable() or not _CONTROL.search(text)


# What a transport puts before the line: the time, and with CRI the stream and whether the
# line is whole (F) or part of one (P). `kubectl logs --timestamps` writes the time alone.
TRANSPORT_PREFIX = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S{1,40}) (?:(stdout|stderr) ([FP])\S{0,20}(?: |$))?", re.ASCII
)


def without_prefix(line: str) -> str:
    """The line as its program wrote it."""
    match = TRANSPORT_PREFIX.match(line) if line[4:5] == "-" else None
    return line[match.end() :] if match else line


class GatewayFields(NamedTuple):
    """The raw texts of a gateway's line that decide what it counts as; `status` may be blank."""

    service: str
    status: str
    upstream: str
    ip: str


def read_exposed(line: str, *, ingress_host: str = "") -> Call | Unread:
    """The exposed request a gateway's line stands for.

    `ingress_host` is the base host under which services have hosts of their own; blank
    when there is none, and then only paths are looked at.
    """
    fields = gateway_fields(line, ingress_host=ingress_host)
    return fields if isinstance(fields, Unread) else interpret_exposed(fields)


def interpret_exposed(fields: GatewayFields) -> Call | Unread:
    """The exposed request behind a gateway line's raw texts.

    A call without any status counts as `ok`: nothing says that it failed. It names no user.
    """
    service = fields.service
    result = result_of(fields.status) if fields.status else Result.OK
    if result is None or not service or not _is_name(service):
        return Unread.NOT_UNDERSTOOD
    return Call(
        Kind.EXPOSED,
        _namespace_of_upstream(fields.upstream, service),
        service,
        "",
        result,
        fields.ip,
    )


def gateway_fields(line: str, *, ingress_host: str = "") -> GatewayFields | Unread:
    """What a gateway's line says of an exposed request, as raw texts."""
    if "/system/services/" not in line and not (
        '"Request' in line and (ingress_host or "-svc-" in line)
    ):
        return Unread.OTHER
    body = without_prefix(line)
    if body.startswith("{"):
        return _traefik_fields(body, ingress_host.lower().strip("."))
    if match := _NGINX.match(body):
        ip, service, status, upstream = match.groups("")
        return GatewayFields(service, status or "none", upstream, ip)
    return Unread.OTHER


_EXPOSED_PATH = r"/system/services/([^/?#\"\\ ]+)/exposed(?![^/?#\"\\ ])"
# Up to the status; what follows is there when the line is whole. Nginx writes a quote inside
# a value as \x22, so a quote ends one.
_NGINX = re.compile(
    r'(\S+) - [^\[\]"]*\[[^\]"]*\] "[A-Z]+ ' + _EXPOSED_PATH + r'(?:[^"]*" (\d+)(?![^ ])'
    r'(?: \S+ "[^"]*" "[^"]*" \S+ \S+ \[([^\]]*)\])?)?'
)
_PATH = re.compile(_EXPOSED_PATH)


class _Traefik(msgspec.Struct, frozen=True):
    """The fields of Traefik's JSON access log that are needed here, under its own names."""

    RequestPath: str = ""
    RequestHost: str = ""
    RequestAddr: str = ""
    ClientHost: str = ""
    ClientAddr: str = ""
    RouterName: str = ""
    ServiceName: str = ""
    DownstreamStatus: int | str | None = None
    OriginStatus: int | str | None = None


_TRAEFIK = msgspec.json.Decoder(_Traefik)


def _traefik_fields(body: str, ingress_host: str) -> GatewayFields | Unread:
    try:
        entry = _TRAEFIK.decode(body)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return _broken_traefik(body, ingress_host)
    if match := _PATH.match(entry.RequestPath):
        service = match[1]
    else:
        host = entry.RequestHost or entry.RequestAddr
        if not ingress_host and entry.ServiceName and _is_service_route(entry, host.split(".")[0]):
            # A service with a host of its own, and nobody said under which base host.
            return Unread.NOT_UNDERSTOOD
        service = _label_under(host, ingress_host)
        if not service or not _is_service_route(entry, service):
            return Unread.OTHER
    # Traefik writes 0 for the origin's status where no origin was asked.
    status = entry.OriginStatus or "" if entry.DownstreamStatus is None else entry.DownstreamStatus
    return GatewayFields(
        service, str(status), entry.ServiceName, entry.ClientHost or entry.ClientAddr
    )


def _broken_traefik(body: str, ingress_host: str) -> Unread:
    """Whether what is left of a broken JSON line shows that it was a call."""
    path = re.search(r'"RequestPath" ?: ?"' + _EXPOSED_PATH, body)
    host = re.search(r'"Request(?:Host|Addr)" ?: ?"([^"]*)"', body)
    if path or (host and _label_under(host[1], ingress_host)):
        return Unread.NOT_UNDERSTOOD
    return Unread.OTHER


def _label_under(host: str, ingress_host: str) -> str:
    """The one DNS label by which `host` lies under the ingress host; blank when it does not."""
    if not ingress_host:
        return ""
    name = host.lower().rpartition(":")[0] if ":" in host else host.lower()
    label = name.rstrip(".").removesuffix("." + ingress_host)
    return "" if label == name.rstrip(".") or "." in label else label


def _is_service_route(entry: _Traefik, service: str) -> bool:
    """Whether a host's call went to a service and not, say, to OSCAR's own pages beside them."""
    if not entry.ServiceName:
        return True
    # Some versions of Traefik write the router's name for the service's.
    names = f"{entry.ServiceName} {entry.RouterName}"
    return f"-{service}-svc-" in names or f"-{service}-route" in names


def _namespace_of_upstream(upstream: str, service: str) -> str:
    """The namespace in `<namespace>-<service>-svc-<port>[@provider]`; blank when it does not fit.

    Both names contain `-`, so only the known service tells where the namespace ends.
    """
    name, _, port = upstream.partition("@")[0].rpartition("-")
    namespace = name.removesuffix(f"-{service}-svc")
    if namespace == name or not port or not _is_name(namespace):
        return ""
    return namespace
