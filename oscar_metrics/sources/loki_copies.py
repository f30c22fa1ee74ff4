"""Lines that Loki was sent twice, each counted once. Pure.

A collector that is restarted sends again what it finds. Loki recognises a line it has by its
stream, time and text, but in shards of a busy stream, which it tells apart by a label, and in
streams that differ in the country, which another GeoIP database may tell otherwise, a line is
there, and handed out, once for each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from operator import attrgetter

from oscar_metrics.sources.loki_answers import Entry, StreamLines
from oscar_metrics.sources.loki_api import COUNTRY_LABELS, country_of

# What copies of a line may differ in.
TELL_NOTHING = frozenset({"__stream_shard__", *COUNTRY_LABELS})
_AT_NS = attrgetter("at_ns")


def each_once(streams: Sequence[StreamLines]) -> list[StreamLines]:
    """The same without copies, where all lines of any time are given; order is kept.

    Of copies that differ in the country, one that has a country stays.
    """
    instants = [*map(_AT_NS, chain.from_iterable(stream.values for stream in streams))]
    # Only lines of one time can be the same.
    if len(set(instants)) == len(instants):
        return [*streams]
    seen: dict[frozenset[tuple[str, str]], set[tuple[int, str]]] = {}
    once = []
    for stream in sorted(streams, key=preferred):
        known = seen.setdefault(whose(stream.stream), set())
        values = []
        for entry in stream.values:
            line = entry.at_ns, entry.line
            if line not in known:
                known.add(line)
                values.append(entry)
        if values:
            once.append(StreamLines(stream.stream, values))
    return once


def distinct_at(at_ns: int, groups: Sequence[Mapping[str, str]], text: str) -> list[StreamLines]:
    """The lines of one time, each given as the labels of its stream and, in `text`, itself."""
    lines = []
    for labels in groups:
        stream = {name: value for name, value in labels.items() if name != text}
        lines.append(StreamLines(stream, [Entry(at_ns, labels.get(text, ""))]))
    return each_once(lines)


def whose(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    """What tells the writer of a line from others."""
    return frozenset(item for item in labels.items() if item[0] not in TELL_NOTHING)


def preferred(stream: StreamLines) -> tuple[bool, str]:
    """Sorts streams by which of them a copy is taken from."""
    country = country_of(stream.stream)
    return not country, country
