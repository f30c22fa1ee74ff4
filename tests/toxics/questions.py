"""What is asked, by whom, and an answer as far as it is judged: its numbers and its flags."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import httpx
import msgspec

# A number, texts that are listed, or counts by text; None is null, or an empty cell.
Figure = float | frozenset[str] | Mapping[str, float] | None

SERVICE = "cowsay"
_NOT_FIGURES = frozenset({"key", "membership", "namespaces", "unattributed"})
_COMPLETENESS = re.compile(
    r"([a-z-]+);status=([a-z]+);coverage=([0-9.]+)(?:;ledger=[0-9.]+)?"
    r'(?:;notes="((?:[^"\\]|\\.)*)")?(?:, |$)'
)


class Caller(StrEnum):
    """Who asks: a user's log-in may be known already, or be for the issuer to say."""

    ADMINISTRATOR = "administrator"
    KNOWN_USER = "known-user"
    NEW_USER = "new-user"


class Asked(StrEnum):
    """Whether the report is to be made now, or one that was kept may stand in."""

    AFRESH = "afresh"
    AS_EVER = "as-ever"

    @property
    def headers(self) -> Mapping[str, str]:
        """How a request says so."""
        return {"Cache-Control": "no-cache"} if self is Asked.AFRESH else {}


class Question(StrEnum):
    """A report of each kind."""

    VALUE_OF_CALLS = "value-of-calls"
    VALUE_OF_HOURS = "value-of-hours"
    SUMMARY = "summary"
    BREAKDOWN = "breakdown"
    CSV = "csv"

    @property
    def path(self) -> str:
        """Where, under /system/metrics."""
        return _ASKED[self][0]

    @property
    def parameters(self) -> Mapping[str, str]:
        """All but the range."""
        return _ASKED[self][1]


_BREAKDOWN = {"group_by": "service", "include_usage": "true"}
_ASKED: Mapping[Question, tuple[str, Mapping[str, str]]] = {
    Question.VALUE_OF_CALLS: (
        "/value",
        {"service_id": SERVICE, "metric": "requests-sync-per-service"},
    ),
    Question.VALUE_OF_HOURS: ("/value", {"service_id": SERVICE, "metric": "cpu-hours"}),
    Question.SUMMARY: ("/summary", {}),
    Question.BREAKDOWN: ("/breakdown", {**_BREAKDOWN, "include_users": "true"}),
    Question.CSV: ("/breakdown", {**_BREAKDOWN, "format": "csv", "raw": "true"}),
}


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one source. A file says less: origin and `affects` are None there."""

    status: str
    coverage: float
    notes: str
    origin: str | None = None
    affects: tuple[str, ...] | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer. `rows` are figures by field, by key; what has one row has it under a blank key.

    `age` is how old what was kept says it is; blank where the report was made now.
    """

    status: int
    seconds: float
    age: str = ""
    error: str = ""
    retry_after: str = ""
    rows: dict[str, dict[str, Figure]] = {}
    sources: dict[str, Source] = {}

    @classmethod
    def of(cls, question: Question, response: httpx.Response, *, seconds: float) -> Answer:
        """What a response says; raises ValueError where it is not what was asked for."""
        if response.status_code != httpx.codes.OK:
            return cls(
                status=response.status_code,
                seconds=seconds,
                error=response.json()["error"],
                retry_after=response.headers.get("retry-after", ""),
            )
        if question is Question.CSV:
            rows, sources = _of_file(response)
        else:
            rows, sources = _of_json(question, response.json())
        return cls(
            status=response.status_code,
            seconds=seconds,
            age=response.headers.get("age", ""),
            rows=rows,
            sources=sources,
        )


def _of_json(
    question: Question, body: Any
) -> tuple[dict[str, dict[str, Figure]], dict[str, Source]]:
    if question is Question.SUMMARY:
        rows = {"": _figures(body["totals"])}
    elif question is Question.BREAKDOWN:
        rows = {item["key"]: _figures(item) for item in body["items"]}
        if len(rows) < len(body["items"]):
            raise ValueError("two rows have one key")
    else:
        rows = {"": {"value": body["value"]}}
    sources = {
        source["name"]: Source(
            status=source["status"],
            coverage=source["coverage"],
            notes=source.get("notes", ""),
            origin=source["origin"],
            affects=tuple(source["affects"]),
        )
        for source in body["sources"]
    }
    return rows, sources


def _figures(item: Mapping[str, Any]) -> dict[str, Figure]:
    return {name: _figure(value) for name, value in item.items() if name not in _NOT_FIGURES}


def _figure(value: Any) -> Figure:
    if not isinstance(value, list):
        figure: float | None = value
        return figure
    if all(isinstance(entry, str) for entry in value):
        return frozenset(value) if value else {}
    return {entry["country"]: entry["request_count"] for entry in value}


def _of_file(
    response: httpx.Response,
) -> tuple[dict[str, dict[str, Figure]], dict[str, Source]]:
    rows: dict[str, dict[str, Figure]] = {}
    for line in csv.DictReader(io.StringIO(response.text)):
        if line["key"] in rows:
            raise ValueError("two rows have one key")
        rows[line["key"]] = {
            name: _cell(name, text) for name, text in line.items() if name not in _NOT_FIGURES
        }
    return rows, dict(_completeness(response.headers["x-completeness"]))


def _cell(name: str, text: str) -> Figure:
    if name != "countries":
        return float(text) if text else None
    pairs = (entry.rpartition(":") for entry in text.split("|") if entry)
    return {country: float(count) for country, _, count in pairs}


def _completeness(header: str) -> Iterator[tuple[str, Source]]:
    end = 0
    for match in _COMPLETENESS.finditer(header):
        if match.start() != end:
            break
        end = match.end()
        name, status, coverage, notes = match.groups()
        yield name, Source(status=status, coverage=float(coverage), notes=notes or "")
    if end != len(header):
        raise ValueError(f"not a completeness header: {header}")
