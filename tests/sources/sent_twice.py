"""Calls that a collector sends, and sends again."""

from __future__ import annotations

import httpx

from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS, Span
from tests.servers.loki import Loki
from tests.servers.process import wait_until
from tests.sources.loki_streams import Streams, call

PODS = ("a", "b")
# When heaps of calls lie at one nanosecond, in seconds of fifty minutes that an hour begins in;
# two pods write all of them alike. Loki takes nothing an hour older than what it has.
HEAPS_SECONDS = (*range(0, 1800, 60), *range(1800, 3000, 400))
HEAP = 9
LINES = len(HEAPS_SECONDS) * HEAP
CALLS = len(PODS) * LINES
# Enough for what Loki holds of a stream to be in several blocks.
_NOISE = [(n * 5 * SECOND_NS + 1, f"noise {n} " + "n" * 1000) for n in range(600)]


def written(start_ns: int) -> list[tuple[int, str]]:
    return [
        (start_ns + after * SECOND_NS, call(f"u{n % 4}", kind=("run", "job")[n % 2], note=f"{n}"))
        for after in HEAPS_SECONDS
        for n in range(HEAP)
    ]


class Sent:
    """Two pods' calls over two hours, as a collector sends them, and sends them again."""

    def __init__(self, loki: Loki, *, days_ago: int = 0) -> None:
        self.streams = Streams(loki, page_lines=25, instant_lines=25)
        self.hour_ns = self.streams.now_ns // HOUR_NS * HOUR_NS - days_ago * DAY_NS - HOUR_NS
        self.start_ns = self.hour_ns - HOUR_NS // 2
        self.span = Span(self.start_ns, self.start_ns + HOUR_NS)
        self.entries = written(self.start_ns)
        self.noise = [(self.start_ns + after_ns, line) for after_ns, line in _NOISE]

    def send(self, entries: list[tuple[int, str]], **labels: str) -> None:
        for pod in PODS:
            self.streams.write(entries, pod=pod, **labels)

    def calls_by_user(self) -> dict[str, int]:
        users = [line.rpartition(" | ")[2] for _, line in self.entries]
        return {user: len(PODS) * users.count(user) for user in sorted(set(users))}

    def write_out(self) -> None:
        url = f"{self.streams.loki.url}/flush"
        httpx.post(url, trust_env=False).raise_for_status()

    def be_written_out(self, least: int) -> None:
        """Make lines of days ago visible, of which Loki itself counts so many or more."""
        self.write_out()
        wait_until(lambda: self.counted_by_loki() >= least, "loki shows them", timeout_seconds=60)

    def counted_by_loki(self) -> int:
        query = f'{{namespace="{self.streams.namespace}"}} |~ "/(job|run)/"'
        return self.streams.loki.count(query, self.span.start_ns, self.span.stop_ns)


def held(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.send(sent.entries)


def in_blocks(sent: Sent) -> None:
    sent.send(sent.entries + sent.noise)
    sent.send(sent.entries + sent.noise)


def in_shards(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.send(sent.entries, __stream_shard__="0")
    sent.send(sent.entries[::2], __stream_shard__="1")


def of_another_country(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.send(sent.entries, geoip_country_code="ES")
    sent.send(sent.entries[::2], geoip_country_code="PT")


def written_out_between(sent: Sent) -> None:
    sent.send(sent.entries)
    sent.write_out()
    sent.send(sent.entries + sent.noise)
