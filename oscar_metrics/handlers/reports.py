"""The report routes: a request's parameters in the contract's order of checks, then the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from msgspec import UNSET

from oscar_metrics import wire
from oscar_metrics.admission import Admitted, inventory_unavailable
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.completeness import fields, status
from oscar_metrics.errors import BadRequest, Forbidden
from oscar_metrics.handlers import answer_headers, audit, preferences
from oscar_metrics.handlers.accept import preferred
from oscar_metrics.handlers.authentication import caller_of
from oscar_metrics.handlers.csv import breakdown_csv, completeness_header, file_name
from oscar_metrics.handlers.query import Query
from oscar_metrics.outcome import Unavailable
from oscar_metrics.periods import with_periods
from oscar_metrics.scope import Viewer
from oscar_metrics.tasks import worked_out
from oscar_metrics.timerange import ReportRange, Span, report_range
from oscar_metrics.wire import SERVICE_METRICS, GroupBy, Metric, SourceName

AnyRequest = Request[Any, Any, Any]
_Numbers = TypeVar("_Numbers", wire.Totals, wire.ServiceMetric, wire.Value)

RANGE_PARAMETERS = ("start", "end", "as_of", "restated_since", "owner")
SERIES_PARAMETERS = (*RANGE_PARAMETERS, "interval", "tz")
VALUE_PARAMETERS = ("service_id", "metric", *RANGE_PARAMETERS)
SERVICE_PARAMETERS = ("metric", *RANGE_PARAMETERS)
BREAKDOWN_PARAMETERS = (
    *SERIES_PARAMETERS,
    "group_by",
    "format",
    "include_users",
    "include_usage",
    "raw",
)
_NOT_STORED = {"Cache-Control": "no-store", "Vary": "Authorization"}
_BY_ACCEPT = {"Vary": "Accept, Authorization"}


class Format(StrEnum):
    """What a breakdown is written as."""

    JSON = "json"
    CSV = "csv"


class Reports:
    """Answers the report routes for whoever was let in; all they see is what `admit` gives."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    async def value(self, request: AnyRequest) -> Response[bytes]:
        """One metric of one service; null where its source is missing."""
        query = Query(request.scope["query_string"], VALUE_PARAMETERS)
        service = query.text("service_id")
        if service is None:
            raise BadRequest("service_id is required", parameter="service_id")
        admitted = await self._admitted(request, _owner(request, query))
        with _one_refusal(admitted, service):
            metric = _service_metric(query.text("metric") or "")
            asked = self._range(request, query)
            query.refuse_unknown()
            return _json(await self._value(request, admitted, asked, service, metric), query)

    async def summary(self, request: AnyRequest) -> Response[bytes]:
        """Totals; null where a source is missing."""
        query = Query(request.scope["query_string"], SERIES_PARAMETERS)
        asked = self._series(request, query)
        query.refuse_unknown()
        return _json(await self._summary(request, query, asked), query)

    async def summary_without_null(self, request: AnyRequest) -> Response[bytes]:
        """Totals for clients that decode no null: 0 where a source is missing."""
        query = Query(request.scope["query_string"], SERIES_PARAMETERS)
        report = await self._summary(request, query, self._series(request, query))
        periods = report.periods
        if periods is not UNSET:
            periods = tuple(
                msgspec.structs.replace(period, totals=_zeros(period.totals)) for period in periods
            )
        totals = _zeros(report.totals)
        return _json(msgspec.structs.replace(report, totals=totals, periods=periods), query)

    async def service_without_null(self, request: AnyRequest) -> Response[bytes]:
        """One or all metrics of the service in the path: 0 where a source is missing."""
        query = Query(request.scope["query_string"], SERVICE_PARAMETERS)
        service = request.path_params["serviceName"]
        if not service.strip():
            raise BadRequest("serviceName is required", parameter="serviceName")
        if caller_of(request).administrator:
            asked = self._range(request, query)
            admitted = await self._admitted(request, _owner(request, query))
            return await self._service(request, query, admitted, asked, service)
        admitted = await self._admitted(request, "")
        with _one_refusal(admitted, service):
            asked = self._range(request, query)
            _owner(request, query)  # who sends one is refused
            return await self._service(request, query, admitted, asked, service)

    async def breakdown(self, request: AnyRequest) -> Response[bytes]:
        """Rows per service, user, country or owner, as JSON or CSV."""
        query = Query(request.scope["query_string"], BREAKDOWN_PARAMETERS)
        asked = self._series(request, query)
        group_by_text = query.text("group_by")
        if group_by_text is None:
            raise BadRequest(
                "group_by is required", parameter="group_by", detail=_expected(GroupBy)
            )
        wanted = _format(query.text("format"), request)
        group_by = _group_by(group_by_text)
        audit.note(request, group_by=group_by)
        include_users = query.is_true("include_users")
        if wanted is Format.CSV and group_by is GroupBy.SERVICE and include_users:
            raise BadRequest("include_users is not supported for csv", parameter="include_users")
        owner = _owner(request, query)
        if group_by is GroupBy.OWNER and not caller_of(request).administrator:
            raise Forbidden
        admitted = await self._admitted(request, owner)
        if group_by is None:
            raise BadRequest(
                "unsupported group_by",
                parameter="group_by",
                detail=_expected(GroupBy),
            )
        report = await self._aggregator.breakdown(
            admitted,
            asked,
            group_by,
            group_by_text=group_by_text,
            include_users=include_users,
            include_usage=query.is_true("include_usage"),
        )
        _note(request, len(report.items), report.sources)
        if wanted is Format.CSV:
            raw = query.is_true("raw")
            return await worked_out(lambda: _csv(report, query, raw=raw), rows=_rows(report))
        return _json(report, query, _BY_ACCEPT)

    async def owners(self, request: AnyRequest) -> Response[bytes]:
        """Whom an administrator may filter by; 503 while the inventory cannot be read."""
        query = Query(request.scope["query_string"], ())
        if not caller_of(request).administrator:
            raise Forbidden
        outcome = await self._aggregator.owners(await self._admitted(request, ""))
        if isinstance(outcome, Unavailable):
            raise inventory_unavailable(outcome)
        # The body has no room for it, and a list that may be short must say so.
        now_ns = self._aggregator.now_ns()
        inventory = status(
            SourceName.INVENTORY, outcome, fields("owners"), Span(now_ns, now_ns), now_ns
        )
        _note(request, len(outcome.facts.owners), [inventory])
        headers = {"X-Completeness": completeness_header([inventory])}
        return _json(outcome.facts, query, headers)

    async def _admitted(self, request: AnyRequest, owner: str) -> Admitted:
        audit.note(request, scope="owner" if owner else None)
        wait_seconds = self._aggregator.granted(
            preferences.wait_seconds(request.headers.getall("prefer", []))
        )
        if wait_seconds is not None:
            answer_headers.apply_preference(request, f"wait={wait_seconds}")
        admitted = await self._aggregator.admit(
            Viewer(caller=caller_of(request), owner=owner), wait_seconds=wait_seconds
        )
        audit.note(request, scope=admitted.seen)
        return admitted

    async def _summary(self, request: AnyRequest, query: Query, asked: ReportRange) -> wire.Summary:
        admitted = await self._admitted(request, _owner(request, query))
        report = await self._aggregator.summary(admitted, asked)
        _note(request, 1, report.sources)
        return report

    async def _value(
        self,
        request: AnyRequest,
        admitted: Admitted,
        asked: ReportRange,
        service: str,
        metric: Metric,
    ) -> wire.Value:
        audit.note(request, metric=metric)
        report = await self._aggregator.value(admitted, asked, service, metric)
        _note(request, 1, report.sources)
        return report

    async def _service(
        self,
        request: AnyRequest,
        query: Query,
        admitted: Admitted,
        asked: ReportRange,
        service: str,
    ) -> Response[bytes]:
        key = query.text("metric")
        if key is not None:
            metric = _service_metric(key)
            value = await self._value(request, admitted, asked, service, metric)
            return _json(_zeros(value), query)
        report = await self._aggregator.service(admitted, asked, service)
        sources = (source for metric in report.metrics for source in metric.sources)
        _note(request, len(report.metrics), sources)
        metrics = tuple(_zeros(metric) for metric in report.metrics)
        return _json(msgspec.structs.replace(report, metrics=metrics), query)

    def _range(self, request: AnyRequest, query: Query) -> ReportRange:
        asked = report_range(
            query.text("start"),
            query.text("end"),
            self._aggregator.now_ns(),
            as_of=query.text("as_of"),
            restated_since=query.text("restated_since"),
        )
        audit.note(request, start=asked.start, end=asked.end, as_of=asked.as_of)
        return asked

    def _series(self, request: AnyRequest, query: Query) -> ReportRange:
        interval, tz = query.text("interval"), query.text("tz")
        asked = self._range(request, query)
        return with_periods(asked, interval, tz, self._aggregator.periods_max)


@contextmanager
def _one_refusal(admitted: Admitted, service: str) -> Iterator[None]:
    """Within this a caller who may not know of a service hears nothing but that.

    What is wrong with the rest of the request is told to those who may. Whether records make
    the service known after all is found out last, by the aggregator.
    """
    may_know = admitted.viewer.caller.administrator or admitted.has_service(service)
    try:
        yield
    except BadRequest:
        if may_know:
            raise
        raise Forbidden from None


def _rows(report: wire.Breakdown) -> int:
    periods = () if report.periods is UNSET else report.periods
    return sum(len(stretch.items) for stretch in (report, *periods))


def _owner(request: AnyRequest, query: Query) -> str:
    """Whose services an administrator narrows the report to; blank for everyone's."""
    owner = query.text("owner") or ""
    if owner and not caller_of(request).administrator:
        raise BadRequest(
            "owner filter is only available with admin authentication", parameter="owner"
        )
    return owner


def _note(request: AnyRequest, rows: int, sources: Iterable[wire.SourceStatus]) -> None:
    audit.note(request, rows=rows, completeness=audit.completeness(sources))


def _expected(words: Iterable[str]) -> str:
    return f"expected one of {', '.join(words)}"


def _service_metric(key: str) -> Metric:
    """The metric of a key that can be asked for one service; keys are case-sensitive."""
    expected = _expected(SERVICE_METRICS)
    if key not in list(Metric):
        raise BadRequest("invalid metric key", parameter="metric", detail=expected)
    if key not in SERVICE_METRICS:
        raise BadRequest("unsupported metric for value query", parameter="metric", detail=expected)
    return Metric(key)


def _format(text: str | None, request: AnyRequest) -> Format:
    """The format asked for: the parameter's word, else what `Accept` prefers."""
    if text is None:
        wanted = preferred(request, ["application/json", "text/csv"])
        return Format.CSV if wanted == "text/csv" else Format.JSON
    for known in Format:
        if text.lower() == known:
            return known
    raise BadRequest("invalid format", parameter="format", detail="expected json or csv")


def _group_by(text: str) -> GroupBy | None:
    return next((known for known in GroupBy if text.lower() == known), None)


def _zeros(numbers: _Numbers) -> _Numbers:
    """The same with 0 for what is not known."""
    fields = msgspec.structs.asdict(numbers)
    return msgspec.structs.replace(
        numbers, **{name: 0 for name, value in fields.items() if value is None}
    )


def _json(
    report: msgspec.Struct, query: Query, headers: dict[str, str] | None = None
) -> Response[bytes]:
    return Response(
        content=msgspec.json.encode(report),
        media_type="application/json",
        headers={**_NOT_STORED, **query.ignored_header(), **(headers or {})},
    )


def _csv(report: wire.Breakdown, query: Query, *, raw: bool) -> Response[bytes]:
    return Response(
        content=breakdown_csv(report, raw=raw).encode(),
        headers={
            **_NOT_STORED,
            **query.ignored_header(),
            **_BY_ACCEPT,
            "Content-Type": "text/csv",
            "Content-Disposition": f'attachment; filename="{file_name(report)}"',
            "X-Completeness": completeness_header(report.sources),
        },
    )
