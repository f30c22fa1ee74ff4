"""The OpenAPI document is true: it validates real answers, and names every route there is."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis
import yaml
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from oscar_metrics.auth.addresses import Proxies
from oscar_metrics.auth.attempts import FailedLogins
from oscar_metrics.auth.authenticator import Authenticator
from oscar_metrics.auth.basic import BasicAuth
from oscar_metrics.handlers.answers import Answers
from oscar_metrics.handlers.authentication import Authentication
from oscar_metrics.handlers.openapi import document
from oscar_metrics.handlers.reports import (
    BREAKDOWN_PARAMETERS,
    SERIES_PARAMETERS,
    SERVICE_PARAMETERS,
    VALUE_PARAMETERS,
)
from oscar_metrics.handlers.routes import create_routes
from oscar_metrics.resilience.lanes import Lanes, LaneSettings
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import NOTHING, PASSWORD, RANGE, SHOW_EVERYTHING, USERNAME, aggregator

Json = dict[str, Any]
DOCUMENT: Json = document("0.1.0")
# What the page is made of is no part of the API.
NOT_DOCUMENTED = {"/schema/page/{asset}"}
# Refusals that rest on several parameters at once, on the years that engines can hold, on
# the zones there are or on what was sealed when: OpenAPI has no words for them.
NOT_EXPRESSIBLE = {
    "end must be after start",
    "include_users is not supported for csv",
    "invalid start timestamp",
    "invalid end timestamp",
    "invalid as_of timestamp",
    "invalid restated_since timestamp",
    "as_of must not be later than now",
    "as_of needs the ledger",
    "restated_since needs the ledger",
    "restated_since is only available for the whole cluster",
    "tz without interval",
    "unknown tz",
    "too many periods",
}
# Documented as booleans, which is what they are for; any word but `true` is false, as ever.
_ODD_FLAG = re.compile(r"[?&](include_users|include_usage|raw)=(?!(true|false|)(&|$))")
_OUTSIDE_YEARS = re.compile(
    r"(start|end|as_of|restated_since)=(?!19[7-9]\d|20\d\d|21\d\d|22[0-5]\d|2260)"
)


_CREDENTIALS = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
_LOG_IN = {"Authorization": f"Basic {_CREDENTIALS}"}
schema = schemathesis.openapi.from_dict(
    DOCUMENT,
    config=schemathesis.Config.from_dict(
        {
            "seed": 20260401,
            "generation": {"max-examples": 20, "database": "none"},
        }
    ),
)


@schema.parametrize()
def test_every_route_keeps_to_the_document(
    case: schemathesis.Case[Any], whole: httpx.Client
) -> None:
    base_url = str(whole.base_url).rstrip("/")
    response = case.call(base_url, headers=_LOG_IN)
    excluded: list[CheckFunction] = []
    if response.status_code == 400 and _not_expressible(response):
        excluded.append(positive_data_acceptance)
    if _ODD_FLAG.search(str(response.request.url)):
        excluded.append(negative_data_rejection)
    case.validate_response(response, excluded_checks=excluded, headers=_LOG_IN)


def _not_expressible(response: schemathesis.Response) -> bool:
    text = response.json()["error"]
    if text.endswith("timestamp"):
        return bool(_OUTSIDE_YEARS.search(str(response.request.url)))
    return text in NOT_EXPRESSIBLE


def test_the_document_is_the_one_that_is_served(stranger: httpx.Client) -> None:
    as_json = stranger.get("/schema/openapi.json")
    assert as_json.headers["content-type"] == "application/json"
    assert as_json.json() == DOCUMENT
    as_yaml = stranger.get("/schema/openapi.yaml")
    assert as_yaml.headers["content-type"] == "application/yaml"
    assert yaml.safe_load(as_yaml.text) == DOCUMENT


def test_every_route_is_documented_and_every_documented_route_exists() -> None:
    telemetry = Telemetry()
    nobody = Authenticator(BasicAuth("", ""), None, FailedLogins(per_minute=1, addresses_most=1))
    answering = aggregator(NOTHING, telemetry)
    routes = create_routes(
        answering,
        Answers(answering, Lanes(LaneSettings(), telemetry), CacheSettings(), telemetry),
        Authentication(nobody, Proxies([]), SHOW_EVERYTHING),
        telemetry,
        "0.1.0",
    )
    templates = {path.replace(":str}", "}") for route in routes for path in route.paths}
    assert templates == DOCUMENT["paths"].keys() | NOT_DOCUMENTED


def operations() -> Iterator[tuple[str, Json]]:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            yield path, operation


def test_every_operation_says_what_people_need() -> None:
    names = [operation["operationId"] for _, operation in operations()]
    assert len(names) == len(set(names))
    for path, operation in operations():
        assert operation["summary"], path
        assert operation["description"], path
        expected = {"200", "405", "413", "500"}
        if path.startswith("/system/"):
            assert operation["security"] == [{"basic": []}, {"bearer": []}]
            expected |= {"400", "401", "414", "429", "503"}
        assert operation["responses"].keys() >= expected, path
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (path, parameter["name"])


@pytest.mark.parametrize(
    ("path", "required"),
    [
        ("/system/metrics/value", {"service_id", "metric"}),
        ("/system/metrics/breakdown", {"group_by"}),
        ("/system/metrics/{serviceName}", {"serviceName"}),
        ("/system/metrics/summary", set()),
    ],
)
def test_required_parameters_are_documented_as_such(path: str, required: set[str]) -> None:
    parameters = DOCUMENT["paths"][path]["get"]["parameters"]
    assert {p["name"] for p in parameters if p["required"]} == required


def test_every_operation_has_the_parameters_that_are_read() -> None:
    read: dict[str, tuple[str, ...]] = {
        "/system/metrics": SERIES_PARAMETERS,
        "/system/metrics/summary": SERIES_PARAMETERS,
        "/system/metrics/value": VALUE_PARAMETERS,
        "/system/metrics/breakdown": BREAKDOWN_PARAMETERS,
        "/system/metrics/{serviceName}": (*SERVICE_PARAMETERS, "serviceName"),
    }
    documented = {
        path: {parameter["name"] for parameter in operation["parameters"]}
        for path, operation in operations()
        if path.startswith("/system/")
    }
    headers = ("Prefer", "Cache-Control", "If-None-Match")
    expected = {path: {*names, *headers} for path, names in read.items()}
    assert documented == {**expected, "/system/metrics/owners": {"Prefer"}}


def test_every_field_says_what_it_means() -> None:
    for name, shape in DOCUMENT["components"]["schemas"].items():
        for field, schema in shape.get("properties", {}).items():
            assert schema["description"], (name, field)


def test_no_shape_of_todays_clients_takes_null() -> None:
    reached: set[str] = set()
    waiting = ["SummaryWithoutNull", "ServiceMetricsWithoutNull", "ValueWithoutNull"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        text = str(DOCUMENT["components"]["schemas"][name])
        assert "'null'" not in text, name
        waiting += set(re.findall(r"schemas/(\w+)", text)) - reached
    assert "TotalsWithoutNull" in reached
    assert "'null'" in str(DOCUMENT["components"]["schemas"]["Totals"])


def documented(path: str, response: httpx.Response) -> Json:
    """The schema of what a route answers with that status."""
    answers = DOCUMENT["paths"][path]["get"]["responses"][str(response.status_code)]
    schema: Json = answers["content"]["application/json"]["schema"]
    return schema


def validate(instance: Any, schema: Json) -> None:
    """Against a schema of the document, formats included, with nothing that it does not name."""
    strict = {
        name: {**shape, "additionalProperties": False} if "properties" in shape else shape
        for name, shape in DOCUMENT["components"]["schemas"].items()
    }
    whole_schema = {**schema, "components": {"schemas": strict}}
    validator = jsonschema.Draft202012Validator(
        whole_schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    validator.validate(instance)


ANSWERS = [
    ("/system/metrics", ""),
    ("/system/metrics/summary", ""),
    ("/system/metrics/value", "service_id=cowsay&metric=cpu-hours"),
    ("/system/metrics/value", "service_id=cowsay&metric=users-per-service"),
    ("/system/metrics/breakdown", "group_by=service&include_users=true&include_usage=true"),
    ("/system/metrics/breakdown", "group_by=user"),
    ("/system/metrics/breakdown", "group_by=country"),
    ("/system/metrics/breakdown", "group_by=vo&interval=day"),
    ("/system/metrics/breakdown", "group_by=project"),
    ("/system/metrics", "interval=week"),
    ("/system/metrics/summary", "interval=day&tz=Europe/Madrid"),
    ("/system/metrics/breakdown", "group_by=service&interval=month&include_usage=true"),
    ("/system/metrics/breakdown", "group_by=user&interval=day"),
    ("/system/metrics/breakdown", "group_by=country&interval=day"),
    ("/system/metrics/{serviceName}", ""),
    ("/system/metrics/{serviceName}", "metric=gpu-hours"),
    ("/system/metrics/owners", ""),
    ("/healthz", ""),
    ("/readyz", ""),
]


@pytest.mark.parametrize(("path", "query"), ANSWERS)
@pytest.mark.parametrize("world", ["whole", "nothing"])
def test_real_answers_are_valid_and_name_nothing_undocumented(
    request: pytest.FixtureRequest, world: str, path: str, query: str
) -> None:
    client: httpx.Client = request.getfixturevalue(world)
    spans = f"start={RANGE['start']}&end={RANGE['end']}"
    response = client.get(f"{path.replace('{serviceName}', 'cowsay')}?{query}&{spans}")
    schema = documented(path, response)
    validate(response.json(), schema)
    if "WithoutNull" not in str(schema):
        return
    with pytest.raises(jsonschema.ValidationError):
        validate({**response.json(), "start": None}, schema)


@pytest.mark.parametrize(
    "asked",
    [
        "summary?end=x",
        "value",
        "breakdown?group_by=x",
        "breakdown?group_by=owner&owner=x",
        "owners?" + "x" * 9000,
    ],
)
def test_error_bodies_are_valid(whole: httpx.Client, asked: str) -> None:
    response = whole.get(f"/system/metrics/{asked}")
    path = f"/system/metrics/{asked.partition('?')[0]}"
    validate(response.json(), documented(path, response))


def test_every_example_is_valid() -> None:
    checked = 0
    for _, operation in operations():
        contents = [
            content
            for answer in operation["responses"].values()
            for content in answer.get("content", {}).values()
        ]
        for content in contents:
            examples = [example["value"] for example in content.get("examples", {}).values()]
            examples += [content["example"]] if "example" in content else []
            for example in examples:
                validate(example, content["schema"])
                checked += 1
    assert checked >= 10


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/yaml", "application/yaml"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
    ],
)
def test_schema_answers_in_the_form_that_is_preferred(
    stranger: httpx.Client, accept: str, content_type: str
) -> None:
    response = stranger.get("/schema", headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == content_type
    assert response.headers["vary"] == "Accept"


def test_the_page_loads_only_what_we_ship(stranger: httpx.Client) -> None:
    page = stranger.get("/schema", headers={"Accept": "text/html"})
    assert page.headers["content-security-policy"].startswith("default-src 'none'; ")
    assert "http" not in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assets = [address for address in loaded if address != "data:,"]
    assert len(assets) == 3
    types = {"js": "text/javascript", "css": "text/css"}
    for address in assets:
        response = stranger.get(address)
        assert response.status_code == 200
        assert response.headers["content-type"].split(";")[0] == types[address.split(".")[-1]]
    script = stranger.get("/schema/page/swagger-ui.js").text
    version = re.search(r'"(5\.\d+\.\d+)"', script)
    assert version is not None, "Swagger UI knows OpenAPI 3.1 from version 5"
    assert stranger.get("/schema/page/url.json").status_code == 404
