"""What gateways write: exposed requests in each gateway's form, and their other traffic."""

from __future__ import annotations

import json

from oscar_metrics.timerange import SECOND_NS
from tests.corpus.dice import Dice
from tests.corpus.entries import RUNTIME_DELAYS_NS, WORKLOAD_OF_GATEWAY, Call, Cri, Entry, Gateway
from tests.corpus.platform import BASE_HOST
from tests.corpus.times import access_log_time, rfc3339

_AGENTS = (
    "curl/8.7.1",
    "Mozilla/5.0 (X11; Linux x86_64) \\x22quoted\\x22",
    "-",
    "python-requests/2.32",
)
_PATHS = ("/", "/", "", "/api/run/items", "/static/app.js?v=3", "/a%20b/", "/exposed/")
_SIZES = (0, 17, 162, 612, 4817, 1048576)
# In a plain file these forms have whole seconds only.
SECOND_GATEWAYS = frozenset({Gateway.NGINX})


def exposed(dice: Dice, gateway: Gateway, call: Call, time_ns: int, cri: Cri) -> Entry:
    """The entry of an exposed request; without a namespace the gateway named no upstream."""
    own_ns = time_ns if cri is Cri.NONE else time_ns - dice.pick(RUNTIME_DELAYS_NS)
    path = dice.pick(_PATHS)
    if gateway is not Gateway.TRAEFIK_HOST:
        path = f"/system/services/{call.service}/exposed{path}"
    host = f"{call.service}.{BASE_HOST}" if gateway is Gateway.TRAEFIK_HOST else BASE_HOST
    if gateway is Gateway.NGINX:
        upstream = f"{call.namespace}-{call.service}-svc-80" if call.namespace else ""
        line = _nginx(dice, own_ns, call.ip, path, call.status, upstream)
    else:
        backend = f"{call.namespace}-{call.service}" if call.namespace else ""
        line = _traefik(dice, own_ns, call.ip, host, path or "/", call.status, backend)
    return _entry(gateway, time_ns, line, cri, call=call, ours=True)


def broken(dice: Dice, gateway: Gateway, call: Call, time_ns: int, cri: Cri) -> Entry:
    """An exposed request by path that cannot be understood: cut off, or its status garbled."""
    path = f"/system/services/{call.service}/exposed/"
    if gateway is Gateway.NGINX:
        line = _nginx(dice, time_ns, call.ip, path, call.status, "")
        garbled = line.replace(f'" {call.status} ', '" 2x0 ', 1), line.partition(" HTTP/")[0]
    else:
        line = _traefik(dice, time_ns, call.ip, BASE_HOST, path, call.status, "")
        garbled = (
            line.replace(f'"DownstreamStatus":{call.status}', '"DownstreamStatus":"2x0"'),
            line.partition('"RequestPort"')[0],
        )
    # A line of JSON that is cut off has lost its time: only a transport can give it one.
    cut_off = dice.chance(0.5) and (gateway is Gateway.NGINX or cri is not Cri.NONE)
    return _entry(gateway, time_ns, garbled[cut_off], cri, ours=True)


def other(dice: Dice, gateway: Gateway, time_ns: int, cri: Cri) -> Entry:
    """A request to something that is no exposed service, a sign of life."""
    path = dice.pick(
        (
            "/health",
            "/system/services",
            "/system/services/cowsay",
            "/run/cowsay",
            "/job/cowsay",
            "/favicon.ico",
        )
    )
    ip = "10.244.0.1"
    if gateway is Gateway.NGINX:
        referrer = f"https://{BASE_HOST}/system/services/cowsay/exposed/"
        line = _nginx(dice, time_ns, ip, path, 200, "oscar-oscar-8080", referrer=referrer)
    else:
        host = dice.pick((BASE_HOST, "cowsay.example.net", f"cowsay.not{BASE_HOST}"))
        line = _traefik(dice, time_ns, ip, host, path, 200, "oscar-oscar")
    return _entry(gateway, time_ns, line, cri)


def _entry(
    gateway: Gateway,
    time_ns: int,
    line: str,
    cri: Cri,
    *,
    ours: bool = False,
    call: Call | None = None,
) -> Entry:
    return Entry(
        workload=WORKLOAD_OF_GATEWAY[gateway],
        time_ns=time_ns,
        line=line,
        cri=cri,
        ours=ours,
        call=call,
    )


def _nginx(
    dice: Dice, time_ns: int, ip: str, path: str, status: int, upstream: str, referrer: str = "-"
) -> str:
    at = access_log_time(time_ns, offset_hours=dice.weighted({0: 9.0, 1: 1.0}))
    answered = f"10.244.0.223:80 17 0.002 {status}" if upstream else "- - - -"
    method = dice.weighted({"GET": 8.0, "POST": 2.0})
    return (
        f'{ip} - - [{at}] "{method} {path} HTTP/1.1" {status} {dice.pick(_SIZES)} "{referrer}" '
        f'"{dice.pick(_AGENTS)}" 109 0.00{dice.below(10)} [{upstream}] [] {answered} '
        f"{dice.digits(8)}5f6e2d1c8ab94e07b3c1d2e4"
    )


def _traefik(
    dice: Dice, time_ns: int, ip: str, host: str, path: str, status: int, backend: str
) -> str:
    duration_ns = (1 + dice.below(40)) * 1_000_003
    port = 40000 + dice.below(100)
    record: dict[str, object] = {
        "ClientAddr": f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}",
        "ClientHost": ip,
        "ClientPort": str(port),
        "ClientUsername": "-",
        "DownstreamContentSize": dice.pick(_SIZES),
        "DownstreamStatus": status,
        "Duration": duration_ns,
        "RequestAddr": host,
        "RequestCount": dice.below(1000),
        "RequestHost": host,
        "RequestMethod": "GET",
        "RequestPath": path,
        "RequestPort": "-",
        "RequestProtocol": "HTTP/1.1",
        "RequestScheme": "https",
        "StartUTC": rfc3339(time_ns),
        "entryPointName": "websecure",
        "level": "info",
        "msg": "",
        "time": rfc3339((time_ns + duration_ns) // SECOND_NS * SECOND_NS),
    }
    if backend:
        record["RouterName"] = f"{backend}-route@kubernetesgateway"
        record["ServiceName"] = f"{backend}-svc-80@kubernetesgateway"
    if dice.chance(0.1):
        # The fallback: the address as the client wrote it, port and all.
        del record["RequestHost"]
        record["RequestAddr"] = f"{host}:443"
    if time_ns % SECOND_NS == 0 and dice.chance(0.5):
        record["StartUTC"] = access_log_time(time_ns)
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
