"""The numbers a caller must get of a world, added up by hand from what the model says is seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from oscar_metrics.facts import CountryFrom, Kind, Result
from oscar_metrics.timerange import Span
from tests.scope.model import MINE, Model, Seen
from tests.scope.worlds import Called, Used


class Expected:
    """What is in a scope over a span."""

    def __init__(self, model: Model, span: Span) -> None:
        self.model = model
        called = [one for one in model.world.called if one.at_ns in span]
        used = [one for one in model.world.used if one.at_ns in span]
        self.calls: dict[Seen, list[Called]] = {seen: [] for seen in Seen}
        for one in called:
            self.calls[model.seen(one)].append(one)
        self.usage: dict[Seen, list[Used]] = {seen: [] for seen in Seen}
        for use in used:
            self.usage[model.seen(use)].append(use)

    def seen(self, *kinds: Kind, service: str | None = None) -> list[Called]:
        """The calls of some kinds, of one service name or of all."""
        return [
            one
            for seen in MINE
            for one in self.calls[seen]
            if one.key.kind in kinds and service in (None, one.key.service)
        ]

    def used(self, service: str | None = None) -> list[Used]:
        return [
            one
            for seen in MINE
            for one in self.usage[seen]
            if service in (None, one.service.service)
        ]

    def withheld(self, *kinds: Kind, service: str | None = None) -> bool:
        """Whether calls of these kinds are left out for doubt."""
        return any(
            one.key.kind in kinds and service in (None, one.key.service)
            for one in self.calls[Seen.WITHHELD]
        )

    def withheld_usage(self, service: str | None = None) -> bool:
        return any(service in (None, one.service.service) for one in self.usage[Seen.WITHHELD])

    def totals(self) -> dict[str, Any]:
        executions, exposed = self.seen(Kind.SYNC, Kind.ASYNC), self.seen(Kind.EXPOSED)
        countries = self.countries(executions)
        named = {one.key.user for one in self.calls[Seen.MINE] if one.stream == "request-logs"}
        return {
            "services_count_active": sum(map(self.model.counts, self.model.world.now.services)),
            "services_count_total": len({one.key.service for one in (*executions, *exposed)}),
            "cpu_hours_total": sum(one.cpu_seconds for one in self.used()) / 3600,
            "gpu_hours_total": (
                sum(one.gpu_seconds for one in self.used()) / 3600
                if self.model.frame.has_gpu
                else None
            ),
            "requests_count_total": count(executions),
            "requests_count_sync": count(self.seen(Kind.SYNC)),
            "requests_count_async": count(self.seen(Kind.ASYNC)),
            "requests_count_exposed": count(exposed),
            "countries_count": len(countries),
            "countries": countries,
            "users_count": len({one.key.user for one in executions} - {""}),
            "users": sorted(named - {""}),
            "failed_count": count(one for one in executions if one.key.result is not Result.OK),
            "unknown_country_count": count(
                one for one in executions if one.key.country_from is CountryFrom.NOTHING
            ),
        }

    def countries(self, called: Iterable[Called]) -> list[dict[str, Any]]:
        counts: Counter[str] = Counter()
        for one in called:
            if one.key.country:
                counts[one.key.country] += one.count
        return [{"country": c, "request_count": counts[c]} for c in sorted(counts)]

    def services(self) -> list[dict[str, Any]]:
        """The rows per service, with users and usage."""
        rows = []
        names = {one.key.service for one in self.seen(*Kind)}
        names |= {one.service.service for one in self.used()}
        for name in sorted(names):
            executions = self.seen(Kind.SYNC, Kind.ASYNC, service=name)
            mine = {one.key.user for one in executions if one in self.calls[Seen.MINE]}
            ours = [one for one in self.calls[Seen.MINE] if one.key.service == name]
            rows.append(
                {
                    "key": name,
                    "requests_count_total": count(executions),
                    "requests_count_sync": count(self.seen(Kind.SYNC, service=name)),
                    "requests_count_async": count(self.seen(Kind.ASYNC, service=name)),
                    "requests_count_exposed": count(self.seen(Kind.EXPOSED, service=name)),
                    "unique_users_count": len({one.key.user for one in executions} - {""}),
                    "users": sorted(mine - {""}),
                    "countries": self.countries(executions),
                    "namespaces": sorted({one.key.namespace for one in ours} - {""}),
                    "cpu_hours": sum(one.cpu_seconds for one in self.used(name)) / 3600,
                }
            )
        return rows

    def users(self) -> dict[str, int]:
        """Executions by user; those of hidden users are nobody's."""
        counts: Counter[str] = Counter()
        for seen in MINE:
            for one in self.calls[seen]:
                if one.key.kind is not Kind.EXPOSED:
                    counts[one.key.user if seen is Seen.MINE else ""] += one.count
        return dict(counts)

    def affiliations(self, place: int) -> dict[str, int]:
        """Executions by VO (0) or project (1) of who called; hidden users' are nobody's."""
        counts: Counter[str] = Counter()
        for seen in MINE:
            for one in self.calls[seen]:
                if one.key.kind is not Kind.EXPOSED:
                    known = self.model.affiliations([one.key.user])[one.key.user]
                    counts[known[place] if seen is Seen.MINE else ""] += one.count
        return dict(counts)

    def metrics(self, service: str) -> dict[str, Any]:
        """The metrics of one service."""
        used = self.used(service)
        executions = self.seen(Kind.SYNC, Kind.ASYNC, service=service)
        return {
            "cpu-hours": sum(one.cpu_seconds for one in used) / 3600,
            "gpu-hours": (
                sum(one.gpu_seconds for one in used) / 3600 if self.model.frame.has_gpu else None
            ),
            "requests-sync-per-service": count(self.seen(Kind.SYNC, service=service)),
            "requests-async-per-service": count(self.seen(Kind.ASYNC, service=service)),
            "requests-exposed-per-service": count(self.seen(Kind.EXPOSED, service=service)),
            "users-per-service": len({one.key.user for one in executions} - {""}),
        }

    def knows(self, service: str) -> bool:
        """Whether the caller may know of a service: by what is deployed, or by these records."""
        return (
            self.model.knows(service)
            or bool(self.seen(*Kind, service=service))
            or bool(self.used(service))
        )


def count(called: Iterable[Called]) -> int:
    return sum(one.count for one in called)
