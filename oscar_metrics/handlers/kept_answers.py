"""What is kept of answers, in memory and outside the process, and what it is good for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
import structlog
from msgspec.structs import replace

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.handlers.answer import Answer, Question
from oscar_metrics.handlers.shared_answers import SharedAnswers
from oscar_metrics.ledger.store import Changes, Version
from oscar_metrics.resilience.report_cache import (
    OFF,
    CacheSettings,
    Freshness,
    ReportCache,
    freshness,
)
from oscar_metrics.telemetry import Telemetry

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_KILOBYTE = 1024
# Of a ledger in a state that this process has not seen it in.
_NEVER = -1


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and what was answered instead when it could not be made anew."""

    answer: Answer
    # Of the ledger, before the answer was begun to be made.
    changes: Changes | None
    # What is answered since it could not be made anew, when that was last tried, and how long
    # that might take.
    instead: Answer | None = None
    tried_at_ns: int = 0
    tried_seconds: float | None = None

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return self.answer.size_bytes + (self.instead.size_bytes if self.instead else 0)


class KeptAnswers:
    """One server's, made once at start-up; what is kept outside is seen to within `running`."""

    def __init__(
        self,
        aggregator: Aggregator,
        settings: CacheSettings,
        telemetry: Telemetry,
        shared: SharedAnswers | None,
    ) -> None:
        self._aggregator = aggregator
        self._settings = settings
        self._telemetry = telemetry
        self._shared = shared
        self._cache: ReportCache[Kept] = ReportCache(settings.memory_mb * _KILOBYTE**2)
        telemetry.cache_bytes.set_function(lambda: self._cache.size_bytes)
        telemetry.cache_answers.set_function(lambda: len(self._cache))
        self._forgotten = 0
        self._group: asyncio.TaskGroup | None = None
        # What is done with what is kept outside, for nobody who waits.
        self._beside: set[asyncio.Task[None]] = set()
        self._clearing: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within the block answers are kept outside; what is under way at its end is ended."""
        async with asyncio.TaskGroup() as self._group:
            try:
                yield
            finally:
                for task in self._beside:
                    task.cancel()
        if self._shared is not None:
            await self._shared.aclose()

    def forgettings(self) -> int:
        """How often a user was forgotten; nothing from before the last time is kept."""
        changes = self._aggregator.ledger_changes()
        # Where the ledger cannot be read, nobody is forgotten.
        if changes is not None and changes.forgotten != self._forgotten:
            self._forgotten = changes.forgotten
            self._cache.clear()
            if self._shared is not None and (self._clearing is None or self._clearing.done()):
                self._clearing = self._do_beside(self._shared.clear())
        return self._forgotten

    def get(self, question: Question) -> Kept | None:
        """What is kept in memory of a question."""
        self.forgettings()
        return self._cache.get(question)

    def may_have(self, question: Question) -> bool:
        """Whether something is kept of a question, as far as is known before it is looked for."""
        return self._shared is not None or self.get(question) is not None

    def put(self, question: Question, kept: Kept) -> bool:
        """Keep it in memory, and whether it is: not if too large, or of before a forgetting."""
        is_of_before = kept.changes is not None and kept.changes.forgotten != self.forgettings()
        if (
            self._settings.store == OFF
            or is_of_before
            or kept.answer.size_bytes > self._settings.answer_kb * _KILOBYTE
        ):
            return False
        before = self._cache.evicted
        self._cache.put(question, kept, size_bytes=kept.size_bytes + question.size_bytes)
        self._telemetry.cache_evicted.inc(self._cache.evicted - before)
        return True

    async def version(self) -> Version | None:
        """The state of the ledger that answers kept outside are to be of; None: ask nobody."""
        return None if self._shared is None else await self._aggregator.ledger_version()

    async def find(
        self, question: Question, changes: Changes | None, version: Version | None
    ) -> Kept | None:
        """What is kept outside only, which is then kept in memory, too."""
        if self._shared is None or version is None or self.get(question) is not None:
            return None
        found = await self._shared.find(question, version)
        if found is None or self.get(question) is not None:
            return None
        if changes is not None and found.facts != version.facts:
            changes = replace(changes, written=_NEVER)
        kept = Kept(answer=found.answer, changes=changes)
        self.put(question, kept)
        return kept

    def put_everywhere(self, question: Question, kept: Kept, version: Version | None) -> None:
        """Keep it in memory, and outside for others and the next start."""
        if self.put(question, kept) and self._shared is not None and version is not None:
            self._do_beside(self._shared.keep(question, version, kept.answer))

    async def drop(
        self, question: Question, version: Version | None, *, may_be_outside: bool
    ) -> None:
        """Have what could be seen before stand in for nothing any more."""
        self._cache.drop(question)
        if self._shared is not None and version is not None and may_be_outside:
            await self._shared.drop(question, version)

    def good_for(self, kept: Kept, now_ns: int) -> Freshness | None:
        """What it is good for now; None: nothing."""
        return freshness(
            kept.answer.made,
            self._settings,
            now_ns=now_ns,
            unchanged=kept.changes == self._aggregator.ledger_changes(),
        )

    def is_cut_short(self, kept: Kept, wait_seconds: int | None) -> bool:
        """Whether more may be known to who waits longer than was waited for what is kept."""
        if kept.instead is not None:
            tried = kept.tried_seconds
        elif kept.answer.may_say_more:
            tried = kept.answer.made.allowed_seconds
        else:
            return False
        allowed = self._aggregator.seconds_allowed(wait_seconds)
        return tried is not None and (allowed is None or allowed > tried)

    def _do_beside(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self._group is None:
            raise RuntimeError("answers are kept outside within `running`")
        task = self._group.create_task(_logged(work))
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)
        return task


async def _logged(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - its group has others to care for
        _log.exception("answers could not be kept outside the process")
