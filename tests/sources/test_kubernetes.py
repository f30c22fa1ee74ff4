"""The inventory on a real Kubernetes API, as the plain user that deploy/rbac.yaml makes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from kubernetes.aio.config import incluster_config
from structlog.testing import capture_logs

from oscar_metrics.facts import Inventory, NamespaceOwner, Service, ServiceKey
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.ownership import Ownership
from oscar_metrics.sources.kubernetes import InventorySettings, KubernetesInventory
from oscar_metrics.sources.kubernetes_client import KubernetesClient, KubernetesSettings
from oscar_metrics.telemetry import Telemetry
from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster

ROOT = Path(__file__).parents[2]
TOKEN = "5ec2e7d1e2c0de5ec2e7"
NOW_NS = time.time_ns()
MANY = 130


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    for name in ("etcd", "kube-apiserver", "kwok"):
        require(name)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as server:
        bind(server)
        for number in range(MANY):
            space = ("oscar-svc", "oscar-svc-jane", "oscar-svc-omar")[number % 3]
            server.apply(service_map(space, f"svc-{number:03d}", owner=OWNERS[space]))
        for space in ("oscar-svc-jane", "oscar-svc-omar", "oscar-svc-gone"):
            server.apply(namespace(space, OWNERS[space]))
        yield server


OWNERS = {
    "oscar-svc": "cluster_admin",
    "oscar-svc-jane": "jane@egi.eu",
    "oscar-svc-omar": "omar@egi.eu",
    "oscar-svc-gone": "gone@egi.eu",
}


def bind(cluster: KubeCluster, *, without: str = "") -> None:
    """Apply our own manifest, bound to the test's plain user; `without` leaves one list out."""
    for manifest in yaml.safe_load_all((ROOT / "deploy" / "rbac.yaml").read_text()):
        if manifest["kind"].endswith("Binding"):
            user = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "metrics"}
            manifest["subjects"] = [user]
        if manifest["kind"] == "ClusterRole":
            rules = [rule for rule in manifest["rules"] if without not in rule["resources"]]
            manifest["rules"] = rules
        cluster.apply(manifest)


def service_map(space: str, name: str, *, text: str | None = None, **more: Any) -> dict[str, Any]:
    definition = {"name": name, "token": TOKEN, "visibility": "private", **more}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": space, "name": name, "labels": {"oscar_service": name}},
        "data": {
            "function_config.yaml": yaml.safe_dump(definition) if text is None else text,
            "script.sh": f"echo {TOKEN}",
        },
    }


def namespace(name: str, owner: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "labels": {"app.kubernetes.io/managed-by": "oscar"},
        "annotations": {"oscar.grycap.upv.es/owner": owner},
    }
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


@contextlib.asynccontextmanager
async def asking(kubeconfig: Path | str, **limits: Any) -> AsyncIterator[KubernetesInventory]:
    settings = KubernetesSettings(config=str(kubeconfig), attempts=1, timeout_seconds=5, **limits)
    client = KubernetesClient(settings, Telemetry())
    try:
        yield KubernetesInventory(client, InventorySettings())
    finally:
        await client.aclose()


async def read(kubeconfig: Path, **limits: Any) -> Outcome[Inventory]:
    async with asking(kubeconfig, **limits) as inventory:
        return await inventory.read(now_ns=NOW_NS, deadline=None)


async def eventually(inventory: KubernetesInventory, kind: type[Any]) -> Any:
    """The outcome once it is of a kind: the API hears of changed roles a moment later."""
    deadline = time.monotonic() + 10
    while True:
        outcome = await inventory.read(now_ns=NOW_NS, deadline=None)
        if isinstance(outcome, kind):
            return outcome
        assert time.monotonic() < deadline, outcome
        await asyncio.sleep(0.05)


async def test_every_service_of_every_namespace_is_listed_over_all_pages(
    cluster: KubeCluster,
) -> None:
    outcome = await read(cluster.kubeconfig(cluster.user_token))

    assert isinstance(outcome, Ok), outcome
    services = outcome.facts.services
    assert len(services) == MANY
    assert list(services) == sorted(services, key=lambda one: (one.namespace, one.name))
    assert (
        Service(
            namespace="oscar-svc-jane", name="svc-001", owner="jane@egi.eu", visibility="private"
        )
        in services
    )
    assert outcome.last_updated_ns == NOW_NS


async def test_a_namespace_outlives_its_services_and_the_shared_one_is_the_administrators(
    cluster: KubeCluster,
) -> None:
    outcome = await read(cluster.kubeconfig(cluster.user_token))

    assert isinstance(outcome, Ok)
    assert outcome.facts.owners == tuple(
        NamespaceOwner(namespace=space, owner=OWNERS[space]) for space in sorted(OWNERS)
    )


async def test_an_unreadable_definition_hides_no_other_and_no_token_is_ever_seen(
    cluster: KubeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    kubeconfig = cluster.kubeconfig(cluster.user_token)
    broken = service_map("oscar-svc", "broken", text=f"name: broken\n  token: {TOKEN}\n\t{TOKEN}")
    nested = service_map("oscar-svc", "nested", text="a: " + "[" * 500_000)
    cluster.apply(broken)
    cluster.apply(nested)
    cluster.apply({**service_map("oscar-svc", "empty"), "data": None})
    try:
        with capture_logs() as logs:
            async with asking(kubeconfig) as inventory:
                outcome = await inventory.read(now_ns=NOW_NS, deadline=None)
                again = await inventory.read(now_ns=NOW_NS, deadline=None)
                findings = await inventory.check(NOW_NS)
                held = repr(vars(inventory))
    finally:
        for name in ("broken", "nested", "empty"):
            delete(cluster, f"/api/v1/namespaces/oscar-svc/configmaps/{name}")

    assert isinstance(outcome, Partial)
    assert len(outcome.facts.services) == MANY + 3
    assert Service(namespace="oscar-svc", name="broken") in outcome.facts.services
    (note,) = outcome.notes
    assert "oscar-svc/broken, oscar-svc/empty, oscar-svc/nested" in note
    assert again == outcome
    assert any(note in finding.says for finding in findings)
    for seen in (outcome, findings, held, logs, caplog.text):
        assert TOKEN not in str(seen)


async def test_a_changed_definition_is_read_again(cluster: KubeCluster) -> None:
    cluster.apply(service_map("oscar-svc", "changing", owner="one"))
    try:
        async with asking(cluster.kubeconfig(cluster.user_token)) as inventory:
            await inventory.read(now_ns=NOW_NS, deadline=None)
            cluster.apply(service_map("oscar-svc", "changing", owner="another", enable_gpu=True))
            outcome = await inventory.read(now_ns=NOW_NS, deadline=None)
    finally:
        delete(cluster, "/api/v1/namespaces/oscar-svc/configmaps/changing")

    assert isinstance(outcome, Ok)
    (service,) = (one for one in outcome.facts.services if one.name == "changing")
    assert (service.owner, service.enable_gpu) == ("another", True)


async def test_a_namespace_that_two_owners_share_belongs_to_nobody(cluster: KubeCluster) -> None:
    cluster.apply(service_map("oscar-svc-jane", "stranger", owner="somebody-else"))
    try:
        outcome = await read(cluster.kubeconfig(cluster.user_token))
    finally:
        delete(cluster, "/api/v1/namespaces/oscar-svc-jane/configmaps/stranger")

    assert isinstance(outcome, Partial)
    assert "oscar-svc-jane" in outcome.notes[0]
    deleted = ServiceKey("oscar-svc-jane", "deleted-long-ago")
    whose = Ownership(outcome.facts, None).whose(deleted)
    assert (whose.owner, "somebody-else" in whose.perhaps) == ("", True)


async def test_more_services_than_are_read_is_said(cluster: KubeCluster) -> None:
    settings = KubernetesSettings(config=str(cluster.kubeconfig(cluster.user_token)))
    client = KubernetesClient(settings, Telemetry())
    for most, expected in ((60, Partial), (100, Partial), (MANY, Ok)):
        inventory = KubernetesInventory(client, InventorySettings(most_services=most))
        outcome = await inventory.read(now_ns=NOW_NS, deadline=None)
        assert isinstance(outcome, expected)
        assert not isinstance(outcome, Unavailable)
        assert outcome.facts.whole is (expected is Ok)
        assert len(outcome.facts.services) == most
    await client.aclose()


async def test_pages_shrink_until_they_fit(cluster: KubeCluster) -> None:
    large = "#" * 60_000
    for number in range(3):
        cluster.apply(service_map("oscar-svc", f"large-{number}", text=f"name: large\n{large}"))
    try:
        outcome = await read(cluster.kubeconfig(cluster.user_token), body_bytes=100_000)
    finally:
        for number in range(3):
            delete(cluster, f"/api/v1/namespaces/oscar-svc/configmaps/large-{number}")

    assert isinstance(outcome, Ok), outcome
    assert len(outcome.facts.services) == MANY + 3


async def test_without_the_right_to_list_namespaces_only_their_owners_are_missing(
    cluster: KubeCluster,
) -> None:
    try:
        async with asking(cluster.kubeconfig(cluster.user_token)) as inventory:
            bind(cluster, without="namespaces")
            outcome = await eventually(inventory, Partial)
            assert len(outcome.facts.services) == MANY
            assert not outcome.facts.whole
            assert outcome.facts.owners == (
                NamespaceOwner(namespace="oscar-svc", owner="cluster_admin"),
            )
            assert outcome.notes == (
                "the owners of namespaces are missing: kubernetes does not let us read this",
            )
            findings = await inventory.check(NOW_NS)
            (problem,) = (one for one in findings if one.level is Level.PROBLEM)
            assert "namespaces may not be listed" in problem.says
            assert "deploy/rbac.yaml" in problem.change

            bind(cluster, without="configmaps")
            refused = await eventually(inventory, Unavailable)
            assert refused.notes == ("kubernetes does not let us read this",)
    finally:
        bind(cluster)
    async with asking(cluster.kubeconfig(cluster.user_token)) as inventory:
        await eventually(inventory, Ok)


async def test_check_finds_nothing_wrong_with_the_shipped_role(cluster: KubeCluster) -> None:
    async with asking(cluster.kubeconfig(cluster.user_token)) as inventory:
        findings = await inventory.check(NOW_NS)

    assert {finding.level for finding in findings} == {Level.OK}
    assert any("130 services in 3 namespaces" in finding.says for finding in findings)
    assert any("v1.36.3" in finding.says for finding in findings)


async def test_an_api_that_is_stopped_is_unavailable_and_comes_back(cluster: KubeCluster) -> None:
    async with asking(cluster.kubeconfig(cluster.user_token)) as inventory:
        cluster.stop()
        try:
            outcome = await inventory.read(now_ns=NOW_NS, deadline=None)
            (finding,) = await inventory.check(NOW_NS)
        finally:
            cluster.restart()
        assert outcome == Unavailable(
            origin="kubernetes", notes=("kubernetes could not be reached",)
        )
        assert finding.level is Level.PROBLEM
        assert "OSCAR_METRICS_KUBERNETES" in finding.change
        await eventually(inventory, Ok)


async def test_wrong_credentials_are_named(cluster: KubeCluster) -> None:
    outcome = await read(cluster.kubeconfig("0" * 32))

    assert outcome == Unavailable(
        origin="kubernetes", notes=("kubernetes refused our credentials",)
    )


async def test_credentials_of_a_command_are_renewed_when_they_run_out(
    cluster: KubeCluster, tmp_path: Path
) -> None:
    token, credential = tmp_path / "token", tmp_path / "credential"
    credential.write_text(
        "#!/bin/sh\n"
        'echo "{\\"apiVersion\\":\\"client.authentication.k8s.io/v1\\",'
        '\\"kind\\":\\"ExecCredential\\",'
        f'\\"status\\":{{\\"token\\":\\"$(cat {token})\\"}}}}"\n'
    )
    credential.chmod(0o700)
    command = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(credential),
        "interactiveMode": "Never",
    }
    kubeconfig = changed(cluster, tmp_path, user={"exec": command})
    token.write_text("0" * 32)
    async with asking(kubeconfig) as inventory:
        assert isinstance(await inventory.read(now_ns=NOW_NS, deadline=None), Unavailable)
        token.write_text(cluster.user_token)
        assert isinstance(await inventory.read(now_ns=NOW_NS, deadline=None), Ok)


async def test_a_pods_own_token_is_read_again(
    cluster: KubeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 32)
    # Where every pod has its token, no test may write.
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(cluster.ca_file))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", cluster.url.rpartition(":")[2])
    async with asking("") as inventory:
        assert isinstance(await inventory.read(now_ns=NOW_NS, deadline=None), Unavailable)
        token.write_text(cluster.user_token)
        assert isinstance(await inventory.read(now_ns=NOW_NS, deadline=None), Ok)
        token.unlink()
        assert isinstance(await inventory.read(now_ns=NOW_NS, deadline=None), Ok)


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ({"certificate-authority": None}, "could not be reached over TLS"),
        ({"insecure-skip-tls-verify": True}, "certificate verification off"),
        ({"server": "http://192.0.2.1:8001"}, "is not https"),
        ({"certificate-authority": "/nowhere/ca.crt"}, "cannot be used"),
    ],
)
async def test_credentials_go_to_a_verified_server_only(
    cluster: KubeCluster, tmp_path: Path, server: dict[str, Any], says: str
) -> None:
    outcome = await read(changed(cluster, tmp_path, server=server))

    assert isinstance(outcome, Unavailable)
    assert says in outcome.notes[0]


@pytest.mark.parametrize("text", [None, "", "[]", "{", "clusters: [{}]", "current-context: x"])
async def test_a_kubeconfig_that_is_none_is_named_by_its_setting(
    tmp_path: Path, text: str | None
) -> None:
    kubeconfig = tmp_path / "config"
    if text is not None:
        kubeconfig.write_text(text)

    outcome = await read(kubeconfig)

    assert isinstance(outcome, Unavailable)
    assert "OSCAR_METRICS_KUBERNETES" in outcome.notes[0]


def changed(
    cluster: KubeCluster,
    tmp_path: Path,
    *,
    server: dict[str, Any] | None = None,
    user: dict[str, Any] | None = None,
) -> Path:
    """The plain user's kubeconfig with something else in it; None takes an entry away."""
    config = json.loads(cluster.kubeconfig(cluster.user_token).read_text())
    entries = config["clusters"][0]["cluster"] | (server or {})
    config["clusters"][0]["cluster"] = {
        name: value for name, value in entries.items() if value is not None
    }
    if user is not None:
        config["users"][0]["user"] = user
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


def delete(cluster: KubeCluster, path: str) -> None:
    httpx.delete(
        f"{cluster.url}{path}",
        headers={"Authorization": f"Bearer {cluster.admin_token}"},
        verify=ssl.create_default_context(cafile=str(cluster.ca_file)),
        trust_env=False,
    ).raise_for_status()
