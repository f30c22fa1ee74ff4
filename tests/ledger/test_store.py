"""What every engine of the ledger does, by example; properties are in test_store_properties.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from oscar_metrics.errors import LedgerError, TooManyRows
from oscar_metrics.facts import (
    CountryFrom,
    Kind,
    LogStream,
    Result,
    ServiceKey,
    SlotPart,
    Usage,
)
from oscar_metrics.findings import Level
from oscar_metrics.ledger.seals import Candidate, Judged, SealKind, Verdict
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap, GapReason, Measure
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span
from tests.ledger.stores import (
    FIRST,
    NOW_NS,
    ROWS_MAX,
    Opened,
    deployed,
    executions,
    hour_of_calls,
    hours,
    key,
    roll_up_all,
    slotted,
    total,
    used,
)

HOUR = hours(FIRST)


async def verdict(store: LedgerStore, candidate: Candidate, now_ns: int = NOW_NS) -> Verdict:
    (judged,) = await store.seal([candidate], now_ns=now_ns)
    assert (judged.kind, judged.hour) == (candidate.kind, candidate.hour)
    return judged.verdict


def gap(start: int, quarters: int, reason: GapReason = GapReason.FAILED) -> Gap:
    """A gap of quarter-hours of the first hour."""
    start_ns = HOUR.start_ns + start * SLOT_NS
    return Gap(span=Span(start_ns, start_ns + quarters * SLOT_NS), reason=reason)


ONE = slotted({(SlotPart(FIRST * 4, first=False), key()): 1})
TWO = slotted({(SlotPart(FIRST * 4, first=False), key()): 2})
ABROAD = slotted({(SlotPart(FIRST * 4, first=False), key(country="FR")): 1})
ANOTHER = slotted({(SlotPart(FIRST * 4, first=True), key()): 1})
ONE_AND_ANOTHER = ONE | ANOTHER
DOUBTFUL = {"doubts": ("the log was read twice",)}


@pytest.mark.parametrize(
    ("sealed", "told", "expected"),
    [
        (executions(FIRST, ONE), executions(FIRST, ONE), Verdict.SAME),
        (executions(FIRST, ONE), executions(FIRST, TWO), Verdict.REVISED),
        (executions(FIRST, TWO), executions(FIRST, ONE), Verdict.KEPT),
        (executions(FIRST, ONE), executions(FIRST, ANOTHER), Verdict.AMBIGUOUS),
        (executions(FIRST, ONE), executions(FIRST, ONE_AND_ANOTHER), Verdict.REVISED),
        (executions(FIRST, TWO), executions(FIRST, ONE_AND_ANOTHER), Verdict.AMBIGUOUS),
        # Country is fixed when sealed, and a newer database of them is no new evidence.
        (executions(FIRST, ONE), executions(FIRST, ABROAD), Verdict.SAME),
        # Another origin that says the same is no reason to write anything.
        (executions(FIRST, ONE), executions(FIRST, ONE, origin="pod-logs"), Verdict.SAME),
        # The same calls, but more or less of the hour is known.
        (executions(FIRST, {}, gaps=(gap(0, 4),)), executions(FIRST, {}), Verdict.REVISED),
        (executions(FIRST, {}), executions(FIRST, {}, gaps=(gap(0, 4),)), Verdict.KEPT),
        (executions(FIRST, {}), executions(FIRST, ONE, gaps=(gap(1, 1),)), Verdict.REVISED),
        (executions(FIRST, ONE, **DOUBTFUL), executions(FIRST, ONE), Verdict.REVISED),
        (executions(FIRST, ONE), executions(FIRST, ONE, **DOUBTFUL), Verdict.KEPT),
        # Usage: sources round, so a millisecond is no difference.
        (used(FIRST, [{"a": 1.0}] * 4), used(FIRST, [{"a": 1.0009}] * 4), Verdict.SAME),
        (used(FIRST, [{"a": 1.0}] * 4), used(FIRST, [{"a": 1.002}] * 4), Verdict.REVISED),
        (used(FIRST, [{"a": 1.0}] * 4), used(FIRST, [{"b": 1.0}] * 4), Verdict.REVISED),
        (used(FIRST, [{"a": 1.0}] * 4), used(FIRST, [{"a": 0.5}] * 4), Verdict.REVISED),
        (used(FIRST, [{"a": 1.0}] * 4), used(FIRST, [{"a": 4.0}]), Verdict.SAME),
        (used(FIRST, [{"a": 4.0}]), used(FIRST, [{"a": 2.0}] * 4), Verdict.REVISED),
        # What measures more, or less.
        (used(FIRST, [{}] * 4), used(FIRST, [{}] * 4, {"a": 1.0}), Verdict.REVISED),
        (used(FIRST, [{}] * 4, {}), used(FIRST, [{}] * 4), Verdict.KEPT),
        (used(FIRST, [{}, None, {}, {}]), used(FIRST, [{}] * 4), Verdict.REVISED),
        (used(FIRST, [{}, None, {}, {}]), used(FIRST, [{}, {}, None, {}]), Verdict.AMBIGUOUS),
        (used(FIRST, [{"a": 1.0}], gaps=(gap(0, 1),)), used(FIRST, [{"a": 0.5}]), Verdict.REVISED),
        (used(FIRST, [{"a": 1.0}]), used(FIRST, [{"a": 2.0}], gaps=(gap(0, 1),)), Verdict.KEPT),
    ],
)
async def test_a_candidate_replaces_a_seal_only_where_it_has_seen_more(
    store: LedgerStore, sealed: Candidate, told: Candidate, expected: Verdict
) -> None:
    assert await verdict(store, sealed) is Verdict.SEALED
    assert await verdict(store, told, NOW_NS + 1) is expected
    (head,) = await store.heads(sealed.kind, HOUR)
    assert head.revision == (2 if expected is Verdict.REVISED else 1)
    assert head.sealed_at_ns == (NOW_NS + 1 if expected is Verdict.REVISED else NOW_NS)
    # Judged once more it is no news.
    again = await verdict(store, told, NOW_NS + 2)
    assert again is (Verdict.SAME if expected is Verdict.REVISED else expected)


async def test_every_way_to_a_country_is_kept_apart(store: LedgerStore) -> None:
    part = SlotPart(FIRST * 4, first=False)
    ways = {key()._replace(country_from=how): n for n, how in enumerate(CountryFrom, 1)}
    calls = slotted({(part, one): count for one, count in ways.items()})
    await store.seal([executions(FIRST, calls)], now_ns=NOW_NS)
    by = ("country_from",)
    sums = await store.call_sums(LogStream.EXECUTIONS, [HOUR], [by], rows_max=ROWS_MAX)
    assert sums.by(*by) == {(one.country_from,): count for one, count in ways.items()}
    assert {one.level for one in await store.verify(lambda *_: None)} == {Level.OK}


async def test_a_clock_before_the_seal_is_refused(store: LedgerStore) -> None:
    await store.seal([executions(FIRST, ONE)], now_ns=NOW_NS)
    assert await verdict(store, executions(FIRST, TWO), NOW_NS - 1) is Verdict.REFUSED
    assert await total(store, HOUR) == 1


async def test_a_verdict_tells_the_lines_both_had_seen(store: LedgerStore) -> None:
    await store.seal([executions(FIRST, hour_of_calls(FIRST, 3))], now_ns=NOW_NS)
    told = slotted({(SlotPart(FIRST * 4 + 1, first=False), key()): 5}, unread=2)
    (judged,) = await store.seal([executions(FIRST, told)], now_ns=NOW_NS)
    assert judged == Judged(
        kind=SealKind.EXECUTIONS,
        hour=FIRST,
        verdict=Verdict.REVISED,
        lines_seen=7,
        sealed_lines_seen=3,
    )


async def test_looks_are_noted_where_nothing_changed(store: LedgerStore) -> None:
    later_ns = NOW_NS + HOUR_NS
    await store.seal([executions(FIRST, TWO, next_look_ns=later_ns)], now_ns=NOW_NS)
    (head,) = await store.heads(SealKind.EXECUTIONS, HOUR)
    assert (head.looks, head.next_look_ns) == (1, later_ns)
    for looks, calls in ((2, TWO), (3, ONE), (4, ANOTHER)):
        candidate = executions(FIRST, calls, looks=looks, next_look_ns=later_ns + looks)
        await store.seal([candidate], now_ns=NOW_NS)
        (head,) = await store.heads(SealKind.EXECUTIONS, HOUR)
        assert (head.looks, head.next_look_ns) == (looks, later_ns + looks)
    await store.seal([executions(FIRST, TWO, looks=5)], now_ns=NOW_NS)
    (head,) = await store.heads(SealKind.EXECUTIONS, HOUR)
    assert (head.looks, head.next_look_ns, head.revision) == (5, None, 1)


async def test_either_all_candidates_are_written_or_none(store: LedgerStore) -> None:
    with pytest.raises(ValueError, match="two candidates"):
        await store.seal(
            [executions(FIRST + 1), executions(FIRST, ONE), executions(FIRST, TWO)], now_ns=NOW_NS
        )
    assert await store.heads(SealKind.EXECUTIONS, hours(FIRST, 2)) == []
    assert await store.seal([], now_ns=NOW_NS) == []


async def test_alike_neighbours_are_one_stretch(store: LedgerStore) -> None:
    def at(number: int, **fields: object) -> Candidate:
        return executions(FIRST + number, hour_of_calls(FIRST + number), **fields)

    await store.seal([at(0), at(1), at(2, next_look_ns=NOW_NS)], now_ns=NOW_NS)
    await store.seal([at(4, origin="pod-logs"), at(5, notes=("late",))], now_ns=NOW_NS + 5)
    doubtful = at(6, doubts=("gpu",), measures=frozenset({Measure.GPU}))
    await store.seal([doubtful, at(7)], now_ns=NOW_NS + 6)
    await store.seal([at(8)], now_ns=NOW_NS + 7)
    found = await store.sealed(SealKind.EXECUTIONS, hours(FIRST, 9))
    assert [stretch.span for stretch in found.stretches] == [
        hours(FIRST + first, count)
        for first, count in ((0, 2), (2, 1), (4, 1), (5, 1), (6, 1), (7, 2))
    ]
    first, provisional, other, noted, doubted, last = found.stretches
    assert (first.final, first.whole, first.quarters) == (True, True, 1)
    assert (first.lines_seen, first.lines_understood) == (6, 6)
    assert not provisional.final
    assert other.origin == "pod-logs"
    assert noted.notes == ("late",)
    assert (doubted.doubts, doubted.measures) == (("gpu",), frozenset({Measure.GPU}))
    assert (last.first_sealed_at_ns, last.last_sealed_at_ns) == (NOW_NS + 6, NOW_NS + 7)
    # Hours that a span touches count whole.
    inside = Span(HOUR.start_ns + 1, HOUR.start_ns + 2)
    (touched,) = (await store.sealed(SealKind.EXECUTIONS, inside)).stretches
    assert touched.span == HOUR


async def test_gaps_come_with_the_stretches(store: LedgerStore) -> None:
    gaps = (gap(0, 1, GapReason.NO_LINES), gap(3, 1))
    await store.seal([executions(FIRST, ONE, gaps=gaps)], now_ns=NOW_NS)
    found = await store.sealed(SealKind.EXECUTIONS, HOUR)
    assert found.gaps == gaps
    assert not found.stretches[0].whole
    (head,) = await store.heads(SealKind.EXECUTIONS, HOUR)
    assert head.missing_ns == 2 * SLOT_NS
    assert (await store.sealed(SealKind.EXPOSED, HOUR)).stretches == ()


async def test_what_was_known_at_an_instant_stays(store: LedgerStore) -> None:
    await store.seal([executions(FIRST, {}, gaps=(gap(0, 4),))], now_ns=NOW_NS)
    await store.seal([executions(FIRST, TWO)], now_ns=NOW_NS + 10)
    for as_of_ns, calls, gaps in ((NOW_NS, 0, 1), (NOW_NS + 9, 0, 1), (NOW_NS + 10, 2, 0)):
        assert await total(store, HOUR, as_of_ns=as_of_ns) == calls
        then = await store.sealed(SealKind.EXECUTIONS, HOUR, as_of_ns=as_of_ns)
        assert len(then.gaps) == gaps
    assert (await store.sealed(SealKind.EXECUTIONS, HOUR, as_of_ns=NOW_NS - 1)).stretches == ()


async def test_what_was_restated_since_is_listed(store: LedgerStore) -> None:
    usage = used(FIRST, [{"a": 900.0}] * 4, {"a": 7200.0})
    await store.seal([executions(FIRST, ONE), executions(FIRST + 1), usage], now_ns=NOW_NS)
    await store.seal([executions(FIRST, TWO), executions(FIRST + 2)], now_ns=NOW_NS + 10)
    await store.seal([used(FIRST, [{"a": 1800.0}] * 4, {"a": 0.0})], now_ns=NOW_NS + 20)
    kinds, span = list(SealKind), hours(FIRST, 3)
    found = await store.restated(kinds, span, since_ns=NOW_NS + 5, most=10)
    assert [(one.kind, one.was, one.now, one.sealed_at_ns) for one in found] == [
        (SealKind.EXECUTIONS, 1, 2, NOW_NS + 10),
        (SealKind.USAGE, 1, 2, NOW_NS + 20),
    ]
    assert {one.span for one in found} == {HOUR}
    assert await store.restated(kinds, span, since_ns=NOW_NS + 5, most=1) == found[:1]
    assert await store.restated(kinds, hours(FIRST + 1, 2), since_ns=NOW_NS, most=10) == []
    assert await store.restated([SealKind.USAGE], span, since_ns=NOW_NS, most=10) == found[1:]
    assert await store.restated(kinds, span, since_ns=NOW_NS + 20, most=10) == []
    assert await store.restated(kinds, span, since_ns=NOW_NS - 1, most=10) == []


async def test_usage_adds_up_at_every_grain_and_tells_unmeasured_from_none(
    store: LedgerStore,
) -> None:
    day = [
        used(FIRST + hour, [{"a": 0.1, "b": 1.0}] * 4, {"b": 2.0} if hour == 5 else None)
        for hour in range(24)
    ]
    await store.seal(day, now_ns=NOW_NS)
    a, b = ServiceKey("oscar-svc", "a"), ServiceKey("oscar-svc", "b")
    whole = Usage(cpu_seconds={a: 9.6, b: 96.0}, gpu_seconds={b: 8.0})
    for _ in ("from slots", "from the day"):
        assert await store.usage_sums([hours(FIRST, 24)]) == {0: whole}
        await roll_up_all(store)
    half_past = Span(HOUR.start_ns + 2 * SLOT_NS, HOUR.start_ns + 3 * SLOT_NS)
    assert await store.usage_sums([half_past, hours(FIRST + 2)], service="a") == {
        0: Usage(cpu_seconds={a: 0.5}, gpu_seconds=None)
    }
    bounds_ns = [HOUR.start_ns, HOUR.start_ns + 5 * HOUR_NS, HOUR.start_ns + 6 * HOUR_NS]
    assert await store.usage_sums([hours(FIRST, 6)], bounds_ns=bounds_ns) == {
        0: Usage(cpu_seconds={a: 2.0, b: 20.0}, gpu_seconds=None),
        1: Usage(cpu_seconds={a: 0.4, b: 4.0}, gpu_seconds={b: 8.0}),
    }
    assert await store.usage_sums([hours(FIRST + 5)], service="nobody") == {
        0: Usage(cpu_seconds={}, gpu_seconds={})
    }
    assert await store.usage_sums([]) == {}
    await store.seal([used(FIRST, [{"a": 3600.0}])], now_ns=NOW_NS + 1)
    assert (await store.usage_sums([HOUR]))[0].cpu_seconds == {a: 3600.0}
    assert await store.usage_sums([HOUR], as_of_ns=NOW_NS) == {
        0: Usage(cpu_seconds={a: 0.4, b: 4.0}, gpu_seconds=None)
    }


async def test_calls_of_one_name_in_two_namespaces_are_one_service(store: LedgerStore) -> None:
    calls = slotted(
        {
            (SlotPart(FIRST * 4, first=False), key(namespace=namespace, user=user)): 1
            for namespace, user in (("x", "ana"), ("y", "bo"))
        }
    )
    await store.seal([executions(FIRST, calls)], now_ns=NOW_NS)
    by = [("service",), ("service", "namespace"), ("user", "kind", "result")]
    sums = await store.call_sums(LogStream.EXECUTIONS, [HOUR], by, rows_max=2)
    assert sums.groups == {
        ("service",): {("cowsay",): 2},
        ("service", "namespace"): {("cowsay", "x"): 1, ("cowsay", "y"): 1},
        ("user", "kind", "result"): {
            ("ana", Kind.SYNC, Result.OK): 1,
            ("bo", Kind.SYNC, Result.OK): 1,
        },
    }
    exposed = await store.call_sums(LogStream.EXPOSED, [HOUR], by, rows_max=2)
    assert not any(exposed.groups.values())
    with pytest.raises(TooManyRows):
        await store.call_sums(LogStream.EXECUTIONS, [HOUR], by, rows_max=1)


async def test_months_are_rolled_up_and_struck_off(store: LedgerStore) -> None:
    # The last day of January, and all of February.
    span = hours(FIRST, 24 * 29)
    every = [
        executions(hour, hour_of_calls(hour) if hour % 7 == 0 else {})
        for hour in range(FIRST, FIRST + 24 * 29)
    ]
    await store.seal(every, now_ns=NOW_NS)
    before = await total(store, span)
    january = await total(store, hours(FIRST, 23))
    # 29 days and the one month that is whole.
    assert await roll_up_all(store) == 30
    assert await store.roll_up(now_ns=NOW_NS) == 0
    inside = Span(span.start_ns + 23 * HOUR_NS + 1, span.stop_ns)
    assert await total(store, span) == before
    for bounds_ns in ((), (inside.start_ns, inside.start_ns + 40 * HOUR_NS, inside.stop_ns)):
        in_periods = await store.call_sums(
            LogStream.EXECUTIONS, [inside], [(), ("user",)], bounds_ns=bounds_ns, rows_max=ROWS_MAX
        )
        assert in_periods.groups[()].total() == before - january
    hour = FIRST + 24 * 10
    await store.seal([executions(hour, hour_of_calls(hour, 100, user="bo"))], now_ns=NOW_NS)
    grown = await total(store, span)
    assert grown == before + (97 if hour % 7 == 0 else 100)
    assert await roll_up_all(store) == 2
    assert await total(store, span) == grown


async def test_inventories_as_of_an_instant(store: LedgerStore) -> None:
    def of_ana(hour: int, *names: str) -> Candidate:
        return deployed(hour, dict.fromkeys(names, "ana"), shared="cluster_admin")

    assert await store.inventory(as_of_ns=NOW_NS) is None
    await store.seal([of_ana(FIRST, "a", "b")], now_ns=NOW_NS)
    await store.seal([of_ana(FIRST + 1, "a", "b")], now_ns=NOW_NS + 10)
    await store.seal([of_ana(FIRST + 2, "Ünïcode 'quoted'")], now_ns=NOW_NS + 20)
    # The order in which services are listed is no difference.
    assert await verdict(store, of_ana(FIRST, "b", "a"), NOW_NS + 30) is Verdict.SAME
    found = [await store.inventory(as_of_ns=NOW_NS + after) for after in (0, 19, 99)]
    names = [[service.name for service in one[0].services] for one in found if one]
    assert names == [["a", "b"], ["a", "b"], ["Ünïcode 'quoted'"]]
    assert [one[1] - NOW_NS for one in found if one] == [0, 10, 20]
    assert await store.inventory(as_of_ns=NOW_NS - 1) is None
    assert await verdict(store, of_ana(FIRST + 2, "c"), NOW_NS + 40) is Verdict.REVISED


@pytest.mark.parametrize(
    "name", ["", "a,b;c", 'O\'Brien "x" \\', "line\nbreak\ttab", "Ωμέγα\x00end", "\udc80 cut"]
)
async def test_any_name_is_stored_as_it_is(store: LedgerStore, name: str) -> None:
    calls = slotted({(SlotPart(FIRST * 4, first=False), key(name, name, country=name)): 2})
    await store.seal([executions(FIRST, calls), used(FIRST, [{name: 1.0}])], now_ns=NOW_NS)
    plain = name.replace("\udc80", "?")
    sums = await store.call_sums(
        LogStream.EXECUTIONS, [HOUR], [("service", "user", "country")], rows_max=ROWS_MAX
    )
    assert sums.by("service", "user", "country") == {(plain, plain, plain): 2}
    assert (await store.usage_sums([HOUR], service=plain))[0].cpu_seconds == {
        ServiceKey("oscar-svc", plain): 1.0
    }


async def test_everything_is_there_when_opened_again(open_store: Opened, tmp_path: Path) -> None:
    first = open_store(tmp_path)
    await first.seal([executions(FIRST + hour) for hour in range(24)], now_ns=NOW_NS)
    await roll_up_all(first)
    await first.seal([used(FIRST, [{"a": 1.0}])], now_ns=NOW_NS)
    await first.aclose()
    second = open_store(tmp_path)
    assert await total(second, hours(FIRST, 24)) == 72
    assert len(await second.heads(SealKind.USAGE, HOUR)) == 1
    assert await verdict(second, executions(FIRST)) is Verdict.SAME
    assert await second.roll_up(now_ns=NOW_NS) == 0
    await second.aclose()
    with pytest.raises(LedgerError, match="closed"):
        await second.heads(SealKind.USAGE, HOUR)
