"""What tests of reports are given: calls, and the sums every report needs of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from oscar_metrics import groupings
from oscar_metrics.facts import CallKey, CountryFrom, Kind, LogStream, Result, Roster
from oscar_metrics.outcome import Ok, Outcome, Unavailable
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.sums import CallSums, Grouping, of_tallies
from oscar_metrics.timerange import DAY_NS, ReportRange, Span
from oscar_metrics.wire import GroupBy, SourceName, SourceStatus

ASKED = ReportRange(span=Span(0, DAY_NS), start="a", end="b")
NOW = 2 * DAY_NS
PLAIN = Privacy()
GONE = Unavailable(origin="x", notes=("gone",))


def call(
    service: str = "svc",
    *,
    user: str = "ana",
    country: str = "ES",
    kind: Kind = Kind.SYNC,
    result: Result = Result.OK,
    namespace: str = "ns",
) -> CallKey:
    how = CountryFrom.LABEL if country else CountryFrom.NOTHING
    return CallKey(namespace, service, user, country, how, kind, result)


SMALL = Privacy(country_users_least=2)
# What all reports together ask of each log.
EVERYTHING: set[Grouping] = {
    grouping
    for privacy in (PLAIN, SMALL)
    for needs in (
        groupings.of_summary(privacy),
        *(groupings.of_breakdown(group_by, privacy) for group_by in GroupBy),
    )
    for stream in LogStream
    for grouping in needs.get(stream, ())
}


def log(tallies: dict[CallKey, int]) -> Ok[CallSums]:
    """The sums of every report at once."""
    return Ok(facts=of_tallies(Counter(tallies), EVERYTHING), origin="log-files")


def calls(
    executions: Outcome[CallSums],
    exposed: Outcome[CallSums],
    roster: Outcome[Roster] | None = None,
) -> Calls:
    return Calls(
        executions=executions,
        exposed=exposed,
        geoip=Unavailable(origin="geoip", notes=("no database",)),
        roster=roster or Ok(facts=Roster(), origin="file"),
    )


def plain(value: Any) -> Any:
    """As it reads on the wire."""
    return msgspec.json.decode(msgspec.json.encode(value))


def source(sources: tuple[SourceStatus, ...], name: SourceName) -> SourceStatus:
    return next(s for s in sources if s.name is name)
