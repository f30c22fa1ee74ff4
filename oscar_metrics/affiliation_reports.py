"""Facts → what there is per VO or project of those who called. Pure.

Which VO or project a user is of is what the roster says now: it is not sealed. Who is of none,
and who may not be shown, is in the row with the empty key, so that rows add up to all calls.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import UNSET

from oscar_metrics import rows
from oscar_metrics.callers import User
from oscar_metrics.completeness import Field, fields, statuses, with_hidden_note, with_users_note
from oscar_metrics.facts import HiddenUser, Roster
from oscar_metrics.outcome import Outcome, Unavailable, with_facts
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls, attributed
from oscar_metrics.series import over_range, period_facts, series
from oscar_metrics.small_groups import with_withheld
from oscar_metrics.sums import CallSums, Grouping
from oscar_metrics.timerange import ReportRange
from oscar_metrics.wire import (
    AffiliationBreakdown,
    AffiliationItem,
    AffiliationPeriod,
    GroupBy,
    SourceName,
)

Affiliation = Literal[GroupBy.VO, GroupBy.PROJECT]

_AFFILIATION_FIELDS: Mapping[SourceName, tuple[Field, ...]] = {
    SourceName.REQUEST_LOGS: fields(
        "items", "executions_count", "unique_users_count", "countries", "failed_count"
    ),
    SourceName.COUNTRIES: fields("countries"),
    SourceName.ROSTER: fields("items"),
}


def affiliation_breakdown(
    asked: ReportRange,
    now_ns: int,
    calls: Calls,
    *,
    by: Affiliation,
    group_by: str,
    privacy: Privacy,
) -> AffiliationBreakdown:
    """A row per VO or project of the users that executions name, and a blank one for the rest.

    Without the roster there are no rows.
    """
    users = rows.users_of(over_range(calls.executions))
    executions = _by_affiliation(calls.executions, calls.roster, by)
    outcomes = {
        SourceName.REQUEST_LOGS: with_hidden_note(executions, users),
        SourceName.COUNTRIES: with_withheld(attributed(calls), executions, privacy, "affiliation"),
        SourceName.ROSTER: with_users_note(calls.roster, users),
    }

    def items(executions: CallSums | None) -> tuple[AffiliationItem, ...]:
        if isinstance(calls.roster, Unavailable):
            return ()
        return rows.affiliation_items(executions, privacy)

    return AffiliationBreakdown(
        start=asked.start,
        end=asked.end,
        as_of=asked.as_of or UNSET,
        group_by=group_by,
        items=items(over_range(executions)),
        periods=series(
            asked,
            period_facts(asked, now_ns, outcomes, None),
            lambda facts: AffiliationPeriod(
                period=facts.period,
                start=facts.start,
                end=facts.end,
                items=items(facts.executions),
                incomplete=facts.incomplete,
            ),
        ),
        sources=statuses(asked, now_ns, outcomes, _AFFILIATION_FIELDS, privacy),
    )


def _by_affiliation(
    calls: Outcome[CallSums], roster: Outcome[Roster], by: Affiliation
) -> Outcome[CallSums]:
    """Sums by user as sums by `affiliation`, and `user` within."""
    if isinstance(calls, Unavailable):
        return calls
    of = _affiliation_of(roster, by)
    groups: dict[Grouping, Counter[tuple[object, ...]]] = {}
    for grouping, counts in calls.facts.groups.items():
        if "user" not in grouping:
            continue
        at = grouping.index("user")
        sums: Counter[tuple[object, ...]] = Counter()
        for key, count in counts.items():
            sums[*key[:at], of(key[at]), *key[at:]] += count
        groups[*grouping[:at], "affiliation", *grouping[at:]] = sums
    return with_facts(calls, CallSums(groups=groups))


def _affiliation_of(roster: Outcome[Roster], by: Affiliation) -> Callable[[User], str]:
    """The VO or project of a user; blank for none, and for who may not be shown."""

    def of(user: User) -> str:
        if isinstance(user, HiddenUser) or isinstance(roster, Unavailable):
            return ""
        found = roster.facts.of(user) if user else None
        if found is None:
            return ""
        return found.vo if by is GroupBy.VO else found.project

    return functools.cache(of)
