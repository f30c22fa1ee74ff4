"""What became of each source, as a report says it: outcomes → source statuses. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET

from oscar_metrics.callers import User, any_hidden
from oscar_metrics.facts import CountryFrom, Membership, Roster
from oscar_metrics.outcome import (
    Gap,
    GapReason,
    Measure,
    Ok,
    Outcome,
    Partial,
    SealedPart,
    Unavailable,
    coverage,
)
from oscar_metrics.privacy import NOT_PEOPLE, Privacy
from oscar_metrics.sums import CallSums
from oscar_metrics.timerange import HOUR_NS, ReportRange, Span, format_instant, subtract
from oscar_metrics.wire import LedgerPart, SourceName, SourceState, SourceStatus, WireGap

F = TypeVar("F")

NOT_SHOWN = "users of services that are not one's own are counted and not shown"

# A field of an answer, and the measure it shows where its source has several.
Field = tuple[str, Measure | None]


def fields(*names: str) -> tuple[Field, ...]:
    """Fields that depend on everything their source says."""
    return tuple((name, None) for name in names)


def state(outcome: Outcome[Any]) -> SourceState:
    """The contract's word for an outcome."""
    match outcome:
        case Ok():
            return SourceState.OK
        case Partial():
            return SourceState.PARTIAL
        case Unavailable():
            return SourceState.MISSING


def status(
    name: SourceName, outcome: Outcome[Any], affected: Sequence[Field], asked: Span, now_ns: int
) -> SourceStatus:
    """One source's line in a report; `affected` is cut to what the outcome leaves in doubt."""
    if isinstance(outcome, Unavailable):
        return SourceStatus(
            name=name,
            status=SourceState.MISSING,
            notes=sentence(outcome.notes) or "nothing could be read",
            origin=outcome.origin,
            coverage=0.0,
            gaps=(),
            affects=tuple(field for field, _ in affected),
        )
    updated_ns = now_ns if outcome.last_updated_ns is None else outcome.last_updated_ns
    gaps = outcome.gaps if isinstance(outcome, Partial) else ()
    return SourceStatus(
        name=name,
        status=state(outcome),
        last_updated=format_instant(updated_ns),
        notes=sentence(outcome.notes) or UNSET,
        origin=outcome.origin,
        coverage=coverage(asked, gaps, now_ns),
        gaps=tuple(
            WireGap(
                start=format_instant(gap.span.start_ns),
                end=format_instant(gap.span.stop_ns),
                reason=gap.reason,
            )
            for gap in gaps
        ),
        affects=_in_doubt(outcome, affected) if isinstance(outcome, Partial) else (),
        ledger=UNSET if outcome.sealed is None else _ledger(outcome.sealed, asked, now_ns),
    )


def statuses(
    asked: ReportRange,
    now_ns: int,
    outcomes: Mapping[SourceName, Outcome[Any]],
    affected: Mapping[SourceName, Sequence[Field]],
    privacy: Privacy,
) -> tuple[SourceStatus, ...]:
    """A report's lines about its sources, in their order."""
    return tuple(
        status(name, private(outcomes[name], privacy), affected[name], asked.span, now_ns)
        for name in SourceName
        if name in outcomes
    )


def private(outcome: Outcome[F], privacy: Privacy) -> Outcome[F]:
    """The outcome with notes that name users' namespaces as these are shown."""
    return msgspec.structs.replace(outcome, notes=tuple(map(privacy.text, outcome.notes)))


def sentence(notes: Iterable[str]) -> str:
    """Notes as one text, which is the type today's clients decode."""
    return "; ".join(note for note in notes if note)


def country_attribution(
    executions: Outcome[CallSums], geoip: Outcome[Any], roster: Outcome[Roster]
) -> Outcome[None]:
    """How the countries of a request log were decided, and how many could not be."""
    if isinstance(executions, Unavailable):
        return Unavailable(origin="", notes=("there is no request log to attribute",))
    decided = dict.fromkeys(CountryFrom, 0)
    for (how,), count in executions.facts.by("country_from").items():
        decided[how] += count
    unknown = decided.pop(CountryFrom.NOTHING)
    total = unknown + sum(decided.values())
    origin = "+".join(how for how, count in decided.items() if count)
    notes = [
        f"{count} of {total} by {_COUNTRY_WORDS[how]}" for how, count in decided.items() if count
    ]
    if unknown:
        notes.append(f"{unknown} of {total} have no country")
    if not unknown or isinstance(geoip, Ok):
        return Ok(facts=None, origin=origin, notes=tuple(notes), sealed=executions.sealed)
    doubts = [*notes, *geoip.notes]
    if isinstance(roster, Partial):
        doubts.append("the roster could not be read whole")
    return Partial(facts=None, origin=origin, notes=tuple(doubts), sealed=executions.sealed)


def with_users_note(roster: Outcome[Roster], users: Collection[User]) -> Outcome[Roster]:
    """The roster's outcome, saying how many users are not people, and whether some are hidden."""
    people = {user for user in users if isinstance(user, str)} - {""}
    mechanisms = sorted(people & NOT_PEOPLE)
    if mechanisms:
        shown = " shown" if any_hidden(users) else ""
        of = f"{len(mechanisms)} of {len(people)} users{shown}"
        roster = _with_note(roster, f"{of} are not people ({', '.join(mechanisms)})")
    return with_hidden_note(roster, users)


def with_hidden_note(outcome: Outcome[F], users: Iterable[User]) -> Outcome[F]:
    """The outcome, saying so where some users may not be shown."""
    return _with_note(outcome, NOT_SHOWN) if any_hidden(users) else outcome


def membership(user: str, roster: Outcome[Roster]) -> Membership:
    """The roster's word; else what the form of the user id says by the contract's rule."""
    if not isinstance(roster, Unavailable):
        entry = roster.facts.of(user)
        if entry is not None and entry.membership is not None:
            return entry.membership
    if user == "nil":
        return Membership.EXTERNAL
    if not user or user in NOT_PEOPLE:
        return Membership.UNKNOWN
    return Membership.MEMBER


_COUNTRY_WORDS = {
    CountryFrom.LABEL: "a label of the log",
    CountryFrom.GEOIP: "the caller's address",
    CountryFrom.CLAIM: "a claim of the user's log-in",
    CountryFrom.ROSTER: "the user roster",
}


def _with_note(outcome: Outcome[F], note: str) -> Outcome[F]:
    return msgspec.structs.replace(outcome, notes=(*outcome.notes, note))


def _ledger(sealed: SealedPart, asked: Span, now_ns: int) -> LedgerPart:
    # What was not read from the ledger takes away from its coverage as a gap does.
    unsealed = [
        Gap(span=span, reason=GapReason.NOT_SEALED) for span in subtract(asked, sealed.spans)
    ]
    return LedgerPart(
        coverage=coverage(asked, unsealed, now_ns),
        first_sealed_at=format_instant(sealed.first_sealed_at_ns),
        last_sealed_at=format_instant(sealed.last_sealed_at_ns),
        provisional_hours=sealed.provisional_ns / HOUR_NS,
    )


def _in_doubt(outcome: Partial[Any], affected: Sequence[Field]) -> tuple[str, ...]:
    return tuple(
        field
        for field, measure in affected
        if not outcome.measures or measure is None or measure in outcome.measures
    )
