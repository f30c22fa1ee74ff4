"""Who we are to an upstream: a Bearer token, or a name and password."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote_plus

import msgspec

from oscar_metrics.errors import SettingsError
from oscar_metrics.sources.watched_files import WatchedFiles, text_of


class CredentialSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an upstream is asked with; a token wins over a name and password."""

    # Sent as a Bearer token; blank: none.
    token: str = ""
    # A file with the token, read again when it changes, where there is no `token`.
    token_file: str = ""
    # Name and password of HTTP Basic; blank: those in the URL, or none.
    username: str = ""
    password: str = ""
    # A file with the password, read again when it changes, where there is no `password`.
    password_file: str = ""

    def __repr__(self) -> str:
        return "CredentialSettings(…)"


class Credentials:
    """The Authorization header for one upstream.

    `prefix` is what the names of its settings begin with (`OSCAR_METRICS_LOKI`), `in_url` the
    name and password of its URL; the constructor raises SettingsError for a file of no use.
    """

    def __init__(
        self, settings: CredentialSettings, prefix: str, *, in_url: tuple[str, str] = ("", "")
    ) -> None:
        self._settings = settings
        self._prefix = prefix
        self._in_url = in_url
        self._watched = WatchedFiles(self._files(), self._read)

    async def authorization(self) -> str:
        """The header's value, blank for none; raises SettingsError for a file of no use."""
        return await self._watched.current()

    def _files(self) -> tuple[str, ...]:
        settings = self._settings
        if settings.token:
            return ()
        if settings.token_file:
            return (settings.token_file,)
        return () if settings.password else (settings.password_file,)

    def _read(self) -> str:
        settings = self._settings
        if settings.token or settings.token_file:
            return f"Bearer {settings.token or self._secret('TOKEN_FILE', settings.token_file)}"
        username, password = settings.username, settings.password
        if not password and settings.password_file:
            password = self._secret("PASSWORD_FILE", settings.password_file)
        if not (username or password):
            username, password = self._in_url
        if not (username or password):
            return ""
        return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"

    def _secret(self, name: str, file: str) -> str:
        setting = f"{self._prefix}_{name}"
        secret = text_of(setting, file).strip()
        if not (secret and secret.isascii() and secret.isprintable()):
            raise SettingsError(setting, f"{file}: expected one line of printable ASCII characters")
        return secret


# Shorter ones are words that any text may have.
_LEAST_CHARACTERS = 6
_CUT = "…"
# A signed token (RFC 7519, which begins with an encoded `{"`), and what follows a scheme's name.
_ANYBODYS = re.compile(r"eyJ[\w-]{8,}(\.[\w-]*)*|(?<=bearer )\S+|(?<=basic )\S+", re.IGNORECASE)


def secrets_in(headers: Mapping[str, str]) -> frozenset[str]:
    """What must not be repeated of headers we send: tokens, passwords, tenants."""
    found: set[str] = set()
    for name, value in headers.items():
        if name.lower() not in _NO_SECRETS and value.split():
            scheme, *rest = value.split()
            found.add(rest[-1] if rest else scheme)
            if scheme == "Basic" and rest:
                pair = base64.b64decode(rest[-1]).decode("utf-8", "replace")
                password = pair.partition(":")[2]
                # OAuth has them encoded as in a form (RFC 6749, section 2.3.1).
                found |= {password, unquote_plus(password)}
    return frozenset(secret for secret in found if len(secret) >= _LEAST_CHARACTERS)


_NO_SECRETS = frozenset({"accept", "accept-encoding", "cache-control", "content-type"})


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """A foreign text without our secrets, as they are or as JSON, URLs and HTML write them.

    It may have been cut within one: what begins one at its end goes too. So does what looks
    like anybody's.
    """
    text = _ANYBODYS.sub(_CUT, text)
    for secret in secrets:
        forms = (secret, json.dumps(secret)[1:-1], quote(secret, safe=""), html.escape(secret))
        for form in dict.fromkeys(forms):
            text = re.sub(re.escape(form), _CUT, text, flags=re.IGNORECASE)
            bare = text.removesuffix(_CUT)
            for length in range(min(len(form), len(bare)), 2, -1):
                if bare.lower().endswith(form[:length].lower()):
                    text = bare[:-length] + _CUT
                    break
    return text
