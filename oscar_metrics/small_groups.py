"""Countries of so few users that they are withheld. Pure.

Who is withheld is counted: what is shown, what is withheld and what has no country add up to
all calls.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from oscar_metrics.callers import id_of
from oscar_metrics.facts import CountryFrom
from oscar_metrics.outcome import Outcome, Unavailable, with_doubts
from oscar_metrics.privacy import Privacy
from oscar_metrics.sums import PERIOD, CallSums, over_all_periods

# The calls of each country that is withheld; what the rows are by comes before the country.
SmallCountries = Counter[tuple[Any, ...]]


def small_countries(executions: CallSums | None, privacy: Privacy, *by: str) -> SmallCountries:
    """Calls from countries with fewer named users than are shown, in each row by some fields."""
    small: SmallCountries = Counter()
    if executions is None or not privacy.withholds_countries:
        return small
    users: defaultdict[tuple[Any, ...], set[str]] = defaultdict(set)
    for *place, user in executions.by(*by, "country", "user"):
        users[tuple(place)].add(id_of(user))
    for (*place, how), count in executions.by(*by, "country", "country_from").items():
        named = users.get(tuple(place), set()) - {""}
        if how is not CountryFrom.NOTHING and len(named) < privacy.country_users_least:
            small[tuple(place)] += count
    return small


def with_withheld(
    attribution: Outcome[None], executions: Outcome[CallSums], privacy: Privacy, *by: str
) -> Outcome[None]:
    """The attribution of countries, saying how many of them and of their calls are withheld."""
    if isinstance(executions, Unavailable) or not privacy.withholds_countries:
        return attribution
    sums, least = executions.facts, privacy.country_users_least
    doubts = []
    if small := small_countries(over_all_periods(sums), privacy, *by):
        countries = len({country for *_, country in small})
        doubts.append(
            f"{small.total()} calls from {countries} countries are withheld: "
            + _REASONS[by].format(least=least)
        )
    in_periods = any(grouping[:1] == (PERIOD,) for grouping in sums.groups)
    if in_periods and small_countries(sums, privacy, PERIOD, *by):
        doubts.append(f"a period is without the countries that fewer than {least} users had in it")
    return with_doubts(attribution, doubts)


# By what the rows of a report are.
_REASONS = {
    (): "fewer than {least} users called from each",
    ("service",): "fewer than {least} users of one service called from each",
    ("owner",): "fewer than {least} users of one owner's services called from each",
    ("affiliation",): "fewer than {least} users of one VO or project called from each",
    ("user",): "they are shown of {least} users or more, and a row is of one",
}
