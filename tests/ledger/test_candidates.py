"""What a source said of a span, hour by hour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    Result,
    ServiceKey,
    SlotPart,
    SlottedLog,
    SlotUsage,
    Tallies,
    Usage,
    UsageMethod,
)
from oscar_metrics.ledger.candidates import of_calls, of_inventory, of_usage, why_missing
from oscar_metrics.ledger.seals import SealKind
from oscar_metrics.outcome import (
    MAY_GROW,
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    Unavailable,
    settle,
)
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span, merge

KEY = CallKey("ns", "cowsay", "ada", "", CountryFrom.NOTHING, Kind.SYNC, Result.OK)
FIRST = 494_000
LATER = (FIRST + 1000) * HOUR_NS


def hours(count: int) -> Span:
    return Span(FIRST * HOUR_NS, (FIRST + count) * HOUR_NS)


def log(calls: int) -> CallLog:
    return CallLog(tallies=Tallies({KEY: calls}), lines_seen=calls + 1, lines_understood=calls)


def gap(start_slot: int, stop_slot: int, reason: GapReason) -> Gap:
    start_ns = FIRST * HOUR_NS
    return Gap(
        span=Span(start_ns + start_slot * SLOT_NS, start_ns + stop_slot * SLOT_NS), reason=reason
    )


def test_parts_go_to_the_hours_they_are_of() -> None:
    parts = {
        SlotPart(FIRST * 4 + 3, first=False): log(1),
        SlotPart(FIRST * 4 + 4, first=True): log(2),
        SlotPart(FIRST * 4 + 4, first=False): log(3),
    }
    outcome = Ok(facts=parts, origin="loki", notes=("a remark", MAY_GROW, "9 of 9 files"))
    first, second, third = of_calls(SealKind.EXECUTIONS, outcome, hours(3))
    assert [c.hour for c in (first, second, third)] == [FIRST, FIRST + 1, FIRST + 2]
    assert first.calls == {SlotPart(FIRST * 4 + 3, first=False): log(1)}
    assert second.calls is not None
    assert len(second.calls) == 2
    assert third.calls == {}
    assert {(c.origin, c.notes, c.gaps, c.doubts) for c in (first, second, third)} == {
        ("loki", ("a remark",), (), ())
    }


def test_gaps_are_cut_to_hours_and_not_said_twice() -> None:
    outcome: Outcome[SlottedLog] = settle(
        {SlotPart(FIRST * 4, first=False): log(1)},
        origin="loki",
        asked=hours(3),
        now_ns=LATER,
        gaps=[gap(2, 9, GapReason.NO_LINES), gap(11, 12, GapReason.FAILED)],
        doubts=[
            "some lines may be copies",
            "1 of 2 lines recognised as calls could not be understood",
        ],
        notes=["a remark"],
    )
    first, second, third = of_calls(SealKind.EXPOSED, outcome, hours(3))
    assert first.gaps == (gap(2, 4, GapReason.NO_LINES),)
    assert second.gaps == (gap(4, 8, GapReason.NO_LINES),)
    assert third.gaps == (gap(8, 9, GapReason.NO_LINES), gap(11, 12, GapReason.FAILED))
    # What has no time is said of every hour; lines not understood are counted with the calls.
    for candidate in (first, second, third):
        assert candidate.doubts == ("some lines may be copies",)
        assert candidate.notes == ("a remark",)
    assert [bool(why_missing(c)) for c in (first, second, third)] == [False, True, False]


def test_a_doubt_without_a_gap_is_kept_by_every_hour() -> None:
    outcome: Outcome[SlottedLog] = Partial(facts={}, origin="loki", notes=("its own words",))
    for candidate in of_calls(SealKind.EXECUTIONS, outcome, hours(2)):
        assert candidate.doubts == ("its own words",)
        assert candidate.gaps == ()


@pytest.mark.parametrize(
    ("outcome", "reason", "notes"),
    [
        (Unavailable(origin="x", notes=("Loki could not be reached",)), GapReason.FAILED, 1),
        (
            Unavailable(origin="x", notes=("all of the range: older than the source keeps",)),
            GapReason.RETENTION,
            0,
        ),
        (
            Unavailable(origin="x", notes=("1 h of the range: no log lines at all", "a remark")),
            GapReason.NO_LINES,
            1,
        ),
        (
            Unavailable(
                origin="x",
                notes=("Loki has no such streams",),
                gaps=(Gap(span=hours(2), reason=GapReason.NO_LINES),),
            ),
            GapReason.NO_LINES,
            1,
        ),
        (
            Unavailable(
                origin="x",
                notes=("Prometheus had not finished when the report's deadline came",),
            ),
            GapReason.DEADLINE,
            0,
        ),
    ],
)
def test_who_says_nothing_leaves_whole_hours_with_the_best_reason(
    outcome: Unavailable, reason: GapReason, notes: int
) -> None:
    for candidate in of_calls(SealKind.EXECUTIONS, outcome, hours(2)):
        assert candidate.gaps == (Gap(span=candidate.span, reason=reason),)
        assert why_missing(candidate) == {reason}
        assert candidate.calls == {}
        assert len(candidate.notes) == notes
    for candidate in of_usage(outcome, hours(2)):
        assert candidate.usage == ()
        assert why_missing(candidate) == {reason}


def test_an_hour_with_calls_is_not_missing_whatever_its_gaps() -> None:
    outcome = Partial(
        facts={SlotPart(FIRST * 4, first=False): log(1)},
        origin="pod-logs",
        notes=(),
        gaps=(Gap(span=hours(1), reason=GapReason.ROTATED),),
    )
    (candidate,) = of_calls(SealKind.EXECUTIONS, outcome, hours(1))
    assert not why_missing(candidate)


def test_usage_says_how_it_was_measured_and_what_is_in_doubt() -> None:
    usage = Usage(
        cpu_seconds={ServiceKey("ns", "cowsay"): 1.0},
        gpu_seconds=None,
        methods=frozenset({UsageMethod.GPU_ALLOCATED, UsageMethod.CPU_ESTIMATE}),
    )
    outcome: Outcome[tuple[SlotUsage, ...]] = Partial(
        facts=(
            SlotUsage(slot=FIRST * 4, quarters=4, usage=usage),
            SlotUsage(slot=FIRST * 4 + 4, quarters=4, usage=usage),
        ),
        origin="prometheus",
        notes=("no GPUs",),
        doubts=("no GPUs",),
        measures=frozenset({Measure.GPU}),
    )
    first, second = of_usage(outcome, hours(2))
    assert first.method == "cpu-estimate+gpu-allocated"
    assert first.measures == {Measure.GPU}
    assert first.doubts == ("no GPUs",)
    assert second.usage == (SlotUsage(slot=FIRST * 4 + 4, quarters=4, usage=usage),)


def test_an_inventory_is_sealed_only_where_there_is_one() -> None:
    inventory = Inventory(services=())
    assert of_inventory(Unavailable(origin="kubernetes", notes=("down",)), FIRST) is None
    candidate = of_inventory(Partial(facts=inventory, origin="kubernetes", notes=("a doubt",)), 7)
    assert candidate is not None
    assert (candidate.inventory, candidate.hour, candidate.doubts, candidate.next_look_ns) == (
        inventory,
        7,
        ("a doubt",),
        None,
    )


@given(
    st.dictionaries(st.tuples(st.integers(0, 11), st.booleans()), st.integers(1, 9)),
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 6), st.sampled_from(list(GapReason))),
        max_size=5,
    ),
)
def test_nothing_is_lost_or_doubled(
    calls: dict[tuple[int, bool], int], gaps: list[tuple[int, int, GapReason]]
) -> None:
    parts = {SlotPart(FIRST * 4 + slot, first): log(n) for (slot, first), n in calls.items()}
    given_gaps = [gap(start, start + length, reason) for start, length, reason in gaps]
    outcome: Outcome[SlottedLog] = settle(
        parts, origin="x", asked=hours(3), now_ns=LATER, gaps=given_gaps, anything_read=True
    )
    found = of_calls(SealKind.EXECUTIONS, outcome, hours(3))
    assert {part: said for c in found for part, said in (c.calls or {}).items()} == parts
    for reason in GapReason:
        said = merge(g.span for c in found for g in c.gaps if g.reason is reason)
        assert said == merge(g.span.clip(hours(3)) for g in given_gaps if g.reason is reason)
