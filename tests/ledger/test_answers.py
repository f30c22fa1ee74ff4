"""Reports over sealed and open hours: the same numbers as asking the source for everything."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from msgspec import UNSET

from oscar_metrics.admission import Admitted
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR
from oscar_metrics.errors import BadRequest, LedgerError
from oscar_metrics.facts import Inventory, LogStream, Roster, Service
from oscar_metrics.ledger.candidates import of_calls
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.ledger.seals import KIND_OF, Candidate, SealKind, Verdict
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.outcome import Gap, GapReason, Unavailable
from oscar_metrics.periods import Interval, periods
from oscar_metrics.scope import Viewer
from oscar_metrics.sources.countries import Countries, GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.log_files import LogFiles, LogFilesSettings
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import (
    DAY_NS,
    HOUR_NS,
    SECOND_NS,
    SLOT_NS,
    ReportRange,
    Span,
    format_instant,
    parse_instant,
    report_range,
)
from oscar_metrics.wire import Breakdown, GroupBy, Metric, Summary, Value
from tests.contract.serving import SaidLogs

BOTH = frozenset(LogStream)
START_NS = parse_instant("2026-02-27T00:00:00Z")
DAYS = 4
NOW_NS = START_NS + DAYS * DAY_NS
SEALED_AT_NS = NOW_NS - DAY_NS
USERS = [f"user{number}@egi.eu" for number in range(12)]
ZONES = ["UTC", "Europe/Madrid", "Asia/Kathmandu", "America/St_Johns"]
SERVICES = ["cowsay", "grayify", "yolo"]


def lines() -> Iterator[str]:
    """Calls at the edges of slots and within them, of both logs."""
    dice = random.Random(7)
    for slot in range(START_NS // SLOT_NS, NOW_NS // SLOT_NS):
        for offset_ns in (0, 1, 450 * SECOND_NS, SLOT_NS - 1):
            at = format_instant(slot * SLOT_NS + offset_ns)
            user, service = dice.choice(USERS), dice.choice(SERVICES)
            kind, status = dice.choice(("run", "job")), dice.choice((200, 200, 404, 500))
            yield (
                f"[GIN-EXECUTIONS-LOGGER] {at} | {status} | 1ms | 10.0.0.1 |"
                f" POST    /{kind}/{service} | {user}"
            )
        at = format_instant(slot * SLOT_NS + 60 * SECOND_NS)
        yield (
            f'{at} stdout F 10.0.0.7 - - [27/Feb/2026:00:01:00 +0000] "GET'
            f' /system/services/{dice.choice(SERVICES)}/exposed/ HTTP/1.1" 200 5 "-" "-" 1 0.1'
            " [oscar-svc-x-80] [] 10.0.0.9:80 5 0.1 200 abc"
        )


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> LogFiles:
    folder = tmp_path_factory.mktemp("logs")
    (folder / "all.log").write_text("".join(f"{line}\n" for line in lines()))
    return LogFiles(LogFilesSettings(pattern=str(folder / "*.log")))


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckLedger]:
    ledger = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=128, threads=2)
    yield ledger
    await ledger.aclose()


class Administrator:
    """Asks an aggregator for reports on the whole cluster."""

    def __init__(self, asked: Aggregator) -> None:
        self._asked = asked

    async def summary(self, span: ReportRange) -> Summary:
        return await self._asked.summary(await self._admitted(), span)

    async def breakdown(self, span: ReportRange, group: GroupBy) -> Breakdown:
        return await self._asked.breakdown(
            await self._admitted(),
            span,
            group,
            group_by_text=group,
            include_users=True,
            include_usage=False,
        )

    async def value(self, span: ReportRange, service: str, metric: Metric) -> Value:
        return await self._asked.value(await self._admitted(), span, service, metric)

    async def _admitted(self) -> Admitted:
        return await self._asked.admit(Viewer(caller=ADMINISTRATOR), self._asked.deadline())


def aggregator(
    logs: LogFiles | SaidLogs | None, store: LedgerStore | None, *, now_ns: int = NOW_NS
) -> Administrator:
    asked = Aggregator(
        Sources(geoip=GeoIP(None), roster=Rosters(), logs=logs),
        telemetry=Telemetry(),
        now_ns=lambda: now_ns,
        deadline_seconds=None,
        ledger=None if store is None else LedgerHolder(store, rows_max=100_000),
    )
    return Administrator(asked)


async def candidates(logs: LogFiles, span: Span) -> list[Candidate]:
    countries = Countries(GeoIP(None), Roster())
    outcomes = await logs.read_slots(span, BOTH, countries, now_ns=NOW_NS, deadline=None)
    return [c for s, outcome in outcomes.items() for c in of_calls(KIND_OF[s], outcome, span)]


def asked(start_ns: int, end_ns: int, **more: Any) -> ReportRange:
    """A range whose two ends are included."""
    made = report_range(format_instant(start_ns), format_instant(end_ns), NOW_NS)
    return msgspec.structs.replace(made, **more)


async def answers(of: Administrator, span: ReportRange) -> dict[str, Any]:
    """Everything that can be asked of a range, without where it is from."""
    said: dict[str, Any] = {"summary": (await of.summary(span)).totals}
    for group in GroupBy:
        report = await of.breakdown(span, group)
        said[group] = report.items
        said[f"{group} by period"] = report.periods
    said["periods"] = (await of.summary(span)).periods
    for metric in (Metric.REQUESTS_SYNC, Metric.REQUESTS_EXPOSED, Metric.USERS_PER_SERVICE):
        said[metric] = (await of.value(span, "cowsay", metric)).value
    return said


async def test_sealed_and_live_are_the_same_to_the_unit(logs: LogFiles, store: DuckLedger) -> None:
    live, mixed = aggregator(logs, None), aggregator(logs, store)
    dice = random.Random(11)
    everything = await candidates(logs, Span(START_NS, NOW_NS))
    # Some hours are not sealed, some only of one kind.
    chosen = [candidate for candidate in everything if dice.random() < 0.8]
    judged = await store.seal(chosen, now_ns=SEALED_AT_NS)
    assert {verdict.verdict for verdict in judged} == {Verdict.SEALED}
    while await store.roll_up(now_ns=NOW_NS):
        pass
    edges = (0, 1, -1, 7 * SECOND_NS, 450 * SECOND_NS, -SECOND_NS)
    for _ in range(6):
        slots = sorted(dice.sample(range(DAYS * 96), 2))
        first, last = (START_NS + slot * SLOT_NS + dice.choice(edges) for slot in slots)
        span = asked(max(first, START_NS), last)
        assert await answers(mixed, span) == await answers(live, span)
        interval, zone = dice.choice((Interval.HOUR, Interval.DAY)), dice.choice(ZONES)
        split = periods(span.span, interval, zone, 2000)
        series = msgspec.structs.replace(span, periods=split)
        assert await answers(mixed, series) == await answers(live, series)


async def test_a_report_says_what_came_from_the_ledger_and_when_it_was_sealed(
    logs: LogFiles, store: DuckLedger
) -> None:
    half_ns = START_NS + 2 * DAY_NS
    await store.seal(await candidates(logs, Span(START_NS, half_ns)), now_ns=SEALED_AT_NS)
    report = await aggregator(logs, store).summary(asked(START_NS, NOW_NS - SECOND_NS))
    source = next(source for source in report.sources if source.name == "request-logs")
    assert source.origin == "ledger+log-files"
    assert source.status == "ok"
    assert source.ledger is not UNSET
    assert source.ledger.coverage == 0.5
    assert source.ledger.first_sealed_at == format_instant(SEALED_AT_NS)
    assert source.ledger.provisional_hours == 0


async def test_with_its_source_gone_a_report_reads_what_is_sealed_and_names_the_rest(
    logs: LogFiles, store: DuckLedger
) -> None:
    half_ns = START_NS + 2 * DAY_NS
    await store.seal(await candidates(logs, Span(START_NS, half_ns)), now_ns=SEALED_AT_NS)
    alone = aggregator(None, store)
    whole = await alone.summary(asked(START_NS, half_ns - SECOND_NS))
    assert whole.totals.requests_count_total == 2 * 96 * 4
    assert {source.status for source in whole.sources if "logs" in source.name} == {"ok"}
    cut = await alone.summary(asked(START_NS, half_ns - 100 * SECOND_NS))
    source = next(source for source in cut.sources if source.name == "request-logs")
    assert source.status == "partial"
    assert [gap.reason for gap in source.gaps] == [GapReason.CUT]
    assert "2026-02-28T23:45:00Z to 2026-03-01T00:00:00Z" in str(source.notes)
    beyond = await alone.summary(asked(START_NS, NOW_NS - SECOND_NS))
    assert beyond.totals.requests_count_total == 2 * 96 * 4
    source = next(source for source in beyond.sources if source.name == "request-logs")
    assert [gap.reason for gap in source.gaps] == [GapReason.NOT_SEALED]
    nothing = await alone.summary(asked(half_ns, NOW_NS - SECOND_NS))
    assert nothing.totals.requests_count_total is None


async def test_what_is_not_sealed_of_a_source_that_fails_may_be_had_later(
    logs: LogFiles, store: DuckLedger
) -> None:
    half_ns = START_NS + 2 * DAY_NS
    await store.seal(await candidates(logs, Span(START_NS, half_ns)), now_ns=SEALED_AT_NS)
    out = Unavailable(origin="loki", notes=("Loki is out",))
    failing = aggregator(SaidLogs(dict.fromkeys(LogStream, out)), store)
    for last_ns in (half_ns - 100 * SECOND_NS, NOW_NS - SECOND_NS):
        report = await failing.summary(asked(START_NS, last_ns))
        source = next(source for source in report.sources if source.name == "request-logs")
        assert source.status == "partial"
        assert [gap.reason for gap in source.gaps] == [GapReason.FAILED]
        assert "Loki is out" in str(source.notes)


class Unreadable(DuckLedger):
    """Knows what is sealed, and cannot read it back: at a report's deadline, say."""

    async def call_sums(self, *_: Any, **__: Any) -> Any:
        raise LedgerError("it had not answered in time")


@pytest.mark.parametrize("sealed", [*LogStream, None])
async def test_what_the_ledger_cannot_read_back_is_asked_of_the_source(
    logs: LogFiles, tmp_path: Path, sealed: LogStream | None
) -> None:
    """Of each log alone, too: then the other's same hour is open."""
    hour = Span(START_NS, START_NS + HOUR_NS)
    kinds = {KIND_OF[stream] for stream in LogStream if sealed in (stream, None)}
    chosen = [each for each in await candidates(logs, hour) if each.kind in kinds]
    store = Unreadable.open(tmp_path / "ledger.duckdb", create=True, memory_mb=128, threads=2)
    try:
        await store.seal(chosen, now_ns=SEALED_AT_NS)
        span = asked(hour.start_ns, hour.stop_ns - SECOND_NS)
        report = await aggregator(logs, store).summary(span)
        assert report.totals == (await aggregator(logs, None).summary(span)).totals
    finally:
        await store.aclose()


async def test_an_hour_with_a_gap_is_asked_again_and_read_when_nobody_knows_better(
    logs: LogFiles, store: DuckLedger
) -> None:
    hour = Span(START_NS, START_NS + HOUR_NS)
    gap = Gap(span=Span(START_NS, START_NS + SLOT_NS), reason=GapReason.FAILED)
    poor = [
        msgspec.structs.replace(
            candidate,
            gaps=(gap,),
            calls={p: log for p, log in (candidate.calls or {}).items() if p.slot % 4},
            next_look_ns=NOW_NS + HOUR_NS,
        )
        for candidate in await candidates(logs, hour)
    ]
    await store.seal(poor, now_ns=SEALED_AT_NS)
    span = asked(hour.start_ns, hour.stop_ns - SECOND_NS)
    assert (await aggregator(logs, store).summary(span)).totals.requests_count_total == 16
    report = await aggregator(None, store).summary(span)
    assert report.totals.requests_count_total == 12
    source = next(source for source in report.sources if source.name == "request-logs")
    assert [gap.reason for gap in source.gaps] == [GapReason.FAILED]


async def test_a_source_that_says_less_than_is_sealed_does_not_hide_it(
    logs: LogFiles, store: DuckLedger, tmp_path: Path
) -> None:
    hour = Span(START_NS, START_NS + HOUR_NS)
    gap = Gap(span=Span(START_NS, START_NS + SLOT_NS), reason=GapReason.FAILED)
    poor = [
        msgspec.structs.replace(
            candidate,
            gaps=(gap,),
            calls={p: log for p, log in (candidate.calls or {}).items() if p.slot % 4},
            next_look_ns=NOW_NS + HOUR_NS,
        )
        for candidate in await candidates(logs, hour)
    ]
    await store.seal(poor, now_ns=SEALED_AT_NS)
    # All but the first quarter-hour has gone meanwhile.
    little = tmp_path / "little"
    little.mkdir()
    second = format_instant(START_NS + SLOT_NS).rstrip("Z")
    kept = [line for line in lines() if line.split(" ")[line.startswith("[")] < second]
    (little / "a.log").write_text("\n".join(kept) + "\n")
    now = LogFiles(LogFilesSettings(pattern=str(little / "*.log")))
    span = asked(hour.start_ns, hour.stop_ns - SECOND_NS)
    assert (await aggregator(now, None).summary(span)).totals.requests_count_total == 4
    report = await aggregator(now, store).summary(span)
    assert report.totals.requests_count_total == 12
    source = next(source for source in report.sources if source.name == "request-logs")
    assert (source.origin, [gap.reason for gap in source.gaps]) == ("ledger", [GapReason.FAILED])


@pytest.mark.parametrize(("hours_later", "status"), [(1, "ok"), (40, "partial")])
async def test_an_old_inventory_is_no_inventory_of_then(
    store: DuckLedger, hours_later: int, status: str
) -> None:
    for kind in (SealKind.EXECUTIONS, SealKind.EXPOSED):
        empty = Candidate(kind=kind, hour=START_NS // HOUR_NS, origin="loki", calls={})
        await store.seal([empty], now_ns=SEALED_AT_NS)
    deployed = Candidate(
        kind=SealKind.INVENTORY,
        hour=START_NS // HOUR_NS,
        origin="kubernetes",
        inventory=Inventory(services=(Service(namespace="a", name="b"),)),
    )
    await store.seal([deployed], now_ns=SEALED_AT_NS)
    as_of_ns = SEALED_AT_NS + hours_later * HOUR_NS
    span = asked(START_NS, START_NS + HOUR_NS - SECOND_NS, as_of_ns=as_of_ns)
    report = await aggregator(None, store, now_ns=as_of_ns).summary(span)
    assert report.totals.services_count_active == 1
    source = next(source for source in report.sources if source.name == "service-inventory")
    assert source.status == status
    assert (format_instant(SEALED_AT_NS) in str(source.notes)) == (status == "partial")


async def test_periods_that_cut_what_is_merged_are_missing_and_named(
    logs: LogFiles, store: DuckLedger
) -> None:
    await store.seal(await candidates(logs, Span(START_NS, NOW_NS)), now_ns=SEALED_AT_NS)
    later_ns = NOW_NS + 1000 * DAY_NS
    while await store.compact(
        now_ns=later_ns, quarters_kept_ns=10 * DAY_NS, hours_kept_ns=20 * DAY_NS
    ):
        pass
    span = asked(START_NS, NOW_NS - SECOND_NS)
    alone = aggregator(None, store, now_ns=later_ns)
    for interval, zone, known in (
        (Interval.DAY, "UTC", DAYS),
        (Interval.DAY, "Europe/Madrid", 0),
        (Interval.HOUR, "UTC", 0),
    ):
        split = periods(span.span, interval, zone, 2000)
        report = await alone.summary(msgspec.structs.replace(span, periods=split))
        assert report.periods is not UNSET
        counts = [period.totals.requests_count_total for period in report.periods]
        assert sum(count == 96 * 4 for count in counts) == known
        assert sum(count is None for count in counts) == len(counts) - known
        source = next(source for source in report.sources if source.name == "request-logs")
        assert (source.status == "ok") == bool(known)
        assert known or "2026-02-27T00:00:00Z to 2026-02-28T00:00:00Z" in str(source.notes)


async def test_as_of_is_what_was_known_then_or_names_the_first_slot_that_was_not(
    logs: LogFiles, store: DuckLedger
) -> None:
    hour = Span(START_NS, START_NS + HOUR_NS)
    whole = await candidates(logs, hour)
    early = [
        msgspec.structs.replace(
            candidate,
            calls={p: log for p, log in (candidate.calls or {}).items() if p.slot % 4 != 3},
            next_look_ns=NOW_NS,
        )
        for candidate in whole
    ]
    await store.seal(early, now_ns=SEALED_AT_NS)
    await store.seal(whole, now_ns=SEALED_AT_NS + HOUR_NS)
    mixed = aggregator(logs, store)
    end_ns = hour.stop_ns - SECOND_NS
    then = await mixed.summary(asked(START_NS, end_ns, as_of_ns=SEALED_AT_NS))
    assert then.totals.requests_count_total == 12
    now = await mixed.summary(asked(START_NS, end_ns, as_of_ns=NOW_NS))
    assert now.totals.requests_count_total == 16
    with pytest.raises(BadRequest) as refused:
        await mixed.summary(asked(START_NS, end_ns + HOUR_NS, as_of_ns=NOW_NS))
    assert "2026-02-27T01:00:00Z to 2026-02-27T01:15:00Z was not sealed" in str(
        refused.value.detail
    )
    with pytest.raises(BadRequest) as refused:
        await mixed.value(
            asked(START_NS, end_ns, as_of_ns=SEALED_AT_NS - 1), "cowsay", Metric.REQUESTS_SYNC
        )
    assert refused.value.parameter == "as_of"
    without = aggregator(logs, None)
    with pytest.raises(BadRequest, match="as_of needs the ledger"):
        await without.summary(asked(START_NS, end_ns, as_of_ns=NOW_NS))


async def test_a_user_who_was_forgotten_has_one_pseudonym_in_sealed_and_open_hours(
    logs: LogFiles, store: DuckLedger
) -> None:
    half_ns = START_NS + 2 * DAY_NS
    await store.seal(await candidates(logs, Span(START_NS, half_ns)), now_ns=SEALED_AT_NS)
    span = asked(START_NS, NOW_NS - SECOND_NS)
    mixed = aggregator(logs, store)
    before = await mixed.summary(span)
    pseudonym = await store.forget(USERS[0], now_ns=NOW_NS)
    after = await mixed.summary(span)
    assert after.totals.users_count == before.totals.users_count
    assert set(after.totals.users) == {*before.totals.users} - {USERS[0]} | {pseudonym}
    assert after.totals.requests_count_total == before.totals.requests_count_total
