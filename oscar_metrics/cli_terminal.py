"""What every command shares: exit codes, settings, and what a terminal shows of long work."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from oscar_metrics.ledger.store import Progress as ToldProgress
from oscar_metrics.settings import Settings, load
from oscar_metrics.telemetry import configure_logging

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3

_PIPE_COLUMNS = 1000
# How often a line says how far long work is, where there is no terminal.
_LINE_EVERY_SECONDS = 5


def settings_of(options: argparse.Namespace) -> Settings:
    """The settings of a command that prints its own answer."""
    settings = load(os.environ, options.config)
    # What a source could not do stands in the answer; the log would say it twice.
    configure_logging(json=False, level="ERROR")
    return settings


def print_parts(parts: Iterable[RenderableType]) -> None:
    """Tables and texts: as wide as a terminal is, or as long as they are for what reads a pipe."""
    if sys.stdout.isatty():
        console = Console()
        for part in parts:
            console.print(part)
        return
    console = Console(width=_PIPE_COLUMNS)
    for part in parts:
        with console.capture() as capture:
            console.print(part)
        # A table fills its lines up with blanks, as far as the longest of its cells reaches.
        print(re.sub(r" +$", "", capture.get(), flags=re.MULTILINE), end="")


def print_json(value: object) -> None:
    """A value as JSON that people can read too."""
    print(json_text(value))


def json_text(value: object) -> str:
    """The same as text."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def complain(text: str, code: int) -> int:
    """Say on standard error what is wrong; the exit code."""
    print(f"oscar-metrics: {text}", file=sys.stderr)
    return code


@contextmanager
def spinning(doing: str) -> Iterator[ToldProgress]:
    """A spinner on a terminal, for work that does not say how far it is, or not for long."""
    with Console(stderr=True).status(f"{doing} ..."):
        yield _unheard


@contextmanager
def progress_shown(doing: str) -> Iterator[ToldProgress]:
    """Whom to tell how far a piece of work is: a bar on a terminal, now and then a line elsewhere.

    May be told from any thread.
    """
    if not sys.stderr.isatty():
        yield _Lines()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:
        bar = bars.add_task(doing, total=None)

        def told(done: int, total: int, doing: str) -> None:
            bars.update(bar, completed=done, total=total or None, description=doing)

        yield told


class _Lines:
    """Plain lines on standard error, not one per part."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int, doing: str) -> None:
        now = time.monotonic()
        if now - self._last >= _LINE_EVERY_SECONDS:
            self._last = now
            print(f"{doing}: {done:,} of {total:,}", file=sys.stderr, flush=True)


def _unheard(done: int, total: int, doing: str) -> None:
    """Pass over how far work is."""
