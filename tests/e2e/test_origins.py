"""One traffic, read through every origin: each says the same, and it is the truth."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from oscar_metrics.facts import CallLog, LogStream
from oscar_metrics.outcome import Gap, GapReason, Ok, Outcome, Partial
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span, report_range
from tests.corpus import Corpus, platform, sample
from tests.e2e.conftest import NOW_NS, SPAN

STREAMS = frozenset(LogStream)
ORIGINS = ("log-files", "compressed-log-files")


class LogSource(Protocol):
    """What every source of request logs does."""

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]: ...


@pytest.fixture(params=ORIGINS)
async def source(request: pytest.FixtureRequest) -> AsyncIterator[LogSource]:
    """Each origin in its turn; what it needs is started when it is first asked for."""
    if request.param == "log-files":
        files = log_files(request.getfixturevalue("log_folder"))
    else:
        files = log_files(request.getfixturevalue("compressed_log_folder"))
    yield files
    await files.aclose()


async def test_every_origin_says_the_truth(
    source: LogSource, corpus: Corpus, countries: Countries
) -> None:
    for span in awkward_spans(corpus):
        assert await read(source, span, countries) == truth(corpus, span)


async def test_no_origin_sees_a_gap_where_there_is_none(
    source: LogSource, countries: Countries
) -> None:
    answer = await source.read(SPAN, STREAMS, countries, now_ns=NOW_NS, deadline=None)

    for outcome in answer.values():
        # What is broken in the corpus is a doubt, and the only one.
        assert isinstance(outcome, Partial)
        assert not outcome.gaps
        assert "could not be understood" in outcome.notes[0]


async def test_ranges_that_meet_add_up(
    source: LogSource, corpus: Corpus, countries: Countries
) -> None:
    whole = await read(source, SPAN, countries)
    for last_ns in awkward_instants(corpus):
        # [a, b] and [b + 1 ns, c], with both ends in.
        early = await read(source, Span(SPAN.start_ns, last_ns + 1), countries)
        late = await read(source, Span(last_ns + 1, SPAN.stop_ns), countries)
        assert {stream: added(early[stream], late[stream]) for stream in STREAMS} == whole


async def test_months_written_to_their_last_second_add_up(
    source: LogSource, corpus: Corpus, countries: Countries
) -> None:
    written = [
        ("2026-02-01T00:00:00Z", "2026-02-28T23:59:59Z"),
        ("2026-03-01T00:00:00Z", "2026-03-31T23:59:59Z"),
        ("2026-02-01T00:00:00Z", "2026-03-31T23:59:59Z"),
    ]
    spans = [report_range(start, end, NOW_NS).span for start, end in written]
    february, march, both = [await read(source, span, countries) for span in spans]

    assert {stream: added(february[stream], march[stream]) for stream in STREAMS} == both
    assert both == truth(corpus, SPAN)
    assert all(february[stream].lines_seen and march[stream].lines_seen for stream in STREAMS)


async def test_a_file_beside_its_rotated_copy_counts_once(
    log_folder: Path,
    compressed_log_folder: Path,
    tmp_path: Path,
    corpus: Corpus,
    countries: Countries,
) -> None:
    for folder in (log_folder, compressed_log_folder):
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert await read(log_files(tmp_path), SPAN, countries) == truth(corpus, SPAN)


async def test_the_shipped_sample_reads_as_it_was_written(countries: Countries) -> None:
    corpus = sample.sample()
    answer = await log_files(sample.FOLDER).read(
        sample.SPAN, STREAMS, countries, now_ns=sample.SPAN.stop_ns, deadline=None
    )

    for stream, outcome in answer.items():
        assert facts(outcome) == corpus.truth(stream, sample.SPAN, roster=True)
    executions, exposed = answer[LogStream.EXECUTIONS], answer[LogStream.EXPOSED]
    assert isinstance(executions, Partial)
    assert isinstance(exposed, Partial)
    assert executions.gaps == (Gap(span=sample.OUTAGE, reason=GapReason.NO_LINES),)
    assert not exposed.gaps


def log_files(folder: Path) -> LogFiles:
    settings = LogFilesSettings(pattern=f"{folder}/*.log*", ingress_host=platform.BASE_HOST)
    return LogFiles(settings, telemetry=Telemetry())


async def read(source: LogSource, span: Span, countries: Countries) -> dict[LogStream, CallLog]:
    """What the source counted; it has to have counted something."""
    answer = await source.read(span, STREAMS, countries, now_ns=NOW_NS, deadline=None)
    assert answer.keys() == STREAMS
    return {stream: facts(outcome) for stream, outcome in answer.items()}


def facts(outcome: Outcome[CallLog]) -> CallLog:
    assert isinstance(outcome, Ok | Partial), outcome
    return outcome.facts


def truth(corpus: Corpus, span: Span, *, country_labels: bool = False) -> dict[LogStream, CallLog]:
    return {
        stream: corpus.truth(stream, span, roster=True, country_labels=country_labels)
        for stream in STREAMS
    }


def added(early: CallLog, late: CallLog) -> CallLog:
    return CallLog(
        tallies=early.tallies + late.tallies,
        lines_seen=early.lines_seen + late.lines_seen,
        lines_understood=early.lines_understood + late.lines_understood,
    )


def awkward_instants(corpus: Corpus) -> list[int]:
    """Instants at which something happens, of the kinds that are easily got wrong."""
    calls = sorted(entry.time_ns for entry in corpus.entries if entry.call)
    inside = [time for time in calls if SPAN.start_ns < time < SPAN.stop_ns - 1]
    kinds = (
        # Several at once.
        (time for time, next_ns in itertools.pairwise(inside) if time == next_ns),
        # On a quarter-hour, its last and its first nanosecond after.
        (time for time in inside if time % SLOT_NS == 0),
        (time for time in inside if time % SLOT_NS == SLOT_NS - 1),
        (time for time in inside if time % SLOT_NS == 1),
        # On a full hour, where engines split.
        (time - 1 for time in inside if time % HOUR_NS == 0),
        # A fraction of a millisecond.
        (time for time in inside if time % 1_000_000 not in {0, 1, 999_999}),
    )
    return [next(kind) for kind in kinds]


def awkward_spans(corpus: Corpus) -> list[Span]:
    """The whole, and stretches that begin and end at such instants, a single one among them."""
    instants = awkward_instants(corpus)
    meeting = [Span(*sorted(pair)) for pair in itertools.pairwise(instants)]
    return [SPAN, *meeting, Span(instants[0], instants[0] + 1)]
