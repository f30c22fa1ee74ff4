"""What every engine of the ledger knows of owners, and sums for some services only."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from oscar_metrics.errors import TooManyRows
from oscar_metrics.facts import LogStream, ServiceKey, SlotPart
from oscar_metrics.ledger.seals import Owned, Owns
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.timerange import HOUR_NS, Span
from tests.ledger.stores import (
    FIRST,
    NOW_NS,
    ROWS_MAX,
    deployed,
    executions,
    hours,
    key,
    roll_up_all,
    slotted,
    total,
    used,
)

HOUR = hours(FIRST)


async def test_whoever_was_once_an_owner_is_known(store: LedgerStore) -> None:
    assert await store.owned() == Owned(owners=frozenset())
    await store.seal([executions(FIRST)], now_ns=NOW_NS)
    assert (await store.owned()).known == ()
    odd = 'O\'Brien "x" \\ Ωμέγα\x00end'
    for later_ns, candidate in enumerate(
        [
            deployed(FIRST + 2, {"a": "ana", "b": odd}, shared="cluster_admin", hers="ana"),
            deployed(FIRST + 3, {"a": "ana", "b": odd}, shared="cluster_admin", hers="ana"),
            # The hour is sealed anew, the service has another owner, one cannot be read.
            deployed(FIRST + 3, {"a": "bo", "unread": ""}, hers="ana"),
            deployed(FIRST + 2, {}),
            deployed(FIRST + 1, {}),
        ]
    ):
        await store.seal([candidate], now_ns=NOW_NS + later_ns)
    known = Owned(
        owners=frozenset(
            {
                Owns("oscar-svc", "a", "ana"),
                Owns("oscar-svc", "a", "bo"),
                Owns("oscar-svc", "b", odd),
                Owns("oscar-svc", "unread", ""),
                Owns("shared", "", "cluster_admin"),
                Owns("hers", "", "ana"),
            }
        ),
        known=(Span(HOUR.start_ns + HOUR_NS, HOUR.start_ns + 4 * HOUR_NS),),
    )
    assert await store.owned() == known
    # Nobody looked for more than three hours after the first of these; the second is apart.
    for hour in (FIRST + 7, FIRST + 12):
        await store.seal([deployed(hour, {})], now_ns=NOW_NS + 9)
    known = msgspec.structs.replace(
        known,
        known=(
            Span((FIRST + 1) * HOUR_NS, (FIRST + 8) * HOUR_NS),
            Span((FIRST + 12) * HOUR_NS, (FIRST + 13) * HOUR_NS),
        ),
    )
    assert await store.owned() == known
    while await store.compact(now_ns=NOW_NS, quarters_kept_ns=0, hours_kept_ns=0):
        pass
    assert await store.owned() == known


async def test_every_service_is_known_by_calls_or_usage(store: LedgerStore) -> None:
    assert await store.services() == frozenset()
    calls = slotted(
        {
            (SlotPart(FIRST * 4, first=False), key(service, namespace=namespace)): 1
            for namespace, service in (("x", "cowsay"), ("", "cowsay"))
        }
    )
    await store.seal(
        [executions(FIRST, calls), used(FIRST, [{"a": 1.0, "": 1.0}]), deployed(FIRST, {"b": ""})],
        now_ns=NOW_NS,
    )
    await store.seal([used(FIRST, [{}])], now_ns=NOW_NS + 1)
    assert await store.services() == {
        ServiceKey("x", "cowsay"),
        ServiceKey("", "cowsay"),
        ServiceKey("oscar-svc", "a"),
        ServiceKey("oscar-svc", ""),
    }


@pytest.mark.parametrize("count", [3, 450])
async def test_calls_of_chosen_services_only(store: LedgerStore, count: int) -> None:
    """A few services, and more of them than are named in a query."""
    day = [
        executions(
            hour,
            slotted(
                {
                    (SlotPart(hour * 4, first=False), key(f"s{n}", namespace=namespace)): n + 1
                    for n in range(count)
                    for namespace in ("x", "y")
                }
            )
            if hour == FIRST + 1
            else {},
        )
        for hour in range(FIRST, FIRST + 24)
    ]
    await store.seal(day, now_ns=NOW_NS)
    chosen: list[tuple[Callable[[ServiceKey], bool], int]] = [
        (lambda _: False, 0),
        (lambda _: True, count * (count + 1)),
        (lambda key: key == ("x", "s2"), 3),
        (lambda key: key.namespace == "x", count * (count + 1) // 2),
        (lambda key: key.service != "s1", count * (count + 1) - 4),
    ]
    bounds_ns = [HOUR.start_ns + hour * HOUR_NS for hour in (0, 1, 2, 24)]
    for _ in ("from slots", "from the day"):
        for only, expected in chosen:
            assert await total(store, hours(FIRST, 24), only=only) == expected
            assert await total(store, hours(FIRST, 24), only=only, as_of_ns=NOW_NS) == expected
            assert await total(store, hours(FIRST + 1), only=only) == expected
            sums = await store.call_sums(
                LogStream.EXECUTIONS,
                [hours(FIRST, 24)],
                [("period",), ("period", "namespace")],
                service="s2",
                only=only,
                bounds_ns=bounds_ns,
                rows_max=ROWS_MAX,
            )
            of_one = {n: 3 for n in ("x", "y") if only(ServiceKey(n, "s2"))}
            assert sums.by("period") == ({(1,): sum(of_one.values())} if of_one else {})
            assert sums.by("period", "namespace") == {(1, n): 3 for n in of_one}
        await roll_up_all(store)
    for _ in range(2):
        with pytest.raises(TooManyRows):
            await store.call_sums(
                LogStream.EXECUTIONS,
                [hours(FIRST, 24)],
                [(), ("service",)],
                only=lambda key: key == ("x", "s2"),
                rows_max=0,
            )
    # Whom to ask for is asked of the services as they are when the sums are made.
    asked: set[ServiceKey] = set()

    def ask(key: ServiceKey) -> bool:
        asked.add(key)
        return False

    await total(store, HOUR, only=ask)
    assert asked == await store.services()
