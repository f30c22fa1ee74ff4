"""What the kubelet sends of a container's log, cut into lines and kept to a span. Pure.

Each line is `<RFC 3339 time, nine fraction digits> <text>`; parts of long lines come joined,
under the first part's time. A line that begins before the time asked from may have left a
rest without a time at the very beginning.
"""

from __future__ import annotations

from oscar_metrics.timerange import SECOND_NS, Span, parse_instant

# Standard output and error are written side by side: times may stand this far out of order.
_DISORDER_NS = 60 * SECOND_NS
_STAMP_CHARACTERS = 30
# Copies of a line are looked for at least this far back, in time, in lines or in characters.
_COPY_NS = 5 * SECOND_NS
_RECENT_LINES = 20_000
_RECENT_CHARACTERS = 8 * 2**20
# So many lines in a row after the span, and none of it follows.
_LINES_PAST = 10


class KubeletLines:
    """Takes a log in pieces and gives its lines of the span; holds one unfinished line.

    The same line at the same time is given once. A line longer than `line_bytes` is cut.
    """

    def __init__(self, span: Span, *, line_bytes: int) -> None:
        # Times of the first and the newest line so far, of the span or not.
        self.first_ns: int | None = None
        self.newest_ns: int | None = None
        # Whether there was any line, and how many had no time, the very first apart.
        self.began = False
        self.odd = 0
        self._span = span
        self._line_bytes = line_bytes
        self._rest = b""
        self._skipping = False
        # The second and the zone of the last stamp, and that second's instant.
        self._second = ("", "")
        self._second_ns = 0
        # Two generations of lines, and where in time the younger one began.
        self._recent: set[str] = set()
        self._less_recent: set[str] = set()
        self._recent_since_ns = 0
        self._recent_characters = 0
        self._lines_past = 0
        # Whether a line came later than the order of times allows for.
        self._disordered = False

    @property
    def past_span(self) -> bool:
        """Whether nothing of the span can follow any more.

        One line far ahead of its time says nothing of those behind it.
        """
        return self._lines_past >= _LINES_PAST and not self._disordered

    @property
    def reached_ns(self) -> int:
        """Every line before this has come; 0 before the first, and where there is no order."""
        if self.newest_ns is None or self._disordered:
            return 0
        return self.newest_ns - _DISORDER_NS

    def feed(self, piece: bytes) -> list[tuple[int, str]]:
        """The lines of the span that this piece completes: their instants, and the rest."""
        if self._skipping:
            _, newline, piece = piece.partition(b"\n")
            if not newline:
                return []
            self._skipping = False
        whole, newline, self._rest = (self._rest + piece).rpartition(b"\n")
        found = self._lines(whole) if newline else []
        if len(self._rest) > self._line_bytes:
            found += self._lines(self._rest[: self._line_bytes])
            self._rest, self._skipping = b"", True
        return found

    def end(self) -> list[tuple[int, str]]:
        """What is left when the log ends: at most a line that has no end yet."""
        rest, self._rest = self._rest, b""
        return self._lines(rest) if rest else []

    def _lines(self, block: bytes) -> list[tuple[int, str]]:
        found = []
        start_ns, stop_ns = self._span.start_ns, self._span.stop_ns
        past_ns = stop_ns + _DISORDER_NS
        for line in self._without_copies(block.decode("utf-8", "replace").split("\n")):
            stamp, _, text = line.partition(" ")
            at_ns = self._instant(stamp)
            if at_ns is None:
                self.odd += self.began
            elif start_ns <= at_ns < stop_ns:
                found.append((at_ns, text))
                self._lines_past = 0
            else:
                self._lines_past = self._lines_past + 1 if at_ns >= past_ns else 0
            self.began = True
        return found

    def _without_copies(self, lines: list[str]) -> list[str]:
        now_ns = self.newest_ns or 0
        many = len(self._recent) > _RECENT_LINES or self._recent_characters > _RECENT_CHARACTERS
        if many or now_ns > self._recent_since_ns + _COPY_NS:
            self._less_recent, self._recent = self._recent, set()
            self._recent_since_ns, self._recent_characters = now_ns, 0
        fresh = dict.fromkeys(lines)
        for known in (self._recent, self._less_recent):
            if not known.isdisjoint(fresh):
                fresh = {line: None for line in fresh if line not in known}
        self._recent.update(fresh)
        self._recent_characters += sum(map(len, fresh))
        return list(fresh)

    def _instant(self, stamp: str) -> int | None:
        second = stamp[:19], stamp[29:]
        if second != self._second or len(stamp) != _STAMP_CHARACTERS:
            try:
                at_ns = parse_instant(stamp)
            except ValueError:
                return None
            self._second, self._second_ns = second, at_ns // SECOND_NS * SECOND_NS
        else:
            at_ns = self._second_ns + int(stamp[20:29])
        if self.first_ns is None:
            self.first_ns = at_ns
        if self.newest_ns is None or at_ns > self.newest_ns:
            self.newest_ns = at_ns
        elif at_ns < self.newest_ns - _DISORDER_NS:
            self._disordered = True
        return at_ns
