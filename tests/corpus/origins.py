"""The corpus as each kind of source has it: log files, Loki's streams, pods' logs."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from oscar_metrics.timerange import SECOND_NS
from tests.corpus.corpus import Corpus
from tests.corpus.dice import Dice
from tests.corpus.entries import PODS, Cri, Entry, Workload
from tests.corpus.times import cri_time, rfc3339
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Stream

# Namespace and app of each workload's pods. All gateways stand in one place, so that one
# selector finds them.
_PLACES = {
    Workload.MANAGER: ("oscar", "oscar"),
    Workload.NGINX: ("ingress-nginx", "ingress-nginx"),
    Workload.TRAEFIK: ("ingress-nginx", "ingress-nginx"),
}
_CONTAINERS = {
    Workload.MANAGER: "oscar",
    Workload.NGINX: "controller",
    Workload.TRAEFIK: "traefik",
}


class PodLog(msgspec.Struct, frozen=True, kw_only=True):
    """The log of a pod's one container in CRI form: of this run, and of the one before."""

    namespace: str
    pod: str
    container: str
    labels: Mapping[str, str]
    started_ns: int
    lines: Sequence[str]
    previous: Sequence[str]


def write_log_files(corpus: Corpus, directory: Path, *, compress: bool = False) -> list[Path]:
    """Write a log file for each pod that wrote anything, and return their paths."""
    paths = []
    for workload, pods in PODS.items():
        for pod, name in zip(pods, (f"{workload}.log", f"{workload}-cri.log"), strict=True):
            if lines := file_lines(e for e in corpus.entries if e.pod == pod):
                path = directory / (f"{name}.gz" if compress else name)
                write_lines(path, lines)
                paths.append(path)
    return paths


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a log file, compressed if its name ends in .gz; always the same bytes."""
    data = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def file_lines(entries: Iterable[Entry]) -> list[str]:
    """The lines of a log file that holds these entries, each in the form it stands in there."""
    lines: list[str] = []
    for entry in entries:
        for _ in range(entry.copies):
            lines += [entry.line] if entry.cri is Cri.NONE else _cri_lines(entry)
    return lines


def loki_streams(corpus: Corpus, *, country_labels: bool) -> list[Stream]:
    """The entries as a pipeline pushes them: by pod, and by country where it knows any.

    The pipeline passes on what it reads, with the runtime's prefix where there is one, and
    joins what the runtime split.
    """
    streams: dict[tuple[tuple[str, str], ...], list[tuple[int, str]]] = {}
    for entry in corpus.entries:
        namespace, app = _PLACES[entry.workload]
        labels = {"namespace": namespace, "app": app, "pod": entry.pod}
        if country_labels:
            labels |= entry.country_labels
        line = entry.line
        if entry.cri is not Cri.NONE:
            line = f"{rfc3339(entry.time_ns)} stderr F {line}"
        streams.setdefault(tuple(sorted(labels.items())), []).extend(
            [(entry.time_ns, line)] * entry.copies
        )
    return [(dict(labels), entries) for labels, entries in streams.items()]


def pod_logs(corpus: Corpus) -> list[PodLog]:
    """The logs of the pods; the manager's were restarted in the middle.

    Pods have a first line when they start, as programs have.
    """
    middle_ns = (corpus.span.start_ns + corpus.span.stop_ns) // 2
    logs = []
    for workload, pods in PODS.items():
        namespace, app = _PLACES[workload]
        label = "app" if workload is Workload.MANAGER else "app.kubernetes.io/name"
        for pod in pods:
            mine = [entry for entry in corpus.entries if entry.pod == pod]
            began_ns = middle_ns if workload is Workload.MANAGER else corpus.span.start_ns
            started_ns = min((e.time_ns for e in mine if e.time_ns >= began_ns), default=began_ns)
            logs.append(
                PodLog(
                    namespace=namespace,
                    pod=pod,
                    container=_CONTAINERS[workload],
                    labels={label: app},
                    started_ns=started_ns,
                    lines=_runtime_lines(e for e in mine if e.time_ns >= started_ns),
                    previous=_runtime_lines(e for e in mine if e.time_ns < started_ns),
                )
            )
    return logs


def add_pods(cluster: KubeCluster, corpus: Corpus) -> None:
    """Have a cluster run the pods, with what they have logged."""
    for log in pod_logs(corpus):
        cluster.add_pod(
            log.namespace,
            log.pod,
            labels=log.labels,
            containers=[log.container],
            log_lines_by_container={log.container: log.lines},
            previous_log_lines={log.container: log.previous} if log.previous else None,
            started_at=datetime.fromtimestamp(log.started_ns // SECOND_NS, UTC),
        )


def _runtime_lines(entries: Iterable[Entry]) -> list[str]:
    return [line for entry in entries for _ in range(entry.copies) for line in _cri_lines(entry)]


def _cri_lines(entry: Entry) -> list[str]:
    """As the container runtime writes it; a node in another zone writes its own offset.

    Both parts of a split line have one time: where they differ, by microseconds, collectors
    go by the last and the kubelet by the first, and no reader can make up for that.
    """
    dice = Dice(entry.time_ns)
    offset_hours = dice.weighted({0: 9.0, 2: 1.0, -5: 1.0})
    stream = "stdout" if entry.workload is Workload.TRAEFIK else "stderr"
    at = cri_time(entry.time_ns, offset_hours=offset_hours)
    if entry.cri is not Cri.PARTS:
        return [f"{at} {stream} F {entry.line}"]
    cut = 1 + dice.below(len(entry.line) - 1)
    return [f"{at} {stream} P {entry.line[:cut]}", f"{at} {stream} F {entry.line[cut:]}"]
