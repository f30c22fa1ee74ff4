"""Months and days by number since 1970-01 in UTC, as the ledger's rollups are kept. Pure."""

from __future__ import annotations

from datetime import UTC, date, datetime

from oscar_metrics.timerange import SECOND_NS

_EPOCH_DAY = date(1970, 1, 1).toordinal()


def month_days(month: int) -> range:
    """The days of a month."""
    first, following = _first_day(month), _first_day(month + 1)
    return range(first.toordinal() - _EPOCH_DAY, following.toordinal() - _EPOCH_DAY)


def month_of(instant_ns: int) -> int:
    """The month an instant lies in."""
    instant = datetime.fromtimestamp(instant_ns // SECOND_NS, UTC)
    return (instant.year - 1970) * 12 + instant.month - 1


def _first_day(month: int) -> date:
    return date(1970 + month // 12, month % 12 + 1, 1)
