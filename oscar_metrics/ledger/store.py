"""What a ledger can do, whatever engine keeps it; one contract suite holds every engine to it.

Methods raise LedgerError (errors.py) with a sentence of ours where the engine fails, and
never hand its text on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from oscar_metrics.facts import CallKey, Inventory, LogStream, ServiceKey, SlotPart, Usage
from oscar_metrics.findings import Finding
from oscar_metrics.ledger.seals import (
    Candidate,
    Judged,
    Owned,
    Restated,
    Sealed,
    SealHead,
    SealKind,
)
from oscar_metrics.sums import CallSums, Grouping
from oscar_metrics.timerange import Span


class Progress(Protocol):
    """Told how far a long piece of work is."""

    def __call__(self, done: int, total: int, doing: str) -> None:
        """`done` of `total` parts; `doing` names the part in a word or two."""


class ExportForm(StrEnum):
    """What an export is written as."""

    PARQUET = "parquet"
    CSV = "csv"


class NumberedCalls(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one part of a slot: the number of the key of each of them, in no order.

    `lines_seen` counts the lines that were recognised, of which not all were understood.
    """

    numbers: Sequence[int]
    lines_seen: int


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """How often, since the file was opened, something may have been written, or a user forgotten.

    What was read while both numbers stayed the same is of one state of the ledger.
    """

    written: int
    forgotten: int


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Which state of which ledger it is, in digests that tell nothing else.

    `people` changes when a user is forgotten, `facts` when something else that reports show does.
    """

    people: str
    facts: str


class Import(Protocol):
    """Candidates being put together from files in any order; nothing is sealed before `seal`."""

    async def add(
        self, stream: LogStream, keys: Sequence[CallKey], parts: Mapping[SlotPart, NumberedCalls]
    ) -> None:
        """Add calls, number i being one of keys[i]; what was added of a part before is added to.

        `keys` are those of all calls of the stream so far: from one time to the next there
        may be more, and none is another.
        """

    async def seal(self, candidates: Iterable[Candidate], *, now_ns: int) -> list[Judged]:
        """Judge and seal the hours, whose `calls` are empty: theirs are those added."""


class LedgerStore(Protocol):
    """Sealed hours: written once, read at any grain, kept as long as the settings say."""

    @property
    def changes(self) -> Changes:
        """How often it has changed."""

    async def version(self) -> Version:
        """Which state it is in; the same when it is opened again."""

    async def seal(self, candidates: Sequence[Candidate], *, now_ns: int) -> list[Judged]:
        """Judge each candidate against what is sealed, and write what has seen more; all or none.

        A seal that is not replaced has its next look, and their number, updated where the
        candidate is of a further look.
        """

    def importing(self) -> Import:
        """A new import, which forgets what an unfinished one before it had added."""

    async def heads(self, kind: SealKind, span: Span) -> list[SealHead]:
        """The newest seal of every sealed hour that touches the span, in order."""

    async def sealed(self, kind: SealKind, span: Span, *, as_of_ns: int | None = None) -> Sealed:
        """What is sealed of the hours that touch the span, now or as it was at an instant."""

    async def call_sums(
        self,
        stream: LogStream,
        spans: Sequence[Span],
        groupings: Collection[Grouping],
        *,
        service: str | None = None,
        only: Callable[[ServiceKey], bool] | None = None,
        bounds_ns: Sequence[int] = (),
        rows_max: int,
        as_of_ns: int | None = None,
    ) -> CallSums:
        """The sums over spans that lie in sealed hours and begin and end on parts of slots.

        That is: at a stored slot's first instant or one nanosecond after it. `service` keeps
        one service name's calls only, `only` those of the services it says yes to; it is asked
        of each service of the state that is read, on another thread, and is to be pure.
        `bounds_ns` gives the periods of groupings that begin with `period`: period i is
        [bounds_ns[i], bounds_ns[i + 1]). Raises TooManyRows when a
        grouping has more than `rows_max` rows, LedgerChanged where spans or bounds are not
        what is stored: slots may have been merged since `sealed` was asked.
        """

    async def usage_sums(
        self,
        spans: Sequence[Span],
        *,
        service: str | None = None,
        bounds_ns: Sequence[int] = (),
        as_of_ns: int | None = None,
    ) -> dict[int, Usage]:
        """Usage over spans that begin and end on stored slots, by period (0 without bounds).

        A measure is None where no slot of the period measured it.
        """

    async def inventory(self, *, as_of_ns: int) -> tuple[Inventory, int] | None:
        """The newest inventory that had been sealed at an instant, and when it was."""

    async def owned(self) -> Owned:
        """Who was ever the owner of a service or namespace; who was forgotten by pseudonym."""

    async def services(self) -> frozenset[ServiceKey]:
        """Every service the ledger was ever told calls or usage of."""

    async def restated(
        self, kinds: Collection[SealKind], span: Span, *, since_ns: int, most: int
    ) -> list[Restated]:
        """The hours that were known at `since_ns` and have been sealed anew since, oldest first."""

    async def pseudonyms(self, users: Collection[str]) -> dict[str, str]:
        """Of these users those that were forgotten, and the pseudonyms they are known by."""

    async def roll_up(self, *, now_ns: int) -> int:
        """Roll up one day or month that is due; how many are left. 0 and nothing to do: done."""

    async def compact(self, *, now_ns: int, quarters_kept_ns: int, hours_kept_ns: int) -> int:
        """Merge one stretch of slots that has aged; how many are left. 0: nothing was to be done.

        Older than `quarters_kept_ns` slots are hours, older than `hours_kept_ns` days; only
        newest revisions are kept there, and what is merged is final.
        """

    async def verify(self, progress: Progress) -> list[Finding]:
        """Read everything and compare it with its checksums and totals."""

    async def export(self, folder: Path, form: ExportForm, progress: Progress) -> list[Path]:
        """Write calls, usage, inventories and seals to new files in a folder; their paths."""

    async def forget(self, user: str, *, now_ns: int) -> str | None:
        """Replace a user by a pseudonym everywhere, now and in whatever is sealed later.

        The pseudonym, or None where the ledger does not know the user.
        """

    async def aclose(self) -> None:
        """Close the file."""
