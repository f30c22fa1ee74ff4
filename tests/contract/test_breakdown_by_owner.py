"""`group_by=owner` over HTTP, and what the privacy settings make of every report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import msgspec
import pytest

from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import Forbidden
from oscar_metrics.facts import CallKey, Inventory, Kind, Service
from oscar_metrics.handlers.openapi import document
from oscar_metrics.outcome import Ok, Unavailable
from oscar_metrics.privacy import Privacy
from oscar_metrics.scope import ScopeMode, Viewer
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import report_range
from oscar_metrics.wire import GroupBy
from tests.contract.serving import NOW_NS, RANGE, WHOLE, aggregator, call, log, serving

PRIVACY = Privacy(pseudonym_key="k", country_users_least=2)
ALICE = "alice@egi.eu"
Json = dict[str, Any]
assert isinstance(WHOLE.executions, Ok)
OF_ALICE = {
    call("cowsay", "bob@egi.eu", "ES", namespace="oscar-svc-alice"): 2,
    call("deleted", ALICE, "PT", namespace="oscar-svc-alice"): 4,
}
WORLD = msgspec.structs.replace(
    WHOLE, executions=log({**WHOLE.executions.facts.tallies, **OF_ALICE})
)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    telemetry = Telemetry()
    with serving(aggregator(WORLD, telemetry), telemetry) as asking:
        yield asking


@pytest.fixture(scope="module")
def private() -> Iterator[httpx.Client]:
    telemetry = Telemetry()
    with serving(aggregator(WORLD, telemetry, privacy=PRIVACY), telemetry) as asking:
        yield asking


def get(client: httpx.Client, path: str = "/breakdown", **parameters: str) -> Json:
    response = client.get(f"/system/metrics{path}", params={**RANGE, **parameters})
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def column(rows: list[Json], name: str) -> dict[str, Any]:
    return {row["key"]: row.get(name) for row in rows}


def test_rows_add_up_to_the_summary(client: httpx.Client) -> None:
    report = get(client, group_by="Owner", include_usage="true")
    totals = get(client, "/summary")["totals"]
    rows = report["items"]
    assert list(report) == ["start", "end", "group_by", "items", "sources"]
    assert report["group_by"] == "Owner"
    assert list(rows[0]) == [
        "key",
        "name",
        "services_count",
        "requests_count_total",
        "requests_count_sync",
        "requests_count_async",
        "requests_count_exposed",
        "unique_users_count",
        "countries",
        "failed_count",
        "cpu_hours",
        "gpu_hours",
        "unattributed",
    ]
    for name, total in (
        ("requests_count_total", "requests_count_total"),
        ("requests_count_exposed", "requests_count_exposed"),
        ("cpu_hours", "cpu_hours_total"),
    ):
        assert sum(column(rows, name).values()) == totals[total]
    jsonschema.validate(report, schema_of("OwnerBreakdown"))


def schema_of(shape: str) -> Json:
    components = document("0.1.0")["components"]
    return {"$ref": f"#/components/schemas/{shape}", "components": components}


def test_one_owner_is_one_row(client: httpx.Client) -> None:
    everyone = get(client, group_by="owner")["items"]
    for owner in get(client, "/owners")["owners"]:
        rows = get(client, group_by="owner", owner=owner["id"])["items"]
        assert rows == [row for row in everyone if row["key"] == owner["id"]]
    assert column(everyone, "requests_count_total")[ALICE] == 6


def test_periods_and_csv(client: httpx.Client) -> None:
    report = get(client, group_by="owner", interval="month")
    (period,) = report["periods"]
    assert period["items"] == report["items"] != []
    response = client.get(
        "/system/metrics/breakdown", params={**RANGE, "group_by": "owner", "format": "csv"}
    )
    header, *lines = response.text.splitlines()
    assert header.startswith("key,name,services_count,requests_count_total,")
    assert len(lines) == len(report["items"])
    assert "oscar-metrics-owner-" in response.headers["content-disposition"]


def test_without_an_inventory_there_are_no_rows_and_it_says_so() -> None:
    telemetry = Telemetry()
    gone = Unavailable(origin="kubernetes", notes=("gone",))
    for inventory in (gone, None):
        world = msgspec.structs.replace(WHOLE, inventory=inventory)
        with serving(aggregator(world, telemetry), telemetry) as asking:
            report = get(asking, group_by="owner")
        assert report["items"] == []
        said = next(s for s in report["sources"] if s["name"] == "service-inventory")
        assert said["status"] == "missing"
        assert "items" in said["affects"]


async def test_who_is_no_administrator_gets_none() -> None:
    asked = report_range(RANGE["start"], RANGE["end"], NOW_NS)
    answering = aggregator(WHOLE, Telemetry(), mode=ScopeMode.VISIBLE)
    admitted = await answering.admit(Viewer(caller=Caller(user=ALICE)), answering.deadline())
    with pytest.raises(Forbidden):
        await answering.breakdown(
            admitted,
            asked,
            GroupBy.OWNER,
            group_by_text="owner",
            include_users=False,
            include_usage=False,
        )


REPORTS: list[tuple[str, Json]] = [
    ("/summary", {}),
    ("/summary", {"interval": "month"}),
    ("", {}),
    ("/cowsay", {}),
    ("/owners", {}),
    *(
        (
            "/breakdown",
            {"group_by": group, "include_users": "true", "include_usage": "true", **more},
        )
        for group in GroupBy
        for more in ({}, {"interval": "month"})
    ),
    *(("/breakdown", {"group_by": group, "format": "csv", "raw": "true"}) for group in GroupBy),
]


@pytest.mark.parametrize(("path", "parameters"), REPORTS)
def test_no_report_shows_a_user_where_pseudonyms_are_on(
    client: httpx.Client, private: httpx.Client, path: str, parameters: Json
) -> None:
    said = [
        asking.get(f"/system/metrics{path}", params={**RANGE, **parameters})
        for asking in (client, private)
    ]
    assert [response.status_code for response in said] == [200, 200]
    for word in ("alice", "bob", "=odd", "Alice"):
        assert word not in said[1].text
        assert word not in str(said[1].headers)


def test_the_owner_filter_takes_what_is_listed(private: httpx.Client) -> None:
    owners = get(private, "/owners")["owners"]
    alice = PRIVACY.user(ALICE)
    assert alice in [owner["id"] for owner in owners]
    rows = get(private, group_by="owner", owner=alice)["items"]
    assert column(rows, "requests_count_total") == {alice: 6}
    assert get(private, "/summary", owner=alice)["totals"]["requests_count_total"] == 6


def test_countries_of_few_users_are_in_no_report(private: httpx.Client) -> None:
    totals = get(private, "/summary")["totals"]
    assert (totals["countries_count"], totals["countries"]) == (
        3,
        [{"country": "ES", "request_count": 7}],
    )
    assert list(column(get(private, group_by="country")["items"], "key")) == ["ES", "unknown"]
    assert set(map(len, column(get(private, group_by="user")["items"], "countries").values())) == {
        0
    }


async def test_who_calls_an_open_service_of_others_is_counted_and_not_shown() -> None:
    tallies: dict[CallKey, int] = {
        call("mine", "ana", "ES", namespace="oscar-svc-ana"): 2,
        call("open", "ana", "ES", namespace="oscar-svc-bob"): 3,
        call("open", "zoe", "FR", namespace="oscar-svc-bob"): 4,
        call("closed", "zed", "PT", namespace="oscar-svc-bob"): 5,
    }
    services = (
        Service(namespace="oscar-svc-ana", name="mine", owner="ana"),
        Service(namespace="oscar-svc-bob", name="open", owner="bob", visibility="public"),
        Service(namespace="oscar-svc-bob", name="closed", owner="bob"),
    )
    world = msgspec.structs.replace(
        WHOLE,
        inventory=Ok(
            facts=Inventory(
                services=services,
                created_ns={f"{service.namespace}/{service.name}": 0 for service in services},
            ),
            origin="kubernetes",
        ),
        executions=log(tallies),
        exposed=log({key._replace(kind=Kind.EXPOSED): 1 for key in tallies}),
    )
    answering = aggregator(world, Telemetry(), mode=ScopeMode.VISIBLE)
    asked = report_range(RANGE["start"], RANGE["end"], NOW_NS)
    admitted = await answering.admit(Viewer(caller=Caller(user="ana")), answering.deadline())
    totals = (await answering.summary(admitted, asked)).totals
    assert (totals.requests_count_total, totals.requests_count_exposed) == (9, 3)
    assert (totals.users_count, totals.users) == (2, ("ana",))
    for group in (GroupBy.SERVICE, GroupBy.USER, GroupBy.COUNTRY):
        report = await answering.breakdown(
            admitted,
            asked,
            group,
            group_by_text=group,
            include_users=True,
            include_usage=False,
        )
        text = msgspec.json.encode(report).decode()
        assert not [word for word in ("zoe", "zed", "closed", "PT") if word in text]
