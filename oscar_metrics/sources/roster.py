"""The user roster: a CSV file of who the users are, re-read when it changes.

    id,name,membership,country
    62bb…@egi.eu,Ada Lovelace,member,ES

`id` and the header are required; the other columns may be missing or blank, in any order.
`membership` is `member`, `external` or `unknown`. A line that is not understood is named
and the rest used; of an id that comes twice the first line counts and the second is named.
"""

from __future__ import annotations

import asyncio
import csv
import stat
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from oscar_metrics.facts import Membership, Roster, RosterUser
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.log_blocks import FileVersion
from oscar_metrics.timerange import SECOND_NS

_ORIGIN = "roster"
_SETTING = "OSCAR_METRICS_ROSTER"
_SOURCE = "user-roster"
_COLUMNS = frozenset({"id", "name", "membership", "country"})
_HEADER = "id,name,membership,country"
_NAMED_LINES = 10


class RosterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the roster."""

    # A larger file (bytes) is refused whole.
    file_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024 * 1024
    # Users beyond these are left out, and said.
    users: Annotated[int, Meta(ge=1)] = 200_000


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """A roster as it was read from one version of the file."""

    users: dict[str, RosterUser]
    doubts: tuple[str, ...]
    version: FileVersion


class _UnreadableError(Exception):
    """The file cannot be used at all; its text is for the caller."""


class RosterFile:
    """The roster at `path`, or the last good one where the file cannot be read any more."""

    def __init__(self, path: Path | None, settings: RosterSettings | None = None) -> None:
        self._path = path
        self._settings = settings or RosterSettings()
        self._last: _Read | None = None
        self._last_ns = 0

    async def read(self, now_ns: int) -> Outcome[Roster]:
        """The users by id; Partial where lines were left out or the file is an older one."""
        if self._path is None:
            return Unavailable(
                origin=_ORIGIN, notes=(f"no user roster is configured ({_SETTING})",)
            )
        try:
            self._last = await asyncio.to_thread(_read, self._path, self._settings, self._last)
            self._last_ns = now_ns
        except _UnreadableError as exc:
            return self._without(str(exc), now_ns)
        last = self._last
        if last.doubts:
            return Partial(
                facts=Roster(users=last.users),
                origin=_ORIGIN,
                notes=last.doubts,
                last_updated_ns=last.version.modified_ns,
            )
        return Ok(
            facts=Roster(users=last.users), origin=_ORIGIN, last_updated_ns=last.version.modified_ns
        )

    async def check(self) -> list[Finding]:
        """What an operator should know of the file."""
        if self._path is None:
            return [
                _finding(
                    Level.WARNING,
                    "no user roster is configured: membership follows from the users' ids alone",
                    f"set {_SETTING} to a CSV file with the columns {_HEADER}",
                )
            ]
        try:
            found = await asyncio.to_thread(_read, self._path, self._settings, None)
        except _UnreadableError as exc:
            return [_finding(Level.PROBLEM, str(exc), f"correct {_SETTING} or the file")]
        doubts = [_finding(Level.WARNING, doubt, "correct the line") for doubt in found.doubts]
        return doubts or [_finding(Level.OK, f"{len(found.users):,} users")]

    def _without(self, why: str, now_ns: int) -> Outcome[Roster]:
        if self._last is None:
            return Unavailable(origin=_ORIGIN, notes=(why,))
        age_seconds = max(0, now_ns - self._last_ns) // SECOND_NS
        return Partial(
            facts=Roster(users=self._last.users),
            origin=_ORIGIN,
            notes=(f"{why}; the one read {age_seconds:,} s ago is used", *self._last.doubts),
            last_updated_ns=self._last.version.modified_ns,
        )


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_SOURCE, level=level, says=says, change=change)


def _read(path: Path, settings: RosterSettings, last: _Read | None) -> _Read:
    """The roster as it is now; `last` again where the file is the same as then."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise _UnreadableError(f"the user roster is not a regular file ({_SETTING})")
        version = FileVersion.of(found)
        if last is not None and last.version == version:
            return last
        if version.size > settings.file_bytes:
            raise _UnreadableError(f"the user roster is too large ({_SETTING})")
        with path.open("rb") as file:
            content = file.read(settings.file_bytes + 1)
    except FileNotFoundError:
        raise _UnreadableError(f"the user roster does not exist ({_SETTING})") from None
    except OSError:
        raise _UnreadableError(f"the user roster cannot be read ({_SETTING})") from None
    if len(content) > settings.file_bytes:
        raise _UnreadableError(f"the user roster is too large ({_SETTING})")
    users, doubts = parse_roster(content, users_max=settings.users)
    return _Read(users=users, doubts=tuple(doubts), version=version)


def parse_roster(content: bytes, *, users_max: int) -> tuple[dict[str, RosterUser], list[str]]:
    """The users of a CSV file, and sentences about the lines that were left out.

    Raises _UnreadableError where there is no header to read the lines by.
    """
    # A spreadsheet may have put a byte order mark before the header.
    first, *lines = content.decode("utf-8-sig", "replace").split("\n")
    header = [name.strip().lower() for name in _row(first) or ()]
    if "id" not in header or len(set(header)) < len(header) or not set(header) <= _COLUMNS:
        raise _UnreadableError(f"the user roster's first line is not {_HEADER} ({_SETTING})")
    users: dict[str, RosterUser] = {}
    problems: list[str] = []
    for number, line in enumerate(lines, start=2):
        if not line.strip():
            continue
        if len(users) >= users_max:
            problems.append(f"line {number} and what follows: more than {users_max:,} users")
            break
        user = _user(header, line)
        if isinstance(user, str):
            problems.append(f"line {number}: {user}")
        elif user.id in users:
            problems.append(f"line {number}: its id came before, the first one counts")
        else:
            users[user.id] = user
    doubts = problems[:_NAMED_LINES]
    if (more := len(problems) - len(doubts)) > 0:
        doubts.append(f"and {more:,} more lines")
    return users, [f"user roster, {doubt}" for doubt in doubts]


def _user(header: list[str], line: str) -> RosterUser | str:
    """The user of one line, or what is wrong with it."""
    row = _row(line)
    if row is None:
        return "a quote is not closed, or stands inside a value"
    if "\ufffd" in line:
        return "not UTF-8"
    if len(row) != len(header):
        return f"{len(row)} values instead of {len(header)}"
    values = {name: value.strip() for name, value in zip(header, row, strict=True)}
    if not values["id"]:
        return "no id"
    membership = values.get("membership", "").lower()
    if membership and membership not in list(Membership):
        return f"membership is none of {', '.join(Membership)}"
    return RosterUser(
        id=values["id"],
        name=values.get("name", ""),
        membership=Membership(membership) if membership else None,
        country=values.get("country", ""),
    )


def _row(line: str) -> list[str] | None:
    """The values of one line, which a stray quote does not join to the next; None if broken."""
    try:
        return next(csv.reader([line.removesuffix("\r")], strict=True), [])
    except csv.Error:
        return None
