"""Lock files: every package with hashes, no addresses, and one version in both."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements.lock", "requirements-test.lock")


def pinned(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text
    assert "--index" not in text


def test_the_tests_run_on_what_is_shipped() -> None:
    shipped, tested = map(pinned, LOCKS)
    assert shipped.items() <= tested.items()


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # The image has what keeps answers in Redis.
    needed = project["dependencies"] + project["optional-dependencies"]["redis"]
    names = [re.split(r"[^A-Za-z0-9._-]", d)[0].lower() for d in needed]
    assert set(names) <= pinned("requirements.lock").keys()
