"""Facts → what there is per owner of services: a breakdown, and a list to filter by. Pure.

Whose a call or an hour is, is told by its service's namespace and name (ownership.py); what
cannot be told has a namespace that is nobody's by then (scoped_facts.py).
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping

from msgspec import UNSET

from oscar_metrics import rows
from oscar_metrics.completeness import Field, fields, statuses
from oscar_metrics.facts import CLUSTER_ADMIN, Inventory, ServiceKey, Usage
from oscar_metrics.outcome import Measure, Outcome, Unavailable, with_facts
from oscar_metrics.ownership import Ownership
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls, attributed, facts_of
from oscar_metrics.series import over_range, period_facts, series
from oscar_metrics.small_groups import with_withheld
from oscar_metrics.sums import CallSums, Grouping
from oscar_metrics.timerange import ReportRange
from oscar_metrics.wire import Owner, OwnerBreakdown, OwnerItem, OwnerPeriod, Owners, SourceName

_OWNER_FIELDS: Mapping[SourceName, tuple[Field, ...]] = {
    SourceName.INVENTORY: fields("items", "key", "name"),
    SourceName.USAGE: (("cpu_hours", Measure.CPU), ("gpu_hours", Measure.GPU)),
    SourceName.REQUEST_LOGS: fields(
        "items",
        "services_count",
        "requests_count_total",
        "requests_count_sync",
        "requests_count_async",
        "unique_users_count",
        "countries",
        "failed_count",
    ),
    SourceName.EXPOSED_REQUEST_LOGS: fields("items", "services_count", "requests_count_exposed"),
    SourceName.COUNTRIES: fields("countries"),
}


def owner_breakdown(
    asked: ReportRange,
    now_ns: int,
    calls: Calls,
    inventory: Outcome[Inventory],
    ownership: Ownership | None,
    *,
    group_by: str,
    privacy: Privacy,
    usage: Outcome[Usage] | None = None,
    usage_by_period: Mapping[int, Usage] | None = None,
) -> OwnerBreakdown:
    """A row per owner, and a blank one for what is nobody's or cannot be told.

    `inventory` is what whose a service is rests on; without it `ownership` is None, and there
    are no rows.
    """
    owner_of = _owner_of(ownership)
    executions, exposed = (
        _by_owner(outcome, ownership, owner_of) for outcome in (calls.executions, calls.exposed)
    )
    outcomes = {
        SourceName.INVENTORY: inventory,
        **({} if usage is None else {SourceName.USAGE: usage}),
        SourceName.REQUEST_LOGS: executions,
        SourceName.EXPOSED_REQUEST_LOGS: exposed,
        SourceName.COUNTRIES: with_withheld(attributed(calls), executions, privacy, "owner"),
    }

    def items(
        executions: CallSums | None, exposed: CallSums | None, usage_of: Usage | None
    ) -> tuple[OwnerItem, ...]:
        if ownership is None:
            return ()
        return rows.owner_items(
            executions,
            exposed,
            owner_of,
            names,
            privacy=privacy,
            usage=usage_of,
            include_usage=usage is not None,
        )

    names = {} if ownership is None else _names(ownership, privacy)
    return OwnerBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=items(
            over_range(executions),
            over_range(exposed),
            None if usage is None else facts_of(usage),
        ),
        periods=series(
            asked,
            period_facts(asked, now_ns, outcomes, usage_by_period),
            lambda facts: OwnerPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=items(facts.executions, facts.exposed, facts.usage),
                incomplete=facts.incomplete,
            ),
        ),
        sources=statuses(asked, now_ns, outcomes, _OWNER_FIELDS, privacy),
    )


def owners(ownership: Ownership, privacy: Privacy) -> Owners:
    """Everyone who owns, or owned, a namespace or a service, and the cluster's administrator."""
    names = _names(ownership, privacy)
    namespaces: dict[str, str] = {}
    for service in ownership.inventory.services:
        namespaces.setdefault(service.owner, service.namespace)
    namespaces.update({owner.owner: owner.namespace for owner in ownership.inventory.owners})
    found = [
        Owner(
            id=privacy.user(owner),
            name=names[owner],
            namespace=privacy.namespace(namespaces.get(owner, "")),
        )
        for owner in ownership.owners
    ]
    return Owners(owners=tuple(sorted(found, key=lambda row: (row.name.lower(), row.id))))


def _names(ownership: Ownership, privacy: Privacy) -> dict[str, str]:
    """What owners are called: the id where nothing else is known, or may be shown."""
    known: dict[str, str] = {}
    if not privacy.pseudonym_key:
        for service in ownership.inventory.services:
            known[service.owner] = known.get(service.owner) or service.owner_name.replace("_", " ")
    known[CLUSTER_ADMIN] = "oscar"
    return {owner: known.get(owner) or privacy.user(owner) for owner in ownership.owners}


def _owner_of(ownership: Ownership | None) -> Callable[[ServiceKey], str]:
    if ownership is None:
        return lambda _: ""
    return functools.cache(lambda key: ownership.whose(key).owner)


def _by_owner(
    calls: Outcome[CallSums], ownership: Ownership | None, owner_of: Callable[[ServiceKey], str]
) -> Outcome[CallSums]:
    """Sums by service and namespace as sums by `owner`, and `service` (a ServiceKey) within."""
    if ownership is None or isinstance(calls, Unavailable):
        return calls
    groups: dict[Grouping, Counter[tuple[object, ...]]] = {}
    for grouping, counts in calls.facts.groups.items():
        if not {"service", "namespace"} <= set(grouping):
            continue
        service_at, namespace_at = grouping.index("service"), grouping.index("namespace")
        sums: Counter[tuple[object, ...]] = Counter()
        for key, count in counts.items():
            service = ServiceKey(key[namespace_at], key[service_at])
            changed = list(key)
            changed[namespace_at] = owner_of(service)
            # A record without a namespace is of the one service there is of its name.
            changed[service_at] = ownership.placed(service) or service
            sums[tuple(changed)] += count
        fields = ("owner" if field == "namespace" else field for field in grouping)
        groups[tuple(fields)] = sums
    return with_facts(calls, CallSums(groups=groups))
