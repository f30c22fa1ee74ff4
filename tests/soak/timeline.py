"""What happened when: every fault, every answer and every problem, in a file and in words."""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import TextIO

# What is said of the last answers when something is wrong, and of how many things that are.
_LAST_ANSWERS = 25
_FAULTS_TOLD = 60
PROBLEMS_MOST = 10


class Timeline:
    """One soak's, from its seed; all of it goes to the file as it happens."""

    def __init__(self, seed: int, file: TextIO) -> None:
        self.seed = seed
        self.problems: list[str] = []
        self._file = file
        self._began = time.monotonic()
        self._events: deque[str] = deque(maxlen=_FAULTS_TOLD)
        self._answers: deque[str] = deque(maxlen=_LAST_ANSWERS)
        # The faults in force, in the order in which they came.
        self._in_force: dict[str, None] = {}

    def began(self, fault: str) -> None:
        """A fault has come, or is about to."""
        self._in_force[fault] = None
        self.event(f"begins: {fault}")

    def ended(self, fault: str) -> None:
        """It is over."""
        self._in_force.pop(fault, None)
        self.event(f"ends: {fault}")

    def event(self, what: str) -> None:
        """Anything else that explains what comes after it."""
        self._events.append(self._write(what))

    def answer(self, what: str) -> None:
        """One answer, in a line."""
        self._answers.append(self._write(what))

    def problem(self, what: str) -> None:
        """Something that must not be, with what was so at that moment."""
        line = self._write(f"PROBLEM: {what}")
        self._events.append(line)
        in_force = "; ".join(self._in_force) or "no fault in force"
        self.problems.append(f"{line}\n    meanwhile: {in_force}")

    @property
    def is_hopeless(self) -> bool:
        """Whether there are so many problems that more of them tell nothing."""
        return len(self.problems) >= PROBLEMS_MOST

    def told(self, path: Path) -> str:
        """All of it that somebody wants who looks for the cause."""
        return "\n".join(
            (
                f"{len(self.problems)} problems with OSCAR_SOAK_SEED={self.seed}, all is in {path}",
                *self.problems,
                "what came and went, to the end:",
                *self._events,
                "the last answers:",
                *self._answers,
            )
        )

    def _write(self, what: str) -> str:
        line = f"{time.monotonic() - self._began:8.2f} s  {what}"
        print(line, file=self._file, flush=True)
        return line
