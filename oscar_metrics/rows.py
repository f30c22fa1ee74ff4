"""Sums and usage → totals, and the rows of breakdowns, for one stretch of time. Pure.

`None` for sums or usage is a source that says nothing of the stretch: the numbers that are
added up from it are `None` then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from typing import Any

from msgspec import UNSET

from oscar_metrics.callers import User, count_of, shown
from oscar_metrics.completeness import membership
from oscar_metrics.facts import CountryFrom, HiddenUser, Kind, Result, Roster, ServiceKey, Usage
from oscar_metrics.outcome import Measure, Outcome
from oscar_metrics.privacy import Privacy
from oscar_metrics.small_groups import small_countries
from oscar_metrics.sums import CallSums
from oscar_metrics.usage_hours import Hours, hours, hours_by, hours_by_service, no_hours
from oscar_metrics.wire import (
    AffiliationItem,
    CountryCount,
    CountryItem,
    OwnerItem,
    ServiceItem,
    Totals,
    UserItem,
)

UNKNOWN_COUNTRY = "unknown"

# Counts by some fields of calls, in no order; a list, since they are only gone through.
_Counts = Sequence[tuple[tuple[Any, ...], int]]
_NONE: _Counts = ()
_NO_COUNTRIES: frozenset[str] = frozenset()


def totals(
    executions: CallSums | None,
    exposed: CallSums | None,
    usage: Usage | None,
    *,
    services_active: int | None,
    privacy: Privacy,
) -> Totals:
    """The totals of a summary."""
    calls = None if executions is None else [*executions.by("kind", "result").items()]
    places = [] if executions is None else [*executions.by("country", "country_from").items()]
    countries = _countries(places)
    withheld = {country for (country,) in small_countries(executions, privacy)}
    users = users_of(executions)
    return Totals(
        services_count_active=services_active,
        services_count_total=(
            None
            if executions is None or exposed is None
            else len(executions.by("service").keys() | exposed.by("service").keys())
        ),
        cpu_hours_total=hours(usage, Measure.CPU),
        gpu_hours_total=hours(usage, Measure.GPU),
        requests_count_total=_total(calls),
        requests_count_sync=_of_kind(calls, Kind.SYNC),
        requests_count_async=_of_kind(calls, Kind.ASYNC),
        requests_count_exposed=None if exposed is None else exposed.by("service").total(),
        countries_count=None if executions is None else len(countries),
        countries=_country_counts(countries, withheld),
        users_count=None if executions is None else count_of(users),
        users=shown(users, privacy),
        failed_count=_failed(calls),
        unknown_country_count=(
            None if executions is None else _sum(places) - sum(countries.values())
        ),
    )


def users_of(executions: CallSums | None) -> set[User]:
    """Everyone executions name, and the blank where some name nobody."""
    return set() if executions is None else {user for (user,) in executions.by("user")}


def service_items(
    executions: CallSums | None,
    exposed: CallSums | None,
    *,
    include_users: bool,
    privacy: Privacy,
    usage: Usage | None = None,
    include_usage: bool = False,
) -> tuple[ServiceItem, ...]:
    """A row per service name; with usage, its hours and a row for what nothing claims."""
    calls = _by_first(executions, "service", "namespace", "kind", "result")
    places = _by_first(executions, "service", "country", "country_from")
    users = _by_first(executions, "service", "user")
    gateway = _by_first(exposed, "service", "namespace")
    used = hours_by_service(usage)
    withheld = _by_row(small_countries(executions, privacy, "service"))
    return tuple(
        _service_item(
            name,
            None if executions is None else calls.get(name, _NONE),
            None if exposed is None else gateway.get(name, _NONE),
            countries=_country_counts(
                _countries(places.get(name, _NONE)), withheld.get(name, _NO_COUNTRIES)
            ),
            users=_users(users.get(name, _NONE)),
            include_users=include_users,
            privacy=privacy,
            hours=used.get(name, no_hours(usage)) if include_usage else None,
        )
        for name in sorted(calls.keys() | gateway.keys() | used.keys())
    )


def user_items(
    executions: CallSums | None, roster: Outcome[Roster], privacy: Privacy
) -> tuple[UserItem, ...]:
    """A row per user of executions; the key is blank for calls of nobody who may be shown."""
    results = _by_first(executions, "user", "result")
    places = _by_first(executions, "user", "country", "country_from")
    users: defaultdict[str, list[User]] = defaultdict(list)
    for user in results:
        users["" if isinstance(user, HiddenUser) else privacy.user(user)].append(user)
    return tuple(
        _user_item(
            key,
            users[key],
            roster,
            results=[*chain.from_iterable(results[user] for user in users[key])],
            places=(
                _NONE
                if privacy.withholds_countries  # a row is of one user
                else [*chain.from_iterable(places.get(user, _NONE) for user in users[key])]
            ),
        )
        for key in sorted(users)
    )


def country_items(executions: CallSums | None, privacy: Privacy) -> tuple[CountryItem, ...]:
    """A row per country of executions, and one for those that have none."""
    users = _by_first(executions, "country", "user")
    withheld = {country for (country,) in small_countries(executions, privacy)}
    counts = {
        country: _sum(places)
        for country, places in _by_first(executions, "country", "country_from").items()
        if country not in withheld
    }
    named = sorted((country or UNKNOWN_COUNTRY, country) for country in counts)
    return tuple(
        CountryItem(
            key=key,
            executions_count=counts[country],
            unique_users_count=count_of(_users(users.get(country, _NONE))),
            countries=(CountryCount(country=key, request_count=counts[country]),),
        )
        for key, country in named
    )


def affiliation_items(executions: CallSums | None, privacy: Privacy) -> tuple[AffiliationItem, ...]:
    """A row per VO or project, of sums by `affiliation` and `user`; the key is blank for none."""
    results = _by_first(executions, "affiliation", "result")
    users = _by_first(executions, "affiliation", "user")
    places = _by_first(executions, "affiliation", "country", "country_from")
    withheld = _by_row(small_countries(executions, privacy, "affiliation"))
    return tuple(
        AffiliationItem(
            key=key,
            executions_count=_sum(results[key]),
            unique_users_count=count_of(_users(users.get(key, _NONE))),
            countries=_country_counts(
                _countries(places.get(key, _NONE)), withheld.get(key, _NO_COUNTRIES)
            ),
            failed_count=_failed(results[key]) or 0,
        )
        for key in sorted(results)
    )


def owner_items(
    executions: CallSums | None,
    exposed: CallSums | None,
    owner_of: Callable[[ServiceKey], str],
    names: Mapping[str, str],
    *,
    privacy: Privacy,
    usage: Usage | None = None,
    include_usage: bool = False,
) -> tuple[OwnerItem, ...]:
    """A row per owner, of sums by `owner` and `service`; `names` are what owners are called."""
    calls = _by_first(executions, "owner", "service", "kind", "result")
    places = _by_first(executions, "owner", "country", "country_from")
    users = _by_first(executions, "owner", "user")
    gateway = _by_first(exposed, "owner", "service")
    used = hours_by(usage, owner_of)
    withheld = _by_row(small_countries(executions, privacy, "owner"))
    items = [
        _owner_item(
            privacy.user(owner),
            names.get(owner, ""),
            None if executions is None else calls.get(owner, _NONE),
            None if exposed is None else gateway.get(owner, _NONE),
            countries=_country_counts(
                _countries(places.get(owner, _NONE)), withheld.get(owner, _NO_COUNTRIES)
            ),
            users=_users(users.get(owner, _NONE)),
            hours=used.get(owner, no_hours(usage)) if include_usage else None,
        )
        for owner in calls.keys() | gateway.keys() | used.keys()
    ]
    return tuple(sorted(items, key=lambda item: item.key))


def _service_item(
    name: str,
    calls: _Counts | None,
    gateway: _Counts | None,
    *,
    countries: tuple[CountryCount, ...],
    users: set[User],
    include_users: bool,
    privacy: Privacy,
    hours: Hours | None,
) -> ServiceItem:
    namespaces = {key[0] for key, _ in (*(calls or ()), *(gateway or ()))} - {""}
    return ServiceItem(
        key=name,
        requests_count_total=_total(calls),
        requests_count_sync=_of_kind(calls, Kind.SYNC),
        requests_count_async=_of_kind(calls, Kind.ASYNC),
        requests_count_exposed=_total(gateway),
        unique_users_count=None if calls is None else count_of(users),
        users=shown(users, privacy) if include_users else UNSET,
        countries=countries,
        namespaces=tuple(sorted(set(map(privacy.namespace, namespaces)))),
        failed_count=_failed(calls),
        cpu_hours=UNSET if hours is None else hours[0],
        gpu_hours=UNSET if hours is None else hours[1],
        unattributed=UNSET if name or hours is None else True,
    )


def _owner_item(
    key: str,
    name: str,
    calls: _Counts | None,
    gateway: _Counts | None,
    *,
    countries: tuple[CountryCount, ...],
    users: set[User],
    hours: Hours | None,
) -> OwnerItem:
    services = {key[0] for key, _ in (*(calls or ()), *(gateway or ()))}
    return OwnerItem(
        key=key,
        name=name,
        services_count=None if calls is None or gateway is None else len(services),
        requests_count_total=_total(calls),
        requests_count_sync=_of_kind(calls, Kind.SYNC),
        requests_count_async=_of_kind(calls, Kind.ASYNC),
        requests_count_exposed=_total(gateway),
        unique_users_count=None if calls is None else count_of(users),
        countries=countries,
        failed_count=_failed(calls),
        cpu_hours=UNSET if hours is None else hours[0],
        gpu_hours=UNSET if hours is None else hours[1],
        unattributed=UNSET if key else True,
    )


def _user_item(
    key: str, users: Sequence[User], roster: Outcome[Roster], *, results: _Counts, places: _Counts
) -> UserItem:
    # Membership is of the id, however that is shown.
    user = users[0] if key else ""
    return UserItem(
        key=key,
        membership=membership(user if isinstance(user, str) else "", roster),
        executions_count=_sum(results),
        countries=_country_counts(_countries(places)),
        failed_count=_failed(results) or 0,
    )


def _by_first(sums: CallSums | None, *fields: str) -> dict[Any, _Counts]:
    """The counts by the other fields, for each value of the first."""
    grouped: defaultdict[str, list[tuple[tuple[Any, ...], int]]] = defaultdict(list)
    if sums is not None:
        for key, count in sums.by(*fields).items():
            grouped[key[0]].append((key[1:], count))
    return dict(grouped)


def _by_row(small: Mapping[tuple[Any, ...], int]) -> dict[str, set[str]]:
    """The countries that are withheld of each row."""
    rows: defaultdict[str, set[str]] = defaultdict(set)
    for row, country in small:
        rows[row].add(country)
    return dict(rows)


def _users(users: _Counts) -> set[User]:
    return {user for (user,), _ in users}


def _countries(places: _Counts) -> dict[str, int]:
    """Calls per country, of counts by country and how it was decided."""
    countries: defaultdict[str, int] = defaultdict(int)
    for (country, country_from), count in places:
        if country_from is not CountryFrom.NOTHING:
            countries[country] += count
    return countries


def _country_counts(
    countries: Mapping[str, int], withheld: Collection[str] = ()
) -> tuple[CountryCount, ...]:
    return tuple(
        CountryCount(country=country, request_count=count)
        for country, count in sorted(countries.items())
        if country not in withheld
    )


def _sum(counts: _Counts) -> int:
    return sum(count for _, count in counts)


def _total(counts: _Counts | None) -> int | None:
    return None if counts is None else _sum(counts)


def _of_kind(calls: _Counts | None, kind: Kind) -> int | None:
    """Calls of one kind, of counts whose last two fields are kind and result."""
    return None if calls is None else sum(count for key, count in calls if key[-2] is kind)


def _failed(calls: _Counts | None) -> int | None:
    """Calls that failed, of counts whose last field is the result."""
    return None if calls is None else sum(count for key, count in calls if key[-1] is not Result.OK)
