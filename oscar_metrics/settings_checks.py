"""What a settings tree's types do not say: each check names the setting and what was expected."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import httpx

from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.errors import SettingsError
from oscar_metrics.resilience.report_cache import IN_MEMORY, CacheSettings
from oscar_metrics.sources.keycloak_api import PREFIX as KEYCLOAK
from oscar_metrics.sources.keycloak_api import KeycloakSettings

_LEAST_KEY_CHARACTERS = 16
_EVERY_ORIGIN = "*"
_OFF = "off"
# As browsers send it: lower case, no path; the port where it is not the scheme's own.
_ORIGIN = re.compile(r"(http|https)://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?")
_OWN_PORTS = {"http": ":80", "https": ":443"}
# What one issuer is: two with a blank, `;` or `|` between them are none.
_ONE_ISSUER = re.compile(
    r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?(/[a-z0-9._~%/:@+=-]*)?", re.IGNORECASE
)


def check_readable(name: str, value: object) -> None:
    """Whether texts are such: bytes of the environment that are no UTF-8 cannot be written."""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and not _is_text(text):
            raise SettingsError(name, "expected text in UTF-8")


def check_username(username: str) -> None:
    """Whether one can log in with it."""
    if ":" in username:
        raise SettingsError(
            "OSCAR_USERNAME", "expected no colon: Basic authentication ends the name there"
        )


def check_sendable(name: str, text: str) -> None:
    """Whether a text can be sent as a header; it may be a secret, and is not said."""
    if not (text.isascii() and text.isprintable()):
        raise SettingsError(name, "expected printable ASCII characters only, on one line")


def check_url(name: str, url: str, *, unless: str) -> None:
    """Whether `url` is one of HTTP, or the text that stands for none; it may hold a password."""
    if url != unless and not _is_http(url):
        raise SettingsError(name, "expected a URL such as http://host:port or https://host/path")


def check_cache(settings: CacheSettings) -> None:
    """Whether it is known where answers are kept; a URL may hold a password, and is not said."""
    if not settings.store.startswith(("redis://", "rediss://")) and settings.store not in (
        IN_MEMORY,
        _OFF,
    ):
        raise SettingsError(
            "OSCAR_METRICS_CACHE",
            "expected memory, off, or a URL such as redis://host:6379/0",
        )


def check_keycloak(settings: KeycloakSettings) -> None:
    """Whether all that is needed to ask a Keycloak is there, where one is to be asked."""
    if not settings.url:
        return
    secret = settings.client_secret or settings.client_secret_file
    needed = (
        ("REALM", settings.realm),
        ("CLIENT_ID", settings.client_id),
        ("CLIENT_SECRET", secret),
    )
    for name, value in needed:
        if not value:
            raise SettingsError(
                f"{KEYCLOAK}_{name}", f"not set, though {KEYCLOAK}_URL is: users are read with it"
            )
    if "@" in urlsplit(settings.url).netloc:
        raise SettingsError(
            f"{KEYCLOAK}_URL", f"expected no user in it: {KEYCLOAK}_CLIENT_ID is who we are"
        )


def check_oidc(settings: OidcSettings) -> None:
    """Whether there are issuers where there must be, each with a URL that can be one's name."""
    for number, issuer in enumerate(settings.issuers, 1):
        if not (_is_http(issuer) and _ONE_ISSUER.fullmatch(issuer)):
            raise SettingsError(
                "OIDC_ISSUERS",
                f"number {number} is no issuer: expected a URL such as https://host/realms/name,"
                " without user, query or fragment",
            )
    if settings.enable and not settings.issuers:
        raise SettingsError(
            "OIDC_ISSUERS",
            "not set, though OIDC_ENABLE is true: expected the URLs of the issuers whose tokens"
            " are accepted, comma separated",
        )


def check_access(settings: AccessSettings) -> None:
    """Whether pseudonyms have a key, proxies are addresses and origins are such."""
    length = len(settings.pseudonym_key)
    if (settings.pseudonyms or length) and length < _LEAST_KEY_CHARACTERS:
        raise SettingsError(
            "OSCAR_METRICS_PSEUDONYM_KEY",
            f"{'too short' if length else 'not set, though pseudonyms are on'}: expected at least"
            f" {_LEAST_KEY_CHARACTERS} characters nobody can guess",
        )
    for proxy in settings.trusted_proxies:
        if not _is_network(proxy):
            raise SettingsError(
                "OSCAR_METRICS_TRUSTED_PROXIES",
                f"{proxy!r}: expected addresses or networks such as 10.1.2.3 or 10.0.0.0/8",
            )
    alone = {_EVERY_ORIGIN, _OFF} & set(settings.cors_origins)
    if alone and len(settings.cors_origins) > 1:
        raise SettingsError(
            "OSCAR_METRICS_CORS_ORIGINS", f"{min(alone)!r} stands alone, or not at all"
        )
    for origin in () if alone else settings.cors_origins:
        if not _is_origin(origin):
            raise SettingsError(
                "OSCAR_METRICS_CORS_ORIGINS",
                f"{origin!r}: expected `*`, `off`, or origins as browsers name them, such as"
                " https://dashboard.example.org or http://localhost:5173",
            )


def _is_http(url: str) -> bool:
    try:
        _ = httpx.URL(url).host
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        return False


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_origin(text: str) -> bool:
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return False
    scheme, _, port = match.groups(default="")
    return port != _OWN_PORTS[scheme] and int(port.removeprefix(":") or 1) < 2**16
