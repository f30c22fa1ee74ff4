"""What every test run reports: a real server that could not be had is never passed over."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A deadline would make a busy machine a failing one; the same examples every time make a
# failure everybody's.
settings.register_profile("project", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("project")


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
