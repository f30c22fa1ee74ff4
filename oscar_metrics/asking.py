"""The questions of one report: which stretches are read from the ledger, which asked of sources.

One clock reading, one deadline, one range. What could not be had is an outcome; only what
the caller asked of the ledger itself, and it cannot say, is an error.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
import structlog

from oscar_metrics.errors import BadRequest, LedgerChanged, LedgerError, NotNow, TooManyRows
from oscar_metrics.facts import (
    CallLog,
    Inventory,
    LogStream,
    Roster,
    ServiceCount,
    Tallies,
)
from oscar_metrics.figures import service_count
from oscar_metrics.groupings import ONE_SERVICE, Needs, of_a_series
from oscar_metrics.joined import Piece, join
from oscar_metrics.ledger.plan import (
    Plan,
    first_slot_missing,
    holds,
    names_of,
    open_stretches,
    says_less,
    stored_instead,
    whole_slots,
)
from oscar_metrics.ledger.reading import LedgerReading
from oscar_metrics.ledger.seals import KIND_OF, Restated, Sealed, SealKind
from oscar_metrics.live import NO_CLUSTER, Live, SharedReads, logs_in
from oscar_metrics.outcome import GapReason, Ok, Outcome, Unavailable, with_facts
from oscar_metrics.ownership import Ownership
from oscar_metrics.scope import Scope
from oscar_metrics.scoped_facts import Only, Sight
from oscar_metrics.sums import CallSums, Grouping, together
from oscar_metrics.tasks import task_group, worked_out
from oscar_metrics.timerange import SLOT_NS, ReportRange, Span, subtract
from oscar_metrics.usage_sums import UsageByPeriod, add_usage, any_usage, methods_differ

F = TypeVar("F")
G = TypeVar("G")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_NOTHING_SEALED = Sealed(stretches=(), gaps=())
_RETRY_AFTER_SECONDS = 15
# Hours sealed anew that one report lists.
RESTATED_MOST = 10_000


class Asking:
    """Asks the ledger and the sources for one report.

    `ledger` is None where there is none; `problem` is why one that is configured cannot be
    used. `scope` is None for the whole cluster, of which `ownership` is for a report by owner.
    Raises BadRequest where the caller asked for what the ledger does not hold, NotNow where
    it cannot be read.
    """

    def __init__(
        self,
        live: Live,
        asked: ReportRange,
        *,
        now_ns: int,
        ledger: LedgerReading | None,
        problem: str,
        scope: Scope | None = None,
        ownership: Ownership | None = None,
    ) -> None:
        self.now_ns = now_ns
        self._live = live
        self._asked = asked
        self._ledger = ledger
        self._problem = problem
        self._scope = scope
        self._sight = Sight(scope, bounds_ns(asked), ownership)
        self._bounds_ns = bounds_ns(asked)
        if scope is not None and asked.restated_since_ns is not None:
            raise BadRequest(
                "restated_since is only available for the whole cluster",
                parameter="restated_since",
                detail="it counts every call of an hour: leave it out, or owner with it",
            )
        for parameter in ("as_of", "restated_since"):
            if ledger is None and getattr(asked, f"{parameter}_ns") is not None:
                raise _needs_ledger(parameter, problem)

    @property
    def knows_ns(self) -> int:
        """The instant the report speaks from: now, or the one it is as of."""
        return self.now_ns if self._asked.as_of_ns is None else self._asked.as_of_ns

    async def inventory(self) -> Outcome[Inventory]:
        """What is deployed now, or was as of the instant asked for, as far as it is seen."""
        if self._asked.as_of_ns is None:
            outcome = await self._live.inventory()
        else:
            outcome = await self._from_ledger(lambda ledger: ledger.inventory())
        if self._scope is None:
            return outcome
        return self.told(_mapped(outcome, self._scope.inventory))

    async def roster(self) -> Outcome[Roster]:
        """What is known of users now: membership is never as of another time."""
        return self.told(await self._live.roster())

    def told(self, outcome: Outcome[F]) -> Outcome[F]:
        """An outcome in words that who asks may read."""
        return self._sight.told(outcome)

    async def usage(self, *, service: str | None = None) -> Outcome[UsageByPeriod]:
        """Usage by period, 0 where there are none; of one service name, or of all."""
        made, sealed = await self._plan(SealKind.USAGE)
        # Series are told by what is deployed, whoever asks.
        known = await self._live.inventory() if made.open and self._live.has_usage else NO_CLUSTER

        async def stored(plan: Plan) -> Outcome[UsageByPeriod]:
            outcome = await self._from_ledger(lambda ledger: ledger.usage(plan, service=service))
            return self._sight.usage(outcome, self._sight.since(plan.stored), service)

        async def live(span: Span) -> Outcome[UsageByPeriod]:
            outcome = await self._live_usage(span, known)
            return self._sight.usage(outcome, self._sight.since([span]), service)

        outcome = await self._joined(made, sealed, stored, live, add_usage, any_usage)
        return self._noted(methods_differ(outcome))

    async def calls(self, needs: Needs) -> dict[LogStream, Outcome[CallSums]]:
        """The sums of calls that a report needs of each stream."""
        if self._asked.periods:
            needs = of_a_series(needs)
        plans = {stream: await self._plan(KIND_OF[stream]) for stream in needs}
        wanted: defaultdict[Span, set[LogStream]] = defaultdict(set)
        for stream, (made, _) in plans.items():
            for span in self._open(made):
                wanted[span].add(stream)

        async def of(stream: LogStream, read: SharedReads) -> Outcome[CallSums]:
            groupings = needs[stream]

            async def stored(plan: Plan) -> Outcome[CallSums]:
                return await self._stored_calls(stream, plan, groupings)

            async def live(span: Span) -> Outcome[CallSums]:
                logs = await read.of(span, stream)
                return self._sight.calls(logs[stream], groupings, self._sight.since([span]))

            def add(parts: list[CallSums]) -> CallSums:
                return together(parts, groupings)

            return await self._joined(*plans[stream], stored, live, add, _any_calls)

        async with task_group() as group:
            read = SharedReads(group, wanted, self._read_logs)
            tasks = {stream: group.create_task(of(stream, read)) for stream in needs}
        return {stream: self._noted(task.result()) for stream, task in tasks.items()}

    async def counts(
        self, service: str, streams: Iterable[LogStream], *, users: bool
    ) -> dict[LogStream, Outcome[ServiceCount]]:
        """One service's calls in each stream, and with `users` who made its executions."""

        async def of(stream: LogStream) -> Outcome[ServiceCount]:
            async def stored(plan: Plan) -> Outcome[ServiceCount]:
                groupings = ONE_SERVICE[stream]
                return service_count(await self._stored_calls(stream, plan, groupings, service))

            async def live(span: Span) -> Outcome[ServiceCount]:
                return await self._live_count(span, stream, service, users=users)

            plan = await self._plan(KIND_OF[stream])
            return await self._joined(*plan, stored, live, _add_counts, _any_called)

        async with task_group() as group:
            tasks = {stream: group.create_task(of(stream)) for stream in streams}
        return {stream: self._noted(task.result()) for stream, task in tasks.items()}

    async def restated(self, streams: Iterable[LogStream], *, usage: bool) -> list[Restated] | None:
        """What was sealed anew since the instant asked about; None where none was.

        Raises BadRequest past `RESTATED_MOST` hours.
        """
        since_ns = self._asked.restated_since_ns
        if since_ns is None or self._ledger is None:
            return None
        try:
            hours = await self._ledger.restated(
                list(streams), usage=usage, since_ns=since_ns, most=RESTATED_MOST + 1
            )
        except LedgerError as exc:
            raise _not_now(exc) from exc
        if len(hours) > RESTATED_MOST:
            raise BadRequest(
                "too many hours were restated",
                parameter="restated_since",
                detail=f"more than {RESTATED_MOST:,}: ask for a shorter range or a later time",
            )
        return hours

    async def _plan(self, kind: SealKind) -> tuple[Plan, Sealed]:
        everything_open = Plan(stored=(), open=(self._asked.span,)), _NOTHING_SEALED
        if self._ledger is None:
            return everything_open
        try:
            sealed = await self._ledger.sealed(kind)
        except LedgerError as exc:
            self._give_up_ledger(exc)
            return everything_open
        can_ask = self._live.has_usage if kind is SealKind.USAGE else self._live.has_logs
        made = self._ledger.plan(kind, sealed, can_ask=can_ask)
        if self._asked.as_of_ns is None or not made.open:
            return made, sealed
        if kind is SealKind.USAGE and not sealed.stretches:
            return Plan(stored=(), open=()), _NOTHING_SEALED  # nobody was asked for it then
        raise BadRequest(
            "as_of is not available for this range",
            parameter="as_of",
            detail=first_slot_missing(kind, made),
        )

    async def _joined(
        self,
        made: Plan,
        sealed: Sealed,
        stored: Callable[[Plan], Awaitable[Outcome[F]]],
        live: Callable[[Span], Awaitable[Outcome[F]]],
        add: Callable[[list[F]], F],
        holds_any: Callable[[F], bool],
    ) -> Outcome[F]:
        """The outcome of the whole range, each stretch from where it is to be had."""
        cuts: list[Span] = []

        async def asked(span: Span) -> Piece:
            outcome = await live(span)
            if holds(made.doubtful, span) and says_less(outcome, sealed, span):
                outcome = await stored(stored_instead(self._asked.span, sealed, (span,)))
            cut = [slot for slot in made.cut if slot.clip(span).length_ns]
            if not isinstance(outcome, Ok):
                cuts.extend(cut)
            if isinstance(outcome, Unavailable) and outcome.origin:
                reason = GapReason.FAILED  # it may say more a moment later
            else:
                reason = GapReason.CUT if cut else GapReason.NOT_SEALED
            return Piece(spans=(span,), outcome=outcome, if_missing=reason)

        async def read(part: Plan) -> list[Piece]:
            outcome = await stored(part)
            if not isinstance(outcome, Unavailable):
                return [Piece(spans=part.stored, outcome=outcome)]
            # What cannot be read back may still be had where it came from.
            return [await asked(span) for span in part.stored]

        async with task_group() as group:
            first = [group.create_task(read(part)) for part in self._stored_apart(made, sealed)]
            rest = [group.create_task(asked(span)) for span in self._open(made)]
        pieces = [piece for task in first for piece in task.result()]
        pieces += [task.result() for task in rest]
        if not pieces:
            return Unavailable(origin="ledger", notes=("nothing of it had been sealed then",))
        # In order of time, not in that of who answered first, which others' calls decide on.
        named = names_of(sorted(set(cuts)))

        def joined() -> Outcome[F]:
            return join(
                pieces,
                add,
                holds_any,
                asked=self._asked.span,
                now_ns=self.knows_ns,
                doubts=[f"the range cuts slots that are stored whole: {named}"] if named else [],
            )

        return await worked_out(joined, rows=sum(map(_groups, pieces)))

    def _stored_apart(self, made: Plan, sealed: Sealed) -> list[Plan]:
        """What is stored, in parts of which each is seen alike."""
        parts = self._sight.apart(made.stored)
        if len(parts) < 2:
            return [made] if made.stored else []
        known, _ = (whole_slots(self._asked.span, sealed, part) for part in parts)
        unknown = tuple(left for span in made.stored for left in subtract(span, known))
        both = [part for part in (known, unknown) if part]
        return [stored_instead(self._asked.span, sealed, part) for part in both]

    def _open(self, made: Plan) -> list[Span]:
        """What is open, in stretches of which each is seen alike."""
        return [
            part
            for span in open_stretches(made)
            for parts in self._sight.apart([span])
            for part in parts
        ]

    async def _from_ledger(
        self, answer: Callable[[LedgerReading], Awaitable[Outcome[F]]]
    ) -> Outcome[F]:
        if self._ledger is None:
            return Unavailable(origin="ledger", notes=(self._problem,))
        try:
            return await answer(self._ledger)
        except TooManyRows as exc:
            raise BadRequest("too many rows", detail=str(exc)) from exc
        except LedgerChanged as exc:
            raise NotNow(str(exc), detail="ask again", retry_after_seconds=1) from exc
        except LedgerError as exc:
            self._give_up_ledger(exc)
            return Unavailable(origin="ledger", notes=(str(exc),))

    def _give_up_ledger(self, exc: LedgerError) -> None:
        """Go on without the ledger; raise NotNow where only the ledger could answer."""
        if self._asked.as_of_ns is not None:
            raise _not_now(exc) from exc
        _log.warning("the ledger could not be read", error=str(exc))
        self._problem = str(exc)

    def _noted(self, outcome: Outcome[F]) -> Outcome[F]:
        """The outcome, saying so where a ledger is configured and could not be used."""
        if self._problem:
            note = f"the ledger could not be used: {self._problem}"
            outcome = msgspec.structs.replace(outcome, notes=(*outcome.notes, note))
        return self.told(outcome)

    async def _stored_calls(
        self,
        stream: LogStream,
        plan: Plan,
        groupings: Collection[Grouping],
        service: str | None = None,
    ) -> Outcome[CallSums]:
        async def read(wanted: Collection[Grouping], only: Only | None) -> Outcome[CallSums]:
            return await self._from_ledger(
                lambda ledger: ledger.calls(stream, plan, wanted, service=service, only=only)
            )

        return await self._sight.stored_calls(read, groupings, self._sight.since(plan.stored))

    async def _live_usage(self, span: Span, known: Outcome[Inventory]) -> Outcome[UsageByPeriod]:
        parts = [span.clip(period.span) for period in self._asked.periods] or [span]

        async def of(number: int, part: Span) -> Piece:
            outcome = await self._live.usage(part, known)
            by_period = _mapped(outcome, lambda usage: {number: usage})
            return Piece(spans=(part,), outcome=by_period, if_missing=GapReason.FAILED)

        async with task_group() as group:
            tasks = [
                group.create_task(of(number, part))
                for number, part in enumerate(parts)
                if part.length_ns
            ]
        pieces = [task.result() for task in tasks]
        return join(pieces, add_usage, any_usage, asked=span, now_ns=self.now_ns)

    async def _live_count(
        self, span: Span, stream: LogStream, service: str, *, users: bool
    ) -> Outcome[ServiceCount]:
        outcome = None
        if self._scope is None:  # engines count by a service's name, whoever's it is
            outcome = await self._live.count(
                span, stream, service, users=users and stream is LogStream.EXECUTIONS
            )
        if outcome is None:
            logs = await self._read_logs(span, frozenset({stream}), slotted=False)
            since_ns = self._sight.since([span])
            calls = self._sight.calls(logs[stream], ONE_SERVICE[stream], since_ns, service)
            return service_count(calls)
        if isinstance(outcome, Unavailable):
            return outcome
        known_as = await self._pseudonyms(outcome.facts.users)
        callers = frozenset(known_as.get(user, user) for user in outcome.facts.users)
        return with_facts(outcome, msgspec.structs.replace(outcome.facts, users=callers))

    async def _read_logs(
        self, span: Span, streams: frozenset[LogStream], *, slotted: bool | None = None
    ) -> dict[LogStream, Outcome[Any]]:
        """The logs of a stretch, by parts of slots where the report has periods."""
        slotted = bool(self._asked.periods) if slotted is None else slotted
        outcomes = await self._live.logs(span, streams, slotted=slotted)
        return {stream: await self._renamed(outcome) for stream, outcome in outcomes.items()}

    async def _renamed(self, outcome: Outcome[Any]) -> Outcome[Any]:
        """The same with the pseudonyms of users that were forgotten, as the ledger has them."""
        if isinstance(outcome, Unavailable) or self._ledger is None:
            return outcome
        users = {key.user for log in logs_in(outcome.facts) for key in log.tallies}
        known_as = await self._pseudonyms(users)
        if not known_as:
            return outcome
        if isinstance(outcome.facts, CallLog):
            return with_facts(outcome, _known_as(outcome.facts, known_as))
        renamed = {part: _known_as(log, known_as) for part, log in outcome.facts.items()}
        return with_facts(outcome, renamed)

    async def _pseudonyms(self, users: Collection[str]) -> Mapping[str, str]:
        if self._ledger is None or not users:
            return {}
        try:
            return await self._ledger.pseudonyms(users)
        except LedgerError as exc:
            self._give_up_ledger(exc)
            return {}


def bounds_ns(asked: ReportRange) -> tuple[int, ...]:
    """The bounds of a range's periods, the first moved back to the start of its slot."""
    if not asked.periods:
        return ()
    first_ns = asked.span.start_ns // SLOT_NS * SLOT_NS
    return (first_ns, *(period.span.stop_ns for period in asked.periods))


def _groups(piece: Piece) -> int:
    outcome = piece.outcome
    said = None if isinstance(outcome, Unavailable) else outcome.facts
    return said.size if isinstance(said, CallSums) else 0


def _mapped(outcome: Outcome[F], change: Callable[[F], G]) -> Outcome[G]:
    if isinstance(outcome, Unavailable):
        return outcome
    return with_facts(outcome, change(outcome.facts))


def _known_as(log: CallLog, known_as: Mapping[str, str]) -> CallLog:
    tallies: Tallies = Counter()
    for key, count in log.tallies.items():
        tallies[key._replace(user=known_as.get(key.user, key.user))] += count
    return msgspec.structs.replace(log, tallies=tallies)


def _add_counts(parts: list[ServiceCount]) -> ServiceCount:
    calls: Counter[Any] = Counter()
    for part in parts:
        calls.update(part.calls)
    return ServiceCount(calls=dict(calls), users=frozenset().union(*(part.users for part in parts)))


def _any_calls(sums: CallSums) -> bool:
    return any(sums.groups.values())


def _any_called(count: ServiceCount) -> bool:
    return any(count.calls.values())


def _needs_ledger(parameter: str, problem: str) -> BadRequest | NotNow:
    if problem:
        return NotNow(
            f"{parameter} needs the ledger",
            detail=problem,
            retry_after_seconds=_RETRY_AFTER_SECONDS,
        )
    return BadRequest(
        f"{parameter} needs the ledger",
        parameter=parameter,
        detail="this server runs without one (OSCAR_METRICS_LEDGER)",
    )


def _not_now(exc: LedgerError) -> NotNow:
    return NotNow(
        "the ledger cannot be read", detail=str(exc), retry_after_seconds=_RETRY_AFTER_SECONDS
    )
