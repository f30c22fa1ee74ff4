"""Who the users are by Keycloak: all of a realm's, with their groups and attributes.

They are read from time to time, in the background where a server runs and else by whoever asks,
and kept: while Keycloak is out, what was read last is what there is, with its age.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable

import msgspec
import structlog

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.facts import Membership, Person
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.resilience.asker import Asker, asker, asking_for
from oscar_metrics.sources.country_names import known_country_code
from oscar_metrics.sources.keycloak_api import ORIGIN, PREFIX, KeycloakApi, KeycloakSettings, User
from oscar_metrics.sources.keycloak_paging import all_users, memberships
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

_SOURCE = "user-roster"
# After one that failed, users are tried to be read again so much later, or after
# `refresh_seconds` where that is less.
_AFTER_FAILURE_SECONDS = 30.0
# Reports wait for the first reading for so large a part of what it may take: 15 s of 300.
_PARTS_AWAITED = 20
# Longer texts are cut: a user may write their own name.
_MOST_CHARACTERS = 255

STILL_READING = "keycloak's users are being read for the first time"


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """The users as they were read at one time, and what is missing of them."""

    people: dict[str, Person]
    doubts: tuple[str, ...]
    groups: int
    read_ns: int


class KeycloakPeople:
    """A realm's users, or those read last where they cannot be read any more.

    `now_ns` gives the time that their age is told by. Closed with `aclose`.
    """

    def __init__(
        self, settings: KeycloakSettings, telemetry: Telemetry, now_ns: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._now_ns = now_ns
        self._api = KeycloakApi(settings, telemetry)
        self._reading = asyncio.Lock()
        self._tried = asyncio.Event()
        self._runs = False
        # Until when after the start reports wait for the first reading.
        self._awaited_until = math.inf
        self._last: _Read | None = None
        # Why it is not newer; None where reading it went well.
        self._failed: UpstreamError | None = None
        self._next_at = 0.0

    async def run(self) -> None:
        """Read the users again and again, until cancelled; nobody else then does."""
        self._runs = True
        self._awaited_until = _loop_time() + self._settings.deadline_seconds / _PARTS_AWAITED
        try:
            while True:
                try:
                    await self._refresh()
                except Exception:  # noqa: BLE001 - one read that fails must not be the last
                    _log.exception("users could not be read, by a mistake of ours")
                    self._next_at = _loop_time() + self._settings.refresh_seconds
                    self._tried.set()
                await asyncio.sleep(max(0.0, self._next_at - _loop_time()))
        finally:
            self._runs = False

    async def read(self, now_ns: int) -> Outcome[dict[str, Person]]:
        """The users by the id they have in the request log.

        Who asks waits for them only where there are none, or where nobody reads them in the
        background; and for half of the time that their report has, soon after the start only:
        while Keycloak hangs, not every report is to take so long.
        """
        one = asker()
        by = self._awaited_until
        if one is not None and one.deadline is not None:
            by = min(by, (one.deadline + _loop_time()) / 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if by == math.inf else by):
                if self._runs:
                    await self._tried.wait()
                elif _loop_time() >= self._next_at:
                    await self._refresh_if_due()
        return self._outcome(now_ns)

    async def check(self) -> list[Finding]:
        """Whether users can be read as they are, and how many there are."""
        await self._refresh()
        found = []
        if not self._settings.url.startswith("https:"):
            says = "keycloak is not asked over https: whoever sees the traffic can take our secret"
            found.append(_finding(Level.WARNING, says, f"set {PREFIX}_URL to an https URL"))
        last = self._last
        if self._failed is not None:
            change = _CHANGES.get(
                self._failed.reason, f"see that it is up, and correct {PREFIX}_URL"
            )
            return [*found, _finding(Level.PROBLEM, self._problem(self._failed), change)]
        if last is None:
            return found
        found += [_finding(Level.WARNING, doubt, _LEFT_OUT) for doubt in last.doubts]
        if not last.people:
            # So it says, too, to whom it lets ask for users and see none.
            says = "keycloak names no users"
            change = (
                f"{_CHANGES[Reason.FORBIDDEN]}, and see that {PREFIX}_REALM and {PREFIX}_USER_ID"
                " are right"
            )
            return [*found, _finding(Level.WARNING, says, change)]
        for name in _ATTRIBUTES:
            attribute = getattr(self._settings, f"{name}_attribute")
            if attribute and not any(getattr(person, name) for person in last.people.values()):
                setting = f"{PREFIX}_{name.upper()}_ATTRIBUTE"
                says = f"keycloak tells of nobody the attribute that {setting} names"
                found.append(_finding(Level.WARNING, says, f"correct {setting}, or {_UNSHOWN}"))
        groups = f", {last.groups:,} groups" if self._settings.groups else "; groups are not read"
        return [*found, _finding(Level.OK, f"keycloak: {len(last.people):,} users{groups}")]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    async def _refresh_if_due(self) -> None:
        if not self._reading.locked():
            await self._refresh()
            return
        async with self._reading:
            pass  # somebody else has just done it

    async def _refresh(self) -> None:
        """Read all users, one reading at a time; what becomes of it is in `_last` and `_failed`."""
        async with self._reading:
            deadline = _loop_time() + self._settings.deadline_seconds
            wait_seconds = self._settings.refresh_seconds
            try:
                with asking_for(Asker(deadline)):
                    async with asyncio.timeout_at(deadline):
                        self._last = await self._load()
                self._failed = None
            except TimeoutError:
                self._failed = UpstreamError(ORIGIN, Reason.DEADLINE)
            except UpstreamError as exc:
                self._failed = exc
            if self._failed is not None:
                wait_seconds = min(wait_seconds, _AFTER_FAILURE_SECONDS)
                _log.warning(
                    "users could not be read",
                    reason=self._failed.reason,
                    detail=self._failed.detail,
                )
            self._next_at = _loop_time() + wait_seconds
            self._tried.set()

    async def _load(self) -> _Read:
        settings = self._settings
        doubts: list[str] = []
        known = await memberships(self._api, settings, doubts)
        people: dict[str, Person] = {}
        nameless = 0

        def take(users: list[User]) -> None:
            nonlocal nameless
            for user in users:
                person = person_of(user, settings, known.of.get(user.id, ()))
                if person is None:
                    nameless += 1
                else:
                    people.setdefault(person.id, person)

        await all_users(self._api, settings, doubts, take)
        if nameless:
            doubts.append(
                f"{nameless:,} users of keycloak have no {settings.user_id} ({PREFIX}_USER_ID)"
            )
        last = self._last
        # The same object again, so that what was made of it need not be made anew.
        if last is not None and await asyncio.to_thread(_equal, last.people, people):
            people = last.people
        return _Read(
            people=people, doubts=tuple(doubts), groups=known.groups, read_ns=self._now_ns()
        )

    def _outcome(self, now_ns: int) -> Outcome[dict[str, Person]]:
        last, failed = self._last, self._failed
        if last is None:
            note = STILL_READING if failed is None else self._problem(failed)
            return Unavailable(origin=ORIGIN, notes=(note,))
        doubts = last.doubts
        if failed is not None:
            age_seconds = max(0, now_ns - last.read_ns) // SECOND_NS
            age = f"users are those read from keycloak {age_seconds:,} s ago"
            doubts = (self._problem(failed), age, *doubts)
        if not doubts:
            return Ok(facts=last.people, origin=ORIGIN, last_updated_ns=last.read_ns)
        return Partial(
            facts=last.people,
            origin=ORIGIN,
            notes=doubts,
            doubts=doubts,
            last_updated_ns=last.read_ns,
        )

    def _problem(self, failed: UpstreamError) -> str:
        if failed.reason is Reason.DEADLINE:
            within = f"{self._settings.deadline_seconds:g} s ({PREFIX}_DEADLINE_SECONDS)"
            return f"keycloak did not hand out all users within {within}"
        return f"{ORIGIN} {REASON_TEXT[failed.reason]}"


# What a person has of attributes, as their settings name it.
_ATTRIBUTES = ("country", "membership", "vo", "project")
_UNSHOWN = "have the realm's user profile name it, or let administrators see unmanaged attributes"
_LEFT_OUT = "raise what bounds it, or correct what is missing there"
_CHANGES = {
    Reason.UNAUTHORIZED: f"correct {PREFIX}_CLIENT_ID and {PREFIX}_CLIENT_SECRET; the client needs"
    " client authentication and a service account",
    Reason.FORBIDDEN: f"give the service account of {PREFIX}_CLIENT_ID the role view-users of"
    " realm-management",
    Reason.NOT_FOUND: f"correct {PREFIX}_URL and {PREFIX}_REALM",
    Reason.BAD_ANSWER: f"correct {PREFIX}_URL",
    Reason.CREDENTIALS: f"correct {PREFIX}_CLIENT_SECRET_FILE",
    Reason.DEADLINE: f"raise {PREFIX}_DEADLINE_SECONDS, or {PREFIX}_PAGE_USERS",
    Reason.TOO_LARGE: f"lower {PREFIX}_PAGE_USERS, or raise {PREFIX}_BODY_BYTES",
}


def person_of(user: User, settings: KeycloakSettings, groups: tuple[str, ...]) -> Person | None:
    """What Keycloak says of a user; None for one without the id that the settings choose. Pure."""
    attributes = user.attributes or {}

    def attribute(name: str) -> str:
        values = attributes.get(name, ()) if name else ()
        return next((text for value in values if (text := _text(value))), "")

    match settings.user_id:
        case "id":
            user_id = user.id
        case "username":
            user_id = user.username or ""
        case "email":
            user_id = user.email or ""
        case name:
            user_id = attribute(name)
    if not user_id:
        return None
    membership = attribute(settings.membership_attribute).lower()
    return Person(
        id=user_id,
        name=_text(f"{user.first_name or ''} {user.last_name or ''}"),
        # Who may enter an address of their own would choose their membership by it.
        email="" if user.email_verified is False else _text(user.email),
        groups=groups,
        membership=Membership(membership) if membership in list(Membership) else None,
        country=known_country_code(attribute(settings.country_attribute)),
        vo=attribute(settings.vo_attribute),
        project=attribute(settings.project_attribute),
    )


def _text(value: str | None) -> str:
    return (value or "").strip()[:_MOST_CHARACTERS]


def _equal(one: dict[str, Person], other: dict[str, Person]) -> bool:
    return one == other


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_SOURCE, level=level, says=says, change=change)
