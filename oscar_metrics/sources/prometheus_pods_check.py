"""What the pods of the last day tell of the scraping that measures them.

kube-state-metrics lists every pod for as long as it is there, also one that ended between two
scrapes of its kubelet: held against the CPU series, it tells what these have missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from oscar_metrics.errors import REASON_TEXT, UpstreamError
from oscar_metrics.facts import ServiceKey
from oscar_metrics.findings import DOCS, Finding, Level
from oscar_metrics.outcome import Unavailable
from oscar_metrics.sources import promql
from oscar_metrics.sources.narrowing import TOO_MUCH
from oscar_metrics.sources.prometheus_answers import Sample
from oscar_metrics.sources.prometheus_api import ORIGIN, PrometheusApi
from oscar_metrics.sources.prometheus_labels import POD_LABEL_NAMES, PodKey, ServiceNames
from oscar_metrics.sources.prometheus_windows import Window

_MOST_NAMES = 5
# A job that ends at once is missed now and then by any scraping.
_FEW_PODS = 0.05
# A pod that is new, or ended a moment ago, has been sampled once.
_FEW_CONTAINERS = 0.2
_SCRAPE = "scrape every kubelet's /metrics/cadvisor at least every 30 s, as usage.alloy does"
_HAND_ON = (
    "run kube-state-metrics with"
    " --metric-labels-allowlist=pods=[oscar_service,app,serving.knative.dev/service]"
)


def unscraped(
    listed: Iterable[Sample], without_cpu: Iterable[Sample]
) -> tuple[list[ServiceKey], int, int]:
    """Services of which no pod has CPU series; of how many pods that is so, and how many are.

    Given are counts of pods, by namespace and the labels of pods; pods of no service are left
    out.
    """
    pods, missed = _by_service(listed), _by_service(without_cpu)
    never = sorted(key for key, count in pods.items() if 0 < count <= missed[key])
    return never, missed.total(), pods.total()


def _by_service(samples: Iterable[Sample]) -> Counter[ServiceKey]:
    names = ServiceNames(Unavailable(origin=ORIGIN, notes=()))
    counted: Counter[ServiceKey] = Counter()
    for sample in samples:
        namespace = sample.labels.get("namespace", "")
        key = names.of_pod(PodKey(namespace, ""), sample.labels)
        if key.service and promql.is_name(namespace):
            counted[key] += round(sample.value)
    return counted


def named(services: Iterable[ServiceKey]) -> str:
    """The first few services by name, and how many more there are."""
    names = [f"{key.namespace}/{key.service}" for key in services]
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


class PodsCheck:
    """Asks about the pods of some namespaces over a window; four questions."""

    def __init__(self, api: PrometheusApi, namespace: str, window: Window) -> None:
        self._api = api
        self._at_ms = window.stop_ms
        over = f"[{promql.duration(window.length_ms)}]"
        containers = promql.selector(promql.CPU, f'{namespace},{promql.CONTAINERS},pod!=""')
        self._cpu = f"last_over_time({containers}{over})"
        self._samples = f"count_over_time({containers}{over})"
        self._labelled = " or ".join(
            f"last_over_time({promql.selector(promql.POD_LABELS, f'{namespace},{label}')}{over})"
            for label in (f'{name}!=""' for name in POD_LABEL_NAMES)
        )

    async def findings(self) -> list[Finding]:
        """What was found; raises UpstreamError where Prometheus is gone."""
        try:
            return [*await self._unscraped(), *await self._unlabelled(), *await self._once()]
        except UpstreamError as exc:
            if exc.reason not in TOO_MUCH:
                raise
            says = f"pods could not be looked at: Prometheus {REASON_TEXT[exc.reason]}"
            return [_finding(Level.WARNING, says)]

    async def _unscraped(self) -> list[Finding]:
        labels = ("namespace", *POD_LABEL_NAMES)
        pods = f"group by (pod,{','.join(labels)}) ({self._labelled})"
        missed = f"({pods}) unless on (namespace,pod) {self._cpu}"
        listed, without_cpu = [
            await self._api.vector(
                f"count by ({','.join(labels)}) ({vector})", self._at_ms, set(), by=labels
            )
            for vector in (pods, missed)
        ]
        never, gone, total = unscraped(listed, without_cpu)
        found = []
        if never:
            says = f"{len(never)} services had pods in the last day and no CPU series of them"
            found.append(_finding(Level.WARNING, f"{says}: {named(never)}", _SCRAPE + DOCS))
        if total:
            level = Level.WARNING if gone > _FEW_PODS * total else Level.OK
            says = f"{gone} of {total} pods of services were never scraped in the last day"
            says += ": their CPU time is missing" if gone else ""
            change = _SCRAPE + DOCS if level is Level.WARNING else ""
            found.append(_finding(level, says, change))
        return found

    async def _unlabelled(self) -> list[Finding]:
        pods = f"group by (namespace,pod) ({self._cpu})"
        numbers = await self._api.numbers(
            promql.named(
                {
                    "pods": f"count({pods})",
                    "labelled": f"count({pods} and on (namespace,pod) ({self._labelled}))",
                }
            ),
            self._at_ms,
            set(),
        )
        scraped, labelled = (round(numbers.get(name, 0)) for name in ("pods", "labelled"))
        # Where none is, that is said of the series' own labels.
        if not labelled or labelled >= scraped:
            return []
        says = (
            f"{scraped - labelled} of {scraped} pods have no label of their service in"
            f" {promql.POD_LABELS}: those are found by their names, or are of no service"
        )
        return [_finding(Level.WARNING, says, _HAND_ON + DOCS)]

    async def _once(self) -> list[Finding]:
        numbers = await self._api.numbers(
            promql.named(
                {
                    "all": f"count(group by (namespace,pod,container,id) ({self._samples}))",
                    "once": f"count(max by (namespace,pod,container,id) ({self._samples}) == 1)",
                }
            ),
            self._at_ms,
            set(),
        )
        containers, once = (round(numbers.get(name, 0)) for name in ("all", "once"))
        if once <= _FEW_CONTAINERS * containers:
            return []
        says = (
            f"{once} of {containers} containers of the last day were scraped once only: scraping"
            " is too sparse for how long they live, and their CPU time is an estimate"
        )
        return [_finding(Level.WARNING, says, _SCRAPE + DOCS)]


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=ORIGIN, level=level, says=says, change=change)
