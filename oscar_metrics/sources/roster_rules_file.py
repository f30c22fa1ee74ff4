"""The file of the roster's rules, re-read when it changes; the last good one stands in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from oscar_metrics.sources.log_blocks import FileVersion
from oscar_metrics.sources.roster_rules import Rules, RulesError, parse_rules
from oscar_metrics.sources.versioned_files import UnusableFileError, VersionedFile
from oscar_metrics.timerange import SECOND_NS

RULES_SETTING = "OSCAR_METRICS_ROSTER_RULES"
_CALLED = "the file of roster rules"
_MOST_BYTES = 256 * 1024


class RulesAsRead(msgspec.Struct, frozen=True, kw_only=True):
    """The rules to go by, and what is wrong with the file; blank for nothing.

    `rules` is None where there never was a good file.
    """

    rules: Rules | None
    problem: str = ""


class RulesFile:
    """The rules at `path`, or the last good ones where the file cannot be used any more."""

    def __init__(self, path: Path) -> None:
        self._file = VersionedFile(
            path=path, called=_CALLED, setting=RULES_SETTING, bytes_max=_MOST_BYTES
        )
        self._rules: Rules | None = None
        self._version: FileVersion | None = None
        self._read_ns = 0

    async def read(self, now_ns: int) -> RulesAsRead:
        """The rules as they are now: the same object again while the file is the same."""
        try:
            found = await asyncio.to_thread(self._changed)
        except UnusableFileError as exc:
            if self._rules is None:
                return RulesAsRead(rules=None, problem=str(exc))
            age_seconds = max(0, now_ns - self._read_ns) // SECOND_NS
            problem = f"{exc}; the one read {age_seconds:,} s ago is used"
            return RulesAsRead(rules=self._rules, problem=problem)
        if found is not None:
            self._rules, self._version = found
        self._read_ns = now_ns
        return RulesAsRead(rules=self._rules)

    def _changed(self) -> tuple[Rules, FileVersion] | None:
        version = self._file.version()
        if version == self._version:
            return None
        try:
            return Rules(parse_rules(self._file.content())), version
        except RulesError as exc:
            raise self._file.unusable(f"is of no use: {exc}") from None
