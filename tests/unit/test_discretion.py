from __future__ import annotations

from typing import Any

import pytest

from oscar_metrics.discretion import IN_DOUBT, NOT_ALL_KNOWN, NOT_READ, WITHHELD, discreet
from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.outcome import (
    MAY_GROW,
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    SealedPart,
    Unavailable,
    not_understood,
    with_doubts,
)
from oscar_metrics.timerange import HOUR_NS, Span

NAMES_SOMEBODY = "owner and visibility are missing of ns-olga/fish"
GAP = Gap(span=Span(0, HOUR_NS), reason=GapReason.FAILED)
ABOUT_GAP = "1970-01-01T00:00:00Z to 1970-01-01T01:00:00Z: the source failed"
NOT_ASKED = "Loki is not asked for a while, after it failed again and again"
LIMIT = "loki refused because the question exceeds one of its limits"
CUT = "the range cuts slots that are stored whole: 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z"


def partial(*notes: str, doubts: tuple[str, ...] = (), gaps: tuple[Gap, ...] = ()) -> Partial[int]:
    return Partial(facts=7, origin="loki", notes=notes, doubts=doubts, gaps=gaps)


@pytest.mark.parametrize(
    ("outcome", "notes"),
    [
        (Ok(facts=7, origin="loki"), ()),
        (Ok(facts=7, origin="loki", notes=(NAMES_SOMEBODY,)), ()),
        (Ok(facts=7, origin="loki", notes=(NAMES_SOMEBODY, MAY_GROW)), (MAY_GROW,)),
        (partial(NAMES_SOMEBODY), (IN_DOUBT,)),
        (partial(NAMES_SOMEBODY, WITHHELD), (WITHHELD, IN_DOUBT)),
        (partial(WITHHELD), (WITHHELD,)),
        (partial(NOT_ALL_KNOWN, WITHHELD), (NOT_ALL_KNOWN, WITHHELD)),
        (partial(CUT), (CUT,)),
        (partial(*not_understood(12, 7)), (IN_DOUBT,)),
        (partial(NAMES_SOMEBODY, LIMIT, doubts=(LIMIT,)), (LIMIT,)),
        (partial(NAMES_SOMEBODY, LIMIT, doubts=(NAMES_SOMEBODY,)), (IN_DOUBT, LIMIT)),
        (Unavailable(origin="loki", notes=(NAMES_SOMEBODY,)), (NOT_READ,)),
        (Unavailable(origin="loki", notes=(LIMIT, NAMES_SOMEBODY)), (LIMIT,)),
        (Unavailable(origin="loki", notes=(NOT_ASKED,)), (NOT_ASKED,)),
        (Unavailable(origin="", notes=()), (NOT_READ,)),
        # What stands before or behind a sentence may name anything.
        (partial(f"{NAMES_SOMEBODY}: {LIMIT}"), (IN_DOUBT,)),
        (partial(f"{LIMIT} (fish)"), (IN_DOUBT,)),
    ],
)
def test_only_what_names_nobody_is_handed_on(outcome: Outcome[int], notes: tuple[str, ...]) -> None:
    told = discreet(outcome)
    assert told.notes == notes
    assert type(told) is type(outcome)
    assert discreet(told) == told


def test_gaps_are_told_as_they_are() -> None:
    told = discreet(partial(ABOUT_GAP, NAMES_SOMEBODY, gaps=(GAP,)))
    assert isinstance(told, Partial)
    assert (told.gaps, told.doubts) == ((GAP,), ())
    assert "the source failed" in told.notes[0]
    assert NAMES_SOMEBODY not in told.notes
    silent = Unavailable(origin="loki", notes=(NAMES_SOMEBODY,), gaps=(GAP,))
    missing: Outcome[int] = discreet(silent)
    assert isinstance(missing, Unavailable)
    assert missing.gaps == (GAP,)
    assert "the source failed" in str(missing.notes)


def test_all_but_notes_stays() -> None:
    sealed = SealedPart(spans=(Span(0, 1),), first_sealed_at_ns=1, last_sealed_at_ns=2)
    before: Partial[Any] = Partial(
        facts=object(),
        origin="ledger+loki",
        notes=(NAMES_SOMEBODY,),
        measures=frozenset({Measure.GPU}),
        last_updated_ns=5,
        sealed=sealed,
    )
    told = discreet(before)
    assert isinstance(told, Partial)
    assert (told.facts, told.origin, told.measures) == (
        before.facts,
        "ledger+loki",
        before.measures,
    )
    assert (told.last_updated_ns, told.sealed) == (5, sealed)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("upstream", ["kubernetes", "loki", "Prometheus"])
def test_why_an_upstream_failed_is_told_without_what_it_said(upstream: str, reason: Reason) -> None:
    error = UpstreamError(upstream, reason, detail=NAMES_SOMEBODY)
    told: Outcome[int] = discreet(Unavailable(origin="x", notes=(str(error),)))
    assert told.notes == (f"{upstream} {REASON_TEXT[reason]}",)


def test_what_is_withheld_stands_first() -> None:
    told = discreet(with_doubts(partial(LIMIT, NAMES_SOMEBODY), [WITHHELD]))
    assert told.notes == (WITHHELD, LIMIT, IN_DOUBT)
