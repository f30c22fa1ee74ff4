"""The layout's promises: imports point one way, files stay small, each module says what it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "oscar_metrics"

# Lower may not import higher. A module not listed takes the layer of its package.
LAYERS = {
    "errors": 0,
    "timerange": 0,
    "facts": 0,
    "outcome": 0,
    "findings": 0,
    "sums": 0,
    "joined": 0,
    "usage_sums": 0,
    "tasks": 0,
    "telemetry": 0,
    "wire": 1,
    "completeness": 1,
    "periods": 1,
    "groupings": 1,
    "series": 1,
    "ledger.seals": 1,
    "usage_hours": 1,
    "callers": 1,
    "small_groups": 1,
    "rows": 1,
    "reports": 1,
    "owner_reports": 1,
    "affiliation_reports": 1,
    "figures": 1,
    "ownership": 1,
    "privacy": 1,
    "discretion": 1,
    "auth.caller": 1,
    "scope": 1,
    "scoped_facts": 1,
    "sources.log_lines": 1,
    "sources.answer_dates": 1,
    "sources.promql": 1,
    "sources.logql": 1,
    "resilience": 2,
    "sources.watched_files": 2,
    "sources.upstream_credentials": 2,
    "sources.upstream_tls": 2,
    "sources.upstream": 2,
    "sources": 3,
    "auth": 3,
    "ledger": 3,
    "live": 4,
    "asking": 4,
    "admission": 4,
    "last_day": 4,
    "aggregator": 4,
    "handlers": 5,
    "settings": 6,
    "settings_checks": 6,
    "command_requests": 7,
    "commands": 7,
    "stopping": 7,
    "app": 7,
    "tables": 7,
    "calendars": 7,
    "dispatch": 8,
    "cli_terminal": 8,
    "cli_report": 8,
    "cli_ledger": 8,
    "cli": 8,
    "__main__": 9,
}
# Within layer 0 and 1 the order is the one below: each may import those before it.
FOUNDATION = [
    "errors",
    "timerange",
    "facts",
    "outcome",
    "findings",
    "sums",
    "joined",
    "usage_sums",
    "tasks",
    "telemetry",
]
# Who may read a clock or the environment.
EDGES = {"app", "cli", "cli_terminal", "__main__"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int:
    while module not in LAYERS:
        module, dot, _ = module.rpartition(".")
        assert dot, f"{module} is in no layer: add it to LAYERS and to docs/architecture.md"
    return LAYERS[module]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("oscar_metrics"):
            base = (node.module or "").removeprefix("oscar_metrics").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                is_module = (PACKAGE / Path(*inner.split("."))).with_suffix(".py").exists()
                found.add(inner if is_module else base)
        elif isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("oscar_metrics").lstrip(".")
                for alias in node.names
                if alias.name.startswith("oscar_metrics")
            }
    return found - {""}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    module = name_of(path)
    if not module:
        return
    for imported in imports_of(path):
        assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"
        if module in FOUNDATION and imported in FOUNDATION:
            assert FOUNDATION.index(imported) < FOUNDATION.index(module), (module, imported)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_pure_and_inner_modules_read_no_clock_and_no_environment(path: Path) -> None:
    if name_of(path) in EDGES:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in {
                "datetime.now",
                "datetime.utcnow",
                "time.time_ns",
                "os.environ",
                "os.getenv",
            }, f"line {node.lineno}"


@pytest.mark.parametrize(
    "path",
    [p for p in PACKAGE.parent.rglob("*.py") if ".venv" not in p.parts],
    ids=lambda p: str(p.relative_to(PACKAGE.parent)),
)
def test_no_file_is_past_five_hundred_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500


def test_the_rule_is_able_to_fail() -> None:
    assert layer_of("sources.anything") > layer_of("reports")
    assert layer_of("aggregator") < layer_of("handlers.reports")
