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
    "as_of": _time("When everything here was known, as the caller wrote it; absent for now."),
    "service_id": _text("The service asked for."),
    "service_name": _text("The service asked for."),
    "metric": _text("The metric's key."),
    "value": _count("The figure, in `unit` where there is one; null when its source is missing."),
    "unit": {"description": "`hours` for CPU and GPU; absent for counts.", "enum": ["hours"]},
    "metrics": _text("Every metric of the service, in a fixed order."),
    "group_by": _text("What there is a row for, in the caller's casing."),
    "items": _text("The rows, ascending by key; empty when what supplies them is missing."),
    "totals": _text("The totals of the range."),
    # Series.
    "periods": _text("The same of each period, in order; absent unless `interval` was asked."),
    "period": {
        "description": "What the hour, day, week or month is called.",
        "examples": ["2026-01-01T10:00:00+01:00", "2026-01-01", "2026-W01", "2026-01"],
    },
    "incomplete": _text(
        "Sources that do not speak for the whole period; a number of theirs is null where they "
        "say nothing of it."
    ),
    **{
        f"{shape}Period.{name}": _time(f"{which} instant of the period within the range, included.")
        for shape in ("Summary", "Service", "User", "Country", "Owner", "Affiliation")
        for name, which in (("start", "First"), ("end", "Last"))
    },
    # Calls.
    "services_count_active": _count(
        "Services deployed now, or at `as_of`; null in a period, where nobody asked."
    ),
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
    "OwnerItem.unattributed": _text("True on the blank row of what is nobody's."),
    # Rows.
    "key": _text("What the row is about: a service name, a user id or a country."),
    "OwnerItem.key": _text("The owner's user id; `cluster_admin` for the platform itself."),
    "AffiliationItem.key": _text(
        "The VO or project; blank for calls of users who have none, or who are not shown."
    ),
    "OwnerItem.name": _text("What people call the owner; the id where nothing else is known."),
    "services_count": _count("Distinct services of the owner that were called in the range."),
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
    # The ledger.
    "ledger": _text("What of the source's facts was read from the ledger; absent for nothing."),
    "LedgerPart.coverage": {
        "description": "Share of the range, up to now, that was read from the ledger.",
        "minimum": 0,
        "maximum": 1,
    },
    "first_sealed_at": _time("When the oldest of what was read had been sealed."),
    "last_sealed_at": _time("When the newest of what was read had been sealed."),
    "provisional_hours": _count("Hours read that may still be restated for late lines."),
    "restated": _text(
        "Hours of the range sealed anew since `restated_since`; absent unless that was asked."
    ),
    "source": _text("The source whose hour it is."),
    "Restatement.start": _time("First instant of the hour."),
    "Restatement.end": _time("First instant after the hour."),
    "sealed_at": _time("When it was sealed anew."),
    "was": _count("What it counted as before: calls, or CPU core-hours where the source is usage."),
    "now": _count("What it counts as now, in the same unit."),
    # How far the ledger is.
    "upstreams": _text(
        "By upstream, whether it is asked, not asked for a while after failing again and again, or "
        "by one call only; administrator only."
    ),
    "Readiness.ledger": _text("How far the ledger is, where there is one; administrator only."),
    "usable": _text("Whether reports can read it."),
    "problems": _text("What stands in the way, for people."),
    "doubts": _text("Hours a source told in two ways, or not sealed for the clock's sake."),
    "kinds": _text("By kind of facts, how far they are sealed."),
    "sealed_up_to": _time("End of the newest sealed hour; null for none."),
    "lag_seconds": _count("How long ago that was."),
    "unsealed_hours": _count("Hours within reach that are not sealed."),
    "KindStatus.provisional_hours": _count("Sealed hours that will be looked at again."),
    "partial_hours": _count("Sealed hours of which something is missing."),
    "next_hole": _time("The newest past hour that is not sealed; null for none."),
    "expiring": _text("Unsealed hours that their source is about to drop; null for none."),
    "last_error": _text("Why the last question that failed did; null for none."),
    "hours": _count("How many hours."),
    "seconds_left": _count("How long until the first of them is gone."),
    "ExpiringStatus.start": _time("First instant of the first hour."),
    "ExpiringStatus.end": _time("First instant after the last hour."),
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
