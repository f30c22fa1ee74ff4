"""Which lines of a log lie in a span, and which of the two logs they are from. Pure.

A minute's text is read once for all the lines that share it, and a line's own second only
where an edge of the span cuts its minute, or where the line may be at a slot's first instant.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from oscar_metrics.facts import LogStream, SlotPart
from oscar_metrics.sources.line_times import (
    AFTER_OLD_MINUTE,
    AFTER_UTC_MINUTE,
    MINUTE_NS,
    line_time_ns,
    minute_of,
    minute_start_ns,
)
from oscar_metrics.sources.log_lines import EXECUTIONS_TAG, stream_of
from oscar_metrics.sources.slotted_tallying import part_of
from oscar_metrics.timerange import SLOT_NS, Span

# Minutes remembered; at some 300 bytes each, 15 MB.
_KNOWN_MINUTES = 50_000
_TAG = f"{EXECUTIONS_TAG} "
_MINUTE_END = len(_TAG) + len("2026-01-31T23:59")
_OLD_MINUTE_END = len(_TAG) + len("2026/01/31 - 23:59")
_PREFIX_MINUTE_END = len("2026-01-31T23:59")
# In a CRI line, what stands behind `stdout` or `stderr`.
_WHOLE_AND_TAG = f" F {_TAG}"
_STREAM_CHARACTERS = len(" stdout")
# Stands for a whole span where the parts of its slots are not told apart.
WHOLE = SlotPart(-1, first=False)
# What no line begins with, and where lines go that there are none of.
_NO_LINE = "\n"
_NOBODY: list[str] = []


class Sifted(msgspec.Struct, kw_only=True):
    """What a sieve found in one block, by log.

    `lines` are those inside the span, by the part of a slot where that was asked for, else
    under WHOLE; `untimed` those whose time cannot be read. `met` is the time, in whole
    minutes, of all lines, `inside` that of what lies in the span.
    """

    lines: dict[LogStream, dict[SlotPart, list[str]]]
    untimed: dict[LogStream, list[str]]
    met: dict[LogStream, Span]
    inside: dict[LogStream, Span]


class LineSieve:
    """Lets through the lines that lie in `span`, and remembers where each log shows life."""

    def __init__(self, span: Span, *, slotted: bool = False) -> None:
        self._span = span
        self._slotted = slotted
        self._alive = whole_slots(span)
        # When the minutes begin that texts stand for.
        self._starts_ns: dict[str, int] = {}
        self._logs = {stream: _Log() for stream in LogStream}

    def slots(self, stream: LogStream) -> set[int]:
        """The numbers of the quarter-hours in which a log has any line.

        One that an edge of the span cuts counts as a whole.
        """
        return self._logs[stream].slots

    def sift(self, lines: Iterable[str]) -> Sifted:
        """What of a block's lines lies in the span."""
        sifted = Sifted(
            lines={stream: {} for stream in LogStream},
            untimed={stream: [] for stream in LogStream},
            met={},
            inside={},
        )
        if len(self._starts_ns) > _KNOWN_MINUTES:
            self._forget_minutes()
        self._sift_usual(lines, sifted)
        for stream, log in self._logs.items():
            touched = [*log.outside, *log.lines]
            self._meet(stream, [self._starts_ns[minute] for minute in touched], sifted)
            self._take_apart(stream, log, sifted)
            log.outside.clear()
            log.lines.clear()
            log.undecided.clear()
        return sifted

    def _sift_usual(self, lines: Iterable[str], sifted: Sifted) -> None:
        """Let through at once the executions of a minute inside the span that was met before.

        Most lines of most logs are such: bare, with the old time, or behind a CRI prefix.
        """
        lines_of = self._logs[LogStream.EXECUTIONS].lines
        keep = _NOBODY.append
        bare = old = prefixed = _NO_LINE
        for line in lines:
            if line.startswith(bare):
                usual = (
                    line[_MINUTE_END : _MINUTE_END + 4] in AFTER_UTC_MINUTE
                    and line[line.find(" ", _MINUTE_END) - 1] == "Z"
                )
            elif line.startswith(prefixed):
                end = line.find(" ")
                usual = (
                    line[_PREFIX_MINUTE_END : _PREFIX_MINUTE_END + 4] in AFTER_UTC_MINUTE
                    and line[end - 1] == "Z"
                    and line.startswith(_WHOLE_AND_TAG, end + _STREAM_CHARACTERS)
                )
            else:
                usual = (
                    line.startswith(old)
                    and line[_OLD_MINUTE_END : _OLD_MINUTE_END + 4] in AFTER_OLD_MINUTE
                )
            if usual:
                keep(line)
            elif minute := self._sort(line, sifted):
                bare, old, prefixed = _usual_beginnings(minute)
                keep = lines_of[minute].append

    def _sort(self, line: str, sifted: Sifted) -> str:
        """Sort one line; the text of its minute where all executions of that are let through."""
        stream = stream_of(line)
        if stream is None:
            return ""
        minute = minute_of(line)
        log = self._logs[stream]
        lines = log.lines.get(minute)
        if lines is None:
            place = log.places.get(minute) or self._place(log, minute)
            if place is _Place.LOOK:
                self._look(stream, line, sifted)
                return ""
            if place is _Place.OUTSIDE:
                log.outside.add(minute)
                return ""
            lines = log.lines[minute] = self._lines_of(stream, minute, sifted)
        lines.append(line)
        return minute if stream is LogStream.EXECUTIONS else ""

    def _lines_of(self, stream: LogStream, minute: str, sifted: Sifted) -> list[str]:
        """Where to put a minute's lines: those of one that begins a slot are looked at later."""
        if not self._slotted:
            return sifted.lines[stream].setdefault(WHOLE, [])
        part = part_of(self._starts_ns[minute])
        if part.first:
            return self._logs[stream].undecided.setdefault(minute, [])
        return sifted.lines[stream].setdefault(part, [])

    def _take_apart(self, stream: LogStream, log: _Log, sifted: Sifted) -> None:
        """Part the lines of minutes that begin a slot: what is at its first instant, the rest."""
        for minute, lines in log.undecided.items():
            start_ns = self._starts_ns[minute]
            first = part_of(start_ns)
            # A line of that instant has its second written out behind the minute.
            second = f"{minute[-5:]}:00"
            at_once = {
                at
                for at, line in enumerate(lines)
                if second in line and line_time_ns(line) == start_ns
            }
            rest = [line for at, line in enumerate(lines) if at not in at_once]
            if at_once:
                parted = sifted.lines[stream].setdefault(first, [])
                parted += [lines[at] for at in sorted(at_once)]
            if rest:
                sifted.lines[stream].setdefault(first._replace(first=False), []).extend(rest)

    def _place(self, log: _Log, minute: str) -> _Place:
        """Where a minute met for the first time lies; where it is none, each line is looked at."""
        start_ns = minute_start_ns(minute) if minute else None
        if start_ns is None:
            place = _Place.LOOK
        else:
            self._starts_ns[minute] = start_ns
            self._show_life(log, start_ns)
            place = _place_of(start_ns, self._span)
        log.places[minute] = place
        return place

    def _look(self, stream: LogStream, line: str, sifted: Sifted) -> None:
        instant_ns = line_time_ns(line)
        if instant_ns is None:
            sifted.untimed[stream].append(line)
            return
        self._show_life(self._logs[stream], instant_ns)
        self._meet(stream, [instant_ns // MINUTE_NS * MINUTE_NS], sifted)
        if instant_ns in self._span:
            part = part_of(instant_ns) if self._slotted else WHOLE
            sifted.lines[stream].setdefault(part, []).append(line)

    def _meet(self, stream: LogStream, starts_ns: list[int], sifted: Sifted) -> None:
        if starts_ns:
            met = Span(min(starts_ns), max(starts_ns) + MINUTE_NS)
            sifted.met[stream] = hull(met, sifted.met.get(stream))
        first_ns, stop_ns = self._span.start_ns - MINUTE_NS, self._span.stop_ns
        if inside := [start_ns for start_ns in starts_ns if first_ns < start_ns < stop_ns]:
            met = Span(min(inside), max(inside) + MINUTE_NS)
            sifted.inside[stream] = hull(met, sifted.inside.get(stream))

    def _show_life(self, log: _Log, instant_ns: int) -> None:
        if instant_ns in self._alive:
            log.slots.add(instant_ns // SLOT_NS)

    def _forget_minutes(self) -> None:
        self._starts_ns.clear()
        for log in self._logs.values():
            log.places.clear()


class _Log:
    """What a sieve knows of one of the two logs."""

    def __init__(self) -> None:
        self.places: dict[str, _Place] = {}
        # Of the block that is sifted: the minutes outside the span, where the lines of those
        # inside go, and which of these may be at a slot's first instant.
        self.outside: set[str] = set()
        self.lines: dict[str, list[str]] = {}
        self.undecided: dict[str, list[str]] = {}
        self.slots: set[int] = set()


class _Place(Enum):
    """Where the lines of a minute lie."""

    INSIDE = 1
    OUTSIDE = 2
    LOOK = 3  # at each line


def _usual_beginnings(minute: str) -> tuple[str, str, str]:
    """How execution lines of a minute begin: bare, with the old time, behind a CRI prefix."""
    date = minute[:10].replace("/", "-")
    utc, old = f"{date}T{minute[-5:]}", f"{date.replace('-', '/')} - {minute[-5:]}"
    return _TAG + utc, _TAG + old, utc


def _place_of(start_ns: int, span: Span) -> _Place:
    stop_ns = start_ns + MINUTE_NS
    if span.start_ns <= start_ns and stop_ns <= span.stop_ns:
        return _Place.INSIDE
    return _Place.LOOK if start_ns < span.stop_ns and span.start_ns < stop_ns else _Place.OUTSIDE


def whole_slots(span: Span) -> Span:
    """The span made longer until it is a whole number of slots."""
    return Span(span.start_ns // SLOT_NS * SLOT_NS, -(-span.stop_ns // SLOT_NS) * SLOT_NS)


def hull(span: Span, other: Span | None) -> Span:
    """The shortest span that holds both."""
    if other is None:
        return span
    return Span(min(span.start_ns, other.start_ns), max(span.stop_ns, other.stop_ns))
