"""No engine builds the image here, so the file is linted and its promises are read off it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
FINAL = LINES[max(i for i, line in enumerate(LINES) if line.startswith("FROM ")) :]


def instructions(name: str, lines: list[str] = FINAL) -> list[str]:
    return [line.removeprefix(name).strip() for line in lines if line.startswith(f"{name} ")]


def test_the_linter_finds_nothing() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [linter, "--failure-threshold", "style", ROOT / "Dockerfile"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_there_are_two_stages_on_one_exact_base() -> None:
    bases = [base.split()[0] for base in instructions("FROM", LINES)]
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases[0])


def test_it_runs_as_nobody_and_has_a_health_check() -> None:
    (user,) = instructions("USER")
    assert int(user.split(":")[0]) >= 10_000
    (health,) = instructions("HEALTHCHECK")
    assert json.loads(health.split("CMD ")[1]) == ["oscar-metrics", "health"]
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["oscar-metrics"]


def test_nothing_is_written_at_run_time_but_the_ledger_in_its_volume() -> None:
    set_there = " ".join(instructions("ENV"))
    assert "PYTHONDONTWRITEBYTECODE=1" in set_there
    (volume,) = instructions("VOLUME")
    assert f"OSCAR_METRICS_LEDGER={volume}/ledger.duckdb" in set_there
    (user,) = instructions("USER")
    owned = [c for c in instructions("COPY") if c.endswith(f" {volume}")]
    assert [c.split()[1] for c in owned] == [f"--chown={user}"]
    assert not instructions("RUN"), "what is built is built in the first stage"


@pytest.mark.parametrize("source", [s for c in instructions("COPY", LINES) for s in c.split()[:-1]])
def test_everything_copied_exists_and_reaches_the_build(source: str) -> None:
    if source.startswith(("--", "/")):
        return
    name = source.removeprefix("./")
    assert (ROOT / name).exists()
    assert f"!{name}" in (ROOT / ".dockerignore").read_text().splitlines()
