"""The only place that wires things together, and the only one that reads a clock."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

import msgspec
import structlog
import uvicorn
from litestar.types import ASGIApp

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.oidc import OidcAuth
from oscar_metrics.commands import Commands, Reporter
from oscar_metrics.errors import SettingsError
from oscar_metrics.handlers.bounded_http import bounded_http
from oscar_metrics.handlers.places import within_descriptors
from oscar_metrics.handlers.routes import build_app
from oscar_metrics.handlers.shared_answers import SharedAnswers
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.keeper import answer_for_ever, kept_open
from oscar_metrics.ledger.sealer import Sealer
from oscar_metrics.ledger.sealer_status import LedgerStatus
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.privacy import Privacy
from oscar_metrics.resilience.report_cache import IN_MEMORY, CacheSettings
from oscar_metrics.resilience.shared_cache import SharedCache, cache_key
from oscar_metrics.scope import ScopeMode
from oscar_metrics.settings import OFF, Settings
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import PeopleSource, Sources
from oscar_metrics.sources.keycloak_people import KeycloakPeople
from oscar_metrics.sources.kubernetes import KubernetesInventory
from oscar_metrics.sources.kubernetes_client import KubernetesClient
from oscar_metrics.sources.log_files import LogFiles
from oscar_metrics.sources.loki import LokiLogs
from oscar_metrics.sources.pod_logs import PodLogs
from oscar_metrics.sources.prometheus import PrometheusUsage
from oscar_metrics.sources.remembered_claims import RememberedClaims
from oscar_metrics.sources.roster import RosterFile
from oscar_metrics.sources.roster_rules_file import RulesFile
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.stopping import Server
from oscar_metrics.telemetry import Telemetry

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def create_app(
    settings: Settings, stop: asyncio.Event | None = None, telemetry: Telemetry | None = None
) -> ASGIApp:
    """The ASGI application; raises SettingsError where what it needs to serve is missing.

    Once `stop` is set, reports under way end with 503.
    """
    for name, value in (
        ("OSCAR_USERNAME", settings.username),
        ("OSCAR_PASSWORD", settings.password),
    ):
        if not value:
            raise SettingsError(name, "not set: the administrator's reports need it")
    telemetry = telemetry or Telemetry()
    sources = create_sources(settings, telemetry)
    ledger = settings.ledger
    holder = LedgerHolder(rows_max=ledger.rows_max) if ledger.is_on else None
    sealer: Sealer | None = None

    async def keep(store: LedgerStore) -> None:
        nonlocal sealer
        sealer = create_sealer(settings, sources, telemetry, store)
        commands = create_commands(settings, sources, telemetry, store, sealer)
        async with asyncio.TaskGroup() as group:
            group.create_task(sealer.run())
            group.create_task(answer_for_ever(ledger, commands.work))

    def ledger_status() -> LedgerStatus:
        if sealer is not None:
            return sealer.status()
        return LedgerStatus(usable=False, problems=(holder.problem if holder else "",))

    return build_app(
        create_aggregator(
            settings,
            sources,
            telemetry,
            ledger=holder,
            deadline_seconds=settings.deadline_seconds,
        ),
        username=settings.username,
        password=settings.password,
        users=create_oidc(settings, telemetry, sources.claims),
        access=settings.access,
        cache=settings.cache,
        lanes=settings.lanes,
        shared=create_shared_answers(settings, telemetry),
        telemetry=telemetry,
        version=importlib.metadata.version("oscar-metrics"),
        running=meanwhile(sources, kept_open(holder, ledger, keep) if holder else None),
        ledger_status=ledger_status if holder else None,
        stop=stop,
    )


@asynccontextmanager
async def meanwhile(
    sources: Sources, running: AbstractAsyncContextManager[None] | None
) -> AsyncIterator[None]:
    """What sources do in the background, and `running`, within the block."""
    async with asyncio.TaskGroup() as group, running or nullcontext():
        tasks = [group.create_task(one.run()) for one in sources.background]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def create_aggregator(
    settings: Settings,
    sources: Sources,
    telemetry: Telemetry,
    *,
    ledger: LedgerHolder | None,
    deadline_seconds: float | None,
) -> Aggregator:
    """An aggregator over every source that is configured, and the ledger."""
    return Aggregator(
        sources,
        telemetry=telemetry,
        now_ns=time.time_ns,
        deadline_seconds=deadline_seconds,
        deadline_most_seconds=settings.deadline_most_seconds,
        periods_max=settings.ledger.periods_max,
        ledger=ledger,
        mode=ScopeMode(settings.access.scope),
        privacy=Privacy(
            pseudonym_key=settings.access.pseudonym_key if settings.access.pseudonyms else "",
            country_users_least=settings.access.country_users_least,
            shared_namespace=settings.inventory.services_namespace,
        ),
    )


def create_shared_answers(settings: Settings, telemetry: Telemetry) -> SharedAnswers | None:
    """Where answers are kept for other processes; None where that is in memory only."""
    cache = settings.cache
    if cache.store in (OFF, IN_MEMORY):
        return None
    # Whose settings differ in what shapes answers, or in a secret, share nothing.
    shaping = msgspec.structs.replace(
        settings, host="", port=1, log_json=True, log_level="info", cache=CacheSettings()
    )
    key = cache_key([msgspec.json.encode(shaping).decode()])
    return SharedAnswers(SharedCache(cache.store, key, cache.redis, telemetry), cache)


def create_oidc(
    settings: Settings, telemetry: Telemetry, claims: RememberedClaims | None = None
) -> OidcAuth | None:
    """What knows users by their tokens, and has log-ins remembered; None where none are let in."""
    if not settings.oidc.enable:
        return None
    return OidcAuth(
        settings.oidc,
        telemetry=telemetry,
        now=time.time,
        remember=None if claims is None else claims.remember,
    )


def create_sealer(
    settings: Settings, sources: Sources, telemetry: Telemetry, store: LedgerStore
) -> Sealer:
    """What seals hours of these sources in an open ledger."""
    return Sealer(store, sources, settings.ledger, telemetry=telemetry, now_ns=time.time_ns)


def create_commands(
    settings: Settings,
    sources: Sources,
    telemetry: Telemetry,
    store: LedgerStore,
    sealer: Sealer,
) -> Commands:
    """What the command line may ask of an open ledger; its reports wait as long as it takes."""
    aggregator = create_aggregator(
        settings,
        sources,
        telemetry,
        ledger=LedgerHolder(store, rows_max=settings.ledger.rows_max),
        deadline_seconds=None,
    )
    return Commands(store, sealer, Reporter(aggregator), sources, settings, time.time_ns)


def create_sources(settings: Settings, telemetry: Telemetry) -> Sources:
    """Everyone the settings name. Log files stand alone; pod logs stand in for Loki."""
    loki = LokiLogs(settings.loki, telemetry=telemetry) if settings.loki.url else None
    files = LogFiles(settings.log_files) if settings.log_files.pattern else None
    if loki and files:
        raise SettingsError(
            "OSCAR_METRICS_LOG_FILES",
            "set beside LOKI_URL: two request logs would count calls twice; unset one of them",
        )
    has_cluster = settings.kubernetes.config != OFF
    cluster = KubernetesClient(settings.kubernetes, telemetry) if has_cluster else None
    pods = PodLogs(cluster, settings.pod_logs) if cluster else None
    prometheus = (
        PrometheusUsage(settings.prometheus, telemetry=telemetry)
        if settings.prometheus.url != OFF
        else None
    )
    keycloak = create_keycloak(settings, telemetry)
    remember = settings.remember
    claims = RememberedClaims(remember, time.time_ns) if remember.claims else None
    geoip = Path(settings.geoip_database) if settings.geoip_database else None
    return Sources(
        geoip=GeoIP.open(geoip),
        roster=create_roster(settings, keycloak, claims),
        inventory=KubernetesInventory(cluster, settings.inventory) if cluster else None,
        usage=prometheus,
        logs=files or loki or pods,
        counting=loki,
        fallback_logs=pods if loki else None,
        connections=tuple(filter(None, (loki, cluster, prometheus, keycloak))),
        background=tuple(filter(None, (keycloak, claims))),
        claims=claims,
    )


def create_keycloak(settings: Settings, telemetry: Telemetry) -> KeycloakPeople | None:
    """What reads Keycloak's users; None where that is not wanted."""
    asked = settings.keycloak
    if not asked.url:
        return None
    if not settings.roster.rules:
        # They take Keycloak longer than all else, and nothing but rules goes by them.
        asked = msgspec.structs.replace(asked, groups=0)
    return KeycloakPeople(asked, telemetry, time.time_ns)


def create_roster(
    settings: Settings, keycloak: KeycloakPeople | None, claims: RememberedClaims | None
) -> Rosters:
    """Who the users are: by the file, by Keycloak, by their log-ins, and by rules."""
    path, rules = settings.roster_file, settings.roster.rules
    file = RosterFile(Path(path), settings.roster) if path else None
    origins: tuple[PeopleSource | None, ...] = (file, keycloak, claims)
    return Rosters(
        [origin for origin in origins if origin is not None],
        RulesFile(Path(rules)) if rules else None,
    )


def serve(settings: Settings) -> bool:
    """Answer over HTTP until stopped; False when it could not start."""
    stop = asyncio.Event()
    telemetry = Telemetry()
    most = within_descriptors(settings.connections.most)
    connections = msgspec.structs.replace(settings.connections, most=most)
    config = uvicorn.Config(
        create_app(settings, stop, telemetry),
        loop="uvloop",
        http=bounded_http(connections, telemetry),
        lifespan="on",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        # It would take a caller's word for their address; auth/addresses.py decides whose it takes.
        proxy_headers=False,
    )
    server = Server(config, grace_seconds=settings.grace_seconds, stop=stop)
    # What is there now stays: to look through it again and again for what nobody needs any more
    # took an eighth of the time of refusing.
    gc.collect()
    gc.freeze()
    with _listening(settings) as listening:
        _log.info("listening", host=settings.host, port=settings.port)
        server.run([listening])
    return server.started


def _listening(settings: Settings) -> socket.socket:
    """The socket to answer on; raises SettingsError where it cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        return socket.create_server((settings.host, settings.port), family=family)
    except socket.gaierror:
        raise SettingsError(
            "OSCAR_METRICS_HOST", f"{settings.host} is no address of this machine"
        ) from None
    except OSError as exc:
        raise SettingsError(
            "OSCAR_SERVICE_PORT",
            f"cannot listen on {settings.host} port {settings.port} ({exc.strerror}):"
            " stop what listens there or choose another port",
        ) from exc
