"""Every route, and the application that answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Response, route
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.types import ASGIApp, Guard

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.basic import BasicAuth
from oscar_metrics.handlers.health import HealthRoutes
from oscar_metrics.handlers.measured import Measured
from oscar_metrics.handlers.problems import exception_handlers
from oscar_metrics.handlers.reports import Reports
from oscar_metrics.handlers.schema import SchemaRoutes
from oscar_metrics.ledger.sealer_status import LedgerStatus
from oscar_metrics.telemetry import Telemetry

# Takes the request, or nothing where the answer is always the same.
Answer = Callable[..., Awaitable[Response[Any]]]


def build_app(
    aggregator: Aggregator,
    *,
    username: str,
    password: str,
    telemetry: Telemetry,
    version: str,
    running: AbstractAsyncContextManager[None] | None = None,
    ledger_status: Callable[[], LedgerStatus] | None = None,
) -> ASGIApp:
    """The ASGI application over an aggregator, which it closes when it shuts down.

    `username` and `password` are the administrator's; `version` is what the OpenAPI
    document says this is. `running` is entered before the first request is answered and
    left after the last one. `ledger_status` is what readiness tells of the ledger.
    """
    auth = BasicAuth(username, password)
    litestar = Litestar(
        route_handlers=create_routes(aggregator, auth, telemetry, version, ledger_status),
        exception_handlers=exception_handlers(),
        on_shutdown=[aggregator.aclose],
        lifespan=[running] if running else [],
        # The document is written by hand (openapi.py) and what happens is logged by us.
        openapi_config=None,
        logging_config=None,
    )
    return Measured(litestar, telemetry)


def create_routes(
    aggregator: Aggregator,
    auth: BasicAuth,
    telemetry: Telemetry,
    version: str,
    ledger_status: Callable[[], LedgerStatus] | None = None,
) -> list[HTTPRouteHandler]:
    """A handler per route of the contract; a trailing slash is the same route."""
    reports = Reports(aggregator)
    health = HealthRoutes(aggregator, auth, telemetry, ledger_status)
    schema = SchemaRoutes(version)
    admin = [_administrator_only(auth)]
    return [
        _get("/system/metrics", reports.summary_without_null, admin),
        _get("/system/metrics/value", reports.value, admin),
        _get("/system/metrics/summary", reports.summary, admin),
        _get("/system/metrics/breakdown", reports.breakdown, admin),
        _get("/system/metrics/owners", reports.owners, admin),
        _get("/system/metrics/{serviceName:str}", reports.service_without_null, admin),
        _get("/healthz", health.healthz),
        _get("/readyz", health.readyz),
        _get("/metrics", health.metrics),
        _get("/schema", schema.negotiated),
        _get("/schema/openapi.json", schema.as_json),
        _get("/schema/openapi.yaml", schema.as_yaml),
        _get("/schema/page/{asset:str}", schema.asset),
    ]


def _get(path: str, answer: Answer, guards: list[Guard] | None = None) -> HTTPRouteHandler:
    """GET, and HEAD with it: the server leaves the body out."""
    decorated: HTTPRouteHandler = route(
        path, http_method=[HttpMethod.GET, HttpMethod.HEAD], guards=guards
    )(answer)
    return decorated


def _administrator_only(auth: BasicAuth) -> Guard:
    async def guard(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
        auth.check(connection.headers.get("authorization"))

    return guard
