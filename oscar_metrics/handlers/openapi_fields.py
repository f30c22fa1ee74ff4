"""What each field of an answer means and in which unit, for the OpenAPI document. Pure.

By field name; `Shape.field` where a name means something else in one shape.
"""

from __future__ import annotations

from typing import Any


def _text(description: str) -> dict[str, Any]:
    return {"description": description}


def _count(description: str) -> dict[str, Any]:
    return {"description": description, "minimum": 0}


def _time(description: str) -> dict[str, Any]:
    return {"description": description, "format": "date-time"}


FIELDS: dict[str, dict[str, Any]] = {
    # The range and what was asked.
    "start": _time("First instant of the range, as the caller wrote it."),
    "end": _time("Last instant of the range, included, as the caller wrote it."),
    "service_id": _text("The service asked for."),
    "service_name": _text("The service asked for."),
    "metric": _text("The metric's key."),
    "value": _count("The figure, in `unit` where there is one; null when its source is missing."),
    "unit": {"description": "`hours` for CPU and GPU; absent for counts.", "enum": ["hours"]},
    "metrics": _text("Every metric of the service, in a fixed order."),
    "group_by": _text("What there is a row for, in the caller's casing."),
    "items": _text("The rows, ascending by key; empty when what supplies them is missing."),
    "totals": _text("The totals of the range."),
    # Calls.
    "services_count_active": _count("Services deployed now."),
    "services_count_total": _count("Distinct service names called in the range."),
    "requests_count_total": _count("Executions, sync and async, failed ones included."),
    "requests_count_sync": _count("Synchronous executions (/run)."),
    "requests_count_async": _count("Asynchronous executions (/job)."),
    "requests_count_exposed": _count("Requests that reached services through the gateway."),
    "executions_count": _count("Executions, sync and async, failed ones included."),
    "failed_count": _count("Executions answered with 4xx or 5xx; they are in the totals."),
    # Where from and by whom.
    "countries_count": _count("Distinct countries of executions, `unknown` not among them."),
    "countries": _text("Executions per country, ascending by country."),
    "country": _text(
        "ISO 3166-1 alpha-2; a name no code could be found for, verbatim; in a row of "
        "its own, `unknown`."
    ),
    "request_count": _count("Executions from that country."),
    "unknown_country_count": _count("Executions whose country is not known."),
    "users_count": _count("Distinct users of executions."),
    "unique_users_count": _count("Distinct users of executions."),
    "users": _text("User ids, ascending."),
    "membership": _text("The roster's word, else what the form of the user id says."),
    # Usage.
    "cpu_hours_total": _count("CPU core-hours used by all services."),
    "gpu_hours_total": _count("GPU-hours allocated to all services."),
    "cpu_hours": _count("CPU core-hours; only with `include_usage=true`."),
    "gpu_hours": _count("GPU-hours; only with `include_usage=true`."),
    "unattributed": _text("True on the blank row of usage no service could be found for."),
    # Rows.
    "key": _text("What the row is about: a service name, a user id or a country."),
    "namespaces": _text("Namespaces the name was called in, where the records say."),
    # How sure.
    "sources": _text("What became of each source the answer rests on."),
    "Readiness.sources": _text("By source, what it said when last asked; administrator only."),
    "name": _text("The source."),
    "status": _text("How much of what was asked the source could say."),
    "Health.status": {"description": "Always `ok`.", "const": "ok"},
    "Readiness.status": {"description": "Always `ready`.", "const": "ready"},
    "last_updated": _time("When the source last knew something new; absent when missing."),
    "notes": _text("What is missing or in doubt, for people; never empty unless ok."),
    "origin": _text("What stood behind the source, for example `prometheus` or `log-files`."),
    "coverage": {
        "description": "Share of the range, up to now, that the source speaks for.",
        "minimum": 0,
        "maximum": 1,
    },
    "gaps": _text("Stretches of the range the source does not speak for."),
    "affects": _text("Fields of the answer that are missing or in doubt because of the source."),
    "WireGap.start": _time("First instant of the gap."),
    "WireGap.end": _time("First instant after the gap."),
    "reason": _text("Why the source does not speak for it."),
    "at": _time("When it said so."),
    # Owners.
    "owners": _text("Owners, ascending by name in lower case."),
    "id": _text("The owner's user id; `cluster_admin` for the platform itself."),
    "Owner.name": _text("What people call the owner; the id where nothing else is known."),
    "namespace": _text("The owner's namespace."),
    # Errors.
    "error": _text("What is wrong, in a text that does not change."),
    "parameter": _text("The parameter it is about."),
    "detail": _text("What was expected, for people."),
}
