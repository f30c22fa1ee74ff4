"""The one way out to an HTTP upstream: every call passes through its gate.

It bounds time, concurrency and body size, maps every lower-level failure to an UpstreamError
once, and counts the call; whether and how often it is made is for its gate to say. Certificates and
credentials are read again when their files change; what an upstream repeats of ours is not
logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, TypeVar

import httpx
import msgspec
import structlog
from msgspec import Meta

from oscar_metrics.errors import Reason, SettingsError, UpstreamError
from oscar_metrics.resilience.gate import Gate, Protection
from oscar_metrics.sources.answer_dates import http_date, retry_after_seconds
from oscar_metrics.sources.upstream_credentials import (
    Credentials,
    CredentialSettings,
    secrets_in,
    without_secrets,
)
from oscar_metrics.sources.upstream_tls import Tls, TlsSettings
from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_DETAIL_CHARACTERS = 300
_QUOTED = re.compile(r"'.*'", re.DOTALL)


class UpstreamLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of an upstream, and of ourselves, one process uses for it."""

    # Calls in flight; more wait.
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 4
    # How long one call may take; one that only drips is cut off too.
    timeout_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 60.0
    # The largest answer accepted; as many as are in flight may be in memory.
    body_bytes: Annotated[int, Meta(ge=2**16, le=2**31)] = 64 * 1024 * 1024
    # Tries of one call, the first included.
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    protection: Protection = Protection()

    @property
    def places_of_one(self) -> int:
        """Calls that one report may have in flight."""
        return self.protection.places_of_one(self.concurrency)


class Upstream:
    """A client for one HTTP upstream, made once at start-up and closed with `aclose`.

    `name` is the metric label. `tls` and `credentials` are set by names that begin with `prefix`
    (`OSCAR_METRICS_LOKI`), and SettingsError names the one that is of no use at the start; a name
    and password in the URL stand in for none. `headers` are sent and never logged. `reason_of`
    may say better than the status alone (from the body's beginning) what an error means; None
    leaves it to the status.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        limits: UpstreamLimits,
        telemetry: Telemetry,
        prefix: str = "",
        tls: TlsSettings | None = None,
        credentials: CredentialSettings | None = None,
        headers: Mapping[str, str] | None = None,
        reason_of: Callable[[int, str], Reason | None] | None = None,
    ) -> None:
        self.name = name
        # Its clock less ours, from the last answer's Date header: good to a second.
        self.clock_difference_seconds: float | None = None
        self._limits = limits
        self._telemetry = telemetry
        self._reason_of = reason_of
        self._gate = Gate(
            name,
            limits.protection,
            concurrency=limits.concurrency,
            attempts=limits.attempts,
            timeout_seconds=limits.timeout_seconds,
            telemetry=telemetry,
        )
        url = httpx.URL(base_url.rstrip("/"))
        self._base_url = url.copy_with(userinfo=b"")
        self._tls = Tls(tls or TlsSettings(), f"{prefix}_TLS")
        self._credentials = Credentials(
            credentials or CredentialSettings(), prefix, in_url=(url.username, url.password)
        )
        # Plain bodies: what a compressed one unpacks to would have to be bounded twice.
        plain = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._headers = {**plain, **(headers or {})}
        self._pool: _Pool | None = None

    def _new_pool(self, context: ssl.SSLContext) -> _Pool:
        limits = self._limits
        client = httpx.AsyncClient(
            base_url=self._base_url,
            verify=context,
            timeout=httpx.Timeout(limits.timeout_seconds, connect=min(5.0, limits.timeout_seconds)),
            limits=httpx.Limits(
                max_connections=limits.concurrency, max_keepalive_connections=limits.concurrency
            ),
            # A redirect would carry credentials to another host, and hides a wrong URL.
            follow_redirects=False,
            trust_env=False,
        )
        return _Pool(client, context)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            await self._pool.client.aclose()

    async def get_json(
        self,
        path: str,
        params: Mapping[str, str],
        decoder: msgspec.json.Decoder[T],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """The decoded answer; raises UpstreamError, with BAD_ANSWER where it is not as expected."""
        return self._decoded(await self.get(path, params, headers=headers), decoder)

    async def post_form(
        self,
        path: str,
        form: Mapping[str, str],
        decoder: msgspec.json.Decoder[T],
        *,
        headers: Mapping[str, str],
    ) -> T:
        """The same of a form that is sent, which may be so more than once.

        Secrets belong into `headers`: what is repeated of a form is not kept out of the log.
        """
        question = _Question(path, headers=headers, form=form)
        return self._decoded(await self._gate.ask(lambda: self._once(question)), decoder)

    async def get(
        self, path: str, params: Mapping[str, str], *, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of a 200, after up to `attempts` tries; raises UpstreamError."""
        question = _Question(path, params=params, headers=headers or {})
        return await self._gate.ask(lambda: self._once(question))

    def _decoded(self, body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
        try:
            return decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            # It names a field and types; a value that it quotes is the upstream's own.
            text = _QUOTED.sub("…", str(exc))
            raise UpstreamError(self.name, Reason.BAD_ANSWER, _shorten(text)) from None

    async def _once(self, question: _Question) -> bytes:
        began = time.perf_counter()
        reason = "cancelled"
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                body = await self._call(question)
            reason = "ok"
        except TimeoutError:
            reason = Reason.TIMEOUT
            raise UpstreamError(self.name, Reason.TIMEOUT, "dripped") from None
        except UpstreamError as exc:
            reason = exc.reason
            _log.warning(
                "upstream call failed", upstream=self.name, reason=reason, detail=exc.detail
            )
            raise
        finally:
            self._telemetry.upstream_calls.labels(self.name, reason).observe(
                time.perf_counter() - began
            )
        return body

    async def _call(self, question: _Question) -> bytes:
        sent = {**self._headers, **await self._authorization(), **question.headers}
        pool = await self._current_pool()
        pool.calls += 1
        try:
            async with self._answer(pool.client, question, sent) as response:
                return await self._body(response)
        except UpstreamError as exc:
            exc.detail = without_secrets(exc.detail, secrets_in(sent))
            raise
        except asyncio.CancelledError:
            # A call cancelled while it gives its connection back never does: httpcore's
            # shield does not hold against asyncio's cancel. Its pool is used no more.
            if pool is self._pool:
                self._pool = None
            raise
        finally:
            pool.calls -= 1
            if pool is not self._pool:
                await pool.aclose_unused()

    async def _authorization(self) -> dict[str, str]:
        try:
            value = await self._credentials.authorization()
        except SettingsError as exc:
            raise UpstreamError(self.name, Reason.CREDENTIALS, str(exc)) from None
        return {"Authorization": value} if value else {}

    async def _current_pool(self) -> _Pool:
        """Connections made with the certificates as they are; calls on others end there."""
        try:
            context = await self._tls.context()
        except SettingsError as exc:
            raise UpstreamError(self.name, Reason.TLS, str(exc)) from None
        before = self._pool
        if before is not None and before.context is context:
            return before
        self._pool = self._new_pool(context)
        if before is not None:
            await before.aclose_unused()
        return self._pool

    @contextlib.asynccontextmanager
    async def _answer(
        self, client: httpx.AsyncClient, question: _Question, headers: Mapping[str, str]
    ) -> AsyncIterator[httpx.Response]:
        path, params, form = question.path, question.params, question.form
        method = "GET" if form is None else "POST"
        with map_httpx_errors(self.name):
            async with client.stream(
                method, path, params=params, headers=headers, data=form
            ) as response:
                if (date := http_date(response.headers.get("date", ""))) is not None:
                    self.clock_difference_seconds = date - time.time()
                if response.status_code != httpx.codes.OK:
                    text = await self._error_text(response)
                    reason = self._reason_of and self._reason_of(response.status_code, text)
                    raise status_error(
                        self.name, response.status_code, text, response.headers, reason
                    )
                yield response

    async def _body(self, response: httpx.Response) -> bytes:
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise UpstreamError(self.name, Reason.BAD_ANSWER, _shorten(f"encoded: {encoding}"))
        announced = response.headers.get("content-length", "")[:20]
        # What says itself that it is too large is not begun with.
        if announced.isdecimal() and int(announced) > self._limits.body_bytes:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_raw():
            size += len(chunk)
            if size > self._limits.body_bytes:
                raise self._too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    def _too_large(self) -> UpstreamError:
        return UpstreamError(
            self.name, Reason.TOO_LARGE, f"more than {self._limits.body_bytes} bytes"
        )

    async def _error_text(self, response: httpx.Response) -> str:
        # Only the beginning is read: an error body may be as large as it likes.
        async for chunk in response.aiter_raw():
            return chunk[: 4 * _DETAIL_CHARACTERS].decode("utf-8", "replace")
        return ""


class _Question(msgspec.Struct, frozen=True):
    """What is asked; a form is sent by POST."""

    path: str
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] = {}
    form: Mapping[str, str] | None = None


class _Pool:
    """A client with its connections, what they were made with, and how many calls use it."""

    def __init__(self, client: httpx.AsyncClient, context: ssl.SSLContext) -> None:
        self.client = client
        self.context = context
        self.calls = 0

    async def aclose_unused(self) -> None:
        """Close the connections, unless a call will do so at its end."""
        if not self.calls:
            await self.client.aclose()


# What a status other than 200 means to Loki, Prometheus and their relatives.
_STATUS_REASONS = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    407: Reason.FORBIDDEN,
    429: Reason.RATE_LIMITED,
    504: Reason.TIMEOUT,
}


def status_error(
    name: str, status: int, text: str, headers: Mapping[str, str], reason: Reason | None = None
) -> UpstreamError:
    """The error a status other than 200 stands for; `text` is kept short, for the log.

    Names of `headers` may be in any case.
    """
    return UpstreamError(
        name,
        reason or _STATUS_REASONS.get(status) or _reason_of_others(status),
        _shorten(f"{status} {text}"),
        retry_after_seconds=retry_after_seconds(headers, time.time()),
    )


def _reason_of_others(status: int) -> Reason:
    if status >= 500:
        return Reason.SERVER_ERROR
    return Reason.REFUSED if status >= 400 else Reason.BAD_ANSWER


@contextlib.contextmanager
def map_httpx_errors(name: str) -> Iterator[None]:
    """Turn every httpx failure into the UpstreamError it means."""
    try:
        yield
    except httpx.TimeoutException as exc:
        reason = Reason.CONNECT if isinstance(exc, httpx.ConnectTimeout) else Reason.TIMEOUT
        raise UpstreamError(name, reason, type(exc).__name__) from exc
    except httpx.ConnectError as exc:
        reason = Reason.TLS if _is_tls(exc) else Reason.CONNECT
        raise UpstreamError(name, reason, _shorten(str(exc))) from exc
    except (httpx.DecodingError, httpx.UnsupportedProtocol, httpx.InvalidURL) as exc:
        raise UpstreamError(name, Reason.BAD_ANSWER, _shorten(str(exc))) from exc
    except httpx.LocalProtocolError:
        # Its text quotes the header it will not send, which may be a credential.
        raise UpstreamError(name, Reason.BAD_ANSWER, "a header cannot be sent") from None
    except (httpx.HTTPError, OSError) as exc:
        # In TLS 1.3 a server refuses our certificate only after we think that we are connected,
        # and httpx lets an ssl.SSLError of then pass as it is.
        reason = Reason.TLS if _is_tls(exc) else Reason.CONNECT
        raise UpstreamError(name, reason, _shorten(str(exc) or type(exc).__name__)) from exc


def version_of(told: object) -> str:
    """A server's version as it tells it; blank for any other text, which is not passed on."""
    return told if isinstance(told, str) and _VERSION.fullmatch(told) else ""


_VERSION = re.compile(r"[a-z]{0,8}-?\d+(\.\d+)*([-+][\w.+-]{1,30})?")


def _is_tls(exc: BaseException | None) -> bool:
    while exc is not None:
        if isinstance(exc, ssl.SSLError):
            # Hanging up in between says nothing of certificates, and may pass.
            return not isinstance(exc, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        exc = exc.__cause__ or exc.__context__
    return False


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_CHARACTERS else text[:_DETAIL_CHARACTERS] + "…"
