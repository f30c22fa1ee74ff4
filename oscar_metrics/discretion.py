"""What a caller with a scope is told of a source: that something is missing, and not of whom. Pure.

Sources say for the administrator what is the matter, and name services, pods and files. Only
what is known to name nobody is handed on; whatever else is said becomes one sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from oscar_metrics.errors import REASON_TEXT
from oscar_metrics.outcome import (
    MAY_GROW,
    Outcome,
    Partial,
    Unavailable,
    about_gaps,
    doubts_and_remarks,
)

F = TypeVar("F")

IN_DOUBT = "part of what it says is in doubt; reports of the administrator say why"
NOT_READ = "it could not be read; reports of the administrator say why"
WITHHELD = "what is in records that do not tell whose service it was is left out"
NOT_ALL_KNOWN = "which services there are is not fully known, so some may be left out"

_UPSTREAMS = ("kubernetes", "loki", "Loki", "Prometheus", "keycloak")
_SAFE = frozenset(
    {
        WITHHELD,
        NOT_ALL_KNOWN,
        MAY_GROW,
        "keycloak's users are being read for the first time",
        *REASON_TEXT.values(),
        *(f"{name} {text}" for name in _UPSTREAMS for text in REASON_TEXT.values()),
    }
)
# What follows in these is times, or words of ours.
_SAFE_BEGINNINGS = (
    "the range cuts slots that are stored whole: ",
    "CPU time was measured in different ways within the range ",
    "GPU time was measured in different ways within the range ",
    "keycloak did not hand out all users within ",
    "users are those read from keycloak ",
)


def discreet(outcome: Outcome[F]) -> Outcome[F]:
    """The outcome with notes that name nobody."""
    if isinstance(outcome, Unavailable):
        return discreetly_missing(outcome)
    gaps = outcome.gaps if isinstance(outcome, Partial) else ()
    doubts, remarks = doubts_and_remarks(outcome)
    kept = _safe(doubts)
    if len(kept) < len(doubts):
        kept = (*kept, IN_DOUBT)
    notes = (*about_gaps(gaps), *kept, *_safe(remarks))
    if isinstance(outcome, Partial):
        return msgspec.structs.replace(outcome, notes=notes or (IN_DOUBT,), doubts=kept)
    return msgspec.structs.replace(outcome, notes=notes)


def discreetly_missing(outcome: Unavailable) -> Unavailable:
    """The same of a source that says nothing."""
    _, remarks = doubts_and_remarks(outcome)
    said = (*about_gaps(outcome.gaps), *_safe(remarks))
    return msgspec.structs.replace(outcome, notes=said or (NOT_READ,))


def _safe(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(
        dict.fromkeys(note for note in notes if note in _SAFE or note.startswith(_SAFE_BEGINNINGS))
    )
