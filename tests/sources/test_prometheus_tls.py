"""A real Prometheus that asks for certificates, which is what its own TLS does."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from oscar_metrics.findings import Level
from oscar_metrics.sources.prometheus import PrometheusSettings, PrometheusUsage
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.sources.upstream_tls import TlsSettings
from oscar_metrics.telemetry import Telemetry
from tests.servers.build import program, require
from tests.servers.certificates import Authority
from tests.servers.process import Process, free_port


class Secured(msgspec.Struct):
    """Where it is, and the files: its authority's, our certificate of it, one of another."""

    url: str
    ours: TlsSettings
    other: TlsSettings


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    require("prometheus")
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority("ours")
    ca_file = authority.write(folder / "ca.crt")
    certificate, key = authority.issue(folder, "server")
    tls = {
        "cert_file": str(certificate),
        "key_file": str(key),
        "client_auth_type": "RequireAndVerifyClientCert",
        "client_ca_file": str(ca_file),
    }
    (folder / "web.json").write_text(json.dumps({"tls_server_config": tls}))
    (folder / "prometheus.json").write_text("{}")
    port = free_port()
    server = Process(
        "prometheus",
        [
            program("prometheus"),
            f"--config.file={folder / 'prometheus.json'}",
            f"--web.config.file={folder / 'web.json'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        folder / "prometheus.log",
    )

    def settings(issuer: Authority, name: str) -> TlsSettings:
        files = issuer.issue(folder, name)
        return TlsSettings(
            ca_file=str(ca_file), certificate_file=str(files[0]), key_file=str(files[1])
        )

    found = Secured(
        url=f"https://127.0.0.1:{port}",
        ours=settings(authority, "client"),
        other=settings(Authority("other"), "stranger"),
    )
    context = ssl.create_default_context(cafile=ca_file)
    context.load_cert_chain(found.ours.certificate_file, found.ours.key_file)

    def ready() -> bool:
        return httpx.get(f"{found.url}/-/ready", verify=context, trust_env=False).is_success

    try:
        server.start(ready, timeout_seconds=60)
        yield found
    finally:
        server.stop()


async def problems(url: str, tls: TlsSettings) -> list[str]:
    settings = PrometheusSettings(url=url, tls=tls, limits=UpstreamLimits(attempts=1))
    usage = PrometheusUsage(settings, telemetry=Telemetry())
    try:
        found = await usage.check(time.time_ns())
        return [finding.says for finding in found if finding.level is Level.PROBLEM]
    finally:
        await usage.aclose()


async def test_our_certificate_is_what_it_takes(secured: Secured) -> None:
    assert not [text for text in await problems(secured.url, secured.ours) if "reached" in text]


async def test_without_ours_it_cannot_be_asked_and_is_no_crash(secured: Secured) -> None:
    without = TlsSettings(ca_file=secured.ours.ca_file)
    for _ in range(20):
        (problem,) = await problems(secured.url, without)
        assert "TLS" in problem
        # It hangs up at once; whether its reason arrives before that is up to the system.
        (problem,) = await problems(secured.url, secured.other)
        assert "could not be reached" in problem


async def test_its_authority_must_be_known(secured: Secured) -> None:
    (problem,) = await problems(secured.url, TlsSettings())
    assert "TLS" in problem
