"""Rules about users: what a file of them may say, whom they are about, and which one counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import Membership, Person, RosterUser
from oscar_metrics.sources.roster_rules import Condition, Rule, Rules, RulesError, parse_rules
from oscar_metrics.sources.roster_rules_file import RulesFile
from oscar_metrics.timerange import SECOND_NS

FILE = b"""
[[rule]]
group = "/vo.example.eu/guests"
membership = "external"

[[rule]]
group = "/vo.example.eu/*"
membership = "member"
vo = "vo.example.eu"

[[rule]]
email_domain = "*.UPV.example"
project = "campus"

[[rule]]
id = "*@egi.eu"
membership = "member"
project = "egi"
"""
RULES = Rules(parse_rules(FILE))


def test_a_file_is_read_in_its_order() -> None:
    assert parse_rules(FILE)[:2] == (
        Rule(
            condition=Condition.GROUP,
            pattern="/vo.example.eu/guests",
            membership=Membership.EXTERNAL,
        ),
        Rule(
            condition=Condition.GROUP,
            pattern="/vo.example.eu/*",
            membership=Membership.MEMBER,
            vo="vo.example.eu",
        ),
    )
    assert parse_rules(b"") == ()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[[rule", "not TOML: "),
        ('[[rule]]\ngroup = "a"\nvo = b', "at line 3, column 6"),
        ("\xff".encode("latin-1"), "not UTF-8"),
        ("[rule]\ngroup = 'a'\nvo = 'b'", "expected [[rule]], with two brackets"),
        ("rule = ['a']", "rule 1: no table"),
        ("rules = []", "unknown key 'rules'"),
        ("[[rule]]\ngrup = 'a'\nvo = 'b'", "rule 1: unknown key 'grup': expected group, email_dom"),
        (
            "[[rule]]\nvo = 'b'",
            "rule 1: expected exactly one of group, email_domain, id; found none",
        ),
        ("[[rule]]\ngroup='a'\nid='b'\nvo='c'", "found group and id"),
        ("[[rule]]\ngroup = 'a'", "rule 1: gives nothing: expected membership, vo, project"),
        ("[[rule]]\ngroup = 'a'\nvo = ' '", "rule 1: vo is no text"),
        ("[[rule]]\ngroup = 1\nvo = 'b'", "rule 1: group is no text"),
        ("[[rule]]\ngroup = 'a'\nmembership = 'friend'", "rule 1: membership: expected member or"),
        ("[[rule]]\ngroup = 'a'\nmembership = 'unknown'", "rule 1: membership: expected member or"),
        (
            "[[rule]]\ngroup='a'\nvo='b'\n[[rule]]\nid='" + "x" * 201 + "'\nvo='b'",
            "rule 2: id: exp",
        ),
        ('[[rule]]\ngroup="a\\u0007"\nvo="b"', "rule 1: group: expected at most 200 printable"),
        ("[[rule]]\nid='a'\nvo='b'\n" * 201, "201 rules: expected 200 at most"),
        # Python reads no number of so many digits, and such a key takes gigabytes.
        ("[[rule]]\nid = " + "1" * 5000, "line 2: expected at most 1,000 characters"),
        (".".join("a" * 100_000) + " = 1", "line 1: expected at most 1,000 characters"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_expected(
    content: str | bytes, says: str
) -> None:
    with pytest.raises(RulesError) as caught:
        parse_rules(content if isinstance(content, bytes) else content.encode())
    assert says in str(caught.value)


MEMBER, EXTERNAL, UNKNOWN = Membership.MEMBER, Membership.EXTERNAL, Membership.UNKNOWN


@pytest.mark.parametrize(
    ("person", "membership", "vo", "project"),
    [
        # Of each field the first rule that gives it.
        (Person(id="a", groups=("/vo.example.eu/guests",)), EXTERNAL, "vo.example.eu", ""),
        (Person(id="a", groups=("/vo.example.eu/staff",)), MEMBER, "vo.example.eu", ""),
        (Person(id="a", groups=("/other", "/vo.example.eu/a/b")), MEMBER, "vo.example.eu", ""),
        (Person(id="a", groups=("/VO.example.eu/staff",)), None, "", ""),
        (Person(id="a", email="Ada@Mail.upv.EXAMPLE"), None, "", "campus"),
        (Person(id="a", email="ada@upv.example"), None, "", ""),
        (Person(id="a", email="upv.example"), None, "", ""),
        (Person(id="a@egi.eu", email="a@x.upv.example"), MEMBER, "", "campus"),
        # What an origin says comes before rules.
        (Person(id="a@egi.eu", membership=UNKNOWN, project="own"), UNKNOWN, "", "own"),
        (Person(id="a", groups=("/vo.example.eu/x",), vo="own"), MEMBER, "own", ""),
        (Person(id="a"), None, "", ""),
    ],
)
def test_what_rules_say_of_a_person(
    person: Person, membership: Membership | None, vo: str, project: str
) -> None:
    user = RULES.user(person, RULES.matching(person))
    assert user == RosterUser(id=person.id, membership=membership, vo=vo, project=project)


def test_an_id_that_no_origin_names_has_what_rules_say_of_ids() -> None:
    assert RULES.of_id is not None
    assert RULES.of_id("b@egi.eu") == RosterUser(id="b@egi.eu", membership=MEMBER, project="egi")
    assert RULES.of_id("b@example.eu") is None
    without_ids = Rules([rule for rule in RULES.rules if rule.condition is not Condition.ID])
    assert without_ids.of_id is None


@pytest.mark.parametrize("user", ["", "oscar", "nil", "minio"])
def test_what_is_no_person_is_nobodys_member(user: str) -> None:
    rules = Rules(parse_rules(b"[[rule]]\nid = '*'\nmembership = 'member'"))
    assert rules.of_id is not None
    assert rules.of_id(user) is None
    assert rules.of_id("anybody") is not None
    assert not rules.matching(Person(id=user))


TEXTS = st.text("ab*?[]!-^\\.@/Ä\n", max_size=12)


@given(st.sampled_from(Condition), TEXTS, TEXTS)
def test_no_pattern_breaks_and_a_plain_one_matches_itself_only(
    condition: Condition, pattern: str, text: str
) -> None:
    person = {
        Condition.ID: Person(id=text),
        Condition.GROUP: Person(id="x", groups=(text,)),
        Condition.EMAIL_DOMAIN: Person(id="x", email=f"x@{text}"),
    }[condition]
    matches = Rules([Rule(condition=condition, pattern=pattern, vo="v")]).matching(person)
    if condition is not Condition.EMAIL_DOMAIN and not set(pattern) & set("*?["):
        assert bool(matches) == (bool(text) and pattern == text) or not text
    if pattern == "*" and text:
        assert matches or "@" in text


@given(st.lists(st.sampled_from(RULES.rules), max_size=6), st.integers(0, 6), st.data())
def test_a_rule_for_nobody_changes_nothing_wherever_it_stands(
    rules: list[Rule], place: int, data: st.DataObject
) -> None:
    groups = data.draw(st.sets(st.sampled_from(["/vo.example.eu/guests", "/vo.example.eu/a"])))
    person = Person(id="a@egi.eu", groups=tuple(sorted(groups)))
    idle = Rule(condition=Condition.ID, pattern="nobody", membership=EXTERNAL, vo="x", project="x")
    with_idle = [*rules[:place], idle, *rules[place:]]
    said = [each.user(person, each.matching(person)) for each in (Rules(rules), Rules(with_idle))]
    assert said[0] == said[1]


def test_many_stars_take_no_time() -> None:
    # With a search that goes back it would take longer than the test run.
    rule = Rule(condition=Condition.ID, pattern="*a" * 99 + "*b", vo="v")
    assert not Rules([rule]).matching(Person(id="a" * 5000))


async def test_a_bad_file_leaves_the_last_good_one_with_its_age(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    file = RulesFile(path)
    never = await file.read(0)
    assert never.rules is None
    assert never.problem == "the file of roster rules does not exist (OSCAR_METRICS_ROSTER_RULES)"
    path.write_bytes(FILE)
    good = await file.read(10 * SECOND_NS)
    assert good.rules is not None
    assert good.problem == ""
    # The same object, so that what was put together with it still holds.
    assert (await file.read(20 * SECOND_NS)).rules is good.rules
    path.write_text("[[rule]]\ngroup = 'a'\n")
    bad = await file.read(50 * SECOND_NS)
    assert bad.rules is good.rules
    assert "rule 1: gives nothing" in bad.problem
    assert "the one read 30 s ago is used" in bad.problem
    assert str(tmp_path) not in bad.problem
    path.write_text("[[rule]]\ngroup = 'a'\nvo = 'b'\n")
    mended = await file.read(60 * SECOND_NS)
    assert mended.rules is not None
    assert mended.rules is not good.rules
    assert mended.problem == ""


async def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"#" * (256 * 1024 + 1))
    assert "is too large" in (await RulesFile(path).read(0)).problem
