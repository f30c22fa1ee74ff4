"""Who the users are, put together: what each origin says, in their order, and then the rules.

Of every field the first origin that says something counts. What is put together is kept until
an origin or the rules change, since it may be about 200,000 people.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from oscar_metrics.facts import Person, Roster, RosterUser
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable, doubts_and_remarks
from oscar_metrics.sources.interfaces import PeopleSource
from oscar_metrics.sources.roster_rules import Rule, Rules
from oscar_metrics.sources.roster_rules_file import RULES_SETTING, RulesAsRead, RulesFile

_ORIGIN = "roster"
_RULES_ORIGIN = "rules"
_SOURCE = "user-roster"
_SETTINGS = "OSCAR_METRICS_ROSTER, OSCAR_METRICS_KEYCLOAK_URL"
_NAMED_RULES = 10
_NO_RULES = Rules()


class _Merged(msgspec.Struct, frozen=True, kw_only=True):
    """A roster, what it was put together from, and how many people each rule is about."""

    people: tuple[dict[str, Person], ...]
    rules: Rules
    roster: Roster
    matches: Counter[int]


class Rosters:
    """The roster of several origins, those first that count first, and of rules."""

    def __init__(
        self, origins: Sequence[PeopleSource] = (), rules: RulesFile | None = None
    ) -> None:
        self._origins = tuple(origins)
        self._rules = rules
        self._asked_ns = 0
        self._merging = asyncio.Lock()
        self._merged: _Merged | None = None

    async def read(self, now_ns: int) -> Outcome[Roster]:
        """What is known of users now; Partial where an origin, or the rules, could not be read."""
        if not self._origins and self._rules is None:
            return Unavailable(origin=_ORIGIN, notes=(f"no roster is configured ({_SETTINGS})",))
        self._asked_ns = now_ns
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(origin.read(now_ns)) for origin in self._origins]
            rules = RulesAsRead(rules=None)
            if self._rules is not None:
                rules = await self._rules.read(now_ns)
        said = [task.result() for task in tasks]
        people = [outcome.facts for outcome in said if not isinstance(outcome, Unavailable)]
        if not people and rules.rules is None:
            notes = [note for outcome in said for note in outcome.notes]
            origin = "+".join(outcome.origin for outcome in said) or _RULES_ORIGIN
            return Unavailable(origin=origin, notes=tuple(filter(None, (*notes, rules.problem))))
        merged = await self._put_together(tuple(people), rules.rules or _NO_RULES)
        return _outcome(merged.roster, said, rules)

    async def check(self) -> list[Finding]:
        """What an operator should know of the origins and the rules."""
        if not self._origins and self._rules is None:
            return [
                _finding(
                    Level.WARNING,
                    "no user roster is configured: membership follows from the users' ids alone",
                    f"set one of {_SETTINGS}",
                )
            ]
        found: list[Finding] = []
        for origin in self._origins:
            found += await origin.check()
        if self._rules is not None:
            found += await self._check_rules(self._rules)
        return found

    async def _check_rules(self, file: RulesFile) -> list[Finding]:
        as_read = await file.read(self._asked_ns)
        if as_read.rules is None:
            return [_finding(Level.PROBLEM, as_read.problem, f"correct {RULES_SETTING} or it")]
        said = [await origin.read(self._asked_ns) for origin in self._origins]
        people = [outcome.facts for outcome in said if not isinstance(outcome, Unavailable)]
        merged = await self._put_together(tuple(people), as_read.rules)
        rules = as_read.rules.rules
        idle = [place for place in range(len(rules)) if not merged.matches[place]]
        found = [
            _finding(
                Level.WARNING,
                f"{_about(place, rules[place])} is about nobody whom an origin names",
                "correct its pattern, unless those it is meant for are yet to come",
            )
            for place in idle[:_NAMED_RULES]
        ]
        if (more := len(idle) - len(found)) > 0:
            found.append(_finding(Level.WARNING, f"and {more} more rules"))
        return found or [_finding(Level.OK, f"{len(rules)} rules")]

    async def _put_together(self, people: tuple[dict[str, Person], ...], rules: Rules) -> _Merged:
        # One at a time: who comes meanwhile has what the first one made.
        async with self._merging:
            last = self._merged
            if last is None or last.rules is not rules or not _same(last.people, people):
                self._merged = last = await asyncio.to_thread(merge, people, rules)
            return last


def merge(people: tuple[dict[str, Person], ...], rules: Rules) -> _Merged:
    """What all origins say together, those first that count first, and what rules add. Pure."""
    users: dict[str, RosterUser] = {}
    matches: Counter[int] = Counter()
    for place, origin in enumerate(people):
        for user, person in origin.items():
            if user in users:
                continue
            for later in people[place + 1 :]:
                if (other := later.get(user)) is not None:
                    person = both(person, other)
            matching = rules.matching(person)
            matches.update(matching)
            users[user] = rules.user(person, matching)
    roster = Roster(users=users, of_id=rules.of_id)
    return _Merged(people=people, rules=rules, roster=roster, matches=matches)


def both(first: Person, second: Person) -> Person:
    """What two origins say of a user: of every field what the first says, else the second."""
    membership = second.membership if first.membership is None else first.membership
    return Person(
        id=first.id,
        name=first.name or second.name,
        email=first.email or second.email,
        groups=first.groups or second.groups,
        membership=membership,
        country=first.country or second.country,
        country_from=first.country_from if first.country else second.country_from,
        vo=first.vo or second.vo,
        project=first.project or second.project,
    )


def _same(one: Sequence[dict[str, Person]], other: Sequence[dict[str, Person]]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _outcome(
    roster: Roster, said: Sequence[Outcome[dict[str, Person]]], rules: RulesAsRead
) -> Outcome[Roster]:
    origins = [outcome.origin for outcome in said if not isinstance(outcome, Unavailable)]
    if rules.rules is not None:
        origins.append(_RULES_ORIGIN)
    origin = "+".join(origins)
    doubts: list[str] = []
    remarks: list[str] = []
    for outcome in said:
        its_doubts, its_remarks = doubts_and_remarks(outcome)
        doubts += its_doubts
        # What keeps an origin from saying anything casts doubt on the whole.
        (doubts if isinstance(outcome, Unavailable) else remarks).extend(its_remarks)
    if rules.problem:
        doubts.append(rules.problem)
    times = [
        outcome.last_updated_ns
        for outcome in said
        if not isinstance(outcome, Unavailable) and outcome.last_updated_ns is not None
    ]
    # As old as the oldest of what it is made of.
    last_updated_ns = min(times, default=None)
    if not doubts:
        return Ok(
            facts=roster, origin=origin, notes=tuple(remarks), last_updated_ns=last_updated_ns
        )
    return Partial(
        facts=roster,
        origin=origin,
        notes=(*doubts, *remarks),
        doubts=tuple(doubts),
        last_updated_ns=last_updated_ns,
    )


def _about(place: int, rule: Rule) -> str:
    return f"rule {place + 1} ({rule.condition} = {rule.pattern!r})"


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_SOURCE, level=level, says=says, change=change)
