"""A real Kubernetes API, with kwok in the place of kubelets: pods and logs without containers."""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from tests.servers.build import program
from tests.servers.certificates import ClusterFiles, write_certificates
from tests.servers.kwok import (
    API_VERSION,
    kwok_config,
    line_time,
    logs_definition,
    logs_of,
    write_log,
)
from tests.servers.process import Process, ServerError, free_port, wait_until

NODE = "node-1"

_START_SECONDS = 60
_POD_SECONDS = 60


class KubeCluster:
    """etcd, kube-apiserver and kwok, with one node.

    `url` and `ca_file` say where the API is. `admin_token` may do everything; `user_token` is the
    user `metrics`, who may do what the roles bound to it by `apply` allow. There are no
    controllers: a Deployment makes no pods, and a namespace asked to go stays `Terminating`.
    """

    def __init__(self, directory: Path) -> None:
        self.admin_token = secrets.token_hex(16)
        self.user_token = secrets.token_hex(16)
        self._directory = directory
        self._files = write_certificates(directory)
        self.ca_file = self._files.authority
        tokens = directory / "tokens.csv"
        tokens.write_text(
            f"{self.admin_token},admin,admin,system:masters\n{self.user_token},metrics,metrics\n"
        )
        port = free_port()
        self.url = f"https://127.0.0.1:{port}"
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.admin_token}"},
            verify=ssl.create_default_context(cafile=str(self.ca_file)),
            timeout=30,
            trust_env=False,
        )
        self._etcd_url = f"http://127.0.0.1:{free_port()}"
        self._kubelet_port = free_port()
        self._etcd = Process("etcd", _etcd(directory, self._etcd_url), directory / "etcd.log")
        self._apiserver = Process(
            "kube-apiserver",
            _apiserver(self._files, tokens, port, self._etcd_url),
            directory / "kube-apiserver.log",
        )
        self._kwok = Process(
            "kwok",
            _kwok(directory, self._files, self.kubeconfig(self.admin_token), self._kubelet_port),
            directory / "kwok.log",
        )
        self._resources: dict[tuple[str, str], tuple[str, str, bool]] = {}

    @classmethod
    @contextmanager
    def start(cls, directory: Path) -> Iterator[KubeCluster]:
        """Start a cluster with its data under `directory` and stop it at the end.

        Raises ServerError with the end of the log of what does not come up.
        """
        cluster = cls(directory)
        try:
            cluster._start()
            yield cluster
        finally:
            cluster._kwok.stop()
            cluster.stop()
            cluster._etcd.stop()
            cluster._client.close()

    def stop(self) -> None:
        """Stop the apiserver; its objects stay in etcd. Does nothing if it is stopped."""
        # Waiting for watches to end takes it longer than any test has; etcd has what it answered.
        self._apiserver.stop(grace_seconds=1)

    def restart(self) -> None:
        """Start the apiserver again on the same port, and stop it before that if it runs."""
        self.stop()
        self._apiserver.start(self._ready, timeout_seconds=_START_SECONDS)

    def suspend(self) -> None:
        """Let the apiserver hang: connections are taken, and nothing is answered until `resume`."""
        self._apiserver.suspend()

    def resume(self) -> None:
        """Let a suspended apiserver go on; what was asked in between is answered."""
        self._apiserver.resume()

    def kubeconfig(self, token: str) -> Path:
        """Return a kubeconfig file with which the token's owner reaches this cluster."""
        path = self._directory / f"kubeconfig-{sha256(token.encode()).hexdigest()[:8]}.json"
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        text = json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "test", "cluster": cluster}],
                "users": [{"name": "user", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
                "current-context": "test",
            }
        )
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def token_of(self, namespace: str, service_account: str) -> str:
        """Return a token of a service account, as a pod that runs as it is given one."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        token: str = _object(self._client.post(path, json=body))["status"]["token"]
        return token

    def kubectl(self, token: str, *arguments: str | Path) -> str:
        """Run kubectl as the token's owner, and return what it says.

        Raises ServerError with what it says if it fails.
        """
        done = subprocess.run(
            [program("kubectl"), f"--kubeconfig={self.kubeconfig(token)}", *arguments],
            env={**os.environ, "KUBECACHEDIR": str(self._directory / "kubectl")},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ServerError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr}")
        return done.stdout

    def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Create the object, or make it what the manifest says; return it as the API has it.

        A namespace that an object needs is created. Raises ServerError if the API refuses.
        """
        metadata = manifest["metadata"]
        base, plural, namespaced = self._resource(manifest["apiVersion"], manifest["kind"])
        if namespaced:
            namespace = metadata.get("namespace", "default")
            self._ensure_namespace(namespace)
            base = f"{base}/namespaces/{namespace}"
        answer = self._client.patch(
            f"{base}/{plural}/{metadata['name']}",
            params={"fieldManager": "tests", "force": "true", "fieldValidation": "Strict"},
            content=json.dumps(manifest),
            headers={"Content-Type": "application/apply-patch+yaml"},
        )
        return _object(answer)

    def add_node(self, name: str = NODE) -> None:
        """Add a node whose kubelet is kwok, and wait until it is Ready."""
        self.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})

        def ready() -> bool:
            status = _object(self._client.get(f"/api/v1/nodes/{name}")).get("status", {})
            return any(
                condition["type"] == "Ready" and condition["status"] == "True"
                for condition in status.get("conditions", [])
            )

        wait_until(ready, f"node {name} ready", timeout_seconds=_POD_SECONDS)

    def set_kubelet_port(self, node: str, port: int) -> None:
        """Have the node say that its kubelet listens there, on loopback."""
        endpoints = {"kubeletEndpoint": {"Port": port}}
        _object(
            self._client.patch(
                f"/api/v1/nodes/{node}/status",
                content=json.dumps({"status": {"daemonEndpoints": endpoints}}),
                headers={"Content-Type": "application/merge-patch+json"},
            )
        )

    def add_pod(
        self,
        namespace: str,
        name: str,
        labels: Mapping[str, str],
        containers: Sequence[str],
        log_lines_by_container: Mapping[str, Sequence[str]],
        *,
        previous_log_lines: Mapping[str, Sequence[str]] | None = None,
        started_at: datetime | None = None,
        node: str = NODE,
    ) -> None:
        """Add a pod, wait until it runs and its logs answer.

        Lines are as the container runtime writes them (see `kwok.cri_line`); a container without
        any has an empty log. One with previous lines, by container too, has been restarted once;
        the others answer an empty previous log, where a kubelet would answer 400.
        `started_at` is when its containers say they started, by default now. Raises ValueError for
        a line of another form, ServerError if the pod does not come up.
        """
        previous = previous_log_lines or {}
        for container in containers:
            lines = log_lines_by_container.get(container, ())
            write_log(self._log_path(namespace, name, container), lines)
            # Always there: without the file kwok answers an error that no kubelet gives.
            lines = previous.get(container, ())
            write_log(self._log_path(namespace, name, container, previous=True), lines)
        self.apply(self._logs(namespace, name, containers))
        self.apply(_pod(namespace, name, labels, containers, node))
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        wait_until(
            lambda: self._pod_status(path).get("phase") == "Running",
            f"pod {namespace}/{name} running",
            timeout_seconds=_POD_SECONDS,
        )
        if started_at is not None or previous:
            self._set_started(path, started_at or datetime.now(UTC), previous)
        wait_until(
            lambda: all(self._log_answers(path, container) for container in containers),
            f"logs of pod {namespace}/{name} answered",
            timeout_seconds=_POD_SECONDS,
        )

    def set_pod_log(
        self,
        namespace: str,
        name: str,
        container: str,
        lines: Sequence[str],
        *,
        previous: bool = False,
    ) -> None:
        """Replace a container's log, or that of its run before; the next request reads it.

        Raises ValueError for a line that no container runtime writes.
        """
        write_log(self._log_path(namespace, name, container, previous=previous), lines)

    def _start(self) -> None:
        self._etcd.start(self._etcd_ready, timeout_seconds=_START_SECONDS)
        self.restart()
        self.apply(logs_definition())
        wait_until(
            lambda: self._client.get(f"/apis/{API_VERSION}/logs").is_success,
            "the definition of Logs taken up",
            timeout_seconds=_START_SECONDS,
        )
        self._kwok.start(self._kwok_ready, timeout_seconds=_START_SECONDS)
        self.add_node()

    def _etcd_ready(self) -> bool:
        return httpx.get(f"{self._etcd_url}/health", trust_env=False).is_success

    def _ready(self) -> bool:
        return self._client.get("/readyz").is_success

    def _kwok_ready(self) -> bool:
        return self._client.get(f"https://127.0.0.1:{self._kubelet_port}/healthz").is_success

    def _resource(self, api_version: str, kind: str) -> tuple[str, str, bool]:
        """Return the API's path, the kind's plural, and whether it lives in a namespace."""
        key = (api_version, kind)
        if key not in self._resources:
            base = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            for resource in _object(self._client.get(base))["resources"]:
                if resource["kind"] == kind and "/" not in resource["name"]:
                    self._resources[key] = (base, resource["name"], resource["namespaced"])
        if key not in self._resources:
            raise ServerError(f"the API has no {kind} in {api_version}")
        return self._resources[key]

    def _ensure_namespace(self, name: str) -> None:
        # Not applied: that would take the labels away from one that a test has labelled.
        answer = self._client.post("/api/v1/namespaces", json={"metadata": {"name": name}})
        if answer.status_code != httpx.codes.CONFLICT:
            _object(answer)

    def _pod_status(self, path: str) -> dict[str, Any]:
        status: dict[str, Any] = _object(self._client.get(path)).get("status", {})
        return status

    def _set_started(
        self, path: str, started_at: datetime, previous: Mapping[str, Sequence[str]]
    ) -> None:
        statuses = self._pod_status(path)["containerStatuses"]
        for status in statuses:
            status["state"] = {"running": {"startedAt": _seconds(started_at)}}
            if lines := previous.get(status["name"]):
                ended = {
                    "exitCode": 1,
                    "reason": "Error",
                    "startedAt": _seconds(line_time(lines[0])),
                    "finishedAt": _seconds(line_time(lines[-1])),
                }
                status |= {"restartCount": 1, "lastState": {"terminated": ended}}
        _object(
            self._client.patch(
                f"{path}/status",
                content=json.dumps({"status": {"containerStatuses": statuses}}),
                headers={"Content-Type": "application/merge-patch+json"},
            )
        )

    def _log_answers(self, path: str, container: str) -> bool:
        return self._client.get(f"{path}/log", params={"container": container}).is_success

    def _log_path(
        self, namespace: str, name: str, container: str, *, previous: bool = False
    ) -> Path:
        run = "previous" if previous else "current"
        return self._directory / f"{namespace}_{name}_{container}_{run}.log"

    def _logs(self, namespace: str, name: str, containers: Sequence[str]) -> dict[str, Any]:
        return logs_of(
            namespace,
            name,
            {
                container: (
                    self._log_path(namespace, name, container),
                    self._log_path(namespace, name, container, previous=True),
                )
                for container in containers
            },
        )


def _seconds(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _object(answer: httpx.Response) -> dict[str, Any]:
    """Return what the API answered. Raises ServerError, with its reason, if it refused."""
    if not answer.is_success:
        request = answer.request
        raise ServerError(f"{request.method} {request.url}: {answer.status_code} {answer.text}")
    decoded: dict[str, Any] = answer.json()
    return decoded


def _pod(
    namespace: str, name: str, labels: Mapping[str, str], containers: Sequence[str], node: str
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": dict(labels)},
        "spec": {
            # There is no scheduler, so the node is named here.
            "nodeName": node,
            "containers": [{"name": container, "image": "test"} for container in containers],
        },
    }


def _etcd(directory: Path, url: str) -> list[str | Path]:
    peer_url = f"http://127.0.0.1:{free_port()}"
    return [
        program("etcd"),
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--log-level=warn",
        "--unsafe-no-fsync",
    ]


def _apiserver(files: ClusterFiles, tokens: Path, port: int, etcd_url: str) -> list[str | Path]:
    return [
        program("kube-apiserver"),
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={files.certificate}",
        f"--tls-private-key-file={files.key}",
        "--service-account-issuer=https://kubernetes.default",
        f"--service-account-key-file={files.service_account_key}",
        f"--service-account-signing-key-file={files.service_account_key}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--endpoint-reconciler-type=none",  # it refuses to advertise a loopback address
        "--kubelet-preferred-address-types=InternalIP",
        # There is no controller that would give pods their service account.
        "--disable-admission-plugins=ServiceAccount",
    ]


def _kwok(
    directory: Path, files: ClusterFiles, kubeconfig: Path, kubelet_port: int
) -> list[str | Path]:
    config = directory / "kwok.yaml"
    config.write_text(kwok_config())
    return [
        program("kwok"),
        f"--kubeconfig={kubeconfig}",
        f"--config={config}",
        "--enable-crds=Logs",
        "--manage-all-nodes",
        "--node-ip=127.0.0.1",
        f"--node-port={kubelet_port}",
        f"--server-address=127.0.0.1:{kubelet_port}",
        f"--tls-cert-file={files.certificate}",
        f"--tls-private-key-file={files.key}",
    ]
