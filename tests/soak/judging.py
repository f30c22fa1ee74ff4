"""What may be answered to whom while anything may be out of sorts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import httpx
import msgspec

from tests.toxics.expected import NO_INVENTORY, NO_ISSUER, Upstream, faults
from tests.toxics.questions import Answer, Caller, Question
from tests.toxics.toxics import Effect

OVERLOADED = "too many reports at once"
_SLACK = 1e-6
# What of an answer says how it came about, and not what is so.
_OF_ITS_MAKING = frozenset({"sources", "restated"})


def faults_of_report(
    response: httpx.Response,
    truth: Answer,
    *,
    question: Question,
    caller: Caller,
    excuses: Collection[str],
) -> list[str]:
    """What is wrong with an answer to a question.

    Numbers are the truth or are said not to be, whoever is well: what failed a moment ago may
    still be left alone. `excuses` are the reasons for which there may be no report.
    """
    if response.status_code != httpx.codes.OK:
        return faults_of_refusal(response, excuses)
    answer = Answer.of(question, response, seconds=0.0)
    return faults(
        # How old it may be, and what it then says, is the business of its own tests.
        msgspec.structs.replace(answer, age=0),
        truth,
        question=question,
        caller=caller,
        upstreams=tuple(Upstream),
        effect=Effect.SOME,
    )


def excuses(
    caller: Caller, unwell: Collection[Upstream], *, of_an_owner: bool = False
) -> frozenset[str]:
    """For what a caller may be refused, where these upstreams lately were unwell.

    What is somebody's, a user's or an owner's, is not known without the inventory.
    """
    said = {OVERLOADED}
    is_user = caller is not Caller.ADMINISTRATOR
    if Upstream.KUBERNETES in unwell and (is_user or of_an_owner):
        said.add(NO_INVENTORY)
    if Upstream.KEYCLOAK in unwell and is_user:
        said.add(NO_ISSUER)
    return frozenset(said)


def faults_of_refusal(response: httpx.Response, excuses: Collection[str]) -> list[str]:
    """What is wrong with an answer that is none: only 503, for a reason, and with Retry-After."""
    if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return [f"{response.status_code} {response.text[:300]}"]
    after = response.headers.get("retry-after", "")
    if not after.isdecimal() or not int(after):
        return [f"503 without Retry-After: {response.text[:300]}"]
    if response.request.method == "HEAD":
        return []
    is_excused = response.json().get("error") in excuses
    return [] if is_excused else [f"503 {response.text[:300]}"]


def faults_of_body(body: Mapping[str, Any], truth: Mapping[str, Any]) -> list[str]:
    """What is wrong with a report of which only this is known: the truth, where all is told."""
    if any(source["status"] != "ok" for source in body.get("sources", ())):
        return []
    wrong = [
        name
        for name in truth.keys() | body.keys()
        if name not in _OF_ITS_MAKING and not _equal(body.get(name), truth.get(name))
    ]
    return [f"{name} is {body.get(name)}, truly {truth.get(name)}" for name in wrong]


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= _SLACK
    return bool(one == other)
