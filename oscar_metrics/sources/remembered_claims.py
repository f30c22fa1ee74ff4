"""What users' log-ins said of them, remembered where the operator allows: an origin of the roster.

It is in memory and in one file, which one server writes. Commands that find no server read it,
and write it where somebody is to be forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import structlog
from msgspec import Meta

from oscar_metrics.errors import LedgerError
from oscar_metrics.facts import CountryFrom, Person
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial
from oscar_metrics.sources import remembered_file
from oscar_metrics.sources.country_names import known_country_code
from oscar_metrics.sources.remembered_file import BrokenFileError, Header, Remembered
from oscar_metrics.timerange import DAY_NS, SECOND_NS

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SETTING = "OSCAR_METRICS_REMEMBER_CLAIMS"
_ORIGIN = "log-ins"
_SOURCE = "user-roster"


class RememberSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether log-ins are remembered, of how many people and for how long."""

    # The file; blank: nothing is remembered. It is about people: see docs/people.md.
    claims: str = ""
    # People remembered, those who have been away longest forgotten first; some 1 kB each.
    people: Annotated[int, Meta(ge=1, le=1_000_000)] = 100_000
    # Days after their last log-in when somebody is forgotten.
    days: Annotated[int, Meta(ge=1, le=36500)] = 400
    # How often, at most, the file is written, in seconds, and reports know of what is new.
    write_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0


class RememberedClaims:
    """What the last log-in of each user said of them; `now_ns` is the clock.

    The file is read when it is made.
    """

    def __init__(self, settings: RememberSettings, now_ns: Callable[[], int]) -> None:
        self._settings = settings
        self._path = Path(settings.claims)
        self._now_ns = now_ns
        # Who logged in last is last.
        self._people: OrderedDict[str, Remembered] = OrderedDict()
        # The same as reports have them: to make them all anew takes half a second of 100,000.
        self._known: dict[str, Person] = {}
        self._salt = secrets.token_hex(16)
        self._forgotten: set[str] = set()
        self._said: dict[str, Person] = {}
        self._problem = ""
        self._broken = False
        self._unreadable = False
        self._changed = asyncio.Event()
        # Who was cancelled left a thread behind, which must not write over what is newer.
        self._writing = threading.Lock()
        self._told = 0
        self._written = 0
        self._load()

    async def run(self) -> None:
        """Write what is new to the file until cancelled, and then what is new still."""
        try:
            while True:
                if self._broken or self._changed.is_set():
                    await self._try_to_write()
                with contextlib.suppress(TimeoutError):
                    # Once a day for those who have not been seen for long.
                    async with asyncio.timeout(DAY_NS / SECOND_NS):
                        await self._changed.wait()
                await asyncio.sleep(self._settings.write_seconds)
                self._publish()
        finally:
            if self._changed.is_set():
                await self._try_to_write()

    def remember(self, person: Person) -> None:
        """Take note of a log-in; of the country only where it is one."""
        if self._unreadable or self._digest(person.id) in self._forgotten:
            return
        new = Remembered(
            id=person.id,
            day=self._now_ns() // DAY_NS,
            country=known_country_code(person.country),
            groups=person.groups,
            email_domain=person.email.removeprefix("@"),
        )
        same = self._people.get(person.id) == new
        self._people[person.id] = new
        self._people.move_to_end(person.id)
        if not same:
            self._known[person.id] = _person(new)
            self._changed.set()
        if len(self._people) > self._settings.people:
            away_longest, _ = self._people.popitem(last=False)
            del self._known[away_longest]

    async def read(self, now_ns: int) -> Outcome[dict[str, Person]]:
        """What is remembered of each user; Partial where the file was of no use."""
        del now_ns
        if self._problem:
            return Partial(facts=self._said, origin=_ORIGIN, notes=(self._problem,))
        return Ok(facts=self._said, origin=_ORIGIN)

    async def check(self) -> list[Finding]:
        """What an operator should know of the file."""
        if self._problem:
            return [_finding(Level.PROBLEM, self._problem, f"look at the file of {SETTING}")]
        there = next(folder for folder in self._path.absolute().parents if folder.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            says = "what log-ins say cannot be written: its folder may not be changed"
            return [_finding(Level.PROBLEM, says, f"correct {SETTING} or the folder's rights")]
        return [_finding(Level.OK, f"log-ins of {len(self._said):,} users are remembered")]

    async def forget(self, user: str) -> bool:
        """Remember a user no more, now and when they log in again; whether they were known.

        Raises LedgerError where the file cannot be written.
        """
        if self._unreadable:
            raise LedgerError(self._problem)
        known = self._people.pop(user, None) is not None
        self._known.pop(user, None)
        self._forgotten.add(self._digest(user))
        self._publish()
        try:
            await self._write()
            # Nobody knows who was in it.
            await asyncio.to_thread(remembered_file.aside(self._path).unlink, missing_ok=True)
        except OSError as exc:
            raise LedgerError(
                f"what was remembered of log-ins could not be written ({exc.strerror}):"
                f" look at {SETTING} and forget the user again"
            ) from exc
        return known

    def _load(self) -> None:
        try:
            found = remembered_file.read(self._path, people_max=self._settings.people)
        except BrokenFileError:
            self._problem = f"the file of log-ins was broken: it is begun anew ({SETTING})"
            self._broken = True
        except OSError:
            self._problem = f"the file of log-ins cannot be read ({SETTING})"
            self._unreadable = True
        else:
            if found is not None:
                top, people = found
                self._salt, self._forgotten = top.salt, set(top.forgotten)
                self._people = OrderedDict((one.id, one) for one in people)
                self._known = {one.id: _person(one) for one in self._people.values()}
        if self._problem:
            _log.error("what log-ins said cannot be used", problem=self._problem)
        self._publish()

    def _publish(self) -> None:
        """Have reports know of what is known now, without those who have not been seen for long."""
        oldest = self._now_ns() // DAY_NS - self._settings.days
        old = [one.id for one in self._people.values() if one.day < oldest]
        for user in old:
            del self._people[user], self._known[user]
        if old:
            self._changed.set()
        self._said = self._known.copy()

    async def _try_to_write(self) -> None:
        try:
            await self._write()
        except OSError as exc:
            _log.error("log-ins cannot be remembered", why=exc.strerror, setting=SETTING)

    async def _write(self) -> None:
        """Write what is known now; where that fails, or is cancelled, it is tried again."""
        self._changed.clear()
        self._told += 1
        people, top = [*self._people.values()], remembered_file.header(self._salt, self._forgotten)
        try:
            elsewhere = await asyncio.to_thread(self._write_file, self._told, top, people)
        except (OSError, asyncio.CancelledError):
            self._changed.set()
            raise
        if elsewhere:
            self._forgotten |= elsewhere
            for user in [user for user in self._people if self._digest(user) in elsewhere]:
                del self._people[user], self._known[user]
            self._publish()

    def _write_file(self, number: int, top: Header, people: list[Remembered]) -> frozenset[str]:
        """Write it, and give the digests of those who were forgotten by another process."""
        with self._writing:
            if number < self._written:
                return frozenset()
            if self._broken:
                self._path.replace(remembered_file.aside(self._path))
                self._broken = False
            # While a server is replaced there are two: nobody is to come back by the other's.
            elsewhere = remembered_file.forgotten(self._path, top.salt) - set(top.forgotten)
            if elsewhere:
                top = remembered_file.header(top.salt, elsewhere.union(top.forgotten))
                people = [one for one in people if self._digest(one.id) not in elsewhere]
            remembered_file.write(self._path, top, people)
            self._written = number
            return elsewhere

    def _digest(self, user: str) -> str:
        salted = hmac.new(self._salt.encode(), user.encode(errors="replace"), hashlib.sha256)
        return salted.hexdigest()


def _person(one: Remembered) -> Person:
    return Person(
        id=one.id,
        email=f"@{one.email_domain}" if one.email_domain else "",
        groups=one.groups,
        country=one.country,
        country_from=CountryFrom.CLAIM,
    )


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_SOURCE, level=level, says=says, change=change)
