"""Imports archives of logs: one pass over the files, then one candidate for each hour.

The files are read interleaved by time, so that a line which several of them hold counts
once; what was counted goes to the store in batches, and nothing is sealed before all of
them are read.
"""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import CallKey, LogStream, SlotPart
from oscar_metrics.ledger.numbering import Numbering
from oscar_metrics.ledger.seals import KIND_OF, Candidate, Judged, SealKind, Verdict
from oscar_metrics.ledger.store import Import, LedgerStore, NumberedCalls, Progress
from oscar_metrics.outcome import Gap, GapReason, not_understood
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.log_archive import Archive
from oscar_metrics.sources.log_files import in_thread
from oscar_metrics.sources.log_reading import Reading, ReadingLimits
from oscar_metrics.tasks import task_group
from oscar_metrics.timerange import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    SLOT_NS,
    Span,
    format_instant,
    merge,
    subtract,
)

ORIGIN = "log-archive"
# Blocks read before what was counted is handed to the store: some 100,000 lines, or 20 MB.
_BATCH_BLOCKS = 60
# What ended less than a day ago is looked at once more then: other sources may know more.
_MAY_GROW_NS = DAY_NS
# Hours without a line are sealed as such between lines of one file, but no longer stretch of
# them: a single line with a wrong time must not fill years with silence.
_SILENT_HOURS_MOST = 7 * 24
# The longest list in a report, and in an error.
_LISTED = 100
_FILES_NAMED = 5
_SLOTS = HOUR_NS // SLOT_NS
_DISORDERED = "lines stood far from their place in time: copies of them may have been counted"
_UNTIMED = "lines recognised as calls had no time that could be read"
_KNOWN_LOGS = (
    "OSCAR's manager ([GIN-EXECUTIONS-LOGGER] …), ingress-nginx or Traefik's JSON, plain or gzip"
)


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an import.

    `verdicts` counts hours by kind; `ambiguous`, `kept` and `refused` list such hours, the
    first 100 of each. `problems` are about single files, `doubts` about what was counted.
    `left_out_from` is the hour (RFC 3339) that was not over yet, if there were lines of it.
    """

    files: int
    lines_seen: int
    lines_understood: int
    copies: int
    verdicts: dict[SealKind, dict[Verdict, int]]
    ambiguous: tuple[Judged, ...] = ()
    kept: tuple[Judged, ...] = ()
    refused: tuple[Judged, ...] = ()
    left_out_from: str = ""
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


async def import_files(
    store: LedgerStore,
    files: Sequence[Path],
    countries: Countries,
    *,
    now_ns: Callable[[], int],
    ingress_host: str,
    limits: ReadingLimits,
    progress: Progress,
) -> ImportReport:
    """Seal what the files hold of hours that are over, where it is more than is sealed.

    `now_ns` is the clock: archives take long to read, and what is in them is known from the
    moment on when it is sealed.
    Raises LedgerError, with nothing sealed, where one of them is not there or cannot be
    read, and where no line of any is recognised.
    """
    total_bytes = await asyncio.to_thread(_size_of, files, limits.files)
    over_ns = now_ns() // HOUR_NS * HOUR_NS
    reader = _Reader(files, countries, Span(0, over_ns), ingress_host=ingress_host, limits=limits)
    importing = store.importing()
    try:
        async with task_group(LedgerError) as group:
            adding = None
            while await in_thread(reader.read_on):
                progress(reader.reading.bytes_read, total_bytes, "reading")
                batch = reader.take()
                if adding is not None:
                    await adding
                adding = group.create_task(_add(importing, batch))
    finally:
        reader.close()
    if not reader.reading.met and not reader.reading.untimed.total():
        nothing = f"no line of any file is of a log that is known: {_KNOWN_LOGS}"
        raise LedgerError("; ".join([nothing, *reader.reading.problems[:_FILES_NAMED]]))
    progress(total_bytes, total_bytes, "sealing")
    sealing_ns = now_ns()
    candidates = [
        candidate
        for stream in LogStream
        for candidate in _candidates(reader.reading, stream, sealing_ns)
    ]
    judged = await importing.seal(candidates, now_ns=sealing_ns)
    return _report(reader, judged, over_ns)


_Parts = dict[SlotPart, NumberedCalls]


async def _add(importing: Import, batch: dict[LogStream, tuple[list[CallKey], _Parts]]) -> None:
    for stream, (keys, parts) in batch.items():
        if parts:
            await importing.add(stream, keys, parts)


class _Reader:
    """Reads files in order of time, a batch at a time; each call in a thread."""

    def __init__(
        self,
        files: Sequence[Path],
        countries: Countries,
        span: Span,
        *,
        ingress_host: str,
        limits: ReadingLimits,
    ) -> None:
        self._numberings = {
            stream: Numbering(stream, countries, ingress_host=ingress_host) for stream in LogStream
        }
        self.reading = Reading(
            span, self._numberings, slotted=True, limits=limits, ingress_host=ingress_host
        )
        archive = Archive(
            lambda: files, files_max=limits.files, slack_ns=limits.slack_seconds * SECOND_NS
        )
        self._blocks = self.reading.blocks(archive, threading.Event())
        self.lines_seen = self.lines_understood = 0

    def read_on(self, stop: threading.Event) -> bool:
        """Read the next batch; whether there was any more."""
        blocks = 0
        for _ in self._blocks:
            blocks += 1
            if blocks == _BATCH_BLOCKS or stop.is_set():
                break
        return blocks > 0

    def take(self) -> dict[LogStream, tuple[list[CallKey], _Parts]]:
        """The keys of all calls so far, and the calls that were read since this was asked last."""
        batch = {}
        for stream, numbering in self._numberings.items():
            parts = numbering.take()
            self.lines_seen += sum(calls.lines_seen for calls in parts.values())
            self.lines_understood += sum(len(calls.numbers) for calls in parts.values())
            # A copy, since more may be met while these are written.
            batch[stream] = numbering.keys.copy(), parts
        return batch

    def close(self) -> None:
        """Let go of the files."""
        self._blocks.close()


def _size_of(files: Sequence[Path], most: int) -> int:
    """How many bytes there are to read; raises LedgerError for what cannot be."""
    if len(files) > most:
        raise LedgerError(f"{len(files):,} files are too many: import at most {most:,} at a time")
    size = 0
    problems = []
    for file in files:
        try:
            found = file.stat()
            if stat.S_ISDIR(found.st_mode):
                problems.append(f"{file} is a directory: name the files in it")
            elif not stat.S_ISREG(found.st_mode):
                problems.append(f"{file} is not a regular file")
            else:
                with file.open("rb"):
                    size += found.st_size
        except FileNotFoundError:
            problems.append(f"there is no file {file}")
        except PermissionError:
            problems.append(f"{file} may not be read by this user")
        except OSError:
            problems.append(f"{file} cannot be opened")
    if problems:
        left = len(problems) - _FILES_NAMED
        more = f"; and {left:,} more" if left > 0 else ""
        raise LedgerError("; ".join(problems[:_FILES_NAMED]) + more)
    return size


def _candidates(reading: Reading[Numbering], stream: LogStream, now_ns: int) -> Iterator[Candidate]:
    """A candidate for each hour in which the log has any line, and for those silent in between.

    Their calls are in the store. What is missing of an hour any other source may have, so an
    hour with gaps is not final.
    """
    slots = reading.sieve.slots(stream)
    broken = _broken(reading, stream)
    alive_hours = {slot // _SLOTS for slot in slots}
    silent_hours = _silent_hours(reading, stream, alive_hours)
    for hour in sorted(alive_hours | silent_hours):
        span = Span(hour * HOUR_NS, (hour + 1) * HOUR_NS)
        alive = [Span(slot * SLOT_NS, (slot + 1) * SLOT_NS) for slot in slots_of(hour) & slots]
        lost = broken.get(hour, [])
        gaps = [Gap(span=s, reason=GapReason.NO_LINES) for s in subtract(span, [*alive, *lost])]
        gaps += [Gap(span=s, reason=GapReason.UNREADABLE) for s in lost]
        doubts = [_DISORDERED] if hour in reading.disordered[stream] else []
        doubts += [_UNTIMED] if hour in reading.near_untimed[stream] else []
        again_ns = span.stop_ns + _MAY_GROW_NS
        may_grow = again_ns > now_ns or bool(gaps)
        yield Candidate(
            kind=KIND_OF[stream],
            hour=hour,
            origin=ORIGIN,
            gaps=tuple(sorted(gaps, key=lambda gap: gap.span)),
            doubts=tuple(doubts),
            next_look_ns=max(again_ns, now_ns) if may_grow else None,
            calls={},
        )


def _silent_hours(
    reading: Reading[Numbering], stream: LogStream, alive_hours: set[int]
) -> set[int]:
    """The hours that are over, lie between lines of one file, and have none of any."""
    spans = [found.met[stream] for found in reading.read_files if stream in found.met]
    between = merge(span.clip(reading.span) for span in spans)
    silent: set[int] = set()
    for earlier, later in pairwise(sorted(alive_hours)):
        if not 1 < later - earlier <= _SILENT_HOURS_MOST:
            continue
        within = Span((earlier + 1) * HOUR_NS, later * HOUR_NS)
        if any(within.clip(span) == within for span in between):
            silent.update(range(earlier + 1, later))
    return silent


def slots_of(hour: int) -> set[int]:
    """The numbers of the quarter-hours of an hour."""
    return set(range(hour * _SLOTS, (hour + 1) * _SLOTS))


def _broken(reading: Reading[Numbering], stream: LogStream) -> dict[int, list[Span]]:
    """What is not known of hours in which a file could not be read further."""
    broken: dict[int, list[Span]] = {}
    for found in reading.read_files:
        if found.broke_off_ns is not None and stream in found.met:
            hour = found.broke_off_ns // HOUR_NS
            broken.setdefault(hour, []).append(Span(found.broke_off_ns, (hour + 1) * HOUR_NS))
    return {hour: [min(spans)] for hour, spans in broken.items()}


def _report(reader: _Reader, judged: Iterable[Judged], over_ns: int) -> ImportReport:
    reading = reader.reading
    verdicts: dict[SealKind, dict[Verdict, int]] = {kind: {} for kind in KIND_OF.values()}
    listed: dict[Verdict, list[Judged]] = {verdict: [] for verdict in Verdict}
    for one in judged:
        counts = verdicts[one.kind]
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
        if one.verdict is Verdict.KEPT and not one.lines_seen:
            continue  # that silence has nothing to say is no news
        if len(listed[one.verdict]) < _LISTED:
            listed[one.verdict].append(one)
    left_out = any(met.stop_ns > over_ns for met in reading.met.values())
    seen, understood = reader.lines_seen, reader.lines_understood
    return ImportReport(
        files=reading.files,
        lines_seen=seen + reading.untimed.total(),
        lines_understood=understood,
        copies=sum(recent.repeated for recent in reading.recent.values()),
        verdicts=verdicts,
        ambiguous=tuple(listed[Verdict.AMBIGUOUS]),
        kept=tuple(listed[Verdict.KEPT]),
        refused=tuple(listed[Verdict.REFUSED]),
        left_out_from=format_instant(over_ns) if left_out else "",
        problems=tuple(_problems(reading)),
        doubts=tuple(_doubts(reading, seen, understood)),
    )


def _problems(reading: Reading[Numbering]) -> list[str]:
    problems = list(reading.problems)
    for found in reading.read_files:
        if found.untimed:
            problems.append(f"{found.name} has {found.untimed:,} calls without a time to be read")
        if not found.met and not found.untimed:
            problems.append(f"{found.name} has no line of a log that is known: {_KNOWN_LOGS}")
    if (more := len(problems) - _LISTED) > 0:
        problems[_LISTED:] = [f"and {more:,} more such findings"]
    return problems


def _doubts(reading: Reading[Numbering], seen: int, understood: int) -> list[str]:
    doubts = not_understood(seen, understood)
    if untimed := reading.untimed.total():
        doubts.append(f"{untimed:,} {_UNTIMED}, and are in no hour")
    if any(reading.disordered.values()):
        doubts.append(_DISORDERED)
    return doubts
