"""Every route, and the application that answers them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar import Litestar, Request, Response, route
from litestar.connection import ASGIConnection
from litestar.enums import HttpMethod
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.addresses import Proxies
from oscar_metrics.auth.attempts import FailedLogins
from oscar_metrics.auth.authenticator import Authenticator, UserTokens
from oscar_metrics.auth.basic import BasicAuth
from oscar_metrics.errors import RequestError
from oscar_metrics.handlers import time_limits
from oscar_metrics.handlers.answers import Answers
from oscar_metrics.handlers.authentication import Authentication
from oscar_metrics.handlers.body_bound import refuse_large_body
from oscar_metrics.handlers.cors import Cors
from oscar_metrics.handlers.edge import Edge
from oscar_metrics.handlers.ended_early import EndedEarly
from oscar_metrics.handlers.health import HealthRoutes
from oscar_metrics.handlers.problems import exception_handlers, refused
from oscar_metrics.handlers.reports import Reports
from oscar_metrics.handlers.schema import SchemaRoutes
from oscar_metrics.handlers.shared_answers import SharedAnswers
from oscar_metrics.ledger.sealer_status import LedgerStatus
from oscar_metrics.resilience.lanes import Lanes, LaneSettings
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.telemetry import Telemetry

AnyRequest = Request[Any, Any, Any]
# Takes the request, or nothing where the answer is always the same.
OpenAnswer = Callable[..., Awaitable[Response[Any]]]
ReportAnswer = Callable[[AnyRequest], Coroutine[Any, Any, Response[bytes]]]


def build_app(
    aggregator: Aggregator,
    *,
    username: str,
    password: str,
    users: UserTokens | None,
    access: AccessSettings,
    telemetry: Telemetry,
    version: str,
    cache: CacheSettings,
    lanes: LaneSettings,
    shared: SharedAnswers | None = None,
    running: AbstractAsyncContextManager[None] | None = None,
    ledger_status: Callable[[], LedgerStatus] | None = None,
    stop: asyncio.Event | None = None,
) -> ASGIApp:
    """The ASGI application over an aggregator, which it closes when it shuts down.

    `username` and `password` are the administrator's; `users` knows other people by their
    tokens, None where they are not let in, and is closed, too. `version` is what the OpenAPI
    document says this is. `running` is entered before the first request is answered and
    left after the last one. `cache` is what is kept of reports, `lanes` how many are made at
    once; `shared` keeps answers outside the process, too. `ledger_status` is what readiness
    tells of the ledger. Once `stop` is set, reports under way end with 503.
    """
    failures = FailedLogins(
        per_minute=access.failed_logins_per_minute, addresses_most=access.addresses_kept
    )
    authentication = Authentication(
        Authenticator(BasicAuth(username, password), users, failures),
        Proxies(access.trusted_proxies),
        aggregator.privacy,
    )
    answers = Answers(aggregator, Lanes(lanes, telemetry), cache, telemetry, shared)
    litestar = Litestar(
        route_handlers=create_routes(
            aggregator, answers, authentication, telemetry, version, ledger_status, stop
        ),
        exception_handlers=exception_handlers(),
        on_shutdown=[aggregator.aclose, *([users.aclose] if users else [])],
        lifespan=[*([running] if running else []), answers.running()],
        # The document is written by hand (openapi.py) and what happens is logged by us.
        openapi_config=None,
        logging_config=None,
    )
    return Edge(litestar, Cors(access.cors_origins), telemetry)


def create_routes(
    aggregator: Aggregator,
    answers: Answers,
    authentication: Authentication,
    telemetry: Telemetry,
    version: str,
    ledger_status: Callable[[], LedgerStatus] | None = None,
    stop: asyncio.Event | None = None,
) -> list[HTTPRouteHandler]:
    """A handler per route of the contract; a trailing slash is the same route."""
    reports = Reports(aggregator, answers)
    health = HealthRoutes(aggregator, authentication, telemetry, ledger_status)
    schema = SchemaRoutes(version)
    ended_early = EndedEarly(stop or asyncio.Event())

    def report(path: str, answer: ReportAnswer) -> HTTPRouteHandler:
        async def let_in_and_answered(request: AnyRequest) -> Response[bytes]:
            limit = time_limits.begin(request, aggregator)
            await authentication.let_in(request, limit.deadline)
            return await answer(request)

        middleware = DefineMiddleware(_Report, ended_early=ended_early, answer=let_in_and_answered)
        decorated: HTTPRouteHandler = route(path, http_method=_READS, middleware=[middleware])(
            _never_called
        )
        return decorated

    return [
        report("/system/metrics", reports.summary_without_null),
        report("/system/metrics/value", reports.value),
        report("/system/metrics/summary", reports.summary),
        report("/system/metrics/breakdown", reports.breakdown),
        report("/system/metrics/owners", reports.owners),
        report("/system/metrics/{serviceName:str}", reports.service_without_null),
        _open("/healthz", health.healthz),
        _open("/readyz", health.readyz),
        _open("/metrics", health.metrics),
        _open("/schema", schema.negotiated),
        _open("/schema/openapi.json", schema.as_json),
        _open("/schema/openapi.yaml", schema.as_yaml),
        _open("/schema/page/{asset:str}", schema.asset),
    ]


class _Report:
    """Answers a report route as a middleware that hands on no request.

    What Litestar does to call a handler, guards and all, takes longer than to answer what is kept.
    """

    def __init__(self, app: ASGIApp, *, ended_early: EndedEarly, answer: ReportAnswer) -> None:
        del app
        self._ended_early = ended_early
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the answer, which others' going ends, and send it."""
        request: AnyRequest = Request(scope, receive, send)
        response: Response[bytes]
        try:
            refuse_large_body(scope)
            response = await self._ended_early.unless_gone(request, self._answer(request))
        except RequestError as exc:
            # By Litestar's way to a handler of exceptions a refusal would take half as long again.
            response = refused(request, exc)
        await response.to_asgi_response(None, request)(scope, receive, send)


async def _never_called() -> None:
    """Litestar has no route without a handler."""


# GET, and HEAD with it: the server leaves the body out.
_READS = [HttpMethod.GET, HttpMethod.HEAD]


def _open(path: str, answer: OpenAnswer) -> HTTPRouteHandler:
    """A route for everybody."""
    decorated: HTTPRouteHandler = route(path, http_method=_READS, guards=[_small_body])(answer)
    return decorated


async def _small_body(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """A guard; it waits for nothing, but what is not async is run in a thread."""
    refuse_large_body(connection.scope)
