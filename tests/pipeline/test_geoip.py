"""The country database: fetched as the collector's start fetches it, and read where it lies."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from oscar_metrics.facts import LogStream
from oscar_metrics.findings import Level
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Span
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import write_lines
from tests.corpus.times import rfc3339
from tests.pipeline.maxmind import Failure, MaxMind
from tests.pipeline.reading import facts, read, settings_of
from tests.servers.build import program, require
from tests.servers.collector import Collector
from tests.servers.loki import Loki
from tests.servers.process import wait_until

ROOT = Path(__file__).parents[2]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "deploy/pipeline/alloy-values.yaml").read_text())
SECRET: dict[str, Any] = next(yaml.safe_load_all((ROOT / "deploy/pipeline/geoip.yaml").read_text()))
# Where the volume is, in the collector and in what fetches the database.
VOLUME = "/var/lib/geoip"
# A database of a year ago, and one of now: a network has changed hands.
THEN = {"ES": ("79.117.0.0/16",), "FR": ("90.20.0.0/16",)}
NOW = {"PT": ("79.117.0.0/16",), "FR": ("90.20.0.0/16",)}
NOW_NS = 1_790_000_000 * SECOND_NS
SHORT = "timeout 120", "timeout 3"


@pytest.fixture
def maxmind(tmp_path: Path) -> Iterator[MaxMind]:
    require("geoipupdate")
    with MaxMind.start(tmp_path) as server:
        yield server


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.mkdir()
    return path


def written(tmp_path: Path, blocks: Mapping[str, Sequence[str]], at_ns: int) -> bytes:
    path = tmp_path / "written.mmdb"
    write_geoip_database(path, blocks, build_epoch=at_ns // SECOND_NS)
    return path.read_bytes()


def database(volume: Path) -> Path:
    """Where the collector is told that the database is."""
    (path,) = (v["value"] for v in VALUES["alloy"]["extraEnv"] if v["name"] == "GEOIP_DATABASE")
    return Path(path.replace(VOLUME, str(volume)))


def fetch(maxmind: MaxMind, volume: Path, **other: str) -> subprocess.CompletedProcess[str]:
    """Run what the collector's pod runs first: its command, its environment and the secret's.

    But for the volume's place, how long what fails is tried again, and how long all may take.
    """
    (container,) = VALUES["controller"]["initContainers"]
    assert [m["mountPath"] for m in container["volumeMounts"]] == [VOLUME]
    assert [s["secretRef"]["name"] for s in container["envFrom"]] == [SECRET["metadata"]["name"]]
    programs = volume.parent / "programs"
    programs.mkdir(exist_ok=True)
    (programs / "geoipupdate").unlink(missing_ok=True)
    (programs / "geoipupdate").symlink_to(program("geoipupdate"))
    environment = {v["name"]: v["value"].replace(VOLUME, str(volume)) for v in container["env"]}
    environment |= SECRET["stringData"] | maxmind.environment
    assert "GEOIPUPDATE_RETRY_FOR" in environment
    environment |= {"GEOIPUPDATE_RETRY_FOR": "1s", "PATH": f"{programs}:{os.environ['PATH']}"}
    command = container["command"]
    assert SHORT[0] in command[-1]
    if maxmind.failing is Failure.HANGS:
        command = [part.replace(*SHORT) for part in command]
    return subprocess.run(
        command, env=environment | other, capture_output=True, text=True, check=False
    )


def test_a_database_arrives_where_it_is_read_and_its_successor_after_it(
    maxmind: MaxMind, volume: Path, tmp_path: Path
) -> None:
    maxmind.database = written(tmp_path, THEN, NOW_NS - 365 * DAY_NS)
    assert fetch(maxmind, volume).returncode == 0
    geoip = GeoIP.open(database(volume))
    country_of = geoip.lookup()
    assert country_of is not None
    assert (country_of("79.117.1.2"), country_of("90.20.1.2")) == ("ES", "FR")
    (finding,) = geoip.check(NOW_NS)
    assert (finding.level, finding.change) == (
        Level.WARNING,
        "update the database: networks change hands",
    )

    maxmind.database = written(tmp_path, NOW, NOW_NS - 3 * DAY_NS)
    assert fetch(maxmind, volume).returncode == 0
    (finding,) = geoip.check(NOW_NS)
    assert (finding.level, finding.says) == (Level.OK, "GeoLite2-Country, built 3 days ago")
    country_of = geoip.lookup()
    assert country_of is not None
    assert (country_of("79.117.1.2"), country_of("90.20.1.2")) == ("PT", "FR")

    # There is nothing newer.
    before = database(volume).stat()
    assert fetch(maxmind, volume).returncode == 0
    assert database(volume).stat() == before


@pytest.mark.parametrize("failure", Failure)
def test_where_none_can_be_had_the_collector_starts_with_the_one_there_is(
    maxmind: MaxMind, volume: Path, tmp_path: Path, failure: Failure
) -> None:
    maxmind.database = written(tmp_path, NOW, NOW_NS)
    maxmind.failing = failure
    assert fetch(maxmind, volume).returncode != 0, "a collector without any would not start"
    assert not database(volume).exists()

    old = written(tmp_path, THEN, NOW_NS - DAY_NS)
    database(volume).write_bytes(old)
    assert fetch(maxmind, volume).returncode == 0
    assert database(volume).read_bytes() == old

    maxmind.failing = None
    assert fetch(maxmind, volume).returncode == 0
    assert database(volume).read_bytes() == maxmind.database


def test_an_account_that_nobody_put_in_is_told_of(maxmind: MaxMind, volume: Path) -> None:
    done = fetch(maxmind, volume, **SECRET["stringData"])
    assert done.returncode != 0
    assert "the `AccountID` option is required" in done.stderr


_CONFIGURATION = """
import.file "files" { filename = env("PIPELINE") + "/files.alloy" }
import.file "executions" { filename = env("PIPELINE") + "/executions.alloy" }
import.file "country" { filename = env("PIPELINE") + "/country.alloy" }
import.file "delivery" { filename = env("PIPELINE") + "/delivery.alloy" }
files.plain "manager" {
  targets    = [{ __path__ = env("LOG"), namespace = "moved", app = "moved", pod = "oscar-0" }]
  forward_to = [executions.lines.manager.receiver]
}
executions.lines "manager" { forward_to = [country.by_address.callers.receiver] }
country.by_address "callers" {
  database   = env("GEOIP_DATABASE")
  forward_to = [delivery.to_loki.default.receiver]
}
delivery.to_loki "default" { url = env("LOKI_PUSH_URL") }
"""


async def test_the_collector_knows_a_new_database_after_its_restart_and_doubles_no_call(
    maxmind: MaxMind, loki: Loki, volume: Path, tmp_path: Path
) -> None:
    stop_ns = time.time_ns() // SLOT_NS * SLOT_NS
    span = Span(stop_ns - HOUR_NS, stop_ns)
    calls = [
        f"[GIN-EXECUTIONS-LOGGER] {rfc3339(span.start_ns + n * SECOND_NS)} | 200 | 1ms"
        f" | 79.117.1.{n} | POST /run/cowsay | somebody"
        for n in range(1, 7)
    ]
    log = tmp_path / "manager.log"
    configuration = tmp_path / "countries.alloy"
    configuration.write_text(_CONFIGURATION)

    def has(country: str, lines: int) -> None:
        """Wait until Loki has that many lines with that country."""
        selector = f'{{namespace="moved", geoip_country_code="{country}"}}'
        wait_until(
            lambda: loki.count(selector, span.start_ns, span.stop_ns) == lines,
            f"{lines} lines from {country}",
            timeout_seconds=60,
        )

    maxmind.database = written(tmp_path, THEN, NOW_NS - DAY_NS)
    assert fetch(maxmind, volume).returncode == 0
    write_lines(log, calls[:2])
    with Collector.start(
        tmp_path,
        configuration,
        environment={
            "PIPELINE": str(ROOT / "alloy"),
            "LOG": str(log),
            "LOKI_PUSH_URL": f"{loki.url}/loki/api/v1/push",
            "GEOIP_DATABASE": str(database(volume)),
        },
    ) as collector:
        has("ES", 2)

        maxmind.database = written(tmp_path, NOW, NOW_NS)
        assert fetch(maxmind, volume).returncode == 0
        with log.open("a") as file:
            file.writelines(f"{call}\n" for call in calls[2:4])
        has("ES", 4)

        # A new pod: it reads the log from its beginning, and knows the new countries.
        collector.stop()
        with log.open("a") as file:
            file.writelines(f"{call}\n" for call in calls[4:])
        collector.restart(forgetful=True)
        has("PT", 6)
    # Four calls are there twice, from one country and from another.
    outcomes = await read(settings_of(loki, "moved", "moved-gateway"), span)
    assert facts(outcomes[LogStream.EXECUTIONS]).lines_seen == len(calls)
