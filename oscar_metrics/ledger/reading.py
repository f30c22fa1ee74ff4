"""What a report reads from the ledger: plans and outcomes, under the report's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

import msgspec

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import Inventory, LogStream, ServiceKey, UsageMethod
from oscar_metrics.ledger.plan import Plan, plan
from oscar_metrics.ledger.seals import KIND_OF, Owned, Restated, Sealed, SealKind, Stretch
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import (
    Outcome,
    Partial,
    SealedPart,
    Unavailable,
    not_understood,
    settle,
)
from oscar_metrics.sums import CallSums, Grouping
from oscar_metrics.timerange import HOUR_NS, Span, format_instant
from oscar_metrics.usage_sums import UsageByPeriod

T = TypeVar("T")

ORIGIN = "ledger"
# Inventories are sealed hour by hour; where none was for so long, things may have changed.
_INVENTORY_OLD_NS = 3 * HOUR_NS
# What a live source hands over at the deadline still has users to rename, however late it is.
_RENAMING_SECONDS = 2.0


class LedgerReading:
    """The ledger as one report sees it. Raises LedgerError where it cannot be read in time."""

    def __init__(
        self,
        store: LedgerStore,
        asked: Span,
        *,
        now_ns: int,
        as_of_ns: int | None,
        bounds_ns: Sequence[int],
        rows_max: int,
        deadline: float | None,
    ) -> None:
        self._store = store
        self._asked = asked
        self._now_ns = now_ns
        self._as_of_ns = as_of_ns
        self._bounds_ns = bounds_ns
        self._rows_max = rows_max
        self._deadline = deadline

    async def sealed(self, kind: SealKind) -> Sealed:
        """What is sealed of the hours the range touches."""
        return await self._in_time(self._store.sealed(kind, self._asked, as_of_ns=self._as_of_ns))

    def plan(self, kind: SealKind, sealed: Sealed, *, can_ask: bool) -> Plan:
        """How the range is put together; `can_ask` is whether there is a source of the kind."""
        return plan(
            kind,
            self._asked,
            sealed,
            as_of=self._as_of_ns is not None,
            now_ns=self._now_ns,
            can_ask=can_ask,
            bounds_ns=self._bounds_ns,
        )

    async def calls(
        self,
        stream: LogStream,
        made: Plan,
        groupings: Collection[Grouping],
        *,
        service: str | None = None,
        only: Callable[[ServiceKey], bool] | None = None,
    ) -> Outcome[CallSums]:
        """The sums over what is stored, with what was said when it was sealed.

        Of the services that `only` says yes to; of all without it.
        """
        sums = await self._in_time(
            self._store.call_sums(
                stream,
                made.stored,
                groupings,
                service=service,
                only=only,
                bounds_ns=self._bounds_ns,
                rows_max=self._rows_max,
                as_of_ns=self._as_of_ns,
            )
        )
        return self._outcome(sums, made, self._line_doubts(made))

    async def usage(self, made: Plan, *, service: str | None = None) -> Outcome[UsageByPeriod]:
        """Usage over what is stored, by period."""
        usage = await self._in_time(
            self._store.usage_sums(
                made.stored,
                service=service,
                bounds_ns=self._bounds_ns,
                as_of_ns=self._as_of_ns,
            )
        )
        methods = frozenset(method for s in made.stretches for method in methods_of(s))
        by_period = {
            period: msgspec.structs.replace(facts, methods=methods)
            for period, facts in usage.items()
        }
        return self._outcome(by_period, made, [])

    async def inventory(self) -> Outcome[Inventory]:
        """What was deployed as of the instant asked for."""
        as_of_ns = self._now_ns if self._as_of_ns is None else self._as_of_ns
        found = await self._in_time(self._store.inventory(as_of_ns=as_of_ns))
        if found is None:
            return Unavailable(origin=ORIGIN, notes=("no inventory had been sealed then",))
        inventory, sealed_at_ns = found
        old = as_of_ns - sealed_at_ns > _INVENTORY_OLD_NS
        return settle(
            inventory,
            origin=ORIGIN,
            asked=Span(as_of_ns, as_of_ns),
            now_ns=as_of_ns,
            doubts=[f"the newest that was known then is of {format_instant(sealed_at_ns)}"] * old,
            last_updated_ns=sealed_at_ns,
        )

    async def owned(self) -> Owned:
        """Every owner the ledger has ever known of a service or namespace, now and as of then."""
        return await self._in_time(self._store.owned())

    async def services(self) -> frozenset[ServiceKey]:
        """Every service the ledger was ever told calls or usage of."""
        return await self._in_time(self._store.services())

    async def restated(
        self, streams: Collection[LogStream], *, usage: bool, since_ns: int, most: int
    ) -> list[Restated]:
        """What of the range was sealed anew since an instant."""
        kinds = {KIND_OF[stream] for stream in streams} | ({SealKind.USAGE} if usage else set())
        return await self._in_time(
            self._store.restated(kinds, self._asked, since_ns=since_ns, most=most)
        )

    async def pseudonyms(self, users: Collection[str]) -> dict[str, str]:
        """Of these users those that were forgotten, by their pseudonyms; past the deadline too."""
        return await self._in_time(self._store.pseudonyms(users), least_seconds=_RENAMING_SECONDS)

    async def _in_time(self, answer: Awaitable[T], *, least_seconds: float = 0) -> T:
        deadline = self._deadline
        if deadline is not None:
            deadline = max(deadline, asyncio.get_running_loop().time() + least_seconds)
        try:
            async with asyncio.timeout_at(deadline):
                return await answer
        except TimeoutError:
            raise LedgerError(
                "the ledger had not answered when the report's deadline came"
            ) from None

    def _line_doubts(self, made: Plan) -> list[str]:
        return not_understood(
            sum(stretch.lines_seen for stretch in made.stretches),
            sum(stretch.lines_understood for stretch in made.stretches),
        )

    def _outcome(self, facts: T, made: Plan, doubts: Sequence[str]) -> Outcome[T]:
        stretches = made.stretches
        sealed = SealedPart(
            spans=made.stored,
            first_sealed_at_ns=min(s.first_sealed_at_ns for s in stretches),
            last_sealed_at_ns=max(s.last_sealed_at_ns for s in stretches),
            provisional_ns=sum(
                span.clip(s.span).length_ns
                for s in stretches
                if not s.final
                for span in made.stored
            ),
        )
        whole = Span(made.stored[0].start_ns, made.stored[-1].stop_ns)
        doubts = [*doubts, *(doubt for s in stretches for doubt in s.doubts)]
        outcome = settle(
            facts,
            origin=ORIGIN,
            asked=whole,
            now_ns=max(self._now_ns, whole.stop_ns),
            gaps=made.gaps,
            doubts=dict.fromkeys(doubts),
            notes=dict.fromkeys(note for s in stretches for note in s.notes),
            last_updated_ns=sealed.last_sealed_at_ns,
            # That nothing is left between the gaps is for the whole range to say.
            anything_read=True,
        )
        if isinstance(outcome, Unavailable):
            return outcome
        if isinstance(outcome, Partial) and not outcome.gaps and not self._line_doubts(made):
            measures = [s.measures for s in stretches if s.doubts]
            narrowed = frozenset().union(*measures) if all(measures) else frozenset()
            outcome = msgspec.structs.replace(outcome, measures=narrowed)
        return msgspec.structs.replace(outcome, sealed=sealed)


def methods_of(stretch: Stretch) -> frozenset[UsageMethod]:
    """How the usage of a stretch was measured."""
    return frozenset(UsageMethod(word) for word in stretch.method.split("+") if word)
