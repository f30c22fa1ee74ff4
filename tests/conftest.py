"""What every test run reports: a real server that could not be had is never passed over."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from tests.servers.build import require
from tests.servers.keycloak import Keycloak

# A deadline would make a busy machine a failing one; the same examples every time make a
# failure everybody's.
settings.register_profile("project", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("project")


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    """The Keycloak of the whole run: a start takes long. It is left running, its keys may change.

    A test that ends sessions takes a person of its own, or others' tokens end too.
    """
    require("keycloak")
    with Keycloak.start(tmp_path_factory.mktemp("keycloak")) as server:
        yield server


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("CI") and exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if skipped := _skipped(config):
        print(f"skipped, because a real server could not be had: {', '.join(skipped)}")


def _skipped(config: pytest.Config) -> list[str]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:
        return []
    return sorted({report.nodeid for report in reporter.stats.get("skipped", [])})


# Servers that live as long as their module hold on to this very list of processors.
_LOG = structlog.get_config()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command that runs within a test sets up the log; tests after it look at theirs."""
    yield
    structlog.configure(**_LOG)
