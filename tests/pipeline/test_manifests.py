"""What an operator applies: a real Kubernetes API takes all of it, and lets each do its work."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.process import ServerError

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file())
VALUES = [path for path in FILES if path.name == "alloy-values.yaml"]
# Namespaces that are there before we are.
PLATFORM = ("oscar", "oscar-svc", "ingress-nginx", "monitoring")

CHART_VERSION = "1.2.1"
# What that chart's templates read of its values, and of what kind it is.
# Helm passes over what no template reads, so that a name written wrong would just do nothing.
CHART: dict[str, type] = {
    "fullnameOverride": str,
    "alloy.configMap.create": bool,
    "alloy.configMap.name": str,
    "alloy.configMap.key": str,
    "alloy.stabilityLevel": str,
    "alloy.storagePath": str,
    "alloy.enableReporting": bool,
    "alloy.extraEnv": list,
    "alloy.mounts.extra": list,
    "alloy.resources": dict,
    "controller.type": str,
    "controller.replicas": int,
    "controller.updateStrategy": dict,
    "controller.volumes.extra": list,
    "controller.initContainers": list,
    "rbac.create": bool,
    "serviceAccount.create": bool,
    "serviceAccount.name": str,
}


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d is not None]


def is_manifest(path: Path) -> bool:
    return all({"apiVersion", "kind"} <= document.keys() for document in documents(path))


MANIFESTS = [path for path in FILES if is_manifest(path)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    """A cluster in which everything is installed as the documentation says, but for the chart."""
    for name in ("etcd", "kube-apiserver", "kubectl", "kwok"):
        require(name)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as server:
        for namespace in PLATFORM:
            metadata = {"name": namespace}
            server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for path in MANIFESTS:
            server.kubectl(server.admin_token, "apply", "--validate=strict", f"--filename={path}")
        server.kubectl(
            server.admin_token,
            *("create", "configmap", "oscar-pipeline", "--namespace=monitoring"),
            f"--from-file={ROOT / 'alloy'}",
        )
        yield server


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_file_is_a_manifest_or_a_test_of_its_own_names_it(path: Path) -> None:
    tests = (file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    assert is_manifest(path) or any(f'"{path.name}"' in text for text in tests)


def test_the_api_takes_every_manifest_a_second_time(cluster: KubeCluster) -> None:
    for path in MANIFESTS:
        told = cluster.kubectl(
            cluster.admin_token, "apply", "--validate=strict", f"--filename={path}"
        )
        assert len(told.splitlines()) == len(documents(path))
        assert all(line.endswith((" unchanged", " configured")) for line in told.splitlines())


def test_what_no_api_knows_is_refused(cluster: KubeCluster, tmp_path: Path) -> None:
    """So that the others are taken for being right."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("{apiVersion: v1, kind: Secret, metadata: {name: wrong}, stringdata: {a: b}}")
    with pytest.raises(ServerError, match='unknown field "stringdata"'):
        cluster.kubectl(cluster.admin_token, "apply", "--validate=strict", f"--filename={wrong}")


# Verbs on resources, by namespace; blank: in every one.
LISTS = {"list configmaps", "list namespaces"}
OURS_READS = {"list pods", "get pods/log"}
READS = {"get pods", "list pods", "watch pods", "get pods/log"}
USAGE = {"get nodes", "list nodes", "watch nodes", "get nodes/metrics"}
RESTARTS = {"get deployments.apps/oscar-pipeline", "patch deployments.apps/oscar-pipeline"}
MAY: dict[tuple[str, str], dict[str, set[str]]] = {
    ("oscar", "oscar-metrics"): {"": LISTS, "oscar": OURS_READS, "ingress-nginx": OURS_READS},
    ("monitoring", "oscar-pipeline"): {"oscar": READS, "ingress-nginx": READS},
    ("monitoring", "oscar-pipeline-updater"): {"monitoring": RESTARTS},
    ("monitoring", "oscar-usage"): {"": USAGE},
}


def may(cluster: KubeCluster, token: str, namespace: str) -> set[str]:
    """All that the API lets a token's owner do in a namespace, but what everybody may."""
    path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = httpx.post(
        f"{cluster.url}{path}",
        json={"spec": {"namespace": namespace}},
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=str(cluster.ca_file)),
        trust_env=False,
    ).raise_for_status()
    status = answer.json()["status"]
    assert not status["incomplete"]
    return {
        f"{verb} {resource}{'.' * bool(group)}{group}{name and '/' + name}"
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        if group not in {"authorization.k8s.io", "authentication.k8s.io"}
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def test_every_service_account_is_one_whose_rights_are_known() -> None:
    accounts = {
        (document["metadata"]["namespace"], document["metadata"]["name"])
        for path in MANIFESTS
        for document in documents(path)
        if document["kind"] == "ServiceAccount"
    }
    assert accounts == MAY.keys()


@pytest.mark.parametrize("account", MAY, ids=lambda account: account[1])
def test_a_service_account_may_do_its_work_and_nothing_else(
    cluster: KubeCluster, account: tuple[str, str]
) -> None:
    token = cluster.token_of(*account)
    for namespace in (*PLATFORM, "kube-system"):
        known = MAY[account]
        assert may(cluster, token, namespace) == known.get("", set()) | known.get(namespace, set())


def values_by_key(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Each value with its whole name, down to the names that the chart knows."""
    for name, value in values.items():
        if isinstance(value, dict) and f"{above}{name}" not in CHART:
            yield from values_by_key(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.parent.name)
def test_the_chart_knows_every_value(path: Path) -> None:
    (values,) = documents(path)
    for key, value in values_by_key(values):
        assert type(value) is CHART[key], key


@pytest.mark.parametrize("path", [ROOT / "docs/pipeline.md", *VALUES], ids=str)
def test_the_chart_is_installed_in_the_version_whose_values_are_known(path: Path) -> None:
    commands = re.findall(r"^.*helm install .*$", path.read_text(), re.MULTILINE)
    assert commands
    assert [c for c in commands if f" grafana/alloy --version {CHART_VERSION} " not in c] == []


def deployment(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart makes of these values, without what we leave to it."""
    alloy, controller = values["alloy"], values["controller"]
    labels = {"app.kubernetes.io/name": "alloy"}
    container = {
        "name": "alloy",
        "image": "grafana/alloy",
        "args": ["run", f"/etc/alloy/{alloy['configMap']['key']}"],
        "env": alloy["extraEnv"],
        "resources": alloy["resources"],
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/alloy"},
            *alloy.get("mounts", {}).get("extra", []),
        ],
    }
    pod = {
        "serviceAccountName": values["serviceAccount"]["name"],
        "initContainers": controller.get("initContainers", []),
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": alloy["configMap"]["name"]}},
            *controller.get("volumes", {}).get("extra", []),
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": values["fullnameOverride"], "namespace": "monitoring"},
        "spec": {
            "replicas": controller["replicas"],
            "strategy": controller["updateStrategy"],
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.parent.name)
def test_the_api_takes_what_the_chart_makes_and_all_it_names_is_there(
    cluster: KubeCluster, path: Path
) -> None:
    (values,) = documents(path)
    pod = cluster.apply(deployment(values))["spec"]["template"]["spec"]
    installed = {
        (document["kind"], document["metadata"]["name"])
        for manifests in MANIFESTS
        for document in documents(manifests)
        if document["metadata"].get("namespace") == "monitoring"
    }
    named = {("ServiceAccount", pod["serviceAccountName"])}
    for volume in pod["volumes"]:
        if claim := volume.get("persistentVolumeClaim"):
            named.add(("PersistentVolumeClaim", claim["claimName"]))
    for container in pod.get("initContainers", []):
        named |= {("Secret", source["secretRef"]["name"]) for source in container["envFrom"]}
    assert named <= installed
    # The key of the files' ConfigMap that the collector is started with.
    files = cluster.kubectl(
        cluster.admin_token,
        *("get", "configmap", values["alloy"]["configMap"]["name"], "--namespace=monitoring"),
        "--output=yaml",
    )
    assert values["alloy"]["configMap"]["key"] in yaml.safe_load(files)["data"]


def test_the_weekly_job_restarts_the_collector_and_nothing_else(cluster: KubeCluster) -> None:
    (values,) = documents(DEPLOY / "pipeline" / "alloy-values.yaml")
    (job,) = (
        document
        for document in documents(DEPLOY / "pipeline" / "geoip.yaml")
        if document["kind"] == "CronJob"
    )
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    token = cluster.token_of(job["metadata"]["namespace"], pod["serviceAccountName"])
    # In a pod, kubectl takes the namespace of its service account.
    inside = f"--namespace={job['metadata']['namespace']}"
    collector = deployment(values)
    other = collector | {"metadata": {"name": "other", "namespace": "monitoring"}}
    cluster.apply(collector)
    cluster.apply(other)

    def restarted() -> str:
        return cluster.kubectl(
            cluster.admin_token,
            *("get", "deployment", "oscar-pipeline", inside),
            r"--output=jsonpath={.spec.template.metadata.annotations.kubectl\.kubernetes\.io/restartedAt}",
        )

    assert restarted() == ""
    (container,) = pod["containers"]
    told = cluster.kubectl(token, inside, *container["args"])
    assert told.strip() == "deployment.apps/oscar-pipeline restarted"
    assert restarted() != ""
    with pytest.raises(ServerError, match="forbidden"):
        cluster.kubectl(token, inside, "rollout", "restart", "deployment/other")


def test_every_image_is_of_one_version() -> None:
    images = [
        image for path in FILES for document in documents(path) for image in images_in(document)
    ]
    assert images
    for image in images:
        assert image.rpartition(":")[2].removeprefix("v").count(".") == 2, image


def images_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(image := value.get("image"), str):
            yield image
        for inner in value.values():
            yield from images_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images_in(inner)
