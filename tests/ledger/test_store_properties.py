"""Whatever is sealed, in whatever order: the store reads as a plain list of revisions would."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import (
    CallKey,
    CountryFrom,
    Kind,
    LogStream,
    Result,
    ServiceKey,
    SlotPart,
    SlottedLog,
)
from oscar_metrics.ledger.seals import Candidate, SealKind, Verdict
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.sums import CallSums, Grouping, of_slots
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span, merge
from tests.ledger.stores import ENGINES, FIRST, NOW_NS, ROWS_MAX, roll_up_all, slotted

# The last day of one month and the first of the next.
DAYS = 2
HOURS = range(FIRST, FIRST + 24 * DAYS)
WHOLE = Span(FIRST * HOUR_NS, (FIRST + 24 * DAYS) * HOUR_NS)
# Hours in which anything happens: few, so that candidates meet seals; at the ends of days.
BUSY = [FIRST, FIRST + 1, FIRST + 23, FIRST + 24, FIRST + 47]
FIELDS = CallKey._fields
NAMESPACES, SERVICES = ["", "a"], ["cowsay", "yolo"]


class Revision(msgspec.Struct, kw_only=True):
    """One seal of the model, from when until when it was the newest."""

    calls: SlottedLog
    missing_ns: int
    sealed_at_ns: int
    superseded_at_ns: int | None = None


class Model:
    """The ledger as a list of revisions of each hour."""

    def __init__(self) -> None:
        self.revisions: dict[int, list[Revision]] = {}

    def seal(self, candidate: Candidate, now_ns: int) -> Verdict:
        assert candidate.calls is not None
        missing_ns = sum(span.length_ns for span in merge(gap.span for gap in candidate.gaps))
        revisions = self.revisions.setdefault(candidate.hour, [])
        verdict = Verdict.SEALED
        if revisions:
            newest = revisions[-1]
            verdict = self._judged(newest, candidate.calls, missing_ns, now_ns)
            if verdict is not Verdict.REVISED:
                return verdict
            newest.superseded_at_ns = now_ns
        revisions.append(
            Revision(calls=candidate.calls, missing_ns=missing_ns, sealed_at_ns=now_ns)
        )
        return verdict

    def _judged(self, newest: Revision, calls: SlottedLog, missing_ns: int, now_ns: int) -> Verdict:
        if now_ns < newest.sealed_at_ns:
            return Verdict.REFUSED
        told, held = without_country(calls), without_country(newest.calls)
        more, fewer = bool(told - held), bool(held - told)
        if not more and not fewer:
            more, fewer = missing_ns < newest.missing_ns, missing_ns > newest.missing_ns
        return {
            (True, True): Verdict.AMBIGUOUS,
            (True, False): Verdict.REVISED,
            (False, True): Verdict.KEPT,
            (False, False): Verdict.SAME,
        }[more, fewer]

    def sums(
        self,
        span: Span,
        groupings: list[Grouping],
        bounds_ns: list[int],
        *,
        service: str | None = None,
        only: Callable[[ServiceKey], bool] = lambda _: True,
        as_of_ns: int | None = None,
    ) -> CallSums:
        parts: SlottedLog = {}
        for revisions in self.revisions.values():
            for revision in revisions:
                if known(revision, as_of_ns):
                    parts |= revision.calls
        return of_slots(
            {
                part: msgspec.structs.replace(
                    log,
                    tallies=Counter(
                        {
                            key: count
                            for key, count in log.tallies.items()
                            if service in (None, key.service)
                            and only(ServiceKey(key.namespace, key.service))
                        }
                    ),
                )
                for part, log in parts.items()
                if part.slot * SLOT_NS + (not part.first) in span
            },
            groupings,
            bounds_ns or [0],
        )


def known(revision: Revision, as_of_ns: int | None) -> bool:
    if as_of_ns is None:
        return revision.superseded_at_ns is None
    return revision.sealed_at_ns <= as_of_ns and (
        revision.superseded_at_ns is None or revision.superseded_at_ns > as_of_ns
    )


def without_country(calls: SlottedLog) -> Counter[Any]:
    return Counter(
        {
            (part, *key): count
            for part, log in calls.items()
            for key, count in _plain(log.tallies).items()
        }
    )


def _plain(tallies: Counter[CallKey]) -> Counter[Any]:
    plain: Counter[Any] = Counter()
    for key, count in tallies.items():
        plain[key.namespace, key.service, key.user, key.kind, key.result] += count
    return plain


call_keys = st.builds(
    CallKey,
    namespace=st.sampled_from(NAMESPACES),
    service=st.sampled_from(SERVICES),
    user=st.sampled_from(["", "ana"]),
    country=st.sampled_from(["", "ES", "Côte d'Ivoire"]),
    country_from=st.sampled_from(CountryFrom),
    kind=st.sampled_from([Kind.SYNC, Kind.ASYNC]),
    result=st.sampled_from(Result),
)


@st.composite
def candidates(draw: st.DrawFn) -> Candidate:
    hour = draw(st.sampled_from(BUSY))
    parts = st.builds(SlotPart, st.sampled_from([hour * 4, hour * 4 + 3]), st.booleans())
    counts = draw(
        st.dictionaries(st.tuples(parts, call_keys), st.integers(1, 3), max_size=4)
        # Often one of two calls, so that one candidate has what another has and more.
        | st.dictionaries(
            st.tuples(
                st.just(SlotPart(hour * 4, first=False)),
                st.sampled_from(
                    [
                        CallKey("a", "cowsay", "ana", country, CountryFrom.GEOIP, kind, Result.OK)
                        for kind in (Kind.SYNC, Kind.ASYNC)
                        for country in ("ES", "")
                    ]
                ),
            ),
            st.integers(1, 2),
            max_size=2,
        )
    )
    missing_ns = draw(st.sampled_from([0, 0, SLOT_NS, HOUR_NS]))
    start_ns = hour * HOUR_NS
    return Candidate(
        kind=SealKind.EXECUTIONS,
        hour=hour,
        origin="loki",
        gaps=(
            (Gap(span=Span(start_ns, start_ns + missing_ns), reason=GapReason.FAILED),)
            if missing_ns
            else ()
        ),
        calls=slotted(counts),
    )


# What is sealed at once, an hour only once, and how much later than what was before; a
# clock may jump back.
batches = st.lists(
    st.tuples(
        st.lists(candidates(), min_size=1, max_size=4, unique_by=lambda c: c.hour),
        st.sampled_from([1, 1, 1, HOUR_NS, -HOUR_NS]),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)

edges = st.builds(
    lambda slot, after: slot * SLOT_NS + after,
    st.integers(FIRST * 4, (FIRST + 24 * DAYS) * 4 - 1)
    | st.sampled_from(BUSY).map(lambda h: h * 4),
    st.sampled_from([0, 1]),
)
spans = st.just(WHOLE) | st.tuples(edges, edges).map(lambda ends: Span(min(ends), max(ends)))
groupings = st.lists(
    st.lists(st.sampled_from(FIELDS), unique=True, max_size=len(FIELDS)).map(tuple),
    min_size=1,
    max_size=3,
    unique=True,
)


async def sums_of(
    store: LedgerStore, span: Span, by: list[Grouping], bounds_ns: list[int], **how: Any
) -> CallSums:
    sums = await store.call_sums(
        LogStream.EXECUTIONS,
        [span] if span.length_ns else [],
        by,
        bounds_ns=bounds_ns,
        rows_max=ROWS_MAX,
        **how,
    )
    assert all(count > 0 for counts in sums.groups.values() for count in counts.values())
    return sums


def in_periods(span: Span, by: list[Grouping], cuts: list[int]) -> tuple[list[Grouping], list[int]]:
    """The groupings by period as well, and the bounds of the periods."""
    inner = [cut for cut in cuts if span.start_ns < cut < span.stop_ns]
    bounds_ns = sorted({span.start_ns, *inner, span.stop_ns})
    return [("period", *grouping) for grouping in by] + by, bounds_ns


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=20)
@given(
    steps=batches,
    span=spans,
    by=groupings,
    cuts=st.lists(edges, max_size=20),
    service=st.sampled_from([None, None, "cowsay", "nobody"]),
    mine=st.frozensets(
        st.builds(ServiceKey, st.sampled_from(NAMESPACES), st.sampled_from(SERVICES))
    ),
)
async def test_sums_are_those_of_the_newest_revisions_now_and_as_of_any_instant(
    engine: str,
    steps: list[tuple[list[Candidate], int, bool]],
    span: Span,
    by: list[Grouping],
    cuts: list[int],
    service: str | None,
    mine: frozenset[ServiceKey],
) -> None:
    model, now_ns = Model(), NOW_NS
    with tempfile.TemporaryDirectory() as folder:
        store = ENGINES[engine](Path(folder))
        empty = [
            Candidate(kind=SealKind.EXECUTIONS, hour=hour, origin="loki", calls={})
            for hour in HOURS
        ]
        await store.seal(empty, now_ns=now_ns)
        for candidate in empty:
            model.seal(candidate, now_ns)
        instants = [now_ns]
        for batch, later_ns, rolled_up in steps:
            now_ns += later_ns
            if rolled_up:
                await roll_up_all(store)
            judged = await store.seal(batch, now_ns=now_ns)
            assert [found.verdict for found in judged] == [
                model.seal(candidate, now_ns) for candidate in batch
            ]
            instants.append(now_ns)
        grouped, bounds_ns = in_periods(span, by, cuts)
        expected = model.sums(span, grouped, bounds_ns, service=service)
        assert await sums_of(store, span, grouped, bounds_ns, service=service) == expected
        await roll_up_all(store)
        assert await sums_of(store, span, grouped, bounds_ns, service=service) == expected
        assert await sums_of(store, span, by, [], service=service) == model.sums(
            span, by, [], service=service
        )
        parts: list[Callable[[ServiceKey], bool]] = [
            lambda key: key in mine,
            lambda key: key not in mine,
        ]
        added: dict[Grouping, Counter[Any]] = {grouping: Counter() for grouping in grouped}
        for part in parts:
            sums = await sums_of(store, span, grouped, bounds_ns, service=service, only=part)
            assert sums == model.sums(span, grouped, bounds_ns, service=service, only=part)
            for grouping, counts in sums.groups.items():
                added[grouping] += counts
        assert added == expected.groups
        for instant_ns in {*instants, NOW_NS - 1}:
            for part in parts:
                then = await sums_of(store, span, by, [], as_of_ns=instant_ns, only=part)
                assert then == model.sums(span, by, [], as_of_ns=instant_ns, only=part)
            then = await sums_of(store, span, by, [], as_of_ns=instant_ns)
            assert then == model.sums(span, by, [], as_of_ns=instant_ns)
        await store.aclose()
