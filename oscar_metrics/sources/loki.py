"""Loki as the request log: every line counted, or what is missing said."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.facts import CallLog, Kind, LogStream, Roster, ServiceCount, SlottedLog
from oscar_metrics.findings import Finding
from oscar_metrics.outcome import MAY_GROW, Outcome, Unavailable, join_gaps, not_understood, settle
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.logql import (
    EXPOSED_QUERY,
    EXPOSED_QUERY_WITH_HOSTS,
    LogQuery,
    mentioning,
    parse_template,
)
from oscar_metrics.sources.loki_answers import ORIGIN
from oscar_metrics.sources.loki_api import LokiApi, LokiSettings, noting
from oscar_metrics.sources.loki_check import LokiCheck, why_nothing
from oscar_metrics.sources.loki_paging import Paging
from oscar_metrics.sources.loki_survey import Counting, Survey, failures, kept_from_ns
from oscar_metrics.sources.loki_tally import L, SlottedTally, Tally, WholeTally
from oscar_metrics.sources.slotted_tallying import lines_of
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS, Span

F = TypeVar("F")

# Limits are an operator's to change; asking costs a few milliseconds.
_LIMITS_AGE_NS = 600 * SECOND_NS


class LokiLogs:
    """Counts calls in the lines of one Loki.

    Raises SettingsError for a query that is no log query.
    """

    origin = ORIGIN

    def __init__(self, settings: LokiSettings, *, telemetry: Telemetry) -> None:
        self._settings = settings
        self._queries = queries(settings)
        self._api = LokiApi(settings, telemetry)
        self._limits_asked_ns: int | None = None

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]:
        """The full tally of each stream, from every line in the span."""
        return await self._read_each(
            span,
            streams,
            lambda stream: self._whole(stream, countries),
            _of_whole,
            now_ns,
            deadline,
        )

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        """The same by parts of quarter-hours, for the same pages and questions."""
        return await self._read_each(
            span,
            streams,
            lambda stream: self._slotted(stream, countries),
            lines_of,
            now_ns,
            deadline,
        )

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        """Since when Loki's retention and look-back keep lines; None for ever, or not known."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._learn_limits(now_ns)
        except (UpstreamError, TimeoutError):
            return None
        return kept_from_ns(self._api.known, now_ns)

    async def count_service(
        self,
        span: Span,
        stream: LogStream,
        service: str,
        *,
        users: bool,
        now_ns: int,
        deadline: float | None,
    ) -> Outcome[ServiceCount]:
        """The calls of one service, the same number as reading every line gives.

        Only lines that mention the service are handed out. Loki's own counts would be no less
        work, and count what it was sent twice as two: see docs/pipeline.md.
        """
        paging = Paging(
            self._api,
            self._settings,
            # A host may be written in any case.
            mentioning(self._queries[stream], service, any_case=stream is not LogStream.EXECUTIONS),
            lambda: self._whole(stream, Countries(GeoIP.open(None), Roster())),
        )
        said = await self._survey(stream, span, paging, now_ns=now_ns, deadline=deadline)
        if isinstance(said, Unavailable):
            return said
        log = paging.log()
        return self._settled(
            _of_service(log, service, users=users), _of_whole(log), span, said, now_ns
        )

    async def check(self, now_ns: int) -> list[Finding]:
        """What stands between this Loki and a complete report."""
        check = LokiCheck(self._api, self._queries, ingress_host=self._settings.ingress_host)
        return await check.findings(now_ns)

    async def aclose(self) -> None:
        """Let go of the connections."""
        await self._api.aclose()

    async def _read_each(
        self,
        span: Span,
        streams: frozenset[LogStream],
        new_tally: Callable[[LogStream], Tally[L]],
        lines: Callable[[L], tuple[int, int]],
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[L]]:
        async def read(stream: LogStream) -> Outcome[L]:
            counting = Paging(
                self._api, self._settings, self._queries[stream], lambda: new_tally(stream)
            )
            said = await self._survey(stream, span, counting, now_ns=now_ns, deadline=deadline)
            if isinstance(said, Unavailable):
                return said
            log = counting.log()
            return self._settled(log, lines(log), span, said, now_ns)

        async with asyncio.TaskGroup() as group:
            tasks = {stream: group.create_task(read(stream)) for stream in streams}
        return {stream: task.result() for stream, task in tasks.items()}

    async def _survey(
        self,
        stream: LogStream,
        span: Span,
        counting: Counting,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> Survey | Unavailable:
        """What became of counting; Unavailable where it speaks for no stretch at all."""
        query = self._queries[stream]
        try:
            async with asyncio.timeout_at(deadline):
                await self._learn_limits(now_ns)
            survey = Survey(self._api, self._settings, query, span, now_ns)
            with noting(survey.doubts):
                await survey.run(counting, deadline)
            if survey.speaks:
                return survey
            gaps = tuple(join_gaps(survey.gaps, survey.reachable))
            if not survey.silent:
                return Unavailable(origin=ORIGIN, notes=survey.why_not, gaps=gaps)
            async with asyncio.timeout_at(deadline):
                why = await why_nothing(self._api, query, now_ns)
            return Unavailable(origin=ORIGIN, notes=why.notes, gaps=gaps)
        except UpstreamError as exc:
            return Unavailable(origin=ORIGIN, notes=tuple(failures([exc.reason])))
        except TimeoutError:
            return Unavailable(origin=ORIGIN, notes=tuple(failures([Reason.DEADLINE])))

    async def _learn_limits(self, now_ns: int) -> None:
        asked_ns = self._limits_asked_ns
        if asked_ns is None or not 0 <= now_ns - asked_ns < _LIMITS_AGE_NS:
            await self._api.ask_limits(now_ns)
            self._limits_asked_ns = now_ns

    def _whole(self, stream: LogStream, countries: Countries) -> WholeTally:
        return WholeTally(stream, countries, ingress_host=self._settings.ingress_host)

    def _slotted(self, stream: LogStream, countries: Countries) -> SlottedTally:
        return SlottedTally(stream, countries, ingress_host=self._settings.ingress_host)

    def _settled(
        self, facts: F, lines: tuple[int, int], span: Span, survey: Survey, now_ns: int
    ) -> Outcome[F]:
        return settle(
            facts,
            origin=ORIGIN,
            asked=span,
            now_ns=now_ns,
            gaps=survey.gaps,
            doubts=[*failures(survey.reasons), *sorted(survey.doubts), *not_understood(*lines)],
            notes=[MAY_GROW] if survey.may_grow else [],
        )


def _of_service(log: CallLog, service: str, *, users: bool) -> ServiceCount:
    calls: Counter[Kind] = Counter()
    callers = set()
    for key, count in log.tallies.items():
        if key.service == service:
            calls[key.kind] += count
            callers.add(key.user)
    return ServiceCount(calls=dict(calls), users=frozenset(callers) if users else frozenset())


def _of_whole(log: CallLog) -> tuple[int, int]:
    return log.lines_seen, log.lines_understood


def queries(settings: LokiSettings) -> dict[LogStream, LogQuery]:
    """Each stream's query; raises SettingsError for a template that is none."""
    exposed_query = settings.exposed_query
    if settings.ingress_host and exposed_query == EXPOSED_QUERY:
        exposed_query = EXPOSED_QUERY_WITH_HOSTS
    return {
        LogStream.EXECUTIONS: _query(
            "LOKI_QUERY", settings.query, namespace=settings.namespace, app=settings.app
        ),
        LogStream.EXPOSED: _query(
            "LOKI_EXPOSED_QUERY",
            exposed_query,
            namespace=settings.exposed_namespace,
            app=settings.exposed_app,
            ingress_host=settings.ingress_host,
        ),
    }


def _query(setting: str, template: str, **values: str) -> LogQuery:
    try:
        return parse_template(template, values)
    except ValueError as exc:
        raise SettingsError(setting, str(exc)) from None
