"""Whether the process is alive and able to answer, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Request, Response
from prometheus_client.exposition import choose_encoder

from oscar_metrics.aggregator import Aggregator, LastSaid
from oscar_metrics.handlers.authentication import Authentication
from oscar_metrics.ledger.sealer_status import LedgerStatus
from oscar_metrics.resilience.breaker import BreakerState
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.wire import SourceName

AnyRequest = Request[Any, Any, Any]
_NOT_STORED = {"Cache-Control": "no-store", "Vary": "Authorization"}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: str


class Readiness(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The process answers; for the administrator, what each source said when last asked.

    And which upstreams are asked, and how far the ledger is, where there is one.
    """

    status: str
    sources: dict[SourceName, LastSaid] | None = None
    upstreams: dict[str, BreakerState] | None = None
    ledger: LedgerStatus | None = None


class HealthRoutes:
    """Answers without credentials; readiness tells the administrator more."""

    def __init__(
        self,
        aggregator: Aggregator,
        authentication: Authentication,
        telemetry: Telemetry,
        ledger_status: Callable[[], LedgerStatus] | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._authentication = authentication
        self._telemetry = telemetry
        self._ledger_status = ledger_status

    async def healthz(self) -> Response[bytes]:
        """The process is alive."""
        return _json(Health(status="ok"))

    async def readyz(self, request: AnyRequest) -> Response[bytes]:
        """The process can answer, also with every source and the ledger down: it then says so."""
        if not await self._authentication.is_administrator(request):
            return _json(Readiness(status="ready"))
        ledger = None if self._ledger_status is None else self._ledger_status()
        sources = self._aggregator.last_said()
        upstreams = {name: BreakerState(state) for name, state in self._telemetry.breakers.items()}
        return _json(
            Readiness(status="ready", sources=sources, upstreams=upstreams or None, ledger=ledger)
        )

    async def metrics(self, request: AnyRequest) -> Response[bytes]:
        """The process's own metrics, as Prometheus text or OpenMetrics."""
        if self._ledger_status is not None:
            self._telemetry.ledger.usable.set(self._ledger_status().usable)
        self._telemetry.tasks.set(len(asyncio.all_tasks()))
        try:
            encode, content_type = choose_encoder(request.headers.get("accept", ""))
        except (TypeError, ValueError):  # a version that is no version
            encode, content_type = choose_encoder("")
        return Response(
            content=encode(self._telemetry.registry),
            headers={"Cache-Control": "no-store", "Content-Type": content_type, "Vary": "Accept"},
        )


def _json(body: msgspec.Struct) -> Response[bytes]:
    return Response(
        content=msgspec.json.encode(body), media_type="application/json", headers=_NOT_STORED
    )
