"""Counts and times every request, by route template: labels never grow with what is asked."""

from __future__ import annotations

from litestar.types import HTTPScope
from prometheus_client import Histogram

from oscar_metrics.telemetry import Telemetry

UNMATCHED = "unmatched"
OTHER_METHOD = "_OTHER"
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)


class Measured:
    """One server's."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._requests = telemetry.http_requests
        self._of_labels: dict[tuple[str, str, int], Histogram] = {}

    def tell(self, scope: HTTPScope, status: int, seconds: float) -> None:
        """Note how a request was answered, and how long that took."""
        method: str = scope["method"]
        labels = (
            scope.get("path_template") or UNMATCHED,
            method if method in _METHODS else OTHER_METHOD,
            status,
        )
        measured = self._of_labels.get(labels)
        if measured is None:
            measured = self._of_labels[labels] = self._requests.labels(*map(str, labels))
        measured.observe(seconds)
