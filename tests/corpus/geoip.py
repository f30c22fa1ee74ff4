"""The GeoIP database of the corpus: a few networks, written the same way every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdb_writer import MMDBWriter
from netaddr import IPSet

from tests.corpus.platform import COUNTRY_BLOCKS

# 2026-01-01T00:00:00Z: the writer would put the time of writing.
_BUILD_EPOCH = 1_767_225_600


class _Writer(MMDBWriter):
    build_epoch = _BUILD_EPOCH

    def _build_meta(self) -> dict[str, Any]:
        return {**super()._build_meta(), "build_epoch": self.build_epoch}


def write_geoip_database(
    path: Path,
    blocks_by_country: Mapping[str, Sequence[str]] = COUNTRY_BLOCKS,
    *,
    build_epoch: int = _BUILD_EPOCH,
) -> None:
    """Write a country database, that of the corpus' addresses, in GeoLite2-Country's shape."""
    writer = _Writer(
        ip_version=6,
        ipv4_compatible=True,
        database_type="GeoLite2-Country",
        languages=["en"],
        description="Invented: which country the sample's addresses are in",
    )
    writer.build_epoch = build_epoch
    for country, blocks in blocks_by_country.items():
        writer.insert_network(IPSet(blocks), {"country": {"iso_code": country}})
    writer.to_db_file(str(path))
