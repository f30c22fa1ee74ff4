"""The users' log-in: bearer tokens of OIDC issuers.

A token's signature, times and audience are checked here, with its issuer's keys; whether its
user is still logged in, who they are and which groups they are in, its issuer is asked. What
can be told to be wrong without the issuer is told so while it is out, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import structlog

from oscar_metrics.auth import groups, issuers, tokens
from oscar_metrics.auth.basic import BEARER_CHALLENGE
from oscar_metrics.auth.caller import Caller
from oscar_metrics.auth.claims import person_of
from oscar_metrics.auth.issuers import Issuer
from oscar_metrics.auth.oidc_settings import OidcSettings
from oscar_metrics.auth.tokens import Fault, Token
from oscar_metrics.errors import (
    REASON_TEXT,
    NotNow,
    Reason,
    SettingsError,
    Unauthorized,
    UpstreamError,
)
from oscar_metrics.facts import Person
from oscar_metrics.findings import Finding, Level
from oscar_metrics.telemetry import Telemetry

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# The longest that callers of an issuer that is out are told to stay away.
_LONGEST_AWAY_SECONDS = 60
# An issuer's refusal is believed for less: the user may be put into a group.
_REFUSAL_SECONDS = 5.0
_OFF = Finding(
    source=issuers.SOURCE,
    level=Level.WARNING,
    says="OIDC_ISSUERS is set and OIDC_ENABLE is not true: every user's token is answered with 401",
    change="set OIDC_ENABLE to true to let users in",
)

# Who it is, what is wrong with the token, or why the issuer could not be asked.
Answer = Caller | Fault | UpstreamError


class OidcAuth:
    """Knows users by their bearer tokens; made once at start-up, asks nobody until a token comes.

    `now` gives seconds since the epoch. `remember` is told what the issuer says of each user who
    is let in. Raises SettingsError for an issuer that is no URL.
    """

    def __init__(
        self,
        settings: OidcSettings,
        *,
        telemetry: Telemetry,
        now: Callable[[], float],
        remember: Callable[[Person], None] | None = None,
    ) -> None:
        self._remember = remember
        self._settings = settings
        self._now = now
        self._issuers: dict[str, Issuer] = {}
        for url in settings.issuers if settings.enable else ():
            if not issuers.is_url(url) or "?" in url:
                raise SettingsError(
                    "OIDC_ISSUERS", "expected URLs such as https://host/path, separated by commas"
                )
            self._issuers[issuers.same_issuer(url)] = Issuer(
                url, settings=settings, telemetry=telemetry, now=now
            )
        self._remembered = _Remembered(settings.tokens_kept)
        self._asked: dict[bytes, _Asked] = {}

    async def aclose(self) -> None:
        """Close the connections to all issuers."""
        for issuer in self._issuers.values():
            await issuer.aclose()

    async def caller(self, token: str) -> Caller:
        """Whose token this is.

        Raises Unauthorized where it is wrong, and NotNow where its issuer had to be asked and
        is out. Who asks of one token at the same time shares one answer.
        """
        if len(token) > tokens.LONGEST_TOKEN or not token.isascii():
            raise Unauthorized(BEARER_CHALLENGE)
        # Tokens themselves are not kept: whoever reads our memory finds none.
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._remembered.get(digest, self._now())
        answer = await self._shared_answer(digest, token) if remembered is None else remembered
        if isinstance(answer, Caller):
            return answer
        if isinstance(answer, Fault):
            raise Unauthorized(BEARER_CHALLENGE)
        raise NotNow(
            "identity provider unavailable",
            detail=f"the issuer of this token {REASON_TEXT[answer.reason]}",
            retry_after_seconds=max(
                self._settings.retry_after_seconds,
                min(math.ceil(answer.retry_after_seconds or 0), _LONGEST_AWAY_SECONDS),
            ),
        )

    async def check(self) -> list[Finding]:
        """What of the settings and the issuers keeps users out; nothing where OIDC is not meant."""
        if not self._settings.enable:
            return [_OFF] if self._settings.issuers else []
        found = []
        if not self._issuers:
            found.append(_problem("OIDC is on and no issuer is accepted", "set OIDC_ISSUERS"))
        if not self._settings.groups:
            found.append(
                _problem(
                    "OIDC_GROUPS is empty: no user is let in",
                    "name the groups that are, or * for every user of the issuers",
                )
            )
        for issuer in self._issuers.values():
            found += await issuer.check()
        return found

    async def _shared_answer(self, digest: bytes, token: str) -> Answer:
        while (asked := self._asked.get(digest)) is not None:
            await asked.done.wait()
            if asked.answer is not None:
                return asked.answer
            # Whoever asked was cancelled before there was an answer: somebody else must ask.
        asked = self._asked[digest] = _Asked()
        try:
            asked.answer = await self._answer(digest, token)
            return asked.answer
        finally:
            del self._asked[digest]
            asked.done.set()

    async def _answer(self, digest: bytes, text: str) -> Answer:
        asked_at = self._now()
        token = tokens.read(text, algorithms=self._settings.algorithms)
        try:
            answer = token if isinstance(token, Fault) else await self._answer_of(token, text)
        except UpstreamError as exc:
            return exc
        if isinstance(answer, Fault):
            _log.info("bearer token refused", why=answer)
        if not isinstance(token, Fault) and answer not in _TOLD_WITHOUT_ISSUER:
            seconds = self._settings.user_seconds
            if isinstance(answer, Fault):
                seconds = min(seconds, _REFUSAL_SECONDS)
            until = min(token.expires_at, asked_at + seconds)
            self._remembered.put(digest, answer, since=asked_at, until=until)
        return answer

    async def _answer_of(self, token: Token, text: str) -> Caller | Fault:
        issuer = self._issuers.get(issuers.same_issuer(token.issuer))
        if issuer is None:
            return Fault.ISSUER
        fault = tokens.claims_fault(
            token,
            now=self._now(),
            leeway_seconds=self._settings.leeway_seconds,
            client_id=self._settings.client_id,
        )
        if fault is not None:
            return fault
        known = await issuer.known()
        fault = tokens.signature_fault(token, known.keys)
        if fault is Fault.UNKNOWN_KEY:
            known = await issuer.known(newer_than=known)
            fault = tokens.signature_fault(token, known.keys)
        if fault is not None:
            return fault
        try:
            claims = await issuer.userinfo(known.endpoints, text)
        except UpstreamError as exc:
            if exc.reason not in (Reason.UNAUTHORIZED, Reason.FORBIDDEN):
                raise
            return Fault.REFUSED
        return self._user(issuer, token, claims)

    def _user(self, issuer: Issuer, token: Token, claims: Mapping[str, Any]) -> Caller | Fault:
        subject = claims.get("sub")
        if not isinstance(subject, str) or not tokens.is_subject(subject):
            return Fault.SUBJECT
        if token.subject not in (None, subject):
            return Fault.SUBJECT
        # As in OSCAR, those of USERS_ADMIN have to be in a group too.
        of_user = groups.groups_of(issuer.url, claims)
        if not groups.let_in(of_user, self._settings.groups):
            return Fault.GROUPS
        if self._remember is not None:
            country = self._settings.country_claim
            self._remember(person_of(subject, of_user, claims, country_claim=country))
        return Caller(user=subject, administrator=subject in self._settings.users_admin)


# What costs no question to the issuer is found out anew each time, so that nobody can fill
# what is remembered with tokens they made up.
_TOLD_WITHOUT_ISSUER = frozenset(Fault) - {Fault.REFUSED, Fault.SUBJECT, Fault.GROUPS}


class _Asked:
    """A token being looked at: those who ask of it meanwhile wait for the same answer."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.answer: Answer | None = None


class _Entry(msgspec.Struct, frozen=True, gc=False):
    answer: Caller | Fault
    since: float
    until: float


class _Remembered:
    """The last answers by digest, at most `most`; the least recently used is forgotten first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def get(self, digest: bytes, now: float) -> Caller | Fault | None:
        entry = self._entries.get(digest)
        if entry is None:
            return None
        # A clock that was set back ends it too: else it would be believed for longer.
        if not entry.since <= now < entry.until:
            del self._entries[digest]
            return None
        self._entries.move_to_end(digest)
        return entry.answer

    def put(self, digest: bytes, answer: Caller | Fault, *, since: float, until: float) -> None:
        self._entries[digest] = _Entry(answer, since, until)
        self._entries.move_to_end(digest)
        if len(self._entries) > self._most:
            self._entries.popitem(last=False)


def _problem(says: str, change: str) -> Finding:
    return Finding(source=issuers.SOURCE, level=Level.PROBLEM, says=says, change=change)
