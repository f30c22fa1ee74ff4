"""`group_by=vo` and `group_by=project` over HTTP: JSON, CSV, series, and what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest

from oscar_metrics.auth.caller import Caller
from oscar_metrics.facts import Inventory, NamespaceOwner, Roster, RosterUser, Service
from oscar_metrics.handlers.openapi import document
from oscar_metrics.outcome import Ok, Partial
from oscar_metrics.privacy import Privacy
from oscar_metrics.scope import ScopeMode
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import RANGE, WHOLE, KnownTokens, World, aggregator, call, log, serving

Json = dict[str, Any]
ALICE, BOB = "alice@egi.eu", "bob@egi.eu"
ROSTER = Roster(
    users={
        ALICE: RosterUser(id=ALICE, vo="vo.one", project="sea"),
        BOB: RosterUser(id=BOB, vo="vo.one"),
        "=odd": RosterUser(id="=odd", vo="=vo()", project="sea"),
    }
)
KNOWN = msgspec.structs.replace(WHOLE, roster=Ok(facts=ROSTER, origin="roster"))
ROW = ["key", "executions_count", "unique_users_count", "countries", "failed_count"]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with of(KNOWN) as asking:
        yield asking


def of(world: World, **more: Any) -> Any:
    telemetry = Telemetry()
    return serving(aggregator(world, telemetry, **more), telemetry)


def get(client: httpx.Client, path: str = "/breakdown", **parameters: str) -> Json:
    response = client.get(f"/system/metrics{path}", params={**RANGE, **parameters})
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def counts(report: Json) -> dict[str, int]:
    return {row["key"]: row["executions_count"] for row in report["items"]}


def test_rows_add_up_to_the_summary(client: httpx.Client) -> None:
    totals = get(client, "/summary")["totals"]
    report = get(client, group_by="VO")
    assert list(report) == ["start", "end", "group_by", "items", "sources"]
    assert report["group_by"] == "VO"
    assert counts(report) == {"": 3, "=vo()": 1, "vo.one": 4}
    assert counts(get(client, group_by="project")) == {"": 4, "sea": 4}
    for group_by in ("vo", "project"):
        rows = get(client, group_by=group_by)["items"]
        assert [list(row) for row in rows] == [ROW] * len(rows)
        assert sum(row["executions_count"] for row in rows) == totals["requests_count_total"]
        assert sum(row["failed_count"] for row in rows) == totals["failed_count"]
        assert sum(row["unique_users_count"] for row in rows) == totals["users_count"]
    vo = report["items"][2]
    assert vo["countries"] == [
        {"country": "ES", "request_count": 3},
        {"country": "FR", "request_count": 1},
    ]
    names = [source["name"] for source in report["sources"]]
    assert names == ["request-logs", "country-attribution", "user-roster"]


def test_a_series_adds_up(client: httpx.Client) -> None:
    report = get(client, group_by="vo", interval="week")
    added: dict[str, int] = {}
    for period in report["periods"]:
        for key, count in counts(period).items():
            added[key] = added.get(key, 0) + count
    assert added == counts(report) == counts(get(client, group_by="vo"))


def test_csv(client: httpx.Client) -> None:
    asked = {**RANGE, "group_by": "vo", "format": "csv"}
    response = client.get("/system/metrics/breakdown", params=asked)
    assert response.headers["content-type"] == "text/csv"
    assert response.text == (
        "key,executions_count,unique_users_count,countries\n"
        ",3,1,ES:1\n"
        "'=vo(),1,1,ES:1\n"
        "vo.one,4,2,ES:3|FR:1\n"
    )
    raw = client.get("/system/metrics/breakdown", params={**asked, "raw": "true"})
    assert "\n=vo()," in raw.text
    users = {**asked, "include_users": "true", "include_usage": "true"}
    assert client.get("/system/metrics/breakdown", params=users).text == response.text
    assert "-partial" not in response.headers["content-disposition"]
    weeks = client.get("/system/metrics/breakdown", params={**asked, "interval": "week"})
    assert weeks.text.startswith("period,key,executions_count,unique_users_count,countries\n")
    assert "\ntotal,vo.one,4,2,ES:3|FR:1\n" in weeks.text


def test_it_is_as_documented(client: httpx.Client) -> None:
    written = document("1")
    schema = {"$ref": "#/components/schemas/AffiliationBreakdown"}
    schema |= {"components": written["components"]}
    for more in ({}, {"interval": "month"}):
        jsonschema.validate(get(client, group_by="project", **more), schema)
    parameters = written["paths"]["/system/metrics/breakdown"]["get"]["parameters"]
    group_by = next(one for one in parameters if one["name"] == "group_by")
    assert group_by["schema"]["enum"] == ["service", "user", "country", "owner", "vo", "project"]


def test_without_a_roster_there_is_no_row_and_it_says_so() -> None:
    with of(WHOLE) as client:
        report = get(client, group_by="vo", interval="month")
        assert report["items"] == []
        assert [period["items"] for period in report["periods"]] == [[]]
        roster = report["sources"][-1]
        assert (roster["name"], roster["status"]) == ("user-roster", "missing")
        assert roster["affects"] == ["items"]
        asked = {**RANGE, "group_by": "vo", "format": "csv"}
        response = client.get("/system/metrics/breakdown", params=asked)
        assert response.text == "key,executions_count,unique_users_count,countries\n"
        assert response.headers["content-disposition"].endswith('-partial.csv"')
        assert "user-roster;status=missing" in response.headers["x-completeness"]


def test_a_roster_in_doubt_is_partial() -> None:
    doubtful = Partial(facts=ROSTER, origin="roster", notes=("it is old",))
    with of(msgspec.structs.replace(WHOLE, roster=doubtful)) as client:
        report = get(client, group_by="vo")
        assert counts(report)["vo.one"] == 4
        roster = report["sources"][-1]
        assert (roster["status"], roster["affects"]) == ("partial", ["items"])
        assert "it is old" in roster["notes"]


def test_privacy_is_that_of_all_reports() -> None:
    privacy = Privacy(pseudonym_key="k", country_users_least=2)
    with of(KNOWN, privacy=privacy) as client:
        report = get(client, group_by="vo")
        assert counts(report) == {"": 3, "=vo()": 1, "vo.one": 4}
        assert [row["countries"] for row in report["items"]] == [[], [], []]
        said = report["sources"][1]
        assert said["status"] == "partial"
        assert "withheld: fewer than 2 users of one VO or project" in said["notes"]
        assert ALICE not in str(report)


def test_a_user_sees_their_own_services_callers_and_of_others_none() -> None:
    spaces = {"oscar-svc-alice": ALICE, "oscar-svc-carol": "carol"}
    deployed = Inventory(
        services=tuple(
            Service(namespace=space, name="cowsay", owner=owner, visibility="public")
            for space, owner in spaces.items()
        ),
        owners=tuple(NamespaceOwner(namespace=n, owner=owner) for n, owner in spaces.items()),
    )
    world = msgspec.structs.replace(
        KNOWN,
        inventory=Ok(facts=deployed, origin="kubernetes"),
        executions=log(
            {
                call("cowsay", BOB, "ES", namespace="oscar-svc-alice"): 2,
                call("cowsay", "", "ES", namespace="oscar-svc-alice"): 1,
                call("cowsay", "=odd", "FR", namespace="oscar-svc-carol"): 5,
                call("cowsay", BOB, "FR", namespace="oscar-svc-carol"): 7,
            }
        ),
    )
    tokens = KnownTokens({"alice": Caller(user=ALICE)})
    expected = {
        ScopeMode.OWNED: {"": 1, "vo.one": 2},
        ScopeMode.VISIBLE: {"": 13, "vo.one": 2},
    }
    for mode, rows in expected.items():
        telemetry = Telemetry()
        answering = aggregator(world, telemetry, mode=mode)
        with serving(answering, telemetry, admin=False, users=tokens) as client:
            client.headers["Authorization"] = "Bearer alice"
            report = get(client, group_by="vo")
            assert counts(report) == rows
            assert "=vo()" not in str(report)
            assert ("not shown" in report["sources"][-1].get("notes", "")) is (
                mode is ScopeMode.VISIBLE
            )
