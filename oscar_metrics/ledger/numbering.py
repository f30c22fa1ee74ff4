"""Log lines to the numbers of their calls' keys: what an import moves instead of tallies. Pure.

Slots of a quarter-hour have nearly a group for every line, so counting them here would
cost more than reading the lines; whoever stores them counts better.
"""

from __future__ import annotations

from oscar_metrics.facts import CallKey, LogStream, SlotPart
from oscar_metrics.ledger.store import NumberedCalls
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.log_lines import Unread
from oscar_metrics.sources.slicing import RawKey, Slicer
from oscar_metrics.sources.tallying import RAW_KEYS

# Stand for lines that are no call: recognised and not understood, and none of ours.
_NOT_UNDERSTOOD, _OTHER = -1, -2
_NO_CALLS = {_NOT_UNDERSTOOD, _OTHER}


class Numbering:
    """Numbers the keys of the calls among the lines of one stream.

    `keys` are those met so far: number i stands for keys[i].
    """

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str) -> None:
        self.keys: list[CallKey] = []
        self._number_of: dict[CallKey, int] = {}
        self._slicer = Slicer(stream, countries, ingress_host=ingress_host)
        self._tagged = _Known(self, tagged=True)
        self._untagged = _Known(self, tagged=False)
        self._met: dict[SlotPart, list[int]] = {}

    def add(self, part: SlotPart, lines: list[str]) -> None:
        """Take in the lines of one part of a slot, without newlines."""
        slices = self._slicer.slices(lines, "")
        met = self._met.setdefault(part, [])
        met += map(self._tagged.__getitem__, slices.tagged)
        met += map(self._untagged.__getitem__, slices.untagged)
        met += map(self._number, slices.interpreted)

    def take(self) -> dict[SlotPart, NumberedCalls]:
        """What was taken in since this was asked last; no part without a recognised line."""
        taken = {}
        for part, numbers in self._met.items():
            lines_seen = len(numbers)
            if not _NO_CALLS.isdisjoint(numbers):
                lines_seen -= numbers.count(_OTHER)
                numbers = [number for number in numbers if number >= 0]
            if lines_seen:
                taken[part] = NumberedCalls(numbers=numbers, lines_seen=lines_seen)
        self._met.clear()
        for known in (self._tagged, self._untagged):
            if len(known) > RAW_KEYS:
                known.clear()
        return taken

    def number(self, key: RawKey, *, tagged: bool) -> int:
        """The number of what a slice stands for."""
        return self._number(self._slicer.interpret(key, "", tagged=tagged))

    def _number(self, call: CallKey | Unread) -> int:
        if isinstance(call, Unread):
            return _OTHER if call is Unread.OTHER else _NOT_UNDERSTOOD
        number = self._number_of.get(call)
        if number is None:
            number = self._number_of[call] = len(self.keys)
            self.keys.append(call)
        return number


class _Known(dict[RawKey, int]):
    """The numbers of slices, found out when they are first asked for."""

    def __init__(self, numbering: Numbering, *, tagged: bool) -> None:
        self._numbering = numbering
        self._is_tagged = tagged

    def __missing__(self, key: RawKey) -> int:
        number = self[key] = self._numbering.number(key, tagged=self._is_tagged)
        return number
