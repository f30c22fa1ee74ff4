"""`make run`: import the sample month into a ledger, serve it, and print what to ask."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).parent
# Beside it, where the server puts a ledger by default.
LEDGER = HERE.parent / "data" / "sample.duckdb"
START, END = "2026-01-01T00:00:00Z", "2026-01-31T23:59:59Z"
READY_WITHIN_SECONDS = 30

# A password for a sample on the loopback address; a real server has none by default.
USERNAME, PASSWORD = "admin", "sample"
SETTINGS = {
    "OSCAR_METRICS_LEDGER": str(LEDGER),
    "OSCAR_METRICS_GEOIP_DATABASE": str(HERE / "geoip.mmdb"),
    "OSCAR_METRICS_ROSTER": str(HERE / "roster.csv"),
    "OSCAR_METRICS_ROSTER_RULES": str(HERE / "rules.toml"),
    "OSCAR_METRICS_KUBERNETES": "off",
    "PROMETHEUS_URL": "off",
    "INGRESS_HOST": "example.org",
}


def main() -> int:
    """Run the server until it is interrupted; its exit code."""
    port = os.environ.get("OSCAR_SERVICE_PORT", "8080")
    if why_not := _unusable(port):
        print(f"make run: {why_not}; choose another one: make run PORT=8090", file=sys.stderr)
        return 2
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "TERM": os.environ.get("TERM", ""),
        **SETTINGS,
    }
    if code := _import(environment):
        return code
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "oscar_metrics", "serve"],
        env={
            **environment,
            "OSCAR_USERNAME": USERNAME,
            "OSCAR_PASSWORD": PASSWORD,
            "OSCAR_SERVICE_PORT": port,
            "OSCAR_METRICS_HOST": "127.0.0.1",
        },
    )
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        server.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if _ready(server, f"{url}/healthz"):
        print(_what_to_ask(url), flush=True)
    else:
        server.terminate()
    code = server.wait()
    return 0 if stopped else code or 1


def _import(environment: dict[str, str]) -> int:
    """Import the sample, which changes nothing where that was done before; 0, or why not."""
    print(f"Importing examples/ into {LEDGER.relative_to(HERE.parent)}:", flush=True)
    logs = sorted(str(path) for path in HERE.glob("*.log*"))
    command = [sys.executable, "-m", "oscar_metrics", "ledger", "import", *logs]
    try:
        code = subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - ours
    except KeyboardInterrupt:
        return 130
    # 3: some of it is missing, as it should be: both managers were down for five hours.
    return 0 if code == 3 else code


def _unusable(port: str) -> str:
    """Why a port cannot be listened on; blank when it can."""
    if not port.isdigit() or not 0 < int(port) < 65536:
        return f"PORT must be a number from 1 to 65535, not {port!r}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError as exc:
            return f"cannot listen on port {port}: {exc.strerror}"
    return ""


def _ready(server: subprocess.Popen[bytes], url: str) -> bool:
    until = time.monotonic() + READY_WITHIN_SECONDS
    while time.monotonic() < until and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own address
                return True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.05)
    return False


def _what_to_ask(url: str) -> str:
    span = urlencode({"start": START, "end": END}, safe=":")
    curl = f"curl -s -u {USERNAME}:{PASSWORD}"
    return f"""
OSCAR Metrics answers at {url} for user {USERNAME}, password {PASSWORD}.
It reads its ledger, into which the log files of examples/ were imported: a made-up January 2026.
Kubernetes and Prometheus are not configured here, so the answers say that their numbers are
missing. Try:

  {curl} '{url}/system/metrics/summary?{span}'
  {curl} '{url}/system/metrics/breakdown?{span}&group_by=service&format=csv'
  {curl} '{url}/system/metrics/value?{span}&service_id=cowsay&metric=requests-sync-per-service'
  {curl} '{url}/system/metrics/summary?{span}&interval=week&tz=Europe/Madrid'

Rows are also by user, country, vo or project (group_by), and JSON without format=csv.
{url}/schema describes everything else. Ctrl-C stops the server.
"""


if __name__ == "__main__":
    sys.exit(main())
