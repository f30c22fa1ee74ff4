"""`make run` on a clean copy of the tree: it installs, imports, serves, and its lines answer."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.process import free_port, wait_until

ROOT = Path(__file__).parents[2]
INSTALLS_WITHIN_SECONDS = 600


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What `make run` has printed once it prints nothing more; it is stopped afterwards."""
    copy = tmp_path_factory.mktemp("clean") / "tree"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    output = copy.parent / "output"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OSCAR", "LOKI"))}
    with output.open("w") as file:
        making = subprocess.Popen(
            ["make", "run", f"PORT={free_port()}"],
            cwd=copy,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    try:
        wait_until(
            lambda: "Ctrl-C" in output.read_text() or making.poll() is not None,
            "what make run prints",
            timeout_seconds=INSTALLS_WITHIN_SECONDS,
        )
        yield output.read_text()
    finally:
        os.killpg(making.pid, 15)
        making.wait(timeout=30)


def curl(line: str) -> str:
    done = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True)
    return done.stdout


def test_it_says_what_it_imports(printed: str) -> None:
    assert "data/sample.duckdb" in printed
    said = printed.split("OSCAR Metrics answers at", maxsplit=1)[0]
    # All of the month: the five hours in which both managers were down as the silence they were.
    assert f"executions: hours: {31 * 24} sealed" in said, said
    assert f"exposed: hours: {31 * 24} sealed" in said, said


def test_it_prints_an_address_credentials_and_four_curl_lines(printed: str) -> None:
    assert re.search(r"http://127\.0\.0\.1:\d+ ", printed), printed
    assert "user admin, password sample" in printed
    assert len(re.findall(r"^  curl ", printed, re.MULTILINE)) == 4


def test_the_printed_lines_answer_with_the_samples_numbers(printed: str) -> None:
    summary, breakdown, value, weeks = re.findall(r"^  (curl .+)$", printed, re.MULTILINE)
    truth = (ROOT / "examples" / "README.md").read_text()

    def true(row: str) -> int:
        match = re.search(rf"\| {row} \| ([\d,]+) \|", truth)
        assert match, row
        return int(match[1].replace(",", ""))

    totals = json.loads(curl(summary))["totals"]
    assert totals["requests_count_total"] == true("executions")
    assert totals["requests_count_sync"] == true("of them sync")
    assert totals["requests_count_exposed"] == true("exposed requests")
    assert totals["unknown_country_count"] == true("executions with no country")
    assert totals["cpu_hours_total"] is None, "no Prometheus is configured: null, not zero"

    rows = list(csv.DictReader(curl(breakdown).splitlines()))
    assert sum(int(row["requests_count_total"]) for row in rows) == true("executions")
    assert len(rows) == true("names called, deployed or not")

    assert json.loads(curl(value))["value"] > 0

    series = json.loads(curl(weeks))
    assert series["totals"] == totals
    counts = {row["period"]: row["totals"]["requests_count_total"] for row in series["periods"]}
    assert list(counts) == [f"2026-W0{week}" for week in range(1, 6)]
    assert sum(counts.values()) == true("executions")


@pytest.mark.parametrize("group_by", ["vo", "project"])
def test_the_sample_has_rows_per_vo_and_project(group_by: str, printed: str) -> None:
    breakdown = re.findall(r"^  (curl .+)$", printed, re.MULTILINE)[1]
    answer = curl(breakdown.replace("group_by=service", f"group_by={group_by}"))
    rows = {row["key"]: int(row["executions_count"]) for row in csv.DictReader(answer.splitlines())}
    everyone = json.loads(curl(re.findall(r"^  (curl .+)$", printed, re.MULTILINE)[0]))
    assert sum(rows.values()) == everyone["totals"]["requests_count_total"]
    assert len(rows) > 2
    assert "" in rows


def test_the_answer_says_what_is_missing(printed: str) -> None:
    summary = re.findall(r"^  (curl .+)$", printed, re.MULTILINE)[0]
    sources = {source["name"]: source for source in json.loads(curl(summary))["sources"]}
    assert sources["service-inventory"]["status"] == "missing"
    assert sources["usage-metrics"]["status"] == "missing"
    log = sources["request-logs"]
    assert (log["status"], log["origin"]) == ("partial", "ledger")
    assert {"start": "2026-01-17T02:00:00Z", "end": "2026-01-17T07:00:00Z"}.items() <= (
        log["gaps"][0].items()
    )
