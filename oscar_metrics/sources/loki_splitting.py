"""How lines of one nanosecond that are too many for one answer are told apart. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from oscar_metrics.sources.logql import LogQuery, by_character, by_label
from oscar_metrics.sources.loki_answers import StreamLines
from oscar_metrics.sources.loki_copies import TELL_NOTHING

# Enough lines to see where they differ, and characters of each that are looked at.
_SAMPLE_LINES = 400
_SAMPLE_CHARACTERS = 4000
_LABEL = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def halve(query: LogQuery, page: Sequence[StreamLines]) -> tuple[LogQuery, LogQuery] | None:
    """A part of the query's lines and its exact opposite, each with some lines of the page.

    By a label where the page has several streams, else by the character at the position
    that tells its lines apart best; copies of a line go together. None where nothing tells
    them apart.
    """
    return _by_stream(query, page) or _by_content(query, page)


def _by_stream(query: LogQuery, page: Sequence[StreamLines]) -> tuple[LogQuery, LogQuery] | None:
    total = sum(len(stream.values) for stream in page)
    names = {name for stream in page for name in stream.stream if _LABEL.fullmatch(name)}
    names -= TELL_NOTHING
    best = (total, "", "")
    for name in names:
        counts: Counter[str] = Counter()
        for stream in page:
            counts[stream.stream.get(name, "")] += len(stream.values)
        value, count = _nearest_half(counts.items(), total)
        best = min(best, (abs(2 * count - total), name, value))
    off, name, value = best
    return by_label(query, name, value) if off < total else None


def _by_content(query: LogQuery, page: Sequence[StreamLines]) -> tuple[LogQuery, LogQuery] | None:
    lines = [entry.line for stream in page for entry in stream.values]
    lines = lines[:: max(1, len(lines) // _SAMPLE_LINES)]
    longest = min(_SAMPLE_CHARACTERS, max(map(len, lines), default=0))
    best = (len(lines), 0, "")
    for position in range(longest):
        counts = Counter(line[position : position + 1] for line in lines)
        del counts[""]
        characters, count = _about_half(counts, len(lines))
        best = min(best, (abs(2 * count - len(lines)), position, characters))
    off, position, characters = best
    return by_character(query, position, characters) if off < len(lines) else None


def _nearest_half(counts: Iterable[tuple[str, int]], total: int) -> tuple[str, int]:
    return min(counts, key=lambda item: (abs(2 * item[1] - total), item[0]))


def _about_half(counts: Counter[str], total: int) -> tuple[str, int]:
    """Characters that together stand in about half of the lines, and in how many."""
    chosen, count = "", 0
    for character, occurrences in counts.most_common():
        if not chosen or 2 * (count + occurrences) <= total:
            chosen += character
            count += occurrences
    return chosen, count
