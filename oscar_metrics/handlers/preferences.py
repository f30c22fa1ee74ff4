"""What a request would rather have (RFC 7240): how long its caller is willing to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Longer ones say nothing: no client needs them, and taking them apart costs time.
_MOST_CHARACTERS = 1024
# What stands between commas that are in no quotes, which may lack their end.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\(?:.|$))*(?:"|$))+')
_SECONDS = re.compile(r'("?)([0-9]{1,9})\1')


def wait_seconds(fields: Iterable[str]) -> int | None:
    """The seconds of `wait` in `Prefer` fields; None without one, or where it makes no sense.

    Of several the first counts. 0 makes none: a report takes some time.
    """
    text = ",".join(fields)
    if len(text) > _MOST_CHARACTERS:
        return None
    for preference in _PREFERENCE.findall(text):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            seconds = _SECONDS.fullmatch(value.strip())
            return int(seconds[2]) or None if seconds else None
    return None
