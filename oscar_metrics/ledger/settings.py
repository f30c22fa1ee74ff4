"""What can be set of the ledger."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the ledger is, what it may take, and when hours are sealed, merged and dropped."""

    # The file, made with its folder when the server starts; `off` to run without a ledger.
    file: str = "data/ledger.duckdb"
    # Memory the engine may take, in MB; what needs more goes through files beside the ledger.
    memory_mb: Annotated[int, Meta(ge=32, le=65536)] = 256
    # Threads one query may take, beside those that answer requests.
    threads: Annotated[int, Meta(ge=1, le=64)] = 2
    # Minutes after an hour's end when it is sealed; until then reports ask its sources.
    first_look_minutes: Annotated[int, Meta(ge=1, le=1440)] = 10
    # Hours after an hour's end when it is looked at again for late lines.
    second_look_hours: Annotated[int, Meta(ge=1, le=720)] = 4
    # Hours after an hour's end of the last look; it is final then and never asked for again.
    last_look_hours: Annotated[int, Meta(ge=1, le=8760)] = 24
    # Minutes until an hour of which something was missing is tried again; doubled every time.
    retry_minutes: Annotated[int, Meta(ge=1, le=1440)] = 5
    # Days back that are sealed by themselves when the server starts; 0 for none.
    backfill_days: Annotated[int, Meta(ge=0, le=36500)] = 400
    # Age in days past which quarter-hours are merged into hours; what they were is dropped.
    quarters_kept_days: Annotated[int, Meta(ge=2, le=36500)] = 400
    # Age in days past which hours are merged into days.
    hours_kept_days: Annotated[int, Meta(ge=2, le=36500)] = 1826
    # Rows one report may have of each kind; one that has more is refused.
    rows_max: Annotated[int, Meta(ge=1000, le=50_000_000)] = 500_000
    # Periods (rows of a series) one report may have; one that asks for more is refused.
    periods_max: Annotated[int, Meta(ge=1, le=100_000)] = 2000

    @property
    def is_on(self) -> bool:
        """Whether there is to be a ledger."""
        return self.file != "off"

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self.file)
