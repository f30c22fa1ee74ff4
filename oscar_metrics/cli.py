"""The command line: serve, report, check and health, over the same Aggregator."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from rich.console import Console

from oscar_metrics import wire
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.errors import BadRequest, OscarMetricsError, RequestError, SettingsError
from oscar_metrics.findings import Finding, Level
from oscar_metrics.handlers.csv import breakdown_csv
from oscar_metrics.settings import Settings, load
from oscar_metrics.tables import Report, as_csv, as_table, findings_table
from oscar_metrics.telemetry import configure_logging
from oscar_metrics.timerange import ReportRange, report_range

T = TypeVar("T")

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE = 0, 1, 2, 3

_PIPE_COLUMNS = 1000

_EPILOG = """\
exit codes:
  0  done, and nothing is missing
  1  failed, for a reason that is not yours
  2  the command line or a setting is wrong; standard error names it
  3  done, but something is missing or wrong: a report's sources, or check's findings, say what

Settings come from the environment and from --config; docs/configuration.md lists them.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SettingsError as exc:
        code = _complain(f"setting {exc}", EXIT_USAGE)
    except RequestError as exc:
        code = _complain(f"{exc.text}{f' ({exc.detail})' if exc.detail else ''}", EXIT_USAGE)
    except OscarMetricsError as exc:
        code = _complain(str(exc), EXIT_FAILED)
    except BrokenPipeError:
        # Whoever read us has had enough; Python would complain again while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_FAILED
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="oscar-metrics",
        description="Who used which service of an OSCAR platform, from where, how much.",
        epilog=_EPILOG,
        formatter_class=plain,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="a TOML file of settings, by the same names; the environment wins over it",
    )
    parser.add_argument(
        "--version", action="version", version=importlib.metadata.version("oscar-metrics")
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="answer over HTTP until stopped")
    serve.set_defaults(run=_serve)

    check = commands.add_parser(
        "check", help="ask every configured source what a report will need, and say what to change"
    )
    check.add_argument("--json", action="store_true", help="one JSON array of findings")
    check.set_defaults(run=_check)

    health = commands.add_parser("health", help="exit with 0 when the server here is alive")
    health.set_defaults(run=_health)

    report = commands.add_parser("report", help="print one report; waits as long as it takes")
    _add_reports(report.add_subparsers(title="reports", required=True, metavar="REPORT"))
    return parser


def _add_reports(reports: Any) -> None:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--start", metavar="TIME", help="first instant, RFC 3339 (default: 24 h before the end)"
    )
    common.add_argument(
        "--end", metavar="TIME", help="last instant, RFC 3339, included (default: now)"
    )
    form = common.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="the answer of the HTTP API")
    form.add_argument("--csv", action="store_true", help="comma-separated, for a spreadsheet")

    summary = reports.add_parser("summary", parents=[common], help="totals")
    summary.set_defaults(run=_report, ask=_ask_summary)

    breakdown = reports.add_parser("breakdown", parents=[common], help="a row per ...")
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
        "--include-usage", action="store_true", help="add CPU and GPU hours to services"
    )
    breakdown.set_defaults(run=_report, ask=_ask_breakdown)

    value = reports.add_parser("value", parents=[common], help="one metric of one service")
    value.add_argument("service", help="the service's name")
    value.add_argument(
        "metric", choices=[metric.value for metric in wire.SERVICE_METRICS], help="a metric key"
    )
    value.set_defaults(run=_report, ask=_ask_value)


def _serve(options: argparse.Namespace) -> int:
    # Imported here: a report needs no web server, and starting one should not wait for it.
    from oscar_metrics.app import serve  # noqa: PLC0415

    settings = _settings(options, json_log=None)
    return EXIT_OK if serve(settings) else EXIT_FAILED


def _report(options: argparse.Namespace) -> int:
    settings = _settings(options, json_log=False)

    async def ask(aggregator: Aggregator) -> Report:
        asked = report_range(options.start, options.end, aggregator.now_ns())
        report: Report = await options.ask(aggregator, asked, options)
        return report

    report = _with_aggregator(settings, ask, "reading")
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    elif options.csv:
        breakdown = isinstance(report, wire.Breakdown)
        print(breakdown_csv(report) if breakdown else as_csv(report), end="")
    else:
        console = _console()
        for table in as_table(report):
            console.print(table)
    complete = all(source.status is wire.SourceState.OK for source in report.sources)
    return EXIT_OK if complete else EXIT_INCOMPLETE


async def _ask_summary(
    aggregator: Aggregator, asked: ReportRange, _options: argparse.Namespace
) -> Report:
    return await aggregator.summary(asked)


async def _ask_breakdown(
    aggregator: Aggregator, asked: ReportRange, options: argparse.Namespace
) -> Report:
    if options.csv and options.include_users:
        raise BadRequest("include_users is not supported for csv")
    return await aggregator.breakdown(
        asked,
        wire.GroupBy(options.group_by),
        group_by_text=options.group_by,
        include_users=options.include_users,
        include_usage=options.include_usage,
    )


async def _ask_value(
    aggregator: Aggregator, asked: ReportRange, options: argparse.Namespace
) -> Report:
    if not options.service.strip():
        raise BadRequest("service_id is required")
    return await aggregator.value(asked, options.service, wire.Metric(options.metric))


def _check(options: argparse.Namespace) -> int:
    settings = _settings(options, json_log=False)

    async def ask(aggregator: Aggregator) -> list[Finding]:
        return await aggregator.check()

    findings = [*_login_findings(settings), *_with_aggregator(settings, ask, "checking")]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(findings), indent=2).decode())
    else:
        _console().print(findings_table(findings))
    problems = any(finding.level is Level.PROBLEM for finding in findings)
    return EXIT_INCOMPLETE if problems else EXIT_OK


def _login_findings(settings: Settings) -> list[Finding]:
    """What keeps `serve` from starting, which no source knows."""
    missing = [
        name
        for name, value in (
            ("OSCAR_USERNAME", settings.username),
            ("OSCAR_PASSWORD", settings.password),
        )
        if not value
    ]
    if not missing:
        return []
    return [
        Finding(
            source="server",
            level=Level.WARNING,
            says=f"{' and '.join(missing)} not set: serve will not start",
            change=f"set {' and '.join(missing)}",
        )
    ]


def _console() -> Console:
    """A terminal's own width; lines as long as they are for whatever reads a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_COLUMNS)


def _health(options: argparse.Namespace) -> int:
    settings = _settings(options, json_log=False)
    url = f"http://127.0.0.1:{settings.port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return EXIT_OK if response.status == 200 else EXIT_FAILED
    except (urllib.error.URLError, TimeoutError) as exc:
        return _complain(f"{url} does not answer: {exc}", EXIT_FAILED)


def _settings(options: argparse.Namespace, *, json_log: bool | None) -> Settings:
    settings = load(os.environ, options.config)
    if json_log is None:
        configure_logging(json=settings.log_json, level=settings.log_level.upper())
    else:
        # What a source could not do stands in the report; the log would say it twice.
        configure_logging(json=json_log, level="ERROR")
    return settings


def _with_aggregator(settings: Settings, ask: Any, doing: str) -> Any:
    """What `ask` answers, on an aggregator without a deadline; a spinner on a terminal."""
    from oscar_metrics.app import create_aggregator  # noqa: PLC0415

    async def run() -> Any:
        aggregator = create_aggregator(settings, deadline_seconds=None)
        try:
            return await ask(aggregator)
        finally:
            await aggregator.aclose()

    with Console(stderr=True).status(f"{doing} ..."):
        return asyncio.run(run())


def _complain(text: str, code: int) -> int:
    print(f"oscar-metrics: {text}", file=sys.stderr)
    return code
