"""A report as it is sent, and the one that stands in when a source fails. Pure."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from oscar_metrics import wire
from oscar_metrics.errors import REASON_TEXT
from oscar_metrics.handlers.csv import completeness_header, csv_pieces, file_name
from oscar_metrics.handlers.pieces import json_pieces, rows_of
from oscar_metrics.outcome import FAILING, GapReason
from oscar_metrics.resilience.report_cache import CacheSettings, Made
from oscar_metrics.scope import Viewer
from oscar_metrics.sources.keycloak_api import ORIGIN as KEYCLOAK
from oscar_metrics.sources.keycloak_people import STILL_READING
from oscar_metrics.timerange import (
    HOUR_NS,
    SECOND_NS,
    Span,
    format_instant,
    inclusive_stop,
    parse_instant,
)
from oscar_metrics.wire import SourceName, SourceState, SourceStatus, WireGap

Report = wire.Value | wire.ServiceMetrics | wire.Summary | wire.Breakdown
# Fields of the request's line in the log.
Notes = dict[str, Any]

# One that ended so long ago hardly changes: what its lines are late by.
_SETTLED_NS = HOUR_NS
# They rest on files beside us, which do not come and go, but for users who come from elsewhere.
_FROM_FILES = frozenset({SourceName.COUNTRIES, SourceName.ROSTER})
_ELSEWHERE = frozenset({KEYCLOAK})
# What the roster says while some users cannot be read, others may be there, and no time is missing.
_USERS_TO_COME = frozenset(
    {STILL_READING, *(f"{KEYCLOAK} {text}" for text in REASON_TEXT.values())}
)
# Those that speak for stretches of time.
_IN_TIME = frozenset({SourceName.USAGE, SourceName.REQUEST_LOGS, SourceName.EXPOSED_REQUEST_LOGS})
# As completeness.sentence puts them.
_BETWEEN_NOTES = "; "
_BETTER = (SourceState.MISSING, SourceState.PARTIAL, SourceState.OK)


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked by whom: equal ones have one answer.

    `service` is that of the path. `parameters` are those the route knows, as they were written;
    `form` is what the answer is written as, where there is a choice.
    """

    route: str
    service: str
    viewer: Viewer
    parameters: tuple[tuple[str, str], ...]
    form: str

    @property
    def size_bytes(self) -> int:
        """About how much memory what the client wrote takes."""
        texts = (self.service, self.viewer.owner, self.form, *(text for _, text in self.parameters))
        return sum(map(sys.getsizeof, texts))


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """What a report route has made: the report over a span, and how it is to be written."""

    report: Report
    sources: tuple[SourceStatus, ...]
    span: Span
    # Whether all of a cluster is seen, or what one user may see; and which deployed services
    # these are, in a digest.
    sees_everything: bool
    sees: str = ""
    csv: bool = False
    raw: bool = False

    @property
    def rows(self) -> int:
        """How large it is."""
        return rows_of(self.report) if isinstance(self.report, wire.Summary | wire.Breakdown) else 1

    def pieces(self) -> Generator[bytes, None, None]:
        """Its text, piece by piece."""
        if self.csv and isinstance(self.report, wire.Breakdown):
            yield from csv_pieces(self.report, raw=self.raw)
        elif isinstance(self.report, wire.Summary | wire.Breakdown):
            yield from json_pieces(self.report)
        else:
            yield msgspec.json.encode(self.report)

    def headers(self) -> dict[str, str]:
        """What goes with its text, in lower case."""
        if not isinstance(self.report, wire.Breakdown):
            return {"content-type": "application/json", "vary": "Authorization"}
        headers = {"vary": "Accept, Authorization"}
        if not self.csv:
            return {**headers, "content-type": "application/json"}
        return {
            **headers,
            "content-type": "text/csv",
            "content-disposition": f'attachment; filename="{file_name(self.report)}"',
            "x-completeness": completeness_header(self.sources),
        }

    def fresh_seconds(self, settings: CacheSettings, made_ns: int) -> int:
        """How long it is fresh, while what it rests on does not change."""
        settled = self.span.stop_ns <= made_ns - _SETTLED_NS
        to_come = any(_may_recover(source) or _lacks_users(source) for source in self.sources)
        if not settled or to_come:
            return settings.open_seconds
        if not self.sees_everything:
            return min(settings.closed_seconds, settings.user_seconds)
        return settings.closed_seconds


class Answer(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A report as it is sent, and what is known of it."""

    body: bytes
    headers: dict[str, str]
    sources: tuple[SourceStatus, ...]
    notes: Notes
    made: Made
    span: Span
    # Which deployed services it is of, in a digest; blank for all.
    sees: str

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return len(self.body) + sum(
            256 + len(source.notes or "") + 128 * len(source.gaps) for source in self.sources
        )

    @property
    def says_anything(self) -> bool:
        """Whether its range had begun when it was made: else its zeros say nothing."""
        return self.span.start_ns < self.made.at_ns

    @functools.cached_property
    def raw_headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as ASGI has them, names in lower case; to be copied, not changed."""
        return [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in self.headers.items()
        ]

    @functools.cached_property
    def may_say_more(self) -> bool:
        """Whether a source fails of which there may be more a moment later."""
        return any(map(_may_recover, self.sources))

    def age_seconds(self, now_ns: int) -> int:
        """How long ago it was made."""
        return max(0, (now_ns - self.made.at_ns) // SECOND_NS)


def written(reported: Reported, notes: Notes, *, made: Made) -> Answer:
    """The answer with all of a report's text."""
    body = b"".join(reported.pieces())
    return Answer(
        body=body,
        headers={**reported.headers(), "etag": _etag(body)},
        sources=reported.sources,
        notes=notes,
        made=made,
        span=reported.span,
        sees=reported.sees,
    )


def worse(older: Answer, newer: tuple[SourceStatus, ...]) -> dict[SourceName, SourceStatus]:
    """The sources that say less than they did, because they fail now; as they are now.

    One that says less for another reason, that its logs do not reach back so far any more, say,
    is not among them.
    """
    before = {source.name: source for source in older.sources}
    return {
        source.name: source
        for source in newer
        if source.name in before and _fails_more(before[source.name], source)
    }


def standing_in(older: Answer, failed: Mapping[SourceName, SourceStatus], *, now_ns: int) -> Answer:
    """An older answer that says of which sources, and since when, nothing newer is known.

    Where its range goes on after it was made, what they would say of the rest is a gap.
    """

    def of(source: SourceStatus) -> SourceStatus:
        if source.name not in failed or source.status is SourceState.MISSING:
            return source
        return _as_of_then(source, failed[source.name], older, now_ns)

    told = tuple(map(of, older.sources))
    headers = dict(older.headers)
    if headers["content-type"] == "application/json":
        body = _with_sources(older.body, of, _unseen(older.span, older, now_ns))
    else:
        body = older.body
        headers["x-completeness"] = completeness_header(told)
        changed = [now for now, then in zip(told, older.sources, strict=True) if now is not then]
        if any(source.status is not SourceState.OK for source in changed):
            name = headers["content-disposition"].removesuffix('.csv"').removesuffix("-partial")
            headers["content-disposition"] = f'{name}-partial.csv"'
    headers["etag"] = _etag(body)
    return msgspec.structs.replace(older, body=body, headers=headers, sources=told)


def all_failing(older: Answer, says: str) -> dict[SourceName, SourceStatus]:
    """Its sources, each missing now for one reason."""
    return {
        source.name: SourceStatus(
            name=source.name,
            status=SourceState.MISSING,
            notes=says,
            origin=source.origin,
            coverage=0.0,
            gaps=(),
            affects=source.affects,
        )
        for source in older.sources
    }


def _may_recover(source: SourceStatus) -> bool:
    """Whether a source may say more a moment later; one nobody has configured will not."""
    if source.name in _FROM_FILES and not _ELSEWHERE & set(source.origin.split("+")):
        return False
    if source.status is SourceState.MISSING:
        return bool(source.origin)
    return any(gap.reason in FAILING for gap in source.gaps)


def _lacks_users(source: SourceStatus) -> bool:
    """Whether users are missing, or those of before, that may be there a moment later."""
    if source.name is not SourceName.ROSTER or source.notes is UNSET:
        return False
    return not _USERS_TO_COME.isdisjoint(source.notes.split(_BETWEEN_NOTES))


def _fails_more(before: SourceStatus, after: SourceStatus) -> bool:
    # What fails may be of no concern to this report.
    if not after.affects or not _may_recover(after):
        return False
    if before.status is not after.status:
        return _BETTER.index(after.status) < _BETTER.index(before.status)
    return after.coverage < before.coverage


def _as_of_then(
    before: SourceStatus, now: SourceStatus, older: Answer, now_ns: int
) -> SourceStatus:
    made_ns = older.made.at_ns
    since = f"{older.age_seconds(now_ns)} seconds before {format_instant(now_ns)}"
    said = [] if before.notes is UNSET else before.notes.split(_BETWEEN_NOTES)
    says = [] if now.notes is UNSET else now.notes.split(_BETWEEN_NOTES)
    new = _BETWEEN_NOTES.join(note for note in says if note not in said)
    note = f"as of {format_instant(made_ns)}, {since}: {new or 'it says less now'}"
    notes = _BETWEEN_NOTES.join([*said, note])
    unseen = _unseen(older.span, older, now_ns)
    if not unseen.length_ns:
        return msgspec.structs.replace(before, notes=notes)
    asked_ns = min(older.span.stop_ns, now_ns) - older.span.start_ns
    gap = WireGap(
        start=format_instant(unseen.start_ns),
        end=format_instant(unseen.stop_ns),
        reason=GapReason.FAILED,
    )
    return msgspec.structs.replace(
        before,
        status=SourceState.PARTIAL,
        notes=notes,
        coverage=before.coverage * (1 - unseen.length_ns / asked_ns),
        gaps=(*before.gaps, gap),
        affects=_affected(before, now),
    )


def _unseen(span: Span, older: Answer, now_ns: int) -> Span:
    """What of a span was over by now, and was not when the answer was made."""
    return span.clip(Span(older.made.at_ns, max(older.made.at_ns, now_ns)))


def _affected(before: SourceStatus, now: SourceStatus) -> tuple[str, ...]:
    """Every field of a source: those of both hours, also where one failed only."""
    told = (*before.affects, *now.affects)
    cpu = (field.replace("gpu", "cpu", 1) for field in told)
    gpu = (field.replace("cpu", "gpu", 1) for field in told)
    return tuple(dict.fromkeys((*told, *cpu, *gpu)))


def _with_sources(body: bytes, of: Callable[[SourceStatus], SourceStatus], unseen: Span) -> bytes:
    """JSON of a report in which sources say something else, those that fail nothing of `unseen`."""
    report = msgspec.json.decode(body)
    for part in (report, *report.get("metrics", ())):
        if "sources" in part:
            part["sources"] = [of(msgspec.convert(said, SourceStatus)) for said in part["sources"]]
    if unseen.length_ns:
        gaps = [source for source in report.get("sources", ()) if _has_gap(source, unseen)]
        for period in report.get("periods", ()):
            _see_nothing_of(unseen, period, gaps)
    return msgspec.json.encode(report)


def _has_gap(source: SourceStatus, unseen: Span) -> bool:
    start = format_instant(unseen.start_ns)
    return source.name in _IN_TIME and any(gap.start == start for gap in source.gaps)


def _see_nothing_of(unseen: Span, period: dict[str, Any], gaps: Sequence[SourceStatus]) -> None:
    """Have a period say which sources have a gap in it, and null where it is one."""
    start_ns = parse_instant(period["start"])
    span = Span(start_ns, inclusive_stop(parse_instant(period["end"])))
    if not span.clip(unseen).length_ns:
        return
    names = {*period["incomplete"], *(source.name for source in gaps)}
    period["incomplete"] = [name for name in SourceName if name in names]
    totals = period.get("totals", {})
    # Where nothing is null, what is deployed is not either, of which no period knows.
    if start_ns < unseen.start_ns or totals.get("services_count_active", 0) is not None:
        return
    for source in gaps:
        for name in source.affects:
            if isinstance(totals.get(name), int | float):
                totals[name] = None


def _etag(body: bytes) -> str:
    """A strong validator (RFC 9110 8.8.1): the same bytes, the same tag."""
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
