"""The roster file: a CSV of who the users are, re-read when it changes.

    id,name,membership,country,vo,project,email,groups
    62bb…@egi.eu,Ada Lovelace,member,ES,vo.example.eu,,ada@example.eu,staff|physics

`id` and the header are required; the other columns may be missing or blank, in any order.
`membership` is `member`, `external` or `unknown`; `email` and `groups`, with `|` between them,
are for rules. A line that is not understood is named and the rest used; of an id that comes
twice the first line counts and the second is named.
"""

from __future__ import annotations

import asyncio
import csv
import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from oscar_metrics.facts import Membership, Person
from oscar_metrics.findings import Finding, Level
from oscar_metrics.outcome import Ok, Outcome, Partial, Unavailable
from oscar_metrics.sources.log_blocks import FileVersion
from oscar_metrics.sources.versioned_files import UnusableFileError, VersionedFile
from oscar_metrics.timerange import SECOND_NS

_ORIGIN = "roster"
_SETTING = "OSCAR_METRICS_ROSTER"
_SOURCE = "user-roster"
_HEADER = "id,name,membership,country,vo,project,email,groups"
_COLUMNS = frozenset(_HEADER.split(","))
_NAMED_LINES = 10
# No user's id is longer, nor the name of a VO that is to be in a table.
_MOST_CHARACTERS = 255
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class RosterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the roster."""

    # A larger file (bytes) is refused whole.
    file_bytes: Annotated[int, Meta(ge=1024)] = 32 * 1024 * 1024
    # Users beyond these are left out, and said.
    users: Annotated[int, Meta(ge=1)] = 200_000
    # A file of rules that say more of users (docs/people.md); blank: none.
    rules: str = ""


class _Read(msgspec.Struct, frozen=True, kw_only=True):
    """A roster as it was read from one version of the file."""

    users: dict[str, Person]
    doubts: tuple[str, ...]
    version: FileVersion


class RosterFile:
    """The roster at `path`, or the last good one where the file cannot be read any more."""

    def __init__(self, path: Path, settings: RosterSettings | None = None) -> None:
        settings = settings or RosterSettings()
        self._file = VersionedFile(
            path=path, called="the user roster", setting=_SETTING, bytes_max=settings.file_bytes
        )
        self._users_max = settings.users
        self._last: _Read | None = None
        self._last_ns = 0

    async def read(self, now_ns: int) -> Outcome[dict[str, Person]]:
        """The users by id; Partial where lines were left out or the file is an older one."""
        try:
            self._last = await asyncio.to_thread(_read, self._file, self._users_max, self._last)
            self._last_ns = now_ns
        except UnusableFileError as exc:
            return self._without(str(exc), now_ns)
        last = self._last
        if last.doubts:
            return Partial(
                facts=last.users,
                origin=_ORIGIN,
                notes=last.doubts,
                last_updated_ns=last.version.modified_ns,
            )
        return Ok(facts=last.users, origin=_ORIGIN, last_updated_ns=last.version.modified_ns)

    async def check(self) -> list[Finding]:
        """What an operator should know of the file."""
        try:
            found = await asyncio.to_thread(_read, self._file, self._users_max, None)
        except UnusableFileError as exc:
            return [_finding(Level.PROBLEM, str(exc), f"correct {_SETTING} or the file")]
        doubts = [_finding(Level.WARNING, doubt, "correct the line") for doubt in found.doubts]
        return doubts or [_finding(Level.OK, f"{len(found.users):,} users")]

    def _without(self, why: str, now_ns: int) -> Outcome[dict[str, Person]]:
        if self._last is None:
            return Unavailable(origin=_ORIGIN, notes=(why,))
        age_seconds = max(0, now_ns - self._last_ns) // SECOND_NS
        return Partial(
            facts=self._last.users,
            origin=_ORIGIN,
            notes=(f"{why}; the one read {age_seconds:,} s ago is used", *self._last.doubts),
            last_updated_ns=self._last.version.modified_ns,
        )


def _finding(level: Level, says: str, change: str = "") -> Finding:
    return Finding(source=_SOURCE, level=level, says=says, change=change)


def _read(file: VersionedFile, users_max: int, last: _Read | None) -> _Read:
    """The roster as it is now; `last` again where the file is the same as then."""
    version = file.version()
    if last is not None and last.version == version:
        return last
    users, doubts = parse_roster(file.content(), users_max=users_max)
    return _Read(users=users, doubts=tuple(doubts), version=version)


def parse_roster(content: bytes, *, users_max: int) -> tuple[dict[str, Person], list[str]]:
    """The users of a CSV file, and sentences about the lines that were left out.

    Raises UnusableFileError where there is no header to read the lines by.
    """
    # A spreadsheet may have put a byte order mark before the header.
    first, *lines = content.decode("utf-8-sig", "replace").split("\n")
    header = [name.strip().lower() for name in _row(first) or ()]
    if "id" not in header or len(set(header)) < len(header) or not set(header) <= _COLUMNS:
        raise UnusableFileError(f"the user roster's first line is not {_HEADER} ({_SETTING})")
    users: dict[str, Person] = {}
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


def _user(header: list[str], line: str) -> Person | str:
    """The user of one line, or what is wrong with it."""
    row = _row(line)
    if row is None:
        return "a quote is not closed, or stands inside a value"
    if wrong := _wrong_text(line):
        return wrong
    if len(row) != len(header):
        return f"{len(row)} values instead of {len(header)}"
    values = {name: value.strip() for name, value in zip(header, row, strict=True)}
    if wrong := _wrong_value(values):
        return wrong
    membership = values.get("membership", "").lower()
    groups = (group.strip() for group in values.get("groups", "").split("|"))
    return Person(
        id=values["id"],
        name=values.get("name", ""),
        email=values.get("email", ""),
        groups=tuple(filter(None, groups)),
        membership=Membership(membership) if membership else None,
        country=values.get("country", ""),
        vo=values.get("vo", ""),
        project=values.get("project", ""),
    )


def _wrong_text(line: str) -> str:
    if "\ufffd" in line:
        return "not UTF-8"
    return "a character that is none of a text" if _CONTROL.search(line) else ""


def _wrong_value(values: dict[str, str]) -> str:
    if not values["id"]:
        return "no id"
    membership = values.get("membership", "").lower()
    if membership and membership not in list(Membership):
        return f"membership is none of {', '.join(Membership)}"
    if any(len(value) > _MOST_CHARACTERS for name, value in values.items() if name != "groups"):
        return f"a value of more than {_MOST_CHARACTERS} characters"
    return ""


def _row(line: str) -> list[str] | None:
    """The values of one line, which a stray quote does not join to the next; None if broken."""
    try:
        return next(csv.reader([line.removesuffix("\r")], strict=True), [])
    except csv.Error:
        return None
