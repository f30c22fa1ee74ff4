"""The ledger as operators have it: commands alone, beside a server, and through its troubles."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from oscar_metrics.facts import LogStream
from oscar_metrics.ledger.command_address import socket_path
from tests.corpus import Corpus, platform
from tests.e2e.conftest import SPAN
from tests.e2e.running import NOTHING, command_here, command_line, running, started
from tests.servers.process import wait_until

RANGE = {"start": "2026-02-27T00:00:00Z", "end": "2026-03-01T23:59:59Z"}
ASKED = ["--start", RANGE["start"], "--end", RANGE["end"]]
SUMMARY = "/system/metrics/summary"
HOURS = 72


class Place:
    """A ledger's file, and commands with settings of their own."""

    def __init__(self, settings: dict[str, str], directory: Path) -> None:
        self.settings, self.directory = settings, directory
        self.file = Path(settings["OSCAR_METRICS_LEDGER"])

    def command(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return command_here([*arguments], {**self.settings, **settings})

    def json(self, *arguments: str, code: int | None = None) -> Any:
        done = self.command(*arguments, "--json")
        assert code is None or done.returncode == code, (done.stdout, done.stderr)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def common(geoip_database: Path, roster_file: Path) -> dict[str, str]:
    return {
        **NOTHING,
        "INGRESS_HOST": platform.BASE_HOST,
        "OSCAR_METRICS_GEOIP_DATABASE": str(geoip_database),
        "OSCAR_METRICS_ROSTER": str(roster_file),
        "OSCAR_METRICS_LOG_JSON": "false",
    }


@pytest.fixture(scope="module")
def logs(log_folder: Path) -> list[str]:
    return sorted(map(str, log_folder.iterdir()))


@pytest.fixture(scope="module")
def imported(
    common: dict[str, str], logs: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Place:
    """A ledger that the corpus was imported into; tests that change it take a copy."""
    directory = tmp_path_factory.mktemp("imported")
    place = Place({**common, "OSCAR_METRICS_LEDGER": str(directory / "in" / "led.db")}, directory)
    done = command_line(["ledger", "import", *logs], place.settings, directory)
    assert done.returncode == 3, "broken lines are in it"
    assert f"executions: hours: {HOURS} sealed" in done.stdout, done
    return place


@pytest.fixture
def place(imported: Place, tmp_path: Path) -> Place:
    """A copy of that ledger."""
    shutil.copy(imported.file, tmp_path / "ledger.duckdb")
    return Place(
        {**imported.settings, "OSCAR_METRICS_LEDGER": str(tmp_path / "ledger.duckdb")}, tmp_path
    )


@pytest.fixture(scope="module")
def truth(corpus: Corpus) -> dict[str, int]:
    executions = corpus.truth(LogStream.EXECUTIONS, SPAN, roster=True).tallies
    exposed = corpus.truth(LogStream.EXPOSED, SPAN, roster=True).tallies
    return {
        "requests_count_total": executions.total(),
        "requests_count_exposed": exposed.total(),
        "users_count": len({key.user for key in executions} - {""}),
    }


def totals(report: Any, of: dict[str, int]) -> dict[str, int]:
    return {name: report["totals"][name] for name in of}


def known(report: Any) -> Any:
    """The report without when what is live was read."""
    for source in report["sources"]:
        source.pop("last_updated", None)
    return report


def source(report: Any, name: str) -> Any:
    return next(source for source in report["sources"] if source["name"] == name)


def test_an_import_makes_reports_without_any_log(imported: Place, truth: dict[str, int]) -> None:
    report = imported.json("report", "summary", *ASKED, code=3)
    assert totals(report, truth) == truth
    assert source(report, "request-logs")["origin"] == "ledger"


def test_the_ledger_says_what_the_files_say(
    imported: Place, logs: list[str], truth: dict[str, int]
) -> None:
    live = imported.command(
        *("report", "breakdown", "--include-users", *ASKED, "--json"),
        OSCAR_METRICS_LEDGER="off",
        OSCAR_METRICS_LOG_FILES=f"{Path(logs[0]).parent}/*",
    )
    stored = imported.json("report", "breakdown", "--include-users", *ASKED)
    assert json.loads(live.stdout)["items"] == stored["items"]
    assert (
        sum(item["requests_count_total"] for item in stored["items"])
        == (truth["requests_count_total"])
    )


def test_importing_again_changes_nothing(place: Place, logs: list[str]) -> None:
    before = known(place.json("report", "summary", *ASKED))
    again = place.json("ledger", "import", *logs)
    assert {verdict for hours in again["verdicts"].values() for verdict in hours} == {"same"}
    assert known(place.json("report", "summary", *ASKED)) == before


def test_show_has_a_calendar_and_the_holes(imported: Place) -> None:
    kinds = {kind["kind"]: kind for kind in imported.json("ledger", "show")["kinds"]}
    executions = kinds["executions"]
    assert list(executions["days"])[:3] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert executions["sealed_hours"] >= HOURS
    assert kinds["usage"]["days"] == {}

    within = ["--from", RANGE["start"], "--to", RANGE["end"]]
    shown = imported.command("ledger", "show", *within)
    assert shown.returncode == 0, shown.stdout
    assert "2026-02                            ##\n2026-03  #\n" in shown.stdout
    assert "usage: nothing is sealed" in shown.stdout
    assert "\x1b" not in shown.stdout

    wider = imported.command("ledger", "show", "--from", "2026-02-26T00:00:00Z", *within[2:])
    assert wider.returncode == 3
    assert re.search("2026-02-26T00:00:00Z +2026-02-27T00:00:00Z +not sealed", wider.stdout)


def test_what_was_imported_is_verified_and_exported(place: Place) -> None:
    verified = place.command("ledger", "verify")
    assert verified.returncode == 0, verified.stdout
    for form in ("parquet", "csv"):
        folder = place.directory / form
        exported = place.command("ledger", "export", "--format", form, str(folder))
        assert exported.returncode == 0, exported.stderr
        written = [Path(line) for line in exported.stdout.splitlines()]
        assert written
        assert set(written) == set(folder.iterdir())


def test_a_user_is_forgotten_and_every_total_stays(place: Place) -> None:
    before = place.json("report", "summary", *ASKED)
    user = before["totals"]["users"][-1]
    done = place.command("ledger", "forget", user, "--yes")
    assert done.returncode == 0, done.stderr
    after = place.json("report", "summary", *ASKED)
    assert user not in after["totals"]["users"]
    assert after["totals"] | {"users": ()} == before["totals"] | {"users": ()}
    again = place.command("ledger", "forget", user, "--yes")
    assert again.stdout == done.stdout, "who is forgotten keeps the pseudonym"
    unknown = place.command("ledger", "forget", "nobody@example.org", "--yes")
    assert (unknown.returncode, "does not know" in unknown.stderr) == (1, True)


def test_commands_without_a_ledger_teach(common: dict[str, str], tmp_path: Path) -> None:
    place = Place({**common, "OSCAR_METRICS_LEDGER": str(tmp_path / "none.duckdb")}, tmp_path)
    for arguments in (["show"], ["verify"], ["export", "x"], ["forget", "x", "--yes"]):
        done = place.command("ledger", *arguments)
        assert (done.returncode, "no ledger" in done.stderr) == (1, True), done.stderr
    off = place.command("ledger", "show", OSCAR_METRICS_LEDGER="off")
    assert (off.returncode, "OSCAR_METRICS_LEDGER" in off.stderr) == (2, True)
    report = place.command("report", "summary", *ASKED)
    assert report.returncode == 3
    assert not list(tmp_path.glob("none*")), "a report makes no ledger"


def test_a_report_is_saved_with_its_digest(imported: Place, tmp_path: Path) -> None:
    saved = tmp_path / "2026 report.json"
    arguments = ["report", "summary", *ASKED, "--interval", "day", "--save", str(saved)]
    assert imported.command(*arguments, "--json").returncode == 3
    check = ["sha256sum", "--check", "--strict", f"{saved.name}.sha256"]
    assert subprocess.run(check, cwd=tmp_path, capture_output=True, check=False).returncode == 0
    assert known(json.loads(saved.read_bytes())) == known(imported.json(*arguments[:-2]))
    again = imported.command(*arguments)
    assert (again.returncode, "exists" in again.stderr) == (2, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [saved.name, f"{saved.name}.sha256"]


def test_as_of_is_answered_or_refused(imported: Place) -> None:
    now = imported.json("report", "summary", *ASKED)
    sealed_at = source(now, "request-logs")["ledger"]["last_sealed_at"]
    then = imported.json("report", "summary", *ASKED, "--as-of", sealed_at)
    assert then["totals"]["requests_count_total"] == now["totals"]["requests_count_total"]
    before = imported.command("report", "summary", *ASKED, "--as-of", "2026-03-02T00:00:00Z")
    assert before.returncode == 2
    assert "2026-02-27T00:00:00Z" in before.stderr, "the first slot is named"


@pytest.fixture(scope="module")
def beside(imported: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that holds a ledger, deep in folders."""
    directory = tmp_path_factory.mktemp("beside")
    file = directory / ("deep-" * 20) / ("er-" * 20) / "ledger.duckdb"
    file.parent.mkdir(parents=True)
    shutil.copy(imported.file, file)
    settings = {**imported.settings, "OSCAR_METRICS_LEDGER": str(file)}
    with running(settings, directory) as client:
        place = Place(settings, directory)
        wait_until(socket_path(file).exists, "the socket", timeout_seconds=20)
        assert client.get(SUMMARY, params=RANGE).json()["totals"]["requests_count_total"]
        yield place


def test_the_server_is_asked_by_every_command(
    beside: Place, imported: Place, logs: list[str], truth: dict[str, int], tmp_path: Path
) -> None:
    assert stat.S_IMODE(socket_path(beside.file).stat().st_mode) == 0o600
    # No setting but the file's: the server has the others.
    asked = Place({"OSCAR_METRICS_LEDGER": str(beside.file), **NOTHING}, beside.directory)
    report = asked.json("report", "summary", *ASKED, code=3)
    assert totals(report, truth) == truth
    assert known(report) == known(imported.json("report", "summary", *ASKED))
    for group_by in ("service", "user", "country"):
        rows = ["report", "breakdown", *ASKED, "--group-by", group_by, "--interval", "day"]
        assert known(asked.json(*rows)) == known(imported.json(*rows))
    value = ["report", "value", *ASKED, "cowsay", "requests-sync-per-service"]
    assert known(asked.json(*value)) == known(imported.json(*value))
    assert asked.json("ledger", "show") == imported.json("ledger", "show")
    assert asked.command("ledger", "verify").returncode == 0
    asked.json("ledger", "import", *logs)
    asked.json("ledger", "backfill", "--from", RANGE["start"])
    exported = asked.command("ledger", "export", str(tmp_path / "out"))
    assert exported.returncode == 0, exported.stderr
    assert len(list((tmp_path / "out").iterdir())) == len(exported.stdout.splitlines())
    readable = [path for path in tmp_path.rglob("*") if stat.S_IMODE(path.stat().st_mode) & 0o077]
    assert not readable, "what is exported is about people"
    odd = asked.command("report", "value", *ASKED, "\udcff", "cpu-hours")
    assert (odd.returncode, "not UTF-8" in odd.stderr) == (2, True)
    wrong = asked.command("report", "summary", "--start", "yesterday")
    assert (wrong.returncode, "invalid start timestamp" in wrong.stderr) == (2, True)


def test_a_user_is_forgotten_while_the_server_runs(beside: Place) -> None:
    user = beside.json("report", "summary", *ASKED)["totals"]["users"][0]
    assert beside.command("ledger", "forget", user, "--yes").returncode == 0
    assert user not in beside.json("report", "summary", *ASKED)["totals"]["users"]


def test_a_socket_answers_only_what_it_knows(beside: Place) -> None:
    from oscar_metrics.ledger.command_address import connected  # noqa: PLC0415

    for sent in (b"{}\n", b'{"command":"rm"}\n', b"\xff\n", b'{"command":"show","x":1}\n'):
        with connected(beside.file) as connection:
            connection.settimeout(10)
            connection.sendall(sent)
            answer = json.loads(connection.makefile("rb").readline())
        assert answer["says"] == "error", answer


def test_a_killed_server_leaves_nothing_in_the_way(place: Place, truth: dict[str, int]) -> None:
    with started(place.settings, place.directory) as (client, process):
        assert totals(client.get(SUMMARY, params=RANGE).json(), truth) == truth
        process.kill()
    assert socket_path(place.file).exists(), "a killed server cannot clean up"
    beside = [path for path in place.directory.glob("ledger.duckdb*") if path != place.file]
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in beside), beside
    # The file is free, whatever is left beside it.
    assert totals(place.json("report", "summary", *ASKED), truth) == truth
    with running(place.settings, place.directory) as client:
        assert totals(client.get(SUMMARY, params=RANGE).json(), truth) == truth
        assert place.command("ledger", "verify").returncode == 0
    assert not socket_path(place.file).exists()


def test_the_second_server_reports_without_and_takes_over(
    place: Place, truth: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    with (
        started(place.settings, place.directory) as (_, first),
        running(place.settings, tmp_path / "second") as client,
    ):
        report = client.get(SUMMARY, params=RANGE).json()
        assert report["totals"]["requests_count_total"] is None
        assert "open in another process" in source(report, "request-logs")["notes"]
        ledger = client.get("/readyz").json()["ledger"]
        assert not ledger["usable"]
        assert "open in another process" in ledger["problems"][0]
        assert "oscar_metrics_ledger_usable 0.0" in client.get("/metrics").text
        first.stop()

        def has_taken_over() -> bool:
            return totals(client.get(SUMMARY, params=RANGE).json(), truth) == truth

        wait_until(has_taken_over, "the second server has the ledger", timeout_seconds=20)
        assert place.command("ledger", "show").returncode == 3, "its socket answers"


def test_a_backfill_seals_what_the_sources_hold(
    common: dict[str, str], logs: list[str], truth: dict[str, int], tmp_path: Path
) -> None:
    settings = {
        **common,
        "OSCAR_METRICS_LEDGER": str(tmp_path / "ledger.duckdb"),
        "OSCAR_METRICS_LEDGER_BACKFILL_DAYS": "0",
        "OSCAR_METRICS_LOG_FILES": f"{Path(logs[0]).parent}/*",
    }
    place = Place(settings, tmp_path)
    backfill = ["ledger", "backfill", "--from", RANGE["start"], "--to", RANGE["end"]]
    with running(settings, tmp_path):
        wait_until(socket_path(place.file).exists, "the socket", timeout_seconds=20)
        first, again = place.json(*backfill, code=0), place.json(*backfill, code=0)
    for kind in ("executions", "exposed"):
        assert first["kinds"][kind]["verdicts"] == {"sealed": HOURS}
        assert again["kinds"][kind]["final"] == HOURS, "it goes on where it ended"
    # What is sealed outlives the files.
    report = json.loads(
        place.command("report", "summary", *ASKED, "--json", OSCAR_METRICS_LOG_FILES="").stdout
    )
    assert totals(report, truth) == truth


@pytest.mark.parametrize("command", [["ledger", "show"], ["report", "summary"], ["check"]])
def test_a_path_that_can_be_no_ledger_is_said(
    common: dict[str, str], tmp_path: Path, command: list[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file, problem in ((pipe, "something else"), (tmp_path / ("x" * 300), "longer than")):
        done = Place({**common, "OSCAR_METRICS_LEDGER": str(file)}, tmp_path).command(*command)
        assert done.returncode in (1, 3), done
        said = " ".join((done.stderr + done.stdout).split())
        assert problem in said, said


def test_a_file_name_that_is_none_is_said(imported: Place) -> None:
    done = imported.command("ledger", "import", "x" * 300)
    assert (done.returncode, "cannot be read" in done.stderr) == (2, True), done.stderr


@contextmanager
def held_by_nobody_who_answers(file: Path) -> Iterator[None]:
    """Another process has the file, and no socket."""
    code = f"import duckdb; c = duckdb.connect({str(file)!r}); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.send_signal(signal.SIGKILL)


def test_a_file_held_by_who_does_not_answer_is_said(
    place: Place, logs: list[str], truth: dict[str, int]
) -> None:
    with held_by_nobody_who_answers(place.file):
        shown = place.command("ledger", "show")
        assert (shown.returncode, "takes no commands" in shown.stderr) == (1, True), shown.stderr
        report = place.command(
            *("report", "summary", *ASKED, "--json"),
            OSCAR_METRICS_LOG_FILES=f"{Path(logs[0]).parent}/*",
        )
        said = json.loads(report.stdout)
        assert totals(said, truth) == truth
        assert source(said, "request-logs")["origin"] == "log-files"
        assert "ledger could not be used" in source(said, "request-logs")["notes"]


def test_reports_go_on_over_a_damaged_file(
    common: dict[str, str], logs: list[str], truth: dict[str, int], tmp_path: Path
) -> None:
    file = tmp_path / "ledger.duckdb"
    file.write_bytes(b"\0" * 4096 + b"not a ledger" * 1000)
    settings = {
        **common,
        "OSCAR_METRICS_LEDGER": str(file),
        "OSCAR_METRICS_LOG_FILES": f"{Path(logs[0]).parent}/*",
    }
    with running(settings, tmp_path) as client:
        report = client.get(SUMMARY, params=RANGE).json()
        assert totals(report, truth) == truth
        notes = source(report, "request-logs")["notes"]
        assert "damaged" in notes
        assert str(tmp_path) not in json.dumps(report)
        assert not client.get("/readyz").json()["ledger"]["usable"]
        refused = client.get(SUMMARY, params={**RANGE, "as_of": "2026-03-02T00:00:00Z"})
        assert refused.status_code == 503
    log = (tmp_path / "server.log").read_text()
    assert "ledger cannot be used" in log
    assert log.count("ledger cannot be used") == 1, "said once, not every time it is tried"
    check = command_line(["check"], settings, tmp_path)
    assert (check.returncode, "damaged" in check.stdout) == (3, True)


def test_a_folder_in_the_sockets_place_stops_nobody(place: Place, truth: dict[str, int]) -> None:
    socket_path(place.file).mkdir()
    with running(place.settings, place.directory) as client:
        assert totals(client.get(SUMMARY, params=RANGE).json(), truth) == truth
        assert client.get("/readyz").json()["ledger"]["usable"]


def test_a_command_that_is_interrupted_ends_its_work_there(beside: Place) -> None:
    """The connection is closed before the answer: the server goes on for the others."""
    from oscar_metrics.ledger.command_address import connected  # noqa: PLC0415

    for _ in range(20):
        connection = connected(beside.file)
        connection.sendall(b'{"command":"verify"}\n')
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    assert beside.command("ledger", "verify").returncode == 0
