"""What deciding who sees what costs, beside an uncached summary over the sample.

    python -m bench.access

The sample month is imported into a ledger; the cluster is the sample's, told from memory, so
that asking Kubernetes is not part of it. Each figure is the median of all rounds, every round
doing each in turn. Figure: authorising a cached token costs at most a tenth of an uncached
summary.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.auth import auth
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR, Caller
from oscar_metrics.facts import Inventory, NamespaceOwner
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.outcome import Ok
from oscar_metrics.scope import Viewer
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import report_range
from tests.auth.made_issuer import USERINFO, MadeIssuer
from tests.auth.making import key
from tests.contract.serving import SaidInventory
from tests.corpus import platform

ROUNDS = 200
START, END = "2026-01-01T00:00:00Z", "2026-01-31T23:59:59Z"
USER = platform.NAMESPACE_OWNERS["oscar-svc-jane-7f3a"]
EXAMPLES = Path(__file__).parents[1] / "examples"


def main() -> None:
    """Print each median, and its share of the administrator's summary."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.duckdb"
        logs = [str(log) for log in sorted(EXAMPLES.glob("*.log*"))]
        subprocess.run(
            [sys.executable, "-m", "oscar_metrics", "ledger", "import", *logs],
            env={**os.environ, "OSCAR_METRICS_LEDGER": str(file), "INGRESS_HOST": "example.org"},
            check=False,
            stdout=subprocess.DEVNULL,
        )
        asyncio.run(compare(file))


async def compare(file: Path) -> None:
    """Do each in turn, so many times."""
    ledger = DuckLedger.open(file, create=False, memory_mb=256, threads=2)
    aggregator = over_the_sample(ledger)
    async with MadeIssuer.start() as issuer:
        issuer.has_keys(key("RS256"))
        issuer.says(USERINFO, {"sub": USER})
        oidc, token = auth(issuer), issuer.token(sub=USER)
        user, whole = Viewer(caller=Caller(user=USER)), Viewer(caller=ADMINISTRATOR)
        asked = report_range(START, END, time.time_ns())

        async def summary(viewer: Viewer) -> Any:
            return await aggregator.summary(
                await aggregator.admit(viewer, aggregator.deadline()), asked
            )

        steps: dict[str, Callable[[], Awaitable[Any]]] = {
            "summary of the cluster": lambda: summary(whole),
            "summary of one user": lambda: summary(user),
            "deciding what a user sees": lambda: aggregator.admit(user, aggregator.deadline()),
            "authorising a cached token": lambda: oidc.caller(token),
        }
        seconds: defaultdict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS):
            for name, step in steps.items():
                began = time.perf_counter()
                await step()
                seconds[name].append(time.perf_counter() - began)
        await oidc.aclose()
    await ledger.aclose()
    first = statistics.median(seconds["summary of the cluster"])
    print(f"{'':>28} {'ms':>9} {'of a summary':>13}")
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"{name:>28} {median * 1e3:9.3f} {median / first:13.4f}")


def over_the_sample(ledger: DuckLedger) -> Aggregator:
    owners = platform.NAMESPACE_OWNERS | {platform.SHARED_NAMESPACE: "cluster_admin"}
    inventory = Inventory(
        services=platform.DEPLOYED,
        owners=tuple(NamespaceOwner(namespace=n, owner=o) for n, o in owners.items()),
    )
    return Aggregator(
        Sources(
            geoip=GeoIP(None),
            roster=Rosters(),
            inventory=SaidInventory(Ok(facts=inventory, origin="kubernetes")),
        ),
        telemetry=Telemetry(),
        now_ns=time.time_ns,
        deadline_seconds=None,
        ledger=LedgerHolder(ledger, rows_max=500_000),
    )


if __name__ == "__main__":
    main()
