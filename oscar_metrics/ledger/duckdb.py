"""The ledger in one file of DuckDB's, owned by one process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from oscar_metrics.facts import Inventory, LogStream, ServiceKey, Usage
from oscar_metrics.findings import Finding
from oscar_metrics.ledger import (
    duckdb_compaction,
    duckdb_exporting,
    duckdb_forgetting,
    duckdb_names,
    duckdb_owners,
    duckdb_reading,
    duckdb_rollups,
    duckdb_sealing,
    duckdb_seals,
    duckdb_verifying,
)
from oscar_metrics.ledger.duckdb_importing import DuckImport
from oscar_metrics.ledger.duckdb_threads import Threads
from oscar_metrics.ledger.seals import (
    Candidate,
    Judged,
    Owned,
    Restated,
    Sealed,
    SealHead,
    SealKind,
)
from oscar_metrics.ledger.store import Changes, ExportForm, Progress, Version
from oscar_metrics.sums import CallSums, Grouping
from oscar_metrics.timerange import Span


class DuckLedger:
    """A LedgerStore; what its methods give and raise is said there."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._forgettings = 0
        # Which state was read when it had changed so often.
        self._version: tuple[Changes, Version] | None = None
        # Rows on their way into the file. One thread writes, so one name is enough.
        self._rows_file = threads.path.with_name(f"{threads.path.name}.rows")

    @classmethod
    def open(cls, path: Path, *, create: bool, memory_mb: int, threads: int) -> DuckLedger:
        """Open the file, made with its folder if `create`; blocks while it is brought up to date.

        `memory_mb` and `threads` are the engine's. Raises LedgerHeld when another process has
        the file, LedgerError when it cannot be opened.
        """
        return cls(Threads.open(path, create=create, memory_mb=memory_mb, threads=threads))

    @property
    def changes(self) -> Changes:
        """How often there was a change."""
        return Changes(written=self._threads.changes, forgotten=self._forgettings)

    async def version(self) -> Version:
        """Which state is stored; read anew only when it may be another one."""
        changes = self.changes
        if self._version is None or self._version[0] != changes:
            self._version = changes, await self._threads.read(duckdb_seals.version)
        return self._version[1]

    async def seal(self, candidates: Sequence[Candidate], *, now_ns: int) -> list[Judged]:
        """Judge candidates, and write what has seen more."""
        return await self._threads.write(
            lambda cursor: duckdb_sealing.seal(cursor, self._rows_file, candidates, now_ns=now_ns)
        )

    def importing(self) -> DuckImport:
        """Begin an import."""
        return DuckImport(self._threads, self._rows_file)

    async def heads(self, kind: SealKind, span: Span) -> list[SealHead]:
        """The newest seal of every sealed hour."""
        return await self._threads.read(lambda cursor: duckdb_seals.heads(cursor, kind, span))

    async def sealed(self, kind: SealKind, span: Span, *, as_of_ns: int | None = None) -> Sealed:
        """What is sealed, in stretches."""
        return await self._threads.read(
            lambda cursor: duckdb_seals.sealed(cursor, kind, span, as_of_ns=as_of_ns)
        )

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
        """Calls by groupings."""
        return await self._threads.read(
            lambda cursor: duckdb_reading.call_sums(
                cursor,
                stream,
                spans,
                groupings,
                service=service,
                only=only,
                bounds_ns=bounds_ns,
                rows_max=rows_max,
                as_of_ns=as_of_ns,
            )
        )

    async def usage_sums(
        self,
        spans: Sequence[Span],
        *,
        service: str | None = None,
        bounds_ns: Sequence[int] = (),
        as_of_ns: int | None = None,
    ) -> dict[int, Usage]:
        """Usage by period."""
        return await self._threads.read(
            lambda cursor: duckdb_reading.usage_sums(
                cursor, spans, service=service, bounds_ns=bounds_ns, as_of_ns=as_of_ns
            )
        )

    async def inventory(self, *, as_of_ns: int) -> tuple[Inventory, int] | None:
        """The inventory as of an instant."""
        return await self._threads.read(
            lambda cursor: duckdb_seals.inventory(cursor, as_of_ns=as_of_ns)
        )

    async def owned(self) -> Owned:
        """Every owner there ever was."""
        return await self._threads.read(duckdb_owners.owned)

    async def services(self) -> frozenset[ServiceKey]:
        """Every service there ever was."""
        return await self._threads.read(duckdb_names.services)

    async def restated(
        self, kinds: Collection[SealKind], span: Span, *, since_ns: int, most: int
    ) -> list[Restated]:
        """The hours sealed anew since an instant."""
        return await self._threads.read(
            lambda cursor: duckdb_seals.restated(cursor, kinds, span, since_ns=since_ns, most=most)
        )

    async def pseudonyms(self, users: Collection[str]) -> dict[str, str]:
        """Who of these was forgotten."""
        return await self._threads.read(lambda cursor: duckdb_forgetting.pseudonyms(cursor, users))

    async def roll_up(self, *, now_ns: int) -> int:  # noqa: ARG002 - other engines may need it
        """Roll up one day or month; how many are left."""
        return await self._threads.write(duckdb_rollups.roll_up)

    async def compact(self, *, now_ns: int, quarters_kept_ns: int, hours_kept_ns: int) -> int:
        """Merge one stretch that has aged; how many are left."""
        return await self._threads.write(
            lambda cursor: duckdb_compaction.compact(
                cursor,
                now_ns=now_ns,
                quarters_kept_ns=quarters_kept_ns,
                hours_kept_ns=hours_kept_ns,
            )
        )

    async def verify(self, progress: Progress) -> list[Finding]:
        """Compare everything with its checksums."""
        return await self._threads.read(lambda cursor: duckdb_verifying.verify(cursor, progress))

    async def export(self, folder: Path, form: ExportForm, progress: Progress) -> list[Path]:
        """Write everything to files."""
        return await self._threads.read(
            lambda cursor: duckdb_exporting.export(cursor, folder, form, progress)
        )

    async def forget(self, user: str, *, now_ns: int) -> str | None:  # noqa: ARG002 - as above
        """Replace a user by a pseudonym."""
        self._forgettings += 1
        try:
            return await self._forget(user)
        finally:
            self._forgettings += 1

    async def _forget(self, user: str) -> str | None:
        pseudonym = await self._threads.write(lambda cursor: duckdb_forgetting.forget(cursor, user))
        if pseudonym is not None:
            await self._threads.alone(duckdb_forgetting.scrub)
        return pseudonym

    async def aclose(self) -> None:
        """Close the file."""
        await self._threads.aclose()
