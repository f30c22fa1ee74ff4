"""The command line: serve, report, ledger, check and health."""

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

from oscar_metrics.cli_ledger import add_ledger
from oscar_metrics.cli_report import add_report
from oscar_metrics.cli_terminal import (
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    EXIT_OK,
    EXIT_USAGE,
    complain,
    print_json,
    print_parts,
    settings_of,
    spinning,
)
from oscar_metrics.errors import BadRequest, OscarMetricsError, RequestError, SettingsError
from oscar_metrics.findings import Finding, Level
from oscar_metrics.settings import Settings, load
from oscar_metrics.tables import findings_table
from oscar_metrics.telemetry import configure_logging

_EPILOG = """\
exit codes:
  0  done, and nothing is missing
  1  failed, for a reason that is not yours
  2  the command line or a setting is wrong; standard error names it
  3  done, but something is missing, ambiguous or wrong: a report's sources, the holes of
     `ledger show`, the hours of an import, or the findings of check and verify say what

Settings come from the environment and from --config; docs/configuration.md lists them.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except SettingsError as exc:
        code = complain(f"setting {exc}", EXIT_USAGE)
    except BadRequest as exc:
        code = complain(f"{exc.text}{f' ({exc.detail})' if exc.detail else ''}", EXIT_USAGE)
    except RequestError as exc:
        code = complain(f"{exc.text} ({exc.detail})", EXIT_FAILED)
    except OscarMetricsError as exc:
        code = complain(str(exc), EXIT_FAILED)
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

    add_report(commands)
    add_ledger(commands)
    return parser


def _serve(options: argparse.Namespace) -> int:
    # Imported here: a report needs no web server, and starting one should not wait for it.
    from oscar_metrics.app import serve  # noqa: PLC0415

    settings = load(os.environ, options.config)
    configure_logging(json=settings.log_json, level=settings.log_level.upper())
    # The ledger, and what stands beside it, is about people.
    os.umask(0o077)
    return EXIT_OK if serve(settings) else EXIT_FAILED


def _check(options: argparse.Namespace) -> int:
    # Imported here: --help needs none of what is asked.
    from oscar_metrics.dispatch import check  # noqa: PLC0415

    settings = settings_of(options)
    with spinning("checking"):
        findings = [*_login_findings(settings), *asyncio.run(check(settings))]
    if options.json:
        print_json(findings)
    else:
        print_parts([findings_table(findings)])
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


def _health(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    url = f"http://127.0.0.1:{settings.port}/healthz"
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return EXIT_OK if response.status == 200 else EXIT_FAILED
    except (urllib.error.URLError, TimeoutError) as exc:
        return complain(f"{url} does not answer: {exc}", EXIT_FAILED)
