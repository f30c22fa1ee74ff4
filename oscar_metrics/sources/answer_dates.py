"""Instants in an answer's headers: when it was made, and when to ask again. Pure."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping

# Further off than anybody waits; what is written with more digits is no less.
_FAR_SECONDS = 10.0**9
_WHOLE = re.compile(r"\d+", re.ASCII)


def http_date(value: str) -> float | None:
    """Seconds since the epoch of an HTTP date, or None."""
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def retry_after_seconds(headers: Mapping[str, str], now: float) -> float | None:
    """How long an answer asks to be left alone; None where it does not say it as RFC 9110 has it.

    `now` is in seconds since the epoch. An HTTP date counts from the answer's own Date, where it
    has one, so that clocks that differ make no difference. Header names may be in any case.
    """
    value = headers.get("Retry-After", "").strip()
    if _WHOLE.fullmatch(value):
        return min(float(value), _FAR_SECONDS)
    if (date := http_date(value)) is None:
        return None
    made = http_date(headers.get("Date", ""))
    return min(max(date - (now if made is None else made), 0.0), _FAR_SECONDS)
