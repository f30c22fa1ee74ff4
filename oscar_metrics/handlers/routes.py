"""Every route, and the application that answers them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Response, route
from litestar.enums import HttpMethod
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, Guard

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.addresses import Proxies
from oscar_metrics.auth.attempts import FailedLogins
from oscar_metrics.auth.authenticator import Authenticator, UserTokens
from oscar_metrics.auth.basic import BasicAuth
from oscar_metrics.handlers.answer_headers import AnswerHeaders
from oscar_metrics.handlers.audit import Audited
from oscar_metrics.handlers.authentication import Authentication
from oscar_metrics.handlers.body_bound import refuse_large_body
from oscar_metrics.handlers.cors import Cors
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
    users: UserTokens | None,
    access: AccessSettings,
    telemetry: Telemetry,
    version: str,
    running: AbstractAsyncContextManager[None] | None = None,
    ledger_status: Callable[[], LedgerStatus] | None = None,
) -> ASGIApp:
    """The ASGI application over an aggregator, which it closes when it shuts down.

    `username` and `password` are the administrator's; `users` knows other people by their
    tokens, None where they are not let in, and is closed, too. `version` is what the OpenAPI
    document says this is. `running` is entered before the first request is answered and
    left after the last one. `ledger_status` is what readiness tells of the ledger.
    """
    failures = FailedLogins(
        per_minute=access.failed_logins_per_minute, addresses_most=access.addresses_kept
    )
    authentication = Authentication(
        Authenticator(BasicAuth(username, password), users, failures),
        Proxies(access.trusted_proxies),
        aggregator.privacy,
    )
    litestar = Litestar(
        route_handlers=create_routes(aggregator, authentication, telemetry, version, ledger_status),
        guards=[refuse_large_body],
        exception_handlers=exception_handlers(),
        on_shutdown=[aggregator.aclose, *([users.aclose] if users else [])],
        lifespan=[running] if running else [],
        # The document is written by hand (openapi.py) and what happens is logged by us.
        openapi_config=None,
        logging_config=None,
    )
    answering = AnswerHeaders(Audited(litestar), Cors(access.cors_origins))
    return Measured(answering, telemetry)


def create_routes(
    aggregator: Aggregator,
    authentication: Authentication,
    telemetry: Telemetry,
    version: str,
    ledger_status: Callable[[], LedgerStatus] | None = None,
) -> list[HTTPRouteHandler]:
    """A handler per route of the contract; a trailing slash is the same route."""
    reports = Reports(aggregator)
    health = HealthRoutes(aggregator, authentication, telemetry, ledger_status)
    schema = SchemaRoutes(version)
    known: list[Guard] = [authentication.guard]
    return [
        _get("/system/metrics", reports.summary_without_null, known),
        _get("/system/metrics/value", reports.value, known),
        _get("/system/metrics/summary", reports.summary, known),
        _get("/system/metrics/breakdown", reports.breakdown, known),
        _get("/system/metrics/owners", reports.owners, known),
        _get("/system/metrics/{serviceName:str}", reports.service_without_null, known),
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
