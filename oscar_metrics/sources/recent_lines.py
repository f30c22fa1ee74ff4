"""The lines read of late, so that a line that comes again is not counted again. Pure.

The same line at the same time in the same log is one call: archives overlap, and a file
lies beside its compressed copy. Lines that are the same have the same time, so only the
lines of the time that is being read need to be remembered.
"""

from __future__ import annotations

from oscar_metrics.timerange import Span


class RecentLines:
    """Remembers one log's lines until time has moved past them, `lines_max` of them at most."""

    def __init__(self, *, lines_max: int) -> None:
        self._lines_max = lines_max
        self._blocks: list[tuple[Span, dict[str, None]]] = []
        self._lines = 0
        self.repeated = 0
        # Lines up to here are no longer remembered, and copies of them not recognised.
        self.forgotten_ns = 0

    def fresh(self, lines: list[str], within: Span) -> list[str]:
        """The lines that are not remembered, each once; all lie `within` a stretch of time."""
        distinct = dict.fromkeys(lines)
        for span, block in self._blocks:
            overlap = within.start_ns < span.stop_ns and span.start_ns < within.stop_ns
            if overlap and not distinct.keys().isdisjoint(block):
                distinct = {line: None for line in distinct if line not in block}
        if not distinct:
            self.repeated += len(lines)
            return []
        self._blocks.append((within, distinct))
        self._lines += len(distinct)
        if self._lines > self._lines_max:
            self._forget_oldest()
        if len(distinct) == len(lines):
            return lines
        self.repeated += len(lines) - len(distinct)
        return list(distinct)

    def forget(self, before_ns: int) -> None:
        """Let go of the blocks that are wholly before an instant."""
        kept = [block for block in self._blocks if block[0].stop_ns > before_ns]
        if len(kept) < len(self._blocks):
            gone = (block for block in self._blocks if block[0].stop_ns <= before_ns)
            self.forgotten_ns = max(self.forgotten_ns, *(span.stop_ns for span, _ in gone), 0)
            self._blocks = kept
            self._lines = sum(len(lines) for _, lines in kept)

    def _forget_oldest(self) -> None:
        while self._lines > self._lines_max and len(self._blocks) > 1:
            self.forget(min(span.stop_ns for span, _ in self._blocks))
