"""What files come to, read again when they change: certificates and tokens are rotated."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from oscar_metrics.errors import SettingsError

T = TypeVar("T")

# How often, at most, it is asked whether files have changed.
_BETWEEN_LOOKS_SECONDS = 1.0
# The most a file of certificates or of a secret may have.
_MOST_BYTES = 1024 * 1024

_State = tuple[tuple[int, ...] | None, ...]


class WatchedFiles(Generic[T]):
    """The value of `read`, which is called again when one of `files` has changed.

    `read` raises SettingsError for what is of no use, from the constructor too. Later the value
    before it stands in until the next look, because files that belong together are rarely
    replaced at one instant; from then on asking raises, until there is a usable one again.
    """

    def __init__(self, files: Sequence[str], read: Callable[[], T]) -> None:
        self._files = tuple(Path(file) for file in files if file)
        self._read = read
        # Looked at before it is read: what changes in between is seen by the next look.
        self._state = self._look()
        self._value = read()
        self._look_at = 0.0
        self._failures = 0
        self._problem: SettingsError | None = None

    async def current(self) -> T:
        """The value as the files are, or were a second ago; raises SettingsError."""
        now = asyncio.get_running_loop().time()
        if self._files and now >= self._look_at:
            # Set first: whoever asks meanwhile is content with what there is.
            self._look_at = now + _BETWEEN_LOOKS_SECONDS
            await self._refresh()
        if self._problem is not None and self._failures > 1:
            raise self._problem
        return self._value

    async def _refresh(self) -> None:
        state = await asyncio.to_thread(self._look)
        if state == self._state and self._problem is None:
            return
        try:
            self._value = await asyncio.to_thread(self._read)
        except SettingsError as exc:
            self._failures += 1
            self._problem = exc
        else:
            self._failures = 0
            self._problem = None
            self._state = state

    def _look(self) -> _State:
        return tuple(_signature(file) for file in self._files)


def text_of(setting: str, path: str | Path) -> str:
    """A small text file's content; raises SettingsError naming the setting."""
    why = f"expected a text file of at most {_MOST_BYTES} bytes"
    try:
        # Anything but a file, such as a pipe, would be waited for.
        if not Path(path).exists():
            why = "there is no such file"
        elif Path(path).is_file():
            with Path(path).open("rb") as file:
                content = file.read(_MOST_BYTES + 1)
            if len(content) <= _MOST_BYTES:
                return content.decode("utf-8")
    except PermissionError:
        why = "this process may not read it"
    except (OSError, ValueError, TypeError):
        pass  # TypeError: a settings file may have a number in a path's place
    raise SettingsError(setting, f"cannot read {path}: {why}")


def _signature(file: Path) -> tuple[int, ...] | None:
    """What differs when a file was replaced, or what a link leads to; None where there is none."""
    try:
        found = file.stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
