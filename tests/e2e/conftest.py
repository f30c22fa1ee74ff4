"""One corpus as every origin has it: log files, a real Loki, the pods of a real cluster.

Each is started and filled once for the whole run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from oscar_metrics.facts import Roster, RosterUser
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.timerange import DAY_NS, Span, parse_instant
from tests.corpus import Corpus, platform, sample
from tests.corpus.corpus import Mix
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import add_pods, loki_streams, write_log_files
from tests.servers.build import require
from tests.servers.kubernetes import KubeCluster
from tests.servers.loki import Loki

_ROLES = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
# Over a month's end, and some of the next month.
START_NS = parse_instant("2026-02-27T00:00:00Z")
SPAN = Span(START_NS, START_NS + 3 * DAY_NS)
# Later than everything in it, and early enough for nothing to be kept no more.
NOW_NS = SPAN.stop_ns + DAY_NS


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """Three days of a platform; every quarter-hour has a line of each stream."""
    return Corpus.generate(3, SPAN, Mix(calls=6000, broken=80, repeated=40))


@pytest.fixture(scope="session")
def log_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the corpus as plain log files."""
    folder = tmp_path_factory.mktemp("logs")
    write_log_files(corpus, folder)
    return folder


@pytest.fixture(scope="session")
def compressed_log_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, gzip."""
    folder = tmp_path_factory.mktemp("compressed-logs")
    write_log_files(corpus, folder, compress=True)
    return folder


@pytest.fixture(scope="session")
def loki(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """A Loki whose pipeline knows no countries."""
    yield from _filled_loki(corpus, tmp_path_factory.mktemp("loki"), country_labels=False)


@pytest.fixture(scope="session")
def loki_with_countries(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    """A Loki whose pipeline labels the country of most calls."""
    yield from _filled_loki(corpus, tmp_path_factory.mktemp("labelled-loki"), country_labels=True)


@pytest.fixture(scope="session")
def cluster(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeCluster]:
    """A cluster with the platform's namespaces and services, and with the pods that logged."""
    for server in ("etcd", "kube-apiserver", "kwok"):
        require(server)
    with KubeCluster.start(tmp_path_factory.mktemp("cluster")) as kube:
        for manifest in (*platform.manifests(), *role_manifests()):
            kube.apply(manifest)
        add_pods(kube, corpus)
        yield kube


@pytest.fixture(scope="session")
def geoip_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that knows the corpus' addresses."""
    path = tmp_path_factory.mktemp("geoip") / "geoip.mmdb"
    write_geoip_database(path)
    return path


@pytest.fixture(scope="session")
def roster_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that knows some of the corpus' users."""
    path = tmp_path_factory.mktemp("roster") / "roster.csv"
    path.write_text(sample.roster_csv(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def countries(geoip_database: Path) -> Countries:
    """How countries are decided where both are configured."""
    users = {
        user: RosterUser(id=user, name=name, country=country, vo=vo, project=project)
        for user, name, _membership, country, vo, project in platform.roster_rows()
    }
    roster = Roster(users=users)
    return Countries(GeoIP.open(geoip_database), roster)


def role_manifests() -> list[dict[str, Any]]:
    """The roles that ship with the project, given to the cluster's plain user."""
    manifests = list(yaml.safe_load_all(_ROLES.read_text("utf-8")))
    user = {"kind": "User", "name": "metrics", "apiGroup": "rbac.authorization.k8s.io"}
    return [m | {"subjects": [user]} if "subjects" in m else m for m in manifests]


def _filled_loki(corpus: Corpus, directory: Path, *, country_labels: bool) -> Iterator[Loki]:
    require("loki")
    streams = loki_streams(corpus, country_labels=country_labels)
    # Loki takes an entry equal to another of its stream for the same one.
    distinct = sum(len(set(entries)) for _, entries in streams)
    with Loki.start(directory) as server:
        server.push(streams)
        span = corpus.span
        server.flush_and_wait('{pod=~".+"}', span.start_ns, span.stop_ns, distinct)
        yield server
