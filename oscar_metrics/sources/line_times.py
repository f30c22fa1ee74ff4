"""When a log line says it happened. Pure.

The time a transport put before the line (CRI, `kubectl logs --timestamps`) beats the
line's own, which is RFC 3339, Gin's old form in the manager's local time (taken as UTC),
nginx's, or `StartUTC` of Traefik's JSON.
"""

from __future__ import annotations

import re

from oscar_metrics.timerange import parse_instant

_TRANSPORT = re.compile(r"(\d{4}-\d\d-\d\dT\S+)(?: |$)", re.ASCII)
_TAGGED = re.compile(r"\[[A-Z][\w-]*\] (\S+(?: - \S+)?)", re.ASCII)
_OLD_GIN = re.compile(r"(\d{4})/(\d\d)/(\d\d)(?: -)? (\d\d:\d\d:\d\d)", re.ASCII)
_NGINX = re.compile(
    r"\[(\d\d)/([A-Z][a-z][a-z])/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)\]", re.ASCII
)
_START = re.compile(r'"StartUTC" ?: ?"([^"]*)"')
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def line_time_ns(line: str) -> int | None:
    """Nanoseconds since the epoch of the line's time; None where it has none that can be read."""
    if match := _TRANSPORT.match(line):
        return _instant(match[1])
    if line.startswith("{"):
        match = _START.search(line)
        return _any_form(match[1]) if match else None
    if match := _TAGGED.match(line):
        return _any_form(match[1])
    return _nginx(line)


def _any_form(text: str) -> int | None:
    if match := _OLD_GIN.match(text):
        year, month, day, clock = match.groups()
        return _instant(f"{year}-{month}-{day}T{clock}Z")
    return _instant(text) if text[10:11] == "T" else _nginx(f"[{text}]")


def _nginx(text: str) -> int | None:
    match = _NGINX.search(text)
    if match is None:
        return None
    day, name, year, clock, hours, minutes = match.groups()
    month, middle_of_a_name = divmod(_MONTHS.find(name), 3)
    if month < 0 or middle_of_a_name:
        return None
    return _instant(f"{year}-{month + 1:02d}-{day}T{clock}{hours}:{minutes}")


def _instant(text: str) -> int | None:
    try:
        return parse_instant(text)
    except ValueError:
        return None
