"""Every file of the pipeline is of the collector's language, and all of them fit together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.servers.build import require
from tests.servers.collector import formatted

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "alloy").glob("*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_written_as_the_collector_writes_it(path: Path) -> None:
    require("grafana-agent-flow")
    assert path.read_text() == formatted(path)


def test_the_charts_values_give_the_collector_what_its_file_asks_for() -> None:
    values = yaml.safe_load((ROOT / "deploy" / "pipeline" / "alloy-values.yaml").read_text())
    text = (ROOT / "alloy" / values["alloy"]["configMap"]["key"]).read_text()
    given = {variable["name"] for variable in values["alloy"]["extraEnv"]}
    assert given == set(re.findall(r'env\("(\w+)"\)', text)) - {"KUBECONFIG"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_component_and_argument_is_documented(path: Path) -> None:
    documentation = (ROOT / "docs" / "pipeline.md").read_text()
    (row,) = re.findall(rf"^\| `{path.name}` .*$", documentation, re.MULTILINE) or [documentation]
    names = re.findall(r'^\s*(?:declare|argument) "(\w+)"', path.read_text(), re.MULTILINE)
    assert [name for name in names if f"`{name}`" not in row] == []
