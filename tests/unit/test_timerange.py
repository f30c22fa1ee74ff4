from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.errors import BadRequest
from oscar_metrics.timerange import (
    DAY_NS,
    SECOND_NS,
    SLOT_NS,
    Span,
    format_instant,
    inclusive_stop,
    merge,
    parse_instant,
    report_range,
    subtract,
    windows,
)

# 2026-01-01T00:00:00Z
NEW_YEAR = 1_767_225_600 * SECOND_NS
NOW = NEW_YEAR + 31 * DAY_NS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00Z", NEW_YEAR),
        ("2026-01-01T00:00:00.5Z", NEW_YEAR + SECOND_NS // 2),
        ("2026-01-01T00:00:00.000000001Z", NEW_YEAR + 1),
        ("2026-01-01T00:00:00.123456789Z", NEW_YEAR + 123_456_789),
        # A tenth digit is below what any source knows.
        ("2026-01-01T00:00:00.1234567899Z", NEW_YEAR + 123_456_789),
        ("2026-01-01T02:00:00+02:00", NEW_YEAR),
        ("2026-01-01T02:00:00 02:00", NEW_YEAR),
        ("2025-12-31T18:30:00-05:30", NEW_YEAR),
        ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND_NS),
    ],
)
def test_rfc_3339_is_read_to_the_nanosecond(text: str, expected: int) -> None:
    assert parse_instant(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-01",
        "2026-01-01T00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01t00:00:00Z",
        "2026-01-01T00:00:00z",
        "2026-01-01 00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+2:00",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "20260101T000000Z",
        "2026-01-01T00:00:00Z ",
        "1677-01-01T00:00:00Z",
        "2262-12-31T00:00:00Z",
        "２026-01-01T00:00:00Z",
        "2026-01-01T00:00:00." + "1" * 40 + "Z",
    ],
)
def test_what_is_not_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_instant(text)


@given(st.integers(0, 9_000_000_000 * SECOND_NS))
def test_an_instant_survives_being_written(instant_ns: int) -> None:
    assert parse_instant(format_instant(instant_ns)) == instant_ns


@pytest.mark.parametrize(
    ("end", "stop"),
    [
        ("2026-01-01T23:59:59Z", "2026-01-02T00:00:00Z"),
        ("2026-01-01T23:59:59.5Z", "2026-01-02T00:00:00Z"),
        ("2026-01-01T23:59:59.999999999Z", "2026-01-02T00:00:00Z"),
        ("2026-01-01T10:14:59Z", "2026-01-01T10:15:00Z"),
        ("2026-01-01T23:59:58.999999999Z", "2026-01-01T23:59:59Z"),
        ("2026-01-02T00:00:00Z", "2026-01-02T00:00:00.000000001Z"),
        ("2026-01-01T12:34:56Z", "2026-01-01T12:34:56.000000001Z"),
    ],
)
def test_an_end_in_the_last_second_of_a_quarter_hour_means_up_to_it(end: str, stop: str) -> None:
    assert format_instant(inclusive_stop(parse_instant(end))) == stop


def test_ranges_people_write_meet_without_overlap() -> None:
    first = report_range("2026-01-01T00:00:00Z", "2026-01-01T23:59:59Z", NOW)
    second = report_range("2026-01-02T00:00:00Z", "2026-01-02T23:59:59.999Z", NOW)
    assert first.span.stop_ns == second.span.start_ns


@given(st.integers(0, DAY_NS), st.integers(0, DAY_NS), st.integers(0, DAY_NS))
def test_a_range_and_the_one_a_nanosecond_later_meet(a: int, b: int, c: int) -> None:
    start, middle, end = sorted((NEW_YEAR + a, NEW_YEAR + b, NEW_YEAR + c))
    if inclusive_stop(middle) != middle + 1:
        return  # the quarter-hour rule has its own test
    first = report_range(format_instant(start), format_instant(middle), NOW)
    if middle + 1 > end:
        return
    second = report_range(format_instant(middle + 1), format_instant(end), NOW)
    assert first.span.stop_ns == second.span.start_ns


def test_defaults_are_the_last_day_in_whole_seconds() -> None:
    asked = report_range(None, " ", NOW + 5)
    assert (asked.start, asked.end) == ("2026-01-31T00:00:00Z", "2026-02-01T00:00:00Z")
    assert asked.span == Span(NOW - DAY_NS, NOW + 1)


def test_what_the_caller_wrote_is_echoed_as_written() -> None:
    asked = report_range("2026-01-01T00:00:00.500+00:00", "2026-01-01T02:00:00 01:00", NOW)
    assert asked.start == "2026-01-01T00:00:00.500+00:00"
    assert asked.end == "2026-01-01T02:00:00+01:00"


@pytest.mark.parametrize(
    ("start", "end", "text", "parameter"),
    [
        ("bad", "bad", "invalid end timestamp", "end"),
        ("bad", None, "invalid start timestamp", "start"),
        ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", "end must be after start", "end"),
        ("0001-01-01T00:00:00Z", None, "invalid start timestamp", "start"),
    ],
)
def test_a_bad_range_is_named(start: str, end: str | None, text: str, parameter: str) -> None:
    with pytest.raises(BadRequest) as caught:
        report_range(start, end, NOW)
    assert (caught.value.text, caught.value.parameter) == (text, parameter)


def test_as_of_and_restated_since_are_instants_beside_the_range() -> None:
    asked = report_range(
        None, None, NOW, as_of="2026-01-01T02:00:00 02:00", restated_since="2026-01-01T00:00:01Z"
    )
    assert (asked.as_of, asked.as_of_ns) == ("2026-01-01T02:00:00+02:00", NEW_YEAR)
    assert asked.restated_since_ns == NEW_YEAR + SECOND_NS
    blank = report_range(None, None, NOW, as_of=" ", restated_since="")
    assert (blank.as_of, blank.as_of_ns, blank.restated_since_ns) == (None, None, None)
    assert report_range(None, None, NOW, as_of=format_instant(NOW)).as_of_ns == NOW


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"as_of": "x", "restated_since": "x"}, "invalid as_of timestamp"),
        ({"as_of": format_instant(NOW + 1)}, "as_of must not be later than now"),
        ({"as_of": format_instant(NOW), "restated_since": "x"}, "invalid restated_since timestamp"),
        ({"as_of": "x", "end": "x"}, "invalid end timestamp"),
        ({"as_of": "x", "start": "x"}, "invalid start timestamp"),
    ],
)
def test_a_bad_instant_is_named_after_the_range(given: dict[str, str], text: str) -> None:
    with pytest.raises(BadRequest) as caught:
        report_range(**{"start": None, "end": None, **given}, now_ns=NOW)
    assert caught.value.text == text


def test_equal_ends_are_one_instant() -> None:
    asked = report_range("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", NOW)
    assert asked.span.length_ns == 1


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(1, 100))
def test_windows_add_up_and_break_at_multiples(start: int, length: int, width: int) -> None:
    span = Span(start, start + length)
    pieces = list(windows(span, width))
    assert sum(piece.length_ns for piece in pieces) == length
    for before, after in itertools.pairwise(pieces):
        assert before.stop_ns == after.start_ns
        assert before.stop_ns % width == 0


SPANS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda t: Span(t[0], t[0] + t[1])),
    max_size=8,
)


@given(SPANS)
def test_merge_keeps_every_instant_once(spans: list[Span]) -> None:
    merged = merge(spans)
    held = [i for span in merged for i in range(span.start_ns, span.stop_ns)]
    assert held == sorted({i for span in spans for i in range(span.start_ns, span.stop_ns)})
    assert all(a.stop_ns < b.start_ns for a, b in itertools.pairwise(merged))


@given(SPANS)
def test_subtract_leaves_what_nothing_covers(spans: list[Span]) -> None:
    whole = Span(5, 50)
    left = {i for span in subtract(whole, spans) for i in range(span.start_ns, span.stop_ns)}
    taken = {i for span in spans for i in range(span.start_ns, span.stop_ns)}
    assert left == set(range(5, 50)) - taken


def test_a_slot_is_a_quarter_of_an_hour() -> None:
    assert SLOT_NS * 96 == DAY_NS
