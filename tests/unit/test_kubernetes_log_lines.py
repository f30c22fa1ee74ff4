from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.sources.kubernetes_log_lines import KubeletLines
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span, parse_instant

T_NS = parse_instant("2026-04-24T10:00:00Z")
SPAN = Span(T_NS, T_NS + HOUR_NS)


def lines_of(*pieces: str | bytes, span: Span = SPAN, line_bytes: int = 4096) -> list[str]:
    lines = KubeletLines(span, line_bytes=line_bytes)
    found = []
    for piece in pieces:
        found += lines.feed(piece.encode() if isinstance(piece, str) else piece)
    found += lines.end()
    assert all(at_ns in span for at_ns, _ in found)
    return [text for _, text in found]


def stamped(time: str, text: str) -> str:
    return f"2026-04-24T{time} {text}\n"


def test_the_span_is_half_open_to_the_nanosecond() -> None:
    log = (
        stamped("09:59:59.999999999Z", "before")
        + stamped("10:00:00.000000000Z", "first")
        + stamped("10:59:59.999999999Z", "last")
        + stamped("11:00:00.000000000Z", "after")
    )

    assert lines_of(log) == ["first", "last"]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        # A node with a zone of its own; the same second in two zones, one after the other.
        (
            stamped("12:00:00.000000001+02:00", "here")
            + stamped("12:00:00.000000001Z", "two hours late"),
            ["here"],
        ),
        # A time with less digits than the kubelet's own form.
        (stamped("10:00:01Z", "a") + stamped("10:00:01.5Z", "b"), ["a", "b"]),
        # The same line at the same time is one, at another time it is another.
        (
            stamped("10:00:01.000000001Z", "a") * 2
            + stamped("10:00:01.000000001Z", "b")
            + stamped("10:00:01.000000001Z", "a")
            + stamped("10:00:01.000000002Z", "a"),
            ["a", "b", "a"],
        ),
        # The rest of a line that begins before the time asked from.
        ("of a long line\n" + stamped("10:00:01.000000001Z", "a"), ["a"]),
        # An empty line, an unfinished one, and bytes that are no text.
        (stamped("10:00:01.000000001Z", "") + "2026-04-24T10:00:02.000000001Z b", ["", "b"]),
        ("", []),
    ],
)
def test_lines_that_are_given(log: str, expected: list[str]) -> None:
    assert lines_of(log) == expected


def test_bytes_that_are_no_text_do_not_stop_the_reading() -> None:
    log = b"2026-04-24T10:00:01.000000001Z \xff\xfe\n2026-04-24T10:00:02.000000001Z b\n"

    assert lines_of(log) == ["\ufffd\ufffd", "b"]


def test_a_line_that_is_too_long_is_cut_and_the_next_is_whole() -> None:
    long = stamped("10:00:01.000000001Z", "x" * 10_000)
    pieces = [long[at : at + 1000] for at in range(0, len(long), 1000)]

    cut, after = lines_of(*pieces, stamped("10:00:02.000000001Z", "b"), line_bytes=2048)

    assert cut == "x" * (2048 - 31)
    assert after == "b"


def test_lines_without_a_time_are_counted_but_for_the_first() -> None:
    lines = KubeletLines(SPAN, line_bytes=4096)
    lines.feed(b"rest\n" + stamped("10:00:01.000000001Z", "a").encode() + b"rpc error\n\n")

    assert lines.odd == 2
    assert lines.first_ns == T_NS + SECOND_NS + 1


def test_reading_may_stop_only_when_nothing_of_the_span_can_follow() -> None:
    lines = KubeletLines(SPAN, line_bytes=4096)
    lines.feed(stamped("11:00:00.000000000Z", "just after").encode())
    assert not lines.past_span
    # The other output of the same container, a little behind.
    late_ns = SPAN.stop_ns - SECOND_NS // 10
    assert lines.feed(stamped("10:59:59.900000000Z", "late").encode()) == [(late_ns, "late")]
    assert lines.newest_ns == SPAN.stop_ns
    for number in range(10):
        assert not lines.past_span
        lines.feed(stamped("11:01:00.000000000Z", f"long after {number}").encode())
    assert lines.past_span


def test_one_line_ahead_of_its_time_ends_no_reading_and_vouches_for_nothing() -> None:
    lines = KubeletLines(SPAN, line_bytes=4096)
    lines.feed(stamped("23:00:00.000000000Z", "of a clock that was set").encode())
    found = lines.feed(stamped("10:00:01.000000000Z", "in the span").encode())
    for number in range(20):
        lines.feed(stamped("11:30:00.000000000Z", f"after it {number}").encode())

    assert [text for _, text in found] == ["in the span"]
    assert not lines.past_span
    assert lines.reached_ns == 0


def test_what_copies_are_looked_for_in_is_bounded_by_characters() -> None:
    lines = KubeletLines(SPAN, line_bytes=2**20)
    tracemalloc.start()
    for number in range(150):
        # Without a time, so that none goes by.
        assert lines.feed(f"{number} {'x' * 2**19}\n".encode()) == []
    held_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert held_bytes < 32 * 2**20


LOGS = st.lists(
    st.tuples(
        st.integers(-5, 5).map(lambda n: n * SECOND_NS // 2),
        st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30),
    ),
    max_size=12,
).map(
    lambda lines: "".join(
        f"2026-04-24T{(T_NS + at) // SECOND_NS // 3600 % 24:02d}:"
        f"{(T_NS + at) // SECOND_NS // 60 % 60:02d}:{(T_NS + at) // SECOND_NS % 60:02d}."
        f"{(T_NS + at) % SECOND_NS:09d}Z {text}\n"
        for at, text in lines
    ).encode()
)


@settings(max_examples=150, deadline=None)
@given(log=LOGS | st.binary(max_size=200), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_where_the_pieces_are_cut_makes_no_difference(log: bytes, cuts: list[int]) -> None:
    ends = sorted({min(cut, len(log)) for cut in cuts} | {0, len(log)})
    pieces = [log[a:b] for a, b in itertools.pairwise(ends)]

    assert lines_of(*pieces) == lines_of(log)


@settings(max_examples=150, deadline=None)
@given(log=LOGS, at_ns=st.integers(-3 * SECOND_NS, 3 * SECOND_NS))
def test_two_halves_hold_what_the_whole_holds(log: bytes, at_ns: int) -> None:
    start, cut, stop = T_NS - HOUR_NS, T_NS + at_ns, T_NS + HOUR_NS
    halves = lines_of(log, span=Span(start, cut)) + lines_of(log, span=Span(cut, stop))

    assert sorted(halves) == sorted(lines_of(log, span=Span(start, stop)))
