"""Reports and findings for people: tables for a terminal, and CSV where HTTP has none. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from msgspec import UNSET
from rich import markup
from rich.table import Table

from oscar_metrics import wire
from oscar_metrics.findings import Finding, Level
from oscar_metrics.handlers.csv import cell, period_cell

Report = wire.Summary | wire.Breakdown | wire.Value

_COLOURS = {
    wire.SourceState.OK: "green",
    wire.SourceState.PARTIAL: "yellow",
    wire.SourceState.MISSING: "red",
    Level.OK: "green",
    Level.WARNING: "yellow",
    Level.PROBLEM: "red",
}


_LISTED = 12
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def as_table(report: Report) -> Iterator[Table]:
    """The report's figures, then what became of its sources, and what was restated."""
    title = f"{report.start} to {report.end}"
    if report.as_of is not UNSET:
        title += f" as of {report.as_of}"
    match report:
        case wire.Summary():
            yield _pairs(title, msgspec.structs.asdict(report.totals))
            if report.periods is not UNSET:
                yield _rows("by period", [_period_row(period) for period in report.periods])
        case wire.Value():
            named = f"{report.service_id}: {report.metric}"
            unit = "" if report.unit is UNSET else f" {report.unit}"
            yield _pairs(title, {named: f"{_cell(report.value)}{unit}"})
        case _:
            yield _rows(title, [*_item_rows(report)])
    yield _sources(report.sources)
    if report.restated is not UNSET:
        yield _rows("restated", [msgspec.structs.asdict(hour) for hour in report.restated])


def as_csv(report: wire.Summary | wire.Value) -> str:
    """One header line and one line of figures; empty where a figure is missing.

    A summary with periods has a line for each before that of the total.
    """
    as_of = {} if report.as_of is UNSET else {"as_of": report.as_of}
    if isinstance(report, wire.Value):
        names = ("service_id", "metric", "start", "end", "value", "unit")
        rows = [{**{name: getattr(report, name) for name in names}, **as_of}]
    else:
        stretches: list[wire.Summary | wire.SummaryPeriod] = [report]
        if report.periods is not UNSET:
            stretches = [*report.periods, report]
        rows = [
            {
                **({} if report.periods is UNSET else {"period": period_cell(stretch)}),
                "start": stretch.start,
                "end": stretch.end,
                **msgspec.structs.asdict(stretch.totals),
                **as_of,
            }
            for stretch in stretches
        ]
    lines: list[Iterable[Any]] = [rows[0], *(map(_joined, row.values()) for row in rows)]
    return "".join(",".join(map(cell, line)) + "\n" for line in lines)


def findings_table(findings: Iterable[Finding]) -> Table:
    """A line per finding, and what to change."""
    table = Table(box=None, pad_edge=False)
    for column in ("", "source", "finding", "what to change"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        level = f"[{_COLOURS[finding.level]}]{finding.level}[/]"
        table.add_row(level, *map(_plain, (finding.source, finding.says, finding.change)))
    return table


def _pairs(title: str, values: dict[str, object]) -> Table:
    table = Table(
        title=_plain(title),
        title_justify="left",
        min_width=len(title),  # a title is broken where its table is narrower
        box=None,
        show_header=False,
    )
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(_plain(name), _plain(_short(value)))
    return table


def _period_row(period: wire.SummaryPeriod) -> dict[str, object]:
    """The numbers of a period; its lists would not fit, and nothing is deployed over a period."""
    numbers = {
        name.removesuffix("_total").removesuffix("_count").replace("_count_", "_"): value
        for name, value in msgspec.structs.asdict(period.totals).items()
        if not isinstance(value, tuple) and name != "services_count_active"
    }
    return {"period": period.period, **numbers, "incomplete": period.incomplete}


def _item_rows(report: wire.Breakdown) -> Iterator[dict[str, object]]:
    if report.periods is UNSET:
        yield from map(msgspec.structs.asdict, report.items)
        return
    for stretch in (*report.periods, report):
        for item in stretch.items:
            yield {"period": period_cell(stretch), **msgspec.structs.asdict(item)}


def _rows(title: str, rows: list[dict[str, object]]) -> Table:
    table = Table(title=_plain(title), title_justify="left", box=None, pad_edge=False)
    shown = [name for name in (rows[0] if rows else ()) if rows[0][name] is not UNSET]
    for name in shown:
        numeric = all(isinstance(row[name], int | float | None) for row in rows)
        table.add_column(
            # Broken between words, where it must be, and a period's name not at all.
            _plain(name.replace("_", " ")),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=name == "period",
        )
    for row in rows:
        table.add_row(*(_plain(_short(row[name])) for name in shown))
    if not rows:
        table.add_column("no rows")
    return table


def _sources(sources: Iterable[wire.SourceStatus]) -> Table:
    table = Table(title="sources", title_justify="left", box=None, pad_edge=False)
    for column in ("name", "status", "coverage", "from ledger", "origin", "notes"):
        table.add_column(column, overflow="fold")
    for source in sources:
        table.add_row(
            source.name,
            f"[{_COLOURS[source.status]}]{source.status}[/]",
            f"{source.coverage:.2%}",
            "" if source.ledger is UNSET else f"{source.ledger.coverage:.2%}",
            _plain(source.origin),
            _plain("" if source.notes is UNSET else source.notes),
        )
    return table


def _plain(text: str) -> str:
    """A text as it is, whatever users wrote into their names: a terminal is not to obey it."""
    return markup.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text))


def _short(value: object) -> str:
    """A cell for a terminal, where a long list says how much it leaves out."""
    if isinstance(value, tuple) and len(value) > _LISTED:
        return f"{_cell(value[:_LISTED])} and {len(value) - _LISTED} more (--json has all)"
    return _cell(value)


def _cell(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is UNSET else str(_joined(value))


def _joined(value: Any) -> Any:
    """A list as one text, as in CSV; anything else as it is."""
    if isinstance(value, wire.CountryCount):
        return f"{value.country}:{value.request_count}"
    return "|".join(str(_joined(item)) for item in value) if isinstance(value, tuple) else value
