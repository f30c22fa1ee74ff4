"""What some lines and some labels tell of the pipeline that brought them to Loki. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

import msgspec

from oscar_metrics.facts import LogStream
from oscar_metrics.sources.countries import is_public, without_port
from oscar_metrics.sources.log_lines import Call, Unread, read_execution, read_exposed
from oscar_metrics.sources.loki_answers import StreamLines
from oscar_metrics.sources.loki_api import COUNTRY_LABELS, country_of
from oscar_metrics.timerange import SLOT_NS, Span, merge

# Labels that Loki adds itself, such as the shard of a stream that takes much.
_ITS_OWN = "__"
_Label = tuple[str, str]


class Doubles(msgspec.Struct, frozen=True, kw_only=True):
    """How many of some lines stand in more than one stream, and the labels these differ in."""

    lines: int
    looked_at: int
    labels: tuple[str, ...]


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """How many calls without a country came from an address of the internet, how many did not.

    Those without any address are in neither.
    """

    public: int = 0
    private: int = 0


def silences(slots: Collection[int], first: int, last: int) -> list[Span]:
    """The stretches of the quarter-hours from first to last that are not among some."""
    silent = (slot for slot in range(first, last + 1) if slot not in slots)
    return merge(Span(slot * SLOT_NS, (slot + 1) * SLOT_NS) for slot in silent)


def doubles(found: Iterable[StreamLines]) -> Doubles:
    """The lines that are there more than once, and are taken for calls of their own.

    A line has the time of its call, mostly to the nanosecond, how long it took and who made
    it: two that are alike are one, which came twice. Readers know that of those of one time
    whose streams differ in shard or country only.
    """
    found_in: dict[str, set[frozenset[_Label]]] = defaultdict(set)
    looked_at = 0
    for stream in found:
        writer = frozenset(item for item in stream.stream.items() if not _tells_nothing(item[0]))
        for line in {entry.line for entry in stream.values}:
            found_in[line].add(writer)
            looked_at += 1
    lines = 0
    labels: set[str] = set()
    for writers in found_in.values():
        lines += len(writers) - 1
        alike = frozenset.intersection(*writers)
        labels.update(name for name, _ in frozenset.union(*writers) - alike)
    return Doubles(lines=lines, looked_at=looked_at, labels=tuple(sorted(labels)))


def _tells_nothing(name: str) -> bool:
    return name.startswith(_ITS_OWN) or name in COUNTRY_LABELS


def addresses(
    found: Iterable[StreamLines], stream: LogStream, *, ingress_host: str = ""
) -> Addresses:
    """Where calls come from of which no label names the country."""
    public = private = 0
    for lines in found:
        if country_of(lines.stream):
            continue
        for entry in lines.values:
            call = _read(entry.line, stream, ingress_host)
            if not isinstance(call, Call):
                continue
            try:
                is_theirs = is_public(without_port(call.ip))
            except ValueError:
                continue
            public += is_theirs
            private += not is_theirs
    return Addresses(public=public, private=private)


def not_understood(
    found: Iterable[StreamLines], stream: LogStream, *, ingress_host: str = ""
) -> list[str]:
    """The lines that are a call by their mark and cannot be read."""
    return [
        entry.line
        for lines in found
        for entry in lines.values
        if _read(entry.line, stream, ingress_host) is Unread.NOT_UNDERSTOOD
    ]


def _read(line: str, stream: LogStream, ingress_host: str) -> Call | Unread:
    if stream is LogStream.EXECUTIONS:
        return read_execution(line)
    return read_exposed(line, ingress_host=ingress_host)


def pods_without_country(streams: Iterable[Mapping[str, str]]) -> tuple[int, int]:
    """Of how many pods no stream has a country, and how many pods there are."""
    named: dict[str, bool] = {}
    for labels in streams:
        if pod := labels.get("pod", ""):
            named[pod] = named.get(pod, False) or any(name in labels for name in COUNTRY_LABELS)
    return sum(not has_any for has_any in named.values()), len(named)
