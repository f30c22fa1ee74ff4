"""What Loki was sent twice counts once: after a collector's restart, or in shards of a stream."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import reduce
from itertools import pairwise
from operator import add

import pytest

from oscar_metrics.facts import LogStream, Tallies
from oscar_metrics.outcome import Ok, Partial
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.timerange import SECOND_NS
from tests.servers.build import require
from tests.servers.loki import Loki
from tests.sources.loki_streams import COUNTRIES, facts, total
from tests.sources.sent_twice import (
    CALLS,
    PODS,
    Sent,
    held,
    in_blocks,
    in_shards,
    of_another_country,
    written_out_between,
)


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
    sent.be_written_out(CALLS if send is in_blocks else CALLS * 5 // 2)
    await assert_counted_once(sent)


async def assert_counted_once(sent: Sent) -> None:
    """Every way to read them, in one piece and cut where questions begin and lines lie."""
    streams, span = sent.streams, sent.span
    hour_ns = sent.hour_ns
    cuts = [span.start_ns, span.start_ns + 1200 * SECOND_NS, hour_ns, hour_ns + 1, span.stop_ns]
    whole = await streams.read(span.start_ns, span.stop_ns)
    assert total(whole) == CALLS
    assert len({key.country for key in facts(whole).tallies}) == 1
    by_user = Counter(key.user for key in facts(whole).tallies.elements())
    assert by_user == sent.calls_by_user()
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
