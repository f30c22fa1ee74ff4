"""The users of a real Keycloak: 10,000 read page by page, bounded, and kept while it is out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from oscar_metrics.app import create_sources, meanwhile
from oscar_metrics.errors import SettingsError
from oscar_metrics.facts import Membership, Person
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.settings import load
from oscar_metrics.sources.keycloak_api import KeycloakSettings
from oscar_metrics.sources.keycloak_people import STILL_READING, KeycloakPeople
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS
from tests.people import many_people
from tests.people.many_people import CLIENT, GROUPS, NO_ROLE, SECRET, groups_of, identity, person
from tests.servers.build import require
from tests.servers.keycloak import Keycloak
from tests.servers.toxiproxy import Proxy, Toxiproxy

USERS = 10_000
FEW = 30
# Keycloak's ids are of all its realms, so these are not the few.
MANY = range(1_000_000, 1_000_000 + USERS)
QUICK = UpstreamLimits(timeout_seconds=20, attempts=1)


@pytest.fixture(scope="module")
def many(keycloak: Keycloak) -> Iterator[str]:
    people = [person(number) for number in MANY]
    with many_people.realm_of(keycloak, "many", people, GROUPS) as realm:
        yield realm


@pytest.fixture(scope="module")
def few(keycloak: Keycloak) -> Iterator[str]:
    people = [person(number) for number in range(1, FEW + 1)]
    with many_people.realm_of(keycloak, "few", people, GROUPS) as realm:
        yield realm


@pytest.fixture(scope="module")
def way(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    require("toxiproxy")
    with Toxiproxy.start(tmp_path_factory.mktemp("toxiproxy")) as toxiproxy:
        yield toxiproxy.proxy("keycloak", keycloak.url)


@asynccontextmanager
async def asked(url: str, realm: str, **settings: Any) -> AsyncIterator[KeycloakPeople]:
    named = {"client_id": CLIENT, "client_secret": SECRET, "limits": QUICK, **settings}
    people = KeycloakPeople(
        KeycloakSettings(url=url, realm=realm, **named), Telemetry(), time.time_ns
    )
    try:
        yield people
    finally:
        await people.aclose()


async def read(people: KeycloakPeople) -> Outcome[dict[str, Person]]:
    return await people.read(time.time_ns())


def facts(outcome: Outcome[dict[str, Person]]) -> dict[str, Person]:
    assert not isinstance(outcome, Unavailable), outcome.notes
    return outcome.facts


def expected(number: int, **more: Any) -> Person:
    represented = person(number)
    return Person(
        id=identity(number),
        name=f"User Number {number}",
        email=represented["email"] if represented["emailVerified"] else "",
        groups=tuple(groups_of(number)),
        **more,
    )


async def test_ten_thousand_users_are_read_page_by_page(keycloak: Keycloak, many: str) -> None:
    telemetry = Telemetry()
    settings = KeycloakSettings(
        url=keycloak.url, realm=many, client_id=CLIENT, client_secret=SECRET, page_users=1000
    )
    people = KeycloakPeople(settings, telemetry, time.time_ns)
    outcome = await read(people)
    assert isinstance(outcome, Ok), outcome.notes
    assert outcome.origin == "keycloak"
    assert outcome.facts == {identity(number): expected(number) for number in MANY}
    # The token, the users, the groups and their members: not a call for each user.
    calls = telemetry.upstream_calls.labels("keycloak", "ok")
    assert 11 + len(GROUPS) < sum(bucket.get() for bucket in calls._buckets) < 100
    # They are not read again before it is time, and are then the same object, if the same people.
    assert facts(await read(people)) is outcome.facts
    await people.aclose()


async def test_attributes_that_are_named_are_read(keycloak: Keycloak, few: str) -> None:
    named = {"country_attribute": "country", "vo_attribute": "vo", "project_attribute": "none"}
    async with asked(keycloak.url, few, **named, membership_attribute="status") as people:
        outcome = facts(await read(people))
        found = await people.check()
    assert outcome[identity(3)] == expected(3, country="FR")
    assert outcome[identity(4)] == expected(
        4, country="ES", vo="vo.example.eu", membership=Membership.EXTERNAL
    )
    nobody = "keycloak tells of nobody the attribute that OSCAR_METRICS_KEYCLOAK_{}_ATTRIBUTE names"
    said = {each.says for each in found}
    assert [name for name in ("COUNTRY", "VO", "PROJECT") if nobody.format(name) in said] == [
        "PROJECT"
    ]


@pytest.mark.parametrize(
    ("user_id", "of_4"),
    [("username", "user000004"), ("email", "user000004@egi.example.eu"), ("subject", "4@egi.eu")],
)
async def test_the_id_may_be_something_else(
    keycloak: Keycloak, few: str, user_id: str, of_4: str
) -> None:
    async with asked(keycloak.url, few, user_id=user_id) as people:
        outcome = await read(people)
    assert isinstance(outcome, Ok)
    assert outcome.facts[of_4].name == "User Number 4"
    assert len(outcome.facts) == FEW


async def test_users_without_the_id_are_counted(keycloak: Keycloak, few: str) -> None:
    async with asked(keycloak.url, few, user_id="vo") as people:
        outcome = await read(people)
    assert isinstance(outcome, Partial)
    assert outcome.notes == (
        f"{FEW - FEW // 4} users of keycloak have no vo (OSCAR_METRICS_KEYCLOAK_USER_ID)",
    )
    assert set(outcome.facts) == {"vo.example.eu"}


async def test_what_is_beyond_the_bounds_is_left_out_and_said(
    keycloak: Keycloak, many: str
) -> None:
    async with asked(keycloak.url, many, users=150, groups=2, page_users=100) as people:
        outcome = await read(people)
        found = await people.check()
    assert isinstance(outcome, Partial)
    assert len(outcome.facts) == 150
    left_out = "and the others are left out (OSCAR_METRICS_KEYCLOAK"
    assert outcome.doubts == (
        f"keycloak has more than 2 groups, {left_out}_GROUPS)",
        f"keycloak has more than 150 users, {left_out}_USERS)",
    )
    assert [each.level for each in found].count(Level.WARNING) == 3  # and that it is http


async def test_as_many_users_as_allowed_are_no_doubt(keycloak: Keycloak, few: str) -> None:
    async with asked(keycloak.url, few, users=FEW, groups=0, page_users=7) as people:
        outcome = await read(people)
    assert isinstance(outcome, Ok)
    assert len(outcome.facts) == FEW
    assert not any(each.groups for each in outcome.facts.values())


async def until(
    condition: Callable[[Outcome[dict[str, Person]]], bool], people: KeycloakPeople
) -> None:
    async with asyncio.timeout(60):
        outcome = await read(people)
        while not condition(outcome):
            await asyncio.sleep(0.05)
            outcome = await read(people)


@asynccontextmanager
async def running(people: KeycloakPeople) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(people.run())
        try:
            yield
        finally:
            task.cancel()


async def test_a_new_user_appears_in_the_background(keycloak: Keycloak, few: str) -> None:
    new = person(999)
    async with asked(keycloak.url, few, refresh_seconds=1) as people, running(people):
        before = facts(await read(people))
        assert identity(999) not in before
        await asyncio.to_thread(many_people.add_people, keycloak, few, [new])
        try:
            await until(lambda outcome: identity(999) in facts(outcome), people)
        finally:
            path = f"/admin/realms/{few}/users/{new['id']}"
            await asyncio.to_thread(keycloak.administer, "DELETE", path)
        await until(lambda outcome: identity(999) not in facts(outcome), people)
        assert facts(await read(people)) == before


def refused(way: Proxy) -> AbstractContextManager[None]:
    return way.down()


def hanging(way: Proxy) -> AbstractContextManager[None]:
    return way.toxic("timeout", timeout=0)


def reset(way: Proxy) -> AbstractContextManager[None]:
    return way.toxic("reset_peer", timeout=0)


@pytest.mark.parametrize(
    ("out", "says"),
    [
        (refused, "keycloak could not be reached"),
        (reset, "keycloak could not be reached"),
        (hanging, "keycloak did not hand out all users within 2 s"),
    ],
)
async def test_while_it_is_out_the_last_good_users_are_there_with_their_age(
    way: Proxy, few: str, out: Callable[[Proxy], AbstractContextManager[None]], says: str
) -> None:
    settings = {"refresh_seconds": 1, "deadline_seconds": 2, "groups": 0}
    async with asked(way.url, few, **settings) as people, running(people):
        good = await read(people)
        assert isinstance(good, Ok), good.notes
        assert good.last_updated_ns is not None
        with out(way):
            await until(lambda outcome: isinstance(outcome, Partial), people)
            later = await people.read(good.last_updated_ns + 3600 * SECOND_NS)
        assert isinstance(later, Partial)
        assert later.facts is good.facts
        assert later.doubts[0].startswith(says)
        assert later.doubts[1].startswith("users are those read from keycloak 3,")
        assert later.last_updated_ns is not None
        assert later.last_updated_ns >= good.last_updated_ns
        await until(lambda outcome: isinstance(outcome, Ok), people)


async def test_no_report_waits_for_longer_than_half_of_its_time(way: Proxy, few: str) -> None:
    loop = asyncio.get_running_loop()
    for background in (False, True):
        async with asked(way.url, few, deadline_seconds=60) as people, asyncio.TaskGroup() as group:
            with hanging(way):
                task = group.create_task(people.run()) if background else None
                deadline = loop.time() + 2
                with asking_for(Asker(deadline)):
                    outcome = await read(people)
                assert loop.time() < deadline
                assert isinstance(outcome, Unavailable)
                assert outcome.notes == (STILL_READING,)
                if task is not None:
                    task.cancel()


async def test_one_reading_is_for_all_who_ask(keycloak: Keycloak, few: str) -> None:
    async with asked(keycloak.url, few) as people:
        outcomes = await asyncio.gather(*(read(people) for _ in range(5)))
    assert all(facts(outcome) is facts(outcomes[0]) for outcome in outcomes)


@pytest.mark.parametrize(
    ("wrong", "says", "change"),
    [
        ({"client_secret": "not the secret"}, "refused our credentials", "CLIENT_SECRET"),
        ({"client_id": "nobody"}, "refused our credentials", "CLIENT_ID"),
        ({"realm": "no such realm"}, "does not know what was asked", "REALM"),
        ({"client_id": NO_ROLE}, "does not let us read this", "view-users"),
    ],
)
async def test_what_is_wrong_with_us_is_said_and_no_secret(
    keycloak: Keycloak, few: str, wrong: dict[str, str], says: str, change: str
) -> None:
    with capture_logs() as logs:
        async with asked(keycloak.url, **{"realm": few, **wrong}) as people:
            outcome = await read(people)
            found = await people.check()
    assert isinstance(outcome, Unavailable)
    assert says in outcome.notes[0]
    problem = next(each for each in found if each.level is Level.PROBLEM)
    assert says in problem.says
    assert change in problem.change
    told = json.dumps([*logs, outcome.notes, repr(found)], default=str)
    assert logs
    assert SECRET not in told
    assert "not the secret" not in told


async def test_who_may_only_query_sees_nobody_and_is_told_so(keycloak: Keycloak, few: str) -> None:
    async with asked(keycloak.url, few, client_id=many_people.QUERIES_ONLY) as people:
        found = await people.check()
    assert any("view-users" in each.change for each in found)
    assert not any(each.level is Level.OK for each in found)


async def test_check_says_how_many_there_are(keycloak: Keycloak, many: str) -> None:
    async with asked(keycloak.url, many, page_users=1000) as people:
        found = await people.check()
    assert [(each.level, each.says) for each in found][1:] == [
        (Level.OK, f"keycloak: {USERS:,} users, {len(GROUPS) + 1} groups")
    ]
    assert found[0].level is Level.WARNING  # it is http


async def test_a_token_that_is_withdrawn_is_replaced(keycloak: Keycloak, few: str) -> None:
    async with asked(keycloak.url, few, refresh_seconds=1) as people:
        assert isinstance(await read(people), Ok)
        # What was given before this instant is good no more; it is told in whole seconds.
        await asyncio.sleep(1)
        path = f"/admin/realms/{few}"
        now = int(time.time())
        await asyncio.to_thread(keycloak.administer, "PUT", path, json={"notBefore": now})
        await asyncio.sleep(1)
        outcome = await read(people)
    assert isinstance(outcome, Ok), outcome.notes


async def test_the_secrets_file_is_read_again(keycloak: Keycloak, few: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("an old one\n")
    settings = {"client_secret": "", "client_secret_file": str(file), "refresh_seconds": 1}
    async with asked(keycloak.url, few, **settings) as people:
        assert isinstance(await read(people), Unavailable)
        file.write_text(f"{SECRET}\n")
        await until(lambda outcome: isinstance(outcome, Ok), people)
    file.unlink()
    with pytest.raises(SettingsError, match="OSCAR_METRICS_KEYCLOAK_CLIENT_SECRET_FILE"):
        async with asked(keycloak.url, few, **settings):
            pass


async def test_a_server_has_them_in_its_roster(
    keycloak: Keycloak, few: str, tmp_path: Path
) -> None:
    (tmp_path / "roster.csv").write_text(f"id,name\n{identity(1)},Ada\n")
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\ngroup = "/vo.example.eu/*"\nmembership = "external"\nvo = "vo.example.eu"\n'
    )
    settings = load(
        {
            "OSCAR_METRICS_KUBERNETES": "off",
            "PROMETHEUS_URL": "off",
            "OSCAR_METRICS_ROSTER": str(tmp_path / "roster.csv"),
            "OSCAR_METRICS_ROSTER_RULES": str(tmp_path / "rules.toml"),
            "OSCAR_METRICS_KEYCLOAK_URL": keycloak.url,
            "OSCAR_METRICS_KEYCLOAK_REALM": few,
            "OSCAR_METRICS_KEYCLOAK_CLIENT_ID": CLIENT,
            "OSCAR_METRICS_KEYCLOAK_CLIENT_SECRET": SECRET,
        }
    )
    sources = create_sources(settings, Telemetry())
    async with meanwhile(sources, None):
        outcome = await sources.roster.read(time.time_ns())
        found: list[Finding] = await sources.roster.check()
    for connection in sources.connections:
        await connection.aclose()
    assert isinstance(outcome, Ok), outcome.notes
    assert outcome.origin == "roster+keycloak+rules"
    users = outcome.facts.users
    assert len(users) == FEW
    assert users[identity(1)].name == "Ada"
    assert users[identity(25)].vo == "vo.example.eu"
    assert users[identity(25)].membership is Membership.EXTERNAL
    assert users[identity(6)].membership is None
    assert not [each for each in found if each.level is Level.PROBLEM]
