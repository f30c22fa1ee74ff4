"""What lines and labels tell of the pipeline that brought them."""

from __future__ import annotations

import pytest

from oscar_metrics.facts import LogStream
from oscar_metrics.sources.loki_answers import Entry, StreamLines
from oscar_metrics.sources.loki_samples import (
    Addresses,
    Doubles,
    addresses,
    doubles,
    not_understood,
    pods_without_country,
    silences,
)
from oscar_metrics.timerange import SLOT_NS, Span
from tests.sources.loki_streams import call


def stream(*lines: str, **labels: str) -> StreamLines:
    return StreamLines(labels, [Entry(at_ns, line) for at_ns, line in enumerate(lines)])


A, B = call("ann"), call("bob")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([stream(A, B, pod="p")], (0, 2, ())),
        ([stream(A, pod="p"), stream(B, pod="q")], (0, 2, ())),
        ([stream(A, B, pod="p"), stream(A, pod="q", job="j")], (1, 3, ("job", "pod"))),
        ([stream(A, pod=name) for name in "pqr"], (2, 3, ("pod",))),
        # Loki was sent it twice: readers count it once, whichever shard has it.
        ([stream(A, A, pod="p")], (0, 1, ())),
        ([stream(A, pod="p"), stream(A, pod="p", __stream_shard__="1")], (0, 2, ())),
        ([stream(A, pod="p"), stream(A, pod="p", country="ES")], (0, 2, ())),
        ([stream(A, pod="p"), stream(A, pod="q", country="ES")], (1, 2, ("pod",))),
        ([], (0, 0, ())),
    ],
)
def test_lines_in_several_streams(
    found: list[StreamLines], expected: tuple[int, int, tuple[str, ...]]
) -> None:
    lines, looked_at, labels = expected
    assert doubles(found) == Doubles(lines=lines, looked_at=looked_at, labels=labels)


@pytest.mark.parametrize(
    ("ip", "public", "private"),
    [
        ("79.1.1.1", 1, 0),
        ("[2a02:9000::1]:443", 1, 0),
        ("10.0.0.1", 0, 1),
        ("172.18.0.1:5555", 0, 1),
        ("fd00::1", 0, 1),
        ("127.0.0.1", 0, 1),
        ("-", 0, 0),
        ("", 0, 0),
    ],
)
def test_addresses(ip: str, public: int, private: int) -> None:
    line = A.replace("10.0.0.1", ip)
    found = [stream(line, "probe", pod="p"), stream(line, country="ES")]
    expected = Addresses(public=public, private=private)
    assert addresses(found, LogStream.EXECUTIONS) == expected


def test_lines_that_are_not_understood() -> None:
    broken = A.replace("200", "2oo")
    assert not_understood([stream(A, broken, "probe")], LogStream.EXECUTIONS) == [broken]
    hosted = '{"RequestHost":"demo.x.org","ServiceName":"ns-demo-svc-80@k","ClientHost":"79.1.1.1"}'
    assert not_understood([stream(hosted)], LogStream.EXPOSED) == [hosted]
    assert not_understood([stream(hosted)], LogStream.EXPOSED, ingress_host="x.org") == []


def test_silences() -> None:
    assert silences({2, 3, 6}, 1, 7) == [
        Span(1 * SLOT_NS, 2 * SLOT_NS),
        Span(4 * SLOT_NS, 6 * SLOT_NS),
        Span(7 * SLOT_NS, 8 * SLOT_NS),
    ]
    assert silences({1, 2}, 1, 2) == []


def test_pods_without_country() -> None:
    streams = [
        {"pod": "p", "country": "ES"},
        {"pod": "p"},
        {"pod": "q"},
        {"app": "oscar"},
    ]
    assert pods_without_country(streams) == (1, 2)
