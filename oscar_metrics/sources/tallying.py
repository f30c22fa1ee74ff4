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


class Tallier:
    """Counts the calls among the lines of one stream.

    `ingress_host` is the base host of services with hosts of their own (Traefik), or blank.
    """

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str = "") -> None:
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
                self._settle()

    def result(self) -> CallLog:
        """What was counted so far."""
        self._settle()
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
        self._count(call, 1, ip_country, label)

    def _add_exposed(self, lines: list[str], of_ip: _OfIp | None, label: str) -> None:
        raw = self._raw.setdefault((label, True), {})
        for line in lines:
            fields = gateway_fields(line, ingress_host=self._ingress_host)
            if isinstance(fields, Unread):
                self._count(fields, 1, "", label)
            else:
                key = fields._replace(ip=of_ip(fields.ip) if of_ip else "")
                raw[key] = raw.get(key, 0) + 1

    def _settle(self) -> None:
        for (label, tagged), raw in self._raw.items():
            for key, count in raw.items():
                call, ip_country = _interpret(key, tagged=tagged)
                self._count(call, count, ip_country, label)
        self._raw.clear()

    def _count(self, call: Call | Unread, count: int, ip_country: str, label: str) -> None:
        if call is Unread.OTHER:
            return
        self._seen += count
        if isinstance(call, Unread):
            return
        self._understood += count
        country, country_from = self._countries.settle(label, ip_country, call.user)
        key = CallKey(
            call.namespace, call.service, call.user, country, country_from, call.kind, call.result
        )
        self._tallies[key] = self._tallies.get(key, 0) + count


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
