"""Small files of an operator's, read again when they have changed."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from oscar_metrics.sources.log_blocks import FileVersion


class UnusableFileError(Exception):
    """The file cannot be used at all; its text is for the caller, and says nothing of a path."""


class VersionedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of at most `bytes_max`; what it is `called`, and the setting that names it."""

    path: Path
    called: str
    setting: str
    bytes_max: int

    def version(self) -> FileVersion:
        """What tells its content apart; raises UnusableFileError where it cannot be used."""
        with self._mapped():
            found = self.path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
            raise self.unusable("is not a regular file")
        if found.st_size > self.bytes_max:
            raise self.unusable("is too large")
        return FileVersion.of(found)

    def content(self) -> bytes:
        """What is in it; raises UnusableFileError where it cannot be read."""
        with self._mapped(), self.path.open("rb") as file:
            content = file.read(self.bytes_max + 1)
        if len(content) > self.bytes_max:
            raise self.unusable("is too large")
        return content

    def unusable(self, why: str) -> UnusableFileError:
        """The error that says why it cannot be used."""
        return UnusableFileError(f"{self.called} {why} ({self.setting})")

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self.unusable("does not exist") from None
        except OSError:
            raise self.unusable("cannot be read") from None
