"""Loki's entries counted: over the whole of a span, or by the parts of its slots. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Protocol, TypeVar

from oscar_metrics.facts import CallLog, LogStream, SlotPart, SlottedLog
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.loki_answers import Entry
from oscar_metrics.sources.slotted_tallying import SlottedTallier, part_of
from oscar_metrics.sources.tallying import Tallier
from oscar_metrics.timerange import SLOT_NS

L = TypeVar("L")
_AT_NS = attrgetter("at_ns")


class Tally(Protocol[L]):
    """Counts entries; what it counted is an L."""

    def add(self, entries: Sequence[Entry], *, country_label: str) -> None:
        """Count entries of one stream, in time order."""

    def include(self, log: L) -> None:
        """Count what another has counted."""

    def result(self) -> L:
        """What was counted so far."""


class WholeTally:
    """Counts entries whenever they are from."""

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str) -> None:
        self._tallier = Tallier(stream, countries, ingress_host=ingress_host)

    def add(self, entries: Sequence[Entry], *, country_label: str) -> None:
        """Count entries of one stream."""
        self._tallier.add([entry.line for entry in entries], country_label=country_label)

    def include(self, log: CallLog) -> None:
        """Count what another has counted."""
        self._tallier.include(log)

    def result(self) -> CallLog:
        """What was counted so far."""
        return self._tallier.result()


class SlottedTally:
    """Counts entries by the parts of slots they lie in."""

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str) -> None:
        self._tallier = SlottedTallier(stream, countries, ingress_host=ingress_host)

    def add(self, entries: Sequence[Entry], *, country_label: str) -> None:
        """Count entries of one stream, in time order: one look for each part, none for a line."""
        at = 0
        while at < len(entries):
            part = part_of(entries[at].at_ns)
            stop = bisect_left(entries, _stop_ns(part), lo=at, key=_AT_NS)
            lines = [entry.line for entry in entries[at:stop]]
            self._tallier.add(part, lines, country_label=country_label)
            at = stop

    def include(self, log: SlottedLog) -> None:
        """Count what another has counted."""
        self._tallier.include(log)

    def result(self) -> SlottedLog:
        """What was counted so far."""
        return self._tallier.result()


def _stop_ns(part: SlotPart) -> int:
    return part.slot * SLOT_NS + 1 if part.first else (part.slot + 1) * SLOT_NS
