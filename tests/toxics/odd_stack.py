"""Real servers that know one hour, each behind a few lines that may answer for it, and ours."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec

from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span, format_instant
from tests.auth.made_issuer import DISCOVERY, USERINFO, MadeIssuer
from tests.corpus import Corpus, platform
from tests.corpus.corpus import Mix
from tests.e2e.issuing import threaded_issuer
from tests.e2e.running import started
from tests.servers.certificates import Authority
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki
from tests.servers.process import Process
from tests.servers.prometheus import Prometheus
from tests.toxics.between import Between
from tests.toxics.expected import Upstream
from tests.toxics.questions import Answer, Caller, Question
from tests.toxics.stack import OWNER, countries, fill_cluster, fill_loki, fill_prometheus, folder
from tests.toxics.stack import owned as without_doubtful

# Long beside what odd answers take: only what hangs or is endless has to wait for it.
DEADLINE_SECONDS = 4.0
# The largest answer that is taken, of whichever upstream.
BODY_BYTES = 2**21
SECRETS = {"loki": "l0ki-5ec2e7-password", "prometheus": "pr0metheus-5ec2e7-token"}

# So soon is what failed asked again; and every retry may be made, however many rows there are.
_RESILIENCE = {
    "OPEN_SECONDS": "0.1",
    "LONGEST_OPEN_SECONDS": "0.2",
    "UNANSWERED_SECONDS": "0.5",
    "RETRY_PERCENT": "100",
    "BODY_BYTES": str(BODY_BYTES),
}


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown in a handshake: one that is good, and others that are not."""

    good: ssl.SSLContext
    bad: Mapping[str, ssl.SSLContext | None]
    authority: Path

    @classmethod
    def issue(cls, directory: Path) -> Certificates:
        """Write them; None is plain HTTP where TLS is expected."""
        ours, others = Authority("ours"), Authority("nobody knows")

        def context(authority: Authority, name: str, **how: Any) -> ssl.SSLContext:
            made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            made.load_cert_chain(*authority.issue(directory, name, **how))
            return made

        return cls(
            good=context(ours, "good"),
            bad={
                "expired": context(ours, "expired", expired=True),
                "self-signed": context(others, "self-signed"),
                "of-another-host": context(ours, "elsewhere", hosts=("elsewhere.example",)),
                "plain-http": None,
            },
            authority=ours.write(directory / "authority.crt"),
        )


class OddStack:
    """Our server, and what stands before each upstream; `elsewhere` is where redirects lead."""

    def __init__(
        self,
        betweens: Mapping[Upstream, Between],
        elsewhere: Between,
        certificates: Certificates,
        issuer: MadeIssuer,
        client: httpx.Client,
        server: Process,
        span: Span,
        secrets: frozenset[str],
    ) -> None:
        self.betweens = betweens
        self.elsewhere = elsewhere
        self.certificates = certificates
        self.server = server
        # What no answer may hold: credentials of ours, and where upstreams are.
        self.secrets = secrets | {f":{each.server_port}" for each in betweens.values()}
        self.issuer = issuer.url
        self._issuer = issuer
        self._client = client
        self._range = {
            "start": format_instant(span.start_ns),
            # Both ends of what callers write are included.
            "end": format_instant(span.stop_ns - 1),
        }

    def token(self) -> str:
        """A token of the user that nobody has seen before."""
        now = int(time.time())
        return self._issuer.token(sub=OWNER, iat=now - 5, exp=now + 3000, jti=str(time.time_ns()))

    def ask(self, question: Question, caller: Caller, token: str = "") -> tuple[Answer, str]:
        """What is answered now, and all of its text."""
        headers = {"Cache-Control": "no-cache"}
        auth: Any = self._client.auth
        if caller is not Caller.ADMINISTRATOR:
            headers["Authorization"], auth = f"Bearer {token}", None
        began = time.monotonic()
        response = self._client.get(
            f"/system/metrics{question.path}",
            params={**self._range, **question.parameters},
            headers=headers,
            auth=auth,
        )
        seconds = time.monotonic() - began
        said = f"{response.headers}\n{response.text}"
        return Answer.of(question, response, seconds=seconds), said

    def left_alone(self) -> set[str]:
        """The upstreams that are not asked at the moment."""
        states: dict[str, str] = self._client.get("/readyz").json()["upstreams"]
        return {name for name, state in states.items() if state != "closed"}


@contextmanager
def odd_stack(directory: Path) -> Iterator[OddStack]:
    """Start everything, and fill it with the hour before the last whole quarter of an hour."""
    stop_ns = time.time_ns() // SLOT_NS * SLOT_NS
    span = Span(stop_ns - HOUR_NS, stop_ns)
    corpus = without_doubtful(Corpus.generate(6, span, Mix(calls=600)))
    certificates = Certificates.issue(folder(directory, "certificates"))
    with contextlib.ExitStack() as running:
        loki = running.enter_context(Loki.start(folder(directory, "loki")))
        prometheus = running.enter_context(Prometheus.start(folder(directory, "prometheus")))
        cluster = running.enter_context(KubeCluster.start(folder(directory, "cluster")))
        issuer = running.enter_context(threaded_issuer())

        def before(url: str, real_tls: ssl.SSLContext | None = None) -> Between:
            return running.enter_context(Between.start(url, certificates.good, real_tls=real_tls))

        of_cluster = ssl.create_default_context(cafile=str(cluster.ca_file))
        betweens = {
            Upstream.LOKI: before(loki.url),
            Upstream.PROMETHEUS: before(prometheus.url),
            Upstream.KUBERNETES: before(cluster.url, of_cluster),
            Upstream.KEYCLOAK: before(issuer.host),
        }
        elsewhere = before(loki.url)
        _move(issuer, betweens[Upstream.KEYCLOAK].url)
        fill_loki(loki, corpus)
        fill_cluster(cluster, corpus)
        fill_prometheus(prometheus, span)
        server = folder(directory, "server")
        settings = _settings(betweens, certificates, cluster, issuer, server)
        client, process = running.enter_context(started(settings, server))
        secrets = frozenset({*SECRETS.values(), cluster.user_token, platform.PLANTED_TOKEN})
        yield OddStack(betweens, elsewhere, certificates, issuer, client, process, span, secrets)


def _move(issuer: MadeIssuer, url: str) -> None:
    """Have the issuer be known by another URL, and know the user."""
    document = json.dumps(issuer.document).replace(issuer.host, url)
    issuer.host, issuer.url = url, issuer.url.replace(issuer.host, url)
    issuer.says(DISCOVERY, json.loads(document))
    issuer.says(USERINFO, {"sub": OWNER, "group_membership": ["users"]})


def _settings(
    betweens: Mapping[Upstream, Between],
    certificates: Certificates,
    cluster: KubeCluster,
    issuer: MadeIssuer,
    directory: Path,
) -> dict[str, str]:
    config = json.loads(cluster.kubeconfig(cluster.user_token).read_text())
    config["clusters"][0]["cluster"] = {
        "server": betweens[Upstream.KUBERNETES].url,
        "certificate-authority": str(certificates.authority),
    }
    kubeconfig = directory / "kubeconfig.json"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_text(json.dumps(config))
    user = f"//operator:{SECRETS['loki']}@"
    return {
        "LOKI_URL": betweens[Upstream.LOKI].url.replace("//", user),
        "PROMETHEUS_URL": betweens[Upstream.PROMETHEUS].url,
        "OSCAR_METRICS_PROMETHEUS_TOKEN": SECRETS["prometheus"],
        "OSCAR_METRICS_KUBERNETES": str(kubeconfig),
        "OIDC_ENABLE": "true",
        "OIDC_ISSUERS": issuer.url,
        "OIDC_GROUPS": "users",
        "OSCAR_METRICS_OIDC_USER_SECONDS": "3600",
        "OSCAR_METRICS_OIDC_KEYS_SECONDS": "1",
        "OSCAR_METRICS_OIDC_KEYS_REFRESH_SECONDS": "1",
        "OSCAR_METRICS_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
        # As soon is it found out that fewer lines are no smaller answer.
        "OSCAR_METRICS_LOKI_PAGE_LINES": "100",
        "INGRESS_HOST": platform.BASE_HOST,
        **countries(directory),
        **{
            f"OSCAR_METRICS_{upstream}_TLS_CA_FILE": str(certificates.authority)
            for upstream in ("LOKI", "PROMETHEUS", "OIDC")
        },
        **{
            f"OSCAR_METRICS_{upstream}_{name}": value
            for upstream in ("LOKI", "PROMETHEUS", "KUBERNETES", "OIDC")
            for name, value in _RESILIENCE.items()
        },
    }
