from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import CallLog, LogStream, Roster, SlotPart, SlottedLog
from oscar_metrics.ledger.numbering import Numbering
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.slotted_tallying import SlottedTallier
from tests.sources.loki_streams import call

COUNTRIES = Countries(GeoIP.open(None), Roster())
PART = SlotPart(7, first=False)

GATEWAY = (
    '1.2.3.4 - - [01/Mar/2026:10:00:00 +0000] "GET /system/services/web/exposed/ HTTP/1.1" 200'
    ' 17 "-" "c" 1 2 [oscar-svc-web-svc-80] []'
)
ODD = (
    "nothing of ours",
    "[GIN] 2026/01/20 - 10:00:00 | 200 | 12ms | 10.0.0.1 | GET /health",
    "[GIN] 2026/01/20 - 10:00:00 | 200 | 12ms | 10.0.0.1 | POST /job/a | ada",
    "[GIN-EXECUTIONS-LOGGER] 2026-01-20T1",
    call(status=999),
    call(service="a?q=" + "x" * 500),
    GATEWAY,
    GATEWAY.replace(" 200 ", " 999 "),
    GATEWAY.replace("/system/services/web", ""),
)
LINES = st.lists(
    st.one_of(
        st.sampled_from(ODD),
        st.builds(call, st.sampled_from("ab"), status=st.sampled_from((200, 201, 404))),
    ),
    max_size=12,
)


def tallied(numbering: Numbering) -> SlottedLog:
    """What was taken in, as tallies."""
    found = {}
    for part, calls in numbering.take().items():
        tallies = Counter(numbering.keys[number] for number in calls.numbers)
        found[part] = CallLog(
            tallies=tallies, lines_seen=calls.lines_seen, lines_understood=len(calls.numbers)
        )
    return found


@settings(max_examples=120, deadline=None)
@given(
    batches=st.lists(st.tuples(st.sampled_from((0, 1)), LINES), max_size=6),
    stream=st.sampled_from(LogStream),
)
def test_numbered_calls_are_what_tallying_counts(
    batches: list[tuple[int, list[str]]], stream: LogStream
) -> None:
    numbering = Numbering(stream, COUNTRIES, ingress_host="")
    tallier = SlottedTallier(stream, COUNTRIES)
    for slot, lines in batches:
        numbering.add(SlotPart(slot, first=False), lines)
        tallier.add(SlotPart(slot, first=False), lines)
    assert tallied(numbering) == tallier.result()
    assert numbering.take() == {}


def test_keys_keep_their_numbers_and_are_met_once() -> None:
    numbering = Numbering(LogStream.EXECUTIONS, COUNTRIES, ingress_host="")
    numbering.add(PART, [call("ada"), call("bob"), call("ada", status=201)])
    assert numbering.take()[PART].numbers == [0, 1, 0]
    numbering.add(PART, [call("eve"), call("ada")])
    assert numbering.take()[PART].numbers == [2, 0]
    assert [key.user for key in numbering.keys] == ["ada", "bob", "eve"]


def test_memory_does_not_grow_with_distinct_queries() -> None:
    numbering = Numbering(LogStream.EXECUTIONS, COUNTRIES, ingress_host="")
    for batch in range(3):
        numbering.add(PART, [call(service=f"a?n={batch}-{n}") for n in range(70_000)])
        assert numbering.take()[PART].lines_seen == 70_000
    assert len(numbering._tagged) < 130_000
    assert len(numbering.keys) == 1
