"""How often log-ins failed from each address within a minute. Pure: the caller says when."""

from __future__ import annotations

import math
from collections import OrderedDict

import msgspec

_WINDOW_SECONDS = 60


class FailedLogins:
    """Counts log-ins that failed, by address; the longest untouched address is forgotten first.

    A minute begins with the first failure, and with the first one after it is over.
    """

    def __init__(self, *, per_minute: int, addresses_most: int) -> None:
        self._per_minute = per_minute
        self._addresses_most = addresses_most
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    def add(self, address: str, now: float) -> int:
        """Count one more at `now`, in seconds.

        Gives 0 while there are not too many, else the seconds until the minute is over.
        """
        window = self._windows.get(address)
        if window is None or not window.since <= now < window.since + _WINDOW_SECONDS:
            window = self._windows[address] = _Window(since=now)
        self._windows.move_to_end(address)
        if len(self._windows) > self._addresses_most:
            self._windows.popitem(last=False)
        window.failures += 1
        if window.failures <= self._per_minute:
            return 0
        # A sum of floats may be a little more than it is.
        return min(math.ceil(window.since + _WINDOW_SECONDS - now), _WINDOW_SECONDS)


class _Window(msgspec.Struct, gc=False):
    since: float
    failures: int = 0
