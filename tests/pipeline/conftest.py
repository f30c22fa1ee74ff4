"""What tests of the pipeline share: a Loki, and the country database of the corpus."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpus.geoip import write_geoip_database
from tests.servers.build import require
from tests.servers.loki import Loki


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    require("grafana-agent-flow")
    require("loki")
    with Loki.start(tmp_path_factory.mktemp("loki")) as server:
        yield server


@pytest.fixture(scope="session")
def geoip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The country database of the corpus' addresses."""
    path = tmp_path_factory.mktemp("geoip") / "countries.mmdb"
    write_geoip_database(path)
    return path
