"""`oscar-metrics check` says whether answers can be kept in Redis, and never with what password."""

from __future__ import annotations

import msgspec
import pytest

from oscar_metrics.cli import main
from oscar_metrics.findings import Finding, Level
from tests.servers.process import free_port
from tests.servers.redis import Redis

PASSWORD = "a-password-nobody-sees"


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OSCAR_METRICS_LEDGER", "OSCAR_METRICS_KUBERNETES", "PROMETHEUS_URL"):
        monkeypatch.setenv(name, "off")


def checked(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Finding | None:
    """What `check` finds of Redis; None where it does not look for one."""
    monkeypatch.setenv("OSCAR_METRICS_CACHE", url)
    with pytest.raises(SystemExit):
        main(["check", "--json"])
    printed = capsys.readouterr()
    assert PASSWORD not in printed.out + printed.err
    findings = msgspec.json.decode(printed.out, type=list[Finding])
    return next((one for one in findings if one.source == "redis"), None)


def test_redis_that_keeps_answers(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = checked(redis_server.url, monkeypatch, capsys)
    assert found is not None
    assert (found.level, found.change) == (Level.OK, "")
    assert checked("memory", monkeypatch, capsys) is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://:{password}@127.0.0.1:{free_port}", "could not be reached"),
        ("redis://:{password}@{address}", "refused our credentials"),
        ("{url}/9999", "refused the question"),
    ],
)
def test_redis_that_does_not(
    url: str,
    says: str,
    redis_server: Redis,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    address = redis_server.url.removeprefix("redis://")
    told = url.format(
        url=redis_server.url, address=address, password=PASSWORD, free_port=free_port()
    )
    found = checked(told, monkeypatch, capsys)
    assert found is not None
    assert found.level is Level.WARNING
    assert says in found.says
    assert "OSCAR_METRICS_CACHE" in found.change
