"""How the programs of the platform write a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from oscar_metrics.timerange import SECOND_NS

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def rfc3339(time_ns: int, *, offset_hours: int = 0) -> str:
    """As Go's RFC3339Nano: no more fraction digits than needed."""
    at, fraction = _at(time_ns, offset_hours), time_ns % SECOND_NS
    text = at.strftime("%Y-%m-%dT%H:%M:%S")
    if fraction:
        text += f".{fraction:09d}".rstrip("0")
    return text + (f"{offset_hours:+03d}:00" if offset_hours else "Z")


def cri_time(time_ns: int, *, offset_hours: int = 0) -> str:
    """As container runtimes write it: nine fraction digits, the node's own offset."""
    text = _at(time_ns, offset_hours).strftime("%Y-%m-%dT%H:%M:%S")
    zone = f"{offset_hours:+03d}:00" if offset_hours else "Z"
    return f"{text}.{time_ns % SECOND_NS:09d}{zone}"


def gin_time(time_ns: int) -> str:
    """As Gin and older managers write it: whole seconds, no zone (UTC here)."""
    return _at(time_ns, 0).strftime("%Y/%m/%d - %H:%M:%S")


def access_log_time(time_ns: int, *, offset_hours: int = 0) -> str:
    """As nginx writes it: whole seconds, English month names whatever the locale."""
    at = _at(time_ns, offset_hours)
    return (
        f"{at.day:02d}/{_MONTHS[at.month - 1]}/{at.year}:"
        f"{at.hour:02d}:{at.minute:02d}:{at.second:02d} {offset_hours:+03d}00"
    )


def _at(time_ns: int, offset_hours: int) -> datetime:
    at = datetime.fromtimestamp(time_ns // SECOND_NS, UTC)
    return at.astimezone(timezone(timedelta(hours=offset_hours)))
