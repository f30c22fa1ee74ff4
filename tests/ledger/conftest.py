"""The ledgers that the contract suite is about, of every engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oscar_metrics.ledger.store import LedgerStore
from tests.ledger.stores import ENGINES, Opened


@pytest.fixture(params=ENGINES)
def open_store(request: pytest.FixtureRequest) -> Opened:
    return ENGINES[request.param]


@pytest.fixture
async def store(open_store: Opened, tmp_path: Path) -> AsyncIterator[LedgerStore]:
    opened = open_store(tmp_path)
    yield opened
    await opened.aclose()
