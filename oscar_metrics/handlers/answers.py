"""Answers report routes: from what is kept, with what is being made for others, or made now.

A report is made once for all who ask the same at the same time, when its lane has a place; if
what is made says less than what is kept, because a source fails now, what is kept stands in.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from msgspec.structs import replace

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.errors import NotNow, RequestError
from oscar_metrics.handlers import audit, time_limits
from oscar_metrics.handlers.answer import (
    Answer,
    Notes,
    Question,
    Reported,
    all_failing,
    standing_in,
    worse,
    written,
)
from oscar_metrics.handlers.fields import field, fields
from oscar_metrics.handlers.kept_answers import Kept, KeptAnswers
from oscar_metrics.handlers.query import Query
from oscar_metrics.handlers.sent import Sent
from oscar_metrics.handlers.shared_answers import SharedAnswers
from oscar_metrics.handlers.streamed import Streamed
from oscar_metrics.handlers.time_limits import TimeLimit
from oscar_metrics.resilience.flights import Flights
from oscar_metrics.resilience.lanes import LaneName, Lanes
from oscar_metrics.resilience.report_cache import CacheSettings, Freshness, Made
from oscar_metrics.tasks import worked_out
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS, Span
from oscar_metrics.wire import SourceName, SourceStatus

AnyRequest = Request[Any, Any, Any]
# Makes a report by a deadline (an event loop's time), and notes what its log line says of it.
Make = Callable[[float | None, Notes], Awaitable[Reported]]

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# Reports that are made anew at a time while what is kept of them is shown.
_REFRESHED_AT_ONCE = 4
_MADE = "made"
_FROM_KEPT = frozenset(Freshness)
# The client may keep it, and asks each time whether it still holds.
_CONTROL = {"cache-control": "private, no-cache"}
_RAW_CONTROL = (b"cache-control", b"private, no-cache")


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """How a report is made of a request that was looked at; no `span` where that is not known."""

    make: Make
    span: Span | None


class _Flown(msgspec.Struct, frozen=True, kw_only=True):
    """What work that was shared came to, and what log lines of those who waited say of it."""

    notes: Notes
    came: str = _MADE
    answer: Answer | None = None
    streamed: Reported | None = None
    error: RequestError | None = None


class Answers:
    """One server's, made once at start-up; it answers within `running`."""

    def __init__(
        self,
        aggregator: Aggregator,
        lanes: Lanes,
        settings: CacheSettings,
        telemetry: Telemetry,
        shared: SharedAnswers | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._lanes = lanes
        self._settings = settings
        self._telemetry = telemetry
        self._kept = KeptAnswers(aggregator, settings, telemetry, shared)
        self._group: asyncio.TaskGroup | None = None
        self._flights: Flights[_Flown] | None = None
        self._refreshing: set[Question] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within the block reports are made; what is under way at its end is ended."""
        async with self._kept.running(), asyncio.TaskGroup() as group:
            self._group, self._flights = group, Flights(group)
            try:
                yield
            finally:
                self._flights.end()

    async def answer(
        self,
        request: AnyRequest,
        query: Query,
        question: Question,
        prepare: Callable[[], Prepared],
    ) -> Response[bytes]:
        """The answer to a question, of which a request is prepared for where it is not kept.

        Raises what preparing and making it do, and NotNow where too many reports are asked for
        at once.
        """
        limit = time_limits.applied(request)
        wait_seconds = limit.wait_seconds
        afresh = _is_to_be_afresh(request)

        async def made_anew() -> _Flown:
            everyones = TimeLimit(wait_seconds=None, deadline=self._aggregator.deadline())
            return await self._made(question, prepare(), everyones, afresh=False)

        now_ns = self._aggregator.now_ns()
        if not afresh and not query.is_refused:
            shown = self._shown(question, wait_seconds, made_anew, now_ns)
            if shown is not None:
                return self._sent(request, query, shown, now_ns)
        prepared = prepare()
        if self._flights is None:
            raise RuntimeError("reports are made within `running`")

        async def made() -> _Flown:
            return await self._made(question, prepared, limit, afresh=afresh)

        key = self._key(question, wait_seconds, afresh=afresh)
        is_shared = key in self._flights
        if not is_shared and not self._kept.may_have(question):
            # With so many at once that some are refused, the less is done for those the better.
            self._lanes.refuse_if_full(self._lane(prepared))
        flown = await self._flights.shared(key, made)
        if is_shared and flown.came == _MADE:
            flown = replace(flown, came="shared")
        return self._sent(request, query, flown, self._aggregator.now_ns())

    def _shown(
        self,
        question: Question,
        wait_seconds: int | None,
        work: Callable[[], Awaitable[_Flown]],
        now_ns: int,
    ) -> _Flown | None:
        """What can be answered without making anything, which may be begun for the next one."""
        kept = self._kept.get(question)
        if kept is None or self._kept.is_cut_short(kept, wait_seconds):
            return None
        good_for = self._kept.good_for(kept, now_ns)
        since_ns = now_ns - kept.tried_at_ns
        open_ns = self._settings.open_seconds * SECOND_NS
        was_just_tried = kept.instead is not None and 0 <= since_ns < open_ns
        if good_for is Freshness.FRESH or good_for is Freshness.STALE:
            if good_for is Freshness.STALE and not was_just_tried:
                self._refresh(question, work)
            return _Flown(notes=kept.answer.notes, came=good_for, answer=kept.answer)
        if good_for is None or kept.instead is None:
            return None
        # Less than nothing: the clock was set back.
        if not 0 <= since_ns < open_ns + self._settings.revalidate_seconds * SECOND_NS:
            return None
        if not was_just_tried:
            self._refresh(question, work)
        return _Flown(notes=_notes(kept.instead), came=Freshness.OLD, answer=kept.instead)

    async def _made(
        self,
        question: Question,
        prepared: Prepared,
        limit: TimeLimit,
        *,
        afresh: bool,
    ) -> _Flown:
        notes: Notes = {}
        allowed = self._aggregator.seconds_allowed(limit.wait_seconds)
        changes = self._aggregator.ledger_changes()
        version = await self._kept.version()
        found = None if afresh else await self._kept.find(question, changes, version)
        if found is not None and not self._kept.is_cut_short(found, limit.wait_seconds):
            good_for = self._kept.good_for(found, self._aggregator.now_ns())
            if good_for is Freshness.FRESH:
                return _Flown(notes=found.answer.notes, came=good_for, answer=found.answer)
        try:
            flown = await self._worked(prepared, limit.deadline, allowed, notes)
        except RequestError as exc:
            flown = _Flown(notes=notes, error=exc)
        if flown.streamed is not None:
            return flown
        kept, now_ns = self._kept.get(question), self._aggregator.now_ns()
        if kept is not None and self._kept.good_for(kept, now_ns) is not None:
            failed = _failed(kept.answer, flown)
            if failed and not afresh:
                kept = replace(kept, tried_at_ns=now_ns, tried_seconds=allowed)
                return await self._stood_in(question, kept, failed, now_ns)
            if failed:
                return flown
        if flown.answer is not None:
            made = Kept(answer=flown.answer, changes=changes)
            self._kept.put_everywhere(question, made, version)
        elif flown.error is not None and not isinstance(flown.error, NotNow):
            await self._kept.drop(question, version, may_be_outside=kept is not None or afresh)
        return flown

    async def _stood_in(
        self,
        question: Question,
        kept: Kept,
        failed: Mapping[SourceName, SourceStatus],
        now_ns: int,
    ) -> _Flown:
        """What is kept, saying what failed; for some seconds nobody tries again."""
        answer = kept.answer
        instead = await worked_out(
            lambda: standing_in(answer, failed, now_ns=now_ns), rows=len(answer.body) // 64
        )
        now = self._kept.get(question)
        if now is not None and now.answer is answer:
            self._kept.put(question, replace(kept, instead=instead))
        return _Flown(notes=_notes(instead), came=Freshness.OLD, answer=instead)

    async def _worked(
        self, prepared: Prepared, deadline: float | None, allowed: float | None, notes: Notes
    ) -> _Flown:
        async with self._lanes.place(self._lane(prepared), deadline):
            made_ns = self._aggregator.now_ns()
            reported = await prepared.make(deadline, notes)
            if self._lanes.is_streamed(reported.rows):
                return _Flown(notes=notes, streamed=reported)
            fresh_seconds = reported.fresh_seconds(self._settings, made_ns)
            made = Made(at_ns=made_ns, fresh_seconds=fresh_seconds, allowed_seconds=allowed)
            answer = await worked_out(
                lambda: written(reported, notes, made=made), rows=reported.rows
            )
            return _Flown(notes=notes, answer=answer)

    def _lane(self, prepared: Prepared) -> LaneName:
        has_ledger = self._aggregator.ledger_changes() is not None
        return self._lanes.of(prepared.span, has_ledger=has_ledger)

    def _key(self, question: Question, wait_seconds: int | None, *, afresh: bool) -> Hashable:
        """What those ask who share one flight: none that was begun before a user was forgotten."""
        return question, wait_seconds, afresh, self._kept.forgettings()

    def _refresh(self, question: Question, work: Callable[[], Awaitable[_Flown]]) -> None:
        """Have it made anew for who asks next, unless that is under way."""
        if self._group is None or self._flights is None:
            return
        if question in self._refreshing or len(self._refreshing) >= _REFRESHED_AT_ONCE:
            return
        self._refreshing.add(question)
        self._group.create_task(self._refreshed(question, self._flights, work))

    async def _refreshed(
        self, question: Question, flights: Flights[_Flown], work: Callable[[], Awaitable[_Flown]]
    ) -> None:
        try:
            await flights.shared(self._key(question, None, afresh=False), work)
        except RequestError:
            pass  # the server is stopping, or who asks next is told what is wrong
        except Exception:  # noqa: BLE001 - nobody waits for it; who asks next is told
            _log.exception("a kept report could not be made anew", route=question.route)
        finally:
            self._refreshing.discard(question)

    def _sent(
        self, request: AnyRequest, query: Query, flown: _Flown, now_ns: int
    ) -> Response[bytes]:
        """The response, with what the log and the metrics say of it; raises the error."""
        audit.note(request, **flown.notes)
        if flown.error is not None:
            # Many may be told the same, each without where it was raised for the others.
            raise flown.error.with_traceback(None)
        ignored = query.ignored_header()
        if flown.streamed is not None:
            pieces = self._lanes.stream(flown.streamed.pieces())
            self._note_came(request, flown)
            return Streamed(pieces, {**_CONTROL, **ignored, **flown.streamed.headers()})
        answer = flown.answer
        if answer is None:
            raise RuntimeError("neither an answer nor an error")
        self._note_came(request, flown)
        headers = [*answer.raw_headers, _RAW_CONTROL]
        headers += [(name.lower().encode(), value.encode()) for name, value in ignored.items()]
        if flown.came in _FROM_KEPT:
            headers.append((b"age", b"%d" % answer.age_seconds(now_ns)))
        if _is_known(request, answer.headers["etag"]):
            headers = [each for each in headers if each[0] != b"content-type"]
            return Sent(b"", headers, HTTPStatus.NOT_MODIFIED)
        return Sent(answer.body, headers)

    def _note_came(self, request: AnyRequest, flown: _Flown) -> None:
        self._telemetry.answers.labels(flown.came).inc()
        audit.note(request, came=flown.came)


def _notes(old: Answer) -> Notes:
    """What the log line says of an answer that stands in: what is known of its sources now."""
    return {**old.notes, "completeness": audit.completeness(old.sources)}


def _failed(kept: Answer, flown: _Flown) -> dict[SourceName, SourceStatus]:
    """Which sources of what is kept fail now, where what was made says less.

    None where what is kept says nothing, or is of what is not to be seen any more.
    """
    if not kept.says_anything:
        return {}
    if isinstance(flown.error, NotNow):
        return all_failing(kept, _says_of(flown.error))
    if flown.answer is None or flown.answer.sees != kept.sees:
        return {}
    return worse(kept, flown.answer.sources)


def _says_of(exc: NotNow) -> str:
    """Why there is no report, in one sentence."""
    return f"{exc.text}: {exc.detail}" if exc.detail else exc.text


def _is_to_be_afresh(request: AnyRequest) -> bool:
    """Whether the client wants nothing that is kept (RFC 9111 5.2.1.4, and 5.4 for `Pragma`)."""
    control = ",".join(fields(request.scope, b"cache-control"))
    if not control:
        return "no-cache" in field(request.scope, b"pragma").lower()
    directives = {part.partition("=")[0].strip().lower() for part in control.split(",")}
    return not directives.isdisjoint({"no-cache", "no-store"})


def _is_known(request: AnyRequest, etag: str) -> bool:
    """Whether the client has these bytes already (RFC 9110 13.1.2)."""
    known = ",".join(fields(request.scope, b"if-none-match"))
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in known.split(","))
