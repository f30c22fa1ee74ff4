"""What a source can be asked, and who there is to ask."""

from __future__ import annotations

from typing import Protocol

import msgspec

from oscar_metrics.facts import (
    CallLog,
    Inventory,
    LogStream,
    Person,
    Roster,
    ServiceCount,
    SlottedLog,
    SlotUsage,
    Usage,
)
from oscar_metrics.findings import Finding
from oscar_metrics.outcome import Outcome
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.remembered_claims import RememberedClaims
from oscar_metrics.timerange import Span


class InventorySource(Protocol):
    """Says what is deployed."""

    async def read(self, *, now_ns: int, deadline: float | None) -> Outcome[Inventory]:
        """What is deployed now."""

    async def check(self, now_ns: int) -> list[Finding]:
        """What stands between it and a complete report."""


class UsageSource(Protocol):
    """Says how much was used."""

    async def read(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[Usage]:
        """CPU and GPU seconds over a span."""

    async def read_slots(
        self, span: Span, inventory: Outcome[Inventory], *, now_ns: int, deadline: float | None
    ) -> Outcome[tuple[SlotUsage, ...]]:
        """The same over each slot of a span of whole hours, as it is sealed.

        What `read` says of the same span is the sum of them.
        """

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        """The first instant of what is still kept (ns); None where that is not known."""

    async def check(self, now_ns: int) -> list[Finding]:
        """What stands between it and a complete report."""


class LogSource(Protocol):
    """Says who called what."""

    origin: str

    async def read(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[CallLog]]:
        """The tallies of each stream over a span."""

    async def read_slots(
        self,
        span: Span,
        streams: frozenset[LogStream],
        countries: Countries,
        *,
        now_ns: int,
        deadline: float | None,
    ) -> dict[LogStream, Outcome[SlottedLog]]:
        """The same by parts of quarter-hours; parts without a recognised line are absent."""

    async def kept_from(self, now_ns: int, deadline: float | None) -> int | None:
        """The first instant of what is still kept (ns); None where that is not known."""

    async def check(self, now_ns: int) -> list[Finding]:
        """What stands between it and a complete report."""


class CountingLogSource(LogSource, Protocol):
    """A log source that can count one service's calls without reading all others'."""

    async def count_service(
        self,
        span: Span,
        stream: LogStream,
        service: str,
        *,
        users: bool,
        now_ns: int,
        deadline: float | None,
    ) -> Outcome[ServiceCount]:
        """The calls of one service, and with `users` who made them."""


class PeopleSource(Protocol):
    """An origin that knows who some of the users are."""

    async def read(self, now_ns: int) -> Outcome[dict[str, Person]]:
        """What it says of each user, by id; the same `dict` again while nothing has changed."""

    async def check(self) -> list[Finding]:
        """What an operator should know of it."""


class RosterSource(Protocol):
    """Says who the users are."""

    async def read(self, now_ns: int) -> Outcome[Roster]:
        """What is known of users now."""

    async def check(self) -> list[Finding]:
        """What an operator should know of where it comes from."""


class Connection(Protocol):
    """What a source keeps open."""

    async def aclose(self) -> None:
        """Close it."""


class Background(Protocol):
    """What a source does meanwhile, where it is in a server."""

    async def run(self) -> None:
        """Do it until cancelled."""


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Everyone who may be asked; None for what is not configured.

    `counting` is the log source again, where it can count; `fallback_logs` is asked where
    `logs` says nothing at all. `connections` are closed when nobody is asked any more;
    `background` is what a server has them do meanwhile. `claims` are told of log-ins.
    """

    geoip: GeoIP
    roster: RosterSource
    inventory: InventorySource | None = None
    usage: UsageSource | None = None
    logs: LogSource | None = None
    counting: CountingLogSource | None = None
    fallback_logs: LogSource | None = None
    connections: tuple[Connection, ...] = ()
    background: tuple[Background, ...] = ()
    claims: RememberedClaims | None = None
