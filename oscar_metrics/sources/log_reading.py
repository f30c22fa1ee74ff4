"""One reading of many log files for one span: interleaved by time, in bounded memory.

The file that is furthest behind is read next, so that what two files have in common is
read at about the same time, and a line met again is still remembered. Runs in a thread
and looks at a stop flag at every block.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import Annotated, Generic, Protocol, TypeVar

import msgspec
from msgspec import Meta

from oscar_metrics.facts import CallLog, LogStream, SlotPart
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.line_sieve import WHOLE, LineSieve, Sifted, whole_slots
from oscar_metrics.sources.line_times import line_time_ns
from oscar_metrics.sources.log_archive import Archive, LogFile, joined
from oscar_metrics.sources.log_blocks import LogBlocks
from oscar_metrics.sources.log_lines import Unread, read_execution, read_exposed
from oscar_metrics.sources.recent_lines import RecentLines
from oscar_metrics.sources.tallying import Tallier
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span

# All blocks held side by side, and the least that one can be.
_BLOCKS_BYTES = 8 * 1024 * 1024
_SMALLEST_BLOCK_BYTES = 32 * 1024


class ReadingLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one reading holds at a time."""

    # Most files one report looks at; what is beyond, by name, is left out and said.
    files: Annotated[int, Meta(ge=1)] = 10_000
    # Files open at a time; of more than these that overlap in time, copies may go unnoticed.
    open_files: Annotated[int, Meta(ge=1, le=10_000)] = 200
    # Bytes read at a time from one file, fewer where many are read side by side; what fits
    # into a processor's cache is read fastest.
    block_bytes: Annotated[int, Meta(ge=4096, le=2**30)] = 256 * 1024
    # A line that is longer by a block is cut, so that no line has to fit into memory; at
    # least 64 KiB, so that what is left of one is not mistaken for a shorter call.
    line_bytes: Annotated[int, Meta(ge=65_536, le=2**30)] = 1024 * 1024
    # How far (seconds) a line may stand from its place in time and still be compared with
    # its copies; more costs memory.
    slack_seconds: Annotated[int, Meta(ge=0)] = 300
    # Lines remembered to recognise copies; at some 300 bytes each, 75 MB when all are used.
    recent_lines: Annotated[int, Meta(ge=0)] = 250_000


class Tally(Protocol):
    """Counts the lines of one log."""

    def add(self, part: SlotPart, lines: list[str]) -> None:
        """Count lines of one part of a slot; of WHOLE where parts are not told apart."""


class WholeTally:
    """Counts lines whenever they are from."""

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str) -> None:
        self._tallier = Tallier(stream, countries, ingress_host=ingress_host)

    def add(self, _part: SlotPart, lines: list[str]) -> None:
        """Count lines."""
        self._tallier.add(lines)

    def result(self) -> CallLog:
        """What was counted so far."""
        return self._tallier.result()


class FileRead(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one file: from when to when it has lines of each log.

    `untimed` counts calls without a time that can be read; `broke_off_ns` is where in time it
    could not be read further, None where it was read to its end.
    """

    name: str
    met: dict[LogStream, Span]
    untimed: int
    broke_off_ns: int | None


T = TypeVar("T", bound=Tally)


class Reading(Generic[T]):
    """What one reading found: filled in by `run`, in a thread, and looked at afterwards."""

    def __init__(
        self,
        span: Span,
        tallies: Mapping[LogStream, T],
        *,
        slotted: bool = False,
        limits: ReadingLimits,
        ingress_host: str,
    ) -> None:
        self.span = span
        self.sieve = LineSieve(span, slotted=slotted)
        self.tallies = tallies
        # Lines recognised as calls whose time cannot be read, by log.
        self.untimed: Counter[LogStream] = Counter()
        # From when to when the files hold lines of each log, the passed-over ones included.
        self.met: dict[LogStream, Span] = {}
        # Sentences about single files, each beginning with its base name.
        self.problems: list[str] = []
        self.files = 0
        # What became of each file that was read to its end, and how many bytes of all were.
        self.read_files: list[FileRead] = []
        self.bytes_read = 0
        # Hours near calls without a time, and those of which copies may have been counted.
        self.near_untimed: dict[LogStream, set[int]] = {stream: set() for stream in tallies}
        self.disordered: dict[LogStream, set[int]] = {stream: set() for stream in tallies}
        self.left_out = 0
        self.passed_over = 0
        self.finished = False
        # Up to here everything was read, whatever stopped the reading.
        self.read_up_to_ns = span.start_ns
        self.recent = {
            stream: RecentLines(lines_max=limits.recent_lines // len(LogStream))
            for stream in tallies
        }
        self._limits = limits
        self._ingress_host = ingress_host

    def run(self, archive: Archive, stop: threading.Event) -> None:
        """Read what the files hold of the span; ends early, at a block, once `stop` is set."""
        for _ in self.blocks(archive, stop):
            pass

    def blocks(self, archive: Archive, stop: threading.Event) -> Generator[None]:
        """The same block by block, for whoever has something to do in between."""
        waiting = self._cursors(archive, stop)
        block_bytes = min(
            self._limits.block_bytes,
            max(_SMALLEST_BLOCK_BYTES, _BLOCKS_BYTES // max(1, len(waiting))),
        )
        cursors = list(waiting)
        opened = 0
        try:
            while waiting and not stop.is_set():
                cursor = heapq.heappop(waiting)
                # Beyond the number of open files, one is read to its end at a stretch.
                alone = not cursor.is_open and opened >= self._limits.open_files
                opened -= cursor.is_open
                more = self._read_block(cursor, block_bytes)
                while more and alone and not stop.is_set():
                    more = self._read_block(cursor, block_bytes)
                if more:
                    heapq.heappush(waiting, cursor)
                else:
                    self._finish(cursor, archive)
                opened += cursor.is_open
                horizon_ns = waiting[0].position_ns if waiting else self.span.stop_ns
                self.read_up_to_ns = max(self.span.start_ns, horizon_ns)
                for recent in self.recent.values():
                    recent.forget(horizon_ns - self._limits.slack_seconds * SECOND_NS)
                yield
        finally:
            for cursor in cursors:
                cursor.close()
        self.finished = not (waiting or stop.is_set())
        if self.finished:
            self.read_up_to_ns = self.span.stop_ns

    def _cursors(self, archive: Archive, stop: threading.Event) -> list[_Cursor]:
        files, self.left_out = archive.files()
        self.files = len(files)
        alive = whole_slots(self.span)
        waiting: list[_Cursor] = []
        for file in files:
            if stop.is_set():
                break
            facts = archive.facts(file)
            if facts.outside(alive):
                self.passed_over += 1
                self.met = joined(self.met, facts.met)
            else:
                waiting.append(_Cursor(file, facts.start_ns, len(waiting)))
        heapq.heapify(waiting)
        return waiting

    def _read_block(self, cursor: _Cursor, block_bytes: int) -> bool:
        """Count the next block of one file; whether there was one."""
        lines = cursor.read(block_bytes, line_bytes=self._limits.line_bytes)
        self.bytes_read += cursor.advance()
        if lines is None:
            return False
        sifted = self.sieve.sift(lines)
        cursor.met = joined(cursor.met, sifted.met)
        before_ns = cursor.position_ns
        cursor.move(lines)
        first_ns = before_ns if before_ns >= 0 else cursor.position_ns
        self._count(sifted, cursor, Span(first_ns, cursor.position_ns))
        return True

    def _count(self, sifted: Sifted, cursor: _Cursor, moved: Span) -> None:
        for stream, tally in self.tallies.items():
            recent = self.recent[stream]
            for part, lines in sifted.lines[stream].items():
                within = sifted.inside[stream]
                if part is not WHOLE:
                    within = within.clip(Span(part.slot * SLOT_NS, (part.slot + 1) * SLOT_NS))
                if within.start_ns < recent.forgotten_ns:
                    self.disordered[stream].update(_hours(within))
                tally.add(part, recent.fresh(lines, within))
            if untimed := sum(map(self._is_call, sifted.untimed[stream])):
                self.untimed[stream] += untimed
                self.near_untimed[stream].update(_hours(moved))
                cursor.untimed += untimed

    def _is_call(self, line: str) -> bool:
        exposed = read_exposed(line, ingress_host=self._ingress_host)
        return read_execution(line) is not Unread.OTHER or exposed is not Unread.OTHER

    def _finish(self, cursor: _Cursor, archive: Archive) -> None:
        self.met = joined(self.met, cursor.met)
        self.problems += (problems := cursor.problems())
        if not problems:
            archive.learn(cursor.file, cursor.met)
        self.read_files.append(cursor.found())


def _hours(span: Span) -> Iterable[int]:
    """The numbers of the hours from a span's first instant to its last, both included."""
    first, last = sorted((span.start_ns, span.stop_ns))
    return range(first // HOUR_NS, last // HOUR_NS + 1)


class _Cursor:
    """How far one file has been read; in order of time, then of name."""

    def __init__(self, file: LogFile, position_ns: int, number: int) -> None:
        self.file = file
        self.position_ns = position_ns
        self.met: dict[LogStream, Span] = {}
        self.untimed = 0
        self._number = number
        self._bytes_read = 0
        self._blocks: LogBlocks | None = None

    def __lt__(self, other: _Cursor) -> bool:
        return (self.position_ns, self._number) < (other.position_ns, other._number)

    @property
    def is_open(self) -> bool:
        return self._blocks is not None and self._blocks.is_open

    def read(self, block_bytes: int, *, line_bytes: int) -> list[str] | None:
        if self._blocks is None:
            self._blocks = LogBlocks(self.file.path, line_bytes=line_bytes)
        return self._blocks.read(block_bytes)

    def advance(self) -> int:
        """How many bytes of the file, as it is stored, were read since this was asked last."""
        at = self._blocks.bytes_read if self._blocks is not None else 0
        self._bytes_read, before = at, self._bytes_read
        return at - before

    def move(self, lines: list[str]) -> None:
        """Advance to where in time the last of a block's lines stands."""
        for line in reversed(lines):
            instant_ns = line_time_ns(line)
            if instant_ns is not None:
                self.position_ns = instant_ns
                return

    def found(self) -> FileRead:
        """What became of the file."""
        broken = self._blocks is not None and self._blocks.problem
        return FileRead(
            name=self.file.name,
            met=dict(self.met),
            untimed=self.untimed,
            broke_off_ns=self.position_ns if broken else None,
        )

    def problems(self) -> list[str]:
        """What kept some of the file from being read, as sentences."""
        problems = []
        if self._blocks is not None and self._blocks.problem:
            problems.append(f"{self.file.name} {self._blocks.problem}")
        if self._blocks is not None and (count := self._blocks.long_lines):
            problems.append(f"{self.file.name} has {count:,} lines too long to be read whole")
        return problems

    def close(self) -> None:
        if self._blocks is not None:
            self._blocks.close()
