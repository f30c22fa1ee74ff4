"""Reports that are kept, against a bare Litestar route that answers the same bytes.

    python -m bench.kept_reports [--seconds 3]

Each server is a process of its own on the first core; who asks, over 16 connections that are
kept, and whoever else there is, have the last one. Ours is `oscar-metrics serve` with its
settings as they are, over a ledger: who asks is found out, and each request has its line in a
log that somebody reads through a pipe, and its place in /metrics. Beside it stands one route of
Litestar's under the same uvicorn, with our protocol and with uvicorn's own. All take turns; each
figure is the median of the rounds. Figures: at least 40 % of the bare route's requests a second
(of the faster of the two), its p99 no more than 3 times as long. The processor's time is what the
server had of it for each request, the least of the rounds.

Where the rest goes is found by stopping our server after each millisecond of its time, and looking
at which code it is in.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

import httpx
import msgspec
import uvicorn
import uvloop
from litestar import Litestar, get
from litestar.handlers import HTTPRouteHandler

from bench import _load, ledger
from bench.start import wait_until_ready
from oscar_metrics.cli import main as oscar_metrics
from oscar_metrics.handlers.bounded_http import bounded_http
from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.telemetry import Telemetry
from tests.e2e.issuing import threaded_issuer
from tests.servers.process import free_port

CONNECTIONS, ROUNDS = 16, 5
LEAST_SHARE, MOST_TIMES = 0.4, 3.0
USERNAME, PASSWORD, USER = "admin", "bench", "a11ce@example.org"
RANGE = {"start": "2026-01-01T00:00:00Z", "end": "2026-03-31T23:59:59Z"}
# By about how large they are.
REPORTS: Mapping[str, tuple[str, dict[str, str]]] = {
    "value": ("value", {"service_id": "service-1", "metric": "requests-sync-per-service"}),
    "summary": ("summary", {}),
    "breakdown": ("breakdown", {"group_by": "service", "interval": "month"}),
}
# The servers, by what they are called here.
OURS, BEARER = "ours, Basic", "ours, Bearer"
BARE, BARE_OWN = "bare, our protocol", "bare, uvicorn's own"
_SAMPLED_SECONDS = 0.001


class Server(msgspec.Struct, frozen=True):
    """One that is running."""

    port: int
    pid: int

    def cpu_seconds(self) -> float:
        """The processor's time it has had."""
        return _load.cpu_seconds(self.pid)


class Loaded(msgspec.Struct, frozen=True):
    """What a server did in a round."""

    per_second: float
    p50_ms: float
    p99_ms: float
    # What the server's processor was busy with each.
    cpu_us: float


def main() -> None:
    """Print how each server does, side by side, and what ours is busy with."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--keep", type=Path, help="a folder to build in, or to use what was built")
    parser.add_argument(
        "--bare", nargs=3, metavar=("PORT", "HTTP", "FOLDER"), help=argparse.SUPPRESS
    )
    parser.add_argument("--sampled", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        port, http, folder = arguments.bare
        serve_bare(int(port), http, Path(folder))
    elif arguments.sampled:
        serve_sampled(arguments.sampled)
    else:
        os.sched_setaffinity(0, {_load.OUR_CORE})
        with tempfile.TemporaryDirectory() as folder:
            file = (arguments.keep or Path(folder)) / "ledger.duckdb"
            if not file.exists():
                ledger.build(file, 200_000)
            measure(file, Path(folder), arguments.seconds, arguments.rounds)


def measure(file: Path, folder: Path, seconds: float, rounds: int) -> None:
    """Everything, in one run."""
    with threaded_issuer() as issuer:
        issuer.says("/userinfo", {"sub": USER, "group_membership": ["users"]})
        now = int(time.time())
        token = issuer.token(sub=USER, iat=now, exp=now + 3600)
        settings = {
            "OSCAR_METRICS_KUBERNETES": "off",
            "OSCAR_METRICS_LEDGER": str(file),
            "PROMETHEUS_URL": "off",
            "OIDC_ENABLE": "true",
            "OIDC_ISSUERS": issuer.url,
            "OIDC_GROUPS": "*",
            "USERS_ADMIN": USER,
        }
        asked = {
            OURS: _load.basic(USERNAME, PASSWORD),
            BEARER: {"Authorization": f"Bearer {token}"},
            BARE: _load.basic(USERNAME, PASSWORD),
            BARE_OWN: _load.basic(USERNAME, PASSWORD),
        }
        with ExitStack() as servers:
            us = servers.enter_context(ours(settings))
            bodies = kept_bodies(us.port, asked)
            for name, body in bodies.items():
                (folder / name).write_bytes(body)
            bare = servers.enter_context(bare_route(folder, "ours"))
            bare_own = servers.enter_context(bare_route(folder, "httptools"))
            everyone = {OURS: us, BEARER: us, BARE: bare, BARE_OWN: bare_own}
            for name, body in bodies.items():
                compare(name, len(body), everyone, asked, seconds, rounds)
            print(f"our server, resident at most: {_load.peak_mb(us.pid):.0f} MB\n")
        tell_where(settings, asked[OURS], folder, seconds * rounds)


def compare(
    name: str,
    body_bytes: int,
    servers: Mapping[str, Server],
    asked: Mapping[str, Mapping[str, str]],
    seconds: float,
    rounds: int,
) -> None:
    """Print how the servers do with one report."""
    loaded: dict[str, list[Loaded]] = defaultdict(list)
    for _ in range(rounds):
        for server, where in servers.items():
            loaded[server].append(load(where, request(name, asked[server]), seconds))
    figures = {server: middle(told) for server, told in loaded.items()}
    fastest = max((figures[BARE], figures[BARE_OWN]), key=lambda told: told.per_second)
    print(f"\n{name}, {body_bytes:,} bytes")
    print(f"{'':22} {'a second':>9} {'p50 ms':>8} {'p99 ms':>8} {'CPU us':>7}  of the bare route's")
    for server, told in figures.items():
        share, times = told.per_second / fastest.per_second, told.p99_ms / fastest.p99_ms
        compared = f"{share:5.0%}, p99 {times:4.2f}x" if server in (OURS, BEARER) else ""
        waits = f"{told.p50_ms:8.2f} {told.p99_ms:8.2f} {told.cpu_us:7.0f}"
        print(f"{server:22} {told.per_second:9,.0f} {waits} {compared}")
    print(f"(at least {LEAST_SHARE:.0%}, p99 at most {MOST_TIMES:g}x)", flush=True)


def middle(rounds: list[Loaded]) -> Loaded:
    """The median of each figure, and the least of the processor's time, which others add to."""
    return Loaded(
        statistics.median(told.per_second for told in rounds),
        statistics.median(told.p50_ms for told in rounds),
        statistics.median(told.p99_ms for told in rounds),
        min(told.cpu_us for told in rounds),
    )


def load(server: Server, asked: bytes, seconds: float) -> Loaded:
    """How many answers there are in a second, and after how long."""
    busy_before = server.cpu_seconds()
    asking = _load.ask_all(server.port, [_load.for_seconds(asked, seconds)] * CONNECTIONS)
    began = time.perf_counter()
    answers = uvloop.run(asking)
    took = time.perf_counter() - began
    assert {answer.status for answer in answers} == {httpx.codes.OK}
    times = [answer.seconds for answer in answers]
    p50, p99 = (_load.percentile(times, percent) * 1e3 for percent in (50, 99))
    busy = server.cpu_seconds() - busy_before
    return Loaded(len(answers) / took, p50, p99, busy / len(answers) * 1e6)


def request(name: str, headers: Mapping[str, str]) -> bytes:
    """What asks for a report, of the bare route too, which reads none of it."""
    route, parameters = REPORTS[name]
    return _load.get(f"/system/metrics/{route}", {**RANGE, **parameters}, headers)


def kept_bodies(port: int, asked: Mapping[str, Mapping[str, str]]) -> dict[str, bytes]:
    """Each report, which is kept for everyone who is to ask for it from then on."""
    bodies = {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        for name, (route, parameters) in REPORTS.items():
            path = f"/system/metrics/{route}"
            said = [
                client.get(path, params={**RANGE, **parameters}, headers=asked[who])
                for who in (OURS, BEARER)
            ]
            assert all(answer.is_success for answer in said), said[0].text
            bodies[name] = said[0].content
    return bodies


@contextmanager
def ours(settings: Mapping[str, str], sampled: Path | None = None) -> Iterator[Server]:
    """Our server, of which somebody reads the log."""
    command = ["oscar_metrics", "serve"]
    if sampled is not None:
        command = ["bench.kept_reports", "--sampled", str(sampled)]
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "OSCAR_USERNAME": USERNAME,
        "OSCAR_PASSWORD": PASSWORD,
        "OSCAR_SERVICE_PORT": str(port),
        **settings,
    }
    with served(
        [sys.executable, "-m", *command], port, env=environment, stderr=reader.stdin
    ) as pid:
        yield Server(port, pid)
    reader.communicate()


@contextmanager
def bare_route(folder: Path, http: str) -> Iterator[Server]:
    """One that answers what is in a folder."""
    port = free_port()
    command = [sys.executable, "-m", "bench.kept_reports"]
    with served([*command, "--bare", str(port), http, str(folder)], port) as pid:
        yield Server(port, pid)


@contextmanager
def served(command: list[str], port: int, **options: object) -> Iterator[int]:
    """The number of a server that has the first core."""
    server = _load.pinned(command, _load.SERVER_CORE, **options)
    try:
        wait_until_ready(server, f"http://127.0.0.1:{port}/healthz")
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def serve_bare(port: int, http: str, folder: Path) -> None:
    """One route for each report, which answers its bytes."""

    @get("/healthz")
    async def healthz() -> bytes:
        return b"ok"

    def route(name: str) -> HTTPRouteHandler:
        body = (folder / name).read_bytes()

        @get(f"/system/metrics/{REPORTS[name][0]}", media_type="application/json")
        async def bare() -> bytes:
            return body

        handler: HTTPRouteHandler = bare
        return handler

    app = Litestar([healthz, *map(route, REPORTS)], openapi_config=None, logging_config=None)
    protocol = bounded_http(ConnectionSettings(), Telemetry()) if http == "ours" else http
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http=protocol,
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
    )


# What our server's time is counted as, by what is in the path of the innermost file that says so.
PARTS: Mapping[str, str] = {
    "/handlers/authentication": "who asks",
    "/oscar_metrics/auth/": "who asks",
    "/oscar_metrics/privacy": "who asks",
    "/structlog/": "audit line",
    "/handlers/audit": "audit line",
    "/prometheus_client/": "telemetry",
    "/handlers/measured": "telemetry",
    "/handlers/answer_headers": "headers of every answer",
    "/handlers/ended_early": "watching for clients that go",
    "/oscar_metrics/tasks": "watching for clients that go",
    "/asyncio/taskgroups": "watching for clients that go",
    "/handlers/query": "parameters and look-up",
    "/handlers/reports": "parameters and look-up",
    "/handlers/answers": "parameters and look-up",
    "/handlers/accept": "parameters and look-up",
    "/handlers/preferences": "parameters and look-up",
    "/resilience/": "parameters and look-up",
    "/ledger/": "parameters and look-up",
    "/litestar/": "Litestar",
    "/handlers/bounded_http": "our protocol",
    "/handlers/places": "our protocol",
    "/uvicorn/": "uvicorn, its event loop and the system",
}
_ELSE = "uvicorn, its event loop and the system"


def serve_sampled(told: Path) -> None:
    """Our server, which says at its end how often it was found in which part."""
    found: Counter[str] = collections.Counter()

    def look(_: int, frame: FrameType | None) -> None:
        found[part_of(frame)] += 1

    signal.signal(signal.SIGTERM, lambda *_: None)  # it would end us again, once we have stopped
    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, _SAMPLED_SECONDS, _SAMPLED_SECONDS)
    try:
        oscar_metrics(["serve"])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        told.write_text(json.dumps(found))


def part_of(frame: FrameType | None) -> str:
    """What code is counted as."""
    while frame is not None:
        name = frame.f_code.co_filename
        for path, part in PARTS.items():
            if path in name:
                return part
        frame = frame.f_back
    return _ELSE


def tell_where(
    settings: Mapping[str, str], headers: Mapping[str, str], folder: Path, seconds: float
) -> None:
    """Print what our server is busy with while a kept summary is asked for."""
    told = folder / "sampled.json"
    with ours(settings, told) as us:
        asked = request("summary", headers)
        load(us, asked, 0.5)
        loaded = load(us, asked, seconds)
    found: dict[str, int] = json.loads(told.read_text())
    total = sum(found.values())
    print(f"{'where the time of a kept summary goes':40} {'of all':>7} {'us':>6}")
    for part, times in sorted(found.items(), key=lambda each: -each[1]):
        print(f"{part:40} {times / total:7.1%} {times / total * loaded.cpu_us:6.0f}")


if __name__ == "__main__":
    main()
