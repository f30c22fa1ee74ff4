"""Which service a series belongs to, by its labels. Pure.

The `service` label of OSCAR's monitoring is made from a pod's name by a regex, which
leaves `cowsay-<parts of a uuid>` of a job's pod and `demo-dpl` of an exposed service's. A
pod's own labels say it best, where kube-state-metrics hands them on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from oscar_metrics.facts import Inventory, ServiceKey
from oscar_metrics.outcome import Outcome, Unavailable
from oscar_metrics.sources.promql import is_name

# How kube-state-metrics writes the labels `oscar_service`, `app`, `serving.knative.dev/service`.
POD_LABEL_NAMES = ("label_oscar_service", "label_app", "label_serving_knative_dev_service")

_APP_PREFIXES = ("oscar-svc-exp-", "oscar-svc-ksv-")
_UUID_PARTS = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){0,3}(?:-[0-9a-f]{12})?"
_SUFFIX = re.compile(rf"dpl|{_UUID_PARTS}", re.ASCII)
_WITH_SUFFIX = re.compile(rf"(.+?)-(?:dpl|{_UUID_PARTS})", re.ASCII)
_HASHES = r"-[a-z0-9]{6,10}-[a-z0-9]{5}"
_POD_NAMES = (
    re.compile(rf"(.+-{_UUID_PARTS})-[a-z0-9]{{5}}", re.ASCII),
    re.compile(rf"(.+-dpl){_HASHES}", re.ASCII),
    re.compile(rf"(.+)-[0-9]{{5}}-deployment{_HASHES}", re.ASCII),
)
# In names of job pods a service name of 25 characters and more is cut to 16.
_LONG_NAME, _CUT_NAME = 25, 16


class PodKey(NamedTuple):
    """A pod of a namespace."""

    namespace: str
    pod: str


class ServiceNames:
    """Finds the service of a label or a pod among those that are deployed.

    Without an inventory, names are taken for what their form says. `unknown` collects what
    no service was found for, as (namespace, label).
    """

    def __init__(self, inventory: Outcome[Inventory]) -> None:
        self.by_form = isinstance(inventory, Unavailable)
        self.unknown: set[tuple[str, str]] = set()
        self._known: dict[str, set[str]] = {}
        if not isinstance(inventory, Unavailable):
            for service in inventory.facts.services:
                self._known.setdefault(service.namespace, set()).add(service.name)

    def of_label(self, namespace: str, label: str) -> ServiceKey:
        """The service a `service` label means; a blank one where there is none."""
        service = self._by_form(label) if self.by_form else self._deployed(namespace, label)
        if not service:
            self.unknown.add((namespace, label))
        return ServiceKey(namespace, service)

    def of_pod(self, pod: PodKey, labels: Mapping[str, str]) -> ServiceKey:
        """The service of a pod: by its own labels, else by its name."""
        if service := _by_labels(labels):
            return ServiceKey(pod.namespace, service)
        for pattern in _POD_NAMES:
            if match := pattern.fullmatch(pod.pod):
                service = (
                    self._by_form(match[1])
                    if self.by_form
                    else self._deployed(pod.namespace, match[1])
                )
                if service:
                    return ServiceKey(pod.namespace, service)
        self.unknown.add(pod)
        return ServiceKey(pod.namespace, "")

    def _deployed(self, namespace: str, label: str) -> str:
        """The longest deployed name that the label is, or is followed by a suffix."""
        names = self._known.get(namespace, set())
        if label in names:
            return label
        end = label.rfind("-")
        while end > 0:
            if _SUFFIX.fullmatch(label, end + 1):
                name = label[:end]
                if name in names:
                    return name
                if len(name) == _CUT_NAME:
                    cut = [n for n in names if len(n) >= _LONG_NAME and n.startswith(name)]
                    if len(cut) == 1:
                        return cut[0]
            end = label.rfind("-", 0, end)
        return ""

    @staticmethod
    def _by_form(label: str) -> str:
        match = _WITH_SUFFIX.fullmatch(label)
        name = match[1] if match else label
        return name if is_name(name) else ""


def _by_labels(labels: Mapping[str, str]) -> str:
    oscar, app, knative = (labels.get(name, "") for name in POD_LABEL_NAMES)
    if is_name(oscar):
        return oscar
    for prefix in _APP_PREFIXES:
        if app.startswith(prefix) and is_name(app.removeprefix(prefix)):
            return app.removeprefix(prefix)
    return knative if is_name(knative) else ""
