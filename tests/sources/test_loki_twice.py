"""What Loki was sent twice counts once: after a collector's restart, or in shards of a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import reduce
from itertools import pairwise
from operator import add

import httpx
import pytest

from oscar_metrics.facts import LogStream, Tallies
from oscar_metrics.outcome import Ok, Partial
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, Span
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.servers.process import wait_until
from tests.sources.loki_streams import COUNTRIES, Streams, call, facts, total

PODS = ("a", "b")
# When heaps of calls lie at one nanosecond, in seconds of fifty minutes that an hour begins in;
# two pods write all of them alike. Loki takes nothing an hour older than what it has.
HEAPS_SECONDS = (*range(0, 1800, 60), *range(1800, 3000, 400))
HEAP = 9
LINES = len(HEAPS_SECONDS) * HEAP
CALLS = len(PODS) * LINES
# Enough for what Loki holds of a stream to be in several blocks.
_NOISE = [(n * 5 * SECOND_NS + 1, f"noise {n} " + "n" * 1000) for n in range(600)]


def written(start_ns: int) -> list[tuple[int, str]]:
    return [
        (start_ns + after * SECOND_NS, call(f"u{n % 4}", kind=("run", "job")[n % 2], note=f"{n}"))
        for after in HEAPS_SECONDS
        for n in range(HEAP)
    ]


class Sent:
    """Two pods' calls over two hours, as a collector sends them, and sends them again."""

    def __init__(self, loki: Loki, *, days_ago: int = 0) -> None:
        self.streams = Streams(loki, page_lines=25, instant_lines=25)
        self.hour_ns = self.streams.now_ns // HOUR_NS * HOUR_NS - days_ago * DAY_NS - HOUR_NS
        self.start_ns = self.hour_ns - HOUR_NS // 2
        self.span = Span(self.start_ns, self.start_ns + HOUR_NS)
        self.entries = written(self.start_ns)
        self.noise = [(self.start_ns + after_ns, line) for after_ns, line in _NOISE]

    def send(self, entries: list[tuple[int, str]], **labels: str) -> None:
        for pod in PODS:
            self.streams.write(entries, pod=pod, **labels)

    def write_out(self) -> None:
        url = f"{self.streams.loki.url}/flush"
        httpx.post(url, trust_env=False).raise_for_status()

    def counted_by_loki(self) -> int:
        query = f'{{namespace="{self.streams.namespace}"}} |~ "/(job|run)/"'
        return self.streams.loki.count(query, self.span.start_ns, self.span.stop_ns)


def held(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.send(sent.entries)


def in_blocks(sent: Sent) -> None:
    sent.send(sent.entries + sent.noise)
    sent.send(sent.entries + sent.noise)


def in_shards(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.send(sent.entries, __stream_shard__="0")
    sent.send(sent.entries[::2], __stream_shard__="1")


def of_another_country(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.send(sent.entries, geoip_country_code="ES")
    sent.send(sent.entries[::2], geoip_country_code="PT")


def written_out_between(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.write_out()
    sent.send(sent.entries + sent.noise)


@pytest.fixture(scope="module", params=["1h", "30m"])
def loki(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loki]:
    require("loki")
    limits = {"split_queries_by_interval": request.param}
    with Loki.start(tmp_path_factory.mktemp("loki"), limits=limits) as server:
        yield server


@pytest.mark.parametrize(
    "send", [held, in_blocks, in_shards, of_another_country, written_out_between]
)
async def test_what_was_sent_twice_of_late_counts_once(
    loki: Loki, send: Callable[[Sent], None]
) -> None:
    sent = Sent(loki)
    send(sent)
    if send in (in_blocks, in_shards, of_another_country):
        assert sent.counted_by_loki() > CALLS, "what Loki counts itself is of no use here"
    await assert_counted_once(sent)


@pytest.mark.parametrize("send", [in_blocks, in_shards])
async def test_what_was_sent_twice_long_ago_counts_once(
    loki: Loki, send: Callable[[Sent], None]
) -> None:
    sent = Sent(loki, days_ago=2)
    send(sent)
    sent.write_out()
    least = CALLS if send is in_blocks else CALLS * 5 // 2
    wait_until(lambda: sent.counted_by_loki() >= least, "loki shows the lines", timeout_seconds=60)
    await assert_counted_once(sent)


async def assert_counted_once(sent: Sent) -> None:
    """Every way to read them, in one piece and cut where questions begin and lines lie."""
    streams, span = sent.streams, sent.span
    hour_ns = sent.hour_ns
    cuts = [span.start_ns, span.start_ns + 1200 * SECOND_NS, hour_ns, hour_ns + 1, span.stop_ns]
    whole = await streams.read(span.start_ns, span.stop_ns)
    assert total(whole) == CALLS
    assert len({key.country for key in facts(whole).tallies}) == 1
    assert Counter(key.user for key in facts(whole).tallies.elements()) == {
        f"u{n}": len(PODS) * sum(f"| u{n}" in line for _, line in sent.entries) for n in range(4)
    }
    parts = [facts(await streams.read(*ends)).tallies for ends in pairwise(cuts)]
    assert reduce(add, parts) == facts(whole).tallies
    assert reduce(add, await slots(sent)) == facts(whole).tallies
    for begin_ns, end_ns in [*pairwise(cuts), (span.start_ns, span.stop_ns)]:
        inside = [at_ns for at_ns, _ in sent.entries if begin_ns <= at_ns < end_ns]
        counted = await streams.count(begin_ns, end_ns, "cowsay")
        assert isinstance(counted, Ok | Partial), counted
        assert sum(counted.facts.calls.values()) == len(PODS) * len(inside)


async def slots(sent: Sent) -> list[Tallies]:
    logs = LokiLogs(sent.streams.settings, telemetry=sent.streams.telemetry)
    executions = frozenset({LogStream.EXECUTIONS})
    try:
        outcomes = await logs.read_slots(
            sent.span, executions, COUNTRIES, now_ns=sent.streams.now_ns, deadline=None
        )
    finally:
        await logs.aclose()
    slotted = outcomes[LogStream.EXECUTIONS]
    assert isinstance(slotted, Ok | Partial), slotted
    return [log.tallies for log in slotted.facts.values()]
