import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.facts import Membership, Person
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.roster import RosterFile, RosterSettings, parse_roster
from oscar_metrics.sources.versioned_files import UnusableFileError
from oscar_metrics.timerange import SECOND_NS

HEADER = "id,name,membership,country\n"
ADA = Person(id="ada@egi.eu", name="Ada, L.", membership=Membership.MEMBER, country="Spain")


def test_users_are_read_by_id() -> None:
    users, doubts = parse_roster(
        (HEADER + 'ada@egi.eu,"Ada, L.",Member,Spain\r\n\nbob,,,\n').encode(), users_max=10
    )
    assert users == {"ada@egi.eu": ADA, "bob": Person(id="bob")}
    assert doubts == []


def test_columns_may_be_missing_or_in_another_order() -> None:
    users, _ = parse_roster(b"\xef\xbb\xbfCountry, ID\nES,ada\n", users_max=10)
    assert users == {"ada": Person(id="ada", country="ES")}


def test_every_column_is_read() -> None:
    content = (
        b"id,name,membership,country,vo,project,email,groups\n"
        b"ada,Ada,external,ES,vo.example.eu,climate,ada@example.eu,staff | /vo/physics|\n"
    )
    users, doubts = parse_roster(content, users_max=10)
    assert doubts == []
    assert users["ada"] == Person(
        id="ada",
        name="Ada",
        email="ada@example.eu",
        groups=("staff", "/vo/physics"),
        membership=Membership.EXTERNAL,
        country="ES",
        vo="vo.example.eu",
        project="climate",
    )


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"x,y,member", "3 values instead of 4"),
        (b"x,y,friend,ES", "membership is none of member, external, unknown"),
        (b",y,member,ES", "no id"),
        (b'x,"y,member,ES', "a quote is not closed"),
        (b"x,\xff,member,ES", "not UTF-8"),
        (b"ada,again,member,ES", "its id came before"),
        (b"x,\x1b[31my,member,ES", "a character that is none of a text"),
        (b"x," + b"y" * 256 + b",member,ES", "a value of more than 255 characters"),
    ],
)
def test_a_bad_line_is_named_and_the_rest_used(line: bytes, says: str) -> None:
    content = HEADER.encode() + b"ada,A,member,ES\n" + line + b"\nbob,B,external,FR\n"
    users, doubts = parse_roster(content, users_max=10)
    assert set(users) == {"ada", "bob"}
    assert users["ada"].name == "A"
    assert len(doubts) == 1
    assert doubts[0].startswith(f"user roster, line 3: {says}")


def test_many_bad_lines_are_counted_rather_than_named() -> None:
    _, doubts = parse_roster((HEADER + ",,,\n" * 1000).encode(), users_max=10)
    assert len(doubts) == 11
    assert doubts[-1] == "user roster, and 990 more lines"


def test_users_past_the_bound_are_left_out_and_said() -> None:
    content = HEADER + "".join(f"u{n},,,\n" for n in range(20))
    users, doubts = parse_roster(content.encode(), users_max=10)
    assert len(users) == 10
    assert doubts == ["user roster, line 12 and what follows: more than 10 users"]


@given(st.binary(max_size=300))
def test_no_content_breaks_the_reading(content: bytes) -> None:
    users, _ = parse_roster(HEADER.encode() + content, users_max=5)
    assert len(users) <= 5
    with contextlib.suppress(UnusableFileError):
        parse_roster(content, users_max=5)


def notes(outcome: Outcome[object]) -> str:
    return " ".join(outcome.notes)


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist"), ("a,b\n1,2\n", "first line is not"), ("x" * 2000, "too large")],
)
async def test_a_roster_never_read_is_unavailable(
    tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "roster.csv"
    if content is not None:
        path.write_text(content)
    roster = RosterFile(path, RosterSettings(file_bytes=1000))
    outcome = await roster.read(0)
    assert isinstance(outcome, Unavailable)
    assert says in notes(outcome)
    assert str(tmp_path) not in notes(outcome)
    assert [f.level for f in await roster.check()] == [Level.PROBLEM]


async def test_a_changed_file_is_read_again_and_a_lost_one_served_with_its_age(
    tmp_path: Path,
) -> None:
    path = tmp_path / "roster.csv"
    path.write_text(HEADER + "ada,A,member,ES\n")
    roster = RosterFile(path)
    first = await roster.read(0)
    assert isinstance(first, Ok)
    assert set(first.facts) == {"ada"}
    path.write_text(HEADER + "ada,A,member,ES\nbob,B,external,FR\nbad\n")
    second = await roster.read(10 * SECOND_NS)
    assert isinstance(second, Partial)
    assert set(second.facts) == {"ada", "bob"}
    path.unlink()
    lost = await roster.read(70 * SECOND_NS)
    assert isinstance(lost, Partial)
    assert set(lost.facts) == {"ada", "bob"}
    assert "does not exist" in lost.notes[0]
    assert "60 s ago" in lost.notes[0]
    assert [f.level for f in await roster.check()] == [Level.PROBLEM]


async def test_check_names_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text(HEADER + "bad\nada,,,\n")
    findings = await RosterFile(path).check()
    assert [(f.level, f.says) for f in findings] == [
        (Level.WARNING, "user roster, line 2: 1 values instead of 4")
    ]
    path.write_text(HEADER + "ada,,,\n")
    assert [f.level for f in await RosterFile(path).check()] == [Level.OK]
