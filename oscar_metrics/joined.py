"""Outcomes of the stretches of one range → the outcome of the range. Pure.

Some stretches are read from the ledger and some asked of a source; a report is about their
sum, and must say of it what each of them says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    SealedPart,
    Unavailable,
    doubts_and_remarks,
    settle,
)
from oscar_metrics.timerange import Span, merge, subtract

F = TypeVar("F")

# Sentences of one kind that a report repeats; hours can each have their own.
_SENTENCES_MOST = 12


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What was said of some stretches of a range; `spans` are sorted and do not overlap.

    `if_missing` is why a stretch is a gap when its outcome is Unavailable and says no more.
    """

    spans: tuple[Span, ...]
    outcome: Outcome[Any]
    if_missing: GapReason = GapReason.NOT_SEALED


def join(
    pieces: Sequence[Piece],
    add: Callable[[list[F]], F],
    holds_any: Callable[[F], bool],
    *,
    asked: Span,
    now_ns: int,
    doubts: Iterable[str] = (),
) -> Outcome[F]:
    """The outcome of the whole range, whose facts `add` makes one; `doubts` come on top.

    Where gaps leave nothing of the range, it is Unavailable unless a source was asked that
    says otherwise or `holds_any` finds something in the facts.
    """
    doubts = tuple(doubts)
    if len(pieces) == 1 and not doubts and _is_live(pieces[0].outcome):
        return pieces[0].outcome
    spoke = [piece.outcome for piece in pieces if not isinstance(piece.outcome, Unavailable)]
    if not spoke:
        notes = (note for piece in pieces for note in piece.outcome.notes)
        return Unavailable(origin=_origins(pieces), notes=tuple(_distinct([*doubts, *notes])))
    gaps = [gap for piece in pieces for gap in _missing(piece)]
    gaps += [gap for outcome in spoke if isinstance(outcome, Partial) for gap in outcome.gaps]
    said = [(piece, *doubts_and_remarks(piece.outcome)) for piece in pieces]
    future = [piece for piece in pieces if all(span.start_ns >= now_ns for span in piece.spans)]
    missing = [
        note
        for piece, _, remarks in said
        if isinstance(piece.outcome, Unavailable) and piece not in future
        for note in remarks
    ]
    in_doubt = [doubt for _, piece_doubts, _ in said for doubt in piece_doubts]
    facts = add([outcome.facts for outcome in spoke])
    outcome = settle(
        facts,
        origin=_origins(pieces),
        asked=asked,
        now_ns=now_ns,
        gaps=gaps,
        doubts=_bounded([*missing, *in_doubt, *doubts]),
        notes=_bounded(
            note
            for piece, _, remarks in said
            if not isinstance(piece.outcome, Unavailable)
            for note in remarks
        ),
        last_updated_ns=_last_updated_ns(spoke),
        anything_read=any(map(_is_live, spoke)) or holds_any(facts),
    )
    sealed = _sealed([outcome.sealed for outcome in spoke if outcome.sealed is not None])
    if isinstance(outcome, Unavailable) or sealed is None:
        return outcome
    if isinstance(outcome, Partial):
        narrowed = _measures(spoke) if not (outcome.gaps or missing or doubts) else frozenset()
        outcome = msgspec.structs.replace(outcome, measures=narrowed)
    return msgspec.structs.replace(outcome, sealed=sealed)


def _missing(piece: Piece) -> list[Gap]:
    """The gaps an Unavailable leaves: its own, and `if_missing` for what they leave over."""
    if not isinstance(piece.outcome, Unavailable):
        return []
    own = [
        Gap(span=gap.span.clip(span), reason=gap.reason)
        for gap in piece.outcome.gaps
        for span in piece.spans
    ]
    left = (left for span in piece.spans for left in subtract(span, [gap.span for gap in own]))
    return [*own, *(Gap(span=span, reason=piece.if_missing) for span in left)]


def _is_live(outcome: Outcome[Any]) -> bool:
    return isinstance(outcome, Unavailable) or outcome.sealed is None


def _measures(spoke: Iterable[Ok[Any] | Partial[Any]]) -> frozenset[Measure]:
    partial = [outcome.measures for outcome in spoke if isinstance(outcome, Partial)]
    return frozenset().union(*partial) if all(partial) else frozenset()


def _origins(pieces: Iterable[Piece]) -> str:
    return "+".join(_distinct(piece.outcome.origin for piece in pieces))


def _last_updated_ns(spoke: Iterable[Ok[Any] | Partial[Any]]) -> int | None:
    """None, which is now, where a source was just asked."""
    times = [outcome.last_updated_ns for outcome in spoke]
    return None if None in times else max(filter(None, times), default=None)


def _sealed(parts: Sequence[SealedPart]) -> SealedPart | None:
    if not parts:
        return None
    return SealedPart(
        spans=tuple(merge(span for part in parts for span in part.spans)),
        first_sealed_at_ns=min(part.first_sealed_at_ns for part in parts),
        last_sealed_at_ns=max(part.last_sealed_at_ns for part in parts),
        provisional_ns=sum(part.provisional_ns for part in parts),
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(filter(None, texts)))


def _bounded(texts: Iterable[str]) -> list[str]:
    distinct = _distinct(texts)
    if (more := len(distinct) - _SENTENCES_MOST) > 0:
        return [*distinct[:_SENTENCES_MOST], f"and {more:,} more remarks on parts of the range"]
    return distinct
