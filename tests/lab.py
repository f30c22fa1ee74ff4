"""`make lab`: the real servers, filled with the sample, and ours before them, to play with.

Loki and the cluster hold January 2026 as `examples/` has it; Prometheus holds the CPU of
some containers over the last day; Keycloak has the users of `tests/servers/realms.py`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.corpus import platform, sample
from tests.corpus.origins import add_pods, loki_streams
from tests.servers import realms
from tests.servers.build import require
from tests.servers.keycloak import Keycloak
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.prometheus import Prometheus

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
USERNAME, PASSWORD = "admin", "lab"

_HINTS = """
Try: oscar-metrics check
     oscar-metrics report summary --start 2026-01-01T00:00:00Z --end 2026-01-31T23:59:59Z

The sample is of January 2026, and Loki has nothing since: check says so, and the server does not
look back so far by itself. Once the ledger has that month, reports on it take no time:

     oscar-metrics ledger backfill --from 2026-01-01T00:00:00Z --to 2026-02-01T00:00:00Z

As jane, who owns services of the sample (carol is an administrator, dave is not let in):

  TOKEN=$(curl -s {issuer}/protocol/openid-connect/token -d grant_type=password -d scope=openid \\
    -d client_id=oscar -d username=jane --data-urlencode password={password} |
    sed 's/.*"access_token":"\\([^"]*\\)".*/\\1/')
  curl -H "Authorization: Bearer $TOKEN" \\
    'http://127.0.0.1:{port}/system/metrics/summary?start=2026-01-01T00:00:00Z&end=2026-01-31T23:59:59Z'

Ctrl-C ends everything.
"""


def main() -> int:
    """Run the lab until it is interrupted."""
    for server in ("loki", "prometheus", "etcd", "kube-apiserver", "kwok", "keycloak"):
        require(server)
    with tempfile.TemporaryDirectory(prefix="oscar-metrics-lab-") as folder:
        directory = Path(folder)
        with (
            Loki.start(_folder(directory, "loki")) as loki,
            Prometheus.start(_folder(directory, "prometheus")) as prometheus,
            KubeCluster.start(_folder(directory, "kubernetes")) as cluster,
            Keycloak.start(_folder(directory, "keycloak")) as keycloak,
        ):
            _fill_loki(loki)
            _fill_cluster(cluster)
            _fill_prometheus(prometheus)
            return _serve(directory / "ledger.duckdb", loki, prometheus, cluster, keycloak)


def _folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir()
    return folder


def _fill_loki(loki: Loki) -> None:
    corpus = sample.sample()
    streams = loki_streams(corpus, country_labels=True)
    lines = sum(len(set(entries)) for _, entries in streams)
    print(f"Loki: {lines:,} lines", flush=True)
    loki.push(streams)
    loki.flush_and_wait('{pod=~".+"}', corpus.span.start_ns, corpus.span.stop_ns, lines)


def _fill_cluster(cluster: KubeCluster) -> None:
    print("Kubernetes: services, owners and the pods that logged", flush=True)
    for manifest in platform.manifests():
        cluster.apply(manifest)
    add_pods(cluster, sample.sample())


def _fill_prometheus(prometheus: Prometheus) -> None:
    """A container per service, half a core each, scraped every 30 s for the last day."""
    print("Prometheus: a container per service over the last day", flush=True)
    now_ms = time.time_ns() // 1_000_000
    times_ms = range(now_ms - 86_400_000, now_ms, 30_000)
    for service in platform.DEPLOYED:
        labels = {
            "namespace": service.namespace,
            "service": service.name,
            "pod": f"{service.name}-0",
            "container": "main",
        }
        started_seconds = times_ms[0] / 1000
        prometheus.remote_write(
            [
                (
                    {
                        "__name__": "container_cpu_usage_seconds_total",
                        "cpu": "total",
                        **labels,
                    },
                    [(at, (at / 1000 - started_seconds) / 2) for at in times_ms],
                ),
                (
                    {"__name__": "container_start_time_seconds", **labels},
                    [(at, started_seconds) for at in times_ms],
                ),
            ]
        )


def _serve(
    ledger: Path, loki: Loki, prometheus: Prometheus, cluster: KubeCluster, keycloak: Keycloak
) -> int:
    port = os.environ.get("PORT", "8080")
    settings = {
        "OSCAR_USERNAME": USERNAME,
        "OSCAR_PASSWORD": PASSWORD,
        "OSCAR_SERVICE_PORT": port,
        "LOKI_URL": loki.url,
        "PROMETHEUS_URL": prometheus.url,
        "OSCAR_METRICS_KUBERNETES": str(cluster.kubeconfig(cluster.admin_token)),
        "OSCAR_METRICS_GEOIP_DATABASE": str(EXAMPLES / "geoip.mmdb"),
        "OSCAR_METRICS_ROSTER": str(EXAMPLES / "roster.csv"),
        "OSCAR_METRICS_ROSTER_RULES": str(EXAMPLES / "rules.toml"),
        "INGRESS_HOST": platform.BASE_HOST,
        "OSCAR_METRICS_LEDGER": str(ledger),
        "OIDC_ENABLE": "true",
        "OIDC_ISSUERS": keycloak.issuer("egi"),
        "OIDC_GROUPS": "vo.example.eu",
        "USERS_ADMIN": keycloak.subject("egi", "carol"),
    }
    print("\nThe lab is up. The same settings for a shell of your own:\n")
    for name, value in settings.items():
        print(f"  export {name}={shlex.quote(value)}")
    hints = _HINTS.format(
        password=shlex.quote(realms.PASSWORD), issuer=keycloak.issuer("egi"), port=port
    )
    print(hints, flush=True)
    environment = {"PATH": os.environ.get("PATH", ""), **settings}
    server = subprocess.Popen([sys.executable, "-m", "oscar_metrics", "serve"], env=environment)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return server.wait()


if __name__ == "__main__":
    sys.exit(main())
