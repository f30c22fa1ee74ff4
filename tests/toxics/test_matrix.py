"""Every toxic before every upstream, whatever is asked: true numbers or flags, in time, and back.

Every other request says `no-cache`; of the rest what was kept may stand in, and say so.

In CI the pairs of (upstream, toxic, question, caller, asked); with OSCAR_TOXICS=full (`make soak`)
all of their combinations, and toxics that bite earlier, later or in the middle.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Collection, Iterator
from itertools import product
from typing import Any

import pytest

from oscar_metrics.facts import CallKey, Kind, LogStream, Result
from tests.servers.process import wait_until
from tests.toxics.conftest import Truths
from tests.toxics.expected import REDIS, Upstream, faults
from tests.toxics.pairs import all_pairs
from tests.toxics.questions import SERVICE, Answer, Asked, Caller, Question
from tests.toxics.stack import CORES, DEADLINE_SECONDS, NAMESPACE, OWNED, SERVICES, Stack
from tests.toxics.toxics import EACH, MORE, Toxic

FULL = os.environ.get("OSCAR_TOXICS", "") == "full"
RECOVERY_SECONDS = 15.0
_COLUMNS = ("upstream", "toxic", "question", "caller", "asked")
_EVERYTHING = Question.SUMMARY, Caller.ADMINISTRATOR


def cases() -> Iterator[Any]:
    """Upstream, toxic, question, caller and way of asking of each case."""
    columns: dict[str, Any] = {
        "toxic": EACH,
        "upstream": (*Upstream, REDIS),
        "question": tuple(Question),
        "caller": tuple(Caller),
        "asked": tuple(Asked),
    }
    if FULL:
        columns["toxic"] = (*EACH, *MORE)
        rows = [dict(zip(columns, values, strict=True)) for values in product(*columns.values())]
    else:
        rows = all_pairs(columns)
    for row in sorted(rows, key=lambda row: (row["upstream"], row["toxic"].name)):
        upstream, toxic, *rest = (row[name] for name in _COLUMNS)
        yield pytest.param(upstream, toxic, *rest, id="-".join((upstream, toxic.name, *rest)))


@pytest.mark.parametrize(_COLUMNS, [*cases()])
def test_what_an_upstream_does_not_say_is_said_to_be_missing(
    stack: Stack,
    truths: Truths,
    upstream: str,
    toxic: Toxic,
    question: Question,
    caller: Caller,
    asked: Asked,
) -> None:
    judge(stack, truths, [upstream], toxic, question, caller, asked)


@pytest.mark.parametrize("asked", Asked)
@pytest.mark.parametrize("caller", Caller)
@pytest.mark.parametrize("toxic", [toxic for toxic in EACH if toxic.name in ("latency", "down")])
def test_without_any_upstream_it_is_said_that_nothing_is_known(
    stack: Stack, truths: Truths, toxic: Toxic, caller: Caller, asked: Asked
) -> None:
    judge(stack, truths, [*Upstream, REDIS], toxic, Question.SUMMARY, caller, asked)


def judge(
    stack: Stack,
    truths: Truths,
    upstreams: Collection[str],
    toxic: Toxic,
    question: Question,
    caller: Caller,
    asked: Asked,
) -> None:
    """Ask while these upstreams are behind a toxic, and again when they no longer are."""
    truth = truths[question, caller]
    token = "" if caller is Caller.ADMINISTRATOR else stack.token()
    if caller is Caller.KNOWN_USER:
        stack.ask(Question.VALUE_OF_CALLS, caller, token)
    process = stack.server.pid
    with contextlib.ExitStack() as poisoned:
        for upstream in upstreams:
            poisoned.enter_context(toxic.on(stack.proxies[upstream]))
        answer = stack.ask(question, caller, token, asked)
    print(answer)
    assert not faults(
        answer,
        truth,
        question=question,
        caller=caller,
        upstreams=upstreams,
        effect=toxic.effect,
        asked=asked,
    )
    # What the machine needs for it with every upstream well is no part of the deadline.
    assert answer.seconds <= 1.1 * DEADLINE_SECONDS + truth.seconds
    after: list[Answer] = []

    def recovered() -> bool:
        # The second asks every upstream but the issuer, and so closes their breakers.
        after[:] = [stack.ask(question, caller, token), stack.ask(*_EVERYTHING)]
        return all(map(whole, after, (truth, truths[_EVERYTHING]))) and not stack.left_alone()

    try:
        wait_until(recovered, "the whole truth again", timeout_seconds=RECOVERY_SECONDS)
    finally:
        print(f"in the end, without {', '.join(stack.left_alone()) or 'none'}: {after}")
    assert stack.server.pid == process


def whole(answer: Answer, truth: Answer) -> bool:
    """Whether nothing is missing from an answer, or wrong in it."""
    return (answer.status, answer.rows, answer.sources) == (200, truth.rows, truth.sources)


@pytest.mark.parametrize("caller", Caller)
def test_with_every_upstream_well_every_number_is_the_truth(
    stack: Stack, truths: Truths, caller: Caller
) -> None:
    admin = caller is Caller.ADMINISTRATOR
    executions, exposed = (
        Counter({key: n for key, n in tallies.items() if admin or key.namespace == NAMESPACE})
        for tallies in (
            stack.corpus.truth(stream, stack.corpus.span, roster=True).tallies
            for stream in (LogStream.EXECUTIONS, LogStream.EXPOSED)
        )
    )
    for question in Question:
        answer = truths[question, caller]
        assert answer.status == 200, answer.error
        assert {source.status for source in answer.sources.values()} == {"ok"}, answer.sources
    hours = {s.name: CORES for s in OWNED if admin or s.namespace == NAMESPACE}
    (totals,) = truths[Question.SUMMARY, caller].rows.values()
    assert executions.total() > 50
    assert exposed.total() > 20
    assert totals == {
        "services_count_active": len([s for s in SERVICES if admin or s.namespace == NAMESPACE]),
        "services_count_total": len({key.service for key in (*executions, *exposed)}),
        "cpu_hours_total": pytest.approx(sum(hours.values())),
        "gpu_hours_total": 0,
        "requests_count_exposed": exposed.total(),
        "users_count": len({key.user for key in executions} - {""}),
        "countries_count": len({key.country for key in executions} - {""}),
        "unknown_country_count": sum(n for key, n in executions.items() if not key.country),
        **of_calls(executions),
        "users": users(executions),
    }
    names = {key.service for key in (*executions, *exposed)} | hours.keys()
    rows = {
        name: {
            **of_calls(of := only(executions, name)),
            "requests_count_exposed": only(exposed, name).total(),
            "unique_users_count": len(users(of)),
            "users": users(of) or {},
            "cpu_hours": pytest.approx(hours.get(name, 0)),
            "gpu_hours": 0,
        }
        for name in names
    }
    assert truths[Question.BREAKDOWN, caller].rows == rows
    in_file = {
        name: {field: row[field] for field in row if field not in ("users", "failed_count")}
        for name, row in rows.items()
    }
    assert truths[Question.CSV, caller].rows == in_file
    sync = sum(n for k, n in only(executions, SERVICE).items() if k.kind is Kind.SYNC)
    assert truths[Question.VALUE_OF_CALLS, caller].rows == {"": {"value": sync}}
    assert truths[Question.VALUE_OF_HOURS, caller].rows == {
        "": {"value": pytest.approx(hours[SERVICE])}
    }


def only(tallies: Counter[CallKey], service: str) -> Counter[CallKey]:
    return Counter({key: n for key, n in tallies.items() if key.service == service})


def users(tallies: Counter[CallKey]) -> frozenset[str]:
    return frozenset(key.user for key in tallies) - {""}


def of_calls(tallies: Counter[CallKey]) -> dict[str, Any]:
    countries: Counter[str] = Counter()
    for key, count in tallies.items():
        countries[key.country] += count * bool(key.country)
    return {
        "requests_count_total": tallies.total(),
        "requests_count_sync": sum(n for key, n in tallies.items() if key.kind is Kind.SYNC),
        "requests_count_async": sum(n for key, n in tallies.items() if key.kind is Kind.ASYNC),
        "failed_count": sum(n for key, n in tallies.items() if key.result is not Result.OK),
        "countries": {country: n for country, n in countries.items() if n},
    }
