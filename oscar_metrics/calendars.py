"""What the ledger covers, for people: a line per month, a mark per day. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oscar_metrics.ledger.coverage import Coverage, DayMark, Hole, KindCoverage

# Letters that tell without colour too, which a terminal adds.
MARKS = {
    DayMark.FULL: ("#", "green"),
    DayMark.PARTIAL: ("+", "yellow"),
    DayMark.MISSING: ("!", "red"),
    DayMark.UNSEALED: (".", "red"),
}
_MEANINGS = {
    DayMark.FULL: "every hour sealed, nothing missing",
    DayMark.PARTIAL: "some of it missing or not sealed",
    DayMark.MISSING: "sealed, and the sources had nothing",
    DayMark.UNSEALED: "not sealed",
}
# More are left to --json.
_HOLES_LISTED = 100
_NO_DAY = " "


def as_calendar(coverage: Coverage) -> Iterator[Text | Table]:
    """Each kind's calendar, what the marks mean, and the holes."""
    for kind in coverage.kinds:
        yield Text.assemble((kind.kind.value, "bold"), f": {_said(kind)}")
        yield from _months(kind)
        yield Text()
    yield Text("  ").join(
        Text.assemble((mark, colour), f" {_MEANINGS[day]}") for day, (mark, colour) in MARKS.items()
    )
    holes = [(kind, hole) for kind in coverage.kinds for hole in kind.holes]
    if holes:
        yield Text()
        yield _holes(holes)


def _said(kind: KindCoverage) -> str:
    if not kind.days:
        return "nothing is sealed"
    parts = [f"{kind.start} to {kind.end}", f"{kind.sealed_hours:,.10g} h sealed"]
    if kind.provisional_hours:
        parts.append(f"{kind.provisional_hours:,.10g} h of them to be looked at again")
    if kind.lines_seen:
        parts.append(f"{kind.lines_understood:,} of {kind.lines_seen:,} lines understood")
    parts.append(f"from {', '.join((*kind.origins, *kind.methods))}")
    return ", ".join(parts)


def _months(kind: KindCoverage) -> Iterator[Text]:
    months: dict[str, dict[int, DayMark]] = {}
    for day, mark in kind.days.items():
        months.setdefault(day[:7], {})[int(day[8:])] = mark
    if months:
        yield Text(f"{'':9}{''.join(str(day % 10) for day in range(1, 32))}", style="dim")
    for month, marks in months.items():
        line = Text(f"{month}  ")
        for number in range(1, max(marks) + 1):
            line.append(*(MARKS[marks[number]] if number in marks else (_NO_DAY, "")))
        yield line


def _holes(holes: list[tuple[KindCoverage, Hole]]) -> Table:
    table = Table(title="holes", title_justify="left", box=None, pad_edge=False)
    for column in ("kind", "from", "to", "why"):
        table.add_column(column, overflow="fold")
    for kind, hole in holes[:_HOLES_LISTED]:
        table.add_row(kind.kind.value, hole.start, hole.end, escape(hole.reason))
    if len(holes) > _HOLES_LISTED:
        table.add_row("...", "", "", f"{len(holes) - _HOLES_LISTED:,} more (--json has all)")
    return table
