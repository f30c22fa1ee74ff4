"""The judge of answers: what it lets pass, and each thing that it must not."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import msgspec
import pytest

from tests.toxics.expected import (
    CALLS,
    EXPOSED,
    INVENTORY,
    REDIS,
    SUPPLIES,
    USAGE,
    Upstream,
    faults,
)
from tests.toxics.questions import Answer, Asked, Caller, Figure, Question, Source
from tests.toxics.toxics import EACH, MORE, Effect

OK: dict[str, Any] = {"status": "ok", "coverage": 1.0, "notes": ""}
COW: dict[str, Figure] = {
    "requests_count_total": 10,
    "requests_count_sync": 6,
    "requests_count_async": 4,
    "requests_count_exposed": 3,
    "unique_users_count": 2,
    "users": frozenset({"ann", "bob"}),
    "countries": {"ES": 7, "FR": 1},
    "failed_count": 1,
    "cpu_hours": 0.5,
    "gpu_hours": 0.0,
}
# Called through the gateway alone.
WEB: dict[str, Figure] = {
    **{name: {} if name in ("users", "countries") else 0 for name in COW},
    "requests_count_exposed": 5,
}
TRUTH = Answer(
    status=200,
    seconds=0.1,
    rows={"cowsay": COW, "web": WEB},
    sources={
        INVENTORY: Source(**OK, origin="kubernetes", affects=()),
        USAGE: Source(**OK, origin="prometheus", affects=()),
        CALLS: Source(**OK, origin="loki", affects=()),
        EXPOSED: Source(**OK, origin="loki", affects=()),
    },
)
OF_CALLS = tuple(SUPPLIES[Question.BREAKDOWN][CALLS])
FLAGS = {
    INVENTORY: ("cpu_hours", "gpu_hours"),
    USAGE: ("cpu_hours", "gpu_hours"),
    CALLS: (*OF_CALLS, "items"),
    EXPOSED: ("items", "requests_count_exposed"),
}
Change = Callable[[Answer], Answer]


def judged(
    *changes: Change,
    upstreams: Collection[str] = (Upstream.LOKI,),
    effect: Effect = Effect.SOME,
    caller: Caller = Caller.ADMINISTRATOR,
    question: Question = Question.BREAKDOWN,
    asked: Asked = Asked.AFRESH,
) -> list[str]:
    answer = TRUTH
    for change in changes:
        answer = change(answer)
    return faults(
        answer,
        TRUTH,
        question=question,
        caller=caller,
        upstreams=upstreams,
        effect=effect,
        asked=asked,
    )


def source(name: str, **changes: Any) -> Change:
    def change(answer: Answer) -> Answer:
        said = msgspec.structs.replace(answer.sources[name], **changes)
        return msgspec.structs.replace(answer, sources={**answer.sources, name: said})

    return change


def missing(*names: str) -> Change:
    def change(answer: Answer) -> Answer:
        for name in names:
            said = {"status": "missing", "coverage": 0.0, "notes": "why", "affects": FLAGS[name]}
            answer = source(name, **said)(answer)
        return answer

    return change


def partial(name: str, **changes: Any) -> Change:
    said = {"status": "partial", "coverage": 0.5, "notes": "why", "affects": FLAGS[name]}
    return source(name, **said | changes)


def figures(key: str = "cowsay", /, **changes: Figure) -> Change:
    def change(answer: Answer) -> Answer:
        row = {**answer.rows.get(key, {}), **changes}
        return msgspec.structs.replace(answer, rows={**answer.rows, key: row})

    return change


def nulls(*names: str) -> Change:
    """As it is without these sources: null, or an empty list."""

    def change(answer: Answer) -> Answer:
        fields = {field for name in names for field in SUPPLIES[Question.BREAKDOWN][name]}
        for key in answer.rows:
            answer = figures(
                key, **{f: {} if f in ("users", "countries") else None for f in fields}
            )(answer)
        return answer

    return change


def without(*keys: str) -> Change:
    def change(answer: Answer) -> Answer:
        rows = {key: row for key, row in answer.rows.items() if key not in keys}
        return msgspec.structs.replace(answer, rows=rows)

    return change


def kept(answer: Answer) -> Answer:
    """The same from before, saying so of calls."""
    return source(CALLS, notes="as of then")(msgspec.structs.replace(answer, age="7"))


def refused(status: int = 503, error: str = "", retry_after: str = "10") -> Change:
    return lambda _: Answer(status=status, seconds=0.1, error=error, retry_after=retry_after)


AS_EVER = {"asked": Asked.AS_EVER}
NO_INVENTORY = "service inventory unavailable"
NO_ISSUER = "identity provider unavailable"
POD_LOGS = {"origin": "pod-logs", "notes": "read instead of loki"}
EMPTY: dict[str, Figure] = {"users": {}, "countries": {}}


@pytest.mark.parametrize(
    ("changes", "context"),
    [
        ([], {}),
        ([], {"effect": Effect.HARMLESS}),
        ([missing(CALLS, EXPOSED), nulls(CALLS, EXPOSED)], {"effect": Effect.OUT}),
        ([missing(CALLS, EXPOSED), nulls(CALLS, EXPOSED), without("web")], {}),
        ([source(CALLS, **POD_LOGS), source(EXPOSED, **POD_LOGS)], {"effect": Effect.OUT}),
        (
            [partial(CALLS), figures(requests_count_total=9, users=frozenset({"ann"}))],
            {},
        ),
        ([partial(CALLS, coverage=0.0), figures(requests_count_total=0, **EMPTY)], {}),
        ([partial(EXPOSED), figures("web", requests_count_exposed=2)], {}),
        (
            [missing(USAGE), nulls(USAGE)],
            {"upstreams": [Upstream.PROMETHEUS], "effect": Effect.OUT},
        ),
        (
            [partial(USAGE, affects=("gpu_hours",)), figures(gpu_hours=None)],
            {"upstreams": [Upstream.PROMETHEUS]},
        ),
        (
            [missing(INVENTORY), partial(USAGE), figures(cpu_hours=0.4)],
            {"upstreams": [Upstream.KUBERNETES], "effect": Effect.OUT},
        ),
        (
            [refused(error=NO_INVENTORY)],
            {"upstreams": [Upstream.KUBERNETES], "caller": Caller.KNOWN_USER, "effect": Effect.OUT},
        ),
        (
            [refused(error=NO_ISSUER)],
            {"upstreams": [Upstream.KEYCLOAK], "caller": Caller.NEW_USER},
        ),
        ([], {"upstreams": [Upstream.KEYCLOAK], "caller": Caller.KNOWN_USER, "effect": Effect.OUT}),
        ([], {"upstreams": [REDIS], "caller": Caller.NEW_USER, "effect": Effect.OUT}),
        ([kept], AS_EVER),
        ([], AS_EVER),
        ([partial(CALLS), figures(requests_count_total=9)], AS_EVER),
        (
            [refused(error=NO_ISSUER)],
            {**AS_EVER, "upstreams": [Upstream.KEYCLOAK], "caller": Caller.NEW_USER},
        ),
        (
            [missing(*FLAGS), nulls(USAGE, CALLS, EXPOSED), without("cowsay", "web")],
            {"upstreams": Upstream, "effect": Effect.OUT},
        ),
    ],
)
def test_what_is_right_passes(changes: list[Change], context: dict[str, Any]) -> None:
    assert judged(*changes, **context) == []


KUBERNETES, PROMETHEUS = {"upstreams": [Upstream.KUBERNETES]}, {"upstreams": [Upstream.PROMETHEUS]}


@pytest.mark.parametrize(
    ("changes", "context", "found"),
    [
        # Refusals.
        ([refused(500, "internal")], {}, "refused: 500"),
        ([refused(error=NO_INVENTORY)], KUBERNETES, "refused: 503"),
        (
            [refused(error=NO_ISSUER)],
            {"upstreams": [Upstream.KEYCLOAK], "caller": Caller.KNOWN_USER},
            "refused: 503",
        ),
        ([refused(error=NO_INVENTORY)], {"caller": Caller.NEW_USER}, "refused: 503"),
        (
            [refused(error=NO_INVENTORY)],
            {**KUBERNETES, "caller": Caller.NEW_USER, "effect": Effect.HARMLESS},
            "refused: 503",
        ),
        (
            [refused(502, NO_INVENTORY)],
            {**KUBERNETES, "caller": Caller.NEW_USER},
            "refused as 502",
        ),
        (
            [refused(error=NO_INVENTORY, retry_after="")],
            {**KUBERNETES, "caller": Caller.NEW_USER},
            "when to come back",
        ),
        (
            [],
            {"upstreams": [Upstream.KEYCLOAK], "caller": Caller.NEW_USER, "effect": Effect.OUT},
            "cannot be known",
        ),
        # What was kept.
        ([kept], {}, "not made now"),
        ([kept, source(CALLS, notes="")], AS_EVER, "no source says so"),
        ([kept, figures(failed_count=0)], AS_EVER, "not the truth"),
        ([kept, source(CALLS, coverage=0.5)], AS_EVER, "is not what it was"),
        ([missing(CALLS), nulls(CALLS)], AS_EVER, "missing, though"),
        (
            [refused(error=NO_INVENTORY)],
            {**AS_EVER, **KUBERNETES, "caller": Caller.KNOWN_USER},
            "refused: 503",
        ),
        # Flags.
        ([missing(USAGE), nulls(USAGE)], {}, "usage-metrics is not what it was"),
        ([partial(CALLS)], {"effect": Effect.HARMLESS}, "request-logs is not what it was"),
        ([source(CALLS, status="fine")], {}, "no status"),
        ([source(CALLS, coverage=0.5)], {}, "ok with coverage"),
        ([missing(CALLS), nulls(CALLS), source(CALLS, coverage=0.1)], {}, "missing with"),
        ([partial(CALLS, notes="")], {}, "does not say why"),
        ([partial(CALLS, affects=())], {}, "affects nothing"),
        ([partial(CALLS, affects=("users",))], {}, "affects users"),
        ([partial(USAGE, affects=("users",))], PROMETHEUS, "affects users"),
        ([source(CALLS, affects=("users",))], {}, "is ok and affects"),
        ([], {"effect": Effect.OUT}, "nobody could be asked"),
        ([partial(USAGE)], {**PROMETHEUS, "effect": Effect.OUT}, "nobody could be asked"),
        ([source(CALLS, **POD_LOGS)], {"effect": Effect.OUT}, "exposed-request-logs is ok"),
        # Figures.
        ([figures(requests_count_total=9)], {}, "not the truth"),
        ([figures(cpu_hours=0.49)], PROMETHEUS, "not the truth"),
        ([figures(cpu_hours=None)], PROMETHEUS, "not the truth"),
        ([partial(CALLS), figures(requests_count_total=11)], {}, "more than the truth"),
        ([partial(CALLS), figures(requests_count_total=-1)], {}, "more than the truth"),
        ([partial(CALLS), figures(users=frozenset({"eve"}))], {}, "more than the truth"),
        ([partial(CALLS), figures(countries={"ES": 8})], {}, "more than the truth"),
        ([partial(CALLS), figures(countries={"DE": 1})], {}, "more than the truth"),
        ([partial(CALLS), figures(requests_count_total=None)], {}, "counted in part"),
        ([partial(CALLS), figures(requests_count_exposed=2)], {}, "not the truth"),
        ([missing(CALLS), nulls(CALLS), figures(failed_count=0)], {}, "nobody supplies"),
        ([missing(CALLS), nulls(CALLS), figures(countries={"ES": 1})], {}, "nobody supplies"),
        (
            [partial(USAGE, affects=("gpu_hours",)), figures(cpu_hours=0.4)],
            PROMETHEUS,
            "not the truth",
        ),
        # Rows.
        ([without("web")], {}, "no row of 'web'"),
        ([partial(CALLS), without("web")], {}, "no row of 'web'"),
        ([missing(EXPOSED), nulls(EXPOSED), without("cowsay")], {}, "no row of 'cowsay'"),
        ([figures("eve", **COW)], {}, "a row of nothing"),
        ([figures(more=1)], {}, "other fields"),
    ],
)
def test_what_is_wrong_is_found(changes: list[Change], context: dict[str, Any], found: str) -> None:
    assert any(found in fault for fault in judged(*changes, **context))


def test_other_sources_are_found() -> None:
    def fewer(answer: Answer) -> Answer:
        return msgspec.structs.replace(answer, sources={CALLS: answer.sources[CALLS]})

    assert judged(fewer) == ["other sources: request-logs"]


def test_in_a_file_a_number_is_as_doubtful_as_its_source() -> None:
    def in_a_file(answer: Answer) -> Answer:
        sources = {
            name: msgspec.structs.replace(said, origin=None, affects=None)
            for name, said in answer.sources.items()
        }
        return msgspec.structs.replace(answer, sources=sources)

    less = [partial(CALLS), figures(failed_count=0), in_a_file]
    context: dict[str, Any] = {"question": Question.CSV, "upstreams": [Upstream.LOKI]}
    assert [f for f in judged(*less, **context) if "failed_count" in f] == []
    wrong = [partial(CALLS), figures(requests_count_exposed=2), in_a_file]
    assert any("not the truth" in fault for fault in judged(*wrong, **context))


def test_every_kind_of_toxic_is_there_and_named_once() -> None:
    kinds = {toxic.kind for toxic in EACH}
    assert kinds == {
        "", "latency", "bandwidth", "slow_close", "timeout", "reset_peer", "slicer", "limit_data",
    }  # fmt: skip
    names = [toxic.name for toxic in (*EACH, *MORE)]
    assert len(set(names)) == len(names)
