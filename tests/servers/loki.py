"""A real Loki: one process, its data in a folder, with Loki's own default query limits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.servers.build import program
from tests.servers.process import Process, ServerError, free_port, wait_until

Stream = tuple[Mapping[str, str], Sequence[tuple[int, str]]]

_MILLISECOND_NS = 1_000_000
_DAY_NS = 24 * 3600 * 1000 * _MILLISECOND_NS

# Loki hands a push on to itself over gRPC, which takes 4 MiB by default.
_PUSH_LINES = 20_000
_PUSH_BYTES = 3 * 1024 * 1024
_ENTRY_OVERHEAD_BYTES = 32

# What a test writes must never be refused; what it asks for meets the defaults.
_WRITE_LIMITS: Mapping[str, object] = {
    "reject_old_samples": False,
    "ingestion_rate_mb": 1000,
    "ingestion_burst_size_mb": 1000,
    "per_stream_rate_limit": "1GB",
    "per_stream_rate_limit_burst": "1GB",
    "max_global_streams_per_user": 0,
}


class Loki:
    """A running Loki at `url`, without tenants (`X-Scope-OrgID` is not needed)."""

    def __init__(self, directory: Path, limits: Mapping[str, object]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        config = directory / "loki.json"
        config.write_text(json.dumps(_config(directory, port, limits), indent=2))
        self._process = Process(
            "loki", [program("loki"), f"-config.file={config}"], directory / "loki.log"
        )

    @classmethod
    @contextmanager
    def start(
        cls, directory: Path, *, limits: Mapping[str, object] | None = None
    ) -> Iterator[Loki]:
        """Start Loki with its data under `directory` and stop it at the end.

        `limits` are entries of Loki's `limits_config`, such as
        `{"max_entries_limit_per_query": 100}`. A `retention_period` is told to who asks for it;
        nothing is deleted, so leave out the lines that would be gone. Raises ServerError with the
        end of the log if it does not come up.
        """
        loki = cls(directory, limits or {})
        try:
            loki.restart()
            yield loki
        finally:
            loki.stop()
            loki._client.close()

    def stop(self) -> None:
        """Stop Loki; what was pushed stays in its folder. Does nothing if it is stopped."""
        self._process.stop()

    def restart(self) -> None:
        """Start Loki again on the same port, and stop it before that if it runs."""
        self.stop()
        self._process.start(self._ready, timeout_seconds=60)

    def give_way(self) -> None:
        """Let it have of the processors what others leave, as if it were on another machine."""
        self._process.give_way()

    def suspend(self) -> None:
        """Let it hang: connections are taken, and nothing is answered until `resume`."""
        self._process.suspend()

    def resume(self) -> None:
        """Let a suspended Loki go on; what was asked in between is answered."""
        self._process.resume()

    def push(self, streams: Iterable[Stream]) -> None:
        """Write streams: labels, and entries of (nanoseconds since the epoch, line).

        Entries go in time order per stream, in requests of at most 20,000 lines and 3 MiB. Loki
        drops an entry equal to another of its stream in both time and line. Lines older than 3 h
        are not seen by queries before `flush_and_wait`. Raises ServerError if Loki refuses any.
        """
        for request in _push_requests(streams):
            answer = self._client.post("/loki/api/v1/push", json={"streams": request})
            if answer.status_code != httpx.codes.NO_CONTENT:
                raise ServerError(f"loki refused a push: {answer.status_code} {answer.text}")

    def count(self, query: str, start_ns: int, stop_ns: int) -> int:
        """Return how many lines the log query selects in [start_ns, stop_ns), as Loki counts them.

        Both times are whole milliseconds. It asks day by day, so that Loki's limits on a query's
        length do not matter. Raises ServerError if Loki answers an error.
        """
        if start_ns % _MILLISECOND_NS or stop_ns % _MILLISECOND_NS:
            raise ValueError("LogQL durations are whole milliseconds, so the range must be too")
        total = 0
        for window_ns in range(start_ns, stop_ns, _DAY_NS):
            end_ns = min(window_ns + _DAY_NS, stop_ns)
            duration_ms = (end_ns - window_ns) // _MILLISECOND_NS
            answer = self._client.get(
                "/loki/api/v1/query",
                params={
                    "query": f"sum(count_over_time({query}[{duration_ms}ms]))",
                    # Loki's range is (t - duration, t]; a nanosecond earlier makes it [start, end).
                    "time": str(end_ns - 1),
                },
            )
            if answer.status_code != httpx.codes.OK:
                raise ServerError(f"loki did not count: {answer.status_code} {answer.text}")
            total += sum(int(sample["value"][1]) for sample in answer.json()["data"]["result"])
        return total

    def flush_and_wait(
        self,
        query: str,
        start_ns: int,
        stop_ns: int,
        expected: int,
        *,
        timeout_seconds: float = 60,
    ) -> None:
        """Have Loki write out what it holds, and wait until queries see `expected` lines.

        Queriers do not ask for old lines where the new ones are held, so until then old lines are
        missing from answers without a sign. Raises ServerError, with the last count, if they are
        not visible within `timeout_seconds`.
        """
        self._client.post("/flush").raise_for_status()
        counted = 0

        def all_visible() -> bool:
            nonlocal counted
            counted = self.count(query, start_ns, stop_ns)
            return counted == expected

        try:
            wait_until(all_visible, "loki shows the lines", timeout_seconds=timeout_seconds)
        except ServerError as error:
            raise ServerError(f"{error}; {counted} of {expected} lines of {query}") from None

    def _ready(self) -> bool:
        return self._client.get("/ready").status_code == httpx.codes.OK


def _config(directory: Path, port: int, limits: Mapping[str, object]) -> dict[str, Any]:
    data = directory / "loki"
    grpc_port = free_port()
    scheduler = f"127.0.0.1:{grpc_port}"
    return {
        "auth_enabled": False,
        "analytics": {"reporting_enabled": False},
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": port,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": grpc_port,
            "log_level": "warn",
        },
        "common": {
            "path_prefix": str(data),
            "instance_addr": "127.0.0.1",
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}, "instance_addr": "127.0.0.1"},
            "storage": {
                "filesystem": {
                    "chunks_directory": str(data / "chunks"),
                    "rules_directory": str(data / "rules"),
                }
            },
        },
        # A lone process has nobody to wait for: ready in a second instead of twenty-five.
        "ingester": {"lifecycler": {"min_ready_duration": "0s", "final_sleep": "0s"}},
        "frontend": {"scheduler_address": scheduler, "scheduler_dns_lookup_period": "200ms"},
        "frontend_worker": {"scheduler_address": scheduler, "dns_lookup_duration": "200ms"},
        "schema_config": {
            "configs": [
                {
                    "from": "2020-01-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "limits_config": {**_WRITE_LIMITS, **limits},
    }


def _push_requests(streams: Iterable[Stream]) -> Iterator[list[dict[str, Any]]]:
    """Cut the streams into the `streams` lists of push requests that Loki accepts."""
    request: list[dict[str, Any]] = []
    lines = size_bytes = 0
    for labels, entries in streams:
        values: list[tuple[str, str]] = []
        for time_ns, line in sorted(entries, key=lambda entry: entry[0]):
            entry_bytes = len(line.encode()) + _ENTRY_OVERHEAD_BYTES
            if request and (lines == _PUSH_LINES or size_bytes + entry_bytes > _PUSH_BYTES):
                yield request
                request, values = [], []
                lines = size_bytes = 0
            if not values:
                request.append({"stream": dict(labels), "values": values})
            values.append((str(time_ns), line))
            lines += 1
            size_bytes += entry_bytes
    if request:
        yield request
