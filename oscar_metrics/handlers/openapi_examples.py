"""An answer of each shape, for the OpenAPI document; built from the shapes themselves. Pure."""

from __future__ import annotations

import msgspec

from oscar_metrics.handlers.csv import breakdown_csv
from oscar_metrics.wire import (
    SERVICE_METRICS as SERVICE_METRIC_KEYS,
)
from oscar_metrics.wire import (
    AffiliationBreakdown,
    AffiliationItem,
    CountryBreakdown,
    CountryCount,
    CountryItem,
    LedgerPart,
    Metric,
    Owner,
    OwnerBreakdown,
    OwnerItem,
    Owners,
    Restatement,
    ServiceBreakdown,
    ServiceItem,
    ServiceMetric,
    ServiceMetrics,
    SourceName,
    SourceState,
    SourceStatus,
    Summary,
    SummaryPeriod,
    Totals,
    UserBreakdown,
    UserItem,
    UserPeriod,
    Value,
    WireGap,
)

_START, _END = "2026-04-01T00:00:00Z", "2026-04-30T23:59:59Z"
_ALICE = "62bb11b40398f73778b66f344d282242debb8ee3@egi.eu"


def _ok(name: SourceName, origin: str) -> SourceStatus:
    return SourceStatus(
        name=name,
        status=SourceState.OK,
        last_updated=_END,
        origin=origin,
        coverage=1.0,
        gaps=(),
        affects=(),
    )


_INVENTORY = _ok(SourceName.INVENTORY, "kubernetes")
_EXPOSED = _ok(SourceName.EXPOSED_REQUEST_LOGS, "loki")
_COUNTRIES = _ok(SourceName.COUNTRIES, "geoip")
_ROSTER = _ok(SourceName.ROSTER, "file")
_USAGE = SourceStatus(
    name=SourceName.USAGE,
    status=SourceState.PARTIAL,
    last_updated=_END,
    notes="24 h of the range: not scraped",
    origin="prometheus",
    coverage=1 - 1 / 30,
    gaps=(WireGap(start=_START, end="2026-04-02T00:00:00Z", reason="not scraped"),),
    affects=("cpu_hours_total", "gpu_hours_total"),
)
_VALUE_USAGE = msgspec.structs.replace(_USAGE, affects=("value",))
_REQUEST_LOGS = msgspec.structs.replace(
    _ok(SourceName.REQUEST_LOGS, "ledger+loki"),
    ledger=LedgerPart(
        coverage=0.999,
        first_sealed_at="2026-04-01T01:10:00Z",
        last_sealed_at="2026-04-30T23:10:00Z",
        provisional_hours=23.0,
    ),
)
_SPAIN = CountryCount(country="ES", request_count=3)
_FRANCE = CountryCount(country="FR", request_count=1)

VALUE = msgspec.to_builtins(
    Value(
        service_id="cowsay",
        metric=Metric.CPU_HOURS,
        start=_START,
        end=_END,
        value=12.5,
        unit="hours",
        sources=(_VALUE_USAGE,),
    )
)

_METRIC_VALUES = dict(zip(SERVICE_METRIC_KEYS, (12.5, 0.0, 3, 1, 7, 1), strict=True))
_METRIC_SOURCES = dict.fromkeys(SERVICE_METRIC_KEYS, _REQUEST_LOGS) | {
    Metric.CPU_HOURS: _VALUE_USAGE,
    Metric.GPU_HOURS: _VALUE_USAGE,
    Metric.REQUESTS_EXPOSED: _EXPOSED,
}
SERVICE_METRICS = msgspec.to_builtins(
    ServiceMetrics(
        service_name="cowsay",
        start=_START,
        end=_END,
        metrics=tuple(
            ServiceMetric(
                metric=metric,
                value=value,
                unit="hours" if metric.endswith("-hours") else msgspec.UNSET,
                sources=(_METRIC_SOURCES[metric],),
            )
            for metric, value in _METRIC_VALUES.items()
        ),
    )
)

_TOTALS = Totals(
    services_count_active=2,
    services_count_total=1,
    cpu_hours_total=12.5,
    gpu_hours_total=0.0,
    requests_count_total=4,
    requests_count_sync=3,
    requests_count_async=1,
    requests_count_exposed=7,
    countries_count=2,
    countries=(_SPAIN, _FRANCE),
    users_count=1,
    users=(_ALICE,),
    failed_count=1,
    unknown_country_count=0,
)
_SUMMARY = Summary(
    start=_START,
    end=_END,
    totals=_TOTALS,
    sources=(_INVENTORY, _USAGE, _REQUEST_LOGS, _EXPOSED, _COUNTRIES, _ROSTER),
)
SUMMARY = msgspec.to_builtins(_SUMMARY)
SUMMARY_SERIES = msgspec.to_builtins(
    msgspec.structs.replace(
        _SUMMARY,
        as_of="2026-05-20T00:00:00Z",
        periods=(
            SummaryPeriod(
                period="2026-04",
                start=_START,
                end=_END,
                totals=msgspec.structs.replace(_TOTALS, services_count_active=None),
                incomplete=(SourceName.USAGE,),
            ),
        ),
        restated=(
            Restatement(
                source=SourceName.REQUEST_LOGS,
                start="2026-04-07T10:00:00Z",
                end="2026-04-07T11:00:00Z",
                sealed_at="2026-05-03T08:00:00Z",
                was=3,
                now=4,
            ),
        ),
    )
)

SERVICE_BREAKDOWN = msgspec.to_builtins(
    ServiceBreakdown(
        start=_START,
        end=_END,
        group_by="service",
        items=(
            ServiceItem(
                key="cowsay",
                requests_count_total=4,
                requests_count_sync=3,
                requests_count_async=1,
                requests_count_exposed=7,
                unique_users_count=1,
                users=(_ALICE,),
                countries=(_SPAIN, _FRANCE),
                namespaces=("oscar-svc",),
                failed_count=1,
            ),
        ),
        sources=(_REQUEST_LOGS, _EXPOSED, _COUNTRIES),
    )
)

_USERS = UserBreakdown(
    start=_START,
    end=_END,
    group_by="user",
    items=(
        UserItem(
            key=_ALICE,
            membership="member",
            executions_count=4,
            countries=(_SPAIN, _FRANCE),
            failed_count=1,
        ),
    ),
    sources=(_REQUEST_LOGS, _COUNTRIES, _ROSTER),
)
USER_BREAKDOWN = msgspec.to_builtins(_USERS)
USER_CSV = breakdown_csv(_USERS)
_USERS_BY_MONTH = msgspec.structs.replace(
    _USERS,
    periods=(
        UserPeriod(period="2026-04", start=_START, end=_END, items=_USERS.items, incomplete=()),
    ),
)
USER_SERIES = msgspec.to_builtins(_USERS_BY_MONTH)
USER_SERIES_CSV = breakdown_csv(_USERS_BY_MONTH)

COUNTRY_BREAKDOWN = msgspec.to_builtins(
    CountryBreakdown(
        start=_START,
        end=_END,
        group_by="country",
        items=tuple(
            CountryItem(
                key=entry.country,
                executions_count=entry.request_count,
                unique_users_count=1,
                countries=(entry,),
            )
            for entry in (_SPAIN, _FRANCE)
        ),
        sources=(_REQUEST_LOGS, _COUNTRIES),
    )
)

OWNER_BREAKDOWN = msgspec.to_builtins(
    OwnerBreakdown(
        start=_START,
        end=_END,
        group_by="owner",
        items=(
            OwnerItem(
                key=_ALICE,
                name="Alice Example",
                services_count=1,
                requests_count_total=4,
                requests_count_sync=3,
                requests_count_async=1,
                requests_count_exposed=7,
                unique_users_count=1,
                countries=(_SPAIN, _FRANCE),
                failed_count=1,
            ),
        ),
        sources=(_INVENTORY, _REQUEST_LOGS, _EXPOSED, _COUNTRIES),
    )
)

VO_BREAKDOWN = msgspec.to_builtins(
    AffiliationBreakdown(
        start=_START,
        end=_END,
        group_by="vo",
        items=(
            AffiliationItem(
                key="vo.example.eu",
                executions_count=4,
                unique_users_count=1,
                countries=(_SPAIN, _FRANCE),
                failed_count=1,
            ),
        ),
        sources=(_REQUEST_LOGS, _COUNTRIES, _ROSTER),
    )
)

OWNERS = msgspec.to_builtins(
    Owners(
        owners=(
            Owner(id=_ALICE, name="Alice Example", namespace="oscar-svc-alice"),
            Owner(id="cluster_admin", name="oscar", namespace="oscar-svc"),
        )
    )
)
