"""The server over a world: sources that say its facts by their times, and a real ledger."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from litestar.types import ASGIApp

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import Unauthorized
from oscar_metrics.facts import (
    CallLog,
    Inventory,
    LogStream,
    Roster,
    RosterUser,
    ServiceKey,
    SlotPart,
    SlottedLog,
    SlotUsage,
    Usage,
    UsageMethod,
)
from oscar_metrics.findings import Finding
from oscar_metrics.handlers.routes import build_app
from oscar_metrics.ledger.candidates import of_calls, of_usage
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.seals import KIND_OF, Candidate, SealKind
from oscar_metrics.outcome import Outcome, Partial, Unavailable, settle
from oscar_metrics.resilience.lanes import LaneSettings
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.scope import ScopeMode
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span
from tests.scope.worlds import EARLY_NS, FIRST_NS, LATE_NS, ME, NOW_NS, Called, Frame, World

F = TypeVar("F")

FIRST_HOUR = FIRST_NS // HOUR_NS
USERNAME, PASSWORD = "oscar", "secret"
BOTH = frozenset(LogStream)
# What sealing is done with: of every source that is asked again later, it has something.
_SPOKEN = {"ok": "ok", "partial": "partial", "missing": "ok"}


class Telling:
    """Says what a world's facts are, in the state its frame gives each source."""

    origin = "loki"

    def __init__(self, world: World, frame: Frame, *, early: bool = False) -> None:
        self._world = world
        self._frame = frame
        self._called = [one for one in world.called if not (early and one.late)]

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]:
        del countries, now_ns, deadline
        return {
            stream: self._said(stream.value, span, _log(self._within(span, stream)))
            for stream in streams
        }

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        del countries, now_ns, deadline
        return {stream: self._slotted(span, stream) for stream in streams}

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        del now_ns, deadline
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        del now_ns
        return []

    def _slotted(self, span: Span, stream: LogStream) -> Outcome[SlottedLog]:
        parts: defaultdict[SlotPart, list[Called]] = defaultdict(list)
        for one in self._within(span, stream):
            parts[SlotPart(one.at_ns // SLOT_NS, one.first)].append(one)
        return self._said(stream.value, span, {part: _log(of) for part, of in parts.items()})

    def _within(self, span: Span, stream: LogStream) -> list[Called]:
        return [one for one in self._called if one.stream is stream and one.at_ns in span]

    def _said(self, source: str, span: Span, facts: F) -> Outcome[F]:
        return said(self._world, self._frame, source, self.origin, span, facts)


class TellingUsage:
    """The same of usage, which is all at the beginning of its slot."""

    def __init__(self, world: World, frame: Frame) -> None:
        self._world = world
        self._frame = frame

    async def read(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[Usage]:
        del inventory, now_ns, deadline
        return self._said(span, self._usage(span))

    async def read_slots(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[tuple[SlotUsage, ...]]:
        del inventory, now_ns, deadline
        slots = range(span.start_ns // SLOT_NS, span.stop_ns // SLOT_NS)
        return self._said(
            span,
            tuple(
                SlotUsage(
                    slot=slot,
                    quarters=1,
                    usage=self._usage(Span(slot * SLOT_NS, (slot + 1) * SLOT_NS)),
                )
                for slot in slots
            ),
        )

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        del now_ns, deadline
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        del now_ns
        return []

    def _usage(self, span: Span) -> Usage:
        cpu: Counter[ServiceKey] = Counter()
        gpu: Counter[ServiceKey] = Counter()
        for one in self._world.used:
            if one.at_ns in span:
                cpu[one.service] += one.cpu_seconds
                gpu[one.service] += one.gpu_seconds
        methods = {UsageMethod.CPU_INCREASE}
        if self._frame.has_gpu:
            methods.add(UsageMethod.GPU_COUNTER)
        return Usage(
            cpu_seconds={key: float(seconds) for key, seconds in cpu.items()},
            gpu_seconds=(
                {key: float(seconds) for key, seconds in gpu.items()}
                if self._frame.has_gpu
                else None
            ),
            methods=frozenset(methods),
        )

    def _said(self, span: Span, facts: F) -> Outcome[F]:
        return said(self._world, self._frame, "prometheus", "prometheus", span, facts)


class TellingInventory:
    def __init__(self, world: World, frame: Frame) -> None:
        self._world = world
        self._frame = frame

    async def read(self, *, now_ns: int, deadline: float | None) -> Outcome[Inventory]:
        del deadline
        facts = self._world.now
        outcome = said(
            self._world, self._frame, "kubernetes", "kubernetes", Span(now_ns, now_ns), facts
        )
        if facts.cut is True and not isinstance(outcome, Unavailable):
            return Partial(facts=facts, origin="kubernetes", notes=("some are missing",))
        return outcome

    async def check(self, now_ns: int) -> list[Finding]:
        del now_ns
        return []


class TellingRoster:
    def __init__(self, world: World, frame: Frame) -> None:
        self._world = world
        self._frame = frame

    async def read(self, now_ns: int) -> Outcome[Roster]:
        users = {
            user: RosterUser(id=user, vo=vo, project=project)
            for user, (vo, project) in self._world.affiliations.items()
        }
        facts = Roster(users=users)
        return said(self._world, self._frame, "roster", "roster", Span(now_ns, now_ns), facts)

    async def check(self) -> list[Finding]:
        return []


class Tokens:
    """A token is its user's name."""

    async def caller(self, token: str) -> Caller:
        if not token:
            raise Unauthorized("Bearer")
        return Caller(user=token)

    async def aclose(self) -> None:
        """Nothing is open."""


def said(world: World, frame: Frame, source: str, origin: str, span: Span, facts: F) -> Outcome[F]:
    """What a source in the state of its frame makes of some facts."""
    notes = world.notes[source]
    state = frame.states[source]
    if state == "missing":
        return Unavailable(origin=origin, notes=notes)
    return settle(
        facts,
        origin=origin,
        asked=span,
        now_ns=NOW_NS,
        doubts=notes if state == "partial" else (),
        notes=notes if state == "ok" else (),
    )


@asynccontextmanager
async def serving(
    world: World, frame: Frame, file: Path, *, forgets: tuple[str, ...] = ()
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the server; whose token it sends is for each request to say.

    The ledger, where the frame has one, is a new file.
    """
    ledger = None
    if frame.sealed is not None:
        ledger = DuckLedger.open(file, create=True, memory_mb=64, threads=1)
    try:
        if ledger is not None:
            await _seal(ledger, world, frame)
            for user in forgets:
                await ledger.forget(user, now_ns=LATE_NS)
        telemetry = Telemetry()
        app = build_app(
            Aggregator(
                Sources(
                    geoip=GeoIP(None),
                    roster=TellingRoster(world, frame),
                    inventory=TellingInventory(world, frame),
                    usage=TellingUsage(world, frame),
                    logs=Telling(world, frame),
                ),
                telemetry=telemetry,
                now_ns=lambda: NOW_NS,
                deadline_seconds=None,
                ledger=None if ledger is None else LedgerHolder(ledger, rows_max=100_000),
                privacy=frame.privacy,
                mode=ScopeMode.VISIBLE if frame.visible else ScopeMode.OWNED,
            ),
            username=USERNAME,
            password=PASSWORD,
            users=Tokens(),
            access=AccessSettings(),
            telemetry=telemetry,
            version="0.1.0",
            # What is kept for one viewer is never to be another's.
            cache=CacheSettings(),
            lanes=LaneSettings(),
        )
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with (
            running(app),
            httpx.AsyncClient(transport=transport, base_url="http://metrics") as client,
        ):
            yield client
    finally:
        if ledger is not None:
            await ledger.aclose()


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[None]:
    """The application started, as a server would, and stopped at the end."""
    told: asyncio.Queue[Any] = asyncio.Queue()
    said: asyncio.Queue[Any] = asyncio.Queue()
    scope: Any = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(app, scope, told, said))
        await told.put({"type": "lifespan.startup"})
        assert (await said.get())["type"] == "lifespan.startup.complete"
        try:
            yield
        finally:
            await told.put({"type": "lifespan.shutdown"})


async def _run(
    app: ASGIApp, scope: Any, told: asyncio.Queue[Any], said: asyncio.Queue[Any]
) -> None:
    await app(scope, told.get, said.put)


def bearer(user: str = ME) -> dict[str, str]:
    return {"Authorization": f"Bearer {user}"}


async def _seal(ledger: DuckLedger, world: World, frame: Frame) -> None:
    heard = msgspec.structs.replace(
        frame, states={source: _SPOKEN[state] for source, state in frame.states.items()}
    )
    hours = range(frame.past_from, frame.past_until)
    inventories = [
        Candidate(
            kind=SealKind.INVENTORY,
            hour=FIRST_HOUR + hour,
            origin="kubernetes",
            inventory=world.past[number * len(world.past) // len(hours)],
        )
        for number, hour in enumerate(hours)
        if world.past
    ]
    await ledger.seal(inventories, now_ns=EARLY_NS)
    if frame.twice:
        await ledger.seal(await _candidates(world, heard, early=True), now_ns=EARLY_NS)
    await ledger.seal(await _candidates(world, heard, early=False), now_ns=LATE_NS)


async def _candidates(world: World, frame: Frame, *, early: bool) -> list[Candidate]:
    logs, usage = Telling(world, frame, early=early), TellingUsage(world, frame)
    nothing: Outcome[Inventory] = Unavailable(origin="", notes=())
    found: list[Candidate] = []
    for hour in sorted(frame.sealed or ()):
        start_ns = FIRST_NS + hour * HOUR_NS
        span = Span(start_ns, start_ns + HOUR_NS)
        said_of = await logs.read_slots(
            span, BOTH, Countries(GeoIP(None), Roster()), now_ns=NOW_NS, deadline=None
        )
        for stream, outcome in said_of.items():
            found += of_calls(KIND_OF[stream], outcome, span)
        used = await usage.read_slots(span, nothing, now_ns=NOW_NS, deadline=None)
        found += of_usage(used, span)
    return found


def _log(called: list[Called]) -> CallLog:
    tallies = Counter[object]()
    for one in called:
        tallies[one.key] += one.count
    total = tallies.total()
    return CallLog(tallies=tallies, lines_seen=total, lines_understood=total)  # type: ignore[arg-type]
