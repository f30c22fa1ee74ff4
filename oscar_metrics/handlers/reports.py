"""The report routes: a request's parameters in the contract's order of checks, then the report."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from msgspec import UNSET

from oscar_metrics import wire
from oscar_metrics.admission import Admitted, inventory_unavailable
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR
from oscar_metrics.completeness import fields, status
from oscar_metrics.errors import BadRequest
from oscar_metrics.handlers.accept import preferred
from oscar_metrics.handlers.csv import breakdown_csv, completeness_header, file_name
from oscar_metrics.handlers.query import Query
from oscar_metrics.outcome import Unavailable
from oscar_metrics.periods import with_periods
from oscar_metrics.scope import Viewer
from oscar_metrics.timerange import ReportRange, Span, report_range
from oscar_metrics.wire import SERVICE_METRICS, GroupBy, Metric, SourceName

AnyRequest = Request[Any, Any, Any]
_Numbers = TypeVar("_Numbers", wire.Totals, wire.ServiceMetric, wire.Value)

RANGE_PARAMETERS = ("start", "end", "as_of", "restated_since")
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
_NOT_STORED = {"Cache-Control": "no-store"}


class Format(StrEnum):
    """What a breakdown is written as."""

    JSON = "json"
    CSV = "csv"


class Reports:
    """Answers the report routes for the administrator, who has been let in before."""

    def __init__(self, aggregator: Aggregator) -> None:
        self._aggregator = aggregator

    async def value(self, request: AnyRequest) -> Response[bytes]:
        """One metric of one service; null where its source is missing."""
        query = Query(request.scope["query_string"], VALUE_PARAMETERS)
        service = query.text("service_id")
        if service is None:
            raise BadRequest("service_id is required", parameter="service_id")
        metric = _service_metric(query.text("metric") or "")
        asked = self._range(query)
        query.refuse_unknown()
        admitted = await self._admitted()
        return _json(await self._aggregator.value(admitted, asked, service, metric), query)

    async def summary(self, request: AnyRequest) -> Response[bytes]:
        """Totals; null where a source is missing."""
        query = Query(request.scope["query_string"], SERIES_PARAMETERS)
        asked = self._series(query)
        query.refuse_unknown()
        admitted = await self._admitted()
        return _json(await self._aggregator.summary(admitted, asked), query)

    async def summary_without_null(self, request: AnyRequest) -> Response[bytes]:
        """Totals for clients that decode no null: 0 where a source is missing."""
        query = Query(request.scope["query_string"], SERIES_PARAMETERS)
        asked = self._series(query)
        report = await self._aggregator.summary(await self._admitted(), asked)
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
        asked = self._range(query)
        key = query.text("metric")
        admitted = await self._admitted()
        if key is not None:
            value = await self._aggregator.value(admitted, asked, service, _service_metric(key))
            return _json(_zeros(value), query)
        report = await self._aggregator.service(admitted, asked, service)
        metrics = tuple(_zeros(metric) for metric in report.metrics)
        return _json(msgspec.structs.replace(report, metrics=metrics), query)

    async def breakdown(self, request: AnyRequest) -> Response[bytes]:
        """Rows per service, user or country, as JSON or CSV."""
        query = Query(request.scope["query_string"], BREAKDOWN_PARAMETERS)
        asked = self._series(query)
        group_by_text = query.text("group_by")
        if group_by_text is None:
            raise BadRequest(
                "group_by is required", parameter="group_by", detail=_expected(GroupBy)
            )
        wanted = _format(query.text("format"), request)
        group_by = _group_by(group_by_text)
        include_users = query.is_true("include_users")
        if wanted is Format.CSV and group_by is GroupBy.SERVICE and include_users:
            raise BadRequest("include_users is not supported for csv", parameter="include_users")
        if group_by is None:
            raise BadRequest(
                "unsupported group_by",
                parameter="group_by",
                detail=_expected(GroupBy),
            )
        report = await self._aggregator.breakdown(
            await self._admitted(),
            asked,
            group_by,
            group_by_text=group_by_text,
            include_users=include_users,
            include_usage=query.is_true("include_usage"),
        )
        if wanted is Format.CSV:
            return _csv(report, query, raw=query.is_true("raw"))
        return _json(report, query, {"Vary": "Accept"})

    async def owners(self, request: AnyRequest) -> Response[bytes]:
        """Whom an administrator may filter by; 503 while the inventory cannot be read."""
        query = Query(request.scope["query_string"], ())
        outcome = await self._aggregator.owners(await self._admitted())
        if isinstance(outcome, Unavailable):
            raise inventory_unavailable(outcome)
        # The body has no room for it, and a list that may be short must say so.
        now_ns = self._aggregator.now_ns()
        inventory = status(
            SourceName.INVENTORY, outcome, fields("owners"), Span(now_ns, now_ns), now_ns
        )
        headers = {"X-Completeness": completeness_header([inventory])}
        return _json(outcome.facts, query, headers)

    async def _admitted(self) -> Admitted:
        return await self._aggregator.admit(Viewer(caller=ADMINISTRATOR))

    def _range(self, query: Query) -> ReportRange:
        return report_range(
            query.text("start"),
            query.text("end"),
            self._aggregator.now_ns(),
            as_of=query.text("as_of"),
            restated_since=query.text("restated_since"),
        )

    def _series(self, query: Query) -> ReportRange:
        interval, tz = query.text("interval"), query.text("tz")
        return with_periods(self._range(query), interval, tz, self._aggregator.periods_max)


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
            "Content-Type": "text/csv",
            "Content-Disposition": f'attachment; filename="{file_name(report)}"',
            "Vary": "Accept",
            "X-Completeness": completeness_header(report.sources),
        },
    )
