"""What a report is told by the ledger of owners and of some services, and when it is late."""

from __future__ import annotations

import asyncio

import pytest

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import LogStream, ServiceKey, SlotPart
from oscar_metrics.ledger.reading import LedgerReading
from oscar_metrics.ledger.seals import Owned, Owns, SealKind
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Ok
from tests.ledger.stores import (
    FIRST,
    NOW_NS,
    ROWS_MAX,
    deployed,
    executions,
    hours,
    key,
    slotted,
)

HOUR = hours(FIRST)


def reading(store: LedgerStore, *, deadline: float | None = None) -> LedgerReading:
    return LedgerReading(
        store,
        HOUR,
        now_ns=NOW_NS,
        as_of_ns=None,
        bounds_ns=(),
        rows_max=ROWS_MAX,
        deadline=deadline,
    )


async def test_a_report_reads_calls_of_some_services_and_whose_they_are(
    store: LedgerStore,
) -> None:
    part = SlotPart(FIRST * 4, first=False)
    calls = slotted({(part, key("a")): 3, (part, key("b")): 5})
    await store.seal(
        [executions(FIRST, calls), deployed(FIRST, {"a": "ana"}, shared="cluster_admin")],
        now_ns=NOW_NS,
    )
    ledger = reading(store)
    sealed = await ledger.sealed(SealKind.EXECUTIONS)
    made = ledger.plan(SealKind.EXECUTIONS, sealed, can_ask=False)
    outcome = await ledger.calls(
        LogStream.EXECUTIONS, made, [("service",)], only=lambda one: one.service == "b"
    )
    assert isinstance(outcome, Ok)
    assert outcome.facts.by("service") == {("b",): 5}
    assert await ledger.services() == {ServiceKey("oscar-svc", "a"), ServiceKey("oscar-svc", "b")}
    assert await ledger.owned() == Owned(
        owners=frozenset({Owns("oscar-svc", "a", "ana"), Owns("shared", "", "cluster_admin")}),
        known=(HOUR,),
    )


async def test_what_comes_after_the_deadline_is_an_error(store: LedgerStore) -> None:
    late = reading(store, deadline=asyncio.get_running_loop().time() - 1)
    for asked in (late.owned, late.services):
        with pytest.raises(LedgerError, match="deadline"):
            await asked()


async def test_who_was_forgotten_is_told_past_the_deadline(store: LedgerStore) -> None:
    """What a source hands over at the deadline is renamed all the same."""
    await store.seal(
        [executions(FIRST, slotted({(SlotPart(FIRST * 4, first=False), key("a")): 3}))],
        now_ns=NOW_NS,
    )
    user = key("a").user
    pseudonym = await store.forget(user, now_ns=NOW_NS)
    late = reading(store, deadline=asyncio.get_running_loop().time() - 1)
    assert await late.pseudonyms([user]) == {user: pseudonym}
