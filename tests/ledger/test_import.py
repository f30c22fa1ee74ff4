"""Archives imported into a real ledger."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest

from oscar_metrics.facts import CallKey, LogStream, Roster, SlotPart, Tallies
from oscar_metrics.ledger.seals import KIND_OF, Verdict
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.slotted_tallying import part_of
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, SLOT_NS, Span, subtract
from tests.corpus import Corpus, sample
from tests.corpus.corpus import Mix
from tests.corpus.geoip import write_geoip_database
from tests.corpus.origins import write_log_files
from tests.ledger.archives import (
    EXECUTIONS,
    HOUR,
    LITTLE,
    NOW_NS,
    SPAN,
    START_NS,
    Told,
    bring,
    calls_of,
    execution,
    hourful,
    stored,
    write,
)
from tests.ledger.stores import ENGINES, executions, slotted


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
    return Countries(GeoIP.open(path), Roster())


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
    # The outage is sealed as the silence it was.
    assert report.verdicts[EXECUTIONS] == {Verdict.SEALED: 31 * 24}
    assert subtract(sample.OUTAGE, [gap.span for gap in sealed.gaps]) == []


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


async def test_what_is_silent_between_lines_is_a_gap_that_anyone_may_fill(
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
            (START_NS + HOUR_NS, START_NS + 2 * HOUR_NS),
            (START_NS + 2 * HOUR_NS, start_ns + 2 * HOUR_NS),
            (start_ns + 2 * HOUR_NS + SLOT_NS, START_NS + 3 * HOUR_NS),
        )
    )
    # A log that shows life without a call has none, which is known.
    assert await calls_of(store, HOUR + 2) == {}
    heads = await store.heads(EXECUTIONS, SPAN)
    assert [(head.hour, head.next_look_ns is None) for head in heads] == [
        (HOUR, False),
        (HOUR + 1, False),
        (HOUR + 2, False),
    ]
    late = execution(START_NS + HOUR_NS + SECOND_NS)
    report = await bring(store, [write(tmp_path / "b.log", [late])], now_ns=NOW_NS + 1)
    assert report.verdicts[EXECUTIONS] == {Verdict.REVISED: 1}


async def test_a_line_from_another_year_fills_no_years_with_silence(
    store: LedgerStore, tmp_path: Path
) -> None:
    lines = [execution(START_NS - 4000 * DAY_NS), execution(START_NS)]
    await bring(store, [write(tmp_path / "a.log", lines)])
    everything = Span(0, NOW_NS)
    assert len(await store.heads(EXECUTIONS, everything)) == 2


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
