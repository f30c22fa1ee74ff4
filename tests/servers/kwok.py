"""What kwok is told: how nodes and pods come up, and where a pod's log lines are.

kwok plays every node's kubelet. Its `Stage` objects say which status an object gets when; its
`Logs` objects name the files that a pod's log is answered from. See https://kwok.sigs.k8s.io/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

API_VERSION = "kwok.x-k8s.io/v1alpha1"

_CRI_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d) (stdout|stderr) [FP] [^\n]*"
)

_NODE_READY = """\
conditions:
{{ range NodeConditions }}
- type: {{ .type | Quote }}
  status: {{ .status | Quote }}
  reason: {{ .reason | Quote }}
  message: {{ .message | Quote }}
  lastHeartbeatTime: {{ Now | Quote }}
  lastTransitionTime: {{ Now | Quote }}
{{ end }}
addresses:
- type: InternalIP
  address: {{ NodeIP | Quote }}
- type: Hostname
  address: {{ .metadata.name | Quote }}
daemonEndpoints:
  kubeletEndpoint:
    Port: {{ NodePort }}
allocatable:
  cpu: 1k
  memory: 1Ti
  pods: 100k
capacity:
  cpu: 1k
  memory: 1Ti
  pods: 100k
"""

_POD_RUNNING = """\
{{ $now := Now | Quote }}
phase: Running
startTime: {{ $now }}
hostIP: {{ NodeIPWith .spec.nodeName | Quote }}
podIP: {{ with .metadata }}
  {{- PodIPWith $.spec.nodeName false .uid .name .namespace | Quote }}{{ end }}
conditions:
{{ range $type := list "Initialized" "ContainersReady" "Ready" }}
- type: {{ $type }}
  status: "True"
  lastTransitionTime: {{ $now }}
{{ end }}
containerStatuses:
{{ range .spec.containers }}
- name: {{ .name | Quote }}
  image: {{ .image | Quote }}
  imageID: ""
  ready: true
  restartCount: 0
  state:
    running:
      startedAt: {{ $now }}
{{ end }}
"""


def kwok_config() -> str:
    """Return the text of kwok's configuration file: its stages, one document each."""
    stages = (
        _stage(
            "node-ready",
            "Node",
            [
                {
                    "key": '.status.conditions.[] | select( .type == "Ready" ) | .status',
                    "operator": "NotIn",
                    "values": ["True"],
                }
            ],
            {"statusTemplate": _NODE_READY},
        ),
        _stage(
            "pod-running",
            "Pod",
            [
                {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                {"key": ".status.phase", "operator": "In", "values": ["Pending"]},
            ],
            {"statusTemplate": _POD_RUNNING},
        ),
        _stage(
            "pod-deleted",
            "Pod",
            [{"key": ".metadata.deletionTimestamp", "operator": "Exists"}],
            {"delete": True},
        ),
    )
    return "\n---\n".join(json.dumps(stage, indent=2) for stage in stages)


def logs_definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition of `Logs`, so that pods can get logs at any time."""
    version = {
        "name": API_VERSION.partition("/")[2],
        "served": True,
        "storage": True,
        "schema": {
            "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "logs.kwok.x-k8s.io"},
        "spec": {
            "group": API_VERSION.partition("/")[0],
            "scope": "Namespaced",
            "names": {
                "kind": "Logs",
                "listKind": "LogsList",
                "plural": "logs",
                "singular": "logs",
            },
            "versions": [version],
        },
    }


def logs_of(
    namespace: str, name: str, files_by_container: Mapping[str, tuple[Path, Path]]
) -> dict[str, Any]:
    """Return the `Logs` of a pod: per container the file of this run and of the one before."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Logs",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "logs": [
                {
                    "containers": [container],
                    "logsFile": str(current),
                    "previousLogsFile": str(previous),
                    "follow": False,
                }
                for container, (current, previous) in files_by_container.items()
            ]
        },
    }


def cri_line(time_ns: int, text: str, *, stream: str = "stderr", partial: bool = False) -> str:
    """Return a line as the container runtime writes it, at `time_ns` since the epoch.

    A `partial` line is continued by the next one of the same stream.
    """
    seconds, fraction_ns = divmod(time_ns, 10**9)
    at = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{at}.{fraction_ns:09d}Z {stream} {'P' if partial else 'F'} {text}"


def line_time(line: str) -> datetime:
    """Return when a line in CRI form was written, to the microsecond."""
    return datetime.fromisoformat(line.partition(" ")[0])


def write_log(path: Path, lines: Sequence[str]) -> None:
    """Replace a log file by `lines` at once. Raises ValueError if one is not in CRI form."""
    for line in lines:
        if not _CRI_LINE.fullmatch(line):
            raise ValueError(f"not a line that a container runtime writes: {line!r}")
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(f"{line}\n" for line in lines))
    unfinished.rename(path)


def _stage(
    name: str, kind: str, expressions: Sequence[Mapping[str, Any]], next_step: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": "Stage",
        "metadata": {"name": name},
        "spec": {
            "resourceRef": {"apiGroup": "v1", "kind": kind},
            "selector": {"matchExpressions": list(expressions)},
            "next": next_step,
        },
    }
