"""The real servers, ours before them with everything switched on, and what it answers when well."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from oscar_metrics.timerange import SECOND_NS, Span, format_instant
from tests.e2e.running import PASSWORD, USERNAME
from tests.servers.keycloak import Keycloak
from tests.servers.redis import Redis
from tests.soak.timeline import Timeline
from tests.soak.weather import Sky, Weather, network_faults, redis_faults, server_faults
from tests.toxics.expected import REDIS, Upstream
from tests.toxics.questions import Answer, Caller, Question
from tests.toxics.stack import Stack, folder, stack

HOURS = 3
DEADLINE_SECONDS = 3.0
LEEWAY_SECONDS = 1

# The connections that our server may have to each upstream at a time; it keeps those it had.
CONNECTIONS_KEPT: Mapping[str, int] = {
    Upstream.LOKI: 4,
    Upstream.PROMETHEUS: 4,
    Upstream.KUBERNETES: 8,
    Upstream.KEYCLOAK: 8,
    REDIS: 4,
}

_SETTINGS = {
    "OSCAR_METRICS_LOKI_CONCURRENCY": str(CONNECTIONS_KEPT[Upstream.LOKI]),
    "OSCAR_METRICS_PROMETHEUS_CONCURRENCY": str(CONNECTIONS_KEPT[Upstream.PROMETHEUS]),
    "OSCAR_METRICS_KUBERNETES_CONCURRENCY": str(CONNECTIONS_KEPT[Upstream.KUBERNETES]),
    "OSCAR_METRICS_OIDC_CONCURRENCY": str(CONNECTIONS_KEPT[Upstream.KEYCLOAK]),
    "OSCAR_METRICS_CACHE_REDIS_CONNECTIONS": str(CONNECTIONS_KEPT[REDIS]),
    "OSCAR_METRICS_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
    # Issuers are asked again and again, and what they said is forgotten.
    "OSCAR_METRICS_OIDC_USER_SECONDS": "3",
    "OSCAR_METRICS_OIDC_TOKENS_KEPT": "20",
    "OSCAR_METRICS_OIDC_TIMEOUT_SECONDS": "1",
    "OSCAR_METRICS_OIDC_LEEWAY_SECONDS": str(LEEWAY_SECONDS),
    # Few enough for the clients to be too many now and then.
    "OSCAR_METRICS_REPORTS_AT_ONCE": "4",
    "OSCAR_METRICS_REPORTS_QUEUED": "4",
    # What is kept is fresh, then stale and then old, all within a round.
    "OSCAR_METRICS_CACHE_OPEN_SECONDS": "5",
    "OSCAR_METRICS_CACHE_CLOSED_SECONDS": "30",
    "OSCAR_METRICS_CACHE_REVALIDATE_SECONDS": "10",
    "OSCAR_METRICS_CACHE_REDIS_OPEN_SECONDS": "0.5",
    "OSCAR_METRICS_CACHE_REDIS_LONGEST_OPEN_SECONDS": "2",
    "OSCAR_METRICS_LEDGER_MEMORY_MB": "32",
    "OSCAR_METRICS_LEDGER_FIRST_LOOK_MINUTES": "1",
    "OSCAR_METRICS_LEDGER_RETRY_MINUTES": "1",
    "OSCAR_METRICS_LEDGER_BACKFILL_DAYS": "1",
    # Who reads slowly, or never ends a request, is cut off while it is looked at.
    "OSCAR_METRICS_CONNECTIONS_READ_SECONDS": "5",
    "OSCAR_METRICS_CONNECTIONS_READ_BYTES": str(64 * 1024),
    "OSCAR_METRICS_CONNECTIONS_HEAD_SECONDS": "5",
}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question over one range, and who asks it."""

    question: Question
    caller: Caller
    span: Span

    @property
    def path(self) -> str:
        """Where."""
        return f"/system/metrics{self.question.path}"

    @property
    def parameters(self) -> dict[str, str]:
        """All of them."""
        return {**range_of(self.span), **self.question.parameters}


# Reports that are judged by their bodies: where, and with what beside the range.
OTHERS: tuple[tuple[str, Mapping[str, str]], ...] = (
    ("/system/metrics/summary", {"interval": "hour"}),
    ("/system/metrics/breakdown", {"group_by": "user"}),
    ("/system/metrics/breakdown", {"group_by": "country", "interval": "hour"}),
    ("/system/metrics/breakdown", {"group_by": "owner", "include_usage": "true"}),
    ("/system/metrics/summary", {"owner": "cluster_admin"}),
)


class Scene:
    """Everything that runs, and what is true."""

    def __init__(self, running: Stack, weather: Weather) -> None:
        self.stack = running
        self.weather = weather
        self.url = running.url
        self.pid = running.server.pid
        self.ports = {
            int(way.address.rpartition(":")[2]): str(name) for name, way in running.proxies.items()
        }
        span = running.corpus.span
        middle = span.start_ns + span.length_ns // 2
        # All of it, what ended over an hour ago, and one that cuts the slots that are sealed.
        self.spans = (
            span,
            Span(span.start_ns, middle),
            Span(span.start_ns + 7 * 60 * SECOND_NS, span.stop_ns - 11 * 60 * SECOND_NS),
        )
        self.truths: dict[Asked, Answer] = {}
        self.bodies: list[tuple[str, dict[str, str], dict[str, Any]]] = []

    def find_truth(self) -> None:
        """Ask everything while every upstream is well, and say so where one is not."""
        token = self.stack.token()
        with httpx.Client(base_url=self.url, timeout=60) as client:
            for question in Question:
                for caller in Caller:
                    for span in self.spans:
                        asked = Asked(question=question, caller=caller, span=span)
                        response = client.get(
                            asked.path, params=asked.parameters, **credentials(caller, token)
                        )
                        answer = Answer.of(question, response, seconds=0)
                        statuses = {source.status for source in answer.sources.values()}
                        assert statuses == {"ok"}, (asked, answer)
                        self.truths[asked] = answer
            for path, parameters in OTHERS:
                for span in self.spans:
                    query = {**range_of(span), **parameters}
                    response = client.get(path, params=query, **credentials(Caller.ADMINISTRATOR))
                    assert response.status_code == httpx.codes.OK, response.text
                    self.bodies.append((path, query, response.json()))


def range_of(span: Span) -> dict[str, str]:
    """A span as a caller writes it; both ends of that are included."""
    return {"start": format_instant(span.start_ns), "end": format_instant(span.stop_ns - 1)}


def credentials(caller: Caller, token: str = "") -> dict[str, Any]:
    """What httpx is to be told of a caller."""
    if caller is Caller.ADMINISTRATOR:
        return {"auth": (USERNAME, PASSWORD)}
    return {"headers": {"Authorization": f"Bearer {token}"}}


@contextlib.contextmanager
def scene(directory: Path, keycloak: Keycloak, timeline: Timeline) -> Iterator[Scene]:
    """Start everything, with nothing wrong; faults begin when the weather is let loose."""
    with contextlib.ExitStack() as running:
        ledger = folder(directory, "ledger") / "ledger.duckdb"
        more = {**_SETTINGS, "OSCAR_METRICS_LEDGER": str(ledger)}
        of_all = running.enter_context(stack(directory, keycloak, hours=HOURS, more=more))
        weather = Weather(_skies(of_all, timeline.seed), of_all.toxiproxy, timeline)
        # Before all else: what was started anew meanwhile ends with the threads of this.
        running.callback(weather.close)
        yield Scene(of_all, weather)


def _skies(of_all: Stack, seed: int) -> dict[str, Sky]:
    skies = {}
    for name, upstream in of_all.upstreams.items():
        # The issuer serves other tests, too: it is not ended, of which "down" is no worse.
        faults = server_faults(upstream, restarts=name != Upstream.KEYCLOAK)
        if isinstance(upstream, Redis):
            faults += redis_faults(upstream)
        skies[name] = Sky(name, network_faults(of_all.proxies[name]) + faults, seed)
    return skies
