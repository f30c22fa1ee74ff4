"""Prometheus' HTTP API, and that of its relatives (Thanos, Mimir, VictoriaMetrics)."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.learned import Learned
from oscar_metrics.sources import promql
from oscar_metrics.sources.narrowing import Narrowing
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits
from oscar_metrics.sources.upstream_credentials import CredentialSettings
from oscar_metrics.sources.upstream_tls import TlsSettings
from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

ORIGIN = "prometheus"
UPSTREAM = "Prometheus"

# The most points of one series that Prometheus hands out is 11,000.
RANGE_POINTS = 10_000


_USER = re.compile(r"//[^/]*@")


class PrometheusSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where usage is asked, how, and within which bounds."""

    # Any Prometheus-compatible API; with the path in front of /api/v1 where there is one.
    url: str = "http://prometheus-server.monitoring.svc.cluster.local"
    # Templates giving hours of one service. OSCAR's defaults stand for our own estimate, which
    # asks once for all services; another template is asked as it is, once per service.
    cpu_query: str = promql.CPU_QUERY
    gpu_query: str = promql.GPU_QUERY
    # Namespaces of services begin with this; where the inventory names others, they count too.
    services_namespace: str = "oscar-svc"
    credentials: CredentialSettings = CredentialSettings()
    tls: TlsSettings = TlsSettings()
    # Sent as X-Scope-OrgID (Mimir, Cortex) and THANOS-TENANT; empty: none.
    tenant: str = ""
    # The widest stretch one query covers, rounded down to whole hours; one that exceeds a limit
    # of the server is halved.
    window_seconds: Annotated[int, Meta(ge=3600, le=7 * 86_400)] = 86_400
    # The narrowest; what cannot be answered for so short a stretch is a gap. What is measured by
    # hours is asked for no less than one.
    shortest_window_seconds: Annotated[int, Meta(ge=60, le=3600)] = 900
    # Older than this is not asked for, and is a gap.
    look_back_days: Annotated[int, Meta(ge=1, le=3660)] = 400
    # The most groups (pods, or services) one answer may have; with more the window is halved.
    series: Annotated[int, Meta(ge=100, le=1_000_000)] = 100_000
    # Each question waits timeout_seconds at most; concurrency counts against Prometheus'
    # own limit of 20 queries at once.
    limits: UpstreamLimits = UpstreamLimits(concurrency=4, timeout_seconds=60.0)

    def __repr__(self) -> str:
        return f"PrometheusSettings(url={_USER.sub('//…@', self.url)!r}, …)"


class Sample(msgspec.Struct, frozen=True):
    """One labelled number."""

    labels: dict[str, str]
    value: float


class Samples(msgspec.Struct, frozen=True):
    """One labelled series: (epoch milliseconds, number), in time order."""

    labels: dict[str, str]
    points: tuple[tuple[int, float], ...]


class _Series(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []


class _Scalar(msgspec.Struct, array_like=True):
    time: float
    value: str


class _Data(msgspec.Struct, rename="camel"):
    result: list[Any]
    result_type: str = ""


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data
    warnings: list[str] = []
    is_partial: bool = False


class _Values(msgspec.Struct):
    status: str
    data: list[str]


class _Facts(msgspec.Struct):
    status: str
    data: dict[str, Any]


_NO_NUMBERS = "some of Prometheus' values are no numbers and were left out"

_ANSWER = msgspec.json.Decoder(_Answer)
_VALUES = msgspec.json.Decoder(_Values)
_FACTS = msgspec.json.Decoder(_Facts)


class PrometheusApi:
    """Questions to one server. Every method raises UpstreamError for what is no use."""

    def __init__(self, settings: PrometheusSettings, telemetry: Telemetry) -> None:
        headers: dict[str, str] = {}
        if settings.tenant:
            headers |= {"X-Scope-OrgID": settings.tenant, "THANOS-TENANT": settings.tenant}
        self._series = settings.series
        self._learned = Learned()
        limits = settings.limits
        self._unanswered_seconds = limits.protection.unanswered_of(limits.timeout_seconds)
        # A little less than we wait, so that the server is the one to say so.
        self._timeout = f"{int(settings.limits.timeout_seconds * 950)}ms"
        self._upstream = Upstream(
            UPSTREAM,
            settings.url,
            limits=settings.limits,
            telemetry=telemetry,
            prefix="OSCAR_METRICS_PROMETHEUS",
            tls=settings.tls,
            credentials=settings.credentials,
            headers=headers,
            reason_of=reason_of,
        )

    @property
    def clock_difference_seconds(self) -> float | None:
        """Its clock less ours, good to a second; None before the first answer."""
        return self._upstream.clock_difference_seconds

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    def narrowing(self, *kind: object, least: int) -> Narrowing:
        """A kind of question; what all of that kind have learned is one."""
        return Narrowing(
            self._learned, kind, least=least, unanswered_seconds=self._unanswered_seconds
        )

    async def vector(self, query: str, at_ms: int, doubts: set[str]) -> list[Sample]:
        """An instant query's numbers; a scalar is one without labels."""
        answer = await self._ask("api/v1/query", {"query": query, "time": _seconds(at_ms)}, doubts)
        if answer.data.result_type == "scalar":
            scalar = _convert(answer.data.result, _Scalar)
            number = _number(scalar.value)
            if not math.isfinite(number):
                doubts.add(_NO_NUMBERS)
                return []
            return [Sample({}, number)]
        samples = []
        for series in self._list(answer):
            if series.value is None:
                raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, "no instant vector")
            number = _number(series.value[1])
            if math.isfinite(number):
                samples.append(Sample(series.metric, number))
            else:
                doubts.add(_NO_NUMBERS)
        return samples

    async def numbers(self, query: str, at_ms: int, doubts: set[str]) -> dict[str, float]:
        """The numbers of `promql.named`, by name; one that has no data is not there."""
        return {s.labels["is"]: s.value for s in await self.vector(query, at_ms, doubts)}

    async def samples(self, query: str, at_ms: int, doubts: set[str]) -> list[Samples]:
        """The raw samples that an instant query for a range selects."""
        answer = await self._ask("api/v1/query", {"query": query, "time": _seconds(at_ms)}, doubts)
        return [_samples(series) for series in self._list(answer)]

    async def steps(
        self, query: str, start_ms: int, stop_ms: int, step_ms: int, doubts: set[str]
    ) -> list[Samples]:
        """A range query's numbers at start, start + step, ... up to stop, both included."""
        asked = {"start": _seconds(start_ms), "end": _seconds(stop_ms), "step": _seconds(step_ms)}
        answer = await self._ask("api/v1/query_range", {"query": query, **asked}, doubts)
        listed = self._list(answer)
        found = [_samples(series) for series in listed]
        if sum(len(one.points) for one in found) < sum(len(series.values) for series in listed):
            doubts.add(_NO_NUMBERS)
        return found

    async def label_values(
        self, label: str, matching: str, *, from_ms: int, now_ms: int
    ) -> frozenset[str]:
        """The values a label has had on matching series since about `from_ms`.

        Up to now always: asked for an older stretch, Prometheus leaves out what was written
        late and is in no block yet.
        """
        answer = await self._upstream.get_json(
            f"api/v1/label/{label}/values",
            {"match[]": matching, "start": _seconds(from_ms), "end": _seconds(now_ms)},
            _VALUES,
        )
        if answer.status != "success":
            raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, "status is not success")
        return frozenset(answer.data)

    async def status(self, name: str) -> dict[str, Any]:
        """One of the server's status pages: `runtimeinfo`, `buildinfo`, `config`."""
        return (await self._upstream.get_json(f"api/v1/status/{name}", {}, _FACTS)).data

    async def _ask(self, path: str, asked: dict[str, str], doubts: set[str]) -> _Answer:
        # Thanos may answer from what it can reach; we would rather be told.
        params = {**asked, "timeout": self._timeout, "partial_response": "false"}
        answer = await self._upstream.get_json(path, params, _ANSWER)
        if answer.status != "success":
            raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, "status is not success")
        # Remarks about an expression begin with "PromQL"; the rest is about the data.
        if answer.is_partial or any(not text.startswith("PromQL") for text in answer.warnings):
            doubts.add("Prometheus says that its answers may be incomplete")
        return answer

    def _list(self, answer: _Answer) -> list[_Series]:
        if len(answer.data.result) > self._series:
            raise UpstreamError(UPSTREAM, Reason.TOO_LARGE, f"more than {self._series} series")
        return _convert(answer.data.result, list[_Series])


# What an execution error says when the question, and not its size, is the trouble. Texts about
# limits of Mimir ("add more label matchers") and VictoriaMetrics ("matching timeseries") are near.
_MISMATCH = re.compile(
    r"many matching|matching not allowed|match group|matching labels|multiple matches|labelset",
    re.IGNORECASE,
)


def reason_of(status: int, text: str) -> Reason | None:
    """What an error body means where the status alone does not say it.

    https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview: 422 when an
    expression cannot be executed (mostly: too many samples), 503 when it timed out.
    """
    if status == 422:
        return Reason.REFUSED if _MISMATCH.search(text) else Reason.LIMIT
    if status == 503 and ("timeout" in text or "timed out" in text):
        return Reason.TOO_SLOW
    if status == 400 and any(words in text for words in _LIMIT_WORDS):
        return Reason.LIMIT
    return None


# Of Prometheus and of VictoriaMetrics, which say so with status 400.
_LIMIT_WORDS = (
    "exceeded maximum resolution",
    "too many points",
    "matching timeseries exceeds",
    "cannot select more than",
)


def _convert(result: list[Any], shape: type[T]) -> T:
    try:
        return msgspec.convert(result, shape, strict=False)
    except msgspec.ValidationError as exc:
        raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, str(exc)) from exc


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, "a value that is no number") from None


def _samples(series: _Series) -> Samples:
    points = ((round(at * 1000), _number(number)) for at, number in series.values)
    return Samples(series.metric, tuple(point for point in points if math.isfinite(point[1])))


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
