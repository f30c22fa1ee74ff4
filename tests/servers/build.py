"""Find the servers' programs, or build them from their published Go modules.

Each folder under `go/` pins one server: its version in go.mod, every byte it is built from in
go.sum. A program already on PATH in the right version, or built before, is used as it is.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GO_MODULES = Path(__file__).with_name("go")
_GO_NEEDED = (1, 26, 5)
_ERROR_TAIL_BYTES = 4_000

# Settings of somebody's shell that would change what is built or for which machine.
_GO_SETTINGS_DROPPED = ("GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOEXPERIMENT", "GODEBUG")


class BuildError(Exception):
    """A server could not be built; the message says what to do or shows why."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A server at one version: the module it is published as, and how it is built.

    `version_variables` are what the linker sets so that the program knows its version, `tags` are
    Go's build tags.
    """

    name: str
    version: str
    module: str
    module_version: str
    version_variables: Mapping[str, str]
    tags: str = ""

    @property
    def title(self) -> str:
        """The name and version, as a person reads it."""
        return f"{self.name} {self.version}"


SERVERS = {
    server.name: server
    for server in (
        Server(
            name="loki",
            version="3.7.8",
            module="github.com/grafana/loki/v3",
            module_version="v3.7.8",
            version_variables={"github.com/grafana/loki/v3/pkg/util/build.Version": "3.7.8"},
        ),
        Server(
            name="prometheus",
            version="3.15.0",
            module="github.com/prometheus/prometheus",
            # Prometheus 3.y.z is published as module v0.3yy.z: its path has no /v3.
            module_version="v0.315.0",
            version_variables={"github.com/prometheus/common/version.Version": "3.15.0"},
            # Without service discovery, so without the clients of twenty clouds: a third less to
            # compile. Targets come from the configuration itself, from files or over HTTP.
            tags="remove_all_sd",
        ),
        Server(
            name="etcd",
            version="3.7.3",
            module="go.etcd.io/etcd/server/v3",
            module_version="v3.7.3",
            version_variables={},
        ),
        Server(
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
        Server(
            name="kwok",
            version="0.8.0",
            module="sigs.k8s.io/kwok",
            module_version="v0.8.0",
            version_variables={},
        ),
    )
}


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
    """Return the program built before, else one of that version on PATH, else None."""
    built = _built_path(server)
    if built.exists():
        return built
    on_path = shutil.which(server.name)
    if on_path is not None and _has_version(on_path, server.version):
        return Path(on_path)
    return None


def build_all() -> None:
    """Build the servers that are not there yet, one plain line each on standard output.

    Raises BuildError if Go is missing or too old, or if a build fails. What was compiled until
    then is kept for the next attempt; once every server is there it goes, some 17 GB of it.
    """
    with _lock():
        for server in SERVERS.values():
            found = find(server)
            if found is not None:
                print(f"{server.title}: found {found}")
                continue
            seconds = _build(server)
            print(f"{server.title}: built in {seconds:.0f} s", flush=True)
        shutil.rmtree(_work_directory(), ignore_errors=True)


def _build(server: Server) -> float:
    """Build one server and return the seconds it took."""
    module_directory = GO_MODULES / server.name
    package = _pinned_package(server, module_directory / "go.mod")
    environment = _go_environment()
    _check_go(module_directory, environment)
    _directory().mkdir(parents=True, exist_ok=True)
    unfinished = _work_directory() / server.name
    flags = ["-s", "-w"]
    flags += [f"-X {name}={value}" for name, value in server.version_variables.items()]
    command = ["go", "build", "-trimpath", f"-tags={server.tags}", f"-ldflags={' '.join(flags)}"]
    command += ["-o", str(unfinished), package]
    began = time.monotonic()
    log_path = _work_directory() / f"{server.name}.log"
    with log_path.open("wb") as log:
        building = subprocess.Popen(
            command,
            cwd=module_directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait(building, server, began)
        finally:
            building.kill()
            building.wait()
    if building.returncode != 0:
        tail = log_path.read_bytes()[-_ERROR_TAIL_BYTES:].decode(errors="replace")
        raise BuildError(f"{server.title} could not be built:\n{tail}")
    # The name appears only now and at once: a build cut short leaves nothing that looks finished.
    unfinished.rename(_built_path(server))
    return time.monotonic() - began


def _wait(building: subprocess.Popen[bytes], server: Server, began: float) -> None:
    on_terminal = sys.stdout.isatty()
    while True:
        try:
            building.wait(1)
        except subprocess.TimeoutExpired:
            if on_terminal:
                seconds = time.monotonic() - began
                print(f"\r{server.title}: building, {seconds:.0f} s", end="", flush=True)
        else:
            break
    if on_terminal:
        print("\r\x1b[K", end="")


def _pinned_package(server: Server, go_mod: Path) -> str:
    """Return the package that go.mod's tool line names.

    Raises BuildError if go.mod pins another version than the table above: the program would carry
    the wrong version in its name.
    """
    text = go_mod.read_text()
    if f"{server.module} {server.module_version}" not in text:
        raise BuildError(f"{go_mod} does not pin {server.module} {server.module_version}")
    tool = re.search(r"^tool (\S+)$", text, re.MULTILINE)
    if tool is None:
        raise BuildError(f"{go_mod} names no tool")
    return tool.group(1)


def _check_go(module_directory: Path, environment: Mapping[str, str]) -> None:
    needed = ".".join(map(str, _GO_NEEDED))
    advice = f"Go {needed} or newer is needed to build the servers for the tests"
    remedy = "install it from your distribution, then run make test again"
    try:
        # Inside the module, where a Go that fetches newer toolchains by itself says which it uses.
        told = subprocess.run(
            ["go", "version"],
            cwd=module_directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise BuildError(f"{advice}, and there is no `go` here: {remedy}.") from None
    version = re.search(r"go(\d+)\.(\d+)(?:\.(\d+))?", told.stdout)
    if told.returncode != 0 or version is None:
        raise BuildError(f"{advice}: {remedy}.\n{told.stderr.strip()}")
    if tuple(int(part or 0) for part in version.groups()) < _GO_NEEDED:
        raise BuildError(f"{advice}, and this is {version.group()}: {remedy}.")


def _go_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _GO_SETTINGS_DROPPED}
    return kept | {
        "CGO_ENABLED": "0",
        "GO111MODULE": "on",
        "GOWORK": "off",
        # Not empty, which would let the user's own flags in again. Readonly trusts go.sum;
        # a writable module cache can be removed like any folder.
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOCACHE": str(_work_directory() / "compiled"),
        "GOMODCACHE": str(_work_directory() / "modules"),
    }


def _has_version(program_path: str, version: str) -> bool:
    try:
        told = subprocess.run(
            [program_path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return re.search(rf"(?<![\d.])v?{re.escape(version)}(?![\d.])", told.stdout) is not None


def _built_path(server: Server) -> Path:
    return _directory() / f"{server.name}-{server.version}"


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
