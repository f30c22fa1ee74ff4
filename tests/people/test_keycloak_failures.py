"""What no real Keycloak can be made to say, and lists that change while they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics import discretion
from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.facts import Membership, Person
from oscar_metrics.outcome import Partial, Unavailable
from oscar_metrics.settings import load
from oscar_metrics.sources.keycloak_api import KeycloakSettings, Member, User
from oscar_metrics.sources.keycloak_paging import each_page
from oscar_metrics.sources.keycloak_people import STILL_READING, KeycloakPeople, person_of
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS

# One that is asked for anew each time.
TOKEN = b'{"access_token": "token", "expires_in": 0}'
USERS = b'[{"id": "a", "username": "ada", "firstName": null, "attributes": null}]'
SECRET = "a-secret-of-ours"
NOW_NS = 1_000 * SECOND_NS


class Made:
    """A Keycloak made by hand: status and body of its answers on three kinds of path."""

    def __init__(self) -> None:
        self.token: tuple[int, bytes] = (200, TOKEN)
        self.users: tuple[int, bytes] = (200, USERS)
        self.groups: tuple[int, bytes] = (200, b"[]")
        self.url = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Made]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if head.startswith("POST"):
                await reader.readexactly(len("grant_type=client_credentials"))
                status, body = self.token
            else:
                status, body = self.users if "/users?" in head else self.groups
            length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(f"HTTP/1.1 {status} X\r\n{length}".encode() + body)
            await writer.drain()
        finally:
            writer.close()


@asynccontextmanager
async def asked(made: Made) -> AsyncIterator[KeycloakPeople]:
    settings = KeycloakSettings(
        url=made.url,
        realm="r",
        client_id="c",
        client_secret=SECRET,
        refresh_seconds=1,
        limits=UpstreamLimits(timeout_seconds=5, attempts=1, body_bytes=2**16),
    )
    people = KeycloakPeople(settings, Telemetry(), lambda: NOW_NS)
    try:
        yield people
    finally:
        await people.aclose()


HTML = b"<html><body>Welcome to nginx, a-secret-of-ours</body></html>"
NOT_ITS_API = "keycloak answered something that is not its API (a proxy's page, or a wrong URL?)"


@pytest.mark.parametrize(
    ("which", "answer", "says"),
    [
        ("token", (200, HTML), NOT_ITS_API),
        ("token", (200, b"{}"), NOT_ITS_API),
        ("token", (200, b'{"access_token": "a\\nb"}'), NOT_ITS_API),
        ("token", (400, b'{"error": "unauthorized_client"}'), "keycloak refused our credentials"),
        ("token", (400, b'{"error": "invalid_request"}'), "keycloak refused the question"),
        ("users", (200, HTML), NOT_ITS_API),
        ("users", (200, USERS[:20]), NOT_ITS_API),
        ("users", (200, b'{"id": "a"}'), NOT_ITS_API),
        ("users", (200, b'[{"username": "ada"}]'), NOT_ITS_API),
        ("users", (200, b" " * 2**17), "keycloak sent a larger answer than is accepted"),
        ("users", (401, b""), "keycloak refused our credentials"),
        ("users", (500, b""), "keycloak failed"),
        ("groups", (200, HTML), NOT_ITS_API),
        ("groups", (503, b""), "keycloak failed"),
    ],
)
async def test_what_is_no_answer_leaves_the_last_good_users(
    which: str, answer: tuple[int, bytes], says: str
) -> None:
    made = Made()
    good = getattr(made, which)
    async with made.serving():
        async with asked(made) as people:
            first = await people.read(NOW_NS)
            assert not isinstance(first, Unavailable), first.notes
            assert first.facts == {"a": Person(id="a")}
        setattr(made, which, answer)
        async with asked(made) as people:
            never = await people.read(NOW_NS)
            assert isinstance(never, Unavailable)
            assert never.notes == (says,)
            setattr(made, which, good)
            await people.check()
            setattr(made, which, answer)
            await people.check()
            later = await people.read(NOW_NS + 90 * SECOND_NS)
    assert isinstance(later, Partial)
    assert later.facts == first.facts
    assert later.notes == (says, "users are those read from keycloak 90 s ago")
    # Both name nobody, and may be told to anybody.
    assert discretion.discreet(later).notes == later.notes
    assert discretion.discreet(never).notes == never.notes


async def test_users_are_of_use_without_groups() -> None:
    made = Made()
    made.groups = (403, b"")
    async with made.serving(), asked(made) as people:
        outcome = await people.read(NOW_NS)
    assert isinstance(outcome, Partial)
    assert outcome.notes == ("keycloak does not let us read this: groups are not known",)
    assert set(outcome.facts) == {"a"}


async def test_soon_after_the_start_nobody_waits_for_one_that_hangs() -> None:
    hangs = asyncio.Event()

    async def take(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hangs.wait()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    settings = KeycloakSettings(
        url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        client_secret=SECRET,
        deadline_seconds=20,
        limits=UpstreamLimits(timeout_seconds=20, attempts=1),
    )
    people = KeycloakPeople(settings, Telemetry(), lambda: NOW_NS)
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(people.run())
            await asyncio.sleep(0)
            # None of them has a deadline of its own.
            for _ in range(100):
                outcome = await people.read(NOW_NS)
                assert isinstance(outcome, Unavailable)
                assert outcome.notes == (STILL_READING,)
            hangs.set()
            task.cancel()
    finally:
        server.close()
        await people.aclose()


def test_that_they_are_being_read_may_be_told() -> None:
    said = Unavailable(origin="keycloak", notes=(STILL_READING,))
    assert discretion.discreet(said) == said


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        (User(id="a"), Person(id="a")),
        (User(id="a", first_name=" Ada ", last_name=None), Person(id="a", name="Ada")),
        (User(id="a", first_name="x" * 999), Person(id="a", name="x" * 255)),
        (
            User(id="a", attributes={"s": [None, "", " Member "], "c": ["ES", "FR"], "v": []}),
            Person(id="a", membership=Membership.MEMBER, country="ES"),
        ),
        (User(id="a", attributes={"s": ["friend"]}), Person(id="a")),
        # Who can write these chooses no VO by an address, and no row by a country.
        (User(id="a", attributes={"c": ["ES:9|FR"]}), Person(id="a")),
        (User(id="a", attributes={"c": ["portugal"]}), Person(id="a", country="PT")),
        (User(id="a", email="a@b", email_verified=False), Person(id="a")),
        (User(id="a", email="a@b", email_verified=True), Person(id="a", email="a@b")),
    ],
)
def test_what_a_user_is_made_of(user: User, expected: Person) -> None:
    settings = KeycloakSettings(
        membership_attribute="s", country_attribute="c", vo_attribute="v", project_attribute="p"
    )
    assert person_of(user, settings, ()) == expected


class Changing:
    """A list that others change between its pages: what is to come and go before each."""

    def __init__(self, items: Sequence[int], changes: Sequence[tuple[bool, int]]) -> None:
        self.items = sorted(items)
        self.changes = list(changes)

    async def page(self, first: int, length: int) -> list[Member]:
        found = [Member(id=f"{item:03}") for item in self.items[first : first + length]]
        if self.changes:
            comes, item = self.changes.pop()
            self.items = sorted({*self.items, item} if comes else {*self.items} - {item})
        return found


@given(
    st.sets(st.integers(0, 40)),
    st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=12),
    st.integers(2, 7),
)
def test_who_stays_is_read_once_however_a_list_changes(
    items: set[int], changes: list[tuple[bool, int]], length: int
) -> None:
    taken: list[str] = []

    def take(page: list[Member]) -> bool:
        taken.extend(member.id for member in page)
        return True

    asyncio.run(each_page(Changing(sorted(items), changes).page, length, take))
    assert len(taken) == len(set(taken))
    gone = {item for comes, item in changes if not comes}
    assert {f"{item:03}" for item in items - gone} <= set(taken)


@pytest.mark.parametrize("later", ["the same", "nothing", "others"])
async def test_a_server_that_heeds_no_page_is_not_asked_for_ever(later: str) -> None:
    asked = 0

    async def page(first: int, length: int) -> list[Member]:
        nonlocal asked
        asked += 1
        if asked > 1000:
            raise UpstreamError("keycloak", Reason.DEADLINE)
        if first and later == "nothing":
            return []
        start = 1_000_000 * asked if first and later == "others" else 0
        return [Member(id=str(start + number)) for number in range(length)]

    with pytest.raises(UpstreamError) as caught:
        await each_page(page, 10, lambda _: True)
    assert caught.value.reason is Reason.BAD_ANSWER


FULL = {
    "OSCAR_METRICS_KEYCLOAK_URL": "https://login.example.eu",
    "OSCAR_METRICS_KEYCLOAK_REALM": "r",
    "OSCAR_METRICS_KEYCLOAK_CLIENT_ID": "c",
    "OSCAR_METRICS_KEYCLOAK_CLIENT_SECRET": SECRET,
}


@pytest.mark.parametrize("missing", ["REALM", "CLIENT_ID", "CLIENT_SECRET"])
def test_what_it_takes_to_ask_is_required_with_the_url(missing: str) -> None:
    name = f"OSCAR_METRICS_KEYCLOAK_{missing}"
    with pytest.raises(SettingsError, match=f"^{name}: not set"):
        load({each: value for each, value in FULL.items() if each != name})


@pytest.mark.parametrize("url", ["login.example.eu", "https://c:s@login.example.eu"])
def test_a_url_that_cannot_be_asked_stops_the_start(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^OSCAR_METRICS_KEYCLOAK_URL: "):
        load({**FULL, "OSCAR_METRICS_KEYCLOAK_URL": url})


def test_settings_are_printed_without_the_secret() -> None:
    settings = load(FULL)
    assert settings.keycloak.client_secret == SECRET
    assert SECRET not in f"{settings!r}{settings.keycloak!r}{json.dumps(str(settings))}"
