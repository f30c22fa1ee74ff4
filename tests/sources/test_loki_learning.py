"""Limits of a real Loki that are met once, kept to by later reports, and not for ever."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from oscar_metrics.facts import CallLog, LogStream
from oscar_metrics.outcome import GapReason, Ok, Outcome, Partial, Unavailable
from oscar_metrics.resilience.learned import FIRST_WAIT_SECONDS
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span, subtract
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.servers.toxiproxy import Toxiproxy
from tests.sources.interposed import Reply, Request, interposed
from tests.sources.learning import Cost, Counted, later
from tests.sources.loki_streams import COUNTRIES, Streams, call, total

# Past what the limits are asked again after, by the clock that sources are handed.
_LATER_NS = 601 * SECOND_NS


class Limited:
    """A Loki with limits that it does not tell, and that can be changed."""

    def __init__(self, directory: Path, server: Loki) -> None:
        self.server = server
        self._config = directory / "loki.json"

    def change(self, **limits: object) -> None:
        """Other limits from now on."""
        config = json.loads(self._config.read_text())
        config["limits_config"] |= limits
        self._config.write_text(json.dumps(config))
        self.server.restart()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    require("loki")
    directory = tmp_path_factory.mktemp("loki")
    with Loki.start(directory) as server:
        yield Limited(directory, server)


@contextmanager
def limits(limited: Limited, **few: object) -> Iterator[None]:
    limited.change(**few)
    yield
    plenty: dict[str, object] = {
        "max_query_length": "30d",
        "max_entries_limit_per_query": 5000,
        "max_query_series": 500,
        "max_query_bytes_read": "0B",
    }
    limited.change(**{name: plenty[name] for name in few})


@asynccontextmanager
async def source(streams: Streams) -> AsyncIterator[LokiLogs]:
    """One source for several reports, of a Loki that tells no limits."""

    def tells_none(request: Request) -> Reply | None:
        return Reply(status=404) if "limits" in request.path else None

    async with interposed(streams.loki.url, tells_none) as url:
        logs = LokiLogs(streams.at(url).settings, telemetry=streams.telemetry)
        try:
            yield logs
        finally:
            await logs.aclose()


class Reports:
    """Reports of one source over some hours, one after the other."""

    def __init__(self, logs: LokiLogs, streams: Streams, span: Span) -> None:
        self.now_ns = streams.now_ns
        self._logs = logs
        self._span = span
        self._counted = Counted(streams.telemetry)

    async def read(self) -> tuple[Outcome[CallLog], Cost]:
        async def read() -> Outcome[CallLog]:
            executions = frozenset({LogStream.EXECUTIONS})
            outcomes = await self._logs.read(
                self._span, executions, COUNTRIES, now_ns=self.now_ns, deadline=None
            )
            return outcomes[LogStream.EXECUTIONS]

        return await self._counted.of(read)


HOURS = 8
USERS_AN_HOUR = 4
LINES = HOURS * 360


@pytest.fixture(scope="module")
def hours(limited: Limited) -> tuple[Streams, Span]:
    """A line every ten seconds for eight hours, of four other users in each."""
    streams = Streams(limited.server)
    start_ns = streams.slot_ns // HOUR_NS * HOUR_NS - 30 * HOUR_NS
    span = Span(start_ns, start_ns + HOURS * HOUR_NS)
    streams.write(
        [
            # Off whole milliseconds, as Go's clock has it.
            (start_ns + n * 10 * SECOND_NS + 123_457, call(f"u{n // 360}-{n % USERS_AN_HOUR}"))
            for n in range(LINES)
        ]
    )
    streams.flush(span.start_ns, span.stop_ns, LINES)
    return streams, span


@pytest.mark.parametrize(
    "few",
    [{"max_query_length": "10m"}, {"max_entries_limit_per_query": 50}],
    ids=lambda few: next(iter(few)),
)
async def test_lines_are_read_within_what_was_learned_until_more_is_allowed(
    limited: Limited, hours: tuple[Streams, Span], few: dict[str, object]
) -> None:
    streams, span = hours
    async with source(streams) as logs:
        reports = Reports(logs, streams, span)
        with limits(limited, **few):
            said = [await reports.read() for _ in range(2)]
        # Nobody notices at once that more is allowed.
        said.append(await reports.read())
        reports.now_ns += _LATER_NS
        with later(FIRST_WAIT_SECONDS):
            said += [await reports.read() for _ in range(2)]
    assert [total(outcome) for outcome, _ in said] == [LINES] * 5
    assert all(isinstance(outcome, Ok) for outcome, _ in said), said
    first, second, third, _, last = [cost for _, cost in said]
    assert first.too_much > second.too_much == 0
    assert second.asked < first.asked
    assert third.asked == second.asked
    assert last.too_much == 0
    assert last.asked < second.asked / 2


async def test_pages_that_are_too_large_for_us_are_smaller_from_then_on(limited: Limited) -> None:
    streams = Streams(limited.server, limits=UpstreamLimits(attempts=1, body_bytes=2**16))
    span = Span(streams.slot_ns - 2 * HOUR_NS, streams.slot_ns + HOUR_NS)
    times = range(span.start_ns, span.stop_ns, 10 * SECOND_NS)
    streams.write([(at_ns + 123_457, call(note="1" * 400)) for at_ns in times])
    streams.flush(span.start_ns, span.stop_ns, len(times))
    async with source(streams) as logs:
        reports = Reports(logs, streams, span)
        said = [await reports.read() for _ in range(2)]
    assert [total(outcome) for outcome, _ in said] == [len(times)] * 2
    first, second = [cost for _, cost in said]
    assert first.too_much > second.too_much == 0
    assert second.asked < first.asked


async def test_at_a_deadline_the_sum_is_of_the_stretches_that_are_not_gaps(
    limited: Limited, hours: tuple[Streams, Span], tmp_path: Path
) -> None:
    require("toxiproxy")
    streams, span = hours
    times = [span.start_ns + n * 10 * SECOND_NS + 123_457 for n in range(LINES)]
    covered_seconds = set()
    with Toxiproxy.start(tmp_path) as toxiproxy:
        proxy = toxiproxy.proxy("loki", limited.server.url)
        with proxy.toxic("latency", latency=100, jitter=20):
            for tenths in range(3, 60):
                outcome = await streams.at(proxy.url).read(
                    span.start_ns, span.stop_ns, seconds=tenths / 10
                )
                if isinstance(outcome, Unavailable):
                    continue
                gaps = outcome.gaps if isinstance(outcome, Partial) else ()
                assert {gap.reason for gap in gaps} <= {GapReason.DEADLINE}
                covered = subtract(span, [gap.span for gap in gaps])
                known = sum(any(at in stretch for stretch in covered) for at in times)
                assert total(outcome) == known
                covered_seconds.add(sum(each.length_ns for each in covered) // SECOND_NS)
                if isinstance(outcome, Ok):
                    break
    assert any(0 < seconds < HOURS * 3600 for seconds in covered_seconds), covered_seconds
    assert max(covered_seconds) == HOURS * 3600
