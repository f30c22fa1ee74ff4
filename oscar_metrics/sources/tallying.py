"""Log lines to tallies, in memory that grows with the groups and never with the lines. Pure.

Raw slices of the lines are counted first and only distinct ones are interpreted, which
costs a fraction of reading line by line and gives the same numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from oscar_metrics.facts import CallKey, CallLog, LogStream, Tallies
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.log_lines import (
    EXECUTIONS_TAG,
    GIN_TAG,
    SEPARATOR,
    Call,
    GatewayFields,
    Unread,
    gateway_fields,
    interpret_execution,
    interpret_exposed,
    read_execution,
)

_BATCH_LINES = 8192
# Distinct raw slices held before they are interpreted: at some 250 bytes each, 32 MB. Below
# the number of groups each line would have to be interpreted, at five times the cost.
_RAW_KEYS = 128_000
# A longer line (a path with a long query) is interpreted at once instead of being held.
_LONGEST_HELD = 400

# What lines are counted by before they are interpreted, with the country of the IP in it.
# For executions one text, `country newline status | rest`: it costs half of what a tuple does.
_RawKey = str | GatewayFields
_OfIp = Callable[[str], str]


class Interpreted:
    """What raw slices stand for, remembered where several talliers meet the same ones."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bool], dict[_RawKey, CallKey | Unread]] = {}

    def of(self, label: str, *, tagged: bool) -> dict[_RawKey, CallKey | Unread]:
        """What is known of slices with a label, to be added to; bounded by forgetting."""
        if sum(map(len, self._known.values())) > _RAW_KEYS:
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
        self._ingress_host = ingress_host
        self._add = self._add_executions if stream is LogStream.EXECUTIONS else self._add_exposed
        # By label, and whether the lines carry the executions tag: what is counted and not
        # interpreted yet.
        self._raw: dict[tuple[str, bool], dict[_RawKey, int]] = {}
        self._tallies: Tallies = Counter()
        self._seen = 0
        self._understood = 0

    def add(self, lines: Iterable[str], *, country_label: str = "") -> None:
        """Count what is a call among `lines`, all of the asked span, without newlines.

        `country_label` is the country their transport attached to all of them, if any.
        """
        label = self._countries.of_label(country_label)
        of_ip = None if label else self._countries.of_ip
        for batch in _batches(lines):
            self._add(batch, of_ip, label)
            if sum(map(len, self._raw.values())) > _RAW_KEYS:
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

    def _add_executions(self, lines: list[str], of_ip: _OfIp | None, label: str) -> None:
        tagged = self._raw.setdefault((label, True), {})
        untagged = self._raw.setdefault((label, False), {})
        count_of = tagged.get
        for line in lines:
            try:
                head, status, _, ip, rest = line.split(SEPARATOR, 4)
            except ValueError:
                self._add_odd_execution(line, of_ip, label)
                continue
            if len(rest) > _LONGEST_HELD:
                self._add_odd_execution(line, of_ip, label)
                continue
            if EXECUTIONS_TAG in head:
                key = f"{of_ip(ip) if of_ip else ''}\n{status} | {rest}"
                tagged[key] = count_of(key, 0) + 1
            elif GIN_TAG in head:
                key = f"{of_ip(ip) if of_ip else ''}\n{status} | {rest}"
                untagged[key] = untagged.get(key, 0) + 1

    def _add_odd_execution(self, line: str, of_ip: _OfIp | None, label: str) -> None:
        call = read_execution(line)
        ip_country = "" if isinstance(call, Unread) or of_ip is None else of_ip(call.ip)
        self._count(self._key_of(call, ip_country, label), 1)

    def _add_exposed(self, lines: list[str], of_ip: _OfIp | None, label: str) -> None:
        raw = self._raw.setdefault((label, True), {})
        for line in lines:
            fields = gateway_fields(line, ingress_host=self._ingress_host)
            if isinstance(fields, Unread):
                self._count(fields, 1)
            else:
                key = fields._replace(ip=of_ip(fields.ip) if of_ip else "")
                raw[key] = raw.get(key, 0) + 1

    def settle(self) -> None:
        """Interpret what is held until now; costs nothing where nothing is."""
        for (label, tagged), raw in self._raw.items():
            shared = self._interpreted
            known = {} if shared is None else shared.of(label, tagged=tagged)
            for key, count in raw.items():
                call = known.get(key)
                if call is None:
                    call = self._key_of(*_interpret(key, tagged=tagged), label)
                    if shared is not None:
                        known[key] = call
                if isinstance(call, CallKey):
                    self._tallies[call] = self._tallies.get(call, 0) + count
                    self._understood += count
                    self._seen += count
                elif call is not Unread.OTHER:
                    self._seen += count
        self._raw.clear()

    def _key_of(self, call: Call | Unread, ip_country: str, label: str) -> CallKey | Unread:
        if isinstance(call, Unread):
            return call
        country, country_from = self._countries.settle(label, ip_country, call.user)
        return CallKey(
            call.namespace, call.service, call.user, country, country_from, call.kind, call.result
        )

    def _count(self, call: CallKey | Unread, count: int) -> None:
        if call is Unread.OTHER:
            return
        self._seen += count
        if isinstance(call, Unread):
            return
        self._understood += count
        self._tallies[call] = self._tallies.get(call, 0) + count


def _interpret(key: _RawKey, *, tagged: bool) -> tuple[Call | Unread, str]:
    if isinstance(key, GatewayFields):
        return interpret_exposed(key), key.ip
    ip_country, _, cut = key.partition("\n")
    status, _, rest = cut.partition(SEPARATOR)
    return interpret_execution(rest, status, "", tagged=tagged), ip_country


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(lines)
    while batch := list(islice(iterator, _BATCH_LINES)):
        yield batch
