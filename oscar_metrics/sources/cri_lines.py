"""CRI's parts of long lines made whole again. Pure.

A container runtime cuts long lines: every part but the last is flagged `P`, the last `F`.
"""

from __future__ import annotations

from oscar_metrics.sources.line_times import line_time_ns
from oscar_metrics.sources.log_lines import TRANSPORT_PREFIX, without_prefix


class CriJoiner:
    """Joins the parts of long lines in one container's log, apart for its two streams.

    Of a line that grows past `line_characters` the rest is dropped: it can still be
    recognised, and is understood only where nothing of weight was lost.
    """

    def __init__(self, *, line_characters: int) -> None:
        self._limit = line_characters
        self._begun: dict[str, tuple[str, str]] = {}

    @property
    def pending(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._begun)

    def feed(self, raw: str) -> tuple[int | None, str] | None:
        """Time (None: unreadable) and whole text of the line that `raw` ends; None until then.

        The last part's time is the line's, as it is for log collectors.
        """
        line = self.join(raw)
        return None if line is None else (line_time_ns(line), without_prefix(line))

    def join(self, raw: str) -> str | None:
        """The same as one CRI line, behind its last part's prefix; without a prefix, `raw`."""
        match = TRANSPORT_PREFIX.match(raw)
        if match is None or match[2] is None:
            return raw
        prefix, content, stream = match[0], raw[match.end() :], match[2]
        begun = self._begun.pop(stream, None)
        if begun is not None:
            content = (begun[1] + content)[: self._limit]
        if match[3] == "P":
            self._begun[stream] = prefix, content[: self._limit]
            return None
        return prefix + content

    def rest(self) -> list[str]:
        """The lines that had begun when the log ended, as far as they came."""
        lines = [prefix + content for prefix, content in self._begun.values()]
        self._begun.clear()
        return lines
