"""The shapes of every answer, field for field as the HTTP contract orders them. Pure.

`None` is a number whose source could not be read; UNSET is a field that is absent. Both ends
of a report's and of a period's range are included.

Of the rows there may be very many. They hold nothing that could hold them, so the collector of
cycles is spared them (`gc=False`): else it stops everybody to look at them all.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec
from msgspec import UNSET, UnsetType


class Metric(StrEnum):
    """The metric keys clients know, and whether one can be asked for a single service."""

    SERVICES_COUNT = "services-count"
    CPU_HOURS = "cpu-hours"
    GPU_HOURS = "gpu-hours"
    REQUESTS_SYNC = "requests-sync-per-service"
    REQUESTS_ASYNC = "requests-async-per-service"
    REQUESTS_EXPOSED = "requests-exposed-per-service"
    REQUESTS_PER_USER = "requests-per-user"
    USERS_PER_SERVICE = "users-per-service"
    COUNTRIES_COUNT = "countries-count"
    COUNTRIES_LIST = "countries-list"


# Those of one service, in the order the path route lists them.
SERVICE_METRICS = (
    Metric.CPU_HOURS,
    Metric.GPU_HOURS,
    Metric.REQUESTS_SYNC,
    Metric.REQUESTS_ASYNC,
    Metric.REQUESTS_EXPOSED,
    Metric.USERS_PER_SERVICE,
)


class GroupBy(StrEnum):
    """What a breakdown has a row for."""

    SERVICE = "service"
    USER = "user"
    COUNTRY = "country"
    OWNER = "owner"
    VO = "vo"
    PROJECT = "project"


class SourceName(StrEnum):
    """The sources of a report, in the order they are listed."""

    INVENTORY = "service-inventory"
    USAGE = "usage-metrics"
    REQUEST_LOGS = "request-logs"
    EXPOSED_REQUEST_LOGS = "exposed-request-logs"
    COUNTRIES = "country-attribution"
    ROSTER = "user-roster"


class SourceState(StrEnum):
    """How much of what was asked a source could say."""

    OK = "ok"
    PARTIAL = "partial"
    MISSING = "missing"


class WireGap(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch a source does not speak for; `end` is the first instant after it."""

    start: str
    end: str
    reason: str


class LedgerPart(msgspec.Struct, frozen=True, kw_only=True):
    """What of a source's facts was read from the ledger rather than asked of the source."""

    coverage: float
    first_sealed_at: str
    last_sealed_at: str
    provisional_hours: float


class SourceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What became of asking one source, and which fields of the answer it concerns."""

    name: SourceName
    status: SourceState
    last_updated: str | UnsetType = UNSET
    notes: str | UnsetType = UNSET
    origin: str
    coverage: float
    gaps: tuple[WireGap, ...]
    affects: tuple[str, ...]
    ledger: LedgerPart | UnsetType = UNSET


class Restatement(msgspec.Struct, frozen=True, kw_only=True):
    """An hour that was sealed anew: what it counted as before, and counts now.

    The unit is calls, or CPU core-hours where the source is usage.
    """

    source: SourceName
    start: str
    end: str
    sealed_at: str
    was: int | float
    now: int | float


class Value(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one service."""

    service_id: str
    metric: Metric
    start: str
    end: str
    as_of: str | UnsetType = UNSET
    # A count stays one when it is read from JSON: a saved answer has the bytes of HTTP's.
    value: int | float | None
    unit: str | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class ServiceMetric(msgspec.Struct, frozen=True, kw_only=True):
    """One of the metrics of a service, on the path route."""

    metric: Metric
    value: int | float | None
    unit: str | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]


class ServiceMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """Every metric of one service."""

    service_name: str
    start: str
    end: str
    as_of: str | UnsetType = UNSET
    metrics: tuple[ServiceMetric, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class CountryCount(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Executions from one country (ISO 3166-1 alpha-2)."""

    country: str
    request_count: int


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of a summary; none of the kept ones is ever absent."""

    services_count_active: int | None
    services_count_total: int | None
    cpu_hours_total: float | None
    gpu_hours_total: float | None
    requests_count_total: int | None
    requests_count_sync: int | None
    requests_count_async: int | None
    requests_count_exposed: int | None
    countries_count: int | None
    countries: tuple[CountryCount, ...]
    users_count: int | None
    users: tuple[str, ...]
    failed_count: int | None
    unknown_country_count: int | None


class SummaryPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The totals of one period of a series; `incomplete` are the sources with a gap in it."""

    period: str
    start: str
    end: str
    totals: Totals
    incomplete: tuple[SourceName, ...]


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Totals over a range."""

    start: str
    end: str
    as_of: str | UnsetType = UNSET
    totals: Totals
    periods: tuple[SummaryPeriod, ...] | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class ServiceItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row of one service name, whatever its namespaces."""

    key: str
    requests_count_total: int | None
    requests_count_sync: int | None
    requests_count_async: int | None
    requests_count_exposed: int | None
    unique_users_count: int | None
    users: tuple[str, ...] | UnsetType = UNSET
    countries: tuple[CountryCount, ...]
    namespaces: tuple[str, ...]
    failed_count: int | None
    cpu_hours: float | UnsetType | None = UNSET
    gpu_hours: float | UnsetType | None = UNSET
    unattributed: bool | UnsetType = UNSET


class UserItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row of one user; the key is blank for calls that name none."""

    key: str
    membership: str
    executions_count: int
    countries: tuple[CountryCount, ...]
    failed_count: int


class CountryItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row of one country, or of `unknown`; `countries` holds the row's own count."""

    key: str
    executions_count: int
    unique_users_count: int
    countries: tuple[CountryCount, ...]


class AffiliationItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row of one VO or project of users; the key is blank for calls of those who have none."""

    key: str
    executions_count: int
    unique_users_count: int
    countries: tuple[CountryCount, ...]
    failed_count: int


class OwnerItem(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The row of one owner of services; the key is blank for what is nobody's."""

    key: str
    name: str
    services_count: int | None
    requests_count_total: int | None
    requests_count_sync: int | None
    requests_count_async: int | None
    requests_count_exposed: int | None
    unique_users_count: int | None
    countries: tuple[CountryCount, ...]
    failed_count: int | None
    cpu_hours: float | UnsetType | None = UNSET
    gpu_hours: float | UnsetType | None = UNSET
    unattributed: bool | UnsetType = UNSET


class ServicePeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The rows per service of one period; `incomplete` are the sources with a gap in it."""

    period: str
    start: str
    end: str
    items: tuple[ServiceItem, ...]
    incomplete: tuple[SourceName, ...]


class UserPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The rows per user of one period; `incomplete` are the sources with a gap in it."""

    period: str
    start: str
    end: str
    items: tuple[UserItem, ...]
    incomplete: tuple[SourceName, ...]


class CountryPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The rows per country of one period; `incomplete` are the sources with a gap in it."""

    period: str
    start: str
    end: str
    items: tuple[CountryItem, ...]
    incomplete: tuple[SourceName, ...]


class OwnerPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The rows per owner of one period; `incomplete` are the sources with a gap in it."""

    period: str
    start: str
    end: str
    items: tuple[OwnerItem, ...]
    incomplete: tuple[SourceName, ...]


class AffiliationPeriod(msgspec.Struct, frozen=True, kw_only=True):
    """The rows per VO or project of one period; `incomplete` are the sources with a gap in it."""

    period: str
    start: str
    end: str
    items: tuple[AffiliationItem, ...]
    incomplete: tuple[SourceName, ...]


class ServiceBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Rows per service."""

    start: str
    end: str
    as_of: str | UnsetType = UNSET
    group_by: str
    items: tuple[ServiceItem, ...]
    periods: tuple[ServicePeriod, ...] | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class UserBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Rows per user."""

    start: str
    end: str
    as_of: str | UnsetType = UNSET
    group_by: str
    items: tuple[UserItem, ...]
    periods: tuple[UserPeriod, ...] | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class CountryBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Rows per country."""

    start: str
    end: str
    as_of: str | UnsetType = UNSET
    group_by: str
    items: tuple[CountryItem, ...]
    periods: tuple[CountryPeriod, ...] | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class OwnerBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Rows per owner of services."""

    start: str
    end: str
    as_of: str | UnsetType = UNSET
    group_by: str
    items: tuple[OwnerItem, ...]
    periods: tuple[OwnerPeriod, ...] | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


class AffiliationBreakdown(msgspec.Struct, frozen=True, kw_only=True):
    """Rows per VO or project of users."""

    start: str
    end: str
    as_of: str | UnsetType = UNSET
    group_by: str
    items: tuple[AffiliationItem, ...]
    periods: tuple[AffiliationPeriod, ...] | UnsetType = UNSET
    sources: tuple[SourceStatus, ...]
    restated: tuple[Restatement, ...] | UnsetType = UNSET


Breakdown = (
    ServiceBreakdown | UserBreakdown | CountryBreakdown | OwnerBreakdown | AffiliationBreakdown
)
Period = (
    SummaryPeriod | ServicePeriod | UserPeriod | CountryPeriod | OwnerPeriod | AffiliationPeriod
)


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Someone an administrator may filter by."""

    id: str
    name: str
    namespace: str


class Owners(msgspec.Struct, frozen=True, kw_only=True):
    """Every owner, sorted by name."""

    owners: tuple[Owner, ...]


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a report; `error` is one of the contract's texts."""

    error: str
    parameter: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET
