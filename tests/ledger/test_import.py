"""Archives imported into a real ledger."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import (
    CallKey,
    CountryFrom,
    Kind,
    LogStream,
    Result,
    SlotPart,
    Tallies,
)
from oscar_metrics.ledger.importing import ImportReport, _size_of, import_files
from oscar_metrics.ledger.seals import KIND_OF, SealKind, Verdict
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.log_reading import ReadingLimits
from oscar_metrics.sources.slotted_tallying import part_of
from oscar_metrics.sums import PERIOD
from oscar_metrics.timerange import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    SLOT_NS,
    Span,
    format_instant,
    parse_instant,
)
from tests.corpus import Corpus, sample
from tests.corpus.corpus import Mix
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import write_log_files
from tests.corpus.platform import BASE_HOST
from tests.ledger.stores import ENGINES, executions, slotted

START_NS = parse_instant("2026-02-27T00:00:00Z")
HOUR = START_NS // HOUR_NS
SPAN = Span(START_NS, START_NS + 2 * DAY_NS)
NOW_NS = SPAN.stop_ns + 10 * DAY_NS
EXECUTIONS = SealKind.EXECUTIONS


@pytest.fixture(params=ENGINES)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> LedgerStore:
    return ENGINES[request.param](tmp_path / "ledger")


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.generate(5, SPAN, Mix(calls=3000, broken=60, repeated=40))


@pytest.fixture(scope="module")
def countries(tmp_path_factory: pytest.TempPathFactory) -> Countries:
    path = tmp_path_factory.mktemp("geoip") / "geoip.mmdb"
    write_geoip_database(path)
    return Countries(GeoIP.open(path), {})


NOWHERE = Countries(GeoIP.open(None), {})
USUAL = ReadingLimits()
# So that many batches meet in the middle of a slot.
LITTLE = ReadingLimits(block_bytes=4096)


class Told:
    """Notes what progress was told."""

    def __init__(self) -> None:
        self.told: list[tuple[int, int, str]] = []
        self.begun = asyncio.Event()

    def __call__(self, done: int, total: int, doing: str) -> None:
        self.told.append((done, total, doing))
        self.begun.set()


class Breaks:
    """Stops the import before anything is sealed."""

    def __call__(self, done: int, total: int, doing: str) -> None:
        if doing == "sealing":
            raise ConnectionError(done, total)


async def bring(
    store: LedgerStore,
    files: Sequence[Path],
    countries: Countries = NOWHERE,
    *,
    now_ns: int = NOW_NS,
    told: Told | None = None,
    limits: ReadingLimits = USUAL,
) -> ImportReport:
    return await import_files(
        store,
        files,
        countries,
        now_ns=lambda: now_ns,
        ingress_host=BASE_HOST,
        limits=limits,
        progress=Told() if told is None else told,
    )


async def stored(store: LedgerStore, stream: LogStream, span: Span) -> dict[SlotPart, Tallies]:
    """The calls of whole hours, by parts of slots."""
    bounds = [
        start_ns + offset_ns
        for start_ns in range(span.start_ns, span.stop_ns, SLOT_NS)
        for offset_ns in (0, 1)
    ]
    grouping = (PERIOD, *CallKey._fields)
    heads = await store.heads(KIND_OF[stream], span)
    spans = [Span(head.hour * HOUR_NS, (head.hour + 1) * HOUR_NS) for head in heads]
    sums = await store.call_sums(stream, spans, [grouping], bounds_ns=bounds, rows_max=10**6)
    found: dict[SlotPart, Tallies] = {}
    for (period, *key), count in sums.groups[grouping].items():
        found.setdefault(part_of(bounds[period]), Counter())[CallKey(*key)] += count
    return found


def truth(corpus: Corpus, stream: LogStream, span: Span) -> dict[SlotPart, Tallies]:
    expected: dict[SlotPart, Tallies] = {}
    for start_ns in range(span.start_ns, span.stop_ns, SLOT_NS):
        parts = (Span(start_ns, start_ns + 1), Span(start_ns + 1, start_ns + SLOT_NS))
        for part in parts:
            if tallies := corpus.truth(stream, part).tallies:
                expected[part_of(part.start_ns)] = tallies
    return expected


@pytest.mark.parametrize("compress", [False, True])
async def test_a_corpus_is_stored_as_it_is_to_the_unit_and_the_slot(
    store: LedgerStore, corpus: Corpus, countries: Countries, tmp_path: Path, compress: bool
) -> None:
    files = write_log_files(corpus, tmp_path, compress=compress)
    random.Random(1).shuffle(files)
    report = await bring(store, files, countries, limits=LITTLE)
    logs = {stream: corpus.truth(stream, SPAN) for stream in LogStream}
    for stream in LogStream:
        assert await stored(store, stream, SPAN) == truth(corpus, stream, SPAN)
        heads = await store.heads(KIND_OF[stream], SPAN)
        assert [head.hour for head in heads] == list(range(HOUR, HOUR + 48))
        assert sum(head.lines_seen for head in heads) == logs[stream].lines_seen
        assert sum(head.lines_understood for head in heads) == logs[stream].lines_understood
        assert {(head.origin, head.missing_ns, head.next_look_ns) for head in heads} == {
            ("log-archive", 0, None)
        }
    assert report.lines_seen == sum(log.lines_seen for log in logs.values())
    assert report.lines_understood == sum(log.lines_understood for log in logs.values())
    assert report.verdicts == {kind: {Verdict.SEALED: 48} for kind in KIND_OF.values()}
    assert report.copies > 0
    assert report.problems == ()
    assert report.left_out_from == ""
    assert [doubt for doubt in report.doubts if "could not be understood" not in doubt] == []


async def test_the_shipped_sample_is_stored_as_it_is(
    store: LedgerStore, countries: Countries
) -> None:
    corpus, now_ns = sample.sample(), sample.SPAN.stop_ns + DAY_NS
    report = await bring(store, sorted(sample.FOLDER.glob("*.log*")), countries, now_ns=now_ns)
    for stream in LogStream:
        heads = await store.heads(KIND_OF[stream], sample.SPAN)
        spans = [Span(head.hour * HOUR_NS, (head.hour + 1) * HOUR_NS) for head in heads]
        sums = await store.call_sums(stream, spans, [CallKey._fields], rows_max=10**6)
        expected = corpus.truth(stream, sample.SPAN)
        assert sums.groups[CallKey._fields] == expected.tallies
        assert sum(head.lines_seen for head in heads) == expected.lines_seen
    sealed = await store.sealed(EXECUTIONS, sample.SPAN)
    # The outage is missing: in hours without any line nothing is sealed at all.
    assert report.verdicts[EXECUTIONS] == {Verdict.SEALED: 31 * 24 - 5}
    assert sample.OUTAGE.clip(sealed.stretches[0].span).length_ns == 0


async def test_a_file_imported_twice_changes_nothing(
    store: LedgerStore, corpus: Corpus, tmp_path: Path
) -> None:
    files = write_log_files(corpus, tmp_path)
    await bring(store, files)
    before = [await store.heads(kind, SPAN) for kind in KIND_OF.values()]
    again = await bring(store, files, now_ns=NOW_NS + HOUR_NS)
    assert again.verdicts == {kind: {Verdict.SAME: 48} for kind in KIND_OF.values()}
    after = [await store.heads(kind, SPAN) for kind in KIND_OF.values()]
    assert after == before


async def test_archives_that_overlap_are_one_log(
    store: LedgerStore, corpus: Corpus, tmp_path: Path
) -> None:
    files = write_log_files(corpus, tmp_path)
    pieces: list[Path] = []
    for file in files:
        lines = file.read_text().splitlines()
        third = len(lines) // 3
        for number, some in enumerate((lines[: 2 * third], lines[third:], lines[:third])):
            pieces.append(write(tmp_path / f"{number}-{file.name}.gz", some))
    await bring(store, [*pieces, files[0], files[0]])
    for stream in LogStream:
        found = await stored(store, stream, SPAN)
        counts = {part: tallies.total() for part, tallies in found.items()}
        expected = truth(corpus, stream, SPAN)
        assert counts == {part: tallies.total() for part, tallies in expected.items()}


def execution(at_ns: int, user: str = "ada") -> str:
    return (
        f"[GIN-EXECUTIONS-LOGGER] {format_instant(at_ns)} | 200 | 1ms | 1.2.3.4 |"
        f" POST /run/svc | {user}"
    )


def write(path: Path, lines: Iterable[str]) -> Path:
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def hourful(hour: int, users: Iterable[str], *, step_ns: int = SLOT_NS // 3) -> list[str]:
    """Lines all over an hour, of one user after the other."""
    start_ns = hour * HOUR_NS
    names = list(users)
    return [
        execution(start_ns + number * step_ns, names[number % len(names)])
        for number in range(HOUR_NS // step_ns)
    ]


async def calls_of(store: LedgerStore, hour: int) -> dict[str, int]:
    """The calls of an hour by user."""
    span = Span(hour * HOUR_NS, (hour + 1) * HOUR_NS)
    sums = await store.call_sums(LogStream.EXECUTIONS, [span], [("user",)], rows_max=1000)
    return {user: count for (user,), count in sums.groups["user",].items()}


async def test_more_of_an_hour_replaces_less_and_is_never_added(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = hourful(HOUR, ["ada", "bob"])
    part, whole = write(tmp_path / "part.log", lines[:7]), write(tmp_path / "whole.log", lines)
    first = await bring(store, [part])
    assert first.verdicts[EXECUTIONS] == {Verdict.SEALED: 1}
    more = await bring(store, [whole], now_ns=NOW_NS + 1)
    assert more.verdicts[EXECUTIONS] == {Verdict.REVISED: 1}
    less = await bring(store, [part], now_ns=NOW_NS + 2)
    assert less.verdicts[EXECUTIONS] == {Verdict.KEPT: 1}
    assert [(one.hour, one.lines_seen, one.sealed_lines_seen) for one in less.kept] == [
        (HOUR, 7, 12)
    ]
    assert await calls_of(store, HOUR) == {"ada": 6, "bob": 6}
    assert [head.revision for head in await store.heads(EXECUTIONS, SPAN)] == [2]


async def test_hours_that_have_each_seen_something_else_are_listed_and_kept(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = hourful(HOUR, ["ada"]) + hourful(HOUR + 1, ["ada"])
    await bring(store, [write(tmp_path / "a.log", lines[0::2])])
    report = await bring(store, [write(tmp_path / "b.log", lines[1::2])], now_ns=NOW_NS + 1)
    assert report.verdicts[EXECUTIONS] == {Verdict.AMBIGUOUS: 2}
    assert [one.hour for one in report.ambiguous] == [HOUR, HOUR + 1]
    assert await calls_of(store, HOUR) == {"ada": 6}
    # Together the files have seen everything that either has.
    both = [tmp_path / "a.log", tmp_path / "b.log"]
    report = await bring(store, both, now_ns=NOW_NS + 2)
    assert report.verdicts[EXECUTIONS] == {Verdict.REVISED: 2}
    assert await calls_of(store, HOUR) == {"ada": 12}


async def test_what_another_source_has_seen_is_replaced_only_by_more(
    store: LedgerStore, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.log", hourful(HOUR, ["ada"]) + hourful(HOUR + 1, ["ada"]))
    await bring(store, [file])
    found = await stored(store, LogStream.EXECUTIONS, SPAN)
    one_less = {
        (part, key): count
        for part, tallies in found.items()
        for key, count in tallies.items()
        if part != max(found)
    }
    other = ENGINES["duckdb"](tmp_path / "other")
    by_hour = {
        hour: {key: n for key, n in one_less.items() if key[0].slot // 4 == hour}
        for hour in (HOUR, HOUR + 1)
    }
    more = dict(by_hour[HOUR])
    more[next(iter(more))] += 1
    await other.seal(
        [executions(HOUR, slotted(more)), executions(HOUR + 1, slotted(by_hour[HOUR + 1]))],
        now_ns=NOW_NS,
    )
    report = await bring(other, [file], now_ns=NOW_NS + 1)
    assert report.verdicts[EXECUTIONS] == {Verdict.KEPT: 1, Verdict.REVISED: 1}
    heads = await other.heads(EXECUTIONS, SPAN)
    assert [head.origin for head in heads] == ["loki", "log-archive"]
    assert await calls_of(other, HOUR) == {"ada": 13}
    assert await calls_of(other, HOUR + 1) == {"ada": 12}


async def test_silent_quarter_hours_are_gaps_and_silent_hours_are_not_sealed(
    store: LedgerStore, tmp_path: Path
) -> None:
    probe = "[GIN] 2026/02/27 - 02:20:00 | 200 | 20µs | 10.0.0.1 | GET      /health"
    lines = [execution(START_NS + 20 * 60 * SECOND_NS), probe]
    await bring(store, [write(tmp_path / "a.log", lines)])
    sealed = await store.sealed(EXECUTIONS, SPAN)
    start_ns = START_NS + SLOT_NS
    assert sealed.gaps == tuple(
        Gap(span=Span(*ends), reason=GapReason.NO_LINES)
        for ends in (
            (START_NS, start_ns),
            (start_ns + SLOT_NS, START_NS + HOUR_NS),
            (START_NS + 2 * HOUR_NS, start_ns + 2 * HOUR_NS),
            (start_ns + 2 * HOUR_NS + SLOT_NS, START_NS + 3 * HOUR_NS),
        )
    )
    # A log that shows life without a call has none, which is known.
    assert await calls_of(store, HOUR + 2) == {}


async def test_an_hour_that_is_not_over_is_left_out_and_said(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = hourful(HOUR, ["ada"]) + hourful(HOUR + 1, ["ada"])
    now_ns = START_NS + HOUR_NS + 1800 * SECOND_NS
    report = await bring(store, [write(tmp_path / "a.log", lines)], now_ns=now_ns)
    assert report.left_out_from == "2026-02-27T01:00:00Z"
    heads = await store.heads(EXECUTIONS, SPAN)
    assert [head.hour for head in heads] == [HOUR]
    # So lately ended, another source may know more of it: it is looked at once again.
    assert heads[0].next_look_ns == START_NS + HOUR_NS + DAY_NS
    only = write(tmp_path / "b.log", lines[12:])
    report = await bring(store, [only], now_ns=now_ns)
    assert report.left_out_from == "2026-02-27T01:00:00Z"
    assert report.verdicts[EXECUTIONS] == {}


async def test_a_file_that_breaks_off_leaves_a_gap_until_it_is_whole(
    store: LedgerStore, tmp_path: Path
) -> None:
    dice = random.Random(3)
    lines = [
        execution(START_NS + n * 6 * SECOND_NS, f"{dice.randrange(10**9)}") for n in range(1100)
    ]
    content = gzip.compress(("\n".join(lines) + "\n").encode())
    broken = tmp_path / "a.log.gz"
    broken.write_bytes(content[: len(content) * 2 // 3])
    report = await bring(store, [broken])
    assert report.problems == ("a.log.gz ends in the middle of its gzip data",)
    sealed = await store.sealed(EXECUTIONS, SPAN)
    (gap,) = [gap for gap in sealed.gaps if gap.reason is GapReason.UNREADABLE]
    assert gap.span.stop_ns == START_NS + 2 * HOUR_NS
    broken.write_bytes(content)
    report = await bring(store, [broken], now_ns=NOW_NS + 1)
    assert report.verdicts[EXECUTIONS] == {Verdict.SAME: 1, Verdict.REVISED: 1}
    assert (await store.sealed(EXECUTIONS, SPAN)).gaps == ()
    assert sum((await calls_of(store, HOUR + 1)).values()) == 500


async def test_calls_without_a_time_are_in_doubt_where_they_stand(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = [line for hour in range(3) for line in hourful(HOUR + hour, ["ada"])]
    lines.insert(18, execution(START_NS).replace("2026-02-27T", "yesterday "))
    report = await bring(store, [write(tmp_path / "a.log", lines)], limits=LITTLE)
    assert report.problems == ("a.log has 1 calls without a time to be read",)
    assert report.doubts == (
        "1 lines recognised as calls had no time that could be read, and are in no hour",
    )
    assert report.lines_seen == 37
    sealed = await store.sealed(EXECUTIONS, SPAN)
    stands_ns = START_NS + HOUR_NS + SLOT_NS
    (stretch,) = [one for one in sealed.stretches if stands_ns in one.span]
    assert stretch.doubts == ("lines recognised as calls had no time that could be read",)


async def test_lines_far_from_their_place_are_in_doubt(store: LedgerStore, tmp_path: Path) -> None:
    lines = [line for hour in range(40) for line in hourful(HOUR + hour, ["ada", "bob"])]
    report = await bring(store, [write(tmp_path / "a.log", [*lines, lines[0]])], limits=LITTLE)
    assert report.doubts == (
        "lines stood far from their place in time: copies of them may have been counted",
    )
    sealed = await store.sealed(EXECUTIONS, SPAN)
    assert sealed.stretches[0].doubts == report.doubts
    assert not any(stretch.doubts for stretch in sealed.stretches[1:])


async def test_no_file_no_import(store: LedgerStore, tmp_path: Path) -> None:
    log = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    (tmp_path / "folder").mkdir()
    gone, folder = tmp_path / "gone.log", tmp_path / "folder"
    with pytest.raises(LedgerError) as caught:
        await bring(store, [log, gone, folder])
    assert str(caught.value) == (
        f"there is no file {gone}; {folder} is a directory: name the files in it"
    )
    with pytest.raises(LedgerError, match="2 files are too many: import at most 1 at a time"):
        await bring(store, [log, log], limits=ReadingLimits(files=1))
    assert await store.heads(EXECUTIONS, SPAN) == []


async def test_what_is_no_log_is_said(store: LedgerStore, tmp_path: Path) -> None:
    text = write(tmp_path / "notes.txt", ["buy milk"])
    with pytest.raises(LedgerError, match=r"no line of any file is of a log that is known"):
        await bring(store, [text])
    broken = tmp_path / "broken.log.gz"
    broken.write_bytes(gzip.compress(b"short")[:-4])
    with pytest.raises(LedgerError, match=r"; broken.log.gz ends in the middle of its gzip data"):
        await bring(store, [broken])
    log = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    report = await bring(store, [text, log])
    assert report.verdicts[EXECUTIONS] == {Verdict.SEALED: 1}
    (problem,) = report.problems
    assert problem.startswith("notes.txt has no line of a log that is known: OSCAR's manager")


async def test_a_clock_before_the_seal_is_refused_and_listed(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = hourful(HOUR, ["ada"])
    await bring(store, [write(tmp_path / "a.log", lines[1:])])
    report = await bring(store, [write(tmp_path / "a.log", lines)], now_ns=NOW_NS - 1)
    assert [one.hour for one in report.refused] == [HOUR]


async def test_what_others_seal_while_files_are_read_is_no_sign_of_a_clock_set_back(
    store: LedgerStore, tmp_path: Path
) -> None:
    began_ns, ended_ns = NOW_NS, NOW_NS + 2 * HOUR_NS
    clock = iter([began_ns, ended_ns])
    # As if the sealer had come to it in between.
    await store.seal([executions(HOUR, {})], now_ns=NOW_NS + HOUR_NS)
    report = await import_files(
        store,
        [write(tmp_path / "a.log", hourful(HOUR, ["ada"]))],
        NOWHERE,
        now_ns=lambda: next(clock),
        ingress_host="",
        limits=USUAL,
        progress=Told(),
    )
    assert report.verdicts[EXECUTIONS] == {Verdict.REVISED: 1}
    (head,) = await store.heads(EXECUTIONS, SPAN)
    assert head.sealed_at_ns == ended_ns


async def test_an_import_that_changes_nothing_leaves_the_next_look_as_it_is(
    store: LedgerStore, tmp_path: Path
) -> None:
    lost = Gap(span=Span(START_NS, START_NS + 1), reason=GapReason.FAILED)
    part = SlotPart(HOUR * 4 + 3, first=False)
    call = CallKey("", "cowsay", "bob", "", CountryFrom.NOTHING, Kind.SYNC, Result.OK)
    file = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))
    await bring(store, [file])
    found = await stored(store, LogStream.EXECUTIONS, SPAN)
    known = {(part, key): count for part, keys in found.items() for key, count in keys.items()}
    # A source that has seen more and is to be asked again.
    more = slotted({**known, (part, call): 1})
    again = executions(HOUR, more, gaps=(lost,), looks=3, next_look_ns=NOW_NS + HOUR_NS)
    (judged,) = await store.seal([again], now_ns=NOW_NS)
    assert judged.verdict is Verdict.REVISED

    report = await bring(store, [file])
    assert report.verdicts[EXECUTIONS] == {Verdict.KEPT: 1}
    (head,) = await store.heads(EXECUTIONS, SPAN)
    assert (head.looks, head.next_look_ns) == (3, NOW_NS + HOUR_NS)


async def test_progress_tells_bytes_and_ends_with_all_of_them(
    store: LedgerStore, corpus: Corpus, tmp_path: Path
) -> None:
    files = write_log_files(corpus, tmp_path, compress=True)
    progress = Told()
    await bring(store, files, told=progress, limits=LITTLE)
    total = sum(file.stat().st_size for file in files)
    told = progress.told
    done = [so_far for so_far, _, _ in told]
    assert done == sorted(done)
    assert {of for _, of, _ in told} == {total}
    assert told[-1] == (total, total, "sealing")
    assert told[-2] == (total, total, "reading")
    assert len(told) > 3


async def test_an_import_that_failed_leaves_nothing_behind(
    store: LedgerStore, tmp_path: Path
) -> None:
    file = write(tmp_path / "a.log", hourful(HOUR, ["ada"]))

    with pytest.raises(ConnectionError):
        await import_files(
            store,
            [file],
            NOWHERE,
            now_ns=lambda: NOW_NS,
            ingress_host="",
            limits=ReadingLimits(),
            progress=Breaks(),
        )
    assert await store.heads(EXECUTIONS, SPAN) == []
    await bring(store, [file])
    assert await calls_of(store, HOUR) == {"ada": 12}


async def test_a_cancelled_import_ends_and_leaves_nothing_behind(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = [line for hour in range(40) for line in hourful(HOUR + hour, ["a"], step_ns=SECOND_NS)]
    file = write(tmp_path / "a.log", lines)
    told = Told()
    importing = asyncio.create_task(bring(store, [file], told=told, limits=LITTLE))
    await told.begun.wait()
    importing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await importing
    assert {doing for _, _, doing in told.told} == {"reading"}
    assert await store.heads(EXECUTIONS, SPAN) == []
    report = await bring(store, [file])
    assert report.lines_understood == len(lines)


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.log", ["secret"])
    file.chmod(0)
    said, says = os.pipe()
    child = os.fork()
    if not child:
        # Permissions hold nobody back who is root.
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            _size_of([file], 10)
        except LedgerError as exc:
            os.write(says, str(exc).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(says)
    with os.fdopen(said) as pipe:
        assert pipe.read() == f"{file} may not be read by this user"


async def test_a_report_can_be_sent_and_read(store: LedgerStore, tmp_path: Path) -> None:
    report = await bring(store, [write(tmp_path / "a.log", hourful(HOUR, ["ada"]))])
    encoded = msgspec.json.encode(report)
    assert msgspec.json.decode(encoded, type=ImportReport) == report
