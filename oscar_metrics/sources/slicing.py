"""Raw slices of log lines: what calls can be counted by before they are interpreted. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from oscar_metrics.facts import CallKey, LogStream
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

# A longer line (a path with a long query) is interpreted at once instead of being held.
_LONGEST_HELD = 400

# What lines are counted by before they are interpreted, with the country of the IP in it.
# For executions one text, `country newline status | rest`: it costs half of what a tuple does.
RawKey = str | GatewayFields
_OfIp = Callable[[str], str]


class Slices(NamedTuple):
    """The slices of lines with the executions tag (of a gateway: all), of those without it.

    And what was interpreted at once.
    """

    tagged: list[RawKey]
    untagged: list[RawKey]
    interpreted: list[CallKey | Unread]


class Slicer:
    """Cuts the lines of one stream, and says what a slice stands for."""

    def __init__(self, stream: LogStream, countries: Countries, *, ingress_host: str) -> None:
        self._countries = countries
        self._ingress_host = ingress_host
        executions = stream is LogStream.EXECUTIONS
        self.slices = self._executions if executions else self._exposed

    def interpret(self, key: RawKey, label: str, *, tagged: bool) -> CallKey | Unread:
        """What a slice stands for, of a line with this label of a country."""
        if isinstance(key, GatewayFields):
            return self._key_of(interpret_exposed(key), key.ip, label)
        ip_country, _, cut = key.partition("\n")
        status, _, rest = cut.partition(SEPARATOR)
        call = interpret_execution(rest, status, "", tagged=tagged)
        return self._key_of(call, ip_country, label)

    def _executions(self, lines: list[str], label: str) -> Slices:
        slices = Slices([], [], [])
        of_ip = None if label else self._countries.of_ip
        keep = slices.tagged.append
        for line in lines:
            try:
                head, status, _, ip, rest = line.split(SEPARATOR, 4)
            except ValueError:
                slices.interpreted.append(self._odd_execution(line, of_ip, label))
                continue
            if len(rest) > _LONGEST_HELD:
                slices.interpreted.append(self._odd_execution(line, of_ip, label))
            elif EXECUTIONS_TAG in head:
                keep(f"{of_ip(ip) if of_ip else ''}\n{status} | {rest}")
            elif GIN_TAG in head:
                slices.untagged.append(f"{of_ip(ip) if of_ip else ''}\n{status} | {rest}")
        return slices

    def _odd_execution(self, line: str, of_ip: _OfIp | None, label: str) -> CallKey | Unread:
        call = read_execution(line)
        ip_country = "" if isinstance(call, Unread) or of_ip is None else of_ip(call.ip)
        return self._key_of(call, ip_country, label)

    def _exposed(self, lines: list[str], label: str) -> Slices:
        slices = Slices([], [], [])
        of_ip = None if label else self._countries.of_ip
        for line in lines:
            fields = gateway_fields(line, ingress_host=self._ingress_host)
            if isinstance(fields, Unread):
                slices.interpreted.append(fields)
            else:
                slices.tagged.append(fields._replace(ip=of_ip(fields.ip) if of_ip else ""))
        return slices

    def _key_of(self, call: Call | Unread, ip_country: str, label: str) -> CallKey | Unread:
        if isinstance(call, Unread):
            return call
        country, country_from = self._countries.settle(label, ip_country, call.user)
        return CallKey(
            call.namespace, call.service, call.user, country, country_from, call.kind, call.result
        )
