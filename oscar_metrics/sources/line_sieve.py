"""Which lines of a log lie in a span, and which of the two logs they are from. Pure.

A minute's text is read once for all the lines that share it, and a line's own second only
where an edge of the span cuts its minute.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

import msgspec

from oscar_metrics.facts import LogStream
from oscar_metrics.sources.line_times import AFTER_UTC_MINUTE, line_time_ns, minute_of, minute_span
from oscar_metrics.sources.log_lines import EXECUTIONS_TAG, stream_of
from oscar_metrics.timerange import SLOT_NS, Span

# Minutes remembered; at some 300 bytes each, 15 MB.
_KNOWN_MINUTES = 50_000
_TAG = f"{EXECUTIONS_TAG} "
_MINUTE_END = len(_TAG) + len("2026-01-31T23:59")
# What no line begins with.
_UNUSUAL = "\n"


class Sifted(msgspec.Struct, kw_only=True):
    """What a sieve found in one block, by log.

    `lines` are those inside the span, `untimed` those whose time cannot be read. `met` is
    the time, to the minute, of all lines, `inside` that of what lies in the span.
    """

    lines: dict[LogStream, list[str]]
    untimed: dict[LogStream, list[str]]
    met: dict[LogStream, Span]
    inside: dict[LogStream, Span]


class LineSieve:
    """Lets through the lines that lie in `span`, and remembers where each log shows life."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._alive = whole_slots(span)
        self._minutes: dict[str, Span] = {}
        self._logs = {stream: _Log() for stream in LogStream}

    def slots(self, stream: LogStream) -> set[int]:
        """The numbers of the quarter-hours in which a log has any line.

        One that an edge of the span cuts counts as a whole.
        """
        return self._logs[stream].slots

    def sift(self, lines: Iterable[str]) -> Sifted:
        """What of a block's lines lies in the span."""
        if len(self._minutes) > _KNOWN_MINUTES:
            self._forget_minutes()
        sifted = Sifted(
            lines={stream: [] for stream in LogStream},
            untimed={stream: [] for stream in LogStream},
            met={},
            inside={},
        )
        keep_execution = sifted.lines[LogStream.EXECUTIONS].append
        # Most lines of most logs are executions in the minute of the line before.
        usual = _UNUSUAL
        last_minute, last_stream, last_place = _UNUSUAL, None, _Place.LOOK
        for line in lines:
            if (
                line.startswith(usual)
                and line[_MINUTE_END : _MINUTE_END + 4] in AFTER_UTC_MINUTE
                and line[line.find(" ", _MINUTE_END) - 1] == "Z"
            ):
                keep_execution(line)
                continue
            stream = stream_of(line)
            if stream is None:
                continue
            minute = minute_of(line)
            if minute != last_minute or stream is not last_stream:
                last_minute, last_stream = minute, stream
                last_place = self._place(stream, minute)
            place = last_place
            if place is _Place.LOOK:
                place = self._look(stream, line, sifted)
            elif place is _Place.INSIDE and line[len(_TAG) : _MINUTE_END] == minute:
                usual = line[:_MINUTE_END]
            if place is _Place.INSIDE:
                sifted.lines[stream].append(line)
        self._meet_minutes(sifted)
        return sifted

    def _place(self, stream: LogStream, minute: str) -> _Place:
        """Where a minute lies; of one that is blank, or no minute, each line must be looked at."""
        log = self._logs[stream]
        place = log.places.get(minute)
        if place is None:
            found = minute_span(minute) if minute else None
            place = _Place.LOOK if found is None else _place_of(found, self._span)
            if found is not None:
                self._minutes[minute] = found
                self._show_life(log, found.start_ns)
            log.places[minute] = place
        if place is not _Place.LOOK:
            log.touched.add(minute)
        return place

    def _look(self, stream: LogStream, line: str, sifted: Sifted) -> _Place:
        instant_ns = line_time_ns(line)
        if instant_ns is None:
            sifted.untimed[stream].append(line)
            return _Place.OUTSIDE
        self._show_life(self._logs[stream], instant_ns)
        self._meet(stream, Span(instant_ns, instant_ns + 1), sifted)
        return _Place.INSIDE if instant_ns in self._span else _Place.OUTSIDE

    def _meet_minutes(self, sifted: Sifted) -> None:
        for stream, log in self._logs.items():
            for minute in log.touched:
                self._meet(stream, self._minutes[minute], sifted)
            log.touched.clear()

    def _meet(self, stream: LogStream, met: Span, sifted: Sifted) -> None:
        sifted.met[stream] = hull(met, sifted.met.get(stream))
        met = met.clip(self._span)
        if met.length_ns:
            sifted.inside[stream] = hull(met, sifted.inside.get(stream))

    def _show_life(self, log: _Log, instant_ns: int) -> None:
        if instant_ns in self._alive:
            log.slots.add(instant_ns // SLOT_NS)

    def _forget_minutes(self) -> None:
        self._minutes.clear()
        for log in self._logs.values():
            log.places.clear()


class _Log:
    """What a sieve knows of one of the two logs."""

    def __init__(self) -> None:
        self.places: dict[str, _Place] = {}
        self.touched: set[str] = set()
        self.slots: set[int] = set()


def whole_slots(span: Span) -> Span:
    """The span made longer until it is a whole number of slots."""
    return Span(span.start_ns // SLOT_NS * SLOT_NS, -(-span.stop_ns // SLOT_NS) * SLOT_NS)


def hull(span: Span, other: Span | None) -> Span:
    """The shortest span that holds both."""
    if other is None:
        return span
    return Span(min(span.start_ns, other.start_ns), max(span.stop_ns, other.stop_ns))


class _Place(Enum):
    """Where the lines of a minute lie."""

    INSIDE = 1
    OUTSIDE = 2
    LOOK = 3  # at each line


def _place_of(minute: Span, span: Span) -> _Place:
    common = minute.clip(span)
    if common == minute:
        return _Place.INSIDE
    return _Place.LOOK if common.length_ns else _Place.OUTSIDE
