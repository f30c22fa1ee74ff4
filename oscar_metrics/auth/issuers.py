"""An issuer of tokens: where its endpoints are, its keys, and what it says of a user."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import httpx
import msgspec
import structlog
from authlib.oidc.discovery import OpenIDProviderMetadata, get_well_known_url

from oscar_metrics.auth import tokens
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.findings import Finding, Level
from oscar_metrics.resilience.asker import Asker, asking_for
from oscar_metrics.sources.upstream import Upstream
from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SOURCE = "oidc"
_OBJECT = msgspec.json.Decoder(dict[str, Any])


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """What we use of an issuer's discovery document: two URLs."""

    keys: str
    userinfo: str


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was last read of an issuer; `read_at` is in seconds since the epoch."""

    endpoints: Endpoints
    keys: tuple[tokens.Key, ...]
    read_at: float


class Issuer:
    """One issuer, asked when there is need; what was read of it is kept while it is out.

    `url` is as the settings have it; tokens may write it with or without the last slash.
    """

    def __init__(
        self, url: str, *, settings: OidcSettings, telemetry: Telemetry, now: Callable[[], float]
    ) -> None:
        self.url = url
        self._settings = settings
        self._now = now
        self._upstream = Upstream(
            url,
            url,
            limits=settings.limits,
            telemetry=telemetry,
            prefix="OSCAR_METRICS_OIDC",
            tls=settings.tls,
        )
        # What was last read of it, and what became of the last try.
        self._known: Known | None = None
        self._tried: Known | UpstreamError | None = None
        self._tried_at = 0.0
        self._reading = asyncio.Lock()

    async def aclose(self) -> None:
        """Close its connections."""
        await self._upstream.aclose()

    async def known(self, *, newer_than: Known | None = None) -> Known:
        """Its endpoints and keys; raises UpstreamError where none could be read so far.

        They are read the first time, when they are old, and when those of `newer_than` will not
        do: then the error of reading is raised too, and where they were read a moment ago, the
        same come back.
        """
        async with self._reading:
            known = self._known
            if known is not None and known is not newer_than and not self._is_old(known):
                return known
            tried = self._tried
            if tried is None or not self._tried_lately():
                tried = await self._try()
            if isinstance(tried, Known):
                return tried
            if known is None or newer_than is not None:
                raise UpstreamError(
                    self.url, tried.reason, retry_after_seconds=tried.retry_after_seconds
                )
            return known

    async def userinfo(self, endpoints: Endpoints, token: str) -> dict[str, Any]:
        """What it says of the user whose token this is; raises UpstreamError.

        UNAUTHORIZED and FORBIDDEN are its refusal of the token.
        """
        url, params = _split_query(endpoints.userinfo)
        headers = {"Authorization": f"Bearer {token}"}
        answer = self._upstream.get_json(url, params, _OBJECT, headers=headers)
        try:
            return await self._in_time(answer)
        except UpstreamError as exc:
            if exc.reason is Reason.TIMEOUT:
                _log.warning(
                    "issuer cannot be used", issuer=self.url, reason=exc.reason, detail="userinfo"
                )
            raise

    async def check(self) -> list[Finding]:
        """Whether its discovery document, its keys and its userinfo can be used as they are."""
        try:
            document = await self._document()
            endpoints = endpoints_of(document, self.url)
            if isinstance(endpoints, str):
                return [_problem(f"{self.url}: {endpoints}", "correct OIDC_ISSUERS")]
            keys = await self._keys(endpoints)
            userinfo = await self._userinfo_fault(endpoints)
        except UpstreamError as exc:
            return [
                _problem(
                    f"{exc}; its users get 503",
                    "see that it is up and can be reached from here, and correct OIDC_ISSUERS",
                )
            ]
        found = []
        if not keys:
            found.append(_problem(f"{self.url} has no key that signatures can be checked with"))
        if userinfo is not None:
            found.append(_problem(f"the userinfo endpoint of {self.url} {REASON_TEXT[userinfo]}"))
        found += self._warnings(document)
        usable = f"{self.url} can be used; keys: {len(keys)}"
        return found or [Finding(source=SOURCE, level=Level.OK, says=usable)]

    def _warnings(self, document: Mapping[str, Any]) -> list[Finding]:
        says = []
        if not self.url.startswith("https:"):
            says.append(f"{self.url} is not https: whoever sees the traffic can take its tokens")
        else:
            try:
                OpenIDProviderMetadata(document).validate()
            except (ValueError, TypeError, AttributeError) as exc:
                says.append(f"the discovery document of {self.url} breaks its standard: {exc}")
        off = self._upstream.clock_difference_seconds
        # Its Date header is good to a second.
        if off is not None and abs(off) > self._settings.leeway_seconds + 1:
            says.append(f"the clock of {self.url} and ours are {abs(off):.0f} s apart")
        return [Finding(source=SOURCE, level=Level.WARNING, says=text) for text in says]

    def _is_old(self, known: Known) -> bool:
        return not 0 <= self._now() - known.read_at < self._settings.keys_seconds

    def _tried_lately(self) -> bool:
        # A clock that was set back must not keep us from trying.
        return 0 <= self._now() - self._tried_at < self._settings.keys_refresh_seconds

    async def _try(self) -> Known | UpstreamError:
        tried: Known | UpstreamError
        try:
            tried = self._known = await self._in_time(self._read())
        except UpstreamError as exc:
            if exc.reason is Reason.OPEN:
                return exc  # it was not tried, and may be as soon as it is asked again
            tried = exc
            _log.warning(
                "issuer cannot be used", issuer=self.url, reason=exc.reason, detail=exc.detail
            )
        self._tried, self._tried_at = tried, self._now()
        return tried

    async def _in_time(self, answer: Awaitable[T]) -> T:
        """The answer, for which a request waits so long and no longer; raises UpstreamError."""
        deadline = asyncio.get_running_loop().time() + self._settings.limits.timeout_seconds
        try:
            with asking_for(Asker(deadline)):
                async with asyncio.timeout_at(deadline):
                    return await answer
        except TimeoutError:
            raise UpstreamError(self.url, Reason.TIMEOUT) from None

    async def _read(self) -> Known:
        endpoints = endpoints_of(await self._document(), self.url)
        if isinstance(endpoints, str):
            raise UpstreamError(self.url, Reason.BAD_ANSWER, endpoints)
        keys = await self._keys(endpoints)
        if not keys:
            raise UpstreamError(self.url, Reason.BAD_ANSWER, "no usable key")
        return Known(endpoints=endpoints, keys=keys, read_at=self._now())

    async def _document(self) -> dict[str, Any]:
        url = get_well_known_url(self.url, external=True)
        return await self._upstream.get_json(url, {}, _OBJECT)

    async def _keys(self, endpoints: Endpoints) -> tuple[tokens.Key, ...]:
        url, params = _split_query(endpoints.keys)
        keys = (await self._upstream.get_json(url, params, _OBJECT)).get("keys")
        if not isinstance(keys, list):
            raise UpstreamError(self.url, Reason.BAD_ANSWER, "no JWK set")
        return tokens.keys_of(keys)

    async def _userinfo_fault(self, endpoints: Endpoints) -> Reason | None:
        url, params = _split_query(endpoints.userinfo)
        try:
            await self._upstream.get(url, params)
        except UpstreamError as exc:
            # Without a token it must refuse; with which status, servers differ.
            refusals = (Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.REFUSED)
            return None if exc.reason in refusals else exc.reason
        return Reason.BAD_ANSWER


def endpoints_of(document: Mapping[str, Any], issuer: str) -> Endpoints | str:
    """The endpoints of a discovery document, or what is wrong with it, in our words."""
    named = document.get("issuer")
    if not isinstance(named, str) or same_issuer(named) != same_issuer(issuer):
        return "its discovery document is another issuer's"
    found = {}
    for name in ("jwks_uri", "userinfo_endpoint"):
        url = document.get(name)
        if not isinstance(url, str) or not is_url(url):
            return f"its discovery document has no usable {name}"
        if issuer.startswith("https:") and not url.startswith("https:"):
            return f"the {name} of its discovery document is not https"
        found[name] = url
    return Endpoints(keys=found["jwks_uri"], userinfo=found["userinfo_endpoint"])


def same_issuer(url: str) -> str:
    """An issuer's URL without its last slash: what two names of one issuer share."""
    return url.removesuffix("/")


def is_url(url: str) -> bool:
    """Whether it is an http or https URL with a host and without credentials or a fragment."""
    try:
        parts = urlsplit(url)
        host = httpx.URL(url).host
    except (ValueError, httpx.InvalidURL):
        return False
    plain = parts.username is None and parts.password is None and not parts.fragment
    return url.startswith(("http://", "https://")) and bool(parts.hostname and host) and plain


def _split_query(url: str) -> tuple[str, dict[str, str]]:
    # httpx drops a URL's own query where it is given parameters, even none.
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return urlunsplit(parts._replace(query="")), query


def _problem(says: str, change: str = "") -> Finding:
    return Finding(source=SOURCE, level=Level.PROBLEM, says=says, change=change)
