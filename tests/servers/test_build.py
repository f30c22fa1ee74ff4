from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.build import SERVERS, BuildError, find, require
from tests.servers.server import told_version

REPOSITORY = Path(__file__).parents[2]


def build(cache: Path, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.servers", "build"],
        cwd=REPOSITORY,
        env={
            **os.environ,
            "OSCAR_METRICS_CACHE_DIR": str(cache),
            "PATH": str(path),
            "JAVA_HOME": "",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def write_tools(folder: Path, go: str = "exit 1", maven: str = "exit 1", java: int = 17) -> None:
    """Write a Go, a Maven and a Java that are new enough, and what they do when told to build."""
    version = "echo go version go1.27.0 linux/amd64"
    write_program(folder / "go", f'if [ "$1" = version ]; then {version}; exit; fi\n{go}')
    write_program(folder / "mvn", maven)
    write_program(folder / "java", f"echo 'openjdk version \"{java}.0.15\" 2025-04-15' >&2")


def test_without_go_the_build_says_what_to_install(tmp_path: Path) -> None:
    done = build(tmp_path, tmp_path)

    assert done.returncode == 1
    assert "Go 1.26.5 or newer is needed" in done.stderr
    assert "install it from your distribution, then run make test again" in done.stderr


@pytest.mark.parametrize("version", ["go1.19.8", "go1.26.4", "go1.26rc1"])
def test_a_go_too_old_is_named(tmp_path: Path, version: str) -> None:
    write_program(tmp_path / "bin/go", f"echo go version {version} linux/amd64")

    done = build(tmp_path, tmp_path / "bin")

    assert done.returncode == 1
    assert "Go 1.26.5 or newer is needed" in done.stderr


def test_without_maven_the_build_says_so_before_it_builds_anything(tmp_path: Path) -> None:
    write_tools(tmp_path / "bin", go=f"touch {tmp_path}/built")
    (tmp_path / "bin/mvn").unlink()

    done = build(tmp_path, tmp_path / "bin")

    assert done.returncode == 1
    assert "Maven and Java 17 or newer are needed for keycloak 26.0.7" in done.stderr
    assert "there is no `mvn` here: install them from your distribution" in done.stderr
    assert not (tmp_path / "built").exists()


def test_a_java_too_old_is_named(tmp_path: Path) -> None:
    write_tools(tmp_path / "bin", java=11)

    done = build(tmp_path, tmp_path / "bin")

    assert done.returncode == 1
    assert "Maven and Java 17 or newer are needed for keycloak 26.0.7" in done.stderr
    assert 'openjdk version "11.0.15"' in done.stderr


def test_a_build_that_fails_shows_why_and_leaves_nothing_that_looks_finished(
    tmp_path: Path,
) -> None:
    # "$6" is what follows -o: half a program is there when the compiler gives up.
    write_tools(tmp_path / "bin", go='echo half > "$6"; echo out of disk >&2; exit 1')

    done = build(tmp_path, tmp_path / "bin")

    assert done.returncode == 1
    assert "loki 3.7.8 could not be built" in done.stderr
    assert "out of disk" in done.stderr
    assert (tmp_path / "servers/unfinished/loki").read_text() == "half\n"
    assert not (tmp_path / "servers/loki-3.7.8").exists()


@pytest.mark.parametrize(
    ("name", "archive_name"),
    [("keycloak", "keycloak-quarkus-dist-26.0.7.zip"), ("redis", "embedded-redis-0.9.1.jar")],
)
def test_an_archive_that_is_not_the_one_pinned_is_not_unpacked(
    tmp_path: Path, name: str, archive_name: str
) -> None:
    for server in SERVERS.values():
        if server.name != name:
            write_program(tmp_path / "servers" / server.program, "exit 1")
    archive = tmp_path / "servers/unfinished" / archive_name
    write_tools(tmp_path / "bin", maven=f"echo something else > {archive}")

    done = build(tmp_path, tmp_path / "bin")

    assert done.returncode == 1
    assert f"{SERVERS[name].title} came as something else than what is pinned" in done.stderr
    assert not archive.exists()
    assert not (tmp_path / "servers" / SERVERS[name].installed_as).exists()


def test_a_machine_that_redis_is_not_published_for_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")

    with pytest.raises(BuildError, match="riscv64: install redis-server or valkey-server 7"):
        SERVERS["redis"].check(tmp_path)


def test_a_shells_go_settings_do_not_reach_the_build(tmp_path: Path) -> None:
    write_tools(tmp_path / "bin", go='echo "flags=$GOFLAGS os=$GOOS cgo=$CGO_ENABLED"; exit 1')

    done = build(tmp_path, tmp_path / "bin", GOFLAGS="-mod=vendor", GOOS="plan9", CGO_ENABLED="1")

    assert "flags=-mod=readonly -modcacherw -buildvcs=false os= cgo=0" in done.stderr


def test_programs_that_are_there_are_used_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server in SERVERS.values():
        write_program(tmp_path / "servers" / server.program, "exit 1")
    monkeypatch.setenv("OSCAR_METRICS_CACHE_DIR", str(tmp_path))

    done = build(tmp_path, tmp_path)

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(SERVERS)
    assert require("loki") == tmp_path / "servers/loki-3.7.8"


@pytest.mark.parametrize(
    ("told", "taken"),
    [
        ("loki, version 3.7.8 (branch: , revision: )", True),
        ("v3.7.8", True),
        ("loki, version 3.7.80", False),
        ("loki, version 13.7.8", False),
        ("loki, version 2.9.1", False),
    ],
)
def test_a_program_on_path_is_taken_if_it_has_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, taken: bool
) -> None:
    write_program(tmp_path / "bin/loki", f"echo '{told}'")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("OSCAR_METRICS_CACHE_DIR", str(tmp_path))

    assert (find(SERVERS["loki"]) is not None) is taken


@pytest.mark.parametrize(
    ("name", "told", "taken"),
    [
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.2.1", True),
        ("redis-server", "Redis server v=8.2.1 sha=00000000:1 malloc=jemalloc-5.3.0", True),
        ("valkey-server", "Valkey server v=8.1.1 sha=00000000:0 malloc=jemalloc-5.3.0", True),
        ("redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1", False),
        ("redis-server", "no such library", False),
        ("redis", "Redis server v=7.0.15", False),
    ],
)
def test_a_redis_or_valkey_on_path_is_taken_unless_it_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str, taken: bool
) -> None:
    write_program(tmp_path / "bin" / name, f"echo '{told}'")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("OSCAR_METRICS_CACHE_DIR", str(tmp_path))

    assert find(SERVERS["redis"]) == (tmp_path / "bin" / name if taken else None)


def test_a_missing_server_skips_the_test_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("OSCAR_METRICS_CACHE_DIR", str(tmp_path))

    with pytest.raises(pytest.skip.Exception, match=r"loki 3\.7\.8 is not installed"):
        require("loki")


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_tells_the_version_in_its_name(name: str) -> None:
    program = require(name)
    told = told_version(program, SERVERS[name].asked_version_by)

    # What was on PATH may be newer.
    assert SERVERS[name].version in told or program == SERVERS[name].on_path()
