"""What a process takes of the system, and what it says of itself when it is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

# What is not to be under way, or waiting, in a server that is asked nothing.
_IDLE = (
    "oscar_metrics_upstream_calls_in_progress",
    "oscar_metrics_upstream_calls_waiting",
    "oscar_metrics_reports_in_progress",
    "oscar_metrics_reports_waiting",
)


class Footprint(msgspec.Struct, frozen=True, kw_only=True):
    """One moment of a server; `anonymous_bytes` is its memory without that of files."""

    anonymous_bytes: int
    descriptors: dict[str, int]
    threads: int
    tasks: int
    connections: int
    # The gauges of what is under way that are not zero.
    busy: dict[str, float]

    @classmethod
    def of(cls, pid: int, client: httpx.Client, ports: Mapping[int, str]) -> Footprint:
        """What is so now; the client's own connection and request count, too.

        Connections to `ports` count as descriptors of what is there, those of clients as `client`.
        """
        told = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(client.get("/metrics").text)
            for sample in family.samples
        }
        status = _status(pid)
        return cls(
            anonymous_bytes=int(status["RssAnon"].split()[0]) * 1024,
            descriptors=dict(_descriptors(pid, ports)),
            threads=int(status["Threads"]),
            tasks=int(told["oscar_metrics_tasks",]),
            connections=int(told["oscar_metrics_connections",]),
            busy={str(name): value for name, value in told.items() if name[0] in _IDLE and value},
        )

    def __str__(self) -> str:
        return (
            f"{self.anonymous_bytes / 2**20:.1f} MiB, {sum(self.descriptors.values())} descriptors"
            f" {self.descriptors}, {self.threads} threads, {self.tasks} tasks,"
            f" {self.connections} connections, busy: {self.busy or 'nothing'}"
        )


def anonymous_bytes(pid: int) -> int:
    """The memory of a process without that of files."""
    return int(_status(pid)["RssAnon"].split()[0]) * 1024


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text("utf-8").splitlines()
    return dict(line.split(":", 1) for line in lines)


def _descriptors(pid: int, ports: Mapping[int, str]) -> Counter[str]:
    """How many of each kind: a connection by its peer, a file by its name."""
    peers = _peers(pid)
    kinds: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        kind, colon, inode = target.partition(":")
        if inode in peers:
            port = peers[inode]
            kinds[ports.get(port, "client") if port else "listening"] += 1
        else:
            kinds[kind if colon else Path(target).name] += 1
    return kinds


def _peers(pid: int) -> dict[str, int]:
    """The peer's port of each TCP socket, by its inode as links name it; 0 of one that listens."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text("utf-8").splitlines()[1:]
    fields = (line.split() for line in lines)
    return {f"[{each[9]}]": int(each[2].rpartition(":")[2], 16) for each in fields}
