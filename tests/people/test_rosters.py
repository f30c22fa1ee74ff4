"""A roster of several origins: field by field in their order, then rules, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import CountryFrom, Membership, Person, RosterUser
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.roster import RosterFile
from oscar_metrics.sources.roster_rules import Rules, parse_rules
from oscar_metrics.sources.roster_rules_file import RulesFile
from oscar_metrics.sources.rosters import Rosters, both, merge

MEMBER, EXTERNAL = Membership.MEMBER, Membership.EXTERNAL
RULES = b"[[rule]]\ngroup = '/staff'\nmembership = 'member'\n[[rule]]\nid = 'x*'\nvo = 'x'\n"


class Said:
    """An origin that says what it is told to: what real ones come to is for their own tests."""

    def __init__(self, outcome: Outcome[dict[str, Person]]) -> None:
        self.outcome = outcome

    async def read(self, _: int) -> Outcome[dict[str, Person]]:
        return self.outcome

    async def check(self) -> list[Finding]:
        return [Finding(source="user-roster", level=Level.OK, says="asked")]


def ok(origin: str, *people: Person) -> Said:
    return Said(Ok(facts={person.id: person for person in people}, origin=origin))


def rules_file(tmp_path: Path, content: bytes = RULES) -> RulesFile:
    path = tmp_path / "rules.toml"
    path.write_bytes(content)
    return RulesFile(path)


FULL = Person(
    id="a",
    name="Ada",
    email="ada@example.eu",
    groups=("/one",),
    membership=EXTERNAL,
    country="ES",
    vo="vo",
    project="p",
)
OTHER = Person(
    id="a",
    name="Other",
    email="other@example.eu",
    groups=("/staff",),
    membership=MEMBER,
    country="FR",
    country_from=CountryFrom.CLAIM,
    vo="other",
    project="other",
)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (FULL, OTHER, FULL),
        (OTHER, FULL, OTHER),
        (Person(id="a"), OTHER, OTHER),
        (OTHER, Person(id="a"), OTHER),
        (
            Person(id="a", name="Ada"),
            Person(id="a", country="FR", country_from=CountryFrom.CLAIM),
            Person(id="a", name="Ada", country="FR", country_from=CountryFrom.CLAIM),
        ),
    ],
)
def test_of_each_field_the_first_that_says_something_counts(
    first: Person, second: Person, expected: Person
) -> None:
    assert both(first, second) == expected


WORDS = st.sampled_from(["", "one", "two"])
PEOPLE = st.builds(
    Person,
    id=st.just("a"),
    name=WORDS,
    email=WORDS,
    groups=st.sampled_from([(), ("/staff",), ("/one", "/two")]),
    membership=st.sampled_from([None, *Membership]),
    country=WORDS,
    country_from=st.sampled_from([CountryFrom.ROSTER, CountryFrom.CLAIM]),
    vo=WORDS,
    project=WORDS,
)


@given(PEOPLE, PEOPLE, PEOPLE)
def test_origins_may_be_put_together_in_any_grouping(a: Person, b: Person, c: Person) -> None:
    assert both(both(a, b), c) == both(a, both(b, c))


@given(st.lists(st.dictionaries(st.sampled_from("abc"), PEOPLE, max_size=3), max_size=4))
def test_everybody_whom_an_origin_names_is_there_once(origins: list[dict[str, Person]]) -> None:
    roster = merge(tuple(origins), Rules()).roster
    assert set(roster.users) == {user for origin in origins for user in origin}
    for user in roster.users:
        named = [origin[user] for origin in origins if user in origin]
        assert roster.users[user].vo == next((each.vo for each in named if each.vo), "")


async def test_origins_and_rules_are_put_together(tmp_path: Path) -> None:
    file = ok("roster", Person(id="a", membership=EXTERNAL), Person(id="b", name="Bob"))
    keycloak = ok(
        "keycloak",
        Person(id="a", name="Ada", groups=("/staff",)),
        Person(id="b", groups=("/staff",)),
        Person(id="xc", country="ES"),
    )
    outcome = await Rosters([file, keycloak], rules_file(tmp_path)).read(0)
    assert isinstance(outcome, Ok)
    assert outcome.origin == "roster+keycloak+rules"
    assert outcome.facts.users == {
        "a": RosterUser(id="a", name="Ada", membership=EXTERNAL),
        "b": RosterUser(id="b", name="Bob", membership=MEMBER),
        "xc": RosterUser(id="xc", country="ES", vo="x"),
    }
    assert outcome.facts.of("xd") == RosterUser(id="xd", vo="x")
    assert outcome.facts.of("d") is None


async def test_nothing_is_put_together_anew_until_something_changes(tmp_path: Path) -> None:
    origin = ok("keycloak", Person(id="a"))
    path = tmp_path / "rules.toml"
    rosters = Rosters([origin], rules_file(tmp_path))

    async def roster() -> object:
        outcome = await rosters.read(0)
        assert isinstance(outcome, Ok)
        return outcome.facts

    first = await roster()
    assert await roster() is first
    origin.outcome = Ok(facts={"b": Person(id="b")}, origin="keycloak")
    second = await roster()
    assert second is not first
    path.write_bytes(b"")
    assert await roster() is not second


async def test_without_origins_and_rules_there_is_no_roster() -> None:
    outcome = await Rosters().read(0)
    assert isinstance(outcome, Unavailable)
    assert "OSCAR_METRICS_ROSTER" in outcome.notes[0]
    assert [f.level for f in await Rosters().check()] == [Level.WARNING]


async def test_an_origin_that_says_nothing_leaves_the_others_and_is_said(tmp_path: Path) -> None:
    out = Said(Unavailable(origin="keycloak", notes=("keycloak could not be reached",)))
    alone = await Rosters([out]).read(0)
    assert isinstance(alone, Unavailable)
    assert alone.notes == ("keycloak could not be reached",)
    outcome = await Rosters([ok("roster", Person(id="a")), out]).read(0)
    assert isinstance(outcome, Partial)
    assert outcome.doubts == outcome.notes == ("keycloak could not be reached",)
    assert set(outcome.facts.users) == {"a"}
    with_rules = await Rosters([out], rules_file(tmp_path)).read(0)
    assert isinstance(with_rules, Partial)
    assert with_rules.facts.of("x") is not None


async def test_rules_that_are_of_no_use_leave_the_origins_and_are_said(tmp_path: Path) -> None:
    file = rules_file(tmp_path, b"[[rule]]\n")
    outcome = await Rosters([ok("roster", Person(id="a"))], file).read(0)
    assert isinstance(outcome, Partial)
    assert "rule 1: expected exactly one of" in outcome.notes[0]
    assert outcome.origin == "roster"
    assert set(outcome.facts.users) == {"a"}
    assert isinstance(await Rosters([], file).read(0), Unavailable)
    assert [f.level for f in await Rosters([], file).check()] == [Level.PROBLEM]


async def test_what_an_origin_doubts_and_remarks_is_told_apart() -> None:
    stale = Said(Partial(facts={}, origin="keycloak", notes=("old",), last_updated_ns=5))
    remark = Said(Ok(facts={}, origin="claims", notes=("by the way",), last_updated_ns=9))
    outcome = await Rosters([stale, remark]).read(0)
    assert isinstance(outcome, Partial)
    assert outcome.doubts == ("old",)
    assert outcome.notes == ("old", "by the way")
    assert outcome.last_updated_ns == 5


async def test_check_names_rules_that_are_about_nobody(tmp_path: Path) -> None:
    origin = ok("roster", Person(id="a", groups=("/staff",)))
    found = await Rosters([origin], rules_file(tmp_path)).check()
    assert [(f.level, f.says) for f in found] == [
        (Level.OK, "asked"),
        (Level.WARNING, "rule 2 (id = 'x*') is about nobody whom an origin names"),
    ]
    used = await Rosters(
        [ok("roster", Person(id="x", groups=("/staff",)))], rules_file(tmp_path)
    ).check()
    assert [f.says for f in used] == ["asked", "2 rules"]
    idle = b"".join(b"[[rule]]\nid = 'nobody%d'\nvo = 'v'\n" % n for n in range(15))
    many = await Rosters([origin], rules_file(tmp_path, idle)).check()
    assert len(many) == 12
    assert many[-1].says == "and 5 more rules"


async def test_a_file_is_one_of_the_origins(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text("id,groups\na,/staff|/other\n")
    rosters = Rosters([RosterFile(path)], rules_file(tmp_path))
    outcome = await rosters.read(0)
    assert isinstance(outcome, Ok)
    assert outcome.facts.users["a"].membership is MEMBER
    path.write_text("id,groups\na,\nb,/staff\n")
    changed = await rosters.read(0)
    assert isinstance(changed, Ok)
    assert [changed.facts.users[user].membership for user in "ab"] == [None, MEMBER]


def test_a_rule_is_counted_by_the_people_it_is_about() -> None:
    people = {name: Person(id=name, groups=("/staff",)) for name in ("a", "xb")}
    assert merge((people,), Rules(parse_rules(RULES))).matches == {0: 2, 1: 1}
