"""Real servers that know one hour, each behind a network of its own, and ours before them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import msgspec

from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span, format_instant
from tests.corpus import Corpus, platform, sample
from tests.corpus.corpus import Mix
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import add_pods, loki_streams
from tests.e2e.conftest import role_manifests
from tests.e2e.running import started
from tests.servers.keycloak import Keycloak
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.process import Process
from tests.servers.prometheus import Prometheus
from tests.servers.realms import PEOPLE
from tests.servers.redis import Redis
from tests.servers.toxiproxy import Proxy, Toxiproxy
from tests.toxics.expected import REDIS, Upstream
from tests.toxics.questions import Answer, Asked, Caller, Question

REALM, USER = "egi", "jane"
OWNER = PEOPLE[REALM][USER].subject
NAMESPACE = next(space for space, owner in platform.NAMESPACE_OWNERS.items() if owner == OWNER)
DEADLINE_SECONDS = 1.0
# Every owned service has a container that used so much of a core all the time.
CORES = 0.5
# Nothing measures GPUs here, so that nothing may have any: then it is known that none was used.
SERVICES = tuple(msgspec.structs.replace(s, enable_gpu=False) for s in platform.DEPLOYED)
# Calls and usage are of services whose owners are beyond doubt, or no user's report were whole.
OWNED = tuple(s for s in SERVICES if s.namespace in platform.NAMESPACE_OWNERS)

_SCRAPE_SECONDS = 30
# So soon is what was out asked again, and so soon is what hangs taken for out.
_RESILIENCE = {"OPEN_SECONDS": "0.1", "LONGEST_OPEN_SECONDS": "0.2", "UNANSWERED_SECONDS": "0.5"}


class Stack:
    """Every upstream behind a proxy, and a server of ours that knows nothing of that."""

    def __init__(
        self,
        corpus: Corpus,
        toxiproxy: Toxiproxy,
        proxies: Mapping[str, Proxy],
        upstreams: Mapping[str, Loki | Prometheus | KubeCluster | Keycloak | Redis],
        keycloak: Keycloak,
        client: httpx.Client,
        server: Process,
    ) -> None:
        self.corpus = corpus
        self.toxiproxy = toxiproxy
        self.proxies = proxies
        self.upstreams = upstreams
        self.server = server
        self._keycloak = keycloak
        self._client = client
        self._range = {
            "start": format_instant(corpus.span.start_ns),
            # Both ends of what callers write are included.
            "end": format_instant(corpus.span.stop_ns - 1),
        }

    @property
    def url(self) -> str:
        """Where our server answers."""
        return str(self._client.base_url)

    def token(self, client: str = "oscar") -> str:
        """A token of the user, given past the proxy: the issuer knows it, our server does not."""
        return self._keycloak.token(REALM, USER, client)

    def ask(
        self, question: Question, caller: Caller, token: str = "", asked: Asked = Asked.AFRESH
    ) -> Answer:
        """What is answered now."""
        credentials: dict[str, Any] = {}
        if caller is not Caller.ADMINISTRATOR:
            credentials["auth"] = lambda request: request  # in the place of the client's own
            credentials["headers"] = {"Authorization": f"Bearer {token}"}
        began = time.monotonic()
        response = self._client.get(
            f"/system/metrics{question.path}",
            params={**self._range, **question.parameters},
            headers={**asked.headers, **credentials.pop("headers", {})},
            **credentials,
        )
        return Answer.of(question, response, seconds=time.monotonic() - began)

    def left_alone(self) -> set[str]:
        """The upstreams that are not asked at the moment."""
        states: dict[str, str] = self._client.get("/readyz").json()["upstreams"]
        return {name for name, state in states.items() if state != "closed"}


@contextmanager
def stack(
    directory: Path,
    keycloak: Keycloak,
    *,
    hours: int = 1,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Stack]:
    """Start everything, and fill it with the hours before the last whole quarter of an hour.

    `more` are settings of our server beside the stack's own, or instead of them.
    """
    stop_ns = time.time_ns() // SLOT_NS * SLOT_NS
    span = Span(stop_ns - hours * HOUR_NS, stop_ns)
    corpus = owned(Corpus.generate(6, span, Mix(calls=3000)))
    with contextlib.ExitStack() as running:
        loki = running.enter_context(Loki.start(folder(directory, "loki")))
        prometheus = running.enter_context(Prometheus.start(folder(directory, "prometheus")))
        cluster = running.enter_context(KubeCluster.start(folder(directory, "cluster")))
        redis = running.enter_context(Redis.start(folder(directory, "redis")))
        toxiproxy = running.enter_context(Toxiproxy.start(folder(directory, "toxiproxy")))
        upstreams: dict[str, Loki | Prometheus | KubeCluster | Keycloak | Redis] = {
            Upstream.LOKI: loki,
            Upstream.PROMETHEUS: prometheus,
            Upstream.KUBERNETES: cluster,
            Upstream.KEYCLOAK: keycloak,
            REDIS: redis,
        }
        proxies: dict[str, Proxy] = {
            Upstream.LOKI: toxiproxy.proxy("loki", loki.url),
            Upstream.PROMETHEUS: toxiproxy.proxy("prometheus", prometheus.url),
            Upstream.KUBERNETES: toxiproxy.proxy("kubernetes", cluster.url),
            Upstream.KEYCLOAK: toxiproxy.proxy("keycloak", keycloak.url),
            REDIS: toxiproxy.proxy("redis", redis.url),
        }
        issuer = running.enter_context(keycloak.reached_by(REALM, proxies[Upstream.KEYCLOAK].url))
        fill_loki(loki, corpus)
        fill_cluster(cluster, corpus)
        fill_prometheus(prometheus, span)
        server = folder(directory, "server")
        settings = {
            "LOKI_URL": proxies[Upstream.LOKI].url,
            "PROMETHEUS_URL": proxies[Upstream.PROMETHEUS].url,
            "OSCAR_METRICS_KUBERNETES": str(
                _kubeconfig(cluster, proxies[Upstream.KUBERNETES], server)
            ),
            "OIDC_ENABLE": "true",
            "OIDC_ISSUERS": issuer,
            "OIDC_GROUPS": "vo.example.eu",
            # What is known of a token is known for as long as any test needs it.
            "OSCAR_METRICS_OIDC_USER_SECONDS": "3600",
            # Keys and userinfo, one after the other, within the deadline of a report.
            "OSCAR_METRICS_OIDC_TIMEOUT_SECONDS": "0.4",
            "OSCAR_METRICS_OIDC_KEYS_REFRESH_SECONDS": "1",
            "OSCAR_METRICS_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
            "OSCAR_METRICS_CACHE": proxies[REDIS].url,
            "OSCAR_METRICS_CACHE_REDIS_OPEN_SECONDS": _RESILIENCE["OPEN_SECONDS"],
            "OSCAR_METRICS_CACHE_REDIS_LONGEST_OPEN_SECONDS": _RESILIENCE["LONGEST_OPEN_SECONDS"],
            # What is kept stands in for what fails, and for nothing else.
            "OSCAR_METRICS_CACHE_OPEN_SECONDS": "0",
            "OSCAR_METRICS_CACHE_CLOSED_SECONDS": "0",
            "OSCAR_METRICS_CACHE_REVALIDATE_SECONDS": "0",
            "INGRESS_HOST": platform.BASE_HOST,
            **countries(server),
            **{
                f"OSCAR_METRICS_{upstream}_{name}": value
                for upstream in ("LOKI", "PROMETHEUS", "KUBERNETES", "OIDC")
                for name, value in _RESILIENCE.items()
            },
            **more,
        }
        client, process = running.enter_context(started(settings, server))
        yield Stack(corpus, toxiproxy, proxies, upstreams, keycloak, client, process)


def owned(corpus: Corpus) -> Corpus:
    """The same without the calls whose service is not certainly somebody's."""
    return Corpus(
        corpus.span,
        [e for e in corpus.entries if not e.call or e.call.namespace in platform.NAMESPACE_OWNERS],
    )


def folder(directory: Path, name: str) -> Path:
    folder = directory / name
    folder.mkdir()
    return folder


def countries(directory: Path) -> dict[str, str]:
    geoip, roster = directory / "geoip.mmdb", directory / "roster.csv"
    write_geoip_database(geoip)
    roster.write_text(sample.roster_csv(), encoding="utf-8")
    return {"OSCAR_METRICS_GEOIP_DATABASE": str(geoip), "OSCAR_METRICS_ROSTER": str(roster)}


def _kubeconfig(cluster: KubeCluster, proxy: Proxy, directory: Path) -> Path:
    """The kubeconfig of the plain user, through the proxy."""
    config = json.loads(cluster.kubeconfig(cluster.user_token).read_text())
    config["clusters"][0]["cluster"]["server"] = proxy.url
    path = directory / "kubeconfig.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path


def fill_loki(loki: Loki, corpus: Corpus) -> None:
    streams = loki_streams(corpus, country_labels=False)
    loki.push(streams)
    lines = sum(len(entries) for _, entries in streams)
    span = corpus.span
    loki.flush_and_wait('{pod=~".+"}', span.start_ns, span.stop_ns, lines)


def fill_cluster(cluster: KubeCluster, corpus: Corpus) -> None:
    spaces = (platform.SHARED_NAMESPACE, *platform.NAMESPACE_OWNERS)
    for manifest in (
        *map(platform.namespace_manifest, spaces),
        *map(platform.config_map, SERVICES),
        *role_manifests(),
    ):
        cluster.apply(manifest)
    add_pods(cluster, corpus)


def fill_prometheus(prometheus: Prometheus, span: Span) -> None:
    """A container per owned service, scraped from an hour before the span until now."""
    start_seconds = span.start_ns // SECOND_NS - 3600
    times = range(start_seconds, time.time_ns() // SECOND_NS, _SCRAPE_SECONDS)
    for service in OWNED:
        labels = {
            "namespace": service.namespace,
            "service": service.name,
            "pod": f"{service.name}-0",
            "container": "main",
        }
        used = [(at * 1000, (at - start_seconds) * CORES) for at in times]
        born = [(at * 1000, float(start_seconds)) for at in times]
        prometheus.remote_write(
            [
                ({"__name__": "container_cpu_usage_seconds_total", "cpu": "total", **labels}, used),
                ({"__name__": "container_start_time_seconds", **labels}, born),
            ]
        )
