"""What log files say by parts of quarter-hours is what they say of a span, taken apart."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import CallLog, LogStream, Roster, SlotPart, SlottedLog
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable, with_facts
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.log_reading import ReadingLimits
from oscar_metrics.sources.slotted_tallying import lines_of, part_of
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span, format_instant, parse_instant

START_NS = parse_instant("2026-03-01T10:00:00Z")
SPAN = Span(START_NS, START_NS + 2 * HOUR_NS)
TAG = "[GIN-EXECUTIONS-LOGGER]"
EXECUTIONS, EXPOSED = LogStream.EXECUTIONS, LogStream.EXPOSED
NOW_NS = START_NS + 10 * HOUR_NS


def bare(at_ns: int, user: str = "ada") -> str:
    return f"{TAG} {format_instant(at_ns)} | 200 | 1ms | 1.2.3.4 | POST /run/svc | {user}"


def old(at_ns: int, user: str = "ada") -> str:
    time = format_instant(at_ns)[:19].replace("-", "/").replace("T", " - ")
    return f"{TAG} {time} | 200 | 1ms | 1.2.3.4 | POST /run/svc | {user}"


def prefixed(at_ns: int, user: str = "ada") -> str:
    return f"{format_instant(at_ns)} stderr F {old(at_ns, user)}"


def nginx(at_ns: int, user: str = "") -> str:
    clock = format_instant(at_ns)[11:19]
    return (
        f"1.2.3.4 - - [01/Mar/2026:{clock} +0000]"
        f' "GET /system/services/web{user}/exposed/ HTTP/1.1" 200 17 "-" "c" 1 2'
        " [oscar-svc-web-svc-80] []"
    )


def traefik(at_ns: int, user: str = "") -> str:
    path = f"/system/services/web{user}/exposed/"
    return f'{{"StartUTC":"{format_instant(at_ns)}","RequestPath":"{path}","OriginStatus":200}}'


def zoned(at_ns: int, user: str = "ada") -> str:
    """The same instant told by a clock an hour ahead."""
    time = format_instant(at_ns + HOUR_NS).replace("Z", "+01:00")
    return f"{TAG} {time} | 200 | 1ms | 1.2.3.4 | POST /run/svc | {user}"


Form = Callable[[int, str], str]
FORMS: dict[Form, tuple[LogStream, int]] = {
    bare: (EXECUTIONS, 1),
    old: (EXECUTIONS, SECOND_NS),
    prefixed: (EXECUTIONS, 1),
    zoned: (EXECUTIONS, 1),
    nginx: (EXPOSED, SECOND_NS),
    traefik: (EXPOSED, 1),
}


def write(path: Path, lines: list[str]) -> Path:
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


async def ask(
    pattern: Path, span: Span = SPAN, **limits: int
) -> tuple[dict[LogStream, Outcome[CallLog]], dict[LogStream, Outcome[SlottedLog]]]:
    chosen = LogFilesSettings(pattern=str(pattern), limits=ReadingLimits(**limits))
    countries, both = Countries(GeoIP.open(None), Roster()), frozenset(LogStream)
    whole = await LogFiles(chosen).read(span, both, countries, now_ns=NOW_NS, deadline=None)
    # A source that has read a file once knows when to pass it over.
    parts = await LogFiles(chosen).read_slots(span, both, countries, now_ns=NOW_NS, deadline=None)
    return whole, parts


def together(slotted: SlottedLog) -> CallLog:
    tallies = Counter(
        {key: 0 for log in slotted.values() for key in log.tallies},
    )
    for log in slotted.values():
        tallies.update(log.tallies)
    seen, understood = lines_of(slotted)
    return CallLog(tallies=tallies, lines_seen=seen, lines_understood=understood)


def same(whole: Outcome[CallLog], parts: Outcome[SlottedLog]) -> None:
    """That both say the same but for their facts, and that these add up."""
    if isinstance(parts, Unavailable):
        assert whole == parts
    else:
        assert with_facts(parts, together(parts.facts)) == whole


@pytest.mark.parametrize("form", FORMS)
async def test_a_slots_first_instant_is_told_from_what_comes_next(
    tmp_path: Path, form: Form
) -> None:
    stream, step_ns = FORMS[form]
    begins_ns = START_NS + SLOT_NS
    instants = [begins_ns + n * step_ns for n in (-2, -1, 0, 1, 2)]
    lines = [form(at_ns, f"u{number}") for number, at_ns in enumerate(instants)]
    whole, parts = await ask(write(tmp_path / "a.log", lines))
    same(whole[stream], parts[stream])
    assert {part: log.tallies.total() for part, log in facts(parts[stream]).items()} == {
        SlotPart(begins_ns // SLOT_NS - 1, first=False): 2,
        SlotPart(begins_ns // SLOT_NS, first=True): 1,
        SlotPart(begins_ns // SLOT_NS, first=False): 2,
    }


def facts(outcome: Outcome[SlottedLog]) -> SlottedLog:
    assert isinstance(outcome, Ok | Partial), outcome
    return outcome.facts


INSTANTS = st.builds(
    lambda slot, offset_ns: START_NS + slot * SLOT_NS + offset_ns,
    st.integers(-1, 9),
    st.sampled_from((-SECOND_NS, -1, 0, 1, SECOND_NS, 61 * SECOND_NS, SLOT_NS // 2)),
)
LINES = st.lists(
    st.tuples(INSTANTS, st.sampled_from(list(FORMS)), st.sampled_from(("a", "b"))), max_size=30
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    files=st.lists(LINES, min_size=1, max_size=2),
    cut=st.tuples(
        st.sampled_from((0, 1, SLOT_NS, SLOT_NS + 1, 30 * SECOND_NS)),
        st.sampled_from((0, 1, -1, SLOT_NS, 30 * SECOND_NS)),
    ),
)
async def test_the_parts_add_up_and_each_line_is_in_its_own(
    tmp_path: Path, files: list[list[tuple[int, Form, str]]], cut: tuple[int, int]
) -> None:
    span = Span(SPAN.start_ns + cut[0], SPAN.stop_ns + cut[1])
    expected: dict[LogStream, dict[SlotPart, int]] = {stream: {} for stream in LogStream}
    told: set[tuple[LogStream, str]] = set()
    for number, drawn in enumerate(files):
        write(tmp_path / f"{number}.log", [form(at_ns, user) for at_ns, form, user in drawn])
        for at_ns, form, user in drawn:
            stream, step_ns = FORMS[form]
            instant_ns = at_ns // step_ns * step_ns
            if instant_ns in span and (stream, form(at_ns, user)) not in told:
                told.add((stream, form(at_ns, user)))
                counts = expected[stream]
                counts[part_of(instant_ns)] = counts.get(part_of(instant_ns), 0) + 1
    # A file of an earlier example would be read as well.
    pattern = tmp_path / ("*.log" if len(files) == 2 else "0.log")
    whole, parts = await ask(pattern, span)
    for stream in LogStream:
        same(whole[stream], parts[stream])
        outcome = parts[stream]
        found = {} if isinstance(outcome, Unavailable) else outcome.facts
        assert {part: log.tallies.total() for part, log in found.items()} == expected[stream]


async def test_copies_count_once_in_small_blocks_too(tmp_path: Path) -> None:
    lines = [bare(START_NS + n * SECOND_NS, f"u{n % 9}") for n in range(7000)]
    write(tmp_path / "a.log", lines)
    write(tmp_path / "b.log.gz", lines[:5000])
    whole, parts = await ask(tmp_path / "*", block_bytes=40_000)
    same(whole[EXECUTIONS], parts[EXECUTIONS])
    assert isinstance(parts[EXECUTIONS], Ok)
    assert together(facts(parts[EXECUTIONS])).tallies.total() == 7000


async def test_calls_without_a_time_are_in_no_part_but_in_doubt(tmp_path: Path) -> None:
    alive = [bare(SPAN.start_ns + n * SLOT_NS) for n in range(8)]
    untimed = f"{TAG} yesterday | 200 | 1ms | 1.2.3.4 | POST /run/svc | ada"
    whole, parts = await ask(write(tmp_path / "a.log", [*alive, untimed]))
    outcome = parts[EXECUTIONS]
    assert isinstance(outcome, Partial)
    assert outcome.doubts == ("1 lines recognised as calls have no time that can be read",)
    assert together(outcome.facts).lines_seen == 8
    assert isinstance(whole[EXECUTIONS], Partial)


async def test_how_far_back_files_reach_is_not_known(tmp_path: Path) -> None:
    files = LogFiles(LogFilesSettings(pattern=str(tmp_path / "*")))
    assert await files.kept_from(NOW_NS, None) is None
