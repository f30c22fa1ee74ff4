"""Countries of few users are withheld, and what is withheld is said to be: nothing is lost."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from oscar_metrics import affiliation_reports, groupings, owner_reports, reports
from oscar_metrics.facts import (
    CallKey,
    CallLog,
    HiddenUser,
    Inventory,
    Kind,
    LogStream,
    Roster,
    RosterUser,
    Service,
    SlotPart,
    Usage,
)
from oscar_metrics.handlers.csv import breakdown_csv
from oscar_metrics.outcome import Ok
from oscar_metrics.ownership import Ownership
from oscar_metrics.periods import with_periods
from oscar_metrics.privacy import Privacy
from oscar_metrics.reports import Calls
from oscar_metrics.small_groups import small_countries
from oscar_metrics.sums import of_slots, of_tallies
from oscar_metrics.timerange import DAY_NS, SLOT_NS, parse_instant, report_range
from oscar_metrics.wire import GroupBy, SourceName, SourceState, SourceStatus
from tests.unit.reporting import ASKED, EVERYTHING, NOW, PLAIN, SMALL, call, calls, log, source

INVENTORY = Inventory(services=(Service(namespace="ns", name="svc", owner="eve"),))
DEPLOYED = Ok(facts=INVENTORY, origin="kubernetes")
# One of the two has a project, and nobody a VO.
ROSTER = Ok(facts=Roster(users={"ana": RosterUser(id="ana", project="p")}), origin="roster")
NO_USAGE = Ok(facts=Usage(cpu_seconds={}, gpu_seconds={}), origin="prometheus")
EXECUTIONS: dict[CallKey, int] = {
    call(user="ana"): 5,
    call(user="bob"): 1,
    call("other", user="ana"): 2,
    call(user="ana", country="FR"): 3,
    call(user="", country="PT"): 4,
    call(user="bob", country=""): 6,
}


def of(said: Calls, group_by: GroupBy | None, privacy: Privacy, asked: Any = ASKED) -> Any:
    """A breakdown, or the summary."""
    common: dict[str, Any] = {"privacy": privacy}
    match group_by:
        case None:
            return reports.summary(asked, NOW, DEPLOYED, NO_USAGE, said, **common)
        case GroupBy.SERVICE:
            return reports.service_breakdown(
                asked, NOW, said, group_by="service", include_users=True, **common
            )
        case GroupBy.USER:
            return reports.user_breakdown(asked, NOW, said, group_by="user", **common)
        case GroupBy.COUNTRY:
            return reports.country_breakdown(asked, NOW, said, group_by="country", **common)
        case GroupBy.OWNER:
            return owner_reports.owner_breakdown(
                asked,
                NOW,
                said,
                DEPLOYED,
                Ownership(INVENTORY, None),
                group_by="owner",
                **common,
            )
        case GroupBy.VO | GroupBy.PROJECT:
            return affiliation_reports.affiliation_breakdown(
                asked, NOW, said, by=group_by, group_by="vo", **common
            )


def listed(stretch: Any) -> dict[str, dict[str, int]]:
    """The countries of each row, or of the totals."""
    rows = {"": stretch.totals} if hasattr(stretch, "totals") else {r.key: r for r in stretch.items}
    return {
        key: {entry.country: entry.request_count for entry in row.countries}
        for key, row in rows.items()
    }


def attribution(report: Any) -> SourceStatus:
    return source(report.sources, SourceName.COUNTRIES)


@pytest.mark.parametrize(
    ("group_by", "countries", "note", "affects"),
    [
        (None, {"": {"ES": 8}}, "7 calls from 2 countries are withheld: fewer than 2", "countries"),
        (
            GroupBy.SERVICE,
            {"other": {}, "svc": {"ES": 6}},
            "9 calls from 3 countries are withheld: fewer than 2 users of one service",
            "countries",
        ),
        (
            GroupBy.OWNER,
            {"": {}, "eve": {"ES": 6}},
            "9 calls from 3 countries are withheld: fewer than 2 users of one owner's services",
            "countries",
        ),
        (
            GroupBy.VO,
            {"": {"ES": 8}},
            "7 calls from 2 countries are withheld: fewer than 2 users of one VO or project",
            "countries",
        ),
        (
            GroupBy.PROJECT,
            {"": {}, "p": {}},
            "15 calls from 3 countries are withheld: fewer than 2 users of one VO or project",
            "countries",
        ),
        (
            GroupBy.USER,
            {"": {}, "ana": {}, "bob": {}},
            "15 calls from 3 countries are withheld: they are shown of 2 users or more",
            "countries",
        ),
        (
            GroupBy.COUNTRY,
            {"ES": {"ES": 8}, "unknown": {"unknown": 6}},
            "7 calls from 2 countries are withheld: fewer than 2",
            "items",
        ),
    ],
)
def test_countries_of_few_users_are_withheld_and_said_to_be(
    group_by: GroupBy | None, countries: dict[str, dict[str, int]], note: str, affects: str
) -> None:
    known = msgspec.structs.replace(
        calls(log(EXECUTIONS), log({}), ROSTER), geoip=Ok(facts=None, origin="geoip")
    )
    report = of(known, group_by, SMALL)
    assert listed(report) == countries
    said = attribution(report)
    assert (said.status, said.affects) == (SourceState.PARTIAL, (affects,))
    assert str(said.notes).startswith(note)
    assert "6 of 21 have no country" in str(said.notes)
    whole = of(known, group_by, PLAIN)
    assert attribution(whole).status is SourceState.OK
    if group_by is None:
        shorter = msgspec.structs.replace(whole.totals, countries=report.totals.countries)
        assert report.totals == shorter
        assert report.totals.countries_count == 3
    else:
        assert "PT" not in breakdown_csv(report)
        assert "FR" not in breakdown_csv(report)


def test_what_is_in_doubt_besides_stays_so() -> None:
    report = of(calls(log(EXECUTIONS), log({})), None, SMALL)
    said = attribution(report)
    assert said.affects == ("countries_count", "countries", "unknown_country_count")
    assert "no database" in str(said.notes)


def test_nobody_is_withheld_where_everyone_is_of_many() -> None:
    many = {call(user=user): 1 for user in ("ana", "bob")}
    report = of(calls(log(many), log({})), None, SMALL)
    assert attribution(report).status is SourceState.OK
    assert listed(report) == {"": {"ES": 2}}


def test_who_is_hidden_is_one_of_a_group_and_nobody_is_none() -> None:
    def tallies(*users: Any) -> Any:
        counts = Counter({call()._replace(user=user): 1 for user in users})
        return of_tallies(counts, EVERYTHING)

    assert small_countries(tallies("ana", HiddenUser("bob")), SMALL) == {}
    assert small_countries(tallies("ana", HiddenUser("ana")), SMALL) == {("ES",): 2}
    assert small_countries(tallies("ana", ""), SMALL) == {("ES",): 2}
    assert small_countries(None, SMALL) == {}


@pytest.mark.parametrize("least", [0, 1])
def test_a_group_of_one_is_shown_unless_it_is_to_be_larger(least: int) -> None:
    privacy = Privacy(country_users_least=least)
    assert listed(of(calls(log(EXECUTIONS), log({})), None, privacy)) == {
        "": {"ES": 8, "FR": 3, "PT": 4}
    }
    assert groupings.of_summary(privacy) == groupings.SUMMARY
    assert groupings.of_breakdown(GroupBy.OWNER, privacy) == groupings.BREAKDOWNS[GroupBy.OWNER]


START, END = "2026-04-01T00:00:00Z", "2026-04-02T23:59:59Z"
DAYS = with_periods(report_range(START, END, parse_instant("2026-05-01T00:00:00Z")), "day", None, 9)


def by_day(
    days: list[dict[CallKey, int]],
    group_by: GroupBy | None,
    privacy: Privacy,
    roster: Ok[Roster] | None = None,
) -> Calls:
    first_ns = parse_instant(START)
    bounds = [first_ns + day * DAY_NS for day in range(3)]
    parts = {
        SlotPart((first_ns + day * DAY_NS) // SLOT_NS, first=False): CallLog(
            tallies=Counter(tallies), lines_seen=0, lines_understood=0
        )
        for day, tallies in enumerate(days)
    }
    needs = groupings.of_summary(privacy)
    if group_by is not None:
        needs = groupings.of_breakdown(group_by, privacy)
    executions, exposed = (
        Ok(facts=of_slots(facts, groupings.of_a_series(needs).get(stream, ()), bounds), origin="x")
        for stream, facts in ((LogStream.EXECUTIONS, parts), (LogStream.EXPOSED, {}))
    )
    known = calls(executions, exposed, roster)
    return msgspec.structs.replace(known, geoip=Ok(facts=None, origin="geoip"))


@pytest.mark.parametrize("group_by", [None, *(by for by in GroupBy if by is not GroupBy.USER)])
def test_a_period_withholds_what_was_of_few_in_it(group_by: GroupBy | None) -> None:
    days: list[dict[CallKey, int]] = [
        {call(user="ana"): 1, call(user="bob"): 2},
        {call(user="ana"): 4},
    ]
    report = of(by_day(days, group_by, SMALL), group_by, SMALL, DAYS)
    assert report.periods is not UNSET
    found = [[*listed(stretch).values()] for stretch in (*report.periods, report)]
    nothing: list[dict[str, int]] = [] if group_by is GroupBy.COUNTRY else [{}]
    assert found == [[{"ES": 3}], nothing, [{"ES": 7}]]
    assert str(attribution(report).notes).startswith(
        "a period is without the countries that fewer than 2 users had in it"
    )


TALLIES = st.dictionaries(
    st.builds(
        call,
        st.sampled_from(["svc", "other", "third"]),
        user=st.sampled_from(["", "a", "b", "c", "oscar"]),
        country=st.sampled_from(["", "ES", "FR", "PT"]),
        kind=st.sampled_from([Kind.SYNC, Kind.ASYNC]),
        namespace=st.sampled_from(["", "ns"]),
    ),
    st.integers(1, 9),
    max_size=12,
)


PROJECTS = Ok(
    facts=Roster(users={user: RosterUser(id=user, project="p", vo=user) for user in "ab"}),
    origin="roster",
)


@given(TALLIES, st.integers(2, 4), st.sampled_from([None, *GroupBy]), TALLIES)
def test_shown_and_withheld_add_up(
    tallies: dict[CallKey, int],
    least: int,
    group_by: GroupBy | None,
    more: dict[CallKey, int],
) -> None:
    privacy = Privacy(country_users_least=least)
    said = by_day([tallies, more], group_by, privacy, PROJECTS)
    report = of(said, group_by, privacy, DAYS)
    total = sum(tallies.values()) + sum(more.values())
    notes = str(attribution(report).notes)
    withheld = re.match(r"(\d+) calls from (\d+) countries are withheld", notes)
    unknown = re.search(r"(\d+) of \d+ have no country", notes)
    shown = Counter[str]()
    for countries in listed(report).values():
        shown.update(countries)
    if group_by is not GroupBy.COUNTRY and unknown:
        shown["unknown"] += int(unknown[1])
    assert shown.total() + (int(withheld[1]) if withheld else 0) == total
    for stretch, facts in zip((*report.periods, report), (tallies, more, None), strict=True):
        if facts is None:
            facts = Counter(tallies) + Counter(more)
        if group_by in (None, GroupBy.COUNTRY):
            for countries in listed(stretch).values():
                for country in countries.keys() - {"unknown"}:
                    users = {key.user for key in facts if key.country == country} - {""}
                    assert len(users) >= least
