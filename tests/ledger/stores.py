"""The engines that may keep a ledger, and candidates to seal in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    LogStream,
    NamespaceOwner,
    Result,
    Service,
    ServiceKey,
    SlotPart,
    SlottedLog,
    SlotUsage,
    Usage,
)
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.ledger.store import LedgerStore
from oscar_metrics.timerange import HOUR_NS, Span, parse_instant

Opened = Callable[[Path], LedgerStore]

# Every engine answers to the same suite; a new one is a line here.
ENGINES: dict[str, Opened] = {
    "duckdb": lambda folder: DuckLedger.open(
        folder / "ledger.duckdb", create=True, memory_mb=64, threads=1
    )
}

FIRST_NS = parse_instant("2026-01-31T00:00:00Z")
FIRST = FIRST_NS // HOUR_NS
# Long after everything that is sealed here.
NOW_NS = parse_instant("2026-06-01T00:00:00Z")
ROWS_MAX = 1000


def key(
    service: str = "cowsay",
    user: str = "ana",
    *,
    namespace: str = "oscar-svc",
    country: str = "ES",
    kind: Kind = Kind.SYNC,
    result: Result = Result.OK,
) -> CallKey:
    return CallKey(namespace, service, user, country, CountryFrom.GEOIP, kind, result)


def slotted(counts: Mapping[tuple[SlotPart, CallKey], int], *, unread: int = 0) -> SlottedLog:
    """Calls by parts of slots; `unread` lines of each part were not understood."""
    tallies: dict[SlotPart, Counter[CallKey]] = {}
    for (part, call), count in counts.items():
        tallies.setdefault(part, Counter())[call] += count
    return {
        part: CallLog(
            tallies=counted,
            lines_seen=counted.total() + unread,
            lines_understood=counted.total(),
        )
        for part, counted in tallies.items()
    }


def hour_of_calls(hour: int, count: int = 3, **fields: str) -> SlottedLog:
    """An hour with calls of one key in its second slot."""
    return slotted({(SlotPart(hour * 4 + 1, first=False), key(**fields)): count})  # type: ignore[arg-type]


def executions(hour: int, calls: SlottedLog | None = None, **fields: object) -> Candidate:
    calls = hour_of_calls(hour) if calls is None else calls
    return Candidate(
        kind=SealKind.EXECUTIONS,
        hour=hour,
        **{"origin": "loki", "calls": calls, **fields},  # type: ignore[arg-type]
    )


def used(
    hour: int,
    cpu: Iterable[Mapping[str, float] | None],
    gpu: Mapping[str, float] | None = None,
    **fields: object,
) -> Candidate:
    """An hour of usage, by slot and by service; of four slots or of one that is an hour."""
    slots = list(cpu)
    quarters = 4 // len(slots)
    return Candidate(
        kind=SealKind.USAGE,
        hour=hour,
        usage=tuple(
            SlotUsage(
                slot=hour * 4 + quarters * number,
                quarters=quarters,
                usage=Usage(cpu_seconds=_by_key(seconds), gpu_seconds=_by_key(gpu)),
            )
            for number, seconds in enumerate(slots)
        ),
        **{"origin": "prometheus", "method": "cpu-estimate", **fields},  # type: ignore[arg-type]
    )


def deployed(hour: int, services: dict[str, str], **owners: str) -> Candidate:
    """An inventory of services and the owner of each, and of namespaces and theirs."""
    listed = (Service(namespace="oscar-svc", name=n, owner=o) for n, o in services.items())
    spaces = (NamespaceOwner(namespace=n, owner=o) for n, o in owners.items())
    return Candidate(
        kind=SealKind.INVENTORY,
        hour=hour,
        origin="kubernetes",
        inventory=Inventory(services=tuple(listed), owners=tuple(spaces)),
    )


def hours(first: int, count: int = 1) -> Span:
    return Span(first * HOUR_NS, (first + count) * HOUR_NS)


async def total(store: LedgerStore, span: Span, **how: object) -> int:
    """The calls of a span."""
    sums = await store.call_sums(
        LogStream.EXECUTIONS,
        [span],
        [()],
        rows_max=ROWS_MAX,
        **how,  # type: ignore[arg-type]
    )
    return sums.groups[()].total()


async def roll_up_all(store: LedgerStore) -> int:
    """Roll up whatever is due; how many days and months that were."""
    made = 0
    while True:
        before = await store.roll_up(now_ns=NOW_NS)
        made += 1
        if not before:
            return made


def _by_key(seconds: Mapping[str, float] | None) -> dict[ServiceKey, float] | None:
    if seconds is None:
        return None
    return {ServiceKey("oscar-svc", service): value for service, value in seconds.items()}
