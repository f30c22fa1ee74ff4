"""What a caller can ask: every route, parameter and format, and what goes wrong with them."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence

import httpx
import msgspec

from oscar_metrics.timerange import HOUR_NS, format_instant
from oscar_metrics.wire import SERVICE_METRICS
from tests.scope.serving import bearer
from tests.scope.worlds import EARLY_NS, FIRST_NS, HOURS, LATE_NS, MARK, ME, NAMES

_LAST_NS = FIRST_NS + HOURS * HOUR_NS - 10**9


class Question(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    query: tuple[tuple[str, str], ...] = ()
    accept: str = ""
    method: str = "GET"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """All that a caller gets to see."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


async def ask(client: httpx.AsyncClient, question: Question, *, user: str = ME) -> Answer:
    accept = {"Accept": question.accept} if question.accept else {}
    answer = await client.request(
        question.method,
        f"/system/metrics{question.path}",
        params=list(question.query),
        headers={**bearer(user), **accept},
    )
    return Answer(
        status=answer.status_code,
        headers=tuple(sorted(answer.headers.items())),
        body=answer.text,
    )


# What they say changes with the times, and tells nothing else.
_OF_THE_BYTES = ("content-length", "etag")


def without_times(answer: Answer) -> Answer:
    """The answer but for when its sources were read, and for what chance decides.

    That is the pseudonyms of who was forgotten, and which of several kinds that were not sealed
    as of then is named.
    """
    body = re.sub(r'"(last_updated|(first|last)_sealed_at)":"[^"]*"', r'"\1":""', answer.body)
    body = re.sub(r"forgotten-[0-9a-f]{8}", "forgotten-", body)
    body = re.sub(r"the \w+ slot (\S+ to \S+ was not sealed then)", r"the slot \1", body)
    headers = [(name, re.sub(r"forgotten-[0-9a-f]{8}", "", text)) for name, text in answer.headers]
    return Answer(
        status=answer.status,
        headers=tuple((name, text) for name, text in headers if name not in _OF_THE_BYTES),
        body=body,
    )


def names(salts: Sequence[str]) -> list[str]:
    """What services may be called, in worlds that were marked with these salts, and nowhere."""
    return [*NAMES, *(f"{MARK}{salt}-{name}" for salt in salts for name in NAMES), "nowhere"]


RANGES: tuple[tuple[tuple[str, str], ...], ...] = (
    (("start", format_instant(FIRST_NS)), ("end", format_instant(_LAST_NS))),
    (("start", format_instant(FIRST_NS - 20 * HOUR_NS)), ("end", format_instant(_LAST_NS))),
    (
        ("start", format_instant(FIRST_NS + 20 * 60 * 10**9 + 7)),
        ("end", format_instant(FIRST_NS + 2 * HOUR_NS + 70 * 10**9)),
    ),
    (("start", format_instant(FIRST_NS + HOUR_NS)),),
    (),
)
SERIES: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("interval", "hour"),),
    (("interval", "day"), ("tz", "Asia/Kathmandu")),
)
_HOURS = (
    (("start", format_instant(FIRST_NS)), ("end", format_instant(_LAST_NS))),
    (("start", format_instant(FIRST_NS + HOUR_NS)), ("end", format_instant(_LAST_NS))),
)
# Ranges as they are known now, and as they were known once.
ASKED = (
    *RANGES,
    *((*span, ("as_of", format_instant(EARLY_NS + 10**6))) for span in _HOURS),
    *((*span, ("as_of", format_instant(LATE_NS))) for span in _HOURS),
)
# What is wrong with a question, or not for everyone.
BAD: tuple[tuple[tuple[str, str], ...], ...] = (
    (("start", "yesterday"),),
    (("end", "2026-13-01T00:00:00Z"),),
    (("start", "2026-03-02T00:00:00Z"), ("end", "2026-03-01T00:00:00Z")),
    (("owner", "olga"),),
    (("owner", "cluster_admin"),),
    (("restated_since", "2026-01-01T00:00:00Z"),),
    (("as_of", "2020-01-01T00:00:00Z"),),
    (("as_of", "2030-01-01T00:00:00Z"),),
    (("interval", "fortnight"),),
    (("metric", "countries-list"),),
    (("metric", "nonsense"),),
    (("format", "xml"),),
    (("zz9unknown", "1"),),
)


def totals() -> Iterator[Question]:
    """Questions whose answers are about everything the caller sees."""
    for span, series in itertools.product(ASKED, SERIES):
        query = (*span, *series)
        yield Question(path="", query=query)
        yield Question(path="/summary", query=query)
        for group in ("service", "user", "COUNTRY", "vo", "Project"):
            for more in (
                (),
                (("include_users", "true"),),
                (("include_usage", "true"), ("format", "csv")),
                (("include_usage", "true"), ("include_users", "true")),
            ):
                by = (("group_by", group), *query, *more)
                yield Question(path="/breakdown", query=by)
        csv = (("group_by", "service"), *query)
        yield Question(path="/breakdown", query=csv, accept="text/csv")


def of_service(name: str) -> Iterator[Question]:
    """Questions about one service."""
    for span in ASKED:
        yield Question(path=f"/{name}", query=span)
        yield Question(path=f"/{name}/", query=span)
        for metric in SERVICE_METRICS:
            query = (("metric", metric.value), *span)
            yield Question(path=f"/{name}", query=query)
            yield Question(path="/value", query=(("service_id", name), *query))
    for bad in BAD:
        yield Question(path=f"/{name}", query=bad)
        yield Question(path="/value", query=(("service_id", name), ("metric", "cpu-hours"), *bad))
        yield Question(path="/value", query=(("service_id", name), *bad))


def not_for_callers() -> Iterator[Question]:
    """Questions that only administrators get an answer to, or nobody."""
    yield Question(path="/owners")
    yield Question(path="/owners", method="HEAD")
    yield Question(path="/breakdown")
    yield Question(path="/breakdown", query=(("group_by", "owner"),))
    yield Question(path="/breakdown", query=(("group_by", "owner"), ("format", "csv")))
    yield Question(path="/breakdown", query=(("group_by", "region"),))
    for bad in BAD:
        yield Question(path="", query=bad)
        yield Question(path="/summary", query=bad)
        yield Question(path="/breakdown", query=(("group_by", "service"), *bad))
    yield Question(path="/summary", method="HEAD")
    yield Question(path="/summary", method="POST")


_TOTALS = tuple(totals())
_NOT_FOR_CALLERS = tuple(not_for_callers())


def some(dice: random.Random, about: Sequence[str]) -> list[Question]:
    """A few of all questions; those about services are about these names."""
    asked = [*dice.choices(NAMES, k=6), *dice.choices(about, k=5)]
    services = [dice.choice(tuple(of_service(name))) for name in asked]
    return [*dice.sample(_TOTALS, 8), *services, *dice.sample(_NOT_FOR_CALLERS, 4)]
