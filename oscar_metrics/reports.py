"""Facts → value, summary and breakdown. Pure: arithmetic, never I/O.

One rule decides every null: a number is `None` when any source it is added up from is
unavailable. Requests are executions (sync and async); exposed requests are counted on
their own, and countries and users are those of executions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from oscar_metrics import rows
from oscar_metrics.completeness import (
    Field,
    country_attribution,
    fields,
    status,
    with_users_note,
)
from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    HiddenUser,
    Inventory,
    Kind,
    Roster,
    ServiceCount,
    Usage,
)
from oscar_metrics.ledger.seals import Restated, SealKind
from oscar_metrics.outcome import Measure, Outcome, Unavailable, with_facts
from oscar_metrics.ownership import Ownership
from oscar_metrics.series import PeriodFacts, period_facts
from oscar_metrics.sums import CallSums, over_all_periods
from oscar_metrics.timerange import ReportRange, format_instant
from oscar_metrics.usage_hours import hours
from oscar_metrics.wire import (
    CountryBreakdown,
    CountryPeriod,
    Metric,
    Owner,
    Owners,
    Restatement,
    ServiceBreakdown,
    ServiceMetric,
    ServiceMetrics,
    ServicePeriod,
    SourceName,
    SourceStatus,
    Summary,
    SummaryPeriod,
    UserBreakdown,
    UserPeriod,
    Value,
)

F = TypeVar("F")
P = TypeVar("P")
Report = TypeVar(
    "Report",
    Value,
    ServiceMetrics,
    Summary,
    ServiceBreakdown,
    UserBreakdown,
    CountryBreakdown,
)

_REQUEST_TOTALS = fields(
    "services_count_total",
    "requests_count_total",
    "requests_count_sync",
    "requests_count_async",
    "countries_count",
    "countries",
    "users_count",
    "users",
    "failed_count",
    "unknown_country_count",
)
_SUMMARY_FIELDS: Mapping[SourceName, tuple[Field, ...]] = {
    SourceName.INVENTORY: fields("services_count_active"),
    SourceName.USAGE: (("cpu_hours_total", Measure.CPU), ("gpu_hours_total", Measure.GPU)),
    SourceName.REQUEST_LOGS: _REQUEST_TOTALS,
    SourceName.EXPOSED_REQUEST_LOGS: fields("services_count_total", "requests_count_exposed"),
    SourceName.COUNTRIES: fields("countries_count", "countries", "unknown_country_count"),
    SourceName.ROSTER: (),
}
_SERVICE_FIELDS: Mapping[SourceName, tuple[Field, ...]] = {
    SourceName.INVENTORY: fields("cpu_hours", "gpu_hours"),
    SourceName.USAGE: (("cpu_hours", Measure.CPU), ("gpu_hours", Measure.GPU)),
    SourceName.REQUEST_LOGS: fields(
        "items",
        "requests_count_total",
        "requests_count_sync",
        "requests_count_async",
        "unique_users_count",
        "users",
        "countries",
        "failed_count",
    ),
    SourceName.EXPOSED_REQUEST_LOGS: fields("items", "requests_count_exposed"),
    SourceName.COUNTRIES: fields("countries"),
}
_USER_FIELDS: Mapping[SourceName, tuple[Field, ...]] = {
    SourceName.REQUEST_LOGS: fields("items", "executions_count", "countries", "failed_count"),
    SourceName.COUNTRIES: fields("countries"),
    SourceName.ROSTER: fields("membership"),
}
_COUNTRY_FIELDS: Mapping[SourceName, tuple[Field, ...]] = {
    SourceName.REQUEST_LOGS: fields("items", "executions_count", "unique_users_count", "countries"),
    SourceName.COUNTRIES: fields("items"),
}
_SOURCE_OF_SEAL = {
    SealKind.EXECUTIONS: SourceName.REQUEST_LOGS,
    SealKind.EXPOSED: SourceName.EXPOSED_REQUEST_LOGS,
    SealKind.USAGE: SourceName.USAGE,
    SealKind.INVENTORY: SourceName.INVENTORY,
}
_VALUE_MEASURES = {Metric.CPU_HOURS: Measure.CPU, Metric.GPU_HOURS: Measure.GPU}


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of calls, and of what their countries and memberships rest on.

    The sums are by the groupings of the report that is made of them (groupings.py).
    """

    executions: Outcome[CallSums]
    exposed: Outcome[CallSums]
    geoip: Outcome[Any]
    roster: Outcome[Roster]


def summary(
    asked: ReportRange,
    now_ns: int,
    inventory: Outcome[Inventory],
    usage: Outcome[Usage],
    calls: Calls,
    *,
    usage_by_period: Mapping[int, Usage] | None = None,
) -> Summary:
    """Totals over the range and each of its periods, with what became of every source.

    What is deployed is known of one instant only, so that no period has a number of it.
    """
    executions, exposed = _whole(calls.executions), _whole(calls.exposed)
    outcomes = {
        SourceName.INVENTORY: inventory,
        SourceName.USAGE: usage,
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.EXPOSED_REQUEST_LOGS: calls.exposed,
        SourceName.COUNTRIES: country_attribution(calls.executions, calls.geoip, calls.roster),
        SourceName.ROSTER: with_users_note(calls.roster, rows.users_of(executions)),
    }
    return Summary(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        totals=rows.totals(
            executions, exposed, _facts(usage), services_active=_services_active(inventory)
        ),
        periods=_series(
            asked,
            period_facts(asked, now_ns, outcomes, usage_by_period),
            lambda facts: SummaryPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                totals=rows.totals(
                    facts.executions, facts.exposed, facts.usage, services_active=None
                ),
                incomplete=facts.incomplete,
            ),
        ),
        sources=_statuses(asked, now_ns, outcomes, _SUMMARY_FIELDS),
    )


def service_breakdown(
    asked: ReportRange,
    now_ns: int,
    calls: Calls,
    *,
    group_by: str,
    include_users: bool,
    inventory: Outcome[Inventory] | None = None,
    usage: Outcome[Usage] | None = None,
    usage_by_period: Mapping[int, Usage] | None = None,
) -> ServiceBreakdown:
    """A row per service name; with `usage`, its hours and a row for what nothing claims."""
    outcomes: dict[SourceName, Outcome[Any]] = {}
    if inventory is not None and usage is not None:
        outcomes[SourceName.INVENTORY] = inventory
        outcomes[SourceName.USAGE] = usage
    outcomes[SourceName.REQUEST_LOGS] = calls.executions
    outcomes[SourceName.EXPOSED_REQUEST_LOGS] = calls.exposed
    outcomes[SourceName.COUNTRIES] = country_attribution(
        calls.executions, calls.geoip, calls.roster
    )
    items = functools.partial(
        rows.service_items, include_users=include_users, include_usage=usage is not None
    )
    return ServiceBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=items(
            _whole(calls.executions),
            _whole(calls.exposed),
            usage=None if usage is None else _facts(usage),
        ),
        periods=_series(
            asked,
            period_facts(asked, now_ns, outcomes, usage_by_period),
            lambda facts: ServicePeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=items(facts.executions, facts.exposed, usage=facts.usage),
                incomplete=facts.incomplete,
            ),
        ),
        sources=_statuses(asked, now_ns, outcomes, _SERVICE_FIELDS),
    )


def user_breakdown(
    asked: ReportRange, now_ns: int, calls: Calls, *, group_by: str
) -> UserBreakdown:
    """A row per user named in executions."""
    executions = _whole(calls.executions)
    outcomes = {
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.COUNTRIES: country_attribution(calls.executions, calls.geoip, calls.roster),
        SourceName.ROSTER: with_users_note(calls.roster, rows.users_of(executions)),
    }
    return UserBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=rows.user_items(executions, calls.roster),
        periods=_series(
            asked,
            period_facts(asked, now_ns, outcomes, None),
            lambda facts: UserPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=rows.user_items(facts.executions, calls.roster),
                incomplete=facts.incomplete,
            ),
        ),
        sources=_statuses(asked, now_ns, outcomes, _USER_FIELDS),
    )


def country_breakdown(
    asked: ReportRange, now_ns: int, calls: Calls, *, group_by: str
) -> CountryBreakdown:
    """A row per country of executions, and one for those that have none."""
    outcomes = {
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.COUNTRIES: country_attribution(calls.executions, calls.geoip, calls.roster),
    }
    return CountryBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=rows.country_items(_whole(calls.executions)),
        periods=_series(
            asked,
            period_facts(asked, now_ns, outcomes, None),
            lambda facts: CountryPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=rows.country_items(facts.executions),
                incomplete=facts.incomplete,
            ),
        ),
        sources=_statuses(asked, now_ns, outcomes, _COUNTRY_FIELDS),
    )


def service_metric(
    asked: ReportRange,
    now_ns: int,
    service: str,
    metric: Metric,
    outcome: Outcome[ServiceCount] | Outcome[Usage],
) -> ServiceMetric:
    """One metric of one service, from the one source that supplies it."""
    source = source_of(metric)
    measure = _VALUE_MEASURES.get(metric)
    return ServiceMetric(
        metric=metric,
        value=_metric_value(service, metric, outcome),
        unit="hours" if measure else UNSET,
        sources=(status(source, outcome, (("value", measure),), asked.span, now_ns),),
    )


def value(asked: ReportRange, service: str, figure: ServiceMetric) -> Value:
    """The same figure as an answer of its own."""
    return Value(
        service_id=service,
        metric=figure.metric,
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        value=figure.value,
        unit=figure.unit,
        sources=figure.sources,
    )


def service_metrics(
    asked: ReportRange, service: str, figures: Iterable[ServiceMetric]
) -> ServiceMetrics:
    """Several figures as one answer."""
    return ServiceMetrics(
        service_name=service,
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        metrics=tuple(figures),
    )


def with_restated(report: Report, restated: Iterable[Restated]) -> Report:
    """The same report, saying which of its hours were sealed anew since the time asked about."""
    said = tuple(
        Restatement(
            source=_SOURCE_OF_SEAL[hour.kind],
            start=format_instant(hour.span.start_ns),
            end=format_instant(hour.span.stop_ns),
            sealed_at=format_instant(hour.sealed_at_ns),
            was=_number(hour.kind, hour.was),
            now=_number(hour.kind, hour.now),
        )
        for hour in restated
    )
    return msgspec.structs.replace(report, restated=said)


def _number(kind: SealKind, value: float) -> int | float:
    """Hours as they are; calls as the whole number they are."""
    return value if kind is SealKind.USAGE else int(value)


def source_of(metric: Metric) -> SourceName:
    """Which source supplies a metric of one service."""
    if metric in _VALUE_MEASURES:
        return SourceName.USAGE
    if metric is Metric.REQUESTS_EXPOSED:
        return SourceName.EXPOSED_REQUEST_LOGS
    return SourceName.REQUEST_LOGS


def owners(ownership: Ownership) -> Owners:
    """Everyone who owns, or owned, a namespace or a service, and the cluster's administrator."""
    names: dict[str, str] = {}
    namespaces: dict[str, str] = {}
    for service in ownership.inventory.services:
        namespaces.setdefault(service.owner, service.namespace)
        names[service.owner] = names.get(service.owner) or service.owner_name.replace("_", " ")
    namespaces.update({owner.owner: owner.namespace for owner in ownership.inventory.owners})
    names[CLUSTER_ADMIN] = "oscar"
    found = [
        Owner(id=owner, name=names.get(owner) or owner, namespace=namespaces.get(owner, ""))
        for owner in ownership.owners
    ]
    return Owners(owners=tuple(sorted(found, key=lambda row: (row.name.lower(), row.id))))


def service_count(calls: Outcome[CallSums]) -> Outcome[ServiceCount]:
    """What sums of one service's calls (`groupings.ONE_SERVICE`) say of it."""
    if isinstance(calls, Unavailable):
        return calls
    sums = calls.facts
    kinds = {kind: count for (kind,), count in sums.by("kind").items()}
    users = sums.by("user") if ("user",) in sums.groups else ()
    ids = frozenset(user.id if isinstance(user, HiddenUser) else user for (user,) in users)
    return with_facts(calls, ServiceCount(calls=kinds, users=ids))


def _metric_value(
    service: str, metric: Metric, outcome: Outcome[ServiceCount] | Outcome[Usage]
) -> float | None:
    if isinstance(outcome, Unavailable):
        return None
    facts = outcome.facts
    if isinstance(facts, Usage):
        return hours(facts, _VALUE_MEASURES[metric], service)
    if metric is Metric.USERS_PER_SERVICE:
        return len(facts.users - {""})
    kinds = {
        Metric.REQUESTS_SYNC: Kind.SYNC,
        Metric.REQUESTS_ASYNC: Kind.ASYNC,
        Metric.REQUESTS_EXPOSED: Kind.EXPOSED,
    }
    return facts.calls.get(kinds[metric], 0)


def _facts(outcome: Outcome[F]) -> F | None:
    return None if isinstance(outcome, Unavailable) else outcome.facts


def _whole(calls: Outcome[CallSums]) -> CallSums | None:
    return None if isinstance(calls, Unavailable) else over_all_periods(calls.facts)


def _series(
    asked: ReportRange, facts: Iterable[PeriodFacts], made: Callable[[PeriodFacts], P]
) -> tuple[P, ...] | UnsetType:
    return tuple(map(made, facts)) if asked.periods else UNSET


def _services_active(inventory: Outcome[Inventory]) -> int | None:
    if isinstance(inventory, Unavailable):
        return None
    return len({(service.namespace, service.name) for service in inventory.facts.services})


def _statuses(
    asked: ReportRange,
    now_ns: int,
    outcomes: Mapping[SourceName, Outcome[Any]],
    affected: Mapping[SourceName, tuple[Field, ...]],
) -> tuple[SourceStatus, ...]:
    return tuple(
        status(name, outcomes[name], affected[name], asked.span, now_ns)
        for name in SourceName
        if name in outcomes
    )
