"""How many connections there may be, and who has to go when one more comes."""

from __future__ import annotations

import resource
from enum import Enum, auto
from typing import Protocol

import structlog

from oscar_metrics.telemetry import Telemetry

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# Connections above the most there may be of which a request is still read: health routes are
# answered, and everybody else is told why not.
SPARE = 32
# Who has been idle for less may be about to ask again.
_IDLE_SECONDS_LEAST = 1.0
# Between two lines in the log that say so.
_SILENT_SECONDS = 60.0
# Descriptors for everything but clients: upstreams, the ledger, log files.
_OWN_DESCRIPTORS = 256
# Where there are hardly more than those, every so-manieth is for a client nevertheless.
_SHARE_OF_FEW = 4


class Connection(Protocol):
    """What takes a place."""

    def end_if_idle(self) -> bool:
        """Close, unless the peer has not read all of its last answer yet; whether it did."""


class Place(Enum):
    """What a connection that was just accepted gets."""

    TAKEN = auto()
    SPARE = auto()
    NONE = auto()


class Places:
    """At most `most` connections and some spare ones; idle ones make room for those who come."""

    def __init__(self, most: int, telemetry: Telemetry) -> None:
        self._most = most
        self._taken: set[Connection] = set()
        self._spare: set[Connection] = set()
        # Since when each is idle, the longest first.
        self._idle: dict[Connection, float] = {}
        self._silent_until = 0.0
        self._refused = telemetry.connections_refused
        telemetry.connections.set_function(lambda: len(self._taken))

    def take(self, connection: Connection, now: float) -> Place:
        """A place for one more; `now` is of the event loop's clock, as everywhere here."""
        if len(self._taken) < self._most or self._end_longest_idle(now):
            self._taken.add(connection)
            self._idle[connection] = now
            return Place.TAKEN
        if now >= self._silent_until:
            self._silent_until = now + _SILENT_SECONDS
            _log.warning("connections are refused", most=self._most)
        if len(self._spare) < SPARE:
            self._spare.add(connection)
            return Place.SPARE
        return Place.NONE

    def refuse(self) -> None:
        """Count one that is told to come again."""
        self._refused.inc()

    def leave(self, connection: Connection) -> None:
        """A connection is no more."""
        self._taken.discard(connection)
        self._spare.discard(connection)
        self._idle.pop(connection, None)

    def is_idle(self, connection: Connection, now: float) -> None:
        """It has been answered, and asks nothing."""
        if connection in self._taken:
            self._idle[connection] = now

    def is_busy(self, connection: Connection) -> None:
        """It asks something."""
        self._idle.pop(connection, None)

    def _end_longest_idle(self, now: float) -> bool:
        for connection, since in self._idle.items():
            if now - since < _IDLE_SECONDS_LEAST:
                return False
            if connection.end_if_idle():
                self.leave(connection)
                return True
        return False


def within_descriptors(most: int) -> int:
    """As many connections of `most` as the process may have descriptors for, besides its own.

    The soft limit is raised as far as the hard one lets it be. Past the limit the system would
    reset connections without a word, and calls to upstreams would fail.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = most + SPARE + _OWN_DESCRIPTORS
    if _lacks(soft, needed):
        soft = min(needed, hard) if _lacks(hard, needed) else needed
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    fitting = max(soft - SPARE - _OWN_DESCRIPTORS, soft // _SHARE_OF_FEW, 1)
    if fitting >= most or not _lacks(soft, needed):
        return most
    _log.warning(
        "fewer connections than OSCAR_METRICS_CONNECTIONS_MOST: the process may not have as many"
        " open files (ulimit -n)",
        most=most,
        fitting=fitting,
        open_files=soft,
        needed=needed,
    )
    return fitting


def _lacks(limit: int, needed: int) -> bool:
    return limit != resource.RLIM_INFINITY and limit < needed
