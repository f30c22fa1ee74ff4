"""The file that what is remembered of log-ins is kept in: a line of JSON per person.

The first line is about the file: its version, and salted digests of who is not to be remembered
any more. Whoever has the file and guesses an id can test the guess; nobody can read one out of
it. It is written anew whole, beside the old one, which it then takes the place of.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import msgspec

_VERSION = 1
# People that are written at a time: a millisecond or so in which nobody else computes.
_STEP = 500


class Remembered(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of one person: `day` is that of their last log-in, since 1970-01-01."""

    id: str
    day: int
    country: str = ""
    groups: tuple[str, ...] = ()
    email_domain: str = ""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line: the version, and the salt of the digests of those who were forgotten."""

    version: int
    salt: str
    forgotten: tuple[str, ...] = ()


class BrokenFileError(Exception):
    """The content is of no use; there is no telling who was in it."""


_encoder = msgspec.json.Encoder()
_header = msgspec.json.Decoder(Header)
_line = msgspec.json.Decoder(Remembered)


def header(salt: str, forgotten: Iterable[str]) -> Header:
    """The first line of a file as this program writes it."""
    return Header(version=_VERSION, salt=salt, forgotten=tuple(sorted(forgotten)))


def read(path: Path, *, people_max: int) -> tuple[Header, list[Remembered]] | None:
    """The first line and the people, those seen last at the end; None where there is no file.

    Of more than `people_max` the last ones. Raises OSError where it cannot be read, and
    BrokenFileError.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise IsADirectoryError
        with path.open("rb") as file:
            top = _header.decode(file.readline())
            if top.version != _VERSION:
                raise BrokenFileError
            # However many there are, no more than those that are wanted are held.
            people = deque(map(_line.decode, file), people_max)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise BrokenFileError from exc
    return top, [*people]


def forgotten(path: Path, salt: str) -> frozenset[str]:
    """The digests in a file of that salt; none where there is none, or it is of no use."""
    try:
        with path.open("rb") as file:
            top = _header.decode(file.readline())
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return frozenset()
    return frozenset(top.forgotten if top.salt == salt else ())


def write(path: Path, top: Header, people: Iterable[Remembered]) -> None:
    """Put a file in the place of what is there, readable by its owner only; raises OSError.

    Whoever stops it at any instant leaves the old one or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(_encoder.encode(top) + b"\n")
        rest = iter(people)
        while step := list(islice(rest, _STEP)):
            file.write(_encoder.encode_lines(step))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def aside(path: Path) -> Path:
    """Where a broken file is put."""
    return path.with_name(f"{path.name}.broken")
