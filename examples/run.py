"""`make run`: serve the sample month, and print what to ask of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).parent
START, END = "2026-01-01T00:00:00Z", "2026-01-31T23:59:59Z"
READY_WITHIN_SECONDS = 30

# A password for a sample on the loopback address; a real server has none by default.
USERNAME, PASSWORD = "admin", "sample"


def main() -> int:
    """Run the server until it is interrupted; its exit code."""
    port = os.environ["OSCAR_SERVICE_PORT"]
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "OSCAR_USERNAME": USERNAME,
        "OSCAR_PASSWORD": PASSWORD,
        "OSCAR_SERVICE_PORT": port,
        "OSCAR_METRICS_HOST": "127.0.0.1",
        "OSCAR_METRICS_LOG_FILES": str(HERE / "*.log*"),
        "OSCAR_METRICS_GEOIP_DATABASE": str(HERE / "geoip.mmdb"),
        "OSCAR_METRICS_ROSTER": str(HERE / "roster.csv"),
        "OSCAR_METRICS_KUBERNETES": "off",
        "PROMETHEUS_URL": "off",
        "INGRESS_HOST": "example.org",
    }
    server = subprocess.Popen([sys.executable, "-m", "oscar_metrics", "serve"], env=environment)
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        if not _ready(server, f"{url}/healthz"):
            server.terminate()
            return server.wait() or 1
        print(_what_to_ask(url), flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return server.wait()


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
It reads the log files of examples/, a made-up January 2026. Kubernetes and Prometheus are not
configured here, so the answers say that their numbers are missing. Try:

  {curl} '{url}/system/metrics/summary?{span}'
  {curl} '{url}/system/metrics/breakdown?{span}&group_by=service&format=csv'
  {curl} '{url}/system/metrics/value?{span}&service_id=cowsay&metric=requests-sync-per-service'

{url}/schema describes everything else. Ctrl-C stops the server.
"""


if __name__ == "__main__":
    sys.exit(main())
