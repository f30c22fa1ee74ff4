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
from oscar_metrics.handlers import openapi_parameters as takes
from oscar_metrics.handlers.health import Health, Readiness
from oscar_metrics.handlers.openapi_fields import FIELDS

Json = dict[str, Any]

_SHAPES = (
    wire.Value,
    wire.ServiceMetrics,
    wire.Summary,
    wire.ServiceBreakdown,
    wire.UserBreakdown,
    wire.CountryBreakdown,
    wire.OwnerBreakdown,
    wire.AffiliationBreakdown,
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

The administrator sees the cluster, and so do the users an operator names; every other user
their own services, deleted ones included. A service that is somebody else's and one that never
was are the same 403 to them.

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
            {"name": "reports", "description": "Usage over a range, of what the caller may see."},
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
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A user: an access token of one of OIDC_ISSUERS. They see "
                    "their own services, those of USERS_ADMIN the cluster.",
                },
            },
        },
    }
    plain: Json = msgspec.json.decode(msgspec.json.encode(written))
    return plain


def _report_paths() -> Json:
    time_range = [takes.START, takes.END, takes.AS_OF, takes.RESTATED_SINCE, takes.OWNER]
    series = [*time_range, takes.INTERVAL, takes.TZ]
    return {
        "/system/metrics/value": _report(
            "value",
            "One metric of one service",
            "Null when the metric's source is missing. Unknown parameters are refused.",
            [takes.SERVICE_ID, takes.metric(required=True), *time_range],
            _json_content("Value", examples.VALUE),
            more={**_FORBIDDEN, **_UNKNOWN_OWNER},
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
            more=_UNKNOWN_OWNER,
        ),
        "/system/metrics/breakdown": _report(
            "breakdown",
            "Rows per service, user, country, owner, VO or project",
            "JSON, or CSV by `format` or by `Accept: text/csv`. A missing source leaves its "
            "fields null (empty in CSV) and, where it supplies the rows, no rows. CSV with "
            "`group_by=service` and `include_users=true` is refused.",
            [*takes.BREAKDOWN, *series],
            _breakdown_content(),
            headers=_CSV_HEADERS,
            compatible=True,
            more={**_FORBIDDEN, **_UNKNOWN_OWNER},
        ),
        "/system/metrics": _report(
            "summaryForToday",
            "Totals over a range, for today's OSCAR clients",
            "As /system/metrics/summary, with 0 where that says null.",
            series,
            _json_content("Summary" + _WITHOUT_NULL, examples.SUMMARY),
            compatible=True,
            more=_UNKNOWN_OWNER,
        ),
        "/system/metrics/{serviceName}": _report(
            "service",
            "One metric of a service, or all six",
            "One when `metric` is given, in the shape of /value; else all, in a fixed order; "
            "0 where the source is missing. A service named value, summary, breakdown or "
            "owners is reached by /value.",
            [takes.SERVICE_NAME, takes.metric(required=False), *time_range],
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
            more={**_FORBIDDEN, **_UNKNOWN_OWNER},
        ),
        "/system/metrics/owners": _report(
            "owners",
            "Owners an administrator may filter by",
            "Sorted by name in lower case; past ones, too. For administrators. 503 while the "
            "service inventory cannot be read.",
            [],
            _json_content("Owners", examples.OWNERS),
            headers=_COMPLETENESS_HEADER,
            compatible=True,
            kept=False,
            more=_FORBIDDEN,
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
            "administrator's credentials it adds what each source said when last asked, and which "
            "upstreams are asked.",
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
    kept: bool = True,
    more: Json,
) -> Json:
    """A report route; a `compatible` one ignores unknown parameters and names them.

    What is `kept` of it may be answered again, and compared with what a client has.
    """
    answered = {**_APPLIED_HEADER, **(headers or {}), **(_IGNORED_HEADER if compatible else {})}
    if kept:
        answered = {**_KEPT_HEADERS, **answered}
    same = {"description": "The same as `If-None-Match` names.", "headers": answered}
    of_kept = [takes.CACHE_CONTROL, takes.IF_NONE_MATCH] if kept else []
    responses: Json = {
        "200": {"description": "The report.", "content": content, "headers": answered},
        **({"304": same} if kept else {}),
        **_ASKED_BADLY,
        **more,
        **_ALWAYS,
        **_NOT_NOW,
    }
    return {
        "get": {
            "operationId": name,
            "tags": ["reports"],
            "summary": summary,
            "description": description,
            "parameters": [*parameters, takes.PREFER, *of_kept],
            "security": [{"basic": []}, {"bearer": []}],
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
    shapes = (
        "ServiceBreakdown",
        "UserBreakdown",
        "CountryBreakdown",
        "OwnerBreakdown",
        "AffiliationBreakdown",
    )
    return {
        "application/json": {
            "schema": {"anyOf": [_ref(name) for name in shapes]},
            "examples": {
                "service": {"value": examples.SERVICE_BREAKDOWN},
                "user": {"value": examples.USER_BREAKDOWN},
                "country": {"value": examples.COUNTRY_BREAKDOWN},
                "owner": {"value": examples.OWNER_BREAKDOWN},
                "vo": {"value": examples.VO_BREAKDOWN},
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


def _error(description: str, headers: Json | None = None, **example: str) -> Json:
    """An error; `example` are the members of one such body."""
    content: Json = {"schema": _ref("ErrorBody")}
    if example:
        content["example"] = example
    answer: Json = {"description": description, "content": {"application/json": content}}
    return {**answer, "headers": headers} if headers else answer


def _header(description: str) -> Json:
    return {"description": description, "schema": {"type": "string"}}


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(name=name)}


_RETRY_AFTER = {"Retry-After": _header("Seconds after which to ask again.")}
_CHALLENGE = {"WWW-Authenticate": _header("`Basic`, or `Bearer` for a Bearer request.")}
_APPLIED_HEADER = {
    "Preference-Applied": _header("`wait=` and the seconds the report was given, where asked for.")
}
_KEPT_HEADERS = {
    "ETag": _header("What `If-None-Match` may name; not of a report so large that it is streamed."),
    "Age": _header("Seconds since the report was made, where it was kept."),
    "Cache-Control": _header("`private, no-cache`: to be kept by its caller, and asked for anew."),
}
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
_ASKED_BADLY = {
    "400": _error(
        "A parameter is missing, not understood or not the caller's to give.",
        error="invalid end timestamp",
        parameter="end",
        detail="expected an RFC 3339 time, 1970 to 2260, for example 2026-01-31T23:59:59Z",
    ),
    "401": _error("Bad or no credentials.", _CHALLENGE, error="unauthorized"),
    "414": _error("The query string is longer than 8 KiB.", error="query string is too long"),
    "429": _error(
        "Log-ins from this address keep failing; the right credentials still work.",
        _RETRY_AFTER,
        error="too many failed log-ins",
    ),
}
_FORBIDDEN = {
    "403": _error(
        "Not for this user: somebody else's service, one that never was (the same answer), or "
        "what is for administrators.",
        error="forbidden",
    )
}
_UNKNOWN_OWNER = {
    "404": _error("No such owner.", error="metrics owner not found", parameter="owner")
}
_NOT_NOW = {
    "503": _error(
        "What the answer rests on cannot be read now: the service inventory (for users, owners), "
        "the ledger, or the issuer of the token. Or too many reports are asked for at once, or the "
        "server is stopping.",
        _RETRY_AFTER,
        error="service inventory unavailable",
        detail="service-inventory: kubernetes could not be reached",
    )
}
_ALWAYS = {
    "405": _error("Reports are read: GET and HEAD.", {"Allow": _header("The methods there are.")}),
    "413": _error("The request has a body of more than 64 KiB.", error="request body is too large"),
    "500": _error("A mistake of ours; the log has it.", error="internal error"),
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
