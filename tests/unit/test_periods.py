"""Periods follow the clock on the wall, and together are the range."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.errors import BadRequest
from oscar_metrics.periods import Interval, periods, with_periods
from oscar_metrics.timerange import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    SLOT_NS,
    Span,
    format_instant,
    parse_instant,
    report_range,
)

MOST = 3000
# Whole hours, half hours and 45 minutes from UTC; Lord Howe moves its clocks by half an hour,
# Troll by two; Sao Paulo and Beirut change at midnight.
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Asia/Beirut",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Adelaide",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Apia",
    "Antarctica/Troll",
)


def span(start: str, stop: str) -> Span:
    return Span(parse_instant(start), parse_instant(stop))


def made(asked: Span, interval: str, tz: str | None = None) -> list[tuple[str, str, str]]:
    return [
        (p.label, format_instant(p.span.start_ns), format_instant(p.span.stop_ns))
        for p in periods(asked, interval, tz, MOST)
    ]


def test_a_month_of_days_is_clipped_at_both_ends() -> None:
    assert made(span("2026-01-30T12:00:00Z", "2026-02-01T00:00:00.000000001Z"), "day") == [
        ("2026-01-30", "2026-01-30T12:00:00Z", "2026-01-31T00:00:00Z"),
        ("2026-01-31", "2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z"),
        ("2026-02-01", "2026-02-01T00:00:00Z", "2026-02-01T00:00:00.000000001Z"),
    ]


def test_days_are_local_ones() -> None:
    asked = span("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
    assert made(asked, "day", "Asia/Kathmandu") == [
        ("2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T18:15:00Z"),
        ("2026-01-02", "2026-01-01T18:15:00Z", "2026-01-02T00:00:00Z"),
    ]
    assert [label for label, *_ in made(asked, "DAY", "America/New_York")] == [
        "2025-12-31",
        "2026-01-01",
    ]


def test_weeks_are_those_of_iso_8601() -> None:
    asked = span("2025-12-28T00:00:00Z", "2026-01-06T00:00:00Z")
    assert made(asked, "week") == [
        ("2025-W52", "2025-12-28T00:00:00Z", "2025-12-29T00:00:00Z"),
        ("2026-W01", "2025-12-29T00:00:00Z", "2026-01-05T00:00:00Z"),
        ("2026-W02", "2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"),
    ]


def test_months_begin_at_local_midnight_in_winter_and_in_summer() -> None:
    asked = span("2026-02-28T23:00:00Z", "2026-04-30T22:00:00Z")
    assert made(asked, "month", "Europe/Berlin") == [
        ("2026-03", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
        ("2026-04", "2026-03-31T22:00:00Z", "2026-04-30T22:00:00Z"),
    ]


@pytest.mark.parametrize(
    ("day", "tz", "hours"),
    [
        ("2026-03-29", "Europe/Berlin", 23),
        ("2026-10-25", "Europe/Berlin", 25),
        ("2026-04-05", "Australia/Lord_Howe", 24.5),
        ("2026-10-04", "Australia/Lord_Howe", 23.5),
        ("2018-11-04", "America/Sao_Paulo", 23),
        ("2018-02-17", "America/Sao_Paulo", 25),
        ("2026-03-29", "Antarctica/Troll", 22),
        ("2026-06-01", "Europe/Berlin", 24),
    ],
)
def test_a_day_on_which_the_clock_is_changed_is_as_long_as_it_was(
    day: str, tz: str, hours: float
) -> None:
    around = parse_instant(f"{day}T12:00:00Z")
    found = periods(Span(around - 3 * DAY_NS, around + 3 * DAY_NS), "day", tz, MOST)
    assert [p.span.length_ns / HOUR_NS for p in found if p.label == day] == [hours]


def test_a_day_that_was_left_out_has_no_period() -> None:
    asked = span("2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z")
    assert [label for label, *_ in made(asked, "day", "Pacific/Apia")] == [
        "2011-12-29",
        "2011-12-31",
        "2012-01-01",
    ]


def test_a_change_within_a_quarter_hour_counts_from_its_beginning() -> None:
    # Casey went from +8 to +11 at one minute past midnight.
    asked = span("2020-10-03T15:00:00Z", "2020-10-03T18:00:00Z")
    assert made(asked, "hour", "Antarctica/Casey") == [
        ("2020-10-03T23:00:00+08:00", "2020-10-03T15:00:00Z", "2020-10-03T16:00:00Z"),
        ("2020-10-04T03:00:00+11:00", "2020-10-03T16:00:00Z", "2020-10-03T17:00:00Z"),
        ("2020-10-04T04:00:00+11:00", "2020-10-03T17:00:00Z", "2020-10-03T18:00:00Z"),
    ]


def test_an_hour_that_the_clock_repeats_is_two() -> None:
    asked = span("2026-10-25T00:00:00Z", "2026-10-25T03:00:00Z")
    assert made(asked, "hour", "Europe/Berlin") == [
        ("2026-10-25T02:00:00+02:00", "2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z"),
        ("2026-10-25T02:00:00+01:00", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"),
        ("2026-10-25T03:00:00+01:00", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"),
    ]


def test_an_hour_whose_half_is_repeated_is_two_of_unlike_length() -> None:
    asked = span("2026-04-04T14:00:00Z", "2026-04-04T16:30:00Z")
    assert made(asked, "hour", "Australia/Lord_Howe") == [
        ("2026-04-05T01:00:00+11:00", "2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"),
        ("2026-04-05T01:00:00+10:30", "2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"),
        ("2026-04-05T02:00:00+10:30", "2026-04-04T15:30:00Z", "2026-04-04T16:30:00Z"),
    ]


def test_no_interval_is_no_series() -> None:
    asked = report_range("2026-01-01T00:00:00Z", "2026-01-31T23:59:59Z", 0)
    assert with_periods(asked, None, None, MOST) == asked
    assert len(with_periods(asked, "day", None, MOST).periods) == 31


YEAR = span("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("interval", "tz", "text", "parameter", "detail"),
    [
        ("year", None, "unsupported interval", "interval", "hour, day, week, month"),
        (None, "UTC", "tz without interval", "tz", "hour, day, week, month"),
        ("day", "Mars/Olympus", "unknown tz", "tz", "Europe/Madrid"),
        ("day", "../../etc/passwd", "unknown tz", "tz", "Europe/Madrid"),
        ("day", "/etc/localtime", "unknown tz", "tz", "Europe/Madrid"),
        ("day", "europe/madrid", "unknown tz", "tz", "Europe/Madrid"),
        ("day", "Europe", "unknown tz", "tz", "Europe/Madrid"),
        ("hour", None, "too many periods", "interval", "at least 8,760 hours"),
    ],
)
def test_what_makes_no_series_is_refused(
    interval: str | None, tz: str | None, text: str, parameter: str, detail: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        periods(YEAR, interval, tz, 8759)
    assert (caught.value.text, caught.value.parameter) == (text, parameter)
    assert detail in str(caught.value.detail)


def test_as_many_periods_as_are_allowed_are_made() -> None:
    assert len(periods(YEAR, "day", None, 365)) == 365
    with pytest.raises(BadRequest) as caught:
        periods(YEAR, "day", None, 364)
    assert "365 days, and a series at most 364" in str(caught.value.detail)
    centuries = span("1970-01-01T00:00:00Z", "2260-01-01T00:00:00Z")
    with pytest.raises(BadRequest):
        periods(centuries, "hour", None, MOST)


INSTANTS = st.integers(parse_instant("2012-01-01T00:00:00Z"), parse_instant("2040-01-01T00:00:00Z"))
# The most that still makes few periods.
LENGTHS = {
    Interval.HOUR: 5 * DAY_NS,
    Interval.DAY: 400 * DAY_NS,
    Interval.WEEK: 800 * DAY_NS,
    Interval.MONTH: 1500 * DAY_NS,
}


@settings(max_examples=300)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(Interval),
    INSTANTS,
    st.floats(0, 1),
)
def test_periods_are_the_span_and_each_lies_in_one_unit_of_the_local_calendar(
    tz: str, interval: Interval, start_ns: int, share: float
) -> None:
    asked = Span(start_ns, start_ns + 1 + int(share * LENGTHS[interval]))
    found = periods(asked, interval, tz, MOST)
    assert found[0].span.start_ns == asked.start_ns
    assert found[-1].span.stop_ns == asked.stop_ns
    for before, after in itertools.pairwise(found):
        assert before.span.stop_ns == after.span.start_ns
        assert before.label != after.label
        assert after.span.start_ns % SLOT_NS == 0
    for period in found:
        assert period.span.length_ns > 0
        for instant_ns in (period.span.start_ns, period.span.stop_ns - 1):
            assert local_name(instant_ns, interval, tz) == period.label


def local_name(instant_ns: int, interval: Interval, tz: str) -> str:
    """What people there call the unit an instant lies in, by another way."""
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=instant_ns // SECOND_NS)
    local = at.astimezone(ZoneInfo(tz))
    match interval:
        case Interval.HOUR:
            return local.replace(minute=0, second=0, microsecond=0).isoformat()
        case Interval.DAY:
            return local.date().isoformat()
        case Interval.WEEK:
            return f"{local.isocalendar().year}-W{local.isocalendar().week:02}"
        case Interval.MONTH:
            return local.date().isoformat()[:7]
