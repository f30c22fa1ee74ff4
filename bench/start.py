"""Start to ready, against importing the dependencies alone, side by side in one run.

Figure: at most 2.5 times.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

from tests.servers.process import free_port

ROUNDS = 7
DEPENDENCIES = (
    "litestar, msgspec, httpx, uvicorn, uvloop, httptools, structlog, yaml, "
    "geoip2.database, maxminddb, pycountry, prometheus_client, duckdb, kubernetes.aio.client, "
    "kubernetes.aio.config, authlib.oidc.discovery, joserfc.jws"
)


def main() -> None:
    """Print the median of each, and the ratio."""
    imports, starts = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            imports.append(importing_seconds())
            starts.append(ready_seconds(folder))
    bare, ours = statistics.median(imports), statistics.median(starts)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"importing the dependencies  {bare:6.2f} s   median of {ROUNDS}")
    print(f"start to ready              {ours:6.2f} s   {ours / bare:.2f}x (at most 2.5x)")
    print(f"peak memory of either       {peak_mib:6.0f} MiB")


def importing_seconds() -> float:
    """How long a process takes that imports what we import of others."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {DEPENDENCIES}"], check=True)
    return time.perf_counter() - began


def ready_seconds(folder: str) -> float:
    """How long a server takes from nothing to its first 200, with a ledger in a folder."""
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "OSCAR_USERNAME": "admin",
        "OSCAR_PASSWORD": "bench",
        "OSCAR_SERVICE_PORT": str(port),
        "OSCAR_METRICS_KUBERNETES": "off",
        "OSCAR_METRICS_LEDGER": f"{folder}/ledger.duckdb",
        "PROMETHEUS_URL": "off",
    }
    began = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "oscar_metrics", "serve"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until_ready(server, f"http://127.0.0.1:{port}/readyz")
        return time.perf_counter() - began
    finally:
        server.terminate()
        server.wait()


def wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    """Return at the first answer; raises SystemExit when the server has ended."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):  # noqa: S310 - our own address
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.005)
    raise SystemExit(f"the server ended with {server.returncode}")


if __name__ == "__main__":
    main()
