"""When a log line says it happened. Pure.

The time a transport put before the line (CRI, `kubectl logs --timestamps`) beats the
line's own, which is RFC 3339, Gin's old form in the manager's local time (taken as UTC),
nginx's, or `StartUTC` of Traefik's JSON.
"""

from __future__ import annotations

import re
from functools import lru_cache

from oscar_metrics.timerange import SECOND_NS, parse_instant

MINUTE_NS = 60 * SECOND_NS

_TRANSPORT = re.compile(r"(\d{4}-\d\d-\d\dT\S+)(?: |$)", re.ASCII)
_TAGGED = re.compile(r"\[[^\]]*\] (\S+(?: - \S+| \d\d:\d\d:\d\d)?)", re.ASCII)
_START = re.compile(r'"StartUTC" ?: ?"([^"]*)"')
_OLD_GIN = re.compile(r"(\d{4})/(\d\d)/(\d\d)(?: -)? (\d\d:\d\d:\d\d)", re.ASCII)
# What follows the digits of a fraction is let pass: the second is sure without it.
_UTC = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{0,9}).*)?Z", re.ASCII)
_NGINX = re.compile(
    r"\[(\d\d)/([A-Z][a-z][a-z])/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d\d)(\d\d)\]", re.ASCII
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


def line_time_ns(line: str) -> int | None:
    """Nanoseconds since the epoch of the line's time; None where it has none that can be read."""
    if match := _TRANSPORT.match(line):
        return _rfc3339(match[1])
    if line.startswith("{"):
        match = _START.search(line)
        return _any_form(match[1]) if match else None
    if match := _TAGGED.match(line):
        return _any_form(match[1])
    return _nginx(line)


# Many lines share a minute, so that reading the minute's text once is enough for most of them.
_AFTER_MINUTE = frozenset(f":{second:02d}" for second in range(60))
AFTER_OLD_MINUTE = frozenset(f"{second} " for second in _AFTER_MINUTE)
AFTER_UTC_MINUTE = frozenset(f"{second}{end}" for second in _AFTER_MINUTE for end in "Z.")


def minute_of(line: str) -> str:
    """A text that stands for the UTC minute the line's time lies in.

    Blank where the line has none of the common forms; `line_time_ns` may still read it.
    """
    first = line[:1]
    if first == "[":
        at = line.find("] ") + 2
        if line[at + 10 : at + 13] == " - ":
            whole = line[at + 18 : at + 21] in _AFTER_MINUTE and line[at + 21 : at + 22] in (
                "",
                " ",
            )
            return line[at : at + 18] if whole else ""
        end = line.find(" ", at)
        end = len(line) if end < 0 else end
    elif first == "{":
        at = line.find('"StartUTC":"') + 12
        end = line.find('"', at)
    elif line[10:11] == "T":
        at = 0
        end = line.find(" ")
    else:
        at = line.find("[") + 1
        whole = line[at + 17 : at + 20] in _AFTER_MINUTE and line[at + 20 : at + 27] == " +0000]"
        return line[at : at + 17] if whole else ""
    if line[at + 16 : at + 20] in AFTER_UTC_MINUTE and line[end - 1 : end] == "Z":
        return line[at : at + 16]
    return ""


def minute_start_ns(minute: str) -> int | None:
    """When the minute begins that a text from `minute_of` stands for; None where it is none."""
    hour_ns = _hour_ns(minute[:-3])
    after = minute[-2:]
    if hour_ns is None or not (after.isascii() and after.isdigit()) or int(after) > 59:
        return None
    return hour_ns + int(after) * MINUTE_NS


@lru_cache(maxsize=1024)
def _hour_ns(hour: str) -> int | None:
    separator = hour[4:5]
    if separator == "-":
        return _rfc3339(hour + ":00:00Z")
    return _any_form(hour + ":00:00") if separator == "/" else _nginx(f"[{hour}:00:00 +0000]")


def _any_form(text: str) -> int | None:
    if match := _OLD_GIN.match(text):
        year, month, day, clock = match.groups()
        return _rfc3339(f"{year}-{month}-{day}T{clock}Z")
    return _rfc3339(text) if text[10:11] == "T" else _nginx(f"[{text}]")


def _nginx(text: str) -> int | None:
    match = _NGINX.search(text)
    if match is None:
        return None
    day, name, year, clock, hours, minutes = match.groups()
    month, middle_of_a_name = divmod(_MONTHS.find(name), 3)
    if month < 0 or middle_of_a_name:
        return None
    return _rfc3339(f"{year}-{month + 1:02d}-{day}T{clock}{hours}:{minutes}")


def _rfc3339(text: str) -> int | None:
    if match := _UTC.fullmatch(text):
        text = f"{match[1]}.{match[2]}Z" if match[2] else f"{match[1]}Z"
    try:
        return parse_instant(text)
    except ValueError:
        return None
