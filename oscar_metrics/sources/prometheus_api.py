"""Prometheus' HTTP API, and that of its relatives (Thanos, Mimir, VictoriaMetrics)."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.learned import Learned
from oscar_metrics.sources import prometheus_answers, promql
from oscar_metrics.sources.narrowing import Narrowing
from oscar_metrics.sources.prometheus_answers import (
    NOT_ALL,
    UPSTREAM,
    Answer,
    Asked,
    Sample,
    Samples,
    name_of,
)
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits
from oscar_metrics.sources.upstream_credentials import CredentialSettings
from oscar_metrics.sources.upstream_tls import TlsSettings
from oscar_metrics.telemetry import Telemetry

ORIGIN = "prometheus"

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


_ANSWER = msgspec.json.Decoder(Answer)


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

    async def vector(
        self,
        query: str,
        at_ms: int,
        doubts: set[str],
        *,
        by: Collection[str] | None = None,
        below_zero: bool = False,
    ) -> list[Sample]:
        """An instant query's numbers; a scalar is one without labels.

        `by`: the labels that the query lets series have, None for any. Numbers below zero are
        left out unless they may be.
        """
        asked = {"query": query, "time": _seconds(at_ms)}
        answer = await self._ask("api/v1/query", asked, doubts)
        return prometheus_answers.vector(answer, at_ms, self._asked(by, below_zero), doubts)

    async def numbers(self, query: str, at_ms: int, doubts: set[str]) -> dict[str, float]:
        """The numbers of `promql.named`, by name; one that has no data is not there."""
        named = await self.vector(query, at_ms, doubts, by=promql.NAMED)
        return {name_of(each.labels): each.value for each in named}

    async def samples(
        self, selected: str, reach_ms: int, at_ms: int, doubts: set[str]
    ) -> list[Samples]:
        """The raw samples of selected series, in the `reach_ms` up to an instant."""
        query = f"{selected}[{promql.duration(reach_ms)}]"
        answer = await self._ask("api/v1/query", {"query": query, "time": _seconds(at_ms)}, doubts)
        # Prometheus 2 includes both ends.
        instants_ms = range(at_ms - reach_ms, at_ms + 1)
        return prometheus_answers.matrix(answer, instants_ms, self._asked(), doubts)

    async def steps(
        self,
        query: str,
        start_ms: int,
        stop_ms: int,
        step_ms: int,
        doubts: set[str],
        *,
        by: Collection[str] | None = None,
        below_zero: bool = False,
    ) -> list[Samples]:
        """A range query's numbers at start, start + step, ... up to stop, both included.

        `by` and `below_zero` as in `vector`.
        """
        instants_ms = range(start_ms, stop_ms + 1, step_ms)
        asked = {
            "start": _seconds(start_ms),
            "end": _seconds(instants_ms[-1]),
            "step": _seconds(step_ms),
        }
        answer = await self._ask("api/v1/query_range", {"query": query, **asked}, doubts)
        return prometheus_answers.matrix(answer, instants_ms, self._asked(by, below_zero), doubts)

    async def label_values(
        self, label: str, matching: str, doubts: set[str], *, from_ms: int, now_ms: int
    ) -> frozenset[str]:
        """The values a label has had on matching series since about `from_ms`.

        Up to now always: asked for an older stretch, Prometheus leaves out what was written
        late and is in no block yet.
        """
        asked = {"match[]": matching, "start": _seconds(from_ms), "end": _seconds(now_ms)}
        return prometheus_answers.texts(
            await self._ask(f"api/v1/label/{label}/values", asked, doubts)
        )

    async def status(self, name: str) -> dict[str, Any]:
        """One of the server's status pages: `runtimeinfo`, `buildinfo`, `config`."""
        return prometheus_answers.facts(
            await self._upstream.get_json(f"api/v1/status/{name}", {}, _ANSWER)
        )

    async def _ask(self, path: str, asked: dict[str, str], doubts: set[str]) -> Answer:
        answer = await self._upstream.get_json(
            path, {**asked, "timeout": self._timeout, **_AS_ASKED}, _ANSWER
        )
        if answer.status != "success":
            raise UpstreamError(UPSTREAM, Reason.BAD_ANSWER, "status is not success")
        if answer.doubtful():
            doubts.add(NOT_ALL)
        return answer

    def _asked(self, by: Collection[str] | None = None, below_zero: bool = False) -> Asked:
        labels = None if by is None else frozenset(by)
        return Asked(labels=labels, below_zero=below_zero, most_series=self._series)


# Thanos may answer from what it can reach, and VictoriaMetrics for other instants than those asked
# for (of late ones, and where there are many); we would rather be told, and have those.
_AS_ASKED = {"partial_response": "false", "nocache": "1"}

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


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03d}"
