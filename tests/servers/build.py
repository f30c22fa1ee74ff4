"""Find the servers' programs, or install them.

A program installed before, or on PATH in a version that is as good, is used as it is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.go_module import GoModule
from tests.servers.maven import MavenFolder, MavenProgram
from tests.servers.server import BuildError, Server

__all__ = ["SERVERS", "BuildError", "build_all", "find", "program", "require"]

_LISTED: tuple[Server, ...] = (
    GoModule(
        name="loki",
        version="3.7.8",
        module="github.com/grafana/loki/v3",
        module_version="v3.7.8",
        version_variables={"github.com/grafana/loki/v3/pkg/util/build.Version": "3.7.8"},
    ),
    GoModule(
        name="prometheus",
        version="3.15.0",
        module="github.com/prometheus/prometheus",
        # Prometheus 3.y.z is published as module v0.3yy.z: its path has no /v3.
        module_version="v0.315.0",
        version_variables={"github.com/prometheus/common/version.Version": "3.15.0"},
        # Without the clients of twenty clouds: a third less to compile. Targets come from the
        # configuration itself, from files, over HTTP, or from Kubernetes.
        tags="remove_all_sd,enable_kubernetes_sd",
    ),
    GoModule(
        name="etcd",
        version="3.7.3",
        module="go.etcd.io/etcd/server/v3",
        module_version="v3.7.3",
        version_variables={},
    ),
    GoModule(
        name="kube-apiserver",
        version="1.36.3",
        module="k8s.io/kubernetes",
        module_version="v1.36.3",
        version_variables={
            "k8s.io/component-base/version.gitVersion": "v1.36.3",
            "k8s.io/component-base/version.gitMajor": "1",
            "k8s.io/component-base/version.gitMinor": "36",
        },
    ),
    # What makes objects of manifests, as an operator does.
    GoModule(
        name="kubectl",
        version="1.36.3",
        module="k8s.io/kubernetes",
        module_version="v1.36.3",
        version_variables={"k8s.io/component-base/version.gitVersion": "v1.36.3"},
        asked_version_by=("version", "--client"),
    ),
    GoModule(
        name="kwok",
        version="0.8.0",
        module="sigs.k8s.io/kwok",
        module_version="v0.8.0",
        version_variables={},
    ),
    GoModule(
        name="toxiproxy",
        version="2.5.0",
        module="github.com/Shopify/toxiproxy/v2",
        module_version="v2.5.0",
        version_variables={"github.com/Shopify/toxiproxy/v2.Version": "2.5.0"},
    ),
    # The log collector Grafana Alloy as it was before it had this name; Alloy itself is published
    # as no Go module. Both speak one language and have the same components.
    GoModule(
        name="grafana-agent-flow",
        version="0.44.2",
        module="github.com/grafana/agent",
        module_version="v0.44.2",
        version_variables={"github.com/grafana/agent/internal/build.Version": "v0.44.2"},
    ),
    # What fetches the collector's country database. Its successor, 7, has the same settings, and
    # other requests.
    GoModule(
        name="geoipupdate",
        version="6.1.0",
        module="github.com/maxmind/geoipupdate/v6",
        module_version="v6.1.0",
        version_variables={"main.version": "6.1.0"},
    ),
    MavenFolder(
        name="keycloak",
        version="26.0.7",
        artifact="org.keycloak:keycloak-quarkus-dist:26.0.7:zip",
        sha256="25353b74613bcf72db67f8addbd88d832c705a69333091a16573d249d665fe21",
        script="bin/kc.sh",
        # Its database is settled now, so that no start has to build it again.
        preparation=("build", "--db=dev-file"),
    ),
    MavenProgram(
        name="redis",
        version="7.0.15",
        # Made for tests of Java programs, and linked so that it needs no library.
        artifact="org.signal:embedded-redis:0.9.1:jar",
        sha256="c01fe66ecf3b9d3161958e9a0e721aaf74ce98a909faca103fc8d09ff7617827",
        member="redis-server-7.0.15-{system}-{machine}",
        names=("redis-server", "valkey-server"),
        oldest=7,
    ),
)
SERVERS = {server.name: server for server in _LISTED}


def require(name: str) -> Path:
    """Return the server's program, or skip the running test, naming the server.

    CI counts such a skip as a failure; on a developer's machine the rest of the tests still run.
    """
    import pytest  # noqa: PLC0415 - building and `make lab` do without

    program = find(SERVERS[name])
    if program is None:
        pytest.skip(f"{SERVERS[name].title} is not installed: run python -m tests.servers build")
    return program


def program(name: str) -> Path:
    """Return the server's program. Raises BuildError if it is not installed."""
    found = find(SERVERS[name])
    if found is None:
        raise BuildError(
            f"{SERVERS[name].title} is not installed: run python -m tests.servers build"
        )
    return found


def find(server: Server) -> Path | None:
    """Return the program installed before, else one on PATH that is as good, else None."""
    installed = _directory() / server.program
    return installed if installed.exists() else server.on_path()


def build_all() -> None:
    """Install the servers that are not there yet, one plain line each on standard output.

    Raises BuildError if what that takes is missing or too old, before anything is built, or if a
    build fails. What was compiled until then is kept for the next attempt; once every server is
    there it goes, some 20 GB of it.
    """
    with _lock():
        missing = [server for server in SERVERS.values() if find(server) is None]
        for server in missing:
            server.check(_work_directory())
        for server in SERVERS.values():
            if server not in missing:
                print(f"{server.title}: found {find(server)}")
                continue
            began = time.monotonic()
            unfinished = server.build(_work_directory())
            # The name appears only now and at once: a build cut short leaves nothing that looks
            # finished.
            unfinished.rename(_directory() / server.installed_as)
            print(f"{server.title}: built in {time.monotonic() - began:.0f} s", flush=True)
        shutil.rmtree(_work_directory(), ignore_errors=True)


def _work_directory() -> Path:
    return _directory() / "unfinished"


def _directory() -> Path:
    """Return the folder of built servers: OSCAR_METRICS_CACHE_DIR's, else the user's cache."""
    own = os.environ.get("OSCAR_METRICS_CACHE_DIR")
    if own:
        return Path(own).absolute() / "servers"
    base = os.environ.get("XDG_CACHE_HOME")
    cache = Path(base) if base else Path.home() / ".cache"
    return cache / "oscar-metrics" / "servers"


@contextmanager
def _lock() -> Iterator[None]:
    """Let one build run at a time; the next one waits and then finds the programs."""
    _work_directory().mkdir(parents=True, exist_ok=True)
    with (_directory() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of the servers to end", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        _work_directory().mkdir(parents=True, exist_ok=True)
        yield
