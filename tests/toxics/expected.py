"""What may be answered while upstreams are out of sorts, and what must not. Pure.

The rules are those of the contract: who asks as the administrator always gets a report; a number is
exact, or the source that supplies it says that it is not; what a source cannot say is null, and
nothing that it does not supply is touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum

import msgspec

from tests.toxics.questions import Answer, Asked, Caller, Figure, Question, Source
from tests.toxics.toxics import Effect

_SLACK = 1e-6
_HTTP_OK, _HTTP_UNAVAILABLE = 200, 503

NO_INVENTORY, NO_ISSUER = "service inventory unavailable", "identity provider unavailable"
INVENTORY, USAGE = "service-inventory", "usage-metrics"
CALLS, EXPOSED = "request-logs", "exposed-request-logs"
COUNTRIES, ROSTER = "country-attribution", "user-roster"


class Upstream(StrEnum):
    """What our server asks, and a network may be bad before."""

    LOKI = "loki"
    PROMETHEUS = "prometheus"
    KUBERNETES = "kubernetes"
    KEYCLOAK = "keycloak"


# Of no source: answers are kept there, and without it every report is what it was.
REDIS = "redis"

# The sources whose lines in a report may be others while an upstream is out of sorts. Countries
# and users are those of calls; series are told by what is deployed.
TOUCHES: Mapping[str, frozenset[str]] = {
    Upstream.LOKI: frozenset({CALLS, EXPOSED, COUNTRIES, ROSTER}),
    Upstream.PROMETHEUS: frozenset({USAGE}),
    Upstream.KUBERNETES: frozenset({INVENTORY, USAGE}),
    Upstream.KEYCLOAK: frozenset(),
    REDIS: frozenset(),
}
# Those that have nothing of their own to say while it is out altogether. Pods' own logs stand in
# for Loki's, and services are known by the form of their names.
_SILENCED: Mapping[str, frozenset[str]] = {
    Upstream.LOKI: frozenset({CALLS, EXPOSED}),
    Upstream.PROMETHEUS: frozenset({USAGE}),
    Upstream.KUBERNETES: frozenset({INVENTORY}),
    Upstream.KEYCLOAK: frozenset(),
    REDIS: frozenset(),
}
_STANDS_IN = {CALLS: "pod-logs", EXPOSED: "pod-logs"}

_OF_CALLS = (
    "requests_count_total",
    "requests_count_sync",
    "requests_count_async",
    "countries",
    "failed_count",
)
_IN_ROWS = (*_OF_CALLS, "unique_users_count", "users")
_HOURS_OF_ROWS = ("cpu_hours", "gpu_hours")
_TOTALS_OF_CALLS = (
    *_OF_CALLS,
    "services_count_total",
    "countries_count",
    "users_count",
    "users",
    "unknown_country_count",
)
_TOTAL_HOURS = ("cpu_hours_total", "gpu_hours_total")
_BREAKDOWN = {
    CALLS: frozenset(_IN_ROWS),
    EXPOSED: frozenset({"requests_count_exposed"}),
    USAGE: frozenset(_HOURS_OF_ROWS),
}
# The fields that each source supplies: null, or an empty list, without it.
SUPPLIES: Mapping[Question, Mapping[str, frozenset[str]]] = {
    Question.VALUE_OF_CALLS: {CALLS: frozenset({"value"})},
    Question.VALUE_OF_HOURS: {USAGE: frozenset({"value"})},
    Question.SUMMARY: {
        INVENTORY: frozenset({"services_count_active"}),
        USAGE: frozenset(_TOTAL_HOURS),
        CALLS: frozenset(_TOTALS_OF_CALLS),
        EXPOSED: frozenset({"services_count_total", "requests_count_exposed"}),
    },
    Question.BREAKDOWN: _BREAKDOWN,
    Question.CSV: _BREAKDOWN,
}
# The fields that each source casts doubt on, beside those that it supplies. `items` is the list
# of rows itself.
_DOUBTS: Mapping[Question, Mapping[str, frozenset[str]]] = {
    Question.SUMMARY: {
        COUNTRIES: frozenset({"countries_count", "countries", "unknown_country_count"})
    },
    Question.BREAKDOWN: {
        INVENTORY: frozenset(_HOURS_OF_ROWS),
        CALLS: frozenset({"items"}),
        EXPOSED: frozenset({"items"}),
        COUNTRIES: frozenset({"countries"}),
    },
}
_SOURCES_OF_ROWS = (CALLS, EXPOSED, USAGE)


def faults(
    answer: Answer,
    truth: Answer,
    *,
    question: Question,
    caller: Caller,
    upstreams: Collection[str],
    effect: Effect,
    asked: Asked = Asked.AFRESH,
) -> list[str]:
    """What is wrong with an answer, of which `truth` is the one with every upstream well.

    `effect` is what is left of each of `upstreams`. The truth was kept, for those who may be
    answered with that.
    """
    may_be_kept = asked is Asked.AS_EVER
    if answer.age:
        return [*_faults_of_kept(answer, truth)] if may_be_kept else ["not made now"]
    refusals = _refusals(caller, upstreams)
    if answer.status != _HTTP_OK:
        if may_be_kept:
            refusals -= {NO_INVENTORY}
        return [*_faults_of_refusal(answer, refusals, effect)]
    if may_be_kept:
        missing = [name for name, source in answer.sources.items() if source.status == "missing"]
        if missing:
            return [f"{', '.join(missing)} missing, though what was kept has them"]
    if refusals and effect is Effect.OUT:
        return ["answered, though it cannot be known what this caller may see"]
    return [
        *_faults_of_sources(answer, truth, question, _of_any(TOUCHES, upstreams), effect),
        *_faults_of_silence(answer, _of_any(_SILENCED, upstreams), effect),
        *_faults_of_figures(answer, truth, question),
        *_faults_of_rows(answer, truth, question),
    ]


def _of_any(sources: Mapping[str, frozenset[str]], upstreams: Collection[str]) -> frozenset[str]:
    return frozenset().union(*(sources[upstream] for upstream in upstreams))


def _refusals(caller: Caller, upstreams: Collection[str]) -> frozenset[str]:
    """What a caller may be told instead of a report; nothing where they must have one."""
    refusals = set()
    if Upstream.KUBERNETES in upstreams and caller is not Caller.ADMINISTRATOR:
        refusals.add(NO_INVENTORY)
    if Upstream.KEYCLOAK in upstreams and caller is Caller.NEW_USER:
        refusals.add(NO_ISSUER)
    return frozenset(refusals)


def _faults_of_refusal(answer: Answer, refusals: frozenset[str], effect: Effect) -> Iterator[str]:
    said = f"{answer.status} {answer.error}"
    if not refusals or effect is Effect.HARMLESS:
        yield f"refused: {said}"
    elif answer.status != _HTTP_UNAVAILABLE or answer.error not in refusals:
        yield f"refused as {said}, not as {_HTTP_UNAVAILABLE} {' or '.join(sorted(refusals))}"
    if not answer.retry_after.isdecimal() or not int(answer.retry_after):
        yield f"refused without saying when to come back: {answer.retry_after!r}"


def _faults_of_kept(answer: Answer, truth: Answer) -> Iterator[str]:
    """An older answer has the numbers it had, and says of what fails now how old they are."""
    if (answer.status, answer.rows) != (_HTTP_OK, truth.rows):
        yield f"kept, and not the truth: {answer.rows}"
    if list(answer.sources) != list(truth.sources):
        yield f"other sources: {', '.join(answer.sources)}"
        return
    for name, source in answer.sources.items():
        if msgspec.structs.replace(source, notes=truth.sources[name].notes) != truth.sources[name]:
            yield f"{name} is not what it was: {source}"
    if not any("as of" in source.notes for source in answer.sources.values()):
        yield "kept, and no source says so"


def _faults_of_sources(
    answer: Answer,
    truth: Answer,
    question: Question,
    touched: frozenset[str],
    effect: Effect,
) -> Iterator[str]:
    if list(answer.sources) != list(truth.sources):
        yield f"other sources: {', '.join(answer.sources)}"
        return
    for name, source in answer.sources.items():
        if effect is Effect.HARMLESS or name not in touched:
            if source != truth.sources[name]:
                yield f"{name} is not what it was: {source}"
            continue
        if source.status not in ("ok", "partial", "missing"):
            yield f"{name} has no status: {source.status}"
        if source.coverage != {"ok": 1, "missing": 0}.get(source.status, source.coverage):
            yield f"{name} is {source.status} with coverage {source.coverage}"
        if source.status != "ok" and not source.notes:
            yield f"{name} is {source.status} and does not say why"
        if source.affects is not None:
            yield from _faults_of_flags(name, source, question)


def _faults_of_flags(name: str, source: Source, question: Question) -> Iterator[str]:
    said = frozenset(source.affects or ())
    everything = _flagged(question, name)
    if source.status == "ok":
        right = not said
    elif source.status == "partial" and name == USAGE:
        # It may be that only one of the two measures is in doubt, which one value need not show.
        right = said <= everything and (bool(said) or question is Question.VALUE_OF_HOURS)
    else:
        right = said == everything
    if not right:
        yield f"{name} is {source.status} and affects {', '.join(sorted(said)) or 'nothing'}"


def _flagged(question: Question, name: str) -> frozenset[str]:
    nothing: frozenset[str] = frozenset()
    doubted = _DOUBTS.get(question, {}).get(name, nothing)
    return SUPPLIES[question].get(name, nothing) | doubted


def _faults_of_silence(answer: Answer, silenced: frozenset[str], effect: Effect) -> Iterator[str]:
    if effect is not Effect.OUT:
        return
    for name in silenced & answer.sources.keys():
        source = answer.sources[name]
        stands_in = name in _STANDS_IN and source.origin in (None, _STANDS_IN[name])
        if source.status != "missing" and not stands_in:
            yield f"{name} is {source.status}, and nobody could be asked: {source}"


def _faults_of_figures(answer: Answer, truth: Answer, question: Question) -> Iterator[str]:
    for key, row in answer.rows.items():
        if key not in truth.rows:
            yield f"a row of nothing: {key!r}"
            continue
        if row.keys() != truth.rows[key].keys():
            yield f"other fields: {', '.join(row)}"
            continue
        for field, figure in row.items():
            if fault := _fault_of_figure(figure, truth.rows[key][field], field, answer, question):
                yield f"{key}.{field} is {figure}, truly {truth.rows[key][field]}: {fault}"


def _fault_of_figure(
    figure: Figure, true: Figure, field: str, answer: Answer, question: Question
) -> str:
    suppliers = {
        name: answer.sources[name]
        for name, fields in SUPPLIES[question].items()
        if field in fields and name in answer.sources
    }
    if any(source.status == "missing" for source in suppliers.values()):
        return "" if not _says_anything(figure) else "a number that nobody supplies"
    in_doubt = [
        source
        for name, source in answer.sources.items()
        if source.status != "ok"
        and (name in suppliers if source.affects is None else field in source.affects)
    ]
    if not in_doubt:
        return "" if _equal(figure, true) else "not the truth, and nothing says so"
    if figure is None:
        # Of usage one measure may be there, and the other not.
        half = USAGE in suppliers and suppliers[USAGE].status == "partial"
        return "" if half else "nothing, though it was counted in part"
    return "" if _within(figure, true) else "more than the truth"


def _says_anything(figure: Figure) -> bool:
    return figure is not None and (isinstance(figure, float | int) or bool(figure))


def _equal(figure: Figure, true: Figure) -> bool:
    if isinstance(figure, float | int) and isinstance(true, float | int):
        return abs(figure - true) <= _SLACK
    return figure == true


def _within(figure: Figure, true: Figure) -> bool:
    if isinstance(figure, float | int) and isinstance(true, float | int):
        return 0 <= figure <= true + _SLACK
    if isinstance(figure, Mapping):
        most = true if isinstance(true, Mapping) else {}
        return all(0 <= count <= most.get(name, -1) for name, count in figure.items())
    return isinstance(figure, frozenset) and isinstance(true, frozenset) and figure <= true


def _faults_of_rows(answer: Answer, truth: Answer, question: Question) -> Iterator[str]:
    """A row may be missing only where all that it would say is."""
    sure = {
        field
        for name, fields in SUPPLIES[question].items()
        if answer.sources.get(name) and answer.sources[name].status == "ok"
        for field in fields
    }
    for key in truth.rows.keys() - answer.rows.keys():
        lost = [field for field in sure & truth.rows[key].keys() if truth.rows[key][field]]
        if lost or sure >= truth.rows[key].keys():
            yield f"no row of {key!r}, though {', '.join(lost) or 'everything'} is known"
