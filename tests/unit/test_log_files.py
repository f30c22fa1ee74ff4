import asyncio
import gzip
import io
import os
import random
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import CallLog, LogStream, Roster, Tallies
from oscar_metrics.findings import Level
from oscar_metrics.outcome import GapReason, Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.line_times import line_time_ns
from oscar_metrics.sources.log_blocks import Gunzip, LogBlocks, _open_problem
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.log_reading import Reading, ReadingLimits, WholeTally
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span, format_instant, parse_instant

START_NS = parse_instant("2026-03-01T00:00:00Z")
DAY = Span(START_NS, START_NS + 24 * HOUR_NS)
TAG = "[GIN-EXECUTIONS-LOGGER]"
EXECUTIONS, EXPOSED = LogStream.EXECUTIONS, LogStream.EXPOSED


def execution(instant_ns: int, user: str = "ada", service: str = "svc") -> str:
    return (
        f"{TAG} {format_instant(instant_ns)} | 200 | 1ms | 1.2.3.4 | POST /run/{service} | {user}"
    )


def gateway(instant_ns: int, path: str = "/system/services/web/exposed/") -> str:
    return (
        f"{format_instant(instant_ns)} stdout F 1.2.3.4 - - [01/Mar/2026:00:00:00 +0000]"
        f' "GET {path} HTTP/1.1" 200 17 "-" "c" 1 2 [oscar-svc-web-svc-80] []'
    )


def probe(instant_ns: int) -> str:
    time = format_instant(instant_ns)[:19].replace("-", "/").replace("T", " - ")
    return f'[GIN] {time} | 200 | 20µs | 10.0.0.1 | GET      "/health"'


def alive(hours: int = 24) -> list[str]:
    """A sign of life of both logs in every slot of the first hours of the day."""
    instants = range(START_NS, START_NS + hours * HOUR_NS, HOUR_NS // 4)
    return [line for ns in instants for line in (probe(ns), gateway(ns, "/"))]


def write(path: Path, lines: list[str], *, newline: bool = True) -> Path:
    content = ("\n".join(lines) + ("\n" if newline and lines else "")).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def reader(pattern: Path | str, **limits: int) -> LogFiles:
    chosen = LogFilesSettings(pattern=str(pattern), limits=ReadingLimits(**limits))
    return LogFiles(chosen)


async def read(
    files: LogFiles,
    span: Span = DAY,
    stream: LogStream = EXECUTIONS,
    *,
    now_ns: int = DAY.stop_ns,
    deadline: float | None = None,
) -> Outcome[CallLog]:
    countries = Countries(GeoIP.open(None), Roster())
    outcomes = await files.read(
        span, frozenset(LogStream), countries, now_ns=now_ns, deadline=deadline
    )
    assert set(outcomes) == set(LogStream)
    return outcomes[stream]


def facts(outcome: Outcome[CallLog]) -> CallLog:
    assert not isinstance(outcome, Unavailable), outcome
    return outcome.facts


def total(outcome: Outcome[CallLog]) -> int:
    return facts(outcome).tallies.total()


def users(outcome: Outcome[CallLog]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for key, count in facts(outcome).tallies.items():
        counted[key.user] += count
    return dict(counted)


@pytest.mark.parametrize("name", ["a.log", "a.log.gz"])
async def test_both_logs_are_counted_in_one_reading(tmp_path: Path, name: str) -> None:
    lines = [*alive(), execution(START_NS + 5, "bob"), execution(START_NS + 5), gateway(START_NS)]
    files = reader(write(tmp_path / name, lines))
    executions, exposed = await read(files), await read(files, stream=EXPOSED)
    assert isinstance(executions, Ok)
    assert isinstance(exposed, Ok)
    assert users(executions) == {"ada": 1, "bob": 1}
    assert users(exposed) == {"": 1}
    assert executions.origin == "log-files"


async def test_gzip_is_known_by_its_content_and_of_any_number_of_members(tmp_path: Path) -> None:
    halves = ["\n".join(alive()) + "\n", execution(START_NS + 5)]
    content = b"".join(gzip.compress(half.encode()) for half in halves) + b"\0" * 512
    (tmp_path / "a.log").write_bytes(content)
    assert total(await read(reader(tmp_path / "a.log"))) == 1


async def test_a_span_holds_its_first_instant_and_not_its_last(tmp_path: Path) -> None:
    edges = (0, 1, SECOND_NS, 61 * SECOND_NS - 1, 61 * SECOND_NS)
    lines = [execution(START_NS + at, f"u{at}") for at in edges]
    files = reader(write(tmp_path / "a.log", lines))
    inside = await read(files, Span(START_NS + 1, START_NS + 61 * SECOND_NS))
    assert set(users(inside)) == {"u1", f"u{SECOND_NS}", f"u{61 * SECOND_NS - 1}"}


async def test_the_time_of_the_transport_beats_the_line_s_own(tmp_path: Path) -> None:
    late = START_NS + 30 * HOUR_NS
    lines = [
        f"{format_instant(START_NS)} stderr F {execution(late, 'in')}",
        f"{format_instant(late)} stderr F {execution(START_NS, 'out')}",
    ]
    assert users(await read(reader(write(tmp_path / "a.log", lines)))) == {"in": 1}


async def test_parts_of_long_lines_are_joined(tmp_path: Path) -> None:
    whole = execution(START_NS, "ada")
    time = format_instant(START_NS)
    lines = [
        f"{time} stderr P {whole[:50]}",
        f"{time} stdout F {execution(START_NS, 'bob')}",
        f"{time} stderr P {whole[50:70]}",
        f"{time} stderr F {whole[70:]}",
        f"{time} stderr P {TAG} 2026-03-01T00:00:00Z | 2",
    ]
    outcome = await read(reader(write(tmp_path / "a.log", lines)))
    assert users(outcome) == {"ada": 1, "bob": 1}
    assert facts(outcome).lines_seen == 3


async def test_slots_without_a_line_are_gaps_and_any_line_of_the_log_fills_one(
    tmp_path: Path,
) -> None:
    lines = [probe(START_NS + 14 * 60 * SECOND_NS), gateway(START_NS + 40 * 60 * SECOND_NS, "/")]
    files = reader(write(tmp_path / "a.log", lines))
    span = Span(START_NS + 5 * 60 * SECOND_NS, START_NS + HOUR_NS)
    executions, exposed = await read(files, span), await read(files, span, EXPOSED)
    assert isinstance(executions, Partial)
    assert isinstance(exposed, Partial)
    quarter_ns = HOUR_NS // 4
    assert [(gap.span, gap.reason) for gap in executions.gaps] == [
        (Span(START_NS + quarter_ns, span.stop_ns), GapReason.NO_LINES)
    ]
    assert [gap.span for gap in exposed.gaps] == [
        Span(span.start_ns, START_NS + 2 * quarter_ns),
        Span(START_NS + 3 * quarter_ns, span.stop_ns),
    ]


async def test_the_future_is_no_gap(tmp_path: Path) -> None:
    files = reader(write(tmp_path / "a.log", alive(hours=6)))
    assert isinstance(await read(files, now_ns=START_NS + 6 * HOUR_NS), Ok)


async def test_what_is_not_configured_or_not_there_is_unavailable(tmp_path: Path) -> None:
    for files, says in (
        (reader(""), "no log files are configured (OSCAR_METRICS_LOG_FILES)"),
        (reader(tmp_path / "*.log"), "OSCAR_METRICS_LOG_FILES matches no file"),
    ):
        outcome = await read(files)
        assert isinstance(outcome, Unavailable)
        assert outcome.notes == (says,)


async def test_a_log_that_no_file_holds_is_unavailable(tmp_path: Path) -> None:
    files = reader(write(tmp_path / "a.log", [execution(START_NS)]))
    exposed = await read(files, stream=EXPOSED)
    assert isinstance(exposed, Unavailable)
    assert "gateway's access log" in exposed.notes[0]
    assert isinstance(await read(files), Partial)


async def test_lines_not_understood_are_counted_and_said(tmp_path: Path) -> None:
    lines = [
        *alive(),
        execution(START_NS),
        execution(START_NS).replace("| 200 |", "| abc |"),
        execution(START_NS)[:80],
        f"{TAG} 2026-0",
        execution(START_NS, "bob").replace("2026-03-01T", "2026-03-99T"),
    ]
    files = LogFiles(LogFilesSettings(pattern=str(write(tmp_path / "a.log", lines))))
    outcome = await read(files)
    assert isinstance(outcome, Partial)
    assert (facts(outcome).lines_seen, facts(outcome).lines_understood) == (5, 1)
    assert "4 of 5 lines recognised as calls could not be understood" in outcome.notes


def cut_gzip(path: Path, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("\n".join(lines).encode())[:-20])


def broken_gzip(path: Path, lines: list[str]) -> None:
    half = gzip.compress(("\n".join(lines) + "\n").encode())
    path.write_bytes(half + b"\x1f\x8b\x08\0" + random.Random(1).randbytes(200))


def directory(path: Path, _lines: list[str]) -> None:
    path.mkdir()


def pipe(path: Path, _lines: list[str]) -> None:
    os.mkfifo(path)


def dangling(path: Path, _lines: list[str]) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("spoil", "says", "found"),
    [
        (cut_gzip, "b.log ends in the middle of its gzip data", True),
        (broken_gzip, "b.log holds broken gzip data, what came before was read", True),
        (directory, "b.log is a directory", False),
        (pipe, "b.log is not a regular file", False),
        (dangling, "b.log vanished before it was read", False),
    ],
)
async def test_a_file_that_cannot_be_read_is_named_and_the_rest_used(
    tmp_path: Path, spoil: object, says: str, found: bool
) -> None:
    write(tmp_path / "a.log", [*alive(), execution(START_NS)])
    assert callable(spoil)
    spoil(tmp_path / "b.log", [execution(START_NS + n, "bob") for n in range(20_000)])
    outcome = await read(reader(tmp_path / "*.log"))
    assert isinstance(outcome, Partial)
    assert says in outcome.notes
    assert users(outcome)["ada"] == 1
    assert (users(outcome).get("bob", 0) > 10_000) == found
    assert str(tmp_path) not in " ".join(outcome.notes)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(), "cannot be read: no permission"),
        (FileNotFoundError(), "vanished before it was read"),
        (OSError(), "cannot be opened"),
    ],
)
def test_why_a_file_was_not_opened_is_said(error: OSError, says: str) -> None:
    assert _open_problem(error) == says


async def test_a_line_without_end_is_cut_and_said(tmp_path: Path) -> None:
    lines = [*alive(), execution(START_NS) + "x" * 500_000, execution(START_NS + 1, "bob")]
    files = reader(write(tmp_path / "a.log", lines), line_bytes=70_000, block_bytes=2000)
    outcome = await read(files)
    assert isinstance(outcome, Partial)
    assert "a.log has 1 lines too long to be read whole" in outcome.notes
    assert users(outcome) == {"bob": 1}
    assert facts(outcome).lines_seen == 2


async def test_a_last_line_without_a_newline_counts_if_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", [*alive(), execution(START_NS)], newline=False)
    assert total(await read(reader(path))) == 1


async def test_a_growing_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.log", [*alive(), execution(START_NS)])
    files = reader(path)
    assert total(await read(files)) == 1
    with path.open("a") as log:
        log.write(execution(START_NS + 1) + "\n")
    assert total(await read(files)) == 2


@pytest.mark.parametrize("suffix", [".log", ".log.gz"])
async def test_files_outside_the_span_are_passed_over_and_the_note_says_so(
    tmp_path: Path, suffix: str
) -> None:
    for day in range(3):
        start_ns = START_NS + day * 24 * HOUR_NS
        lines = [execution(start_ns + n * SECOND_NS, f"d{day}") for n in range(0, 86_400, 300)]
        write(tmp_path / f"{day}{suffix}", lines)
    files = reader(tmp_path / f"*{suffix}")
    first = await read(files)
    again = await read(files)
    assert users(first) == users(again) == {"d0": 288}
    assert any(note.startswith("2 of 3 files were passed over") for note in again.notes)


async def test_a_plain_file_out_of_order_is_read_whatever_its_ends_say(tmp_path: Path) -> None:
    other = [execution(START_NS + 48 * HOUR_NS + n * SECOND_NS, "other") for n in range(5000)]
    hidden = [execution(START_NS + n * SECOND_NS) for n in range(3000)]
    path = write(tmp_path / "a.log", other[:2500] + hidden + other[2500:])
    assert users(await read(reader(path))) == {"ada": 3000}


async def test_copies_count_once(tmp_path: Path) -> None:
    lines = [*alive(), *(execution(START_NS + n * 7 * SECOND_NS) for n in range(10_000))]
    lines.sort(key=lambda line: line_time_ns(line) or 0)
    write(tmp_path / "a.log", lines)
    write(tmp_path / "a.log.1.gz", lines[:8000])
    write(tmp_path / "b.log", lines[4000:])
    (tmp_path / "current.log").symlink_to("a.log")
    outcome = await read(reader(tmp_path / "*", block_bytes=40_000))
    assert total(outcome) == 10_000
    assert any("lines were copies" in note for note in outcome.notes)
    assert not any("far from their place" in note for note in outcome.notes)


async def test_copies_that_may_have_been_missed_are_said(tmp_path: Path) -> None:
    lines = [execution(START_NS + n * SECOND_NS, f"u{n}") for n in range(40_000)]
    path = write(tmp_path / "a.log", lines + lines[:100])
    outcome = await read(reader(path, block_bytes=100_000))
    assert isinstance(outcome, Partial)
    assert total(outcome) == 40_100
    assert any("far from their place in time" in note for note in outcome.notes)


async def test_more_files_than_may_be_open_are_read_all_the_same(tmp_path: Path) -> None:
    for number in range(12):
        lines = [execution(START_NS + n * SECOND_NS, f"u{number}") for n in range(500)]
        write(tmp_path / f"{number}.log", lines)
    outcome = await read(reader(tmp_path / "*", open_files=3, block_bytes=10_000))
    assert total(outcome) == 6000


async def test_files_beyond_the_bound_are_left_out_and_said(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}.log", [execution(START_NS + number, f"u{number}")])
    outcome = await read(reader(tmp_path / "*", files=2))
    assert isinstance(outcome, Partial)
    assert set(users(outcome)) == {"u0", "u1"}
    assert "1 files were left out: OSCAR_METRICS_LOG_FILES matches too many" in outcome.notes


class StopAfter(threading.Event):
    """A stop flag that is set once it has been looked at a number of times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self._looks = looks

    def is_set(self) -> bool:
        self._looks -= 1
        return self._looks < 0


async def test_at_the_deadline_what_was_read_is_given_and_the_rest_is_a_gap(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.log", [execution(START_NS + n * SECOND_NS, "a") for n in range(80_000)])
    write(tmp_path / "b.log", [execution(START_NS + n * SECOND_NS, "b") for n in range(80_000)])
    files = reader(tmp_path / "*")
    limits = ReadingLimits(block_bytes=100_000)
    countries = Countries(GeoIP.open(None), Roster())
    tallies = {stream: WholeTally(stream, countries, ingress_host="") for stream in LogStream}
    reading = Reading(DAY, tallies, limits=limits, ingress_host="")
    reading.run(files._archive, StopAfter(20))
    outcome = files._outcome(reading, EXECUTIONS, DAY.stop_ns)
    assert isinstance(outcome, Partial)
    late = [gap.span for gap in outcome.gaps if gap.reason is GapReason.DEADLINE]
    assert len(late) == 1
    assert late[0].stop_ns == DAY.stop_ns
    assert late[0].start_ns > DAY.start_ns
    # What lies before the gap is all there, of both files.
    before = users(await read(files, Span(DAY.start_ns, late[0].start_ns)))
    assert before["a"] == before["b"] > 0
    assert all(before[user] <= count < 80_000 for user, count in users(outcome).items())


async def test_a_deadline_that_passes_while_others_read_leaves_nothing(tmp_path: Path) -> None:
    lines = [execution(START_NS + n, "u") for n in range(100_000)]
    settings = LogFilesSettings(pattern=str(write(tmp_path / "a.log", lines)), readers=1)
    files = LogFiles(settings)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read(files))
        await asyncio.sleep(0)
        outcome = await read(files, deadline=asyncio.get_running_loop().time())
    assert outcome == Unavailable(
        origin="log-files", notes=("log files not finished when the report's deadline came",)
    )


async def test_cancelling_ends_the_reading(tmp_path: Path) -> None:
    lines = [execution(START_NS + n, "u") for n in range(50_000)]
    files = reader(write(tmp_path / "a.log", lines), block_bytes=10_000)
    task = asyncio.create_task(read(files))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_check_says_what_the_files_hold(tmp_path: Path) -> None:
    write(tmp_path / "a.log", [execution(START_NS), execution(START_NS + SECOND_NS)])
    write(tmp_path / "b.log", ["nothing", "to see"])
    findings = await reader(tmp_path / "*").check(DAY.stop_ns)
    says = {finding.says: finding.level for finding in findings}
    assert says["no log line could be read from b.log"] is Level.WARNING
    assert says["2 files"] is Level.OK
    assert any("executions" in text and "2026-03-01T00:00:00Z" in text for text in says)
    assert any("exposed" in text and level is Level.WARNING for text, level in says.items())
    for pattern in ("", tmp_path / "*.none"):
        assert [f.level for f in await reader(pattern).check(0)] == [Level.PROBLEM]


def test_any_blocks_give_the_same_lines(tmp_path: Path) -> None:
    text = "one\n\ntwo\r\nthree é\n" * 50 + "last"
    path = tmp_path / "a"
    path.write_text(text, newline="")
    packed = tmp_path / "b"
    packed.write_bytes(gzip.compress(text.encode()))
    for source in (path, packed):
        for size in (1, 2, 7, 64, 100_000):
            blocks = LogBlocks(source, line_bytes=1000)
            lines: list[str] = []
            while (block := blocks.read(size)) is not None:
                lines += block
            # A block that ends on a newline has no line after it.
            assert [line for line in lines if line] == [
                line for line in text.replace("\r", "").split("\n") if line
            ]
            assert blocks.problem == ""


def test_a_small_file_that_unpacks_to_a_large_one_is_unpacked_piece_by_piece() -> None:
    packed = gzip.compress(b"\0" * 50_000_000)
    pieces = Gunzip(io.BytesIO(packed))
    sizes = []
    while piece := pieces.read(100_000):
        sizes.append(len(piece))
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 100_000


minutes = st.integers(-30, 24 * 60 + 30)
texts = st.one_of(
    st.builds(
        lambda minute, second, user: execution(
            START_NS + (minute * 60 + second) * SECOND_NS + second, user
        ),
        minutes,
        st.integers(0, 59),
        st.sampled_from(["ada", "bob", "", "a | b | c"]),
    ),
    st.builds(lambda minute: probe(START_NS + minute * 60 * SECOND_NS), minutes),
    st.builds(lambda minute: gateway(START_NS + minute * 60 * SECOND_NS), minutes),
    st.builds(lambda minute: execution(START_NS + minute * 60 * SECOND_NS)[:90], minutes),
    st.text(max_size=40),
    st.builds(lambda text: TAG + " " + text, st.text(max_size=40)),
)


def tallies(outcome: Outcome[CallLog]) -> Tallies:
    return Counter() if isinstance(outcome, Unavailable) else outcome.facts.tallies


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(texts, max_size=40),
    st.integers(DAY.start_ns, DAY.stop_ns),
    st.integers(1, 4000),
    st.booleans(),
)
async def test_windows_add_up_and_copies_of_files_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    cut_ns: int,
    block: int,
    zipped: bool,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    # Out of order no further than is compared.
    write(folder / ("a.log.gz" if zipped else "a.log"), lines)
    files = reader(folder / "*", block_bytes=block, slack_seconds=10**6)
    whole = [tallies(await read(files, stream=stream)) for stream in LogStream]
    halves = [
        tallies(await read(files, Span(DAY.start_ns, cut_ns), stream))
        + tallies(await read(files, Span(cut_ns, DAY.stop_ns), stream))
        for stream in LogStream
    ]
    assert whole == halves
    write(folder / "b.log", lines)
    write(folder / "c.log.gz", lines[: len(lines) // 2])
    doubled = [tallies(await read(files, stream=stream)) for stream in LogStream]
    assert whole == doubled
