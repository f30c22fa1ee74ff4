"""The command line: help says units, requests survive JSON, saved bytes can be checked."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import structlog

from oscar_metrics import wire
from oscar_metrics.cli import main
from oscar_metrics.cli_report import digest_line
from oscar_metrics.cli_terminal import print_parts
from oscar_metrics.command_requests import (
    AskBreakdown,
    AskedRange,
    AskSummary,
    AskValue,
    Backfill,
    Export,
    Forget,
    ImportFiles,
    Request,
    Show,
    Verify,
)
from oscar_metrics.findings import Finding, Level
from oscar_metrics.ledger.store import ExportForm
from oscar_metrics.tables import findings_table


@pytest.fixture(autouse=True)
def _log_of_its_own() -> Iterator[None]:
    """Commands send the log to a standard error that is gone after the test."""
    yield
    structlog.reset_defaults()


ASKED = AskedRange(start="2026-01-01T00:00:00Z", as_of="2026-02-01T00:00:00Z", interval="day")
REQUESTS: list[Request] = [
    AskSummary(asked=ASKED),
    AskBreakdown(asked=ASKED, group_by=wire.GroupBy.USER, include_users=True, include_usage=False),
    AskValue(asked=ASKED, service="cowsay", metric=wire.Metric.CPU_HOURS),
    Show(start="2026-01-01T00:00:00Z"),
    Verify(),
    Export(folder="/a folder", form=ExportForm.CSV),
    Forget(user="ä\n😀"),
    ImportFiles(files=("/a b", "/c")),
    Backfill(end="2026-01-01T00:00:00Z"),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: type(request).__name__)
def test_a_request_arrives_as_it_was_sent(request_: Request) -> None:
    sent = msgspec.json.encode(request_)
    assert b"\n" not in sent
    assert msgspec.json.decode(sent, type=Request) == request_


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["report", "summary"],
        ["report", "breakdown"],
        ["report", "value"],
        ["ledger"],
        ["ledger", "backfill"],
        ["ledger", "import"],
        ["ledger", "show"],
        ["ledger", "verify"],
        ["ledger", "export"],
        ["ledger", "forget"],
    ],
    ids=" ".join,
)
def test_every_command_has_help_without_any_setting(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: oscar-metrics")
    # What takes a time says in which form, and what may be left out says what then holds.
    assert said.count("TIME") == 0 or "RFC 3339" in said
    assert "--from" not in said or "(default:" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["ledger", "forget", "someone"], "--yes"),
        (["ledger", "forget", " ", "--yes"], "a user is required"),
        (["ledger", "import", "/nowhere/at.log"], "/nowhere/at.log is no file"),
        (["report", "summary", "--save", "/"], "/ exists"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_done(
    arguments: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSCAR_METRICS_LEDGER", "off")
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody to ask
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("name", ["report.json", "with space", "back\\slash", "line\nend", "\r"])
def test_sha256sum_reads_the_digest_of_a_file_of_any_name(name: str, tmp_path: Path) -> None:
    body = b'{"start":"2026-01-01T00:00:00Z"}'
    (tmp_path / name).write_bytes(body)
    (tmp_path / "digest").write_bytes(digest_line(body, name))
    check = ["sha256sum", "--check", "--strict", "digest"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    (tmp_path / name).write_bytes(body + b" ")
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 1


def test_what_reads_a_pipe_gets_whole_lines_without_padding(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = "a finding " * 50
    finding = Finding(source="ledger", level=Level.OK, says=long, change="")
    print_parts([findings_table([finding, finding]), "the end"])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [line.rstrip() for line in lines]
    assert [line.count("a finding") for line in lines] == [0, 50, 50, 0]


@pytest.mark.parametrize(
    ("file", "level"),
    [
        ("data/ledger.duckdb", "ok"),
        ("no folder/ledger.duckdb", "problem"),
    ],
)
def test_check_says_whether_a_ledger_can_be_made(
    file: str,
    level: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "no folder").touch()
    monkeypatch.setenv("OSCAR_METRICS_LEDGER", str(tmp_path / file))
    monkeypatch.setenv("OSCAR_METRICS_KUBERNETES", "off")
    monkeypatch.setenv("PROMETHEUS_URL", "off")
    with pytest.raises(SystemExit):
        main(["check", "--json"])
    findings = msgspec.json.decode(capsys.readouterr().out, type=list[Finding])
    assert [one.level for one in findings if one.source == "ledger"] == [level]
    assert not (tmp_path / "data").exists(), "only asked"
