"""Log lines to tallies by parts of quarter-hours. Pure.

Slots hold few lines for each group, so what a raw slice stands for is interpreted once and
remembered for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter

from oscar_metrics.facts import LogStream, SlotPart, SlottedLog
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.tallying import Interpreted, Tallier
from oscar_metrics.timerange import SLOT_NS

# Lines counted before talliers are made to interpret what they hold of them.
_HELD_LINES = 128_000


def part_of(instant_ns: int) -> SlotPart:
    """The part of a slot that an instant lies in."""
    slot, after_ns = divmod(instant_ns, SLOT_NS)
    return SlotPart(slot, not after_ns)


def lines_of(slotted: SlottedLog) -> tuple[int, int]:
    """How many lines of all parts were recognised, and how many understood."""
    logs = slotted.values()
    return sum(log.lines_seen for log in logs), sum(log.lines_understood for log in logs)


class SlottedTallier:
    """Counts the calls among the lines of one stream, part by part of the slots."""

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str = "") -> None:
        self._stream = stream
        self._countries = countries
        self._ingress_host = ingress_host
        self._interpreted = Interpreted()
        self._talliers: dict[SlotPart, Tallier] = {}
        self._held = 0

    def add(self, part: SlotPart, lines: list[str], *, country_label: str = "") -> None:
        """Count what is a call among lines of one part of a slot, without newlines."""
        self._tallier(part).add(lines, country_label=country_label)
        self._held += len(lines)
        if self._held > _HELD_LINES:
            for tallier in self._talliers.values():
                tallier.settle()
            self._held = 0

    def add_timed(self, lines: Iterable[tuple[int, str]]) -> None:
        """The same for lines with their instants; quick where neighbours share a slot."""
        for part, group in groupby(((part_of(at_ns), line) for at_ns, line in lines), _FIRST):
            self.add(part, [line for _, line in group])

    def include(self, slotted: SlottedLog) -> None:
        """Count what another tallier has counted."""
        for part, log in slotted.items():
            self._tallier(part).include(log)

    def result(self) -> SlottedLog:
        """What was counted so far; parts without a recognised line are absent."""
        logs = ((part, tallier.result()) for part, tallier in self._talliers.items())
        return {part: log for part, log in logs if log.lines_seen}

    def take(self) -> SlottedLog:
        """What was counted since this was asked last."""
        slotted = self.result()
        self._talliers.clear()
        self._held = 0
        return slotted

    def _tallier(self, part: SlotPart) -> Tallier:
        tallier = self._talliers.get(part)
        if tallier is None:
            tallier = self._talliers[part] = Tallier(
                self._stream,
                self._countries,
                ingress_host=self._ingress_host,
                interpreted=self._interpreted,
            )
        return tallier


_FIRST = itemgetter(0)
