"""What log-ins said is remembered for so long and of so many, survives, and can be forgotten."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import CountryFrom, Person
from oscar_metrics.findings import Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.remembered_claims import RememberedClaims, RememberSettings
from oscar_metrics.sources.remembered_file import Remembered, header, read, write
from oscar_metrics.timerange import DAY_NS

TODAY = 20_000


class Clock:
    def __init__(self) -> None:
        self.day = TODAY

    def __call__(self) -> int:
        return self.day * DAY_NS + 1


def person(user: str = "ada", **more: Any) -> Person:
    return Person(id=user, country_from=CountryFrom.CLAIM, **more)


ADA = person(email="@example.eu", groups=("vo.one", "vo.two"), country="Spain")
# As it is said: the country is a code.
SAID = person(email="@example.eu", groups=("vo.one", "vo.two"), country="ES")


def opened(file: Path, clock: Clock | None = None, **more: Any) -> RememberedClaims:
    fields: dict[str, Any] = {"claims": str(file), "write_seconds": 0.1, **more}
    return RememberedClaims(RememberSettings(**fields), clock or Clock())


@asynccontextmanager
async def running(claims: RememberedClaims) -> AsyncIterator[RememberedClaims]:
    """As in a server, which stops at the end of the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(claims.run())
        await asyncio.sleep(0)
        try:
            yield claims
        finally:
            task.cancel()


async def said(claims: RememberedClaims) -> dict[str, Person]:
    outcome = await claims.read(0)
    assert isinstance(outcome, Ok)
    return outcome.facts


async def until_said(claims: RememberedClaims, user: str) -> None:
    async with asyncio.timeout(30):
        while user not in facts_of(await claims.read(0)):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.01)


def facts_of(outcome: Outcome[dict[str, Person]]) -> dict[str, Person]:
    assert not isinstance(outcome, Unavailable)
    return outcome.facts


async def test_a_log_in_is_said_of_and_survives_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "people" / "claims"
    async with running(opened(file)) as claims:
        assert await said(claims) == {}
        claims.remember(ADA)
        claims.remember(person("bob"))
        await until_said(claims, "ada")
        facts = await said(claims)
        assert facts == {"ada": SAID, "bob": person("bob")}
        # Who is put together with others is told by it whether there is anything new.
        assert await said(claims) is facts
    assert file.stat().st_mode & 0o777 == 0o600
    assert await said(opened(file)) == facts
    assert [path.name for path in file.parent.iterdir()] == ["claims"]


async def test_what_is_new_when_it_ends_is_written(tmp_path: Path) -> None:
    async with running(opened(tmp_path / "claims", write_seconds=3600)) as claims:
        claims.remember(ADA)
    assert await said(opened(tmp_path / "claims")) == {"ada": SAID}


async def test_the_last_log_in_counts_and_no_more_is_kept_than_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "claims"
    async with running(opened(file)) as claims:
        claims.remember(ADA)
        claims.remember(person(country="FR", name="Ada Lovelace"))
    assert await said(opened(file)) == {"ada": person(country="FR")}
    lines = file.read_text().splitlines()
    assert [json.loads(line) for line in lines[1:]] == [
        {"id": "ada", "day": TODAY, "country": "FR"}
    ]


@pytest.mark.parametrize(
    ("country", "code"),
    [("spain", "ES"), ("fr", "FR"), ("XK", "XK"), ("Atlantis", ""), ("ZZ", ""), ("", "")],
)
async def test_only_a_country_is_taken_for_one(tmp_path: Path, country: str, code: str) -> None:
    async with running(opened(tmp_path / "claims")) as claims:
        claims.remember(person(country=country))
    assert (await said(opened(tmp_path / "claims")))["ada"].country == code


async def test_who_has_been_away_longest_makes_room(tmp_path: Path) -> None:
    file = tmp_path / "claims"
    async with running(opened(file, people=2)) as claims:
        for user in ("ada", "bob", "ada", "eve"):
            claims.remember(person(user))
    assert list(await said(opened(file))) == ["ada", "eve"]
    # Fewer are allowed now.
    assert list(await said(opened(file, people=1))) == ["eve"]


async def test_who_has_been_away_for_too_long_is_forgotten(tmp_path: Path) -> None:
    file, clock = tmp_path / "claims", Clock()
    async with running(opened(file, clock, days=10)) as claims:
        claims.remember(ADA)
        clock.day += 10
        claims.remember(person("bob"))
        await until_said(claims, "bob")
        assert set(await said(claims)) == {"ada", "bob"}
        clock.day += 1
        claims.remember(person("eve"))
        await until_said(claims, "eve")
        assert set(await said(claims)) == {"bob", "eve"}
    assert "ada" not in file.read_text()
    clock.day += 10
    assert set(await said(opened(file, clock, days=10))) == {"eve"}


async def test_forgetting_is_at_once_and_for_good(tmp_path: Path) -> None:
    file = tmp_path / "claims"
    async with running(opened(file, write_seconds=3600)) as claims:
        claims.remember(ADA)
        claims.remember(person("bob"))
        assert await claims.forget("ada")
        assert not await claims.forget("nobody")
        assert "ada" not in file.read_text()
        assert await said(claims) == {"bob": person("bob")}
        claims.remember(ADA)
    again = opened(file)
    assert await said(again) == {"bob": person("bob")}
    async with running(again):
        again.remember(ADA)
        again.remember(person("eve"))
        # A command that finds no server does the same.
    other = opened(file)
    assert await other.forget("eve")
    assert set(await said(opened(file))) == {"bob"}
    assert not [word for word in ("ada", "eve", "nobody") if word in file.read_text()]


async def test_nobody_comes_back_by_another_server_which_takes_ones_place(tmp_path: Path) -> None:
    file = tmp_path / "claims"
    async with running(opened(file)) as first:
        first.remember(ADA)
    async with running(opened(file)) as second:
        assert await opened(file).forget("ada")
        second.remember(person("bob"))
        await until_said(second, "bob")
    assert set(await said(opened(file))) == {"bob"}
    async with running(opened(file)) as third:
        third.remember(person("olga"))
        await until_said(third, "olga")
        await until_written(file, "olga")
        assert await opened(file).forget("olga")
        third.remember(ADA)
        third.remember(person("eve"))
        await until_said(third, "eve")
        await until_written(file, "eve")
        third.remember(person("zoe"))
        await until_said(third, "zoe")
        assert set(await said(third)) == {"bob", "eve", "zoe"}
    assert "ada" not in file.read_text()


async def until_written(file: Path, user: str) -> None:
    async with asyncio.timeout(30):
        while user not in await asyncio.to_thread(file.read_text):  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)


BROKEN = [b"", b"{}\n", b"not at all\n", b'{"version":2,"salt":"s"}\n', b"\xff\x00" * 100]


BROKEN += [b'{"version":1,"salt":"\xff"}\n', b'{"version":1,"salt":' + b"[" * 100_000 + b"\n"]
BROKEN_PEOPLE = [
    b'{"version":1,"salt":"s"}\n' + person
    for person in (
        b'{"id":"ada"',
        b'{"id":"\xff","day":1}\n',
        b'{"id":"ada","day":1,"more":' + b"[" * 100_000 + b"}\n",
    )
]


@pytest.mark.parametrize("content", [*BROKEN, *BROKEN_PEOPLE])
async def test_a_broken_file_is_set_aside_and_said(tmp_path: Path, content: bytes) -> None:
    file, aside = tmp_path / "claims", tmp_path / "claims.broken"
    file.write_bytes(content)
    only_read = opened(file)
    (finding,) = await only_read.check()
    assert finding.level is Level.PROBLEM
    assert file.read_bytes() == content
    async with running(opened(file)) as claims:
        outcome = await claims.read(0)
        assert isinstance(outcome, Partial)
        assert outcome.notes == (
            "the file of log-ins was broken: it is begun anew (OSCAR_METRICS_REMEMBER_CLAIMS)",
        )
        claims.remember(ADA)
        await until_said(claims, "ada")
    assert aside.read_bytes() == content
    assert await said(opened(file)) == {"ada": SAID}
    # Nobody knows who is in what is broken.
    assert not await opened(file).forget("bob")
    assert not aside.exists()
    assert await said(opened(file)) == {"ada": SAID}


async def test_what_cannot_be_read_is_said_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path
    async with running(opened(folder)) as claims:
        assert isinstance(await claims.read(0), Partial)
        claims.remember(ADA)
        with pytest.raises(LedgerError, match="cannot be read"):
            await claims.forget("ada")
    assert (await opened(folder).check())[0].level is Level.PROBLEM


async def test_what_cannot_be_written_is_remembered_all_the_same(tmp_path: Path) -> None:
    gone = tmp_path / "file"
    gone.write_text("no folder")
    async with running(opened(tmp_path / "people" / "claims")) as claims:
        (tmp_path / "people").symlink_to(gone)
        claims.remember(ADA)
        await until_said(claims, "ada")
        with pytest.raises(LedgerError, match="could not be written"):
            await claims.forget("bob")
        (tmp_path / "people").unlink()
    assert await said(opened(tmp_path / "people" / "claims")) == {"ada": SAID}


async def test_what_is_said_is_of_those_who_are_remembered(tmp_path: Path) -> None:
    clock = Clock()
    async with running(opened(tmp_path / "claims", clock, people=2, days=3)) as claims:
        for user in ("ada", "bob", "ada", "eve"):
            claims.remember(person(user))
        await until_said(claims, "eve")
        claims.remember(person("ada", country="PT"))
        claims.remember(person("joe"))
        clock.day += 2
        claims.remember(person("joe"))
        await until_said(claims, "joe")
        # What is new of them is new in what is said.
        assert await said(claims) == {"ada": person("ada", country="PT"), "joe": person("joe")}
        assert await claims.forget("ada")
        assert await said(claims) == {"joe": person("joe")}
        clock.day += 2
        claims.remember(person("ada"))
        claims.remember(person("bob"))
        await until_said(claims, "bob")
        assert await said(claims) == {"bob": person("bob"), "joe": person("joe")}


async def test_check_counts_people(tmp_path: Path) -> None:
    async with running(opened(tmp_path / "claims")) as claims:
        claims.remember(ADA)
    (finding,) = await opened(tmp_path / "claims").check()
    assert (finding.level, finding.says) == (Level.OK, "log-ins of 1 users are remembered")


def test_a_writer_that_is_killed_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "claims"
    write(file, header("s", []), [Remembered(id="old", day=TODAY)])
    script = (
        "import sys; from pathlib import Path\n"
        "from oscar_metrics.sources.remembered_file import Remembered, header, write\n"
        "print('begun', flush=True)\n"
        "people = [Remembered(id=f'new-{n}', day=20000) for n in range(20000)]\n"
        "while True: write(Path(sys.argv[1]), header('s', []), people)\n"
    )
    for _ in range(3):
        command = [sys.executable, "-c", script, str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while not (tmp_path / "claims.new").exists():
                pass
            os.kill(writer.pid, signal.SIGKILL)
        found = read(file, people_max=100_000)
        assert found is not None
        assert len(found[1]) in (1, 20_000)


PEOPLE = st.lists(
    st.builds(
        Remembered,
        id=st.text(min_size=1, max_size=5).filter(lambda text: text.isprintable()),
        day=st.integers(0, 40_000),
        country=st.sampled_from(["", "ES"]),
        groups=st.lists(st.text(max_size=4), max_size=3).map(tuple),
        email_domain=st.sampled_from(["", "example.eu"]),
    ),
    max_size=20,
)


@given(PEOPLE, st.lists(st.text(alphabet="abcdef", max_size=4), unique=True), st.integers(1, 30))
def test_what_is_written_is_read(people: list[Remembered], forgotten: list[str], most: int) -> None:
    file = Path(f"/dev/shm/claims-{os.getpid()}")  # noqa: S108 - a file per process, removed below
    try:
        write(file, header("salt", forgotten), people)
        found = read(file, people_max=most)
    finally:
        file.unlink(missing_ok=True)
    assert found == (header("salt", forgotten), people[-most:])
