"""What groups, e-mail domains and ids say of users: an operator's rules, in a TOML file. Pure.

    [[rule]]
    group = "/vo.example.eu/*"
    membership = "member"
    vo = "vo.example.eu"

A rule has one condition, `group`, `email_domain` or `id`, as a shell-style pattern (`*`, `?`,
`[abc]`), and gives a membership, a VO, a project, or several. Of each the first rule that gives
it counts. docs/people.md.
"""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from oscar_metrics.facts import Membership, Person, RosterUser
from oscar_metrics.privacy import NOT_PEOPLE

# So that they can be tried on 200,000 users in seconds.
_MOST_RULES = 200
_MOST_CHARACTERS = 200
# A key of thousands of names with dots between them would take all memory there is.
_MOST_IN_A_LINE = 1000
# Ids that no origin names, of which what rules say is remembered.
_IDS_KEPT = 65_536
_TOP = "rule"
_GIVEN = ("membership", "vo", "project")


class RulesError(Exception):
    """The rules are of no use; its text says where, and what was expected."""


class Condition(StrEnum):
    """What of a user a rule looks at."""

    GROUP = "group"
    EMAIL_DOMAIN = "email_domain"
    ID = "id"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Of whom something is said, and what; blank or None where it says nothing."""

    condition: Condition
    pattern: str
    membership: Membership | None = None
    vo: str = ""
    project: str = ""


def parse_rules(content: bytes) -> tuple[Rule, ...]:
    """The rules of a file, in their order; raises RulesError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RulesError("not UTF-8") from None
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MOST_IN_A_LINE:
            raise RulesError(f"line {number}: expected at most {_MOST_IN_A_LINE:,} characters")
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise RulesError(f"not TOML: {exc}") from None
    except RecursionError:
        raise RulesError("not TOML that can be read: nested too deeply") from None
    if unknown := sorted(tree.keys() - {_TOP}):
        raise RulesError(f"unknown key {unknown[0][:_MOST_CHARACTERS]!r}: expected [[rule]] only")
    entries = tree.get(_TOP, [])
    if not isinstance(entries, list):
        raise RulesError("rule is no list: expected [[rule]], with two brackets")
    if len(entries) > _MOST_RULES:
        raise RulesError(f"{len(entries):,} rules: expected {_MOST_RULES} at most")
    return tuple(_rule(number, entry) for number, entry in enumerate(entries, 1))


def _rule(number: int, entry: Any) -> Rule:
    def wrong(what: str) -> RulesError:
        return RulesError(f"rule {number}: {what}")

    if not isinstance(entry, dict):
        raise wrong("no table: expected [[rule]], with two brackets")
    known = {*Condition, *_GIVEN}
    if unknown := sorted(entry.keys() - known):
        expected = ", ".join((*Condition, *_GIVEN))
        raise wrong(f"unknown key {unknown[0][:_MOST_CHARACTERS]!r}: expected {expected}")
    for key, value in entry.items():
        if not isinstance(value, str) or not value.strip():
            raise wrong(f"{key} is no text: expected one in quotes")
        if len(value) > _MOST_CHARACTERS or not value.isprintable():
            raise wrong(f"{key}: expected at most {_MOST_CHARACTERS} printable characters")
    conditions = [condition for condition in Condition if condition in entry]
    if len(conditions) != 1:
        found = " and ".join(conditions) or "none"
        raise wrong(f"expected exactly one of {', '.join(Condition)}; found {found}")
    if not any(key in entry for key in _GIVEN):
        raise wrong(f"gives nothing: expected {', '.join(_GIVEN)}, or several of them")
    membership = entry.get("membership")
    if membership is not None and membership not in (Membership.MEMBER, Membership.EXTERNAL):
        raise wrong("membership: expected member or external")
    return Rule(
        condition=conditions[0],
        pattern=entry[conditions[0]].strip(),
        membership=None if membership is None else Membership(membership),
        vo=entry.get("vo", "").strip(),
        project=entry.get("project", "").strip(),
    )


class Rules:
    """Rules as they are applied; the patterns' matches of groups and domains are remembered."""

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self._of_group = _matcher(self.rules, Condition.GROUP)
        self._of_domain = _matcher(self.rules, Condition.EMAIL_DOMAIN)
        self._of_id = _matcher(self.rules, Condition.ID)
        has_ids = any(rule.condition is Condition.ID for rule in self.rules)
        # What they say of an id that no origin names; None where they say nothing of ids.
        self.of_id: Callable[[str], RosterUser | None] | None = (
            lru_cache(_IDS_KEPT)(self._unnamed) if has_ids else None
        )

    def matching(self, person: Person) -> frozenset[int]:
        """The rules, by their places from 0, that are about a user."""
        found = set(self._about_id(person.id))
        _, at, domain = person.email.rpartition("@")
        if at and self._of_domain is not None:
            found |= self._of_domain(domain.strip().lower())
        if self._of_group is not None:
            for group in person.groups:
                found |= self._of_group(group)
        return frozenset(found)

    def user(self, person: Person, matching: Iterable[int]) -> RosterUser:
        """What is known of a user: what origins say, else the first of the matching rules."""
        membership, vo, project = person.membership, person.vo, person.project
        for place in sorted(matching):
            rule = self.rules[place]
            membership = rule.membership if membership is None else membership
            vo = vo or rule.vo
            project = project or rule.project
        return RosterUser(
            id=person.id,
            name=person.name,
            membership=membership,
            country=person.country,
            country_from=person.country_from,
            vo=vo,
            project=project,
        )

    def _about_id(self, user: str) -> frozenset[int]:
        # What is no person at all is nobody's member, whatever a pattern such as `*` matches.
        if self._of_id is None or not user or user in NOT_PEOPLE:
            return frozenset()
        return self._of_id(user)

    def _unnamed(self, user: str) -> RosterUser | None:
        matching = self._about_id(user)
        return self.user(Person(id=user), matching) if matching else None


def _matcher(rules: Sequence[Rule], condition: Condition) -> Callable[[str], frozenset[int]] | None:
    """Which of the rules with a condition match a text; None where there is no such rule."""
    patterns = [
        (place, _compiled(rule)) for place, rule in enumerate(rules) if rule.condition is condition
    ]
    if not patterns:
        return None

    def matching(text: str) -> frozenset[int]:
        return frozenset(place for place, pattern in patterns if pattern.match(text))

    # There are few groups and domains, and as many ids as users.
    return matching if condition is Condition.ID else lru_cache(_IDS_KEPT)(matching)


def _compiled(rule: Rule) -> re.Pattern[str]:
    # What a pattern is translated to never goes back, however many stars it has.
    domain = rule.condition is Condition.EMAIL_DOMAIN
    return re.compile(fnmatch.translate(rule.pattern.lower() if domain else rule.pattern))
