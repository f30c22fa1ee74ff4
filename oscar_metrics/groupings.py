"""Which sums of calls each report needs of each request log. Pure.

No report needs the joint key of all fields, so nobody who holds calls builds it.
"""

from __future__ import annotations

from collections.abc import Mapping

from oscar_metrics.facts import LogStream
from oscar_metrics.privacy import Privacy
from oscar_metrics.sums import PERIOD, Grouping
from oscar_metrics.wire import GroupBy

# The request logs a report rests on, and the groupings it takes of each; smallest first.
Needs = Mapping[LogStream, tuple[Grouping, ...]]

SUMMARY: Needs = {
    LogStream.EXECUTIONS: (
        ("kind", "result"),
        ("country", "country_from"),
        ("service",),
        ("user",),
    ),
    LogStream.EXPOSED: (("service",),),
}
_BY_USER: Needs = {
    LogStream.EXECUTIONS: (("user", "result"), ("user", "country", "country_from")),
}
BREAKDOWNS: Mapping[GroupBy, Needs] = {
    GroupBy.SERVICE: {
        LogStream.EXECUTIONS: (
            ("service", "namespace", "kind", "result"),
            ("service", "country", "country_from"),
            ("service", "user"),
        ),
        LogStream.EXPOSED: (("service", "namespace"),),
    },
    GroupBy.USER: _BY_USER,
    GroupBy.COUNTRY: {
        LogStream.EXECUTIONS: (("country", "country_from"), ("country", "user")),
    },
    # Which VO or project a user is of, the roster tells.
    GroupBy.VO: _BY_USER,
    GroupBy.PROJECT: _BY_USER,
    # Whose a service is, is told by its namespace and name.
    GroupBy.OWNER: {
        LogStream.EXECUTIONS: (
            ("service", "namespace", "kind", "result"),
            ("service", "namespace", "country", "country_from"),
            ("service", "namespace", "user"),
        ),
        LogStream.EXPOSED: (("service", "namespace"),),
    },
}
# How many users each listed country has, where those with few are withheld; the other
# breakdowns ask for it as it is.
_USERS_OF_COUNTRIES: Mapping[GroupBy, Grouping] = {
    GroupBy.SERVICE: ("service", "country", "user"),
    GroupBy.OWNER: ("service", "namespace", "country", "user"),
}
# Of the calls of one service name only.
ONE_SERVICE: Needs = {
    LogStream.EXECUTIONS: (("kind",), ("user",)),
    LogStream.EXPOSED: (("kind",),),
}


def of_summary(privacy: Privacy) -> Needs:
    """What a summary needs."""
    return _with(SUMMARY, ("country", "user") if privacy.withholds_countries else None)


def of_breakdown(group_by: GroupBy, privacy: Privacy) -> Needs:
    """What a breakdown needs."""
    more = _USERS_OF_COUNTRIES.get(group_by) if privacy.withholds_countries else None
    return _with(BREAKDOWNS[group_by], more)


def of_a_series(needs: Needs) -> Needs:
    """The same by period; the sums over all periods are sums of these."""
    return {
        stream: tuple((PERIOD, *grouping) for grouping in groupings)
        for stream, groupings in needs.items()
    }


def _with(needs: Needs, more: Grouping | None) -> Needs:
    if more is None:
        return needs
    executions = (*needs[LogStream.EXECUTIONS], more)
    return {**needs, LogStream.EXECUTIONS: executions}
