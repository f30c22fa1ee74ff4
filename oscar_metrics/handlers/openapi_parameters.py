"""The parameters of the report routes, for the OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any

from oscar_metrics.periods import DEFAULT_ZONE, Interval
from oscar_metrics.wire import SERVICE_METRICS, GroupBy

Json = dict[str, Any]


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


def metric(*, required: bool) -> Json:
    """Which metric; without one the path route answers all."""
    what = "Which metric." if required else "Which metric; all six when absent."
    return _query(
        "metric",
        f"{what} `cpu-hours` (CPU core-hours) and `gpu-hours` (GPU-hours) come with the unit "
        "`hours`; the others are counts.",
        {"type": "string", "enum": list(SERVICE_METRICS), "examples": ["cpu-hours"]},
        required=required,
    )


_TIME = {"type": "string", "format": "date-time"}
START = _query(
    "start",
    "First instant of the range (RFC 3339, 1970 to 2260); a day before `end` when absent.",
    {**_TIME, "examples": ["2026-04-01T00:00:00Z"]},
)
END = _query(
    "end",
    "Last instant of the range (RFC 3339, 1970 to 2260), included; now when absent.",
    {**_TIME, "examples": ["2026-04-30T23:59:59Z"]},
)
AS_OF = _query(
    "as_of",
    "Every number as it was known then (RFC 3339); now when absent. Refused where the ledger "
    "cannot say: `detail` names the first quarter-hour that was not sealed then.",
    {**_TIME, "examples": ["2026-05-02T00:00:00Z"]},
)
RESTATED_SINCE = _query(
    "restated_since",
    "List which hours of the range were sealed anew since then (RFC 3339), and by how much. For "
    "administrators only, and not with `owner`.",
    {**_TIME, "examples": ["2026-05-02T00:00:00Z"]},
)
OWNER = _query(
    "owner",
    "Only what this owner's services did; the id of one of /system/metrics/owners. For "
    "administrators only.",
    {"type": "string", "examples": ["cluster_admin"]},
)
INTERVAL = _query(
    "interval",
    "Add the same for each hour, day, week (from Monday) or month of the range.",
    {"type": "string", "enum": list(Interval)},
)
TZ = _query(
    "tz",
    "Whose hours, days, weeks and months: an IANA time zone. Only with `interval`.",
    {"type": "string", "default": DEFAULT_ZONE, "examples": ["Europe/Madrid"]},
)
SERVICE_ID = _query(
    "service_id",
    "Name of the service. One nothing is known of answers 0 to administrators, and 403 to users.",
    {"type": "string", "minLength": 1, "examples": ["cowsay"]},
    required=True,
)
SERVICE_NAME = {
    "name": "serviceName",
    "in": "path",
    "required": True,
    "description": "Name of the service. One nothing is known of answers 0 to administrators, "
    "and 403 to users.",
    "schema": {"type": "string", "minLength": 1, "pattern": r"^[^/]*[^/\s][^/]*$"},
    "example": "cowsay",
}
GROUP_BY = _query(
    "group_by",
    "What there is a row for, `owner` for administrators only; `vo` and `project` are the "
    "callers', as the user roster has them now. Case does not matter and is echoed.",
    {"type": "string", "enum": list(GroupBy)},
    required=True,
)
FORMAT = _query(
    "format",
    "What to write; beats `Accept`; case does not matter.",
    {"type": "string", "enum": ["json", "csv"], "default": "json"},
)
INCLUDE_USERS = _flag("include_users", "List each service's users; not in CSV of services.")
INCLUDE_USAGE = _flag("include_usage", "Add CPU core-hours and GPU-hours to services and owners.")
RAW = _flag("raw", "Leave CSV text that looks like a formula as it is, for joins.")

PREFER = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "description": "`wait=` and the whole seconds the report may take (RFC 7240), up to what the "
    "operator allows; what has not arrived by then is missing, and named. Other preferences, and "
    "what makes no sense, are passed over.",
    "schema": {"type": "string", "examples": ["wait=5"]},
}

CACHE_CONTROL = {
    "name": "Cache-Control",
    "in": "header",
    "required": False,
    "description": "`no-cache` for a report that is made now; others may be some seconds old where "
    "their range is open, and minutes where it is over (`Age`).",
    "schema": {"type": "string", "examples": ["no-cache"]},
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of a report that was kept: 304 where that still is the answer.",
    "schema": {"type": "string", "examples": ['"9f86d081884c7d659a2feaa0c55ad015"']},
}

BREAKDOWN = (GROUP_BY, FORMAT, INCLUDE_USERS, INCLUDE_USAGE, RAW)
