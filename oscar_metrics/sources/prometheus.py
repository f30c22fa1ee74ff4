"""CPU and GPU time of services, from Prometheus or a relative of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from oscar_metrics.errors import UpstreamError
from oscar_metrics.facts import Inventory, SlotUsage, Usage
from oscar_metrics.findings import Finding
from oscar_metrics.outcome import Outcome, Unavailable
from oscar_metrics.sources.prometheus_api import ORIGIN, PrometheusApi, PrometheusSettings
from oscar_metrics.sources.prometheus_check import PrometheusCheck
from oscar_metrics.sources.prometheus_reading import UsageReading
from oscar_metrics.sources.prometheus_scrapes import retained_from_ms
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, MILLISECOND_NS, Span

__all__ = ["PrometheusSettings", "PrometheusUsage"]

F = TypeVar("F")


class PrometheusUsage:
    """Asks one Prometheus how much each service used."""

    origin = ORIGIN

    def __init__(self, settings: PrometheusSettings, *, telemetry: Telemetry) -> None:
        self._settings = settings
        self._api = PrometheusApi(settings, telemetry)

    async def read(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[Usage]:
        """CPU core-seconds and GPU-seconds by service; `ServiceKey(namespace, "")` is unattributed.

        How each is measured is described in `promql` and, in words, among the notes where it
        is not exact.
        """
        reading = self._reading(span, inventory, now_ns, slotted=False)
        return await self._run(reading, reading.outcome, deadline)

    async def read_slots(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[tuple[SlotUsage, ...]]:
        """The same slot by slot: by quarter-hours, or hours where a method knows nothing shorter.

        Slots that nothing is known of are left out, and are gaps. The slots add up to what
        `read` says of the span, if it is of whole hours.
        """
        reading = self._reading(span, inventory, now_ns, slotted=True)
        return await self._run(reading, reading.slots, deadline)

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        """The first instant that may still be read (ns), where Prometheus tells how long it keeps.

        None where it does not, or does not answer.
        """
        try:
            async with asyncio.timeout_at(deadline):
                retained_ms = await retained_from_ms(self._api, now_ns // MILLISECOND_NS)
        except (TimeoutError, UpstreamError):
            return None
        if retained_ms is None:
            return None
        oldest_ns = now_ns - self._settings.look_back_days * DAY_NS
        return max(retained_ms * MILLISECOND_NS, oldest_ns)

    async def check(self, now_ns: int) -> list[Finding]:
        """What stands between it and complete usage."""
        return await PrometheusCheck(self._settings, self._api, now_ns).findings()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    def _reading(
        self, span: Span, inventory: Outcome[Inventory], now_ns: int, *, slotted: bool
    ) -> UsageReading:
        return UsageReading(self._settings, self._api, span, inventory, now_ns, slotted=slotted)

    async def _run(
        self, reading: UsageReading, outcome: Callable[[], Outcome[F]], deadline: float | None
    ) -> Outcome[F]:
        try:
            async with asyncio.timeout_at(deadline):
                await reading.run()
        except TimeoutError:
            pass  # what was not answered is still waiting there
        except UpstreamError as exc:
            return Unavailable(origin=ORIGIN, notes=(str(exc),))
        return outcome()
