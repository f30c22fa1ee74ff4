from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.errors import LedgerChanged
from oscar_metrics.facts import LogStream, ServiceKey, SlotUsage, Usage
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.duckdb_compaction import compact
from oscar_metrics.ledger.duckdb_rollups import roll_up
from oscar_metrics.ledger.duckdb_schema import migrate
from oscar_metrics.ledger.duckdb_sealing import seal
from oscar_metrics.ledger.duckdb_verifying import verify
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SLOT_NS, Span
from tests.ledger.scenes import FIRST_HOUR, FIRST_NS, hour_of

_SEALED_NS = FIRST_NS + 10 * DAY_NS
_KINDS = (SealKind.EXECUTIONS, SealKind.EXPOSED, SealKind.USAGE)


class Table:
    """The ledger's tables in memory, filled and compacted without threads."""

    def __init__(self, folder: Path) -> None:
        self.cursor = duckdb.connect()
        self._rows_file = folder / "rows"
        migrate(self.cursor)

    def seal(self, *candidates: Candidate, now_ns: int = _SEALED_NS) -> None:
        self.cursor.execute("BEGIN")
        seal(self.cursor, self._rows_file, candidates, now_ns=now_ns)
        self.cursor.execute("COMMIT")

    def compact(self, *, quarters_kept_days: int = 400, hours_kept_days: int = 1000) -> list[int]:
        """Compact to the end, 500 days after the first; how many stretches were left each time."""
        left: list[int] = []
        while not left or left[-1]:
            self.cursor.execute("BEGIN")
            left.append(
                compact(
                    self.cursor,
                    now_ns=FIRST_NS + 500 * DAY_NS,
                    quarters_kept_ns=quarters_kept_days * DAY_NS,
                    hours_kept_ns=hours_kept_days * DAY_NS,
                )
            )
            self.cursor.execute("COMMIT")
        return left

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        return self.cursor.execute(question).fetchall()

    def faults(self) -> list[str]:
        return [f.says for f in verify(self.cursor, lambda *_: None) if f.level != "ok"]


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table(tmp_path)
    yield made
    made.cursor.close()


# Every call that stands, by what reports group by, and the first quarter-hour of its slot.
_CALLS = """
    SELECT seals.kind, part, service_id, user_id, country_id, country_from, calls.kind, result,
           count
    FROM calls JOIN seals ON seals.id = seal_id WHERE superseded_at_ns IS NULL
"""
_USAGE = """
    SELECT slot, service_id, cpu_core_ns, gpu_core_ns
    FROM usage JOIN seals ON seals.id = seal_id WHERE superseded_at_ns IS NULL
"""


def _longer(part: int, quarters: int) -> int:
    """The part of a slot of so many quarters that a part of a quarter-hour is in."""
    slot = part // 2 // quarters * quarters
    return 2 * slot + (part != 2 * slot)


@given(seed=st.integers(0, 10**9), quarters=st.sampled_from([4, 96]), days=st.integers(1, 2))
@settings(max_examples=12)
def test_totals_and_users_of_every_remaining_slot_are_those_of_before(
    seed: int, quarters: int, days: int
) -> None:
    dice = random.Random(seed)
    with TemporaryDirectory() as folder:
        table = Table(Path(folder))
        hours = range(FIRST_HOUR, FIRST_HOUR + 24 * days)
        table.seal(*(hour_of(k, h, random.Random(seed + h)) for k in _KINDS for h in hours))
        revised = dice.sample(hours, 5)
        table.seal(
            *(hour_of(k, h, random.Random(seed + h), more=1) for k in _KINDS[:2] for h in revised),
            now_ns=_SEALED_NS + HOUR_NS,
        )
        calls: Counter[tuple[Any, ...]] = Counter()
        users: dict[tuple[Any, ...], set[int]] = {}
        for kind, part, *key, count in table.rows(_CALLS):
            slot = (kind, _longer(part, quarters))
            calls[*slot, *key] += count
            users.setdefault(slot, set()).add(key[1])
        usage: dict[tuple[int, int], list[int | None]] = {}
        for slot, service, *values in table.rows(_USAGE):
            held = usage.setdefault((slot // quarters * quarters, service), [None, None])
            for i, value in enumerate(values):
                if value is not None:
                    held[i] = (held[i] or 0) + value
        while table.rows("SELECT count(*) FROM rollups") != [(3 * days,)]:
            roll_up(table.cursor)

        table.compact(hours_kept_days=1000 if quarters == 4 else 400)

        assert Counter({tuple(row[:-1]): row[-1] for row in table.rows(_CALLS)}) == calls
        left = table.rows(
            "SELECT seals.kind, part, count(DISTINCT user_id) FROM calls"
            " JOIN seals ON seals.id = seal_id GROUP BY ALL"
        )
        assert {(kind, part): count for kind, part, count in left} == {
            slot: len(seen) for slot, seen in users.items()
        }
        assert {(row[0], row[1]): list(row[2:]) for row in table.rows(_USAGE)} == usage
        assert table.rows("SELECT DISTINCT quarters FROM seals") == [(quarters,)]
        assert table.faults() == []
        table.cursor.close()


def test_one_call_merges_one_day_of_one_kind_oldest_first(table: Table) -> None:
    for day in range(2):
        for kind in _KINDS:
            hour = FIRST_HOUR + 24 * day + 5
            table.seal(hour_of(kind, hour, random.Random(day)))
    assert table.compact() == [5, 4, 3, 2, 1, 0]
    assert table.compact() == [0]


@pytest.mark.parametrize(("kept_days", "merged"), [(498, 4), (499, 4), (500, 1)])
def test_a_day_is_merged_when_all_of_it_is_older_than_is_kept(
    table: Table, kept_days: int, merged: int
) -> None:
    table.seal(hour_of(SealKind.EXECUTIONS, FIRST_HOUR, random.Random(1)))
    table.compact(quarters_kept_days=kept_days)
    assert table.rows("SELECT quarters FROM seals") == [(merged,)]


def test_only_the_newest_revision_is_left_and_keeps_its_number_and_time(table: Table) -> None:
    for revision in range(3):
        table.seal(
            hour_of(SealKind.EXECUTIONS, FIRST_HOUR, random.Random(1), more=revision),
            now_ns=_SEALED_NS + revision,
        )
    table.compact()
    assert table.rows("SELECT revision, sealed_at_ns, superseded_at_ns FROM seals") == [
        (3, _SEALED_NS + 2, None)
    ]
    assert table.faults() == []


def test_a_day_is_sealed_when_the_last_of_its_hours_was(table: Table) -> None:
    for hour in range(24):
        table.seal(
            hour_of(SealKind.USAGE, FIRST_HOUR + hour, random.Random(hour)),
            now_ns=_SEALED_NS + hour % 7,
        )
    table.compact(hours_kept_days=400)
    assert table.rows("SELECT hours, quarters, sealed_at_ns FROM seals") == [
        (24, 96, _SEALED_NS + 6)
    ]


def test_what_is_merged_is_final(table: Table) -> None:
    candidate = hour_of(SealKind.EXECUTIONS, FIRST_HOUR, random.Random(1))
    candidate = Candidate(
        kind=candidate.kind,
        hour=candidate.hour,
        origin="loki",
        calls=candidate.calls,
        next_look_ns=_SEALED_NS + DAY_NS,
    )
    table.seal(candidate)
    table.compact()
    assert table.rows("SELECT next_look_ns FROM seals") == [(None,)]


def test_a_day_that_is_not_sealed_whole_stays_in_hours(table: Table) -> None:
    for hour in range(23):
        table.seal(hour_of(SealKind.EXECUTIONS, FIRST_HOUR + hour, random.Random(hour)))
    assert table.compact(hours_kept_days=400) == [0]
    assert table.rows("SELECT hours, quarters, count(*) FROM seals GROUP BY ALL") == [(1, 4, 23)]
    table.seal(hour_of(SealKind.EXECUTIONS, FIRST_HOUR + 23, random.Random(23)))
    assert table.compact(hours_kept_days=400) == [0]
    assert table.rows("SELECT hours, quarters, count(*) FROM seals GROUP BY ALL") == [(24, 96, 1)]
    assert table.faults() == []


def test_a_day_says_all_that_its_hours_said(table: Table) -> None:
    for hour in range(24):
        start_ns = (FIRST_HOUR + hour) * HOUR_NS
        table.seal(
            Candidate(
                kind=SealKind.EXECUTIONS,
                hour=FIRST_HOUR + hour,
                origin="loki" if hour % 2 else "log-files",
                doubts=("a stream was renamed",) if hour == 3 else (),
                notes=("new file",) if hour > 20 else (),
                # The gaps of the first two hours touch; the last are of every other reason.
                gaps=tuple(
                    Gap(span=Span(start_ns + a, start_ns + b), reason=reason)
                    for a, b, reason in (
                        {
                            0: [(HOUR_NS - 5, HOUR_NS, GapReason.FAILED)],
                            1: [(0, SLOT_NS, GapReason.FAILED)],
                            23: [
                                (
                                    100 * i,
                                    100 * i + 50,
                                    GapReason.ROTATED if i % 2 else GapReason.FAILED,
                                )
                                for i in range(150)
                            ],
                        }.get(hour, [])
                    )
                ),
                calls=hour_of(SealKind.EXECUTIONS, FIRST_HOUR + hour, random.Random(hour)).calls,
            )
        )
    seen = table.rows("SELECT sum(lines_seen), sum(lines_understood), sum(missing_ns) FROM seals")
    table.compact(hours_kept_days=400)
    assert table.rows("SELECT lines_seen, lines_understood, missing_ns FROM seals") == seen
    assert table.rows("SELECT origin, doubts, notes FROM seals") == [
        ("log-files+loki", '["a stream was renamed"]', '["new file"]')
    ]
    assert table.rows("SELECT json_array_length(gaps) FROM seals") == [(151,)]
    assert table.faults() == []


def test_inventories_are_left_alone(table: Table) -> None:
    for hour in range(24):
        table.seal(hour_of(SealKind.INVENTORY, FIRST_HOUR + hour, random.Random(1)))
    assert table.compact(hours_kept_days=400) == [0]
    assert table.rows("SELECT count(*) FROM seals") == [(24,)]


def test_a_merged_hour_that_is_revised_is_merged_again(table: Table) -> None:
    table.seal(hour_of(SealKind.EXECUTIONS, FIRST_HOUR, random.Random(1)))
    table.compact()
    table.seal(
        hour_of(SealKind.EXECUTIONS, FIRST_HOUR, random.Random(1), more=1), now_ns=_SEALED_NS + 1
    )
    assert table.rows("SELECT revision, quarters FROM seals ORDER BY ALL") == [(1, 4), (2, 1)]
    assert table.faults() == []
    table.compact()
    assert table.rows("SELECT revision, quarters FROM seals") == [(2, 4)]
    assert table.faults() == []


def test_what_nothing_measured_stays_unmeasured(table: Table) -> None:
    cowsay = ServiceKey("oscar-svc", "cowsay")
    table.seal(
        Candidate(
            kind=SealKind.USAGE,
            hour=FIRST_HOUR,
            origin="prometheus",
            usage=tuple(
                SlotUsage(
                    slot=FIRST_HOUR * 4 + quarter,
                    quarters=1,
                    usage=Usage(
                        cpu_seconds={cowsay: 2.5} if quarter else None,
                        gpu_seconds=None,
                    ),
                )
                for quarter in range(4)
            ),
        )
    )
    table.compact()
    assert table.rows("SELECT cpu_core_ns, gpu_core_ns FROM usage ORDER BY service_id") == [
        (0, None),
        (7_500_000_000, None),
    ]


async def test_reports_read_the_same_of_whole_slots_and_as_of_before_nothing(
    tmp_path: Path,
) -> None:
    ledger = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=128, threads=1)
    hours = range(FIRST_HOUR, FIRST_HOUR + 24)
    await ledger.seal([hour_of(k, h, random.Random(h)) for k in _KINDS for h in hours], now_ns=5)
    late = [hour_of(_KINDS[0], h, random.Random(h), more=1) for h in hours]
    await ledger.seal(late, now_ns=_SEALED_NS)
    whole, grouping = Span(FIRST_NS, FIRST_NS + DAY_NS), ("user", "country")

    async def read() -> tuple[Any, ...]:
        sums = await ledger.call_sums(
            LogStream.EXECUTIONS, [whole], [grouping], rows_max=1000, as_of_ns=_SEALED_NS
        )
        usage = await ledger.usage_sums([whole])
        return sums, usage[0].gpu_seconds, {k: round(v, 6) for k, v in _cpu(usage[0]).items()}

    before = await read()
    assert (await ledger.sealed(_KINDS[0], whole, as_of_ns=5)).stretches
    for kept_days, quarters in ((1000, 4), (400, 96)):
        left = 1
        while left:
            left = await ledger.compact(
                now_ns=FIRST_NS + 500 * DAY_NS,
                quarters_kept_ns=400 * DAY_NS,
                hours_kept_ns=kept_days * DAY_NS,
            )
        assert await read() == before
        stretches = (await ledger.sealed(_KINDS[0], whole)).stretches
        assert [(s.span, s.quarters, s.final) for s in stretches] == [(whole, quarters, True)]
        # Known then, and dropped since: refused by whoever asks.
        assert (await ledger.sealed(_KINDS[0], whole, as_of_ns=5)).stretches == ()
        # What was planned before the merging is not read as if nothing had happened.
        cut = Span(FIRST_NS, FIRST_NS + SLOT_NS)
        by_slot = [FIRST_NS, FIRST_NS + SLOT_NS, whole.stop_ns]
        for span, bounds_ns, as_of_ns in ((cut, [], None), (whole, by_slot, None), (whole, [], 5)):
            with pytest.raises(LedgerChanged):
                await ledger.call_sums(
                    LogStream.EXECUTIONS,
                    [span],
                    [("period", *grouping) if bounds_ns else grouping],
                    bounds_ns=bounds_ns,
                    rows_max=1000,
                    as_of_ns=as_of_ns,
                )
        with pytest.raises(LedgerChanged):
            await ledger.usage_sums([cut])
    await ledger.aclose()


def _cpu(usage: Usage) -> dict[ServiceKey, float]:
    return usage.cpu_seconds or {}
