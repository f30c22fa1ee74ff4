"""What tests of the users' log-in share: a clock that can be set, and how it went."""

from __future__ import annotations

from typing import Any

from oscar_metrics.auth.caller import Caller
from oscar_metrics.auth.oidc import OidcAuth
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.errors import NotNow, Unauthorized
from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.telemetry import Telemetry

# Short, so that what hangs is given up soon.
LIMITS = UpstreamLimits(concurrency=4, timeout_seconds=0.5, body_bytes=2**16, attempts=1)


class Clock:
    """Seconds since the epoch, as they are set."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def settings(*issuers: str, **more: Any) -> OidcSettings:
    fields: dict[str, Any] = {"groups": ("users",), "limits": LIMITS}
    return OidcSettings(enable=True, issuers=issuers, **(fields | more))


def auth(given: OidcSettings, now: Any) -> OidcAuth:
    return OidcAuth(given, telemetry=Telemetry(), now=now)


async def outcome(oidc: OidcAuth, token: str) -> Caller | int:
    """Who it is, or the status they get; every error is checked to say nothing of the token."""
    try:
        return await oidc.caller(token)
    except (Unauthorized, NotNow) as exc:
        refusal = exc
    if isinstance(refusal, Unauthorized):
        assert refusal.challenge == 'Bearer error="invalid_token"'
        assert (refusal.text, refusal.detail) == ("unauthorized", None)
    else:
        assert refusal.retry_after_seconds > 0
        assert refusal.text == "identity provider unavailable"
        assert token not in f"{refusal!r} {refusal.detail}"
    return refusal.status_code
