"""Every file of the pipeline is of the collector's language, runs in it, and is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import yaml

from tests.servers.build import require
from tests.servers.collector import Collector, formatted
from tests.servers.process import wait_until

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "alloy").rglob("*") if path.is_file())
VALUES = sorted((ROOT / "deploy").rglob("*-values.yaml"))
NOWHERE = "127.0.0.1:9"


class Argument(msgspec.Struct, frozen=True, kw_only=True):
    """An argument of a component; `default` as it is written, None where it has to be given."""

    component: str
    name: str
    default: str | None


def arguments(text: str) -> Iterator[Argument]:
    """The arguments that a file declares."""
    for component, body in re.findall(
        r'^declare "(\w+)" \{\n(.*?)^\}', text, re.DOTALL | re.MULTILINE
    ):
        for name, block in re.findall(
            r'^\targument "(\w+)" \{\n(.*?)^\t\}', body, re.DOTALL | re.MULTILINE
        ):
            default = re.search(r"^\t\tdefault +=\s*(.+)$", block, re.MULTILINE)
            optional = re.search(r"^\t\toptional += true$", block, re.MULTILINE) is not None
            assert optional is (default is not None), f"{name}: optional, and without a default"
            yield Argument(component=component, name=name, default=default and default[1])


def components(text: str) -> list[str]:
    """The components that a file declares; none where it is a whole configuration."""
    return re.findall(r'^declare "(\w+)"', text, re.MULTILINE)


def asked_of_environment(text: str) -> set[str]:
    return set(re.findall(r'env\("(\w+)"\)', text))


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster that does not answer."""
    path = tmp_path_factory.mktemp("kubeconfig") / "kubeconfig.json"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": f"https://{NOWHERE}"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": ""}}],
        "current-context": "test",
    }
    path.write_text(json.dumps(config))
    return path


def given(name: str, geoip: Path) -> str:
    """A value of an argument that has to be given."""
    try:
        return {
            "app": '"oscar"',
            "database": f'"{geoip}"',
            "forward_to": "[]",
            "namespace": '"oscar"',
            "selector": '"app=oscar"',
            "targets": "[]",
            "url": f'"http://{NOWHERE}/"',
        }[name]
    except KeyError:
        pytest.fail(f"say here what a test can give for the argument {name}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_written_as_the_collector_writes_it(path: Path) -> None:
    require("grafana-agent-flow")
    assert path.read_text() == formatted(path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_runs_by_itself(path: Path, geoip: Path, kubeconfig: Path, tmp_path: Path) -> None:
    """A module imported alone, each of its components with what it must be given; else as it is."""
    require("grafana-agent-flow")
    text = path.read_text()
    configuration = path
    environment = dict.fromkeys(asked_of_environment(text), f"http://{NOWHERE}/")
    environment |= {
        "PIPELINE": str(path.parent),
        "GEOIP_DATABASE": str(geoip),
        "KUBECONFIG": str(kubeconfig),
    }
    if declared := components(text):
        configuration = tmp_path / "alone.alloy"
        written = f'import.file "it" {{ filename = "{path}" }}\n'
        for component in declared:
            wanted = [a for a in arguments(text) if a.component == component]
            values = {a.name: given(a.name, geoip) for a in wanted if a.default is None}
            if any(a.name == "kubeconfig" for a in wanted):
                values["kubeconfig"] = f'"{kubeconfig}"'
            lines = "".join(f"  {name} = {value}\n" for name, value in values.items())
            written += f'it.{component} "{component}" {{\n{lines}}}\n'
        configuration.write_text(written)
    with Collector.start(tmp_path, configuration, environment=environment) as collector:
        # What is imported, the component itself, and at least one in it.
        least = 1 + 2 * max(1, len(declared))
        running = "agent_component_controller_running_components"

        def healthy() -> bool:
            well = collector.metric(running, health_type="healthy")
            return well >= least and well == collector.metric(running)

        wait_until(healthy, "every component healthy", timeout_seconds=30)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_component_and_argument_is_documented_with_its_default(path: Path) -> None:
    documentation = (ROOT / "docs" / "pipeline.md").read_text()
    text = path.read_text()
    if not (declared := components(text)):
        assert f"`{path.name}`" in documentation
        assert [
            name for name in asked_of_environment(text) if f"`{name}`" not in documentation
        ] == []
        return
    (row,) = re.findall(rf"^\| `{path.name}` \| (.*) \| (.*) \|$", documentation, re.MULTILINE)
    assert [name for name in declared if f"`{name}`" not in row[0]] == []
    said = {(name, default) for name, default in re.findall(r"`(\w+)`(\*| \([^)]*\))", row[1])}
    assert said == {(a.name, as_documented(a.default)) for a in arguments(text)}


def as_documented(default: str | None) -> str:
    """A default as the table of modules writes it."""
    if default is None:
        return "*"
    if default == '""':
        return " (none)"
    if default == "[]":
        return " (nowhere)"
    if re.fullmatch(r"\d+|true|false", default):
        return f" ({default})"
    return " (`" + re.sub(r'^\{(\w+) = ""\}$', r"\1", default).strip('"') + "`)"


@pytest.mark.parametrize("path", VALUES, ids=lambda path: path.parent.name)
def test_the_charts_values_give_the_collector_what_its_file_asks_for(path: Path) -> None:
    values = yaml.safe_load(path.read_text())
    text = (ROOT / "alloy" / values["alloy"]["configMap"]["key"]).read_text()
    names = {variable["name"] for variable in values["alloy"]["extraEnv"]}
    assert names == asked_of_environment(text) - {"KUBECONFIG"}
