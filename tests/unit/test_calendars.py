"""What is covered, day by day: marks, holes, and how both are printed."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from oscar_metrics.calendars import as_calendar
from oscar_metrics.ledger.coverage import (
    Coverage,
    DayMark,
    Hole,
    KindCoverage,
    kind_coverage,
    months_of,
)
from oscar_metrics.ledger.seals import Sealed, SealKind, Stretch
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import Span, parse_instant


def span(start: str, stop: str) -> Span:
    return Span(parse_instant(f"{start}:00:00Z"), parse_instant(f"{stop}:00:00Z"))


def stretch(start: str, stop: str, *, final: bool = True, origin: str = "loki") -> Stretch:
    return Stretch(
        span=span(start, stop),
        quarters=1,
        origin=origin,
        method="",
        doubts=(),
        measures=frozenset(),
        notes=(),
        final=final,
        whole=True,
        first_sealed_at_ns=0,
        last_sealed_at_ns=parse_instant("2026-03-01T00:00:00Z"),
        lines_seen=10,
        lines_understood=9,
    )


def gap(start: str, stop: str, reason: GapReason = GapReason.NO_LINES) -> Gap:
    return Gap(span=span(start, stop), reason=reason)


def covered(asked: Span, stretches: list[Stretch], gaps: list[Gap]) -> KindCoverage:
    """As the store would say it, month by month."""
    months = []
    for month in months_of(asked):
        touching = tuple(s for s in stretches if s.span.clip(month).length_ns)
        inside = tuple(g for g in gaps if g.span.clip(month).length_ns)
        months.append((month, Sealed(stretches=touching, gaps=inside)))
    return kind_coverage(SealKind.EXECUTIONS, months)


FEBRUARY = span("2026-02-01T00", "2026-03-01T00")
WHOLE = [stretch("2026-02-01T00", "2026-03-01T00")]
F, P, M, U = DayMark.FULL, DayMark.PARTIAL, DayMark.MISSING, DayMark.UNSEALED


@pytest.mark.parametrize(
    ("stretches", "gaps", "expected"),
    [
        (WHOLE, [], [F] * 28),
        ([stretch("2026-02-01T00", "2026-02-27T12")], [], [F] * 26 + [P, U]),
        (WHOLE, [gap("2026-02-02T03", "2026-02-02T04")], [F, P] + [F] * 26),
        (WHOLE, [gap("2026-02-02T00", "2026-02-03T00")], [F, M] + [F] * 26),
        (
            [stretch("2026-02-02T00", "2026-02-02T12")],
            [gap("2026-02-02T00", "2026-02-02T12")],
            [U, P] + [U] * 26,
        ),
        # Two reasons for one stretch do not make it missing twice.
        (
            WHOLE,
            [
                gap("2026-02-01T00", "2026-02-01T12"),
                gap("2026-02-01T00", "2026-02-01T12", GapReason.FAILED),
            ],
            [P] + [F] * 27,
        ),
    ],
)
def test_each_day_has_its_mark(
    stretches: list[Stretch], gaps: list[Gap], expected: list[DayMark]
) -> None:
    assert list(covered(FEBRUARY, stretches, gaps).days.values()) == expected


def test_holes_are_named_with_their_reasons_and_joined_over_months() -> None:
    asked = span("2026-01-30T00", "2026-03-02T00")
    kind = covered(
        asked,
        [stretch("2026-01-30T00", "2026-02-27T00"), stretch("2026-03-01T12", "2026-03-02T00")],
        [gap("2026-01-31T22", "2026-02-01T03")],
    )
    assert kind.holes == (
        Hole(
            start="2026-01-31T22:00:00Z", end="2026-02-01T03:00:00Z", reason="no log lines at all"
        ),
        Hole(start="2026-02-27T00:00:00Z", end="2026-03-01T12:00:00Z", reason="not sealed"),
    )
    assert kind.sealed_hours == 28 * 24 + 12
    assert (kind.start, kind.end) == ("2026-01-30T00:00:00Z", "2026-03-02T00:00:00Z")


def test_what_will_be_looked_at_again_is_counted() -> None:
    kind = covered(
        FEBRUARY,
        [
            stretch("2026-02-01T00", "2026-02-28T23", origin="import"),
            stretch("2026-02-28T23", "2026-03-01T00", final=False),
        ],
        [],
    )
    assert (kind.provisional_hours, kind.origins) == (1, ("import", "loki"))
    assert kind.last_sealed_at == "2026-03-01T00:00:00Z"


def test_nothing_sealed_is_no_calendar() -> None:
    assert covered(FEBRUARY, [], []) == KindCoverage(kind=SealKind.EXECUTIONS)


def printed(coverage: Coverage) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=200)
    for part in as_calendar(coverage):
        console.print(part)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_calendar_has_a_line_per_month_and_a_mark_per_day() -> None:
    kind = covered(
        span("2026-01-30T00", "2026-02-04T00"),
        [stretch("2026-01-30T00", "2026-02-03T00")],
        [gap("2026-02-01T00", "2026-02-02T00"), gap("2026-02-02T00", "2026-02-02T01")],
    )
    lines = printed(Coverage(kinds=(kind, KindCoverage(kind=SealKind.USAGE))))
    assert lines[0].startswith("executions: 2026-01-30T00:00:00Z to 2026-02-04T00:00:00Z")
    assert lines[1] == "         1234567890123456789012345678901"
    assert lines[2] == "2026-01                               ##"
    assert lines[3] == "2026-02  !+."
    assert "usage: nothing is sealed" in lines
    assert any(line.split()[:2] == ["kind", "from"] for line in lines)
    assert lines[-1].split(maxsplit=3) == [
        "executions",
        "2026-02-03T00:00:00Z",
        "2026-02-04T00:00:00Z",
        "not sealed",
    ]


def test_a_long_list_of_holes_says_how_much_it_leaves_out() -> None:
    holes = tuple(Hole(start=str(n), end=str(n), reason="x") for n in range(130))
    kind = KindCoverage(kind=SealKind.USAGE, days={"2026-01-01": DayMark.PARTIAL}, holes=holes)
    assert "30 more" in printed(Coverage(kinds=(kind,)))[-1]
