"""One traffic, read through every origin: each says the same, and it is the truth."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from oscar_metrics.facts import CallLog, Kind, LogStream, ServiceCount
from oscar_metrics.outcome import Gap, GapReason, Ok, Outcome, Partial
from oscar_metrics.sources.countries import Countries
from oscar_metrics.sources.kubernetes_client import KubernetesClient, KubernetesSettings
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.loki_api import LokiSettings
from oscar_metrics.sources.pod_logs import PodLogs, PodLogsSettings
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, SLOT_NS, Span, parse_instant, report_range
from tests.corpus import Corpus, platform, sample
from tests.e2e.conftest import NOW_NS, SPAN
from tests.servers.loki import Loki

STREAMS = frozenset(LogStream)
ORIGINS = ("log-files", "compressed-log-files", "loki", "pod-logs")


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
    match request.param:
        case "loki":
            loki = loki_logs(request.getfixturevalue("loki"))
            yield loki
            await loki.aclose()
        case "pod-logs":
            cluster = request.getfixturevalue("cluster")
            config = str(cluster.kubeconfig(cluster.user_token))
            client = KubernetesClient(KubernetesSettings(config=config), Telemetry())
            yield PodLogs(client, PodLogsSettings(ingress_host=platform.BASE_HOST))
            await client.aclose()
        case "log-files":
            yield log_files(request.getfixturevalue("log_folder"))
        case _:
            yield log_files(request.getfixturevalue("compressed_log_folder"))


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


async def test_what_a_pipeline_knows_of_countries_is_believed(
    loki_with_countries: Loki, corpus: Corpus, countries: Countries
) -> None:
    logs = loki_logs(loki_with_countries)
    try:
        assert await read(logs, SPAN, countries) == truth(corpus, SPAN, country_labels=True)
    finally:
        await logs.aclose()


@pytest.mark.parametrize(
    ("last", "start"),
    [
        pytest.param("06:00:00", "05:00:00", id="where Loki splits a question"),
        pytest.param("06:10:00", "06:10:00", id="where the range begins"),
        pytest.param("06:20:00.123", "06:20:00.123", id="on a millisecond"),
    ],
)
async def test_the_last_line_of_a_chunk_is_not_lost(
    loki: Loki, countries: Countries, last: str, start: str
) -> None:
    """Loki leaves out a chunk that ends at the very millisecond a question begins.

    Where it cuts a question itself, at full hours, there is such a beginning too, and no log
    query hands out the chunk's last line then; metric queries count it.
    """
    last_ns, start_ns = (parse_instant(f"2026-01-05T{clock}Z") for clock in (last, start))
    app = f"edge-{last_ns}"
    lines = [
        (at_ns, f"[GIN-EXECUTIONS-LOGGER] x | 200 | 1ms | 10.0.0.1 | POST /run/{at_ns} | u")
        for at_ns in (last_ns - 30 * SECOND_NS, last_ns)
    ]
    loki.push([({"namespace": "edge", "app": app}, lines)])
    loki.flush_and_wait(f'{{app="{app}"}}', last_ns - HOUR_NS, last_ns + HOUR_NS, len(lines))
    settings = LokiSettings(url=loki.url, namespace="edge", app=app)
    logs = LokiLogs(settings, telemetry=Telemetry())
    span = Span(start_ns, last_ns + HOUR_NS)
    try:
        executions = frozenset({LogStream.EXECUTIONS})
        answer = await logs.read(span, executions, countries, now_ns=NOW_NS, deadline=None)
    finally:
        await logs.aclose()

    counted = facts(answer[LogStream.EXECUTIONS]).tallies
    assert {key.service for key in counted} == {str(at) for at, _ in lines if at in span}


@pytest.mark.parametrize("users", [True, False])
async def test_a_service_counted_by_itself_is_the_truth(
    loki: Loki, corpus: Corpus, users: bool
) -> None:
    logs = loki_logs(loki)
    # One in two namespaces, two that look like parts of paths, and scanners' prey.
    asked = [(service, SPAN) for service in ("cowsay", "exposed", "job", ".env")]
    asked += [("cowsay", span) for span in awkward_spans(corpus)[1:]]
    try:
        for service, span in asked:
            for stream in LogStream:
                outcome = await logs.count_service(
                    span, stream, service, users=users, now_ns=NOW_NS, deadline=None
                )
                assert isinstance(outcome, Ok | Partial)
                expected = service_count(corpus, span, stream, service)
                assert {k: n for k, n in outcome.facts.calls.items() if n} == expected.calls
                assert outcome.facts.users == (expected.users if users else frozenset())
    finally:
        await logs.aclose()


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
    return LogFiles(settings)


def loki_logs(loki: Loki) -> LokiLogs:
    settings = LokiSettings(url=loki.url, ingress_host=platform.BASE_HOST)
    return LokiLogs(settings, telemetry=Telemetry())


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


def service_count(corpus: Corpus, span: Span, stream: LogStream, service: str) -> ServiceCount:
    calls: Counter[Kind] = Counter()
    users = set()
    for key, count in corpus.truth(stream, span).tallies.items():
        if key.service == service:
            calls[key.kind] += count
            users.add(key.user)
    return ServiceCount(calls=dict(calls), users=frozenset(users))


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
