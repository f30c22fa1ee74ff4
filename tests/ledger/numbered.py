"""Slotted logs as an import takes them: calls by the numbers of their keys."""

from __future__ import annotations

from oscar_metrics.facts import CallKey, SlotPart, SlottedLog
from oscar_metrics.ledger.store import NumberedCalls


def numbered(
    parts: SlottedLog, keys: list[CallKey]
) -> tuple[list[CallKey], dict[SlotPart, NumberedCalls]]:
    """The keys, to which those met for the first time are added, and the calls."""
    number_of = {key: number for number, key in enumerate(keys)}
    calls = {}
    for part, log in parts.items():
        for key in log.tallies:
            if key not in number_of:
                number_of[key] = len(keys)
                keys.append(key)
        numbers = [number_of[key] for key in log.tallies.elements()]
        calls[part] = NumberedCalls(numbers=numbers, lines_seen=log.lines_seen)
    return keys, calls
