"""A server as the tests install it: what it is called, and how a step of its installation runs."""

from __future__ import annotations

import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ERROR_TAIL_BYTES = 4_000


class BuildError(Exception):
    """A server could not be installed; the message says what to do or shows why."""


def told_version(program: str | Path, asked_by: Sequence[str] = ("--version",)) -> str:
    """Return what the program says when it is asked for its version, or nothing."""
    try:
        told = subprocess.run(
            [program, *asked_by], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    # Some log it.
    return told.stdout + told.stderr if told.returncode == 0 else ""


@dataclass(frozen=True, kw_only=True)
class Server(ABC):
    """A server at one version, which knows how it is installed."""

    name: str
    version: str
    asked_version_by: tuple[str, ...] = ("--version",)

    @property
    def title(self) -> str:
        """The name and version, as a person reads it."""
        return f"{self.name} {self.version}"

    @property
    def installed_as(self) -> str:
        """The file or folder that it is, in the folder of installed servers."""
        return f"{self.name}-{self.version}"

    @property
    def program(self) -> Path:
        """The program, relative to the folder of installed servers."""
        return Path(self.installed_as)

    def on_path(self) -> Path | None:
        """Return a program on PATH that is as good as the one to be installed, if there is one."""
        return None

    @abstractmethod
    def check(self, work_directory: Path) -> None:
        """Raise BuildError if this machine has not what installing the server takes."""

    @abstractmethod
    def build(self, work_directory: Path) -> Path:
        """Make the server under `work_directory` and return what is to be moved to its place.

        Raises BuildError with the end of the log if that fails.
        """

    def run(
        self,
        command: Sequence[str | Path],
        work_directory: Path,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Run one command of the installation in `directory`, telling a terminal that it lasts.

        Raises BuildError with the end of its output if it fails.
        """
        log_path = work_directory / f"{self.name}.log"
        with log_path.open("wb") as log:
            running = subprocess.Popen(
                command,
                cwd=directory or work_directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                self._wait(running)
            finally:
                running.kill()
                running.wait()
        if running.returncode != 0:
            tail = log_path.read_bytes()[-_ERROR_TAIL_BYTES:].decode(errors="replace")
            raise BuildError(f"{self.title} could not be built:\n{tail}")

    def _wait(self, running: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        on_terminal = sys.stdout.isatty()
        while True:
            try:
                running.wait(1)
            except subprocess.TimeoutExpired:
                if on_terminal:
                    seconds = time.monotonic() - began
                    print(f"\r{self.title}: building, {seconds:.0f} s", end="", flush=True)
            else:
                break
        if on_terminal:
            print("\r\x1b[K", end="")
