"""Answers that are kept outside the process as well: how one is written, found, and done away with.

What is written tells which state of the ledger it is of; who was forgotten since is not found.
"""

from __future__ import annotations

import asyncio

import msgspec

from oscar_metrics.errors import UpstreamError
from oscar_metrics.handlers.answer import Answer, Question
from oscar_metrics.ledger.store import Version
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.resilience.shared_cache import SharedCache

# Answers on their way at a time; while there are so many, others are kept in memory only.
_WRITTEN_AT_ONCE = 8
# When it is tried again to remove what was kept before a user was forgotten.
_CLEAR_AGAIN_SECONDS = 60


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and the state of the ledger that it is of."""

    facts: str
    answer: Answer


class SharedAnswers:
    """One server's, over a cache that never raises."""

    def __init__(self, cache: SharedCache, settings: CacheSettings) -> None:
        self._cache = cache
        self._keep_seconds = max(
            settings.error_seconds, settings.closed_seconds + settings.revalidate_seconds
        )
        self._written = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Found).decode

    async def find(self, question: Question, version: Version) -> Found | None:
        """What another process, or this one before, has kept of a question."""
        text = await self._cache.get(self._name(question, version))
        if text is None:
            return None
        try:
            return self._decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None  # of a build of the same version that has other fields

    async def keep(self, question: Question, version: Version, answer: Answer) -> None:
        """Have it found by others, and by this server when it is started again."""
        if self._written >= _WRITTEN_AT_ONCE:
            return
        self._written += 1
        try:
            found = Found(facts=version.facts, answer=answer)
            await self._cache.put(
                self._name(question, version), self._encode(found), keep_seconds=self._keep_seconds
            )
        finally:
            self._written -= 1

    async def drop(self, question: Question, version: Version) -> None:
        """Have it found no more: who asks may not see it now."""
        await self._cache.drop(self._name(question, version))

    async def clear(self) -> None:
        """Remove everything, however long it takes until that can be done."""
        while True:
            if await self._cache.clear():
                return
            await asyncio.sleep(_CLEAR_AGAIN_SECONDS)

    async def trouble(self) -> UpstreamError | None:
        """Why nothing can be kept outside now; None where it can."""
        return await self._cache.trouble()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._cache.aclose()

    def _name(self, question: Question, version: Version) -> bytes:
        return self._encode((version.people, question))
