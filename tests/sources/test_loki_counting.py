"""One service counted is what reading every line gives, over every form a line can have."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import Kind
from oscar_metrics.outcome import Ok, Partial
from oscar_metrics.timerange import SECOND_NS, SLOT_NS
from tests.servers.loki import Loki
from tests.sources.loki_streams import Streams, call, line_by_line

SERVICES = ("a", "a-b", "b", "a.b", "A", "run", "oscar-svc", "žluť", 'q"', "x y")


def one_of(*texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from(texts)


services = one_of(*SERVICES)
users = one_of(
    *("u", "62bb@egi.eu", "nil", "oscar", "a", "", " ", "two words", "a|b", "x\ty", "x\x01y"),
    *("x\u2028y", "ünï", "[GIN]", "[GIN-EXECUTIONS-LOGGER]", "l" * 128, "l" * 129, "l" * 1001),
)
paths = st.builds(
    "{}{}{}".format,
    one_of("/run/", "/job/", "/run", "/RUN/", "/system/", "/job//"),
    services,
    one_of("", "", "", "/", "/more", "?x=1", "?x=a b", "#f", '"', " "),
)
requests = st.builds(
    "{}{}{}{}".format,
    one_of("POST    ", "POST    ", "POST ", '"POST ', "POST", "GET ", " POST "),
    one_of("", "", '"'),
    paths,
    one_of("", "", '"'),
)
tails = st.one_of(
    st.just(""),
    st.just(""),
    st.builds(" | {} | {}".format, services, one_of("oscar-svc", "", "n" * 64, "n" * 65, "n\x7f")),
    st.builds(" | {}".format, services),
    st.builds(" | {} | ns | more".format, services),
    one_of(" |", " | ", " |  | ns", " |  | "),
)
lines = st.one_of(
    st.builds(
        "{}{} {} | {} | {} | {} | {}{}{}".format,
        one_of("", "", "2024-10-10T09:34:35.919996606Z stderr F ", "x | ", "[GIN] "),
        one_of("[GIN-EXECUTIONS-LOGGER]", "[GIN-EXECUTIONS-LOGGER]", "[GIN]", "GIN"),
        one_of("2026-01-20T10:00:00Z", "2025/10/28 - 16:53:34", "", "a|b"),
        one_of("200", "200", "404", "503", " 200 ", "99", "600", "2000", "ok", ""),
        one_of("12ms", " 12.3ms", "", "1|2"),
        one_of("10.0.0.1", "::1", "[::1]:55", ""),
        requests,
        st.builds(" | {}".format, users) | one_of("", " |"),
        tails,
    ),
    st.builds("POST /run/{} was told of".format, services),
    st.text(max_size=30).map("/run/ {}".format),
)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(lines, min_size=60, max_size=60), st.randoms())
async def test_a_service_counted_is_counted_line_by_line(
    loki: Loki, given_lines: list[str], dice: random.Random
) -> None:
    streams = Streams(loki)
    start_ns = streams.slot_ns
    # In the second of four slots all is in good order.
    entries = [
        (start_ns + dice.choice((0, 2, 3)) * SLOT_NS + number * 7, line)
        for number, line in enumerate(given_lines)
    ]
    plain = [call(service=service) for service in SERVICES[:3]]
    entries += [
        (start_ns + SLOT_NS + number * SECOND_NS, line) for number, line in enumerate(plain)
    ]
    streams.write(entries)
    expected = line_by_line(line for _, line in entries if "/run/" in line or "/job/" in line)
    for service in SERVICES:
        calls: Counter[Kind] = Counter()
        callers = set()
        for key, count in expected.tallies.items():
            if key.service == service:
                calls[key.kind] += count
                callers.add(key.user)
        for users in (True, False):
            outcome = await streams.count(start_ns, start_ns + 4 * SLOT_NS, service, users=users)
            assert isinstance(outcome, Ok | Partial), outcome
            assert outcome.facts.calls == calls
            assert outcome.facts.users == (callers if users else set())
