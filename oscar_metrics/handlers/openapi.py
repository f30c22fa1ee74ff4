"""The OpenAPI 3.1 document: the contract for programs. Pure.

Shapes come from wire.py, so that what is documented is what is encoded; what each field
means and in which unit is in openapi_fields.py, and the routes are here.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from oscar_metrics import wire
from oscar_metrics.handlers import openapi_examples as examples
from oscar_metrics.handlers.health import Health, Readiness
from oscar_metrics.handlers.openapi_fields import FIELDS
from oscar_metrics.periods import DEFAULT_ZONE, Interval
from oscar_metrics.wire import SERVICE_METRICS, GroupBy

Json = dict[str, Any]

_SHAPES = (
    wire.Value,
    wire.ServiceMetrics,
    wire.Summary,
    wire.ServiceBreakdown,
    wire.UserBreakdown,
    wire.CountryBreakdown,
    wire.OwnerBreakdown,
    wire.Owners,
    wire.ErrorBody,
    Health,
    Readiness,
)
# Shapes that exist a second time for the two routes whose clients decode no null.
_TWICE = ("Value", "ServiceMetrics", "ServiceMetric", "Summary", "SummaryPeriod", "Totals")
_WITHOUT_NULL = "WithoutNull"
_REF = "#/components/schemas/{name}"

_ABOUT = """Who used which service of an OSCAR cluster, from where, how much, and how sure are we?

A number is exact, or the answer says what is missing: every report lists its `sources`, and
what a source that could not be read would have supplied is `null`, never 0. On
`/system/metrics` and `/system/metrics/{serviceName}`, which today's clients call, the same
number is 0 with the same sources.

Times are RFC 3339 with seconds and an offset; both ends of a range are included, and an `end`
in the last second before a quarter-hour (23:59:59Z) means up to that quarter-hour.

Hours that were sealed in the ledger are read from it: `sources[].ledger` says how much of an
answer was, `as_of` gives it as it was known at another time, `restated_since` what changed."""


def document(version: str) -> Json:
    """The whole document, as plain values that any encoder takes."""
    written: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "OSCAR Metrics",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "reports", "description": "Usage over a range, for the administrator."},
            {"name": "operation", "description": "How the process itself is doing."},
            {"name": "schema", "description": "This document."},
        ],
        "paths": {**_report_paths(), **_operation_paths(), **_schema_paths()},
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The administrator: OSCAR_USERNAME and OSCAR_PASSWORD.",
                }
            },
        },
    }
    plain: Json = msgspec.json.decode(msgspec.json.encode(written))
    return plain


def _report_paths() -> Json:
    time_range = [_START, _END, _AS_OF, _RESTATED_SINCE]
    series = [*time_range, _INTERVAL, _TZ]
    return {
        "/system/metrics/value": _report(
            "value",
            "One metric of one service",
            "Null when the metric's source is missing. Unknown parameters are refused.",
            [_SERVICE_ID, _metric(required=True), *time_range],
            _json_content("Value", examples.VALUE),
        ),
        "/system/metrics/summary": _report(
            "summary",
            "Totals over a range",
            "A total whose source is missing is null. Unknown parameters are refused.",
            series,
            {
                "application/json": {
                    "schema": _ref("Summary"),
                    "examples": {
                        "total": {"value": examples.SUMMARY},
                        "series": {"value": examples.SUMMARY_SERIES},
                    },
                }
            },
        ),
        "/system/metrics/breakdown": _report(
            "breakdown",
            "Rows per service, user, country or owner",
            "JSON, or CSV by `format` or by `Accept: text/csv`. A missing source leaves its "
            "fields null (empty in CSV) and, where it supplies the rows, no rows. CSV with "
            "`group_by=service` and `include_users=true` is refused.",
            [_GROUP_BY, _FORMAT, _INCLUDE_USERS, _INCLUDE_USAGE, _RAW, *series],
            _breakdown_content(),
            headers=_CSV_HEADERS,
            compatible=True,
        ),
        "/system/metrics": _report(
            "summaryForToday",
            "Totals over a range, for today's OSCAR clients",
            "As /system/metrics/summary, with 0 where that says null.",
            series,
            _json_content("Summary" + _WITHOUT_NULL, examples.SUMMARY),
            compatible=True,
        ),
        "/system/metrics/{serviceName}": _report(
            "service",
            "One metric of a service, or all six",
            "One when `metric` is given, in the shape of /value; else all, in a fixed order; "
            "0 where the source is missing. A service named value, summary, breakdown or "
            "owners is reached by /value.",
            [_SERVICE_NAME, _metric(required=False), *time_range],
            {
                "application/json": {
                    "schema": {
                        "anyOf": [
                            _ref("ServiceMetrics" + _WITHOUT_NULL),
                            _ref("Value" + _WITHOUT_NULL),
                        ]
                    },
                    "examples": {
                        "all": {"value": examples.SERVICE_METRICS},
                        "one": {"value": examples.VALUE},
                    },
                }
            },
            compatible=True,
        ),
        "/system/metrics/owners": _report(
            "owners",
            "Owners an administrator may filter by",
            "Sorted by name in lower case. 503 while the service inventory cannot be read.",
            [],
            _json_content("Owners", examples.OWNERS),
            headers=_COMPLETENESS_HEADER,
            compatible=True,
            more={"503": _error("The service inventory cannot be read now.", _RETRY_AFTER)},
        ),
    }


def _operation_paths() -> Json:
    text = {"schema": {"type": "string"}}
    return {
        "/healthz": _open(
            "healthz",
            "operation",
            "The process is alive",
            _json_content("Health", {"status": "ok"}),
        ),
        "/readyz": _open(
            "readyz",
            "operation",
            "The process can answer",
            _json_content("Readiness", {"status": "ready"}),
            "200 whenever the process can answer, with every source down too. With the "
            "administrator's credentials it adds what each source said when last asked.",
        ),
        "/metrics": _open(
            "metrics",
            "operation",
            "The process's own metrics",
            {"text/plain": text, "application/openmetrics-text": text},
            "Prometheus text, or OpenMetrics by `Accept`.",
        ),
    }


def _schema_paths() -> Json:
    any_object: Json = {"schema": {"type": "object"}}
    text = {"schema": {"type": "string"}}
    as_json, as_yaml = {"application/json": any_object}, {"application/yaml": any_object}
    return {
        "/schema": _open(
            "schema",
            "schema",
            "This document, or a page to browse it",
            {**as_json, **as_yaml, "text/html": text},
            "By `Accept`: a browser gets the page, everyone else JSON or YAML.",
        ),
        "/schema/openapi.json": _open("schemaJson", "schema", "This document as JSON", as_json),
        "/schema/openapi.yaml": _open("schemaYaml", "schema", "This document as YAML", as_yaml),
    }


def _report(
    name: str,
    summary: str,
    description: str,
    parameters: list[Json],
    content: Json,
    *,
    headers: Json | None = None,
    compatible: bool = False,
    more: Json | None = None,
) -> Json:
    """A report route; a `compatible` one ignores unknown parameters and names them."""
    answered = {**(headers or {}), **(_IGNORED_HEADER if compatible else {})}
    responses: Json = {
        "200": {"description": "The report.", "content": content, "headers": answered},
        "400": _error("A parameter is missing or not understood."),
        "401": _error("Bad or no credentials.", _CHALLENGE),
        **_ALWAYS,
        "414": _error("The query string is longer than 8 KiB."),
        "503": _error("Only the ledger could say, and it cannot be read now.", _RETRY_AFTER),
        **(more or {}),
    }
    return {
        "get": {
            "operationId": name,
            "tags": ["reports"],
            "summary": summary,
            "description": description,
            "parameters": parameters,
            "security": [{"basic": []}],
            "responses": responses,
        }
    }


def _open(name: str, tag: str, summary: str, content: Json, description: str = "") -> Json:
    """A route that asks for no credentials."""
    return {
        "get": {
            "operationId": name,
            "tags": [tag],
            "summary": summary,
            "description": description or summary + ".",
            "security": [],
            "responses": {"200": {"description": summary + ".", "content": content}, **_ALWAYS},
        }
    }


def _breakdown_content() -> Json:
    shapes = ("ServiceBreakdown", "UserBreakdown", "CountryBreakdown", "OwnerBreakdown")
    return {
        "application/json": {
            "schema": {"anyOf": [_ref(name) for name in shapes]},
            "examples": {
                "service": {"value": examples.SERVICE_BREAKDOWN},
                "user": {"value": examples.USER_BREAKDOWN},
                "country": {"value": examples.COUNTRY_BREAKDOWN},
                "owner": {"value": examples.OWNER_BREAKDOWN},
                "series": {"value": examples.USER_SERIES},
            },
        },
        "text/csv": {
            "schema": {
                "type": "string",
                "description": "A header line, then a row per item; the countries cell is "
                "`ES:3|FR:1`; what is not known is an empty cell. Text a spreadsheet would "
                "take for a formula is prefixed with `'` unless `raw=true`. With `interval` a "
                "first column `period`, and the rows of the whole range last, as `total`.",
            },
            "examples": {
                "total": {"value": examples.USER_CSV},
                "series": {"value": examples.USER_SERIES_CSV},
            },
        },
    }


def _json_content(shape: str, example: Any) -> Json:
    return {"application/json": {"schema": _ref(shape), "example": example}}


def _error(description: str, headers: Json | None = None) -> Json:
    answer: Json = {
        "description": description,
        "content": {"application/json": {"schema": _ref("ErrorBody")}},
    }
    return {**answer, "headers": headers} if headers else answer


def _header(description: str) -> Json:
    return {"description": description, "schema": {"type": "string"}}


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


def _query(name: str, description: str, schema: Json, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": schema,
        **({} if required else {"allowEmptyValue": True}),
    }


def _flag(name: str, description: str) -> Json:
    schema = {"type": "boolean", "default": False}
    return _query(name, f"{description} Only `true` turns it on.", schema)


def _metric(*, required: bool) -> Json:
    what = "Which metric." if required else "Which metric; all six when absent."
    return _query(
        "metric",
        f"{what} `cpu-hours` (CPU core-hours) and `gpu-hours` (GPU-hours) come with the unit "
        "`hours`; the others are counts.",
        {"type": "string", "enum": list(SERVICE_METRICS), "examples": ["cpu-hours"]},
        required=required,
    )


_TIME = {"type": "string", "format": "date-time"}
_START = _query(
    "start",
    "First instant of the range (RFC 3339, 1970 to 2260); a day before `end` when absent.",
    {**_TIME, "examples": ["2026-04-01T00:00:00Z"]},
)
_END = _query(
    "end",
    "Last instant of the range (RFC 3339, 1970 to 2260), included; now when absent.",
    {**_TIME, "examples": ["2026-04-30T23:59:59Z"]},
)
_AS_OF = _query(
    "as_of",
    "Every number as it was known then (RFC 3339); now when absent. Refused where the ledger "
    "cannot say: `detail` names the first quarter-hour that was not sealed then.",
    {**_TIME, "examples": ["2026-05-02T00:00:00Z"]},
)
_RESTATED_SINCE = _query(
    "restated_since",
    "List which hours of the range were sealed anew since then (RFC 3339), and by how much.",
    {**_TIME, "examples": ["2026-05-02T00:00:00Z"]},
)
_INTERVAL = _query(
    "interval",
    "Add the same for each hour, day, week (from Monday) or month of the range.",
    {"type": "string", "enum": list(Interval)},
)
_TZ = _query(
    "tz",
    "Whose hours, days, weeks and months: an IANA time zone. Only with `interval`.",
    {"type": "string", "default": DEFAULT_ZONE, "examples": ["Europe/Madrid"]},
)
_SERVICE_ID = _query(
    "service_id",
    "Name of the service. One nothing is known of answers 0.",
    {"type": "string", "minLength": 1, "examples": ["cowsay"]},
    required=True,
)
_SERVICE_NAME = {
    "name": "serviceName",
    "in": "path",
    "required": True,
    "description": "Name of the service. One nothing is known of answers 0.",
    "schema": {"type": "string", "minLength": 1, "pattern": r"^[^/]*[^/\s][^/]*$"},
    "example": "cowsay",
}
_GROUP_BY = _query(
    "group_by",
    "What there is a row for, `owner` for administrators only; case does not matter and is echoed.",
    {"type": "string", "enum": list(GroupBy)},
    required=True,
)
_FORMAT = _query(
    "format",
    "What to write; beats `Accept`; case does not matter.",
    {"type": "string", "enum": ["json", "csv"], "default": "json"},
)
_INCLUDE_USERS = _flag("include_users", "List each service's users; not in CSV of services.")
_INCLUDE_USAGE = _flag("include_usage", "Add CPU core-hours and GPU-hours to services and owners.")
_RAW = _flag("raw", "Leave CSV text that looks like a formula as it is, for joins.")

_RETRY_AFTER = {"Retry-After": _header("Seconds after which to ask again.")}
_CHALLENGE = {"WWW-Authenticate": _header("`Basic`, or `Bearer` for a Bearer request.")}
_IGNORED_HEADER = {
    "X-Ignored-Parameters": _header("Names of parameters that were not known, percent-encoded.")
}
_COMPLETENESS_HEADER = {
    "X-Completeness": _header(
        "Each source with its status, coverage and notes, as an RFC 8941 list, where the body "
        "has no place for them."
    )
}
_CSV_HEADERS = {
    "Content-Disposition": _header(
        "CSV only: a file name with group and range, ending in `-partial` where numbers are "
        "not whole."
    ),
    **_COMPLETENESS_HEADER,
}
_ALWAYS = {
    "405": _error("Reports are read: GET and HEAD.", {"Allow": _header("The methods there are.")}),
    "500": _error("A mistake of ours; the log has it."),
}


def _schemas() -> Json:
    _, schemas = msgspec.json.schema_components(_SHAPES, ref_template=_REF)
    for shape, schema in schemas.items():
        for name, field in schema.get("properties", {}).items():
            if {"type": "number"} in (kinds := field.get("anyOf", [])):
                # A whole number is a number: JSON has one kind.
                field["anyOf"] = [kind for kind in kinds if kind != {"type": "integer"}]
            field.update(FIELDS.get(f"{shape}.{name}") or FIELDS[name])
    for shape in _TWICE:
        schemas[shape + _WITHOUT_NULL] = _without_null(copy.deepcopy(schemas[shape]))
    return schemas


def _without_null(schema: Any) -> Any:
    """The schema with every null alternative taken out, here and in what it refers to."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: _without_null(part) for name, part in schema.items()}
    match schema:
        case {"$ref": str(ref)} if (name := ref.rpartition("/")[2]) in _TWICE:
            return {**schema, **_ref(name + _WITHOUT_NULL)}
        case {"anyOf": [{"type": _} as kept, {"type": "null"}], **others}:
            return {**kept, **others}
    return schema
