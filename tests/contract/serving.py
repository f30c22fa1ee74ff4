"""Our server on a real socket, over sources that say what a test wants said."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx
import msgspec
import uvicorn
from litestar.types import ASGIApp

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.authenticator import UserTokens
from oscar_metrics.auth.basic import BEARER_CHALLENGE
from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import Unauthorized
from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    LogStream,
    NamespaceOwner,
    Result,
    Roster,
    Service,
    ServiceKey,
    SlotPart,
    SlottedLog,
    SlotUsage,
    Tallies,
    Usage,
)
from oscar_metrics.findings import Finding
from oscar_metrics.handlers.bounded_http import bounded_http
from oscar_metrics.handlers.connection_settings import ConnectionSettings
from oscar_metrics.handlers.routes import build_app
from oscar_metrics.handlers.shared_answers import SharedAnswers
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.sealer_status import LedgerStatus
from oscar_metrics.outcome import Ok, Outcome, Unavailable, with_facts
from oscar_metrics.privacy import Privacy
from oscar_metrics.resilience.lanes import LaneSettings
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.scope import ScopeMode
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SLOT_NS, Span, parse_instant

USERNAME, PASSWORD = "oscar", "p:ss wörd"
NOW = "2026-05-01T12:00:00Z"
NOW_NS = parse_instant(NOW)
# When everything the sources speak of happened, where they tell instants apart.
HAPPENED_NS = parse_instant("2026-04-07T10:20:00Z")
SHOW_EVERYTHING = Privacy()
# Tests of anything else fail to log in as often as they like.
MANY_FAILURES = AccessSettings(failed_logins_per_minute=100_000)
# Tests of anything else have every report made, and at once.
NOTHING_KEPT = CacheSettings(store="off")
MANY_PLACES = LaneSettings(
    reports_at_once=1000, long_reports_at_once=1000, ledger_reports_at_once=1000
)
# With a client as with an operator's.
PATIENT = ConnectionSettings()
RANGE = {"start": "2026-04-01T00:00:00Z", "end": "2026-04-30T23:59:59Z"}


class SaidInventory:
    """An inventory source that says one thing."""

    def __init__(self, said: Outcome[Inventory]) -> None:
        self._said = said

    async def read(self, *, now_ns: int, deadline: float | None) -> Outcome[Inventory]:
        del now_ns, deadline
        return self._said

    async def check(self, now_ns: int) -> list[Finding]:
        del now_ns
        return []


class SaidUsage:
    """A usage source that says one thing, of the instant when everything happened."""

    def __init__(self, said: Outcome[Usage]) -> None:
        self._said = said

    async def read(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[Usage]:
        del inventory, now_ns, deadline
        if HAPPENED_NS in span or isinstance(self._said, Unavailable):
            return self._said
        return with_facts(self._said, Usage(cpu_seconds={}, gpu_seconds={}))

    async def read_slots(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[tuple[SlotUsage, ...]]:
        said = await self.read(span, inventory, now_ns=now_ns, deadline=deadline)
        if isinstance(said, Unavailable):
            return said
        slot = SlotUsage(slot=HAPPENED_NS // SLOT_NS, quarters=1, usage=said.facts)
        return with_facts(said, (slot,) if HAPPENED_NS in span else ())

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        del now_ns, deadline
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        del now_ns
        return []


class SaidLogs:
    """A log source that says one thing of each stream, and remembers the spans it was asked."""

    origin = "log-files"

    def __init__(self, said: dict[LogStream, Outcome[CallLog]]) -> None:
        self._said = said
        self.asked: list[Span] = []

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
        self.asked.append(span)
        return {stream: self._said[stream] for stream in streams}

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        said = await self.read(span, streams, countries, now_ns=now_ns, deadline=deadline)
        part = SlotPart(HAPPENED_NS // SLOT_NS, first=False)
        return {
            stream: outcome
            if isinstance(outcome, Unavailable)
            else with_facts(outcome, {part: outcome.facts} if HAPPENED_NS in span else {})
            for stream, outcome in said.items()
        }

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        del now_ns, deadline
        return None

    async def check(self, now_ns: int) -> list[Finding]:
        del now_ns
        return []


class SaidRoster:
    """A roster that says one thing."""

    def __init__(self, said: Outcome[Roster]) -> None:
        self._said = said

    async def read(self, now_ns: int) -> Outcome[Roster]:
        del now_ns
        return self._said

    async def check(self) -> list[Finding]:
        return []


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What each source says; None for one that is not configured."""

    inventory: Outcome[Inventory] | None = None
    usage: Outcome[Usage] | None = None
    executions: Outcome[CallLog] | None = None
    exposed: Outcome[CallLog] | None = None
    roster: Outcome[Roster] | None = None


def call(
    service: str,
    user: str,
    country: str,
    kind: Kind = Kind.SYNC,
    result: Result = Result.OK,
    namespace: str = "oscar-svc",
) -> CallKey:
    came_from = CountryFrom.LABEL if country else CountryFrom.NOTHING
    return CallKey(namespace, service, user, country, came_from, kind, result)


def log(tallies: dict[CallKey, int]) -> Outcome[CallLog]:
    counted = Tallies(tallies)
    total = counted.total()
    return Ok(
        facts=CallLog(tallies=counted, lines_seen=total, lines_understood=total),
        origin="log-files",
        last_updated_ns=NOW_NS,
    )


# Every source has spoken; `=odd` is a user no spreadsheet should run.
WHOLE = World(
    inventory=Ok(
        facts=Inventory(
            services=(
                Service(
                    namespace="oscar-svc-alice",
                    name="cowsay",
                    owner="alice@egi.eu",
                    owner_name="Alice_Example",
                ),
                Service(namespace="oscar-svc", name="grayify", owner="cluster_admin"),
            ),
            owners=(NamespaceOwner(namespace="oscar-svc-alice", owner="alice@egi.eu"),),
        ),
        origin="kubernetes",
        last_updated_ns=NOW_NS,
    ),
    usage=Ok(
        facts=Usage(
            cpu_seconds={
                ServiceKey("oscar-svc", "cowsay"): 45000.0,
                ServiceKey("oscar-svc", ""): 1800.0,
            },
            gpu_seconds={ServiceKey("oscar-svc", "cowsay"): 0.0},
        ),
        origin="prometheus",
        last_updated_ns=NOW_NS,
    ),
    executions=log(
        {
            call("cowsay", "alice@egi.eu", "ES"): 3,
            call("cowsay", "bob@egi.eu", "FR", Kind.ASYNC, namespace="oscar-svc-bob"): 1,
            call("grayify", "nil", "", Kind.ASYNC, Result.CLIENT_ERROR): 2,
            call("grayify", "=odd", "ES", Kind.SYNC, Result.SERVER_ERROR): 1,
            call("value", "", "ES"): 1,
        }
    ),
    exposed=log({call("demo", "", "", Kind.EXPOSED): 7}),
)
# Nothing is configured.
NOTHING = World()


def aggregator(
    world: World,
    telemetry: Telemetry,
    logs: SaidLogs | None = None,
    ledger: LedgerHolder | None = None,
    *,
    mode: ScopeMode = ScopeMode.OWNED,
    privacy: Privacy = SHOW_EVERYTHING,
) -> Aggregator:
    if logs is None and world.executions is not None and world.exposed is not None:
        logs = SaidLogs({LogStream.EXECUTIONS: world.executions, LogStream.EXPOSED: world.exposed})
    return Aggregator(
        Sources(
            geoip=GeoIP(None),
            roster=SaidRoster(world.roster) if world.roster else Rosters(),
            inventory=SaidInventory(world.inventory) if world.inventory else None,
            usage=SaidUsage(world.usage) if world.usage else None,
            logs=logs,
        ),
        telemetry=telemetry,
        now_ns=lambda: NOW_NS,
        deadline_seconds=30.0,
        ledger=ledger,
        mode=mode,
        privacy=privacy,
    )


class KnownTokens:
    """Knows some users by their tokens; an error stands for what happens with one."""

    def __init__(self, known: Mapping[str, Caller | Exception]) -> None:
        self._known = known

    async def caller(self, token: str) -> Caller:
        found = self._known.get(token)
        if isinstance(found, Caller):
            return found
        raise found or Unauthorized(BEARER_CHALLENGE)

    async def aclose(self) -> None:
        pass


@contextmanager
def serving(
    answering: Aggregator,
    telemetry: Telemetry,
    *,
    admin: bool = True,
    users: UserTokens | None = None,
    access: AccessSettings = MANY_FAILURES,
    connections: ConnectionSettings = PATIENT,
    ledger_status: Callable[[], LedgerStatus] | None = None,
    cache: CacheSettings = NOTHING_KEPT,
    lanes: LaneSettings = MANY_PLACES,
    shared: SharedAnswers | None = None,
) -> Iterator[httpx.Client]:
    """A client of a server that runs in a thread of its own until the block ends."""
    app = build_app(
        answering,
        username=USERNAME,
        password=PASSWORD,
        users=users,
        access=access,
        telemetry=telemetry,
        version="0.1.0",
        cache=cache,
        lanes=lanes,
        shared=shared,
        ledger_status=ledger_status,
    )
    auth = httpx.BasicAuth(USERNAME, PASSWORD) if admin else None
    with (
        listening(app, telemetry, connections) as (base_url, _),
        httpx.Client(base_url=base_url, auth=auth, timeout=30) as client,
    ):
        yield client


@contextmanager
def listening(
    app: ASGIApp, telemetry: Telemetry, connections: ConnectionSettings
) -> Iterator[tuple[str, uvicorn.Server]]:
    """Where an application is answering in a thread of its own until the block ends."""
    config = uvicorn.Config(
        app,
        log_config=None,
        loop="uvloop",
        http=bounded_http(connections, telemetry),
        ws="none",
        proxy_headers=False,
        lifespan="on",
    )
    server = uvicorn.Server(config)
    # Listening before the server runs, so that who connects early waits instead of failing.
    with socket.create_server(("127.0.0.1", 0)) as accepting:
        thread = threading.Thread(target=server.run, args=([accepting],), name="server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{accepting.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join()
