"""Log lines to tallies, in memory that grows with the groups and never with the lines. Pure.

Raw slices of the lines are counted first and only distinct ones are interpreted, which
costs a fraction of reading line by line and gives the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from oscar_metrics.facts import CallKey, CallLog, LogStream, Tallies
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.log_lines import Unread
from oscar_metrics.sources.slicing import RawKey, Slicer

_BATCH_LINES = 8192
# Distinct raw slices held before they are interpreted: at some 250 bytes each, 32 MB. Below
# the number of groups each line would have to be interpreted, at five times the cost.
RAW_KEYS = 128_000


class Interpreted:
    """What raw slices stand for, remembered where several talliers meet the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], dict[RawKey, CallKey | Unread]] = {}

    def of(self, label: str, *, tagged: bool) -> dict[RawKey, CallKey | Unread]:
        """What is known of slices with a label, to be added to; bounded by forgetting."""
        if sum(map(len, self._known.values())) > RAW_KEYS:
            self._known.clear()
        return self._known.setdefault((label, tagged), {})


class Tallier:
    """Counts the calls among the lines of one stream.

    `ingress_host` is the base host of services with hosts of their own (Traefik), or blank.
    Talliers of the same stream and countries may share what they `interpreted`.
    """

    def __init__(
        self,
        stream: LogStream,
        countries: Countries,
        *,
        ingress_host: str = "",
        interpreted: Interpreted | None = None,
    ) -> None:
        self._interpreted = interpreted
        self._countries = countries
        self._slicer = Slicer(stream, countries, ingress_host=ingress_host)
        # By label, and whether the lines carry the executions tag: what is counted and not
        # interpreted yet.
        self._raw: dict[tuple[str, bool], Counter[RawKey]] = {}
        self._tallies: Tallies = Counter()
        self._seen = 0
        self._understood = 0

    def add(self, lines: Iterable[str], *, country_label: str = "") -> None:
        """Count what is a call among `lines`, all of the asked span, without newlines.

        `country_label` is the country their transport attached to all of them, if any.
        """
        label = self._countries.of_label(country_label)
        for batch in _batches(lines):
            slices = self._slicer.slices(batch, label)
            for tagged, keys in ((True, slices.tagged), (False, slices.untagged)):
                if keys:
                    self._raw.setdefault((label, tagged), Counter()).update(keys)
            for call in slices.interpreted:
                self._count(call, 1)
            if sum(map(len, self._raw.values())) > RAW_KEYS:
                self.settle()

    def add_timed(self, lines: Iterable[tuple[int, str]]) -> None:
        """The same for lines with their instants."""
        self.add(line for _, line in lines)

    def include(self, log: CallLog) -> None:
        """Count what another tallier has counted."""
        self._tallies.update(log.tallies)
        self._seen += log.lines_seen
        self._understood += log.lines_understood

    def result(self) -> CallLog:
        """What was counted so far."""
        self.settle()
        return CallLog(
            tallies=Counter(self._tallies),
            lines_seen=self._seen,
            lines_understood=self._understood,
        )

    def settle(self) -> None:
        """Interpret what is held until now; costs nothing where nothing is."""
        for (label, tagged), raw in self._raw.items():
            shared = self._interpreted
            known = {} if shared is None else shared.of(label, tagged=tagged)
            for key, count in raw.items():
                call = known.get(key)
                if call is None:
                    call = self._slicer.interpret(key, label, tagged=tagged)
                    if shared is not None:
                        known[key] = call
                if isinstance(call, CallKey):
                    self._tallies[call] = self._tallies.get(call, 0) + count
                    self._understood += count
                    self._seen += count
                elif call is not Unread.OTHER:
                    self._seen += count
        self._raw.clear()

    def _count(self, call: CallKey | Unread, count: int) -> None:
        if call is Unread.OTHER:
            return
        self._seen += count
        if isinstance(call, CallKey):
            self._understood += count
            self._tallies[call] = self._tallies.get(call, 0) + count


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(lines)
    while batch := list(islice(iterator, _BATCH_LINES)):
        yield batch
