"""Answers kept in memory, those used last, and how long each may be shown. Pure.

A kept answer is fresh while nothing it rests on can have changed much; then it is shown while
it is made anew; then it only stands in for one that cannot be made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import Meta

from oscar_metrics.resilience.shared_cache import SharedCacheSettings

T = TypeVar("T")

_SECOND_NS = 1_000_000_000
# So much is kept of an answer beside its bytes, about: its headers, who refers to it.
_OVERHEAD_BYTES = 2048


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept of reports that were made, and for how long."""

    # `memory`, `off`, or the URL of a Redis in which answers are kept beside it, for the next
    # start and other replicas.
    store: str = "memory"
    # Memory that kept answers may take, in MiB; those used longest ago make room.
    memory_mb: Annotated[int, Meta(ge=1, le=65536)] = 64
    # The largest answer that is kept, in KiB.
    answer_kb: Annotated[int, Meta(ge=1, le=1_048_576)] = 4096
    # How long a report is fresh whose range has not ended an hour ago, or of which a source
    # that failed is missing, in seconds.
    open_seconds: Annotated[int, Meta(ge=0, le=3600)] = 5
    # How long any other is fresh, in seconds, unless the ledger changes.
    closed_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 600
    # How long one is fresh at most that is made for a user, in seconds: so long may it stay
    # unnoticed that they may see something else now.
    user_seconds: Annotated[int, Meta(ge=0, le=86_400)] = 60
    # How long one that is no longer fresh is shown while it is made anew, in seconds.
    revalidate_seconds: Annotated[int, Meta(ge=0, le=3600)] = 10
    # How old one may be that stands in where a source fails, in seconds; 0: none does.
    error_seconds: Annotated[int, Meta(ge=0, le=604_800)] = 3600
    redis: SharedCacheSettings = SharedCacheSettings()

    def __repr__(self) -> str:
        # A Redis' URL may hold its password.
        return f"CacheSettings(memory_mb={self.memory_mb!r}, …)"


OFF = "off"
IN_MEMORY = "memory"


class Freshness(StrEnum):
    """What a kept answer is good for."""

    FRESH = "fresh"
    # While one is made anew.
    STALE = "stale"
    # Where one cannot be made.
    OLD = "old"


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """When an answer was made, and how long it is fresh while what it rests on is the same.

    `allowed_seconds` is how long making it might take; None: as long as it takes.
    """

    at_ns: int
    fresh_seconds: int
    allowed_seconds: float | None = None


def freshness(
    made: Made, settings: CacheSettings, *, now_ns: int, unchanged: bool
) -> Freshness | None:
    """What an answer is good for at an instant; None: nothing.

    `unchanged` is whether what it rests on, as far as that can be told, is what it was.
    """
    age_seconds = (now_ns - made.at_ns) / _SECOND_NS
    if age_seconds < 0:  # the clock was set back: nobody knows how old it is
        return None
    fresh_seconds = made.fresh_seconds if unchanged else 0
    if age_seconds < fresh_seconds:
        return Freshness.FRESH
    # What has changed is shown no longer than a report of an open range would be.
    shown_seconds = max(fresh_seconds, min(made.fresh_seconds, settings.open_seconds))
    if made.fresh_seconds and age_seconds < shown_seconds + settings.revalidate_seconds:
        return Freshness.STALE
    return Freshness.OLD if age_seconds < settings.error_seconds else None


class ReportCache(Generic[T]):
    """Values by key, of `memory_bytes` together at most; each key is somebody's question."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self.size_bytes = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> T | None:
        """What is kept under a key, which is then the one used last."""
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: Hashable, value: T, *, size_bytes: int) -> None:
        """Keep a value of so many bytes, and drop others where there is no room."""
        self.drop(key)
        self._kept[key] = value, size_bytes + _OVERHEAD_BYTES
        self.size_bytes += size_bytes + _OVERHEAD_BYTES
        while self.size_bytes > self._memory_bytes:
            self.drop(next(iter(self._kept)))
            self.evicted += 1

    def drop(self, key: Hashable) -> None:
        """Forget what is kept under a key, if anything."""
        _, size_bytes = self._kept.pop(key, (None, 0))
        self.size_bytes -= size_bytes

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self.size_bytes = 0
