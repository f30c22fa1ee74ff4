"""When a kept answer stands in, what it then says, and for how long a report is fresh."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from oscar_metrics import wire
from oscar_metrics.auth.caller import ADMINISTRATOR
from oscar_metrics.handlers.answer import (
    Answer,
    Question,
    Reported,
    standing_in,
    worse,
    written,
)
from oscar_metrics.outcome import GapReason
from oscar_metrics.resilience.report_cache import CacheSettings, Made
from oscar_metrics.scope import Viewer
from oscar_metrics.sources.keycloak_people import STILL_READING
from oscar_metrics.timerange import HOUR_NS, SECOND_NS, Span, parse_instant
from oscar_metrics.wire import Metric, SourceName, SourceState, SourceStatus, WireGap

MADE_NS = parse_instant("2026-05-01T12:00:00Z")
OVER = Span(MADE_NS - 48 * HOUR_NS, MADE_NS - 24 * HOUR_NS)
OPEN = Span(MADE_NS - 12 * HOUR_NS, MADE_NS + 12 * HOUR_NS)
OK, PARTIAL, MISSING = SourceState.OK, SourceState.PARTIAL, SourceState.MISSING


def source(
    status: SourceState = OK,
    *,
    name: SourceName = SourceName.REQUEST_LOGS,
    origin: str = "loki",
    coverage: float = 1.0,
    reason: str | None = None,
    **fields: Any,
) -> SourceStatus:
    gaps = () if reason is None else (WireGap(start="x", end="y", reason=reason),)
    given = {"affects": ("value",) if gaps or status is MISSING else (), "gaps": gaps, **fields}
    return SourceStatus(name=name, status=status, origin=origin, coverage=coverage, **given)


def roster(notes: str) -> SourceStatus:
    return source(PARTIAL, name=SourceName.ROSTER, origin="rules", notes=notes)


def reported(said: SourceStatus, span: Span = OVER, *, sees_everything: bool = True) -> Reported:
    report = wire.Value(
        service_id="cowsay",
        metric=Metric.REQUESTS_SYNC,
        start="a",
        end="b",
        value=3,
        sources=(said,),
    )
    return Reported(report=report, sources=(said,), span=span, sees_everything=sees_everything)


def answer(said: SourceStatus, span: Span = OVER) -> Answer:
    return written(reported(said, span), {}, made=Made(at_ns=MADE_NS, fresh_seconds=600))


FAILED, SILENT = GapReason.FAILED, GapReason.NO_LINES


@pytest.mark.parametrize(
    ("before", "now", "is_worse"),
    [
        (source(), source(), False),
        (source(), source(MISSING), True),
        (source(), source(PARTIAL, coverage=0.5, reason=FAILED), True),
        (source(), source(PARTIAL, coverage=0.5, reason=GapReason.DEADLINE), True),
        (source(PARTIAL, coverage=0.5, reason=SILENT), source(MISSING), True),
        (
            source(PARTIAL, coverage=0.9, reason=FAILED),
            source(PARTIAL, coverage=0.5, reason=FAILED),
            True,
        ),
        # It says less, and that is how it is: logs that have aged out come back no more.
        (source(), source(PARTIAL, coverage=0.5, reason=SILENT), False),
        (source(), source(PARTIAL, coverage=0.5, reason=GapReason.RETENTION), False),
        # Nobody is there any more who could fail: it was taken out of the settings.
        (source(), source(MISSING, origin=""), False),
        # What was missing before is no worse.
        (source(MISSING), source(MISSING), False),
        (
            source(PARTIAL, coverage=0.5, reason=FAILED),
            source(PARTIAL, coverage=0.5, reason=FAILED),
            False,
        ),
        (source(PARTIAL, coverage=0.5, reason=FAILED), source(), False),
        # Of what this report does not show.
        (source(), source(PARTIAL, coverage=0.5, reason=FAILED, affects=()), False),
        (
            source(name=SourceName.ROSTER, origin="roster"),
            source(MISSING, name=SourceName.ROSTER, origin="roster"),
            False,
        ),
        # Users that come from elsewhere come back.
        (
            source(name=SourceName.ROSTER, origin="roster+keycloak"),
            source(MISSING, name=SourceName.ROSTER, origin="roster+keycloak"),
            True,
        ),
    ],
)
def test_which_sources_have_got_worse(
    before: SourceStatus, now: SourceStatus, is_worse: bool
) -> None:
    assert worse(answer(before), (now,)) == ({now.name: now} if is_worse else {})


@pytest.mark.parametrize(
    ("said", "span", "sees_everything", "expected_seconds"),
    [
        (source(), OVER, True, 600),
        (source(), OVER, False, 60),
        (source(), OPEN, True, 5),
        (source(), Span(0, MADE_NS - HOUR_NS), True, 600),
        (source(), Span(0, MADE_NS - HOUR_NS + 1), True, 5),
        (source(MISSING), OVER, True, 5),
        (source(MISSING, origin=""), OVER, True, 600),
        (source(MISSING, name=SourceName.ROSTER, origin="roster"), OVER, True, 600),
        (source(MISSING, name=SourceName.ROSTER, origin="keycloak"), OVER, True, 5),
        # Others know some users, but not those that are to come from elsewhere.
        (roster("2 of 9 users are not people (nil, oscar); " + STILL_READING), OVER, True, 5),
        (roster("keycloak could not be reached"), OVER, True, 5),
        (roster("keycloak has more than 9 users, and the others are left out"), OVER, True, 600),
        (source(PARTIAL, notes="keycloak could not be reached"), OVER, True, 600),
        (source(PARTIAL, coverage=0.5, reason=FAILED), OVER, True, 5),
        (source(PARTIAL, coverage=0.5, reason=SILENT), OVER, True, 600),
        (source(PARTIAL, notes="some lines were not understood"), OVER, True, 600),
    ],
)
def test_how_long_a_report_is_fresh(
    said: SourceStatus, span: Span, sees_everything: bool, expected_seconds: int
) -> None:
    made = reported(said, span, sees_everything=sees_everything)
    assert made.fresh_seconds(CacheSettings(), MADE_NS) == expected_seconds


@pytest.mark.parametrize(
    ("before", "span", "status", "coverage", "gaps"),
    [
        (source(), OVER, OK, 1.0, 0),
        (source(), OPEN, PARTIAL, 12 / 18, 1),
        (source(PARTIAL, coverage=0.5, reason=SILENT), OPEN, PARTIAL, 0.5 * 12 / 18, 2),
    ],
)
def test_what_stands_in_says_what_it_has_not_seen(
    before: SourceStatus, span: Span, status: SourceState, coverage: float, gaps: int
) -> None:
    now_ns = MADE_NS + 6 * HOUR_NS
    now = source(MISSING, notes="loki did not answer in time", affects=("value",))
    older = answer(before, span)
    instead = standing_in(older, {now.name: now}, now_ns=now_ns)
    (said,) = instead.sources
    assert (said.status, len(said.gaps)) == (status, gaps)
    assert said.coverage == pytest.approx(coverage)
    assert said.notes == (
        "as of 2026-05-01T12:00:00Z, 21600 seconds before 2026-05-01T18:00:00Z:"
        " loki did not answer in time"
    )
    if span == OPEN:
        assert (said.gaps[-1].start, said.gaps[-1].end) == (
            "2026-05-01T12:00:00Z",
            "2026-05-01T18:00:00Z",
        )
        assert said.affects == ("value",)
    body = msgspec.json.decode(instead.body, type=wire.Value)
    assert (body.value, body.sources) == (3, instead.sources)
    assert instead.headers["etag"] != older.headers["etag"]
    assert instead.age_seconds(now_ns) == 6 * HOUR_NS // SECOND_NS


def test_only_what_is_new_is_said_beside_what_was_said_before() -> None:
    before = source(PARTIAL, coverage=0.9, reason=SILENT, notes="two lines are odd; one is cut")
    now = source(MISSING, notes="one is cut; loki could not be reached")
    (said,) = standing_in(answer(before), {now.name: now}, now_ns=MADE_NS + SECOND_NS).sources
    assert said.notes == (
        "two lines are odd; one is cut; as of 2026-05-01T12:00:00Z,"
        " 1 seconds before 2026-05-01T12:00:01Z: loki could not be reached"
    )


def test_what_was_missing_already_is_told_as_it_was() -> None:
    before = source(MISSING, coverage=0.0, notes="no log lines at all")
    older = answer(before, OPEN)
    assert standing_in(older, {before.name: source(MISSING)}, now_ns=MADE_NS + 1).sources == (
        before,
    )


@pytest.mark.parametrize("text", ["x" * 8000, "x" * 7990 + "\U0001f41f"])
def test_a_question_takes_what_its_client_wrote(text: str) -> None:
    viewer = Viewer(caller=ADMINISTRATOR)
    small, large = (
        Question(route="/x", service="", viewer=viewer, parameters=(("raw", said),), form="json")
        for said in ("true", text)
    )
    assert small.size_bytes < 500
    assert large.size_bytes > (1 if text.isascii() else 4) * len(text)


def test_of_each_metric_of_a_service_its_own_sources_say_so() -> None:
    usage = SourceName.USAGE
    cpu, gpu = (
        source(PARTIAL, name=usage, notes="no cAdvisor", affects=("value",)),
        source(PARTIAL, name=usage, notes="no cAdvisor", affects=()),
    )
    report = wire.ServiceMetrics(
        service_name="cowsay",
        start="a",
        end="b",
        metrics=tuple(
            wire.ServiceMetric(metric=metric, value=1.5, sources=(said,))
            for metric, said in ((Metric.CPU_HOURS, cpu), (Metric.GPU_HOURS, gpu))
        ),
    )
    made = Made(at_ns=MADE_NS, fresh_seconds=600)
    reported = Reported(report=report, sources=(cpu,), span=OVER, sees_everything=True)
    older = written(reported, {}, made=made)
    instead = standing_in(older, {usage: source(MISSING, name=usage)}, now_ns=MADE_NS + SECOND_NS)
    told = msgspec.json.decode(instead.body, type=wire.ServiceMetrics)
    assert [metric.sources[0].affects for metric in told.metrics] == [("value",), ()]
    assert all("as of" in (metric.sources[0].notes or "") for metric in told.metrics)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ((), ("cpu_hours", "gpu_hours")),
        (("gpu_hours",), ("cpu_hours", "gpu_hours")),
        ((), ("gpu_hours",)),
        (("gpu_hours",), ("gpu_hours",)),
    ],
)
def test_what_was_not_seen_is_in_doubt_whole(before: tuple[str, ...], now: tuple[str, ...]) -> None:
    usage = SourceName.USAGE
    then = source(PARTIAL if before else OK, name=usage, affects=before)
    fails = source(PARTIAL, name=usage, coverage=0.5, reason=FAILED, affects=now)
    instead = standing_in(answer(then, OPEN), {usage: fails}, now_ns=MADE_NS + HOUR_NS)
    assert set(instead.sources[0].affects) == {"cpu_hours", "gpu_hours"}
