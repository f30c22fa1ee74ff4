"""What tests of the ledger seal: hours of calls, usage and inventories, made by dice."""

from __future__ import annotations

import random
from collections import Counter

from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    NamespaceOwner,
    Result,
    Service,
    ServiceKey,
    SlotPart,
    SlottedLog,
    SlotUsage,
    Tallies,
    Usage,
)
from oscar_metrics.ledger.seals import Candidate, SealKind
from oscar_metrics.outcome import Gap, GapReason
from oscar_metrics.timerange import HOUR_NS, SLOT_NS, Span

# 2025-01-01T00:00:00Z, the first hour of scenes.
FIRST_HOUR = 482_136
FIRST_NS = FIRST_HOUR * HOUR_NS
USERS = ("alice@example.org", "bob@example.org", "carol", "nil", "")
SERVICES = (("oscar-svc", "cowsay"), ("oscar-svc-bob", "demo"), ("", "cowsay"))


def hour_of(
    kind: SealKind, hour: int, dice: random.Random, *, more: int = 0, gap: bool = False
) -> Candidate:
    """One candidate; `more` calls of each key than another of the same dice."""
    span = Span(hour * HOUR_NS, (hour + 1) * HOUR_NS)
    gaps: tuple[Gap, ...] = ()
    if gap:
        start_ns = span.start_ns + dice.randrange(3) * SLOT_NS + 7
        gaps = (Gap(span=Span(start_ns, start_ns + SLOT_NS), reason=GapReason.FAILED),)
    match kind:
        case SealKind.USAGE:
            return Candidate(
                kind=kind,
                hour=hour,
                origin="prometheus",
                method="cpu-increase",
                gaps=gaps,
                usage=_usage(hour, dice),
            )
        case SealKind.INVENTORY:
            return Candidate(kind=kind, hour=hour, origin="kubernetes", inventory=inventory())
        case SealKind.EXECUTIONS | SealKind.EXPOSED:
            return Candidate(
                kind=kind,
                hour=hour,
                origin="loki",
                gaps=gaps,
                calls=calls(hour, dice, exposed=kind is SealKind.EXPOSED, more=more),
            )


def calls(hour: int, dice: random.Random, *, exposed: bool = False, more: int = 0) -> SlottedLog:
    """The calls of an hour: some in every quarter, now and then one on its first instant."""
    logs: SlottedLog = {}
    for slot in range(hour * 4, hour * 4 + 4):
        for first in (True, False):
            tallies: Tallies = Counter()
            for _ in range(dice.randrange(2) if first else dice.randrange(1, 6)):
                tallies[call_key(dice, exposed=exposed)] += dice.randrange(1, 9) + more
            if tallies:
                lines = tallies.total()
                logs[SlotPart(slot, first)] = CallLog(
                    tallies=tallies, lines_seen=lines + 1, lines_understood=lines
                )
    return logs


def call_key(dice: random.Random, *, exposed: bool = False) -> CallKey:
    """One way a service was called."""
    namespace, service = dice.choice(SERVICES)
    country = dice.choice(("ES", "FR", ""))
    return CallKey(
        namespace=namespace,
        service=service,
        user="" if exposed else dice.choice(USERS),
        country=country,
        country_from=CountryFrom.LABEL if country else CountryFrom.NOTHING,
        kind=Kind.EXPOSED if exposed else dice.choice((Kind.SYNC, Kind.ASYNC)),
        result=dice.choice(tuple(Result)),
    )


def inventory(owner: str = "alice@example.org", owner_name: str = "Alice Liddell") -> Inventory:
    """Two services of two owners, one of whom may also call the other's."""
    return Inventory(
        services=(
            Service(namespace="oscar-svc", name="cowsay", owner=owner, owner_name=owner_name),
            Service(
                namespace="oscar-svc-bob",
                name="demo",
                owner="bob@example.org",
                visibility="restricted",
                allowed_users=(owner, "carol"),
            ),
        ),
        owners=(
            NamespaceOwner(namespace="oscar-svc", owner=owner),
            NamespaceOwner(namespace="oscar-svc-bob", owner="bob@example.org"),
        ),
    )


def _usage(hour: int, dice: random.Random) -> tuple[SlotUsage, ...]:
    return tuple(
        SlotUsage(
            slot=slot,
            quarters=1,
            usage=Usage(
                cpu_seconds={
                    ServiceKey(*service): dice.randrange(10**12) / 1e9 for service in SERVICES
                },
                gpu_seconds={ServiceKey(*SERVICES[0]): 1.5} if dice.random() < 0.5 else None,
            ),
        )
        for slot in range(hour * 4, hour * 4 + 4)
    )
