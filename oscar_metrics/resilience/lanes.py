"""How many reports are made at once, how many wait for their turn, and who is told to come later.

There are lanes, so that reports over long ranges keep nobody from short ones. A few that come
together wait for each other; where more come than that, waiting would only make all of them late
(https://queue.acm.org/detail.cfm?id=2839461), so none wait until those refused may be back.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Generator
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from oscar_metrics.errors import NotNow
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, Span


class LaneSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many reports are made at once, and how many wait."""

    # Reports made at once over ranges that are not long.
    reports_at_once: Annotated[int, Meta(ge=1, le=1000)] = 8
    # Those that may wait for their turn besides; more are refused at once (503, `Retry-After`),
    # and then none wait for as long as it would take to make those that were refused.
    reports_queued: Annotated[int, Meta(ge=0, le=10_000)] = 16
    # Reports made at once over long ranges where there is no ledger. One takes half of an
    # upstream's places: more at once would only make each other slower.
    long_reports_at_once: Annotated[int, Meta(ge=1, le=1000)] = 2
    # Those that may wait besides.
    long_reports_queued: Annotated[int, Meta(ge=0, le=10_000)] = 4
    # Reports made at once over long ranges from the ledger: one takes a processor or more.
    ledger_reports_at_once: Annotated[int, Meta(ge=1, le=1000)] = 1
    # Those that may wait besides.
    ledger_reports_queued: Annotated[int, Meta(ge=0, le=10_000)] = 5
    # A range is long from so many days on.
    long_report_days: Annotated[int, Meta(ge=1, le=36_500)] = 8
    # How long a report waits for its turn, in seconds, before it is refused all the same; half
    # of its deadline where that is less.
    queue_seconds: Annotated[float, Meta(ge=0, le=3600)] = 10.0
    # A report of more rows is written while it is sent, and never kept.
    streamed_rows: Annotated[int, Meta(ge=1, le=50_000_000)] = 20_000
    # Such reports sent at a time, which are held in memory for as long as that takes; more are
    # refused.
    streams_at_once: Annotated[int, Meta(ge=1, le=1000)] = 8


_STREAMS = "stream"
# Who reads one takes some seconds, or many.
_STREAM_RETRY_SECONDS = 10
# Whoever is refused is told to come again within this, or within what a report takes.
_RETRY_SECONDS = 10


class LaneName(StrEnum):
    """By how long a range is, and what a report over a long one needs: upstreams, or processors."""

    SHORT = "short"
    LONG = "long"
    LEDGER = "ledger"


class Lanes:
    """One server's, made once at start-up."""

    def __init__(self, settings: LaneSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._long_ns = settings.long_report_days * DAY_NS
        self._streams = 0
        self._refused = telemetry.reports_refused
        telemetry.reports_made.labels(_STREAMS).set_function(lambda: self._streams)
        sizes = {
            LaneName.SHORT: (settings.reports_at_once, settings.reports_queued),
            LaneName.LONG: (settings.long_reports_at_once, settings.long_reports_queued),
            LaneName.LEDGER: (settings.ledger_reports_at_once, settings.ledger_reports_queued),
        }
        self._lanes = {
            name: _Lane(name, at_once, queued, settings.queue_seconds, telemetry)
            for name, (at_once, queued) in sizes.items()
        }

    def is_streamed(self, rows: int) -> bool:
        """Whether a report of so many rows is written while it is sent."""
        return rows > self._settings.streamed_rows

    def stream(self, pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        """The same pieces, one of the streams there may be from now on, until it is closed.

        Raises NotNow where there are too many.
        """
        if self._streams >= self._settings.streams_at_once:
            self._refused.labels(_STREAMS, "queue full").inc()
            raise NotNow(
                "too many large reports at once",
                detail=f"{self._streams} are being sent; ask again, or for fewer rows",
                retry_after_seconds=_STREAM_RETRY_SECONDS,
            )
        counted = self._counted(pieces)
        next(counted)  # others who ask now are to find it counted; dropped, it is closed
        return counted

    def _counted(self, pieces: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
        self._streams += 1
        try:
            yield b""
            with contextlib.closing(pieces):
                yield from pieces
        finally:
            self._streams -= 1

    def of(self, span: Span | None, *, has_ledger: bool) -> LaneName:
        """The lane of a report over a range; None: of one that cannot be told."""
        if span is None or span.length_ns < self._long_ns:
            return LaneName.SHORT
        return LaneName.LEDGER if has_ledger else LaneName.LONG

    def refuse_if_full(self, name: LaneName) -> None:
        """Raise NotNow where there is neither a place nor one in the queue, before more is done."""
        self._lanes[name].refuse_if_full()

    @contextlib.asynccontextmanager
    async def place(self, name: LaneName, deadline: float | None) -> AsyncIterator[None]:
        """A place for one report while the block lasts; raises NotNow where there is none.

        `deadline` is the report's, an event loop's time, or None.
        """
        async with self._lanes[name].place(deadline):
            yield


class _Lane:
    def __init__(
        self, name: LaneName, at_once: int, queued: int, seconds: float, telemetry: Telemetry
    ) -> None:
        self._name = name
        self._at_once = at_once
        self._queued = queued
        self._seconds = seconds
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0
        # How long a report of this lane takes, about.
        self._took_seconds = 0.0
        # When those that were refused could have been made.
        self._crowded_until = -math.inf
        self._refused = telemetry.reports_refused
        telemetry.reports_waiting.labels(name).set_function(lambda: self._waiting)
        self._made = telemetry.reports_made.labels(name)

    @contextlib.asynccontextmanager
    async def place(self, deadline: float | None) -> AsyncIterator[None]:
        await self._take(deadline)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            with self._made.track_inprogress():
                yield
        finally:
            self._places.release()
            self._took_seconds += (loop.time() - began - self._took_seconds) / 8

    async def _take(self, deadline: float | None) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        self.refuse_if_full()
        seconds = self._seconds
        if deadline is not None:
            # What is left then is to be enough to make it.
            seconds = min(seconds, (deadline - asyncio.get_running_loop().time()) / 2)
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise self._refusal("waited too long") from None
        finally:
            self._waiting -= 1

    def refuse_if_full(self) -> None:
        if not self._places.locked():
            return
        if self._waiting >= self._queued:
            raise self._refusal("queue full")
        if asyncio.get_running_loop().time() < self._crowded_until:
            raise self._refusal("crowded")

    def _refusal(self, why: str) -> NotNow:
        """Each is told to come again when those refused before it may have been made."""
        self._refused.labels(self._name, why).inc()
        now = asyncio.get_running_loop().time()
        latest = now + max(_RETRY_SECONDS, self._took_seconds)
        since = max(now + self._waiting * self._took_seconds / self._at_once, self._crowded_until)
        self._crowded_until = min(latest, since + self._took_seconds / self._at_once)
        return NotNow(
            "too many reports at once",
            detail=f"{self._at_once} are made at a time and {self._waiting} wait; ask again",
            retry_after_seconds=max(1, math.ceil(self._crowded_until - now)),
        )
