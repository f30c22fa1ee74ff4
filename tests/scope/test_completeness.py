"""What is in a scope is exact: the reports say what a model written by hand says, to the unit.

Whatever of it comes from the ledger: nothing, everything, or some hours.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.discretion import WITHHELD
from oscar_metrics.facts import CLUSTER_ADMIN, Kind
from oscar_metrics.timerange import report_range
from tests.scope.examples import many
from tests.scope.expected import Expected
from tests.scope.model import Model
from tests.scope.questions import RANGES
from tests.scope.serving import PASSWORD, USERNAME, bearer, serving
from tests.scope.worlds import HOURS, ME, NAMES, NOW_NS, OWNERS, Frame, World, frame_of, world_of

ADMINISTRATOR = httpx.BasicAuth(USERNAME, PASSWORD)
Query = tuple[tuple[str, str], ...]


@pytest.mark.parametrize("visible", [False, True])
def test_a_callers_reports_are_what_the_contract_says_they_see(visible: bool) -> None:
    @many(10)
    @given(seed=st.integers(0, 2**40), size=st.integers(0, 12))
    def are_exact(seed: int, size: int) -> None:
        dice = random.Random(seed)
        frame = frame_of(dice, visible=visible, whole=True)
        asyncio.run(compare(frame, world_of(dice, size, frame), dice.choice(RANGES[:-1])))

    are_exact()


def test_live_sealed_and_mixed_are_the_same() -> None:
    """All three know of the same past: of no inventory and no service but those deployed."""

    @many(6)
    @given(seed=st.integers(0, 2**40), size=st.integers(0, 12), visible=st.booleans())
    def are_the_same(seed: int, size: int, visible: bool) -> None:
        dice = random.Random(seed)
        frame = frame_of(dice, visible=visible, whole=True)
        frame = msgspec.structs.replace(frame, twice=False)
        world = world_of(dice, size, msgspec.structs.replace(frame, sealed=None))
        deployed = {(one.namespace, one.name) for one in world.now.services}
        world = msgspec.structs.replace(
            world,
            called=tuple(c for c in world.called if not c.service[0] or c.service in deployed),
            used=tuple(u for u in world.used if u.service in deployed or not u.service.service),
        )
        span = dice.choice(RANGES[:-1])
        some = frozenset(hour for hour in range(HOURS) if dice.random() < 0.5)
        answers = [
            asyncio.run(numbers(world, msgspec.structs.replace(frame, sealed=sealed), span))
            for sealed in (None, frozenset(range(HOURS)), some)
        ]
        assert answers[0] == answers[1] == answers[2]

    are_the_same()


def test_all_owners_and_what_is_nobodys_add_up_to_the_cluster() -> None:
    @many(8)
    @given(seed=st.integers(0, 2**40), size=st.integers(0, 12))
    def add_up(seed: int, size: int) -> None:
        dice = random.Random(seed)
        frame = frame_of(dice, visible=False, whole=True)
        asyncio.run(add(frame, world_of(dice, size, frame), dice.choice(RANGES[:-1])))

    add_up()


async def compare(frame: Frame, world: World, span: Query) -> None:
    """One caller's reports with what they are expected to be."""
    texts = dict(span)
    asked = report_range(texts.get("start"), texts.get("end"), NOW_NS)
    expected = Expected(Model(world, frame), asked.span)
    with tempfile.TemporaryDirectory() as folder:
        async with serving(world, frame, Path(folder, "ledger")) as client:
            report = await got(client, "/summary", span)
            assert report["totals"] == expected.totals()
            assert withheld(report["sources"]) == {
                "usage-metrics": expected.withheld_usage(),
                "request-logs": expected.withheld(Kind.SYNC, Kind.ASYNC),
                "exposed-request-logs": expected.withheld(Kind.EXPOSED),
            }
            await compare_rows(client, span, expected)
            for name in (*NAMES, "nowhere"):
                await compare_service(client, span, expected, name)


async def compare_rows(client: httpx.AsyncClient, span: Query, expected: Expected) -> None:
    by = (("include_users", "true"), ("include_usage", "true"), *span)
    services = await got(client, "/breakdown", (("group_by", "service"), *by))
    rows = expected.services()
    assert [{name: row[name] for name in rows[0]} for row in services["items"]] == rows
    users = await got(client, "/breakdown", (("group_by", "user"), *by))
    assert {row["key"]: row["executions_count"] for row in users["items"]} == expected.users()
    for place, group in enumerate(("vo", "project")):
        found = await got(client, "/breakdown", (("group_by", group), *by))
        counts = {row["key"]: row["executions_count"] for row in found["items"]}
        assert counts == expected.affiliations(place)
    countries = await got(client, "/breakdown", (("group_by", "country"), *by))
    named = {row["key"]: row["executions_count"] for row in countries["items"]}
    totals = expected.totals()
    unknown = totals["unknown_country_count"]
    assert named.pop("unknown", 0) == unknown
    assert named == {row["country"]: row["request_count"] for row in totals["countries"]}


async def compare_service(
    client: httpx.AsyncClient, span: Query, expected: Expected, name: str
) -> None:
    answer = await client.get(f"/system/metrics/{name}", params=list(span), headers=bearer())
    assert answer.status_code == (200 if expected.knows(name) else 403), name
    if answer.status_code == 403:
        return
    metrics = {one["metric"]: one for one in answer.json()["metrics"]}
    values = {metric: one["value"] for metric, one in metrics.items()}
    assert values == {m: value or 0 for m, value in expected.metrics(name).items()}
    said = {
        metric: WITHHELD in one["sources"][0].get("notes", "") for metric, one in metrics.items()
    }
    executions = expected.withheld(Kind.SYNC, Kind.ASYNC, service=name)
    assert said == {
        "cpu-hours": expected.withheld_usage(name),
        "gpu-hours": expected.withheld_usage(name),
        "requests-sync-per-service": executions,
        "requests-async-per-service": executions,
        "requests-exposed-per-service": expected.withheld(Kind.EXPOSED, service=name),
        "users-per-service": executions,
    }


async def numbers(world: World, frame: Frame, span: Query) -> list[Any]:
    """Everything a caller is told, without where it is from."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(world, frame, Path(folder, "ledger")) as client:
            reports = [await got(client, "/summary", (*span, ("interval", "hour")))]
            for group in ("service", "user", "country", "vo", "project"):
                query = (("group_by", group), ("include_users", "true"), *span)
                reports.append(await got(client, "/breakdown", query))
            for name in NAMES:
                answer = await client.get(f"/system/metrics/{name}", headers=bearer())
                reports.append(answer.json())
    for report in reports:
        for source in report.pop("sources", []):
            report[source["name"]] = (source["status"], WITHHELD in source.get("notes", ""))
        for metric in report.get("metrics", []):
            metric["sources"] = [source["status"] for source in metric["sources"]]
    return reports


async def add(frame: Frame, world: World, span: Query) -> None:
    """Reports for each owner with those of the cluster."""
    with tempfile.TemporaryDirectory() as folder:
        async with serving(world, frame, Path(folder, "ledger")) as client:
            whole = (await got(client, "/summary", span, auth=ADMINISTRATOR))["totals"]
            query = (("group_by", "owner"), ("include_usage", "true"), *span)
            items = (await got(client, "/breakdown", query, auth=ADMINISTRATOR))["items"]
            rows = {item["key"]: item for item in items}
            for field, total in (
                ("requests_count_total", "requests_count_total"),
                ("requests_count_exposed", "requests_count_exposed"),
                ("cpu_hours", "cpu_hours_total"),
            ):
                added = sum(row[field] for row in rows.values())
                assert added == pytest.approx(whole[total]), field
            for group in ("vo", "project"):
                query = (("group_by", group), *span)
                items = (await got(client, "/breakdown", query, auth=ADMINISTRATOR))["items"]
                added = sum(item["executions_count"] for item in items)
                assert added == whole["requests_count_total"]
            listed = await got(client, "/owners", (), auth=ADMINISTRATOR)
            owners = {owner["id"] for owner in listed["owners"]}
            assert set(rows) - {""} <= owners
            assert owners <= {*OWNERS, CLUSTER_ADMIN}
            for owner in owners:
                query = (("owner", owner), *span)
                theirs = await got(client, "/summary", query, auth=ADMINISTRATOR)
                row = rows.get(owner, {"requests_count_total": 0, "requests_count_exposed": 0})
                for field in ("requests_count_total", "requests_count_exposed"):
                    assert theirs["totals"][field] == row[field]
                if owner != CLUSTER_ADMIN:
                    # What an administrator sees of somebody is what they see.
                    own = await got(client, "/summary", span, user=owner)
                    assert own["totals"] == theirs["totals"]


async def got(
    client: httpx.AsyncClient,
    path: str,
    query: Query,
    *,
    user: str = ME,
    auth: httpx.Auth | None = None,
) -> Any:
    headers = {} if auth else bearer(user)
    answer = await client.get(
        f"/system/metrics{path}", params=list(query), headers=headers, auth=auth
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def withheld(sources: list[dict[str, Any]]) -> dict[str, bool]:
    """Which sources of facts say that something was left out."""
    facts = ("usage-metrics", "request-logs", "exposed-request-logs")
    return {s["name"]: WITHHELD in s.get("notes", "") for s in sources if s["name"] in facts}
