from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Kind,
    LogStream,
    Result,
    Roster,
    RosterUser,
)
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.log_lines import Unread, read_execution, read_exposed
from oscar_metrics.sources.tallying import Tallier

COUNTRIES = Countries(
    GeoIP.open(None),
    Roster(users={"ada": RosterUser(id="ada", country="Spain"), "x": RosterUser(id="x")}),
)
TAG = "[GIN-EXECUTIONS-LOGGER]"


def line(
    rest: str, *, status: str = "200", ip: str = "1.2.3.4", time: str = "2026-04-24T10:00:00Z"
) -> str:
    return f"{TAG} {time} | {status} | 1ms | {ip} | {rest}"


def tally(lines: list[str], label: str = "", stream: LogStream = LogStream.EXECUTIONS) -> CallLog:
    tallier = Tallier(stream, COUNTRIES, ingress_host="example.org")
    tallier.add(lines, country_label=label)
    return tallier.result()


def test_calls_are_counted_by_who_called_what_from_where_and_how_it_ended() -> None:
    log = tally(
        [
            line("POST    /run/a | ada"),
            line('POST     "/run/a" | ada', status="201"),
            line("POST /run/a | ada", status="500"),
            line("POST /job/a | bob | b | ns"),
            line("POST /job/a"),
            "[GIN] 2026/01/20 - 10:00:00 | 200 | 12ms | 10.0.0.1 | GET /health",
            "nothing of ours",
        ]
    )
    roster, nothing = ("ES", CountryFrom.ROSTER), ("", CountryFrom.NOTHING)
    assert log == CallLog(
        tallies=Counter(
            {
                CallKey("", "a", "ada", *roster, Kind.SYNC, Result.OK): 2,
                CallKey("", "a", "ada", *roster, Kind.SYNC, Result.SERVER_ERROR): 1,
                CallKey("ns", "b", "bob", *nothing, Kind.ASYNC, Result.OK): 1,
            }
        ),
        lines_seen=5,
        lines_understood=4,
    )


def test_a_label_beats_what_else_is_known_of_a_country() -> None:
    log = tally([line("POST /run/a | ada")], label="fr")
    assert [(key.country, key.country_from) for key in log.tallies] == [("FR", CountryFrom.LABEL)]


def test_a_label_that_says_nothing_is_no_label() -> None:
    log = tally([line("POST /run/a | ada")], label="Unknown")
    assert [(key.country, key.country_from) for key in log.tallies] == [("ES", CountryFrom.ROSTER)]


def test_a_result_can_be_taken_at_any_time() -> None:
    tallier = Tallier(LogStream.EXECUTIONS, COUNTRIES)
    totals = []
    for _ in range(3):
        tallier.add([line("POST /run/a | ada")])
        totals.append(tallier.result().tallies.total())
    assert totals == [1, 2, 3]


def test_memory_does_not_grow_with_distinct_queries_and_addresses() -> None:
    tallier = Tallier(LogStream.EXECUTIONS, COUNTRIES)
    tallier.add(line(f"POST /run/a?n={n} | ada", ip=f"1.1.{n}.1") for n in range(150_000))
    held = sum(map(len, tallier._raw.values()))
    assert held < 140_000
    assert tallier.result().tallies.total() == 150_000


rests = st.one_of(
    st.builds(
        "{} {} | {}".format,
        st.sampled_from(["POST   ", "POST", "GET", "PO", ""]),
        st.sampled_from(["/run/a", "/job/a?x", '"/run/b"', "/run/", "/health", "/ru", ""]),
        st.sampled_from(["ada", "", " ", "u | s | ns", "u | s", "a\nb", "x | y | z | w"]),
    ),
    st.text(alphabet="POST /run|\n\té", max_size=30),
)
lines = st.one_of(
    st.builds(
        line,
        rests,
        status=st.sampled_from(["200", "404", "599", "099", "2 00", "x\ny", ""]),
        ip=st.sampled_from(["1.2.3.4", "[::1]:4", "", "a | b"]),
    ),
    st.builds("[GIN] t | 200 | 1 | 2 | {}".format, rests),
    rests,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(lines, st.sampled_from(["", "es", "-"])), max_size=30), st.data())
def test_any_batches_count_as_line_by_line_does(
    labelled: list[tuple[str, str]], data: st.DataObject
) -> None:
    expected: Counter[CallKey] = Counter()
    seen = 0
    for text, label in labelled:
        call = read_execution(text)
        seen += call is not Unread.OTHER
        if not isinstance(call, Unread):
            country = COUNTRIES.decide(label, call.ip, call.user)
            key = CallKey(call.namespace, call.service, call.user, *country, call.kind, call.result)
            expected[key] += 1
    tallier = Tallier(LogStream.EXECUTIONS, COUNTRIES)
    for label in ("", "es", "-"):
        texts = [text for text, its in labelled if its == label]
        while texts:
            size = data.draw(st.integers(1, len(texts)))
            tallier.add(texts[:size], country_label=label)
            texts = texts[size:]
    log = tallier.result()
    assert log == CallLog(tallies=expected, lines_seen=seen, lines_understood=expected.total())


paths = st.sampled_from(
    ["/system/services/a/exposed/x", "/system/services/a/exposed", "/system/services/b", "/"]
)
gateway_lines = st.one_of(
    st.builds(
        '1.2.3.4 - - [23/Jan/2026:18:13:07 +0000] "GET {} HTTP" {} 17 "-" "c" 1 2 [{}] []'.format,
        paths,
        st.sampled_from(["200", "404", "", "9999"]),
        st.sampled_from(["ns-a-svc-80", "a-a-svc-80", "upstream-default-backend", ""]),
    ),
    st.builds(
        '{{"RequestPath":"{}","RequestHost":"{}","DownstreamStatus":{},"ServiceName":"{}"}}'.format,
        paths,
        st.sampled_from(["a.example.org", "example.org", "x"]),
        st.sampled_from(["200", "503", '"x"', "null", "["]),
        st.sampled_from(["ns-a-svc-80@k", "oscar-oscar-8080@k", ""]),
    ),
)


@settings(max_examples=60)
@given(st.lists(gateway_lines, max_size=30))
def test_gateway_lines_count_as_line_by_line_does(texts: list[str]) -> None:
    calls = [read_exposed(text, ingress_host="example.org") for text in texts]
    expected = Counter(
        CallKey(call.namespace, call.service, "", "", CountryFrom.NOTHING, call.kind, call.result)
        for call in calls
        if not isinstance(call, Unread)
    )
    assert tally(texts, stream=LogStream.EXPOSED) == CallLog(
        tallies=expected,
        lines_seen=sum(call is not Unread.OTHER for call in calls),
        lines_understood=expected.total(),
    )
