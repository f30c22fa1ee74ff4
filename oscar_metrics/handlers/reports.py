"""The report routes: a request's parameters in the contract's order of checks, then the report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec
from litestar import Request, Response
from msgspec import UNSET
from msgspec.structs import replace

from oscar_metrics import wire
from oscar_metrics.admission import Admitted, inventory_unavailable
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.completeness import fields, status
from oscar_metrics.errors import BadRequest, Forbidden
from oscar_metrics.handlers import audit, time_limits
from oscar_metrics.handlers.accept import preferred
from oscar_metrics.handlers.answer import Notes, Question, Reported
from oscar_metrics.handlers.answers import Answers, Prepared
from oscar_metrics.handlers.authentication import caller_of
from oscar_metrics.handlers.csv import completeness_header
from oscar_metrics.handlers.query import Query, query_of
from oscar_metrics.outcome import Unavailable
from oscar_metrics.periods import with_periods
from oscar_metrics.scope import Viewer
from oscar_metrics.timerange import ReportRange, Span, report_range
from oscar_metrics.wire import SERVICE_METRICS, GroupBy, Metric, SourceName

T = TypeVar("T")
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


class Format(StrEnum):
    """What a breakdown is written as."""

    JSON = "json"
    CSV = "csv"


def _as_it_is(report: T) -> T:
    return report


class Reports:
    """Answers the report routes for whoever was let in; all they see is what `admit` gives."""

    def __init__(self, aggregator: Aggregator, answers: Answers) -> None:
        self._aggregator = aggregator
        self._answers = answers

    async def value(self, request: AnyRequest) -> Response[bytes]:
        """One metric of one service; null where its source is missing."""
        query = query_of(request.scope["query_string"], VALUE_PARAMETERS, strict=True)
        service = query.text("service_id")
        if service is None:
            raise BadRequest("service_id is required", parameter="service_id")
        viewer = _viewer(request, query)

        def parsed() -> tuple[Metric, ReportRange]:
            metric = _service_metric(query.text("metric") or "")
            asked = self._range(query)
            query.refuse_unknown()
            return metric, asked

        async def report(
            admitted: Admitted, metric: Metric, asked: ReportRange, notes: Notes
        ) -> Reported:
            return await self._value(admitted, asked, service, metric, notes)

        def prepare() -> Prepared:
            return self._of_service(viewer, service, parsed, report)

        return await self._answers.answer(
            request, query, _question(request, query, viewer), prepare
        )

    async def summary(self, request: AnyRequest) -> Response[bytes]:
        """Totals; null where a source is missing."""
        query = query_of(request.scope["query_string"], SERIES_PARAMETERS, strict=True)
        return await self._summary(request, query, _as_it_is)

    async def summary_without_null(self, request: AnyRequest) -> Response[bytes]:
        """Totals for clients that decode no null: 0 where a source is missing."""
        query = query_of(request.scope["query_string"], SERIES_PARAMETERS)
        return await self._summary(request, query, _zero_totals)

    async def service_without_null(self, request: AnyRequest) -> Response[bytes]:
        """One or all metrics of the service in the path: 0 where a source is missing."""
        query = query_of(request.scope["query_string"], SERVICE_PARAMETERS)
        service = request.path_params["serviceName"]
        if not service.strip():
            raise BadRequest("serviceName is required", parameter="serviceName")
        administrator = caller_of(request).administrator
        # Who sends an owner and may not is refused, once they may know of the service.
        viewer = _viewer(request, query) if administrator else Viewer(caller=caller_of(request))

        def parsed() -> tuple[Metric | None, ReportRange]:
            asked = self._range(query)
            _owner(request, query)
            key = query.text("metric")
            return None if key is None else _service_metric(key), asked

        async def report(
            admitted: Admitted, metric: Metric | None, asked: ReportRange, notes: Notes
        ) -> Reported:
            if metric is None:
                return await self._service(admitted, asked, service, notes)
            return await self._value(admitted, asked, service, metric, notes, shown=_zeros)

        def prepare() -> Prepared:
            if administrator:
                self._range(query)
            return self._of_service(viewer, service, parsed, report)

        question = _question(request, query, viewer, service=service)
        return await self._answers.answer(request, query, question, prepare)

    async def breakdown(self, request: AnyRequest) -> Response[bytes]:
        """Rows per service, user, country, owner, VO or project, as JSON or CSV."""
        query = query_of(request.scope["query_string"], BREAKDOWN_PARAMETERS)
        form = _form_asked(query, request)

        def prepare() -> Prepared:
            return self._breakdown(request, query, form)

        caller = caller_of(request)
        viewer = Viewer(caller=caller, owner=query.text("owner") or "")
        question = _question(request, query, viewer, form=form)
        return await self._answers.answer(request, query, question, prepare)

    async def owners(self, request: AnyRequest) -> Response[bytes]:
        """Whom an administrator may filter by; 503 while the inventory cannot be read."""
        query = query_of(request.scope["query_string"], ())
        if not caller_of(request).administrator:
            raise Forbidden
        notes: Notes = {}
        viewer = Viewer(caller=caller_of(request))
        admitted = await self._admitted(viewer, time_limits.applied(request).deadline, notes)
        outcome = await self._aggregator.owners(admitted)
        if isinstance(outcome, Unavailable):
            raise inventory_unavailable(outcome)
        # The body has no room for it, and a list that may be short must say so.
        now_ns = self._aggregator.now_ns()
        inventory = status(
            SourceName.INVENTORY, outcome, fields("owners"), Span(now_ns, now_ns), now_ns
        )
        audit.note(request, **notes, **_of_rows(len(outcome.facts.owners), [inventory]))
        return Response(
            content=msgspec.json.encode(outcome.facts),
            media_type="application/json",
            headers={
                "Cache-Control": "no-store",
                "Vary": "Authorization",
                "X-Completeness": completeness_header([inventory]),
                **query.ignored_header(),
            },
        )

    def _breakdown(self, request: AnyRequest, query: Query, form: str) -> Prepared:
        asked = self._series(query)
        group_by_text = query.text("group_by")
        if group_by_text is None:
            raise BadRequest(
                "group_by is required", parameter="group_by", detail=_expected(GroupBy)
            )
        wanted = _format(form)
        group_by = _group_by(group_by_text)
        include_users = query.is_true("include_users")
        if wanted is Format.CSV and group_by is GroupBy.SERVICE and include_users:
            raise BadRequest("include_users is not supported for csv", parameter="include_users")
        viewer = _viewer(request, query)
        if group_by is GroupBy.OWNER and not viewer.caller.administrator:
            raise Forbidden

        async def make(deadline: float | None, notes: Notes) -> Reported:
            notes |= _of_range(asked) | ({} if group_by is None else {"group_by": group_by})
            admitted = await self._admitted(viewer, deadline, notes)
            if group_by is None:
                raise BadRequest(
                    "unsupported group_by", parameter="group_by", detail=_expected(GroupBy)
                )
            report = await self._aggregator.breakdown(
                admitted,
                asked,
                group_by,
                group_by_text=group_by_text,
                include_users=include_users,
                include_usage=query.is_true("include_usage"),
            )
            notes |= _of_rows(len(report.items), report.sources)
            return Reported(
                report=report,
                sources=report.sources,
                span=asked.span,
                sees_everything=admitted.sees_everything,
                sees=admitted.sees,
                csv=wanted is Format.CSV,
                raw=query.is_true("raw"),
            )

        return Prepared(make=make, span=asked.span)

    async def _summary(
        self, request: AnyRequest, query: Query, shown: Callable[[wire.Summary], wire.Summary]
    ) -> Response[bytes]:
        def prepare() -> Prepared:
            asked = self._series(query)
            query.refuse_unknown()
            viewer = _viewer(request, query)

            async def make(deadline: float | None, notes: Notes) -> Reported:
                notes |= _of_range(asked)
                admitted = await self._admitted(viewer, deadline, notes)
                report = await self._aggregator.summary(admitted, asked)
                notes |= _of_rows(1, report.sources)
                return Reported(
                    report=shown(report),
                    sources=report.sources,
                    span=asked.span,
                    sees_everything=admitted.sees_everything,
                    sees=admitted.sees,
                )

            return Prepared(make=make, span=asked.span)

        viewer = Viewer(caller=caller_of(request), owner=query.text("owner") or "")
        return await self._answers.answer(
            request, query, _question(request, query, viewer), prepare
        )

    def _of_service(
        self,
        viewer: Viewer,
        service: str,
        parse: Callable[[], tuple[T, ReportRange]],
        report: Callable[[Admitted, T, ReportRange, Notes], Awaitable[Reported]],
    ) -> Prepared:
        """How a report of one service is made: who may not know of it hears nothing but that."""
        understood = _Understood(parse)
        if _sees_everything(viewer):
            understood.value()

        async def make(deadline: float | None, notes: Notes) -> Reported:
            admitted = await self._admitted(viewer, deadline, notes)
            with _one_refusal(admitted, service):
                what, asked = understood.value()
                return await report(admitted, what, asked, notes)

        return Prepared(make=make, span=understood.span)

    async def _admitted(self, viewer: Viewer, deadline: float | None, notes: Notes) -> Admitted:
        if viewer.owner:
            notes["scope"] = "owner"
        admitted = await self._aggregator.admit(viewer, deadline)
        notes["scope"] = admitted.seen
        return admitted

    async def _value(
        self,
        admitted: Admitted,
        asked: ReportRange,
        service: str,
        metric: Metric,
        notes: Notes,
        *,
        shown: Callable[[wire.Value], wire.Value] = _as_it_is,
    ) -> Reported:
        notes |= _of_range(asked) | {"metric": metric}
        report = await self._aggregator.value(admitted, asked, service, metric)
        notes |= _of_rows(1, report.sources)
        return Reported(
            report=shown(report),
            sources=report.sources,
            span=asked.span,
            sees_everything=admitted.sees_everything,
            sees=admitted.sees,
        )

    async def _service(
        self, admitted: Admitted, asked: ReportRange, service: str, notes: Notes
    ) -> Reported:
        notes |= _of_range(asked)
        report = await self._aggregator.service(admitted, asked, service)
        said: dict[SourceName, wire.SourceStatus] = {}
        for source in (source for metric in report.metrics for source in metric.sources):
            # It says the same of all its metrics, but for which of them are in doubt.
            if source.affects or source.name not in said:
                said[source.name] = source
        notes |= _of_rows(len(report.metrics), said.values())
        metrics = tuple(_zeros(metric) for metric in report.metrics)
        return Reported(
            report=replace(report, metrics=metrics),
            sources=tuple(said.values()),
            span=asked.span,
            sees_everything=admitted.sees_everything,
            sees=admitted.sees,
        )

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


class _Understood(Generic[T]):
    """What a part of a request means, or the error, for when it may be told."""

    def __init__(self, parse: Callable[[], tuple[T, ReportRange]]) -> None:
        self._error: BadRequest | None = None
        try:
            self._parsed = parse()
        except BadRequest as exc:
            self._error = exc

    @property
    def span(self) -> Span | None:
        """The range, where it is understood."""
        return None if self._error else self._parsed[1].span

    def value(self) -> tuple[T, ReportRange]:
        """What it means; raises BadRequest."""
        if self._error is not None:
            raise self._error
        return self._parsed


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


def _question(
    request: AnyRequest, query: Query, viewer: Viewer, *, service: str = "", form: str = ""
) -> Question:
    return Question(
        route=request.scope["path_template"],
        service=service,
        viewer=viewer,
        parameters=query.understood,
        form=form,
    )


def _viewer(request: AnyRequest, query: Query) -> Viewer:
    return Viewer(caller=caller_of(request), owner=_owner(request, query))


def _sees_everything(viewer: Viewer) -> bool:
    return viewer.caller.administrator and not viewer.owner


def _owner(request: AnyRequest, query: Query) -> str:
    """Whose services an administrator narrows the report to; blank for everyone's."""
    owner = query.text("owner") or ""
    if owner and not caller_of(request).administrator:
        raise BadRequest(
            "owner filter is only available with admin authentication", parameter="owner"
        )
    return owner


def _of_range(asked: ReportRange) -> Notes:
    of_then = {} if asked.as_of is None else {"as_of": asked.as_of}
    return {"start": asked.start, "end": asked.end, **of_then}


def _of_rows(rows: int, sources: Iterable[wire.SourceStatus]) -> Notes:
    return {"rows": rows, "completeness": audit.completeness(sources)}


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


def _form_asked(query: Query, request: AnyRequest) -> str:
    """The format asked for: the parameter's word, else what `Accept` prefers."""
    text = query.text("format")
    if text is not None:
        return text.lower()
    wanted = preferred(request, ["application/json", "text/csv"])
    return Format.CSV if wanted == "text/csv" else Format.JSON


def _format(text: str) -> Format:
    if text not in list(Format):
        raise BadRequest("invalid format", parameter="format", detail="expected json or csv")
    return Format(text)


def _group_by(text: str) -> GroupBy | None:
    return next((known for known in GroupBy if text.lower() == known), None)


def _zeros(numbers: _Numbers) -> _Numbers:
    """The same with 0 for what is not known."""
    fields = msgspec.structs.asdict(numbers)
    return replace(numbers, **{name: 0 for name, value in fields.items() if value is None})


def _zero_totals(report: wire.Summary) -> wire.Summary:
    periods = report.periods
    if periods is not UNSET:
        periods = tuple(replace(period, totals=_zeros(period.totals)) for period in periods)
    return replace(report, totals=_zeros(report.totals), periods=periods)
