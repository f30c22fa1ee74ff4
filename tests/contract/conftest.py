"""Two servers for all contract tests: every source has spoken, and nothing is configured."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import NOTHING, WHOLE, aggregator, serving


@pytest.fixture(scope="session")
def whole() -> Iterator[httpx.Client]:
    """The administrator's client of a server whose sources have all spoken."""
    telemetry = Telemetry()
    with serving(aggregator(WHOLE, telemetry), telemetry) as client:
        yield client


@pytest.fixture(scope="session")
def nothing() -> Iterator[httpx.Client]:
    """The administrator's client of a server that has no sources."""
    telemetry = Telemetry()
    with serving(aggregator(NOTHING, telemetry), telemetry) as client:
        yield client


@pytest.fixture(scope="session")
def stranger(whole: httpx.Client) -> Iterator[httpx.Client]:
    """A client of the first server, without credentials."""
    with httpx.Client(base_url=whole.base_url, timeout=30) as client:
        yield client
