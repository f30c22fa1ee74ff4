"""Facts → value, summary and breakdown. Pure: arithmetic, never I/O.

One rule decides every null: a number is `None` when any source it is added up from is
unavailable. Requests are executions (sync and async); exposed requests are counted on
their own, and countries and users are those of executions.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET

from oscar_metrics.completeness import (
    Field,
    country_attribution,
    fields,
    membership,
    status,
    with_users_note,
)
from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    Result,
    Roster,
    ServiceCount,
    ServiceKey,
    Tallies,
    Usage,
)
from oscar_metrics.outcome import Measure, Outcome, Unavailable, with_facts
from oscar_metrics.timerange import ReportRange
from oscar_metrics.wire import (
    CountryBreakdown,
    CountryCount,
    CountryItem,
    Metric,
    Owner,
    Owners,
    ServiceBreakdown,
    ServiceItem,
    ServiceMetric,
    SourceName,
    SourceStatus,
    Summary,
    Totals,
    UserBreakdown,
    UserItem,
    Value,
)

# The owner id of what belongs to the platform itself.
CLUSTER_ADMIN = "cluster_admin"
UNKNOWN_COUNTRY = "unknown"
_SECONDS_PER_HOUR = 3600.0

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
_VALUE_MEASURES = {Metric.CPU_HOURS: Measure.CPU, Metric.GPU_HOURS: Measure.GPU}


class Calls(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of calls, and of what their countries and memberships rest on."""

    executions: Outcome[CallLog]
    exposed: Outcome[CallLog]
    geoip: Outcome[Any]
    roster: Outcome[Roster]


def summary(
    asked: ReportRange,
    now_ns: int,
    inventory: Outcome[Inventory],
    usage: Outcome[Usage],
    calls: Calls,
) -> Summary:
    """Totals over the range, with what became of every source."""
    executions, exposed = _tallies(calls.executions), _tallies(calls.exposed)
    countries = _countries(executions) if executions is not None else Counter()
    users = _users(executions or ())
    totals = Totals(
        services_count_active=(
            None
            if isinstance(inventory, Unavailable)
            else len({(s.namespace, s.name) for s in inventory.facts.services})
        ),
        services_count_total=(
            None
            if executions is None or exposed is None
            else len({key.service for tallies in (executions, exposed) for key in tallies})
        ),
        cpu_hours_total=_hours(usage, Measure.CPU),
        gpu_hours_total=_hours(usage, Measure.GPU),
        requests_count_total=_total(executions),
        requests_count_sync=_of_kind(executions, Kind.SYNC),
        requests_count_async=_of_kind(executions, Kind.ASYNC),
        requests_count_exposed=_total(exposed),
        countries_count=None if executions is None else len(countries),
        countries=_country_counts(countries),
        users_count=None if executions is None else len(users),
        users=tuple(sorted(users)),
        failed_count=_failed(executions),
        unknown_country_count=(
            None if executions is None else executions.total() - countries.total()
        ),
    )
    outcomes = {
        SourceName.INVENTORY: inventory,
        SourceName.USAGE: usage,
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.EXPOSED_REQUEST_LOGS: calls.exposed,
        SourceName.COUNTRIES: country_attribution(calls.executions, calls.geoip, calls.roster),
        SourceName.ROSTER: with_users_note(calls.roster, users),
    }
    return Summary(
        start=asked.start,
        end=asked.end,
        totals=totals,
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
) -> ServiceBreakdown:
    """A row per service name; with `usage`, its hours and a row for what nothing claims."""
    executions, exposed = _tallies(calls.executions), _tallies(calls.exposed)
    by_service = _grouped(executions, "service")
    exposed_by_service = _grouped(exposed, "service")
    names = by_service.keys() | exposed_by_service.keys()
    usage_by_service = _usage_by_service(usage) if usage is not None else {}
    items = [
        _service_item(
            name,
            None if executions is None else by_service.get(name, Counter()),
            None if exposed is None else exposed_by_service.get(name, Counter()),
            include_users=include_users,
            hours=None if usage is None else usage_by_service.get(name, _no_usage(usage)),
        )
        for name in sorted(names | usage_by_service.keys())
    ]
    outcomes: dict[SourceName, Outcome[Any]] = {}
    if inventory is not None and usage is not None:
        outcomes[SourceName.INVENTORY] = inventory
        outcomes[SourceName.USAGE] = usage
    outcomes[SourceName.REQUEST_LOGS] = calls.executions
    outcomes[SourceName.EXPOSED_REQUEST_LOGS] = calls.exposed
    outcomes[SourceName.COUNTRIES] = country_attribution(
        calls.executions, calls.geoip, calls.roster
    )
    return ServiceBreakdown(
        start=asked.start,
        end=asked.end,
        group_by=group_by,
        items=tuple(items),
        sources=_statuses(asked, now_ns, outcomes, _SERVICE_FIELDS),
    )


def user_breakdown(
    asked: ReportRange, now_ns: int, calls: Calls, *, group_by: str
) -> UserBreakdown:
    """A row per user named in executions."""
    by_user = _grouped(_tallies(calls.executions), "user")
    outcomes = {
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.COUNTRIES: country_attribution(calls.executions, calls.geoip, calls.roster),
        SourceName.ROSTER: with_users_note(calls.roster, by_user.keys() - {""}),
    }
    return UserBreakdown(
        start=asked.start,
        end=asked.end,
        group_by=group_by,
        items=tuple(
            UserItem(
                key=user,
                membership=membership(user, calls.roster),
                executions_count=tallies.total(),
                countries=_country_counts(_countries(tallies)),
                failed_count=_failed(tallies) or 0,
            )
            for user, tallies in sorted(by_user.items())
        ),
        sources=_statuses(asked, now_ns, outcomes, _USER_FIELDS),
    )


def country_breakdown(
    asked: ReportRange, now_ns: int, calls: Calls, *, group_by: str
) -> CountryBreakdown:
    """A row per country of executions, and one for those that have none."""
    by_country = _grouped(_tallies(calls.executions), "country")
    rows = {country or UNKNOWN_COUNTRY: tallies for country, tallies in by_country.items()}
    outcomes = {
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.COUNTRIES: country_attribution(calls.executions, calls.geoip, calls.roster),
    }
    return CountryBreakdown(
        start=asked.start,
        end=asked.end,
        group_by=group_by,
        items=tuple(
            CountryItem(
                key=country,
                executions_count=tallies.total(),
                unique_users_count=len(_users(tallies)),
                countries=(CountryCount(country=country, request_count=tallies.total()),),
            )
            for country, tallies in sorted(rows.items())
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
        value=figure.value,
        unit=figure.unit,
        sources=figure.sources,
    )


def source_of(metric: Metric) -> SourceName:
    """Which source supplies a metric of one service."""
    if metric in _VALUE_MEASURES:
        return SourceName.USAGE
    if metric is Metric.REQUESTS_EXPOSED:
        return SourceName.EXPOSED_REQUEST_LOGS
    return SourceName.REQUEST_LOGS


def owners(inventory: Outcome[Inventory]) -> Outcome[Owners]:
    """Everyone who owns a namespace or a service, and always the cluster's administrator."""
    if isinstance(inventory, Unavailable):
        return inventory
    facts = inventory.facts
    names: dict[str, str] = {}
    namespaces: dict[str, str] = {}
    for service in facts.services:
        if service.owner:
            namespaces.setdefault(service.owner, service.namespace)
            names[service.owner] = names.get(service.owner) or service.owner_name.replace("_", " ")
    namespaces.update({owner.owner: owner.namespace for owner in facts.owners})
    namespaces.setdefault(CLUSTER_ADMIN, "")
    names[CLUSTER_ADMIN] = "oscar"
    rows = [
        Owner(id=owner, name=names.get(owner) or owner, namespace=namespace)
        for owner, namespace in namespaces.items()
    ]
    rows.sort(key=lambda row: (row.name.lower(), row.id))
    return with_facts(inventory, Owners(owners=tuple(rows)))


def count_of_service(outcome: Outcome[CallLog], service: str) -> Outcome[ServiceCount]:
    """What a whole request log says of one service."""
    if isinstance(outcome, Unavailable):
        return outcome
    calls: Counter[Kind] = Counter()
    users: set[str] = set()
    for key, count in outcome.facts.tallies.items():
        if key.service == service:
            calls[key.kind] += count
            users.add(key.user)
    return with_facts(outcome, ServiceCount(calls=dict(calls), users=frozenset(users)))


def _metric_value(
    service: str, metric: Metric, outcome: Outcome[ServiceCount] | Outcome[Usage]
) -> float | None:
    if isinstance(outcome, Unavailable):
        return None
    facts = outcome.facts
    if isinstance(facts, Usage):
        seconds = facts.cpu_seconds if metric is Metric.CPU_HOURS else facts.gpu_seconds
        return None if seconds is None else _sum_hours(seconds, service)
    if metric is Metric.USERS_PER_SERVICE:
        return len(facts.users - {""})
    kinds = {
        Metric.REQUESTS_SYNC: Kind.SYNC,
        Metric.REQUESTS_ASYNC: Kind.ASYNC,
        Metric.REQUESTS_EXPOSED: Kind.EXPOSED,
    }
    return facts.calls.get(kinds[metric], 0)


def _service_item(
    name: str,
    executions: Tallies | None,
    exposed: Tallies | None,
    *,
    include_users: bool,
    hours: tuple[float | None, float | None] | None,
) -> ServiceItem:
    users = _users(executions or ())
    seen = [*(executions or ()), *(exposed or ())]
    return ServiceItem(
        key=name,
        requests_count_total=_total(executions),
        requests_count_sync=_of_kind(executions, Kind.SYNC),
        requests_count_async=_of_kind(executions, Kind.ASYNC),
        requests_count_exposed=_total(exposed),
        unique_users_count=None if executions is None else len(users),
        users=tuple(sorted(users)) if include_users else UNSET,
        countries=_country_counts(_countries(executions or Counter())),
        namespaces=tuple(sorted({key.namespace for key in seen} - {""})),
        failed_count=_failed(executions),
        cpu_hours=UNSET if hours is None else hours[0],
        gpu_hours=UNSET if hours is None else hours[1],
        unattributed=UNSET if name or hours is None else True,
    )


def _tallies(outcome: Outcome[CallLog]) -> Tallies | None:
    return None if isinstance(outcome, Unavailable) else outcome.facts.tallies


def _grouped(tallies: Tallies | None, field: str) -> dict[str, Tallies]:
    grouped: defaultdict[str, Tallies] = defaultdict(Counter)
    index = CallKey._fields.index(field)
    for key, count in (tallies or {}).items():
        grouped[key[index]][key] = count
    return grouped


def _users(tallies: Iterable[CallKey]) -> set[str]:
    return {key.user for key in tallies} - {""}


def _countries(tallies: Tallies) -> Counter[str]:
    countries: Counter[str] = Counter()
    for key, count in tallies.items():
        if key.country_from is not CountryFrom.NOTHING:
            countries[key.country] += count
    return countries


def _country_counts(countries: Mapping[str, int]) -> tuple[CountryCount, ...]:
    return tuple(
        CountryCount(country=country, request_count=count)
        for country, count in sorted(countries.items())
    )


def _total(tallies: Tallies | None) -> int | None:
    return None if tallies is None else tallies.total()


def _of_kind(tallies: Tallies | None, kind: Kind) -> int | None:
    if tallies is None:
        return None
    return sum(count for key, count in tallies.items() if key.kind is kind)


def _failed(tallies: Tallies | None) -> int | None:
    if tallies is None:
        return None
    return sum(count for key, count in tallies.items() if key.result is not Result.OK)


def _hours(usage: Outcome[Usage], measure: Measure) -> float | None:
    if isinstance(usage, Unavailable):
        return None
    facts = usage.facts
    seconds = facts.cpu_seconds if measure is Measure.CPU else facts.gpu_seconds
    return None if seconds is None else _sum_hours(seconds)


def _sum_hours(seconds: Mapping[ServiceKey, float], service: str | None = None) -> float:
    """Hours of one service name, or of all; fsum, so that no order of adding matters."""
    chosen = (s for key, s in seconds.items() if service is None or key.service == service)
    return math.fsum(chosen) / _SECONDS_PER_HOUR


def _usage_by_service(usage: Outcome[Usage]) -> dict[str, tuple[float | None, float | None]]:
    if isinstance(usage, Unavailable):
        return {}
    cpu, gpu = (
        None if seconds is None else _hours_by_service(seconds)
        for seconds in (usage.facts.cpu_seconds, usage.facts.gpu_seconds)
    )
    return {
        name: (
            None if cpu is None else cpu.get(name, 0.0),
            None if gpu is None else gpu.get(name, 0.0),
        )
        for name in {*(cpu or ()), *(gpu or ())}
    }


def _hours_by_service(seconds: Mapping[ServiceKey, float]) -> dict[str, float]:
    by_service: defaultdict[str, list[float]] = defaultdict(list)
    for key, value_seconds in seconds.items():
        by_service[key.service].append(value_seconds)
    return {name: math.fsum(parts) / _SECONDS_PER_HOUR for name, parts in by_service.items()}


def _no_usage(usage: Outcome[Usage]) -> tuple[float | None, float | None]:
    if isinstance(usage, Unavailable):
        return None, None
    facts = usage.facts
    return None if facts.cpu_seconds is None else 0.0, None if facts.gpu_seconds is None else 0.0


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
