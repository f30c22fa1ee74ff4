"""Every error this package raises on purpose.

OscarMetricsError
├── SettingsError            a setting is unknown or bad: the start stops, naming it
├── RequestError             the caller's request cannot be answered as asked
│   ├── BadRequest           400
│   ├── Unauthorized         401
│   ├── Forbidden            403, the same for what is foreign and what does not exist
│   ├── NotFound             404
│   ├── BodyTooLarge         413
│   ├── QueryTooLong         414
│   ├── TooManyFailures      429, with Retry-After
│   ├── ClientGone           499, which nobody is left to read
│   └── NotNow               503, with Retry-After
├── LedgerError              the ledger cannot do it; the message says why and what to do
│   ├── LedgerHeld           another process has the file open
│   ├── LedgerChanged        what was to be read is stored otherwise by now: ask again
│   └── TooManyRows          more rows than one report holds
└── UpstreamError            a system we asked did not answer usefully; sources turn
                             it into an outcome, so it never reaches a caller
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class OscarMetricsError(Exception):
    """Base of the tree above."""


class SettingsError(OscarMetricsError):
    """A setting that stops the start.

    ``setting`` is its full name; the message says what was found, what was
    expected and what to do, and never repeats a secret's value.
    """

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(f"{setting}: {message}")
        self.setting = setting


class RequestError(OscarMetricsError):
    """What a caller gets instead of a report: a kept error text and, beside it, detail of ours."""

    status_code: ClassVar[int] = 400

    def __init__(
        self, text: str, *, parameter: str | None = None, detail: str | None = None
    ) -> None:
        super().__init__(text)
        self.text = text
        self.parameter = parameter
        self.detail = detail


class BadRequest(RequestError):
    """A parameter is missing or not understood."""


class Unauthorized(RequestError):
    """Bad or no credentials; ``challenge`` is the WWW-Authenticate value."""

    status_code = 401

    def __init__(self, challenge: str) -> None:
        super().__init__("unauthorized")
        self.challenge = challenge


class Forbidden(RequestError):
    """The caller may not see it, or it is nothing; who asks cannot tell which."""

    status_code = 403

    def __init__(self) -> None:
        super().__init__("forbidden")


class NotFound(RequestError):
    """What a parameter names does not exist."""

    status_code = 404


class BodyTooLarge(RequestError):
    """The request has a larger body than is taken."""

    status_code = 413


class QueryTooLong(RequestError):
    """The query string is longer than is read."""

    status_code = 414


class TooManyFailures(RequestError):
    """Log-ins from this address have failed too often; one with good credentials still works."""

    status_code = 429

    def __init__(self, *, detail: str, retry_after_seconds: int) -> None:
        super().__init__("too many failed log-ins", detail=detail)
        self.retry_after_seconds = retry_after_seconds


class ClientGone(RequestError):
    """Who asked has closed the connection: nobody waits for the answer."""

    status_code = 499  # nginx's number for it; the standard ones are all about answers

    def __init__(self) -> None:
        super().__init__("client gone")


class NotNow(RequestError):
    """The answer rests on something that cannot be read at the moment."""

    status_code = 503

    def __init__(self, text: str, *, detail: str, retry_after_seconds: int) -> None:
        super().__init__(text, detail=detail)
        self.retry_after_seconds = retry_after_seconds


class Reason(StrEnum):
    """Why an upstream did not answer usefully: bounded, so that it can be a metric label."""

    CONNECT = "connect"
    TLS = "tls"
    CREDENTIALS = "credentials"
    OPEN = "open"
    TIMEOUT = "timeout"
    TOO_SLOW = "too_slow"
    DEADLINE = "deadline"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    LIMIT = "limit"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    SERVER_ERROR = "server_error"
    BAD_ANSWER = "bad_answer"
    TOO_LARGE = "too_large"


# What people read of a reason; upstream text is never passed on.
REASON_TEXT = {
    Reason.CONNECT: "could not be reached",
    Reason.TLS: "could not be reached over TLS (certificate or protocol)",
    Reason.CREDENTIALS: "cannot be asked: the file with our token or password is of no use",
    Reason.OPEN: "is not asked for a while, after it failed again and again",
    Reason.TIMEOUT: "did not answer in time",
    Reason.TOO_SLOW: "gave up on the question, which took it too long",
    Reason.DEADLINE: "had not finished when the report's deadline came",
    Reason.UNAUTHORIZED: "refused our credentials",
    Reason.FORBIDDEN: "does not let us read this",
    Reason.NOT_FOUND: "does not know what was asked (wrong URL?)",
    Reason.LIMIT: "refused because the question exceeds one of its limits",
    Reason.RATE_LIMITED: "is refusing requests because there are too many",
    Reason.REFUSED: "refused the question",
    Reason.SERVER_ERROR: "failed",
    Reason.BAD_ANSWER: "answered something that is not its API (a proxy's page, or a wrong URL?)",
    Reason.TOO_LARGE: "sent a larger answer than is accepted",
}

_RETRYABLE = frozenset({Reason.CONNECT, Reason.RATE_LIMITED, Reason.SERVER_ERROR})


class UpstreamError(OscarMetricsError):
    """A system we asked did not answer usefully.

    ``reason`` may be shown and counted; ``detail`` is for our log only, already
    cut short and free of credentials. ``retry_after_seconds`` is what it asked for, or when it
    will be asked again.
    """

    def __init__(
        self,
        upstream: str,
        reason: Reason,
        detail: str = "",
        *,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{upstream} {REASON_TEXT[reason]}")
        self.upstream = upstream
        self.reason = reason
        self.detail = detail
        self.retry_after_seconds = retry_after_seconds

    @property
    def retryable(self) -> bool:
        """Whether the same question may be answered a moment later."""
        return self.reason in _RETRYABLE


class LedgerError(OscarMetricsError):
    """The file cannot be opened, read or written; the message is ours, not the engine's."""


class LedgerHeld(LedgerError):
    """Another process has the file open; a command then asks that one."""


class LedgerChanged(LedgerError):
    """Between planning a report and reading it, slots were merged: what was planned is no more."""


class TooManyRows(LedgerError):
    """A report would hold more rows than `rows_max`."""
