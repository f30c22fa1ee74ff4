"""Settings of the users' log-in: OIDC bearer tokens."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from oscar_metrics.sources.upstream import UpstreamLimits
from oscar_metrics.sources.upstream_tls import TlsSettings

# Asymmetric ones only: with HS256 whoever can read the public key could sign.
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class OidcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which issuers' tokens are believed, of whom, and for how long."""

    # Whether bearer tokens are accepted at all; if not, they are answered with 401.
    enable: bool = False
    # URLs of the issuers whose tokens are accepted, as the tokens name them.
    issuers: tuple[str, ...] = ()
    # Groups let in: a user must be in one. None lets nobody in, `*` every user of the issuers.
    groups: tuple[str, ...] = ()
    # Our name at the issuers: a token that names its audience must be for it. Blank: any audience.
    client_id: str = ""
    # OSCAR's secret at the issuers: accepted so that its environment fits, used for nothing.
    client_secret: str = ""
    # OSCAR's own account at an issuer: accepted so that its environment fits, used for nothing.
    subject: str = ""
    # Ids (`sub`) of users who see the whole cluster, as the administrator does.
    users_admin: tuple[str, ...] = ()
    # Claim that tells the country of a user, with dots on the way into others; read only where
    # log-ins are remembered.
    country_claim: str = "address.country"
    # How long an issuer's word about a user is believed, in seconds; a log-out is seen after it.
    user_seconds: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    # Tokens remembered, the least recently used forgotten first; some 400 bytes each.
    tokens_kept: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000
    # How far an issuer's clock and ours may be apart, in seconds.
    leeway_seconds: Annotated[float, Meta(ge=0, le=300)] = 10.0
    # Algorithms a token may be signed with.
    algorithms: tuple[Algorithm, ...] = (
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "ES256",
        "ES384",
        "ES512",
        "EdDSA",
    )
    # An issuer's keys are read again when they are this old, in seconds: a revoked one dies then.
    keys_seconds: Annotated[float, Meta(ge=1, le=7 * 86400)] = 4 * 3600.0
    # The least time between two reads of an issuer's keys, in seconds: tokens naming keys that do
    # not exist cannot make us ask it more often, and one that is out is not tried more often.
    keys_refresh_seconds: Annotated[float, Meta(ge=1, le=3600)] = 10.0
    # When callers of an issuer that is out are told to come back, in seconds.
    retry_after_seconds: Annotated[int, Meta(ge=1, le=3600)] = 10
    # Of every issuer.
    tls: TlsSettings = TlsSettings()
    # Of each issuer; a request waits `timeout_seconds` for its keys and as long for its userinfo.
    limits: UpstreamLimits = UpstreamLimits(
        concurrency=16, timeout_seconds=4.0, body_bytes=1024 * 1024, attempts=2
    )

    def __repr__(self) -> str:
        # Whatever prints settings must not print the client's secret.
        return f"OidcSettings(enable={self.enable!r}, issuers={self.issuers!r}, …)"
