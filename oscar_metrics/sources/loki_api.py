"""Loki's HTTP API as far as reports need it: questions, typed answers, what its errors mean."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.learned import Learned
from oscar_metrics.sources import loki_answers
from oscar_metrics.sources.logql import EXECUTIONS_QUERY, EXPOSED_QUERY, LogQuery, Matcher
from oscar_metrics.sources.loki_answers import (
    NOT_ALL,
    ORIGIN,
    MatrixAnswer,
    Series,
    StreamLines,
    StreamsAnswer,
)
from oscar_metrics.sources.narrowing import TOO_MUCH, Narrowing
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits, version_of
from oscar_metrics.sources.upstream_credentials import CredentialSettings
from oscar_metrics.sources.upstream_tls import TlsSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, HOUR_NS, MILLISECOND_NS, SECOND_NS, Span

# No Loki splits a day into more: every part is a question of its own.
_NARROWEST_SPLIT_NS = 60 * SECOND_NS
# The labels in which a pipeline may have put a call's country; the first that is set counts.
COUNTRY_LABELS = ("geoip_country_code", "geoip_country_name", "country", "country_code")


class LokiSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to ask one Loki, and for what."""

    # Its base URL, before /loki/api/v1.
    url: str = ""
    # Stream selector and line filters of the manager's log, with {{namespace}} and {{app}}.
    query: str = EXECUTIONS_QUERY
    # The same of the gateway's access log.
    exposed_query: str = EXPOSED_QUERY
    # What {{namespace}} and {{app}} stand for in `query`.
    namespace: str = "oscar"
    app: str = "oscar"
    # What they stand for in `exposed_query`.
    exposed_namespace: str = "ingress-nginx"
    exposed_app: str = "ingress-nginx"
    # Base host of services with hosts of their own (Traefik); blank: paths only.
    ingress_host: str = ""
    # Sent as X-Scope-OrgID; blank: not sent, for a Loki without tenants.
    tenant: str = ""
    credentials: CredentialSettings = CredentialSettings()
    tls: TlsSettings = TlsSettings()
    # Seconds of one window of paging, aligned to UTC; cut to fit Loki's own split
    # (`split_queries_by_interval`, an hour), which is the fastest.
    window_seconds: Annotated[int, Meta(ge=1, le=86_400)] = 3600
    # Lines asked for at a time, at most what Loki allows; one such page per call is in memory.
    page_lines: Annotated[int, Meta(ge=1, le=100_000)] = 5000
    # Lines asked for at once where that many share one nanosecond, at most what Loki allows.
    instant_lines: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000
    # Parts into which the lines of one nanosecond are split before it is left out as a gap.
    instant_parts: Annotated[int, Meta(ge=2)] = 1000
    # Seconds of the narrowest window tried when Loki cannot answer a wider one in time.
    narrowest_window_seconds: Annotated[int, Meta(ge=1)] = 1
    # Windows that fail one after the other before the rest is left out as gaps.
    failed_windows: Annotated[int, Meta(ge=1)] = 3
    # Seconds after which Loki's index is trusted to know of every line, so that what it knows
    # to be empty is not paged. Keep it well above query_ingesters_within and max_chunk_age.
    index_settled_seconds: Annotated[int, Meta(ge=4 * 3600)] = 86_400
    # Calls at a time, seconds to wait for one, its largest body, tries.
    limits: UpstreamLimits = UpstreamLimits()

    def __repr__(self) -> str:
        return f"LokiSettings(url={_without_user(self.url)!r}, …)"


class ServerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a Loki's limits; None where nothing is, 0 where there is none."""

    entries: int | None = None
    series: int | None = None
    query_length_ns: int | None = None
    lookback_ns: int | None = None
    retention_ns: int | None = None
    # The width into which it splits queries, aligned to UTC; a day also stands for more, and
    # 0 for one of which a day is no multiple.
    split_ns: int | None = None
    version: str = ""


class _Summary(msgspec.Struct, frozen=True):
    splits: int | None = None


class _QueryStats(msgspec.Struct, frozen=True):
    summary: _Summary = _Summary()


class _Split(msgspec.Struct, frozen=True):
    stats: _QueryStats = _QueryStats()


class _SplitAnswer(msgspec.Struct):
    data: _Split


class _Stats(msgspec.Struct):
    streams: Annotated[int, Meta(ge=0)]


class _Names(msgspec.Struct):
    status: Literal["success"]
    data: list[str] = []


class _SeriesAnswer(msgspec.Struct):
    status: Literal["success"]
    data: list[dict[str, str]] = []


class _Limits(msgspec.Struct):
    max_entries_limit_per_query: Annotated[int, Meta(ge=0)] | None = None
    max_query_series: Annotated[int, Meta(ge=0)] | None = None
    max_query_length: str = ""
    max_query_lookback: str = ""
    retention_period: str = ""


class _LimitsAnswer(msgspec.Struct):
    limits: _Limits
    version: str = ""


# Loki writes its numbers as strings.
_STREAMS = msgspec.json.Decoder(StreamsAnswer, strict=False)
_MATRIX = msgspec.json.Decoder(MatrixAnswer, strict=False)
_SPLIT = msgspec.json.Decoder(_SplitAnswer)
_STATS = msgspec.json.Decoder(_Stats)
_NAMES = msgspec.json.Decoder(_Names)
_SERIES = msgspec.json.Decoder(_SeriesAnswer)
_LIMITS = msgspec.json.Decoder(_LimitsAnswer)


_DOUBTS: ContextVar[set[str] | None] = ContextVar("doubts", default=None)


@contextlib.contextmanager
def noting(doubts: set[str]) -> Iterator[None]:
    """What Loki says in the block, and in tasks begun there, of its own answers is noted here."""
    token = _DOUBTS.set(doubts)
    try:
        yield
    finally:
        _DOUBTS.reset(token)


def _note(warnings: list[str] | None) -> None:
    if warnings and (doubts := _DOUBTS.get()) is not None:
        doubts.add(NOT_ALL)


class LokiApi:
    """One Loki. Every method raises UpstreamError, and remembers the limits it meets."""

    def __init__(self, settings: LokiSettings, telemetry: Telemetry) -> None:
        self.known = ServerLimits()
        self._learned = Learned()
        limits = settings.limits
        self._unanswered_seconds = limits.protection.unanswered_of(limits.timeout_seconds)
        # This one route wants a tenant even where there are none, and is content with `fake`.
        self._limits_headers = {} if settings.tenant else {"X-Scope-OrgID": "fake"}
        self.upstream = Upstream(
            ORIGIN,
            settings.url,
            limits=settings.limits,
            telemetry=telemetry,
            prefix="OSCAR_METRICS_LOKI",
            tls=settings.tls,
            credentials=settings.credentials,
            headers=_headers(settings),
            reason_of=reason_of,
        )

    def narrowing(
        self, *kind: object, least: int, reasons: frozenset[Reason] = TOO_MUCH
    ) -> Narrowing:
        """A kind of question; what all of that kind have learned is one."""
        return Narrowing(
            self._learned,
            kind,
            least=least,
            unanswered_seconds=self._unanswered_seconds,
            reasons=reasons,
        )

    async def lines(self, query: LogQuery, span: Span, limit: int) -> list[StreamLines]:
        """The first `limit` lines in [start, stop), at most; fewer mean that there are no more."""
        answer = await self.upstream.get_json(
            "/loki/api/v1/query_range",
            {
                "query": str(query),
                "start": str(span.start_ns),
                "end": str(span.stop_ns),
                "limit": str(limit),
                "direction": "forward",
            },
            _STREAMS,
        )
        _note(answer.warnings)
        return loki_answers.lines(answer, query, span, limit)

    async def by_step(
        self,
        expression: str,
        first_ns: int,
        last_ns: int,
        step_ns: int,
        *,
        by: Collection[str] | None = (),
    ) -> list[Series]:
        """A metric expression evaluated at each multiple of the step from first to last.

        `by`: the labels that it groups by; None for whatever labels its lines have.
        """
        answer = await self.upstream.get_json(
            "/loki/api/v1/query_range",
            {
                "query": expression,
                "start": str(first_ns),
                "end": str(last_ns),
                "step": str(step_ns // SECOND_NS),
            },
            _MATRIX,
        )
        _note(answer.warnings)
        return loki_answers.steps(answer, first_ns, last_ns, step_ns, by)

    async def streams_in_index(self, query: LogQuery, span: Span) -> int:
        """How many streams the index knows to have chunks in a span of whole seconds.

        Of what ingesters still hold it may know nothing.
        """
        # Loki caches these answers, and for this route nothing turns that off; a condition
        # that is always true makes the question one that was never asked.
        fresh = Matcher("om_asked", "!=", uuid.uuid4().hex)
        selector = LogQuery((*query.matchers, fresh)).selector
        answer = await self.upstream.get_json(
            "/loki/api/v1/index/stats", {"query": selector, **_between(span)}, _STATS
        )
        return answer.streams

    async def label_names(self, span: Span) -> list[str]:
        """The names of all labels in a span; none where no stream has a line in it."""
        return (await self.upstream.get_json("/loki/api/v1/labels", _between(span), _NAMES)).data

    async def label_values(self, name: str, span: Span) -> list[str]:
        """The values of a label in a span."""
        path = f"/loki/api/v1/label/{name}/values"
        return (await self.upstream.get_json(path, _between(span), _NAMES)).data

    async def streams(self, query: LogQuery, span: Span) -> list[dict[str, str]]:
        """The labels of the streams that a query's selector finds in a span."""
        answer = await self.upstream.get_json(
            "/loki/api/v1/series", {"match[]": query.selector, **_between(span)}, _SERIES
        )
        return answer.data

    async def takes_metadata(self) -> bool | None:
        """Whether structured metadata is taken; None where Loki does not tell its configuration."""
        try:
            body = await self.upstream.get("/config", {})
        except UpstreamError:
            return None
        # What is not allowed is left out of the page.
        if b"max_structured_metadata_size:" not in body:
            return None
        return b"allow_structured_metadata: true" in body

    async def ask_limits(self, now_ns: int) -> None:
        """Ask for the limits; a Loki that does not tell them leaves what is known as it is."""
        await self._ask_limits()
        await self._ask_split(now_ns)

    async def _ask_split(self, now_ns: int) -> None:
        """Find out where Loki splits queries, from into how many it splits one of a day."""
        day_ns = (now_ns // DAY_NS - 1) * DAY_NS
        question = {"query": '{om_asked="split"}', "limit": "1", "direction": "forward"}
        question |= _between(Span(day_ns, day_ns + DAY_NS))
        try:
            answer = await self.upstream.get_json("/loki/api/v1/query_range", question, _SPLIT)
        except UpstreamError as exc:
            if exc.reason is Reason.OPEN:
                raise  # not asked, so not to be remembered as not told
            return
        if (splits := answer.data.stats.summary.splits) is not None:
            width_ns, uneven = divmod(DAY_NS, max(1, splits))
            if uneven or width_ns < _NARROWEST_SPLIT_NS:
                width_ns = 0
            self.known = msgspec.structs.replace(self.known, split_ns=width_ns)

    async def _ask_limits(self) -> None:
        try:
            answer = await self.upstream.get_json(
                "/loki/api/v1/drilldown-limits",
                {},
                _LIMITS,
                headers=self._limits_headers,
            )
        except UpstreamError as exc:
            # Anything else may be this one route's; the questions themselves will tell.
            if exc.reason in (Reason.CONNECT, Reason.TLS, Reason.OPEN):
                raise
            # What a refusal told may have been raised since: the next one tells it again.
            self.known = msgspec.structs.replace(self.known, entries=None)
            return
        limits = answer.limits
        self.known = ServerLimits(
            entries=limits.max_entries_limit_per_query,
            series=limits.max_query_series,
            query_length_ns=duration_ns(limits.max_query_length),
            lookback_ns=duration_ns(limits.max_query_lookback),
            retention_ns=duration_ns(limits.retention_period),
            split_ns=self.known.split_ns,
            version=version_of(answer.version),
        )

    def learn(self, error: UpstreamError, *, asked: int) -> bool:
        """Whether an error says that fewer lines may be asked for than `asked` were."""
        match = _ENTRIES.search(error.detail)
        if match is None or not 0 < int(match[1]) < asked:
            return False
        self.known = msgspec.structs.replace(self.known, entries=int(match[1]))
        return True

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self.upstream.aclose()


_ENTRIES = re.compile(r"max_entries_limit\w* \(\d+ > (\d+)\)")
# Loki's own words; it sends most of them with status 400, some with 500.
_LIMIT_WORDS = (
    "max entries limit",
    "maximum number of series",
    "query time range exceeds",
    "would read too many bytes",
    "larger than max",
    "limit reached while evaluating",
    "maximum of series",
)
_TIMEOUT_WORDS = ("timed out", "timeout", "deadline exceeded")


def reason_of(status: int, text: str) -> Reason | None:
    """What an error of Loki's means where its status does not say it."""
    text = text.lower()
    if "no org id" in text:
        return Reason.UNAUTHORIZED
    if status in (400, 422, 500) and any(words in text for words in _LIMIT_WORDS):
        return Reason.LIMIT
    if status == 500:
        slow = any(words in text for words in _TIMEOUT_WORDS)
        return Reason.TOO_SLOW if slow else Reason.SERVER_ERROR
    if status == 504 and "request timed out" in text:
        return Reason.TOO_SLOW
    return None


def country_of(labels: Mapping[str, str]) -> str:
    """The country that labels name; blank where they name none."""
    return next((country for name in COUNTRY_LABELS if (country := labels.get(name))), "")


_DURATION = re.compile(r"(\d{1,12}(?:\.\d{1,12})?)(ms|us|µs|ns|y|w|d|h|m|s)")
_UNITS_NS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "ms": MILLISECOND_NS,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": HOUR_NS,
    "d": DAY_NS,
    "w": 7 * DAY_NS,
    "y": 365 * DAY_NS,
}


def duration_ns(text: str) -> int | None:
    """Nanoseconds of a duration as Loki writes them (`30d1h`, `1m`, `0s`); None if it is none."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(float(number) * _UNITS_NS[unit]) for number, unit in parts)


def _between(span: Span) -> dict[str, str]:
    return {"start": str(span.start_ns), "end": str(span.stop_ns)}


def _headers(settings: LokiSettings) -> dict[str, str]:
    # What Loki computed for an earlier question may lack lines that came since.
    headers = {"Cache-Control": "no-cache"}
    if settings.tenant:
        headers["X-Scope-OrgID"] = settings.tenant
    return headers


def _without_user(url: str) -> str:
    return re.sub(r"//[^/]*@", "//…@", url)
