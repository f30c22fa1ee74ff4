"""What pod logs say by parts of quarter-hours, through a real Kubernetes API."""

from __future__ import annotations

from oscar_metrics.facts import LogStream, SlotPart
from oscar_metrics.outcome import Ok, Partial
from oscar_metrics.timerange import SLOT_NS, Span
from tests.servers.kubernetes import KubeCluster
from tests.sources.test_pod_logs import (
    EXECUTIONS,
    NOW_NS,
    SPAN,
    T_NS,
    calls,
    cluster,
    execution,
    logs_of,
    manager,
    namespace,
    nowhere,
    read,
)

# Fixtures that are used here too.
__all__ = ["cluster", "namespace"]

SLOT = T_NS // SLOT_NS


async def test_each_line_is_in_its_part_and_the_parts_are_what_the_span_has(
    cluster: KubeCluster,
    namespace: str,
) -> None:
    slot_ns = T_NS + SLOT_NS
    instants = [T_NS - 1, T_NS, slot_ns - 1, slot_ns, slot_ns + 1, slot_ns + 2, SPAN.stop_ns]
    lines = [execution(at_ns, f"s{number}") for number, at_ns in enumerate(instants)]
    manager(cluster, namespace, lines)
    whole = await read(cluster, namespace)
    async with logs_of(cluster, namespace) as logs:
        outcomes = await logs.read_slots(SPAN, EXECUTIONS, nowhere(), now_ns=NOW_NS, deadline=None)
        assert await logs.kept_from(NOW_NS, None) is None
    parts = outcomes[LogStream.EXECUTIONS]
    assert isinstance(parts, Ok | Partial)
    assert isinstance(whole, Ok | Partial)
    found = {part: {key.service for key in log.tallies} for part, log in parts.facts.items()}
    assert found == {
        SlotPart(SLOT, first=True): {"s1"},
        SlotPart(SLOT, first=False): {"s2"},
        SlotPart(SLOT + 1, first=True): {"s3"},
        SlotPart(SLOT + 1, first=False): {"s4", "s5"},
    }
    assert set().union(*found.values()) == calls(whole).keys()
    assert isinstance(parts, Ok) == isinstance(whole, Ok)
    assert (parts.notes, parts.origin) == (whole.notes, whole.origin)


async def test_lines_that_are_not_understood_are_in_doubt(
    cluster: KubeCluster,
    namespace: str,
) -> None:
    odd = execution(T_NS + 5).replace(" | 200 | ", " | odd | ")
    manager(cluster, namespace, [execution(T_NS + 4), odd])
    whole = await read(cluster, namespace)
    async with logs_of(cluster, namespace) as logs:
        span = Span(T_NS, T_NS + SLOT_NS)
        outcomes = await logs.read_slots(span, EXECUTIONS, nowhere(), now_ns=NOW_NS, deadline=None)
    parts = outcomes[LogStream.EXECUTIONS]
    assert isinstance(parts, Partial)
    assert isinstance(whole, Partial)
    assert parts.doubts == whole.doubts
    (log,) = parts.facts.values()
    assert (log.lines_seen, log.lines_understood) == (2, 1)
