"""`oscar-metrics ledger`: seal, import, look at, check, export and forget."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from oscar_metrics.calendars import as_calendar
from oscar_metrics.cli_terminal import (
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    EXIT_OK,
    complain,
    print_json,
    print_parts,
    progress_shown,
    settings_of,
    spinning,
)
from oscar_metrics.command_requests import (
    Backfill,
    Export,
    Forget,
    Forgotten,
    ImportFiles,
    LedgerRequest,
    Show,
    Verify,
)
from oscar_metrics.errors import BadRequest
from oscar_metrics.findings import Level
from oscar_metrics.ledger.backfill import Backfilled
from oscar_metrics.ledger.importing import ImportReport
from oscar_metrics.ledger.seals import Judged, SealKind, Verdict
from oscar_metrics.ledger.store import ExportForm, Progress
from oscar_metrics.tables import findings_table
from oscar_metrics.timerange import HOUR_NS, format_instant

_DESCRIPTION = """\
The ledger (OSCAR_METRICS_LEDGER) keeps what the sources said, hour by hour. A command that
finds it held by a running server asks that server, which then works with its own settings
and as its own user. Interrupting a command stops its work; what was sealed by then is kept.
"""


def add_ledger(commands: Any) -> None:
    """Add the commands to the command line."""
    plain = argparse.RawDescriptionHelpFormatter
    ledger = commands.add_parser(
        "ledger",
        help="seal, import, look at, check, export and forget what was sealed",
        description=_DESCRIPTION,
        formatter_class=plain,
    )
    does = ledger.add_subparsers(title="commands", required=True, metavar="COMMAND")

    backfill = does.add_parser(
        "backfill",
        help="seal past hours, as far as the sources reach",
        description="Seal the hours of a range that are not sealed yet, newest first, as far as"
        " the sources reach. May be interrupted and started again.",
    )
    _add_range(backfill, "OSCAR_METRICS_LEDGER_BACKFILL_DAYS before the end, 400 days")
    backfill.add_argument("--json", action="store_true", help="what was done, for machines")
    backfill.set_defaults(run=_backfill)

    files = does.add_parser(
        "import",
        help="seal the hours that log files hold",
        description="Seal what archives of logs hold: plain or gzip, in any order, overlapping."
        " A file imported twice changes nothing, and an hour that was sealed from elsewhere is"
        " replaced only where the files have seen more of it. Countries, the roster and"
        " INGRESS_HOST are set as for reports.",
    )
    files.add_argument("files", nargs="+", metavar="FILE", type=Path, help="a log file")
    files.add_argument("--json", action="store_true", help="what was done, for machines")
    files.set_defaults(run=_import)

    show = does.add_parser(
        "show",
        help="a calendar of what is sealed, and where the holes are",
        description="A line per month and a mark per UTC day, for each kind of what is sealed;"
        " then the holes, from when to when and why. Exits with 3 where there are any in"
        " executions, exposed requests or usage.",
    )
    _add_range(show, "the first hour that is sealed")
    show.add_argument("--json", action="store_true", help="the same for machines")
    show.set_defaults(run=_show)

    verify = does.add_parser(
        "verify",
        help="read everything and compare it with its checksums and totals",
        description="Read the whole file and compare it with its checksums and totals."
        " Exits with 3 where something is wrong, and says what to do.",
    )
    verify.add_argument("--json", action="store_true", help="one JSON array of findings")
    verify.set_defaults(run=_verify)

    export = does.add_parser(
        "export",
        help="write everything to Parquet or CSV files",
        description="Write calls, usage, inventories and seals to new files in a folder.",
    )
    export.add_argument("folder", type=Path, metavar="DIR", help="where the files go")
    export.add_argument(
        "--format",
        choices=[form.value for form in ExportForm],
        default=ExportForm.PARQUET.value,
        help="(default: %(default)s)",
    )
    export.set_defaults(run=_export)

    forget = does.add_parser(
        "forget",
        help="replace a user by a pseudonym, everywhere and for good",
        description="Replace a user by a pseudonym in what is sealed and in what will be."
        " Totals and distinct counts stay as they are. It cannot be undone.",
    )
    forget.add_argument("user", help="the user's id, as reports have it")
    forget.add_argument("--yes", action="store_true", help="do not ask whether that is meant")
    forget.set_defaults(run=_forget)


def _add_range(parser: argparse.ArgumentParser, first: str) -> None:
    parser.add_argument(
        "--from",
        dest="start",
        metavar="TIME",
        help=f"an instant of the first hour, RFC 3339 (default: {first})",
    )
    parser.add_argument(
        "--to",
        dest="end",
        metavar="TIME",
        help="an instant of the last hour, RFC 3339 (default: now)",
    )


def _backfill(options: argparse.Namespace) -> int:
    done: Backfilled = _done(
        options, Backfill(start=options.start, end=options.end), progress_shown("sealing")
    )
    if options.json:
        print_json(done)
    else:
        print(done)
    doubtful = any(
        kind.failed or kind.verdicts.keys() & {Verdict.AMBIGUOUS, Verdict.REFUSED}
        for kind in done.kinds.values()
    )
    return EXIT_INCOMPLETE if doubtful else EXIT_OK


def _import(options: argparse.Namespace) -> int:
    for file in options.files:
        # What a server would say of a file in a folder of its own could mislead.
        try:
            is_file = file.is_file()
        except OSError as exc:
            raise BadRequest(f"{file} cannot be read ({exc.strerror})") from exc
        if not is_file:
            raise BadRequest(f"{file} is no file")
    request = ImportFiles(files=tuple(str(file.absolute()) for file in options.files))
    report: ImportReport = _done(options, request, progress_shown("reading"))
    if options.json:
        print_json(report)
    else:
        for line in _said_of(report):
            print(line)
    doubtful = report.ambiguous or report.refused or report.problems or report.doubts
    return EXIT_INCOMPLETE if doubtful else EXIT_OK


def _said_of(report: ImportReport) -> Iterator[str]:
    yield (
        f"files: {report.files:,}; {report.lines_understood:,} of {report.lines_seen:,} calls"
        f" understood, {report.copies:,} copies of lines passed over"
    )
    for kind, verdicts in report.verdicts.items():
        counts = ", ".join(f"{count:,} {verdict}" for verdict, count in verdicts.items())
        yield f"{kind}: hours: {counts or 'none'}"
    for verdict, why in (
        ("ambiguous", "each has calls that the other has not; what is sealed was kept"),
        ("kept", "what is sealed has seen more, and was kept"),
        ("refused", "the clock stands before the time at which it was sealed"),
    ):
        hours: tuple[Judged, ...] = getattr(report, verdict)
        if hours:
            yield f"{verdict}: {why}"
        for one in hours:
            yield (
                f"  {one.kind} {format_instant(one.hour * HOUR_NS)}:"
                f" {one.lines_seen:,} lines in the files, {one.sealed_lines_seen:,} sealed"
            )
    if report.left_out_from:
        yield f"not over yet, and left out: the hour from {report.left_out_from}"
    yield from report.problems
    yield from report.doubts


def _show(options: argparse.Namespace) -> int:
    coverage = _done(options, Show(start=options.start, end=options.end), spinning("looking"))
    if options.json:
        print_json(coverage)
    else:
        print_parts(as_calendar(coverage))
    # A past inventory cannot be had: nothing is to be done about its holes.
    holes = any(kind.holes for kind in coverage.kinds if kind.kind is not SealKind.INVENTORY)
    return EXIT_INCOMPLETE if holes else EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    findings = _done(options, Verify(), progress_shown("reading"))
    if options.json:
        print_json(findings)
    else:
        print_parts([findings_table(findings)])
    wrong = any(finding.level is not Level.OK for finding in findings)
    return EXIT_INCOMPLETE if wrong else EXIT_OK


def _export(options: argparse.Namespace) -> int:
    request = Export(folder=str(options.folder.absolute()), form=ExportForm(options.format))
    for path in _done(options, request, progress_shown("writing")):
        print(path)
    return EXIT_OK


def _forget(options: argparse.Namespace) -> int:
    if not options.user.strip():
        # Calls that name nobody are one row, and nobody asks to be forgotten by it.
        raise BadRequest("a user is required")
    if not options.yes and not _meant(options.user):
        return complain("nobody was forgotten", EXIT_FAILED)
    done: Forgotten = _done(options, Forget(user=options.user), spinning("forgetting"))
    if done.was_remembered:
        print(f"what the log-ins of {options.user} said is forgotten")
    if done.pseudonym is not None:
        print(f"{options.user} is {done.pseudonym} from now on")
    elif not done.was_remembered:
        return complain(f"the ledger does not know {options.user!r}", EXIT_FAILED)
    return EXIT_OK


def _meant(user: str) -> bool:
    if not sys.stdin.isatty():
        raise BadRequest(
            "forgetting cannot be undone", detail="say --yes where nobody can be asked"
        )
    answer = input(f"Replace {user!r} by a pseudonym everywhere? This cannot be undone [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def _done(
    options: argparse.Namespace,
    request: LedgerRequest,
    showing: AbstractContextManager[Progress],
) -> Any:
    # Imported here: --help needs no engine.
    from oscar_metrics.dispatch import perform  # noqa: PLC0415

    settings = settings_of(options)
    # What the ledger and its exports hold is about people.
    os.umask(0o077)
    with showing as progress:
        return asyncio.run(perform(settings, request, progress))
