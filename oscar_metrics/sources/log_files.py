"""Log files as a request log: a glob of plain and gzip files, read in one pass for both logs.

All files of the glob are one log: the same line at the same time counts once, also where
archives overlap or a file lies beside its compressed copy.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from oscar_metrics.facts import CallLog, LogStream, SlottedLog
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Outcome,
    Unavailable,
    join_gaps,
    not_understood,
    settle,
)
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.line_sieve import whole_slots
from oscar_metrics.sources.log_archive import Archive, joined, matching
from oscar_metrics.sources.log_reading import Reading, ReadingLimits, Tally, WholeTally
from oscar_metrics.sources.slotted_tallying import SlottedTallier, lines_of
from oscar_metrics.timerange import SECOND_NS, SLOT_NS, Span, format_instant, subtract

F = TypeVar("F")
T = TypeVar("T")
C = TypeVar("C", bound=Tally)

_ORIGIN = "log-files"
_SETTING = "OSCAR_METRICS_LOG_FILES"
_NAMED_FILES = 10
_WRITERS = {
    LogStream.EXECUTIONS: "OSCAR's manager (executions)",
    LogStream.EXPOSED: "a gateway's access log (exposed requests)",
}


class LogFilesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which files are read."""

    # A glob of log files, `**` for any depth; blank for none.
    pattern: str = ""
    # The base host under which exposed services have hosts of their own; blank for none.
    ingress_host: str = ""
    # Reports that may read files at a time; each takes a thread and up to 100 MB, others wait.
    readers: Annotated[int, Meta(ge=1, le=64)] = 2
    limits: ReadingLimits = ReadingLimits()


class LogFiles:
    """Counts the calls in the files of one glob."""

    origin = _ORIGIN

    def __init__(self, settings: LogFilesSettings) -> None:
        self._settings = settings
        self._archive = Archive(
            lambda: matching(settings.pattern),
            files_max=settings.limits.files,
            slack_ns=settings.limits.slack_seconds * SECOND_NS,
        )
        self._readers = asyncio.Semaphore(settings.readers)

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]:
        """The calls that the files hold for `span`, for each of the asked logs.

        At the deadline the outcome is what was read until then; the rest is a gap.
        """
        host = self._settings.ingress_host
        tallies = {stream: WholeTally(stream, countries, ingress_host=host) for stream in streams}
        reading = await self._read(span, tallies, slotted=False, deadline=deadline)
        return {stream: self._outcome(reading, stream, now_ns) for stream in streams}

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        """The same by parts of quarter-hours; calls without a time are in none, but in doubt."""
        host = self._settings.ingress_host
        tallies = {
            stream: SlottedTallier(stream, countries, ingress_host=host) for stream in streams
        }
        reading = await self._read(span, tallies, slotted=True, deadline=deadline)
        return {stream: self._slotted(reading, stream, now_ns) for stream in streams}

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:  # noqa: ARG002 - what every log source is asked
        """Not known: files stay until somebody removes them."""
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        """What an operator should know of the files, from samples of their lines."""
        return await asyncio.to_thread(self._check, now_ns)

    async def _read(
        self,
        span: Span,
        tallies: Mapping[LogStream, C],
        *,
        slotted: bool,
        deadline: float | None,
    ) -> Reading[C]:
        reading = Reading(
            span,
            tallies,
            slotted=slotted,
            limits=self._settings.limits,
            ingress_host=self._settings.ingress_host,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline), self._readers:
                await in_thread(lambda stop: reading.run(self._archive, stop))
        return reading

    def _outcome(
        self, reading: Reading[WholeTally], stream: LogStream, now_ns: int
    ) -> Outcome[CallLog]:
        tallied = reading.tallies[stream].result()
        log = CallLog(
            tallies=tallied.tallies,
            lines_seen=tallied.lines_seen + reading.untimed[stream],
            lines_understood=tallied.lines_understood,
        )
        doubts = not_understood(log.lines_seen, log.lines_understood)
        return self._settled(log, log.lines_seen, doubts, reading, stream, now_ns)

    def _slotted(
        self, reading: Reading[SlottedTallier], stream: LogStream, now_ns: int
    ) -> Outcome[SlottedLog]:
        slotted = reading.tallies[stream].result()
        seen, understood = lines_of(slotted)
        untimed = reading.untimed[stream]
        doubts = not_understood(seen, understood) + _without_time(untimed)
        return self._settled(slotted, seen + untimed, doubts, reading, stream, now_ns)

    def _settled(
        self,
        facts: F,
        lines_seen: int,
        doubts: list[str],
        reading: Reading[C],
        stream: LogStream,
        now_ns: int,
    ) -> Outcome[F]:
        unread = Span(reading.read_up_to_ns, reading.span.stop_ns)
        gaps = [Gap(span=unread, reason=GapReason.DEADLINE), *_silent(reading, stream, unread)]
        if why_not := self._why_not(reading, stream, lines_seen):
            known = join_gaps(gaps, reading.span) if reading.files else ()
            notes = (why_not, *_file_doubts(reading))
            return Unavailable(origin=_ORIGIN, notes=notes, gaps=tuple(known))
        newest = reading.met.get(stream)
        return settle(
            facts,
            origin=_ORIGIN,
            asked=reading.span,
            now_ns=now_ns,
            gaps=gaps,
            doubts=[*doubts, *_order_doubts(reading, stream), *_file_doubts(reading)],
            notes=_notes(reading, stream),
            last_updated_ns=newest.stop_ns if newest else None,
        )

    def _why_not(self, reading: Reading[C], stream: LogStream, lines_seen: int) -> str:
        """Why the files say nothing of a log at all; blank when they do."""
        if not reading.finished:
            nothing = reading.read_up_to_ns <= reading.span.start_ns
            return f"log files {GapReason.DEADLINE}" if nothing else ""
        if not self._settings.pattern:
            return f"no log files are configured ({_SETTING})"
        if not reading.files:
            return f"{_SETTING} matches no file"
        if stream not in reading.met and not lines_seen:
            return f"none of the files holds lines of {_WRITERS[stream]}"
        return ""

    def _check(self, now_ns: int) -> list[Finding]:
        if not self._settings.pattern:
            return [_finding(Level.PROBLEM, "no log files are configured", f"set {_SETTING}")]
        files, left_out = self._archive.files()
        if not files:
            return [_finding(Level.PROBLEM, "matches no file", f"correct {_SETTING}, a glob")]
        findings = []
        if left_out:
            says = f"{left_out:,} files are too many and will be left out"
            findings.append(_finding(Level.PROBLEM, says, "make the glob narrower"))
        met: dict[LogStream, Span] = {}
        unreadable: list[str] = []
        for file in files:
            facts = self._archive.facts(file)
            met = joined(met, facts.sampled)
            if file.version is None or facts.start_ns < 0:
                unreadable.append(file.name)
        if unreadable:
            says = f"no log line could be read from {', '.join(unreadable[:_NAMED_FILES])}"
            if (more := len(unreadable) - _NAMED_FILES) > 0:
                says += f" and {more:,} more"
            findings.append(_finding(Level.WARNING, says, "check that they are log files"))
        findings.append(_finding(Level.OK, f"{len(files):,} files"))
        return findings + [_stream_finding(stream, met.get(stream), now_ns) for stream in LogStream]


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread; when cancelled, tell it to stop and wait until it has."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([task])
        raise


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_ORIGIN, level=level, says=says, change=change)


def _stream_finding(stream: LogStream, met: Span | None, now_ns: int) -> Finding:
    if met is None:
        says = f"samples of the files show no lines of {_WRITERS[stream]}"
        return _finding(Level.WARNING, says, "add the files that hold them")
    first, last = format_instant(met.start_ns), format_instant(min(met.stop_ns - 1, now_ns))
    # Of a compressed file only the beginning is sampled, so there may be but one time.
    to = "" if first == last else f" to {last}"
    says = f"lines of {_WRITERS[stream]}, among them samples of {first}{to}"
    return _finding(Level.OK, says)


def _silent(reading: Reading[C], stream: LogStream, unread: Span) -> list[Gap]:
    """The slots that were read and in which a log shows no line at all."""
    alive = [Span(slot * SLOT_NS, (slot + 1) * SLOT_NS) for slot in reading.sieve.slots(stream)]
    silent = subtract(whole_slots(reading.span), [*alive, unread])
    return [Gap(span=span, reason=GapReason.NO_LINES) for span in silent]


def _without_time(lines: int) -> list[str]:
    return [f"{lines:,} lines recognised as calls have no time that can be read"] if lines else []


def _order_doubts(reading: Reading[C], stream: LogStream) -> list[str]:
    if not reading.disordered[stream]:
        return []
    return ["some lines stand far from their place in time: copies of them may have been counted"]


def _file_doubts(reading: Reading[C]) -> list[str]:
    doubts = reading.problems[:_NAMED_FILES]
    if (more := len(reading.problems) - len(doubts)) > 0:
        doubts.append(f"and {more:,} more such findings in files")
    if reading.left_out:
        doubts.append(f"{reading.left_out:,} files were left out: {_SETTING} matches too many")
    return doubts


def _notes(reading: Reading[C], stream: LogStream) -> list[str]:
    notes = []
    if reading.passed_over:
        notes.append(
            f"{reading.passed_over:,} of {reading.files:,} files were passed over: "
            "their lines are from before or after the range"
        )
    if repeated := reading.recent[stream].repeated:
        notes.append(f"{repeated:,} lines were copies of others and not counted again")
    return notes
