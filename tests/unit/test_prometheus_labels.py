from __future__ import annotations

import pytest

from oscar_metrics.facts import Inventory, Service, ServiceKey
from oscar_metrics.outcome import Ok, Outcome, Unavailable
from oscar_metrics.sources.prometheus_labels import PodKey, ServiceNames

UUID = "0190c2a8-1111-4222-8333-444455556666"
LONG = "a-service-with-a-long-name"


def inventory(*names: str) -> Outcome[Inventory]:
    services = tuple(Service(namespace="ns", name=name) for name in names)
    return Ok(facts=Inventory(services=services), origin="kubernetes")


DEPLOYED = inventory("cowsay", "cowsay-0190c2a8", "demo", "demo-dpl", LONG)
DOWN = Unavailable(origin="kubernetes", notes=("down",))


@pytest.mark.parametrize(
    ("label", "service"),
    [
        ("cowsay", "cowsay"),
        (f"cowsay-{UUID}", "cowsay"),
        ("cowsay-0190c2a8-1111-4222-8333", "cowsay"),
        ("cowsay-0190c2a8", "cowsay-0190c2a8"),  # the longest name that is known
        (f"cowsay-0190c2a8-{UUID}", "cowsay-0190c2a8"),
        ("demo-dpl", "demo-dpl"),
        ("demo-dpl-dpl", "demo-dpl"),
        ("cowsay-dpl", "cowsay"),
        (f"{LONG[:16]}-{UUID}", LONG),  # OSCAR cuts long names of job pods
        ("cowsay-extra", ""),
        ("cowsay-123", ""),
        ("cows", ""),
        ("", ""),
        ("other", ""),
    ],
)
def test_labels_of_deployed_services(label: str, service: str) -> None:
    names = ServiceNames(DEPLOYED)
    assert names.of_label("ns", label) == ServiceKey("ns", service)
    assert names.unknown == (set() if service else {("ns", label)})


def test_a_service_is_known_in_its_own_namespace_only() -> None:
    assert ServiceNames(DEPLOYED).of_label("elsewhere", "cowsay") == ServiceKey("elsewhere", "")


def test_a_cut_name_that_fits_two_services_is_neither() -> None:
    names = ServiceNames(inventory(LONG, LONG + "-2"))
    assert names.of_label("ns", f"{LONG[:16]}-{UUID}").service == ""


@pytest.mark.parametrize(
    ("label", "service"),
    [
        ("cowsay", "cowsay"),
        (f"cowsay-{UUID}", "cowsay"),
        ("cowsay-0190c2a8-1111", "cowsay"),
        ("demo-dpl", "demo"),
        ("", ""),
        ("No Name", ""),
    ],
)
def test_labels_by_their_form_alone(label: str, service: str) -> None:
    assert ServiceNames(DOWN).of_label("ns", label) == ServiceKey("ns", service)


@pytest.mark.parametrize(
    ("pod", "labels", "service"),
    [
        (f"cowsay-{UUID}-abcde", {}, "cowsay"),
        ("demo-dpl-5d9c7b6f4-x2x2x", {}, "demo-dpl"),
        ("cowsay-00001-deployment-5d9c7b6f4-x2x2x", {}, "cowsay"),
        ("whatever", {}, ""),
        ("whatever", {"label_oscar_service": "gone"}, "gone"),
        ("whatever", {"label_app": "oscar-svc-exp-demo"}, "demo"),
        ("whatever", {"label_app": "oscar-svc-ksv-model"}, "model"),
        ("whatever", {"label_app": "oscar-svc-exp-"}, ""),
        ("whatever", {"label_app": "nginx"}, ""),
        ("whatever", {"label_serving_knative_dev_service": "fn"}, "fn"),
        ("whatever", {"label_oscar_service": "one", "label_app": "oscar-svc-exp-two"}, "one"),
        (f"cowsay-{UUID}-abcde", {"label_oscar_service": "demo"}, "demo"),
        ("whatever", {"label_oscar_service": 'no "name"'}, ""),
    ],
)
def test_pods(pod: str, labels: dict[str, str], service: str) -> None:
    names = ServiceNames(DEPLOYED)
    assert names.of_pod(PodKey("ns", pod), labels) == ServiceKey("ns", service)
    assert bool(names.unknown) == (not service)
