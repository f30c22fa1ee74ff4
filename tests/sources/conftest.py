"""The Lokis that tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.build import require
from tests.servers.loki import Loki


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("loki")
    with Loki.start(tmp_path_factory.mktemp("loki")) as server:
        yield server


@pytest.fixture(scope="module")
def small_loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """A Loki that allows little."""
    require("loki")
    limits = {
        "max_entries_limit_per_query": 100,
        "max_query_series": 5,
        "max_query_length": "10m",
    }
    with Loki.start(tmp_path_factory.mktemp("small-loki"), limits=limits) as server:
        yield server
