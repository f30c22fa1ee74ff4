"""`oscar-metrics report`: one report, printed or saved."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import msgspec

from oscar_metrics import wire
from oscar_metrics.cli_terminal import (
    EXIT_INCOMPLETE,
    EXIT_OK,
    print_json,
    print_parts,
    settings_of,
    spinning,
)
from oscar_metrics.command_requests import (
    AskBreakdown,
    AskedRange,
    AskSummary,
    AskValue,
    ReportRequest,
)
from oscar_metrics.errors import BadRequest, OscarMetricsError
from oscar_metrics.handlers.csv import breakdown_csv
from oscar_metrics.tables import Report, as_csv, as_table


def add_report(commands: Any) -> None:
    """Add the command to the command line."""
    report = commands.add_parser(
        "report",
        help="print one report; waits as long as it takes",
        description="One report. Where there is a ledger, sealed hours are read from it"
        " (through the server that holds it, if one does); the rest is asked of the sources.",
    )
    reports = report.add_subparsers(title="reports", required=True, metavar="REPORT")
    common = _common()

    summary = reports.add_parser("summary", parents=[common, _series()], help="totals")
    summary.set_defaults(run=_report, request=_summary)

    breakdown = reports.add_parser(
        "breakdown",
        parents=[common, _series()],
        help="a row per service, user, country, owner, VO or project",
    )
    breakdown.add_argument(
        "--group-by",
        choices=[group.value for group in wire.GroupBy],
        default=wire.GroupBy.SERVICE.value,
        help="what has a row (default: %(default)s)",
    )
    breakdown.add_argument(
        "--include-users", action="store_true", help="name the users of every service (not in CSV)"
    )
    breakdown.add_argument(
        "--include-usage", action="store_true", help="add CPU and GPU hours to services and owners"
    )
    breakdown.set_defaults(run=_report, request=_breakdown)

    value = reports.add_parser("value", parents=[common], help="one metric of one service")
    value.add_argument("service", help="the service's name")
    value.add_argument(
        "metric", choices=[metric.value for metric in wire.SERVICE_METRICS], help="a metric key"
    )
    value.set_defaults(run=_report, request=_value, interval=None, tz=None)


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--start", metavar="TIME", help="first instant, RFC 3339 (default: 24 h before the end)"
    )
    common.add_argument(
        "--end", metavar="TIME", help="last instant, RFC 3339, included (default: now)"
    )
    common.add_argument(
        "--as-of",
        metavar="TIME",
        help="every number as the ledger knew it then, RFC 3339; refused where it cannot be",
    )
    common.add_argument(
        "--restated-since",
        metavar="TIME",
        help="also say which hours were sealed anew since then, and by how much",
    )
    form = common.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the answer of the HTTP API")
    form.add_argument(
        "--csv",
        action="store_true",
        help="comma-separated, for a spreadsheet; standard error says what is missing",
    )
    common.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the answer of the HTTP API (JSON) to a new file, and its digest to"
        " FILE.sha256, which `sha256sum -c` checks; refuses to overwrite either",
    )
    return common


def _series() -> argparse.ArgumentParser:
    series = argparse.ArgumentParser(add_help=False)
    series.add_argument(
        "--interval",
        choices=["hour", "day", "week", "month"],
        help="a row per period beside the total (default: none)",
    )
    series.add_argument(
        "--tz",
        metavar="ZONE",
        help="the IANA time zone whose days those are, such as Europe/Madrid (default: UTC)",
    )
    return series


def _report(options: argparse.Namespace) -> int:
    # Imported here: --help needs none of what reads reports.
    from oscar_metrics.dispatch import make_report  # noqa: PLC0415

    if options.save is not None:
        _refuse_to_overwrite(options.save)
    settings = settings_of(options)
    request: ReportRequest = options.request(options)
    with spinning("reading"):
        report = asyncio.run(make_report(settings, request))
    if options.save is not None:
        _save(report, options.save)
    _print(report, options)
    complete = all(source.status is wire.SourceState.OK for source in report.sources)
    return EXIT_OK if complete else EXIT_INCOMPLETE


def _print(report: Report, options: argparse.Namespace) -> None:
    if options.json:
        print_json(report)
    elif options.csv:
        if isinstance(report, wire.Summary | wire.Value):
            print(as_csv(report), end="")
        else:
            print(breakdown_csv(report), end="")
        _say_what_is_missing(report)
    else:
        print_parts(as_table(report))


def _say_what_is_missing(report: Report) -> None:
    """Rows have no place for what became of the sources; whoever runs the command reads it."""
    for source in report.sources:
        if source.status is not wire.SourceState.OK:
            print(f"{source.name}: {source.status}: {source.notes}", file=sys.stderr)


def _range(options: argparse.Namespace) -> AskedRange:
    return AskedRange(
        start=options.start,
        end=options.end,
        as_of=options.as_of,
        restated_since=options.restated_since,
        interval=options.interval,
        tz=options.tz,
    )


def _summary(options: argparse.Namespace) -> ReportRequest:
    return AskSummary(asked=_range(options))


def _breakdown(options: argparse.Namespace) -> ReportRequest:
    if options.csv and options.include_users:
        raise BadRequest("include_users is not supported for csv")
    return AskBreakdown(
        asked=_range(options),
        group_by=wire.GroupBy(options.group_by),
        include_users=options.include_users,
        include_usage=options.include_usage,
    )


def _value(options: argparse.Namespace) -> ReportRequest:
    return AskValue(
        asked=_range(options), service=options.service, metric=wire.Metric(options.metric)
    )


def digest_file(file: Path) -> Path:
    """Where the digest of a saved report is."""
    return file.parent / f"{file.name}.sha256"


def digest_line(body: bytes, name: str) -> bytes:
    """The line that `sha256sum -c` reads; it begins with a backslash where the name is escaped."""
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    mark = "" if escaped == name else "\\"
    return os.fsencode(f"{mark}{hashlib.sha256(body).hexdigest()}  {escaped}\n")


def _refuse_to_overwrite(file: Path) -> None:
    for path in (file, digest_file(file)):
        if path.exists() or path.is_symlink():
            raise BadRequest(f"{path} exists", detail="--save writes new files only")


def _save(report: Report, file: Path) -> None:
    """Write the body and its digest: both whole, or neither."""
    body = msgspec.json.encode(report)
    try:
        _write_new(file, body)
        try:
            _write_new(digest_file(file), digest_line(body, file.name))
        except OSError:
            file.unlink()
            raise
    except OSError as exc:
        raise OscarMetricsError(f"cannot save {file}: {exc.strerror}") from exc


def _write_new(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, and was not there before."""
    partly = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partly.open("xb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        # Unlike a renaming, a link never replaces what somebody else has put there meanwhile.
        path.hardlink_to(partly)
    finally:
        partly.unlink(missing_ok=True)
