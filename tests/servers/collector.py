"""A real log collector: Grafana Agent Flow, which Grafana Alloy was before it was renamed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.servers.build import program
from tests.servers.process import Process, free_port


class Collector:
    """A running collector at `url`, with what it remembers in a folder of its own."""

    def __init__(
        self, directory: Path, configuration: Path, environment: Mapping[str, str]
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)
        self._storage = directory / "collector"
        self.log_path = directory / "collector.log"
        self._process = Process(
            "grafana-agent-flow",
            [
                program("grafana-agent-flow"),
                "run",
                f"--server.http.listen-addr=127.0.0.1:{port}",
                f"--storage.path={self._storage}",
                "--disable-reporting",
                configuration,
            ],
            self.log_path,
            environment=environment,
        )

    @classmethod
    @contextmanager
    def start(
        cls, directory: Path, configuration: Path, *, environment: Mapping[str, str] | None = None
    ) -> Iterator[Collector]:
        """Start a collector with its data under `directory` and stop it at the end.

        `environment` is what `env()` in the configuration finds. Raises ServerError with the end
        of the log if it does not come up, as with a configuration that it refuses.
        """
        collector = cls(directory, configuration, environment or {})
        try:
            collector.restart()
            yield collector
        finally:
            collector.stop()
            collector._client.close()

    def stop(self) -> None:
        """Stop it, and let it send what it holds. Does nothing if it is stopped."""
        self._process.stop(grace_seconds=30)

    def kill(self) -> None:
        """End it outright, as a power cut or a lack of memory would."""
        self._process.kill()

    def restart(self, *, forgetful: bool = False) -> None:
        """Start it again on the same port, and stop it before that if it runs.

        A `forgetful` one begins with an empty folder, as a container whose folder is its own.
        """
        self.stop()
        if forgetful:
            shutil.rmtree(self._storage)
        self._process.start(self._ready, timeout_seconds=60)

    def bytes_on_disk(self) -> int:
        """How much its folder holds: what waits to be sent, and what was sent of late."""
        return sum(path.stat().st_size for path in self._storage.rglob("*") if path.is_file())

    def metric(self, name: str, **labels: str) -> float:
        """The sum of its own metric over the series with these labels; 0 where there is none."""
        answer = self._client.get("/metrics").raise_for_status()
        return sum(
            sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _ready(self) -> bool:
        return self._client.get("/-/ready").status_code == httpx.codes.OK


def formatted(configuration: Path) -> str:
    """The text of a configuration file as the collector's own formatter writes it.

    Raises CalledProcessError for what is not of its language.
    """
    told = subprocess.run(
        [program("grafana-agent-flow"), "fmt", configuration],
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout
