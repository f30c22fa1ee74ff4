"""When hours are looked at, and what is done first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import Inventory
from oscar_metrics.ledger.looks import (
    EMPTY_DAYS,
    HOURS_MOST,
    Known,
    Looks,
    Rank,
    Try,
    Work,
    bottom,
    due,
    missing_hours,
    next_work,
)
from oscar_metrics.ledger.seals import Candidate, SealHead, SealKind
from oscar_metrics.ledger.settings import LedgerSettings
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span

LOOKS = Looks(LedgerSettings())
MINUTE_NS = 60 * SECOND_NS
EXECUTIONS, EXPOSED, USAGE = SealKind.EXECUTIONS, SealKind.EXPOSED, SealKind.USAGE
# Hour 0 of a UTC day.
H = 494_016
ENDED = (H + 1) * HOUR_NS


def head(hour: int, next_look_ns: int | None = None, *, missing_ns: int = 0) -> SealHead:
    return SealHead(
        kind=EXECUTIONS,
        hour=hour,
        revision=1,
        sealed_at_ns=(hour + 1) * HOUR_NS,
        looks=1,
        next_look_ns=next_look_ns,
        origin="loki",
        method="",
        missing_ns=missing_ns,
        lines_seen=0,
        lines_understood=0,
    )


def known(
    *heads: SealHead, floor: int = H - 100, tries: dict[int, Try] | None = None, holes_ns: int = 0
) -> Known:
    return Known(
        heads={head.hour: head for head in heads},
        tries=tries or {},
        floor=floor,
        holes_not_before_ns=holes_ns,
    )


@pytest.mark.parametrize(
    ("after_end", "looks", "may_heal", "expected"),
    [
        # Hours after the end of the hour: this look, and the next one.
        (1 / 6, 1, False, 4),
        (4, 2, False, 24),
        (24, 3, False, None),
        (30, 1, False, None),
        (7, 1, False, 24),
        # What may come back is tried in between, never later than the regular look.
        (1 / 6, 1, True, 1 / 6 + 1 / 12),
        (1 / 6 + 1 / 12, 2, True, 1 / 6 + 3 / 12),
        (3.9, 7, True, 4),
        (23, 9, True, 24),
        # And afterwards ever more rarely, until it is given up.
        (24, 1, True, 24 + 1 / 12),
        (30, 10, True, 30 + 512 / 12),
        (800, 15, True, None),
    ],
)
def test_the_next_look(
    after_end: float, looks: int, may_heal: bool, expected: float | None
) -> None:
    def at(hours: float) -> int:
        return ENDED + round(hours * 60) * MINUTE_NS

    found = LOOKS.next_look_ns(H, looks, at(after_end), may_heal=may_heal)
    assert found == (None if expected is None else at(expected))


@given(st.integers(10, 100_000), st.booleans())
def test_every_hour_becomes_final(first_look_minutes: int, may_heal: bool) -> None:
    now_ns: int | None = ENDED + first_look_minutes * MINUTE_NS
    looks = 0
    while now_ns is not None:
        looks += 1
        previous_ns, now_ns = now_ns, LOOKS.next_look_ns(H, looks, now_ns, may_heal=may_heal)
        assert now_ns is None or now_ns > previous_ns
        assert looks < 30
    assert LOOKS.is_past_last(H, previous_ns)


def candidate(*reasons: GapReason, kind: SealKind = EXECUTIONS, minutes: int = 60) -> Candidate:
    width_ns = minutes * MINUTE_NS // max(1, len(reasons))
    gaps = tuple(
        Gap(
            span=Span(H * HOUR_NS + i * width_ns, H * HOUR_NS + (i + 1) * width_ns),
            reason=reason,
        )
        for i, reason in enumerate(reasons)
    )
    return Candidate(kind=kind, hour=H, origin="loki", gaps=gaps, calls={})


NO = GapReason.NO_LINES
FAILED = GapReason.FAILED
GONE = GapReason.RETENTION


@pytest.mark.parametrize(
    ("said", "sealed", "accountable", "failures", "hours_after", "is_sealed"),
    [
        (candidate(), False, False, 1, 0.2, True),
        # Silence is an answer; a failure is none, until it has lasted past the last look.
        (candidate(NO), False, False, 1, 0.2, True),
        (candidate(FAILED), False, True, 9, 23.9, False),
        (candidate(FAILED), True, True, 9, 23.9, False),
        (candidate(FAILED, NO), False, True, 9, 23.9, False),
        (candidate(FAILED), False, True, 9, 24, True),
        (candidate(FAILED), True, True, 9, 24, True),
        (candidate(FAILED), False, True, 1, 24, False),
        (candidate(GapReason.DEADLINE), False, True, 9, 24, True),
        # Before the first seal nobody has promised anything.
        (candidate(FAILED), False, False, 9, 24, False),
        (candidate(FAILED, minutes=30), False, False, 1, 0.2, True),
        # What no source keeps is sealed only where its hour came and went before our eyes.
        (candidate(GONE), False, True, 1, 20, True),
        (candidate(GapReason.ROTATED), False, False, 1, 20, False),
        (candidate(GONE), False, True, 1, 60, False),
        (candidate(GONE, NO), False, False, 1, 60, True),
        (candidate(GONE), True, True, 1, 60, True),
    ],
)
def test_what_is_sealed_of_a_look(
    said: Candidate,
    sealed: bool,
    accountable: bool,
    failures: int,
    hours_after: float,
    is_sealed: bool,
) -> None:
    decided = LOOKS.decided(
        said,
        head(H) if sealed else None,
        accountable=accountable,
        failures=failures,
        now_ns=ENDED + round(hours_after * 60) * MINUTE_NS,
    )
    assert (decided is not None) == is_sealed
    if decided is not None:
        assert decided.looks == (2 if sealed else 1)


def test_an_inventory_is_final_at_once() -> None:
    said = Candidate(
        kind=SealKind.INVENTORY, hour=H, origin="kubernetes", inventory=Inventory(services=())
    )
    decided = LOOKS.decided(said, None, accountable=True, failures=1, now_ns=ENDED)
    assert decided is not None
    assert decided.next_look_ns is None


NOW = ENDED + 10 * MINUTE_NS  # the first look at hour H is due this very moment


def test_what_is_due() -> None:
    watched = range(H - 47, H + 1)
    everything = [head(hour) for hour in range(H - 100, H + 1)]
    fine = known(*everything)
    assert due(EXECUTIONS, fine, LOOKS, NOW) == {}
    assert due(EXECUTIONS, fine, LOOKS, NOW - 1 + HOUR_NS) == {}
    assert due(EXECUTIONS, fine, LOOKS, NOW + HOUR_NS) == {H + 1: Rank.FIRST}

    nothing = known(floor=H - 100)
    found = due(EXECUTIONS, nothing, LOOKS, NOW)
    assert {hour for hour, rank in found.items() if rank is Rank.FIRST} == set(watched)
    assert {h for h, rank in found.items() if rank is Rank.HOLE} == set(range(H - 100, H - 47))
    waiting = known(floor=H - 100, holes_ns=NOW + 1)
    assert set(due(EXECUTIONS, waiting, LOOKS, NOW)) == set(watched)


def test_what_failed_waits_and_comes_after_what_is_new() -> None:
    rest = [head(hour) for hour in range(H - 100, H)]
    tried = known(*rest, tries={H: Try(count=1, not_before_ns=NOW)})
    assert due(EXECUTIONS, tried, LOOKS, NOW) == {H: Rank.RETRY}
    assert due(EXECUTIONS, tried, LOOKS, NOW - 1) == {}


def test_later_looks_are_told_from_retries() -> None:
    second_ns = (H - 3) * HOUR_NS + 4 * HOUR_NS
    heads = [head(hour) for hour in range(H - 100, H + 1)]
    heads[-5] = head(H - 4, second_ns)
    heads[-4] = head(H - 3, NOW - 1)
    heads[-3] = head(H - 2, NOW + 1)
    found = due(EXECUTIONS, known(*heads), LOOKS, NOW)
    assert found == {H - 4: Rank.LOOK, H - 3: Rank.RETRY}


def test_hours_that_lie_ahead_are_left_alone() -> None:
    """The clock went back: what was sealed later than now waits until it is now again."""
    ahead = [head(hour, NOW - 1) for hour in range(H + 1, H + 5)]
    sealed = [head(hour) for hour in range(H - 100, H + 1)]
    assert due(EXECUTIONS, known(*sealed, *ahead), LOOKS, NOW) == {}


def test_an_inventory_has_no_past() -> None:
    kind = SealKind.INVENTORY
    assert due(kind, known(), LOOKS, NOW) == {H: Rank.FIRST}
    assert due(kind, known(head(H)), LOOKS, NOW) == {}
    tried = known(tries={H: Try(count=1, not_before_ns=NOW + 1)})
    assert due(kind, tried, LOOKS, NOW) == {}
    assert due(kind, tried, LOOKS, NOW + 1) == {H: Rank.RETRY}


@pytest.mark.parametrize(
    ("due_hours", "most", "expected"),
    [
        ({}, 24, None),
        # The newest hour of the most urgent rank, with its neighbours of the same day.
        (
            {EXECUTIONS: {H + 5: Rank.FIRST, H + 4: Rank.FIRST, H + 2: Rank.FIRST}},
            24,
            (EXECUTIONS, H + 4, H + 5, Rank.FIRST),
        ),
        (
            {EXECUTIONS: dict.fromkeys(range(H - 3, H + 3), Rank.HOLE)},
            24,
            (EXECUTIONS, H, H + 2, Rank.HOLE),
        ),
        (
            {EXECUTIONS: dict.fromkeys(range(H, H + 24), Rank.HOLE)},
            6,
            (EXECUTIONS, H + 18, H + 23, Rank.HOLE),
        ),
        (
            {EXECUTIONS: {H + 5: Rank.HOLE}, USAGE: {H + 1: Rank.RETRY}},
            24,
            (USAGE, H + 1, H + 1, Rank.RETRY),
        ),
    ],
)
def test_the_most_urgent_question(
    due_hours: dict[SealKind, dict[int, Rank]],
    most: int,
    expected: tuple[SealKind, int, int, Rank] | None,
) -> None:
    found = next_work(due_hours, lambda _kind, _hour: most)
    if expected is None:
        assert found is None
    else:
        kind, first, last, rank = expected
        assert found == Work(kinds=frozenset({kind}), first=first, last=last, rank=rank)


def test_both_request_logs_are_one_question_where_both_are_due() -> None:
    due_hours = {
        EXECUTIONS: dict.fromkeys(range(H, H + 6), Rank.HOLE),
        EXPOSED: dict.fromkeys(range(H + 3, H + 6), Rank.HOLE),
        USAGE: {H + 5: Rank.HOLE},
    }
    found = next_work(due_hours, lambda _kind, _hour: HOURS_MOST)
    both = frozenset({EXECUTIONS, EXPOSED})
    assert found == Work(kinds=both, first=H + 3, last=H + 5, rank=Rank.HOLE)


@given(st.sets(st.integers(H - 30, H + 30)), st.sets(st.integers(H - 30, H + 30)))
def test_asking_comes_to_an_end_and_asks_each_hour_once(
    executions: set[int], exposed: set[int]
) -> None:
    left = {EXECUTIONS: executions, EXPOSED: exposed}
    asked: list[tuple[SealKind, int]] = []
    while True:
        due_hours = {kind: dict.fromkeys(hours, Rank.HOLE) for kind, hours in left.items()}
        work = next_work(due_hours, lambda _kind, _hour: HOURS_MOST)
        if work is None:
            break
        hours = range(work.first, work.last + 1)
        assert work.first // 24 == work.last // 24
        asked += [(kind, hour) for kind in work.kinds for hour in hours]
        left = {k: v - set(hours) if k in work.kinds else v for k, v in left.items()}
    expected = [
        (kind, hour)
        for kind, hours in ((EXECUTIONS, executions), (EXPOSED, exposed))
        for hour in hours
    ]
    assert sorted(asked) == sorted(expected)


def test_five_weeks_of_nothing_are_the_beginning_of_everything() -> None:
    def day(number: int, *, missing: bool) -> list[SealHead]:
        hours = range(H + number * 24, H + number * 24 + 24)
        return [head(hour, missing_ns=HOUR_NS if missing else 0) for hour in hours]

    def heads(*days: list[SealHead]) -> dict[int, SealHead]:
        return {head.hour: head for day in days for head in day}

    silent = [day(number, missing=True) for number in range(EMPTY_DAYS)]
    after = day(EMPTY_DAYS, missing=False)
    assert bottom({}) is None
    assert bottom(heads(*silent, after)) == H
    assert bottom(heads(*silent[1:], after)) is None
    # A day that is not sealed whole, or has something, begins the count again.
    assert bottom(heads(*silent[:5], silent[5][1:], *silent[6:], after)) is None
    assert bottom(heads(*silent[:5], day(5, missing=False), *silent[6:])) is None
    # Of a longer silence the newest weeks decide.
    assert bottom(heads(*silent, day(EMPTY_DAYS, missing=True))) == H + 24


def test_holes_reach_back_to_the_floor() -> None:
    assert min(missing_hours(known(floor=H - 60), LOOKS, NOW)) == H - 60
    # The hours of the last two days are minded even where no hole is.
    assert list(missing_hours(known(floor=H + 1), LOOKS, NOW)) == list(range(H - 47, H + 1))
