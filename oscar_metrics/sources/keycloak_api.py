"""Keycloak's admin API as far as the roster needs it: who we are to it, and pages of it, typed."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Annotated, TypeVar
from urllib.parse import quote, quote_plus

import msgspec
from msgspec import Meta

from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.sources.upstream import Upstream, UpstreamLimits
from oscar_metrics.sources.upstream_tls import TlsSettings
from oscar_metrics.sources.watched_files import WatchedFiles, text_of
from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

ORIGIN = "keycloak"
PREFIX = "OSCAR_METRICS_KEYCLOAK"
_SECRET_FILE = f"{PREFIX}_CLIENT_SECRET_FILE"
# A token's last seconds are not used; of one that lives for less than a minute, its last half.
_SPARE_SECONDS = 30.0
# How Keycloak says, with status 400 too, that it does not take us for whom we say we are.
_REFUSALS = ("invalid_client", "unauthorized_client")


class KeycloakSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which realm's users are read, as whom, and how much of them."""

    # Keycloak's base URL, before /realms and /admin; blank: none is asked.
    url: str = ""
    # The realm whose users they are.
    realm: str = ""
    # A client of that realm with a service account that may view users.
    client_id: str = ""
    # Its secret; blank: the file's.
    client_secret: str = ""
    # A file with the secret, read again when it changes, where there is no `client_secret`.
    client_secret_file: str = ""
    # What of a user is the id in the request log: `id` (Keycloak's own, the usual `sub`),
    # `username`, `email`, or else the name of an attribute.
    user_id: Annotated[str, Meta(min_length=1)] = "id"
    # Attributes with a user's country, membership, VO and project; blank: none. With any of them
    # Keycloak takes several times as long, since it looks up each user's.
    country_attribute: str = ""
    membership_attribute: str = ""
    vo_attribute: str = ""
    project_attribute: str = ""
    # Seconds after which users are read again; for so long may one that is new be unknown.
    refresh_seconds: Annotated[float, Meta(ge=1, le=7 * 86_400)] = 300.0
    # Seconds in which all of them must have been read; else those read before are used.
    deadline_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 300.0
    # Users of one answer; Keycloak takes longer for each where it is asked for many.
    page_users: Annotated[int, Meta(ge=2, le=10_000)] = 200
    # Users beyond these are left out, and said; some 1 kB of memory each.
    users: Annotated[int, Meta(ge=1, le=1_000_000)] = 200_000
    # Groups beyond these are left out, and said; each takes a call or more, and Keycloak longer
    # for their members than for all users. 0: none are read.
    groups: Annotated[int, Meta(ge=0, le=100_000)] = 1000
    tls: TlsSettings = TlsSettings()
    # Calls at a time, seconds to wait for one, its largest body, tries.
    limits: UpstreamLimits = UpstreamLimits(timeout_seconds=30.0, body_bytes=32 * 1024 * 1024)

    @property
    def needs_attributes(self) -> bool:
        """Whether anything is read from attributes."""
        named = (
            self.country_attribute,
            self.membership_attribute,
            self.vo_attribute,
            self.project_attribute,
        )
        return any(named) or self.user_id not in ("id", "username", "email")

    def __repr__(self) -> str:
        # Whatever prints settings must not print the secret.
        return f"KeycloakSettings(realm={self.realm!r}, client_id={self.client_id!r}, …)"


class User(msgspec.Struct, frozen=True, gc=False):
    """A user as Keycloak represents one; null where there is nothing."""

    id: str
    username: str | None = None
    email: str | None = None
    email_verified: bool | None = msgspec.field(default=None, name="emailVerified")
    first_name: str | None = msgspec.field(default=None, name="firstName")
    last_name: str | None = msgspec.field(default=None, name="lastName")
    attributes: dict[str, list[str | None]] | None = None


class Group(msgspec.Struct, frozen=True):
    """A group; `sub_groups` are only there where an older Keycloak hands them out as well."""

    id: str
    path: str
    sub_groups: list[Group] | None = msgspec.field(default=None, name="subGroups")
    sub_group_count: int | None = msgspec.field(default=None, name="subGroupCount")


class Member(msgspec.Struct, frozen=True, gc=False):
    """A user as a member of a group: their Keycloak id."""

    id: str


class _Token(msgspec.Struct, frozen=True):
    access_token: Annotated[str, Meta(min_length=1)]
    expires_in: Annotated[float, Meta(ge=0)] = 60.0


_TOKEN = msgspec.json.Decoder(_Token)
_USERS = msgspec.json.Decoder(list[User])
_GROUPS = msgspec.json.Decoder(list[Group])
_MEMBERS = msgspec.json.Decoder(list[Member])


class KeycloakApi:
    """One realm's, asked with a client's service account; made at start-up, closed with `aclose`.

    Every method raises UpstreamError. `first` and `most` are the place and the length of a page,
    which is shorter where there are no more.
    """

    def __init__(self, settings: KeycloakSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._upstream = Upstream(
            ORIGIN,
            settings.url,
            limits=settings.limits,
            telemetry=telemetry,
            prefix=PREFIX,
            tls=settings.tls,
            reason_of=_reason_of,
        )
        realm = quote(settings.realm, safe="")
        self._admin = f"/admin/realms/{realm}"
        self._token_path = f"/realms/{realm}/protocol/openid-connect/token"
        files = () if settings.client_secret else (settings.client_secret_file,)
        self._secret = WatchedFiles(files, self._read_secret)
        self._logging_in = asyncio.Lock()
        self._token = ""
        self._token_until = 0.0

    async def aclose(self) -> None:
        """Close the connections."""
        await self._upstream.aclose()

    async def users(self, first: int, most: int) -> list[User]:
        """A page of all users, in the order of their names."""
        brief = "false" if self._settings.needs_attributes else "true"
        params = {**_page(first, most), "briefRepresentation": brief}
        return await self._get("/users", params, _USERS)

    async def groups(self, first: int, most: int) -> list[Group]:
        """A page of the groups that are in no other."""
        return await self._get("/groups", _page(first, most), _GROUPS)

    async def children(self, group: str, first: int, most: int) -> list[Group]:
        """A page of the groups in a group, which is named by its id."""
        path = f"/groups/{quote(group, safe='')}/children"
        return await self._get(path, _page(first, most), _GROUPS)

    async def members(self, group: str, first: int, most: int) -> list[Member]:
        """A page of who is in a group, not counting the groups in it."""
        params = {**_page(first, most), "briefRepresentation": "true"}
        return await self._get(f"/groups/{quote(group, safe='')}/members", params, _MEMBERS)

    async def _get(
        self, path: str, params: Mapping[str, str], decoder: msgspec.json.Decoder[T]
    ) -> T:
        token = await self._current_token()
        try:
            return await self._asked(path, params, decoder, token)
        except UpstreamError as exc:
            if exc.reason is not Reason.UNAUTHORIZED:
                raise
        # It was withdrawn before its time, as by a Keycloak that was restarted.
        if token == self._token:
            self._token = ""
        return await self._asked(path, params, decoder, await self._current_token())

    async def _asked(
        self, path: str, params: Mapping[str, str], decoder: msgspec.json.Decoder[T], token: str
    ) -> T:
        headers = {"Authorization": f"Bearer {token}"}
        return await self._upstream.get_json(self._admin + path, params, decoder, headers=headers)

    async def _current_token(self) -> str:
        now = asyncio.get_running_loop().time
        async with self._logging_in:
            if not self._token or now() >= self._token_until:
                found = await self._log_in()
                if not (found.access_token.isascii() and found.access_token.isprintable()):
                    raise UpstreamError(ORIGIN, Reason.BAD_ANSWER, "its token is none")
                lives = found.expires_in
                self._token = found.access_token
                self._token_until = now() + max(lives - _SPARE_SECONDS, lives / 2)
            return self._token

    async def _log_in(self) -> _Token:
        try:
            secret = await self._secret.current()
        except SettingsError as exc:
            raise UpstreamError(ORIGIN, Reason.CREDENTIALS, str(exc)) from None
        # Both are to be encoded as in a form before they are joined (RFC 6749, section 2.3.1).
        pair = f"{quote_plus(self._settings.client_id)}:{quote_plus(secret)}"
        headers = {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
        form = {"grant_type": "client_credentials"}
        return await self._upstream.post_form(self._token_path, form, _TOKEN, headers=headers)

    def _read_secret(self) -> str:
        settings = self._settings
        if settings.client_secret:
            return settings.client_secret
        secret = text_of(_SECRET_FILE, settings.client_secret_file).strip()
        if not secret.isprintable() or not secret:
            raise SettingsError(_SECRET_FILE, "expected one line of printable characters")
        return secret


def _page(first: int, most: int) -> dict[str, str]:
    return {"first": str(first), "max": str(most)}


def _reason_of(status: int, text: str) -> Reason | None:
    if status == 400 and any(words in text for words in _REFUSALS):
        return Reason.UNAUTHORIZED
    return None
