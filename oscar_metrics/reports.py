"""Facts → summary and breakdowns. Pure: arithmetic, never I/O.

One rule decides every null: a number is `None` when any source it is added up from is
unavailable. Requests are executions (sync and async); exposed requests are counted on
their own, and countries and users are those of executions. Breakdowns by owner are in
owner_reports.py, the metrics of one service in figures.py.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from oscar_metrics import rows
from oscar_metrics.completeness import (
    Field,
    country_attribution,
    fields,
    statuses,
    with_hidden_note,
    with_users_note,
)
from oscar_metrics.facts import Inventory, Roster, Usage
from oscar_metrics.ledger.seals import Restated, SealKind
from oscar_metrics.outcome import Measure, Ok, Outcome, Unavailable
from oscar_metrics.privacy import Privacy
from oscar_metrics.series import over_range, period_facts, series
from oscar_metrics.small_groups import with_withheld
from oscar_metrics.sums import CallSums
from oscar_metrics.timerange import ReportRange, format_instant
from oscar_metrics.wire import (
    Breakdown,
    CountryBreakdown,
    CountryPeriod,
    Restatement,
    ServiceBreakdown,
    ServiceMetrics,
    ServicePeriod,
    SourceName,
    Summary,
    SummaryPeriod,
    UserBreakdown,
    UserPeriod,
    Value,
)

F = TypeVar("F")
Report = TypeVar("Report", bound=Value | ServiceMetrics | Summary | Breakdown)

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
# Of what is withheld everything is counted, and only the list is shorter.
_OF_WITHHELD = fields("countries")


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
    privacy: Privacy,
    usage_by_period: Mapping[int, Usage] | None = None,
) -> Summary:
    """Totals over the range and each of its periods, with what became of every source.

    What is deployed is known of one instant only, so that no period has a number of it.
    """
    executions, exposed = over_range(calls.executions), over_range(calls.exposed)
    attribution = attributed(calls)
    outcomes = {
        SourceName.INVENTORY: inventory,
        SourceName.USAGE: usage,
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.EXPOSED_REQUEST_LOGS: calls.exposed,
        SourceName.COUNTRIES: with_withheld(attribution, calls.executions, privacy),
        SourceName.ROSTER: with_users_note(calls.roster, rows.users_of(executions)),
    }
    affected = dict(_SUMMARY_FIELDS)
    if isinstance(attribution, Ok):
        affected[SourceName.COUNTRIES] = _OF_WITHHELD
    return Summary(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        totals=rows.totals(
            executions,
            exposed,
            facts_of(usage),
            services_active=_services_active(inventory),
            privacy=privacy,
        ),
        periods=series(
            asked,
            period_facts(asked, now_ns, outcomes, usage_by_period),
            lambda facts: SummaryPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                totals=rows.totals(
                    facts.executions,
                    facts.exposed,
                    facts.usage,
                    services_active=None,
                    privacy=privacy,
                ),
                incomplete=facts.incomplete,
            ),
        ),
        sources=statuses(asked, now_ns, outcomes, affected, privacy),
    )


def service_breakdown(
    asked: ReportRange,
    now_ns: int,
    calls: Calls,
    *,
    group_by: str,
    include_users: bool,
    privacy: Privacy,
    inventory: Outcome[Inventory] | None = None,
    usage: Outcome[Usage] | None = None,
    usage_by_period: Mapping[int, Usage] | None = None,
) -> ServiceBreakdown:
    """A row per service name; with `usage`, its hours and a row for what nothing claims."""
    outcomes: dict[SourceName, Outcome[Any]] = {}
    if inventory is not None and usage is not None:
        outcomes[SourceName.INVENTORY] = inventory
        outcomes[SourceName.USAGE] = usage
    executions = over_range(calls.executions)
    listed = rows.users_of(executions) if include_users else ()
    outcomes[SourceName.REQUEST_LOGS] = with_hidden_note(calls.executions, listed)
    outcomes[SourceName.EXPOSED_REQUEST_LOGS] = calls.exposed
    outcomes[SourceName.COUNTRIES] = with_withheld(
        attributed(calls), calls.executions, privacy, "service"
    )
    items = functools.partial(
        rows.service_items,
        include_users=include_users,
        privacy=privacy,
        include_usage=usage is not None,
    )
    return ServiceBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=items(
            executions,
            over_range(calls.exposed),
            usage=None if usage is None else facts_of(usage),
        ),
        periods=series(
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
        sources=statuses(asked, now_ns, outcomes, _SERVICE_FIELDS, privacy),
    )


def user_breakdown(
    asked: ReportRange, now_ns: int, calls: Calls, *, group_by: str, privacy: Privacy
) -> UserBreakdown:
    """A row per user named in executions, and a blank one for those who are not shown."""
    executions = over_range(calls.executions)
    users = rows.users_of(executions)
    outcomes = {
        SourceName.REQUEST_LOGS: with_hidden_note(calls.executions, users),
        SourceName.COUNTRIES: with_withheld(attributed(calls), calls.executions, privacy, "user"),
        SourceName.ROSTER: with_users_note(calls.roster, users),
    }
    return UserBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=rows.user_items(executions, calls.roster, privacy),
        periods=series(
            asked,
            period_facts(asked, now_ns, outcomes, None),
            lambda facts: UserPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=rows.user_items(facts.executions, calls.roster, privacy),
                incomplete=facts.incomplete,
            ),
        ),
        sources=statuses(asked, now_ns, outcomes, _USER_FIELDS, privacy),
    )


def country_breakdown(
    asked: ReportRange, now_ns: int, calls: Calls, *, group_by: str, privacy: Privacy
) -> CountryBreakdown:
    """A row per country of executions, and one for those that have none."""
    outcomes = {
        SourceName.REQUEST_LOGS: calls.executions,
        SourceName.COUNTRIES: with_withheld(attributed(calls), calls.executions, privacy),
    }
    return CountryBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=rows.country_items(over_range(calls.executions), privacy),
        periods=series(
            asked,
            period_facts(asked, now_ns, outcomes, None),
            lambda facts: CountryPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=rows.country_items(facts.executions, privacy),
                incomplete=facts.incomplete,
            ),
        ),
        sources=statuses(asked, now_ns, outcomes, _COUNTRY_FIELDS, privacy),
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


def attributed(calls: Calls) -> Outcome[None]:
    """How the countries of executions were decided."""
    return country_attribution(calls.executions, calls.geoip, calls.roster)


def facts_of(outcome: Outcome[F]) -> F | None:
    """What was said; None where nothing was."""
    return None if isinstance(outcome, Unavailable) else outcome.facts


def _services_active(inventory: Outcome[Inventory]) -> int | None:
    if isinstance(inventory, Unavailable):
        return None
    return len({(service.namespace, service.name) for service in inventory.facts.services})
