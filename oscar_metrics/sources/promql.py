"""PromQL: the questions asked of Prometheus, built from parts that are escaped here. Pure.

CPU of a container is F(e) − F(s) over a window (s, e], so windows add up exactly:

    F(t) = V(t) + tail(t)
    V(t)     the counter's last value at or before t, 0 before the container started
    tail(t)  0 while the container lives; once it has ended, half a scrape interval at the
             rate between its last two samples, or, after a single one, since it started:
             that is what runs unseen after the last scrape

V(s) is looked for `REACH_MS` back, so that a failed scrape or an outage shorter than that
is not taken for a container's end or beginning. A container that started before that and
was not seen in it counts from its first sample: what came before may be counted already.
Whether an outage is too long for that must not depend on where a range is cut, so windows
are quarter-hours; what a range cuts off one looks as far back as the whole of it would.

Every selector is reduced to one series per container with `max by` before anything else:
a cAdvisor that is scraped twice, or by two replicas, is then counted once, and both sides
of every operator carry the same labels (start times have no `cpu`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

CPU = "container_cpu_usage_seconds_total"
STARTED = "container_start_time_seconds"
GPU_USAGE = "container_gpu_usage_seconds_total"
POD_REQUESTS = "kube_pod_container_resource_requests"
POD_PHASE = "kube_pod_status_phase"
POD_LABELS = "kube_pod_labels"
POD_COMPLETED = "kube_pod_completion_time"
# Every metric that a report may rest on, as one selector.
METRICS = (CPU, STARTED, GPU_USAGE, POD_REQUESTS, POD_PHASE, POD_LABELS, POD_COMPLETED)

CPU_QUERY = (
    'sum(increase(container_cpu_usage_seconds_total{namespace=~"{{services_namespace}}.*",'
    'service=~"{{service}}"}[{{range}}])) / 3600'
)
GPU_QUERY = (
    'sum(increase(container_gpu_usage_seconds_total{namespace=~"{{services_namespace}}.*",'
    'service=~"{{service}}"}[{{range}}])) / 3600'
)

REACH_MS = 3_600_000
LOOK_BACK_MS = 300_000

# cAdvisor also exports the pod's own cgroup, with no container or with "POD": the same
# seconds a second time.
CONTAINERS = 'container!="",container!="POD"'
# A `service` label that names the kubelet was put there by whoever scrapes it.
SCRAPER_SERVICE = ".*kubelet"
# One series of a container, also where there is one for each CPU.
_ONE_CPU = 'cpu=~"|total|cpu0+"'
# The label that tells numbers apart which one question asks for.
NAMED = ("is",)
_IDENTITY = ("namespace", "pod", "container", "id", "name")
_DNS_1123 = re.compile(r"[a-z0-9]([a-z0-9-]{0,251}[a-z0-9])?", re.ASCII)
_REGEX_SPECIAL = re.compile(r"([\\.+*?()|\[\]{}^$])")
_PLACEHOLDER = re.compile(r"\{\{\s*(service|range|namespace|services_namespace)\s*\}\}")


def is_name(text: str) -> bool:
    """Whether it is a DNS-1123 name; nothing else is put into a query or a note as a name."""
    return _DNS_1123.fullmatch(text) is not None


def quote(value: str) -> str:
    """A PromQL string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def equals(label: str, value: str) -> str:
    """A matcher for one value."""
    return f"{label}={quote(value)}"


def one_of(label: str, values: Iterable[str]) -> str:
    """A matcher for any of the values, each taken literally."""
    return f"{label}=~{quote('|'.join(_regex_escape(value) for value in values))}"


def namespaces(prefix: str, others: Iterable[str]) -> str:
    """A matcher for the services' namespaces: all that begin with `prefix`, and the others."""
    more = sorted(name for name in others if is_name(name) and not name.startswith(prefix))
    pattern = "|".join([f"{_regex_escape(prefix)}.*", *map(_regex_escape, more)])
    return f"namespace=~{quote(pattern)}"


def fill(template: str, *, service: str, namespace: str, prefix: str, range_ms: int) -> str:
    """An operator's template with its placeholders replaced."""
    values = {
        "service": service,
        "namespace": namespace,
        "services_namespace": prefix,
        "range": duration(range_ms),
    }
    return _PLACEHOLDER.sub(lambda match: values[match[1]], template)


def placeholders(template: str) -> set[str]:
    """The placeholders a template uses."""
    return set(_PLACEHOLDER.findall(template))


def duration(milliseconds: int) -> str:
    """A PromQL duration: in seconds where it is whole ones, else milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{milliseconds}ms" if rest else f"{seconds}s"


def selector(metric: str, matchers: str) -> str:
    """A metric with matchers."""
    return f"{metric}{{{matchers}}}"


def named(parts: Mapping[str, str]) -> str:
    """One vector of several single numbers, each under the label `is` with its name."""
    return " or ".join(
        f'label_replace({expression}, "is", {quote(name)}, "", "")'
        for name, expression in parts.items()
    )


def forms(namespace: str, window_ms: int) -> str:
    """Which forms of CPU series there are in a window, and how many of each, as `named` parts.

    `apart`: containers with an `id` of their own; `by_pod`: containers by pod and name, so
    that restarts share a series; `no_pod`: containers without their pod; `no_container`:
    neither; `pods`: pods' own cgroups; `started`: start times of containers; `no_service`:
    containers whose `service` label is missing or the scraper's own.
    """
    selected = {
        "apart": (CPU, f'{CONTAINERS},pod!="",id!="",{_ONE_CPU}'),
        "by_pod": (CPU, f'{CONTAINERS},pod!="",id="",{_ONE_CPU}'),
        "no_pod": (CPU, f'{CONTAINERS},pod=""'),
        "no_container": (CPU, 'container=~"|POD",pod=""'),
        "pods": (CPU, 'container=~"|POD",pod!=""'),
        "started": (STARTED, f'{CONTAINERS},pod!=""'),
        "no_service": (CPU, f'{CONTAINERS},pod!="",service=~"|{SCRAPER_SERVICE}"'),
    }
    return named(
        {
            form: f"count(last_over_time({_over(metric, f'{namespace},{matchers}', window_ms)}))"
            for form, (metric, matchers) in selected.items()
        }
    )


def increase(
    metric: str, matchers: str, group: Iterable[str], window_ms: int, *, by_container: bool
) -> str:
    """Prometheus' own estimate of a counter's growth, by group.

    `by_container`: the labels tell containers apart, so that one scraped twice counts once.
    """
    grown = f"increase({_over(metric, matchers, window_ms)})"
    if by_container:
        identity = ",".join(dict.fromkeys((*_IDENTITY, *group, "cpu")))
        grown = f"max by ({identity}) ({grown})"
    return f"sum by ({','.join(group)}) ({grown})"


def gpus_allocated(
    namespace: str, window_ms: int, step_ms: int, *, offset_ms: int, phases: bool
) -> str:
    """GPU-seconds by pod: GPUs asked for by running pods, looked at every step.

    Of a window that ended `offset_ms` ago. `phases`: pods' phases are known; a finished pod
    that is still listed holds no GPU.
    """
    asked = selector(POD_REQUESTS, f'{namespace},resource="nvidia_com_gpu"')
    held = f"max by (namespace,pod,container) ({asked})"
    if phases:
        running = selector(POD_PHASE, f'{namespace},phase="Running"')
        held = f"{held} and on (namespace,pod) ({running} == 1)"
    over = f"({held})[{duration(window_ms)}:{duration(step_ms)}]{_offset(offset_ms)}"
    return f"sum by (namespace,pod) (sum_over_time({over})) * {step_ms / 1000:g}"


def pod_labels(namespace: str, names: Iterable[str], window_ms: int) -> str:
    """The labels of the pods that were there in a window, or shortly before."""
    seen = f"last_over_time({_over(POD_LABELS, namespace, window_ms + REACH_MS)})"
    return f"group by ({','.join(('namespace', 'pod', *names))}) ({seen})"


def never_scraped(namespace: str, window_ms: int) -> str:
    """How many pods ended in a window of which no container was ever scraped."""
    ended = f"last_over_time({_over(POD_COMPLETED, namespace, window_ms)})"
    inside = f"{ended} > time() - {window_ms / 1000:.3f} <= time()"
    # A pod's own group is there while its image is fetched, and says nothing of its containers.
    containers = _over(CPU, f"{namespace},{CONTAINERS}", window_ms + REACH_MS)
    seen = f"last_over_time({containers})"
    return f"count(group by (namespace,pod) ({inside}) unless on (namespace,pod) {seen})"


class CpuQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """The CPU-seconds, in (s, e], of the containers that `matchers` select, by `group`.

    Asked at e; the window is `window_ms` long and begins `lead_ms` after a quarter-hour does.
    `interval_ms` is the time between scrapes. `restarts` is whether a restarted container
    goes on in the same series (where no `id` label tells the two apart): such containers are
    left out of every sum, to be counted from their samples.
    """

    matchers: str
    group: tuple[str, ...]
    window_ms: int
    lead_ms: int
    interval_ms: int
    restarts: bool

    @property
    def growth(self) -> str:
        """V(e) − V(s), summed by group."""
        last = self._value(self.window_ms)
        before = self._value(self.reach_ms, self.window_ms)
        first = f"min by ({self._identity},cpu) (min_over_time({self._cpu(self.window_ms)}))"
        late = f"{self._start(self.window_ms)} >= {self._reach_start}"
        new = f"((0 * {last}) and on ({self._identity}) ({late}))"
        return self._sum(f"{last} - ({before} or {new} or {first})")

    @property
    def not_seen_before(self) -> str:
        """How many containers had started long before s and were not seen then."""
        early = f"{self._start(self.window_ms)} < {self._reach_start}"
        before = self._cpu(self.reach_ms, self.window_ms)
        return f"count(({early}) unless on ({self._identity}) last_over_time({before}))"

    @property
    def tails(self) -> str:
        """tail(e) of the containers that ended in the window, summed by group."""
        return self._sum(self._tail(self._ended_reach_ms))

    @property
    def resumed_tails(self) -> str:
        """tail(s) of those that had only not been scraped, and went on: to be taken off."""
        return self._sum(f"({self._tail(self.reach_ms, self.window_ms)}) and {self._seen}")

    @property
    def singles(self) -> str:
        """V(e) of the containers that ended in the window after a single sample, one by one."""
        return self._all(self._single(self._ended_reach_ms))

    @property
    def resumed_singles(self) -> str:
        """V(s) of those that had been sampled once, and went on after a while."""
        return self._all(f"({self._single(self.reach_ms, self.window_ms)}) and {self._seen}")

    @property
    def ages_of_singles(self) -> str:
        """Their age at that sample, one by one; costs more than the rest together."""
        return self._age(self._ended_reach_ms)

    @property
    def ages_of_resumed_singles(self) -> str:
        """The same of `resumed_singles`."""
        return self._age(self.reach_ms, self.window_ms)

    @property
    def restarted(self) -> str:
        """The containers that `restarts` leaves out, with their identity as labels."""
        starts = _over(STARTED, self.matchers, self.window_ms + self.reach_ms)
        return f"max by ({self._identity}) (changes({starts})) > 0"

    @property
    def reach_ms(self) -> int:
        """How far back from s it looks: as far as from the beginning of the quarter-hour."""
        return REACH_MS + self.lead_ms

    @property
    def ended_after_ms(self) -> int:
        """How long without a sample means that a container has ended."""
        return max(LOOK_BACK_MS, self.interval_ms * 5 // 2)

    @property
    def _ended_reach_ms(self) -> int:
        return self.window_ms + self.ended_after_ms

    def _tail(self, reach_ms: int, offset_ms: int = 0) -> str:
        """Half an interval at the rate between the last two samples; none if those are equal.

        They are of a dead container that is still shown: its value is complete.
        """
        rate = f"irate({self._cpu(self._rate_reach_ms(offset_ms), offset_ms)})"
        by_cpu = f"max by ({self._identity},cpu) ({rate} * {self.interval_ms / 2000:g})"
        reached = f"on ({self._identity}) last_over_time({self._cpu(reach_ms, offset_ms)})"
        tail = f"(sum by ({self._identity}) ({by_cpu}) and {reached})"
        return f"{tail} unless {self._recent(offset_ms)}"

    def _single(self, reach_ms: int, offset_ms: int = 0) -> str:
        value = f"sum by ({self._identity}) ({self._value(reach_ms, offset_ms)})"
        return f"({value} and ({self._once(offset_ms)})) unless {self._recent(offset_ms)}"

    def _age(self, reach_ms: int, offset_ms: int = 0) -> str:
        step = f"{duration(reach_ms)}:{duration(self.interval_ms)}"
        over = f"timestamp({selector(CPU, self.matchers)})[{step}]{_offset(offset_ms)}"
        sampled = f"max by ({self._identity}) (max_over_time({over}))"
        age = f"({sampled} - floor({self._start(reach_ms, offset_ms)}))"
        return f"({age} and ({self._once(offset_ms)})) unless {self._recent(offset_ms)}"

    def _once(self, offset_ms: int) -> str:
        """The containers with one sample only."""
        samples = self._cpu(self._rate_reach_ms(offset_ms), offset_ms)
        return f"max by ({self._identity}) (count_over_time({samples})) == 1"

    def _rate_reach_ms(self, offset_ms: int) -> int:
        """How far back the sample before the last is looked for, from e or, with an offset, s.

        As far for tail(e) as for tail(s), so that what is taken off is what was added.
        """
        return self.window_ms - offset_ms + self.reach_ms + self.ended_after_ms

    def _recent(self, offset_ms: int) -> str:
        recent = self._cpu(self.ended_after_ms, offset_ms)
        return f"on ({self._identity}) last_over_time({recent})"

    @property
    def _seen(self) -> str:
        return f"on ({self._identity}) last_over_time({self._cpu(self.window_ms)})"

    def _start(self, reach_ms: int, offset_ms: int = 0) -> str:
        starts = _over(STARTED, self.matchers, reach_ms, offset_ms)
        return f"max by ({self._identity}) (last_over_time({starts}))"

    def _value(self, reach_ms: int, offset_ms: int = 0) -> str:
        return f"max by ({self._identity},cpu) (last_over_time({self._cpu(reach_ms, offset_ms)}))"

    def _cpu(self, reach_ms: int, offset_ms: int = 0) -> str:
        return _over(CPU, self.matchers, reach_ms, offset_ms)

    @property
    def _reach_start(self) -> str:
        # cAdvisor gives start times in whole seconds, rounded down.
        return f"(time() - {(self.window_ms + self.reach_ms) / 1000 + 1:.3f})"

    @property
    def identity(self) -> tuple[str, ...]:
        """The labels of answers about containers one by one."""
        return tuple(dict.fromkeys((*_IDENTITY, *self.group)))

    @property
    def _identity(self) -> str:
        return ",".join(self.identity)

    def _sum(self, vector: str) -> str:
        return f"sum by ({','.join(self.group)}) ({self._all(vector)})"

    def _all(self, vector: str) -> str:
        if self.restarts:
            return f"({vector}) unless on ({self._identity}) ({self.restarted})"
        return vector


def _over(metric: str, matchers: str, reach_ms: int, offset_ms: int = 0) -> str:
    return f"{selector(metric, matchers)}[{duration(reach_ms)}]{_offset(offset_ms)}"


def _offset(milliseconds: int) -> str:
    return f" offset {duration(milliseconds)}" if milliseconds else ""


def _regex_escape(text: str) -> str:
    return _REGEX_SPECIAL.sub(r"\\\1", text)
