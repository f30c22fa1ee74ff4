"""The ledger that a process has open, or why it has none: what opens it fills this in."""

from __future__ import annotations

from oscar_metrics.ledger.store import LedgerStore


class LedgerHolder:
    """Shared by who opens the ledger, who seals and who reads.

    `store` is None while the file cannot be used, and `problem` then says why, in a sentence
    for callers of the API: without a path. `rows_max` bounds what one report reads.
    """

    def __init__(
        self, store: LedgerStore | None = None, *, problem: str = "", rows_max: int
    ) -> None:
        self.store = store
        self.problem = problem
        self.rows_max = rows_max
