"""A cluster's pods as a kubelet and kube-state-metrics show them, with the truth beside it."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from oscar_metrics.facts import ServiceKey
from tests.servers.certificates import write_certificates
from tests.sources.cadvisor import CPU, Container, Labels, cadvisor

MEMORY = "container_memory_working_set_bytes"
GIB = 2**30

_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")

Row = tuple[Labels, float]


@dataclass(frozen=True)
class Pod:
    """A pod with its labels; `scraped` is whether cAdvisor ever shows it."""

    service: str
    labels: Mapping[str, str]
    containers: tuple[Container, ...]
    gpus: int = 0
    memory_gib: float = 0.5
    scraped: bool = True

    @property
    def key(self) -> ServiceKey:
        """Whose it is."""
        return ServiceKey(self.containers[0].namespace, self.service)

    @property
    def start(self) -> float:
        """When its first container began."""
        return min(container.start for container in self.containers)

    @property
    def stop(self) -> float:
        """When its last container ended."""
        return max(container.stop for container in self.containers)


@dataclass
class Pods:
    """All pods that are or were there; finished ones stay listed."""

    pods: tuple[Pod, ...] = ()

    def cpu_seconds(self) -> dict[ServiceKey, float]:
        """The truth, without the pods that no scrape can see."""
        used: dict[ServiceKey, float] = {}
        for pod in self.pods:
            for container in pod.containers if pod.scraped else ():
                seconds = container.cpu_seconds(container.start, container.stop)
                used[pod.key] = used.get(pod.key, 0.0) + seconds
        return used

    def gpu_seconds(self) -> dict[ServiceKey, float]:
        """GPUs held, times how long."""
        held: dict[ServiceKey, float] = {}
        for pod in self.pods:
            if pod.gpus:
                held[pod.key] = held.get(pod.key, 0.0) + pod.gpus * (pod.stop - pod.start)
        return held

    def memory_gib_seconds(self) -> dict[ServiceKey, float]:
        """Memory of every container, times how long it lived."""
        held: dict[ServiceKey, float] = {}
        for pod in self.pods:
            for container in pod.containers if pod.scraped else ():
                lived = pod.memory_gib * (container.stop - container.start)
                held[pod.key] = held.get(pod.key, 0.0) + lived
        return held

    def of_kubelet(self, at: float) -> Iterator[Row]:
        """What cAdvisor shows, with the sandbox's row and some of all that nobody wants."""
        for pod in self.pods:
            for labels, value in cadvisor(pod.containers if pod.scraped else (), at):
                yield labels, value
                if labels["__name__"] == CPU:
                    memory = {name: text for name, text in labels.items() if name != "cpu"}
                    yield {**memory, "__name__": MEMORY}, pod.memory_gib * GIB
                    yield {**memory, "__name__": "container_memory_rss"}, 1.0
                    if not labels["container"]:
                        yield {**labels, "container": "POD", "id": labels["id"] + "/x"}, value

    def of_state(self, at: float) -> Iterator[Row]:
        """What kube-state-metrics shows, with the labels' allowlist that our files ask for."""
        for pod in self.pods:
            if pod.start > at:
                continue
            first = pod.containers[0]
            named = {"namespace": first.namespace, "pod": first.pod, "uid": f"uid-{first.pod}"}
            shown = {f"label_{_escaped(name)}": value for name, value in pod.labels.items()}
            yield {"__name__": "kube_pod_labels", **named, **shown}, 1.0
            is_phase = "Running" if at < pod.stop else "Succeeded"
            for phase in _PHASES:
                value = float(phase == is_phase)
                yield {"__name__": "kube_pod_status_phase", **named, "phase": phase}, value
            if at >= pod.stop:
                yield {"__name__": "kube_pod_completion_time", **named}, float(int(pod.stop))
            asked = {
                **named,
                "__name__": "kube_pod_container_resource_requests",
                "container": first.name,
                "node": first.node,
            }
            yield {**asked, "resource": "cpu", "unit": "core"}, 0.5
            if pod.gpus:
                yield {**asked, "resource": "nvidia_com_gpu", "unit": "integer"}, float(pod.gpus)


@dataclass(frozen=True)
class Exporters:
    """Where the kubelet and kube-state-metrics answer, and the token the kubelet wants."""

    kubelet_port: int
    state: str
    token: str


@contextmanager
def exporting(pods: Pods, directory: Path) -> Iterator[Exporters]:
    """Serve what a kubelet shows (over TLS, to who has the token) and kube-state-metrics."""
    directory.mkdir()
    token = "kubelets-token"
    kubelet = _server("/metrics/cadvisor", pods.of_kubelet, token)
    files = write_certificates(directory)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.certificate, files.key)
    kubelet.socket = tls.wrap_socket(kubelet.socket, server_side=True)
    state = _server("/metrics", pods.of_state, "")
    servers = (kubelet, state)
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield Exporters(kubelet.server_port, f"127.0.0.1:{state.server_port}", token)
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _server(path: str, rows: Callable[[float], Iterable[Row]], token: str) -> ThreadingHTTPServer:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if token and self.headers["Authorization"] != f"Bearer {token}":
                self.send_error(401)
            elif self.path != path:
                self.send_error(404)
            else:
                now = time.time()
                # Only the kubelet says when it looked.
                body = _text(rows(now), f" {int(now * 1000)}" if token else "").encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    return Server(("127.0.0.1", 0), Page)


def _text(rows: Iterable[Row], at: str) -> str:
    lines = []
    for labels, value in rows:
        shown = ",".join(f'{name}="{text}"' for name, text in labels.items() if name != "__name__")
        lines.append(f"{labels['__name__']}{{{shown}}} {value}{at}\n")
    return "".join(lines)


def _escaped(label: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in label)
