"""Large answers whole and in pieces: what they take, and how long they hold everybody up.

    python -m bench.large_answers [--rows 300000]

A breakdown by user of so many rows, as JSON and as CSV: encoded whole on the event loop (JSON)
or in a thread (CSV) and then sent; made in pieces on the loop while they are sent; the same with
each piece made in a thread (Litestar's Stream). Each way has a server process of its own, with
our protocol, and they are asked in turn. Times are medians; the stall is how much
later than asked for a timer of 1 ms came at worst, the machine's doings included; memory is what
the process grew by at most, over the report itself. Figures: in pieces at most a tenth of the
stall of JSON whole, no more than 10 MB, and the first byte within 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import uvicorn
from litestar import Litestar, Response, route
from litestar.response import Stream

from bench.ledger_http import peak_mb
from oscar_metrics.handlers.bounded_http import bounded_http
from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.handlers.csv import breakdown_csv, csv_pieces
from oscar_metrics.handlers.pieces import json_pieces
from oscar_metrics.handlers.streamed import Streamed
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.wire import CountryCount, UserBreakdown, UserItem
from tests.servers.process import free_port

ROUNDS = 5
WAYS = ("whole", "pieces", "in a thread")
_TICK_SECONDS = 0.001
_HEADERS = {"Content-Type": "text/csv"}


def main() -> None:
    """Print each way's figures beside the others'."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--serve", nargs=2, metavar=("WAY", "PORT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve[0], int(arguments.serve[1]), arguments.rows)
        return
    print(f"{'':22}{'first byte':>12}{'all':>10}{'processor':>10}{'stall':>10}{'memory':>10}")
    for form in ("json", "csv"):
        compare(form, arguments.rows)


def compare(form: str, rows: int) -> None:
    """Ask each way's server in turn."""
    figures: dict[str, list[tuple[float, float, float, float]]] = defaultdict(list)
    servers = {}
    try:
        for way in WAYS:
            port = free_port()
            command = [sys.executable, "-m", __spec__.name, "--rows", str(rows)]
            process = subprocess.Popen([*command, "--serve", way, str(port)])
            servers[way] = (process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60))
        before = {way: grown_from(*servers[way]) for way in WAYS}
        for _ in range(ROUNDS):
            for way in WAYS:
                figures[way].append(asked(servers[way][1], form))
        for way in WAYS:
            process, _ = servers[way]
            grown_mb = peak_mb(process.pid) - before[way]
            first, last, cpu, stall = (
                statistics.median(each) for each in zip(*figures[way], strict=True)
            )
            print(
                f"{form + ', ' + way:22}{first:9.1f} ms{last:7.0f} ms{cpu:7.0f} ms{stall:7.1f} ms"
                f"{grown_mb:7.0f} MB",
                flush=True,
            )
    finally:
        for process, client in servers.values():
            client.close()
            process.terminate()
            process.wait()


def grown_from(process: subprocess.Popen[bytes], client: httpx.Client) -> float:
    """The peak of a server's memory once it has its report, in MB."""
    while process.poll() is None:
        try:
            client.get("/stall").raise_for_status()
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return peak_mb(process.pid)
    raise SystemExit("a server has ended")


def asked(client: httpx.Client, form: str) -> tuple[float, float, float, float]:
    """Milliseconds: to the first byte, to the last, of processor time, of the longest stall."""
    _, cpu_before_ms = stall_and_cpu(client)
    began = time.perf_counter()
    first_ms = 0.0
    with client.stream("GET", f"/{form}") as answer:
        answer.raise_for_status()
        for _ in answer.iter_raw():
            first_ms = first_ms or (time.perf_counter() - began) * 1e3
    took_ms = (time.perf_counter() - began) * 1e3
    stall_ms, cpu_ms = stall_and_cpu(client)
    return first_ms, took_ms, cpu_ms - cpu_before_ms, stall_ms


def stall_and_cpu(client: httpx.Client) -> tuple[float, float]:
    """Milliseconds of the longest stall since last asked, and of processor time until now."""
    stall_ms, cpu_ms = client.get("/stall").raise_for_status().text.split()
    return float(stall_ms), float(cpu_ms)


def serve(way: str, port: int, rows: int) -> None:
    """Answer in one way."""
    report = UserBreakdown(
        start="2026-04-01T00:00:00Z",
        end="2026-04-30T23:59:59Z",
        group_by="user",
        items=tuple(
            UserItem(
                key=f"user-{number}@example.org",
                membership="member",
                executions_count=number,
                countries=(
                    CountryCount(country="ES", request_count=number),
                    CountryCount(country="FR", request_count=7),
                ),
                failed_count=0,
            )
            for number in range(rows)
        ),
        sources=(),
    )
    answers: dict[tuple[str, str], Callable[[], Any]] = {
        ("json", "whole"): lambda: Response(msgspec.json.encode(report), headers=_HEADERS),
        ("json", "pieces"): lambda: Streamed(json_pieces(report), _HEADERS),
        ("json", "in a thread"): lambda: Stream(json_pieces(report), headers=_HEADERS),
        ("csv", "pieces"): lambda: Streamed(csv_pieces(report), _HEADERS),
        ("csv", "in a thread"): lambda: Stream(csv_pieces(report), headers=_HEADERS),
    }
    stall_seconds = 0.0

    async def json() -> Response[bytes]:
        answer: Response[bytes] = answers["json", way]()
        return answer

    async def csv() -> Response[bytes]:
        if way == "whole":
            text = await asyncio.to_thread(lambda: breakdown_csv(report).encode())
            return Response(text, headers=_HEADERS)
        answer: Response[bytes] = answers["csv", way]()
        return answer

    async def stall() -> Response[bytes]:
        nonlocal stall_seconds
        text, stall_seconds = f"{stall_seconds * 1e3} {time.process_time() * 1e3}", 0.0
        return Response(text.encode())

    async def tick() -> None:
        nonlocal stall_seconds
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_TICK_SECONDS)
            stall_seconds = max(stall_seconds, loop.time() - before - _TICK_SECONDS)

    @asynccontextmanager
    async def ticking(_: Litestar) -> AsyncIterator[None]:
        ticker = asyncio.create_task(tick())
        yield
        ticker.cancel()

    app = Litestar(
        [
            *(route(f"/{answer.__name__}", http_method="GET")(answer) for answer in (json, csv)),
            route("/stall", http_method="GET")(stall),
        ],
        lifespan=[ticking],
        openapi_config=None,
        logging_config=None,
    )
    http = bounded_http(ConnectionSettings(), Telemetry())
    uvicorn.run(app, port=port, loop="uvloop", http=http, log_config=None)


if __name__ == "__main__":
    main()
