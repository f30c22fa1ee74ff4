from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import CallLog, LogStream, Roster, SlotPart, SlottedLog
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.slotted_tallying import SlottedTallier, lines_of, part_of
from oscar_metrics.sources.tallying import Tallier
from oscar_metrics.sums import span_of
from oscar_metrics.timerange import SLOT_NS, parse_instant
from tests.sources.loki_streams import call

COUNTRIES = Countries(GeoIP.open(None), Roster())
T_NS = parse_instant("2026-04-24T10:15:00Z")
SLOT = T_NS // SLOT_NS


@pytest.mark.parametrize(
    ("instant_ns", "part"),
    [
        (T_NS - 1, SlotPart(SLOT - 1, first=False)),
        (T_NS, SlotPart(SLOT, first=True)),
        (T_NS + 1, SlotPart(SLOT, first=False)),
        (T_NS + SLOT_NS - 1, SlotPart(SLOT, first=False)),
        (0, SlotPart(0, first=True)),
    ],
)
def test_the_first_instant_of_a_slot_stands_apart(instant_ns: int, part: SlotPart) -> None:
    assert part_of(instant_ns) == part
    assert instant_ns in span_of(part)


LINES = st.lists(
    st.tuples(
        st.integers(-2, 2).map(lambda slot: T_NS + slot * SLOT_NS),
        st.sampled_from((-1, 0, 1, SLOT_NS // 2)),
        st.sampled_from(("ada", "bob")),
        st.sampled_from((200, 201, 404, 500, 999)),
        st.sampled_from(("", "FR")),
    ).map(lambda drawn: (drawn[0] + drawn[1], call(drawn[2], status=drawn[3]), drawn[4])),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(lines=LINES, cut=st.integers(0, 40))
def test_the_parts_are_what_each_would_be_counted_alone(
    lines: list[tuple[int, str, str]], cut: int
) -> None:
    slotted, second = (SlottedTallier(LogStream.EXECUTIONS, COUNTRIES) for _ in range(2))
    alone: dict[SlotPart, Tallier] = {}
    for number, (at_ns, line, label) in enumerate(lines):
        one = slotted if number < cut else second
        one.add(part_of(at_ns), [line], country_label=label)
        tallier = alone.setdefault(part_of(at_ns), Tallier(LogStream.EXECUTIONS, COUNTRIES))
        tallier.add([line], country_label=label)
    slotted.include(second.result())
    assert slotted.result() == {part: tallier.result() for part, tallier in alone.items()}
    assert lines_of(slotted.result()) == (
        len(lines),
        sum(status_of(line) < 600 for _, line, _ in lines),
    )


def status_of(line: str) -> int:
    return int(line.split(" | ")[1])


def test_lines_with_their_times_are_parted_by_them() -> None:
    tallier = SlottedTallier(LogStream.EXECUTIONS, COUNTRIES)
    tallier.add_timed([(T_NS, call()), (T_NS + 1, call()), (T_NS, call()), (T_NS + 2, "other")])
    assert totals(tallier.result()) == {
        SlotPart(SLOT, first=True): 2,
        SlotPart(SLOT, first=False): 1,
    }


def test_parts_without_a_recognised_line_are_absent() -> None:
    tallier = SlottedTallier(LogStream.EXECUTIONS, COUNTRIES)
    tallier.add(part_of(T_NS), ["probe"])
    tallier.add(part_of(T_NS + SLOT_NS), [call(status=999)])
    assert tallier.result() == {
        part_of(T_NS + SLOT_NS): CallLog(tallies=Counter(), lines_seen=1, lines_understood=0)
    }


def test_what_was_taken_is_not_given_again() -> None:
    tallier = SlottedTallier(LogStream.EXECUTIONS, COUNTRIES)
    tallier.add(part_of(T_NS), [call()])
    assert totals(tallier.take()) == {part_of(T_NS): 1}
    assert tallier.take() == {}
    tallier.add(part_of(T_NS), [call()])
    assert totals(tallier.take()) == {part_of(T_NS): 1}


def test_memory_does_not_grow_with_distinct_queries() -> None:
    tallier = SlottedTallier(LogStream.EXECUTIONS, COUNTRIES)
    for slot in range(400):
        lines = [call(service=f"cowsay?n={slot}-{number}") for number in range(1000)]
        tallier.add(SlotPart(slot, first=False), lines)
    held = [*tallier._talliers.values()]
    assert sum(len(raw) for one in held for raw in one._raw.values()) < 140_000
    assert sum(map(len, tallier._interpreted._known.values())) < 140_000 + 1000
    assert sum(totals(tallier.result()).values()) == 400_000


def totals(slotted: SlottedLog) -> dict[SlotPart, int]:
    return {part: log.tallies.total() for part, log in slotted.items()}
