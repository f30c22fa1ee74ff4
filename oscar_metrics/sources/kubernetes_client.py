"""The one way out to the Kubernetes API: every call passes through `KubernetesClient`.

The kubernetes package brings configuration, credentials and TLS; answers are decoded here,
because its models hold all of an object and its calls without them do not look at statuses.
Time, concurrency and body size are bounded, every lower-level failure is mapped to an
UpstreamError once, and each call is counted; whether and how often it is made is for the
gate to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Annotated, Any, Generic, TypeVar

import aiohttp
import msgspec
import structlog
from msgspec import Meta

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.gate import Gate, Protection
from oscar_metrics.sources.answer_dates import http_date
from oscar_metrics.sources.kubernetes_config import load_credentials, open_api
from oscar_metrics.sources.kubernetes_errors import (
    NAME,
    StatusError,
    map_kubernetes_errors,
    shorten,
)
from oscar_metrics.sources.upstream_credentials import secrets_in, without_secrets
from oscar_metrics.telemetry import Telemetry

Item = TypeVar("Item")
Kept = TypeVar("Kept")
T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
_ERROR_TEXT_BYTES = 1200
_CHUNK_BYTES = 64 * 1024
_CONNECT_SECONDS = 5.0
# As fast as 500 a page and a third less memory: a ConfigMap may be 1 MiB.
_PAGE_ITEMS = 50
# How often a list starts again after its continue token has expired.
_LIST_ATTEMPTS = 3
# Pages of one list that have nothing on them and say that more follow.
_EMPTY_PAGES = 100


class KubernetesSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the Kubernetes API is reached, and how much of it one process uses."""

    # A kubeconfig file; blank: the pod's own service account, else the default kubeconfig.
    config: str = ""
    # Requests in flight, log streams among them; more wait.
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 12
    # How long one answer, or the next piece of a log, may take.
    timeout_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 30.0
    # Largest page of a list; a larger one is asked for again in smaller pages.
    body_bytes: Annotated[int, Meta(ge=2**16)] = 64 * 1024 * 1024
    # Tries of one request, the first included.
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    protection: Protection = Protection()


class Page(msgspec.Struct, Generic[Item], frozen=True):
    """One page of a list. Fields of the API that are not named here are passed over."""

    kind: str
    items: list[Item] | None
    metadata: PageMetadata


class PageMetadata(msgspec.Struct, frozen=True):
    """Where the list goes on; blank at its end."""

    token: str = msgspec.field(name="continue", default="")


class Listing(msgspec.Struct, Generic[Kept], frozen=True, kw_only=True):
    """What a list held; `cut` when there was more than was asked for."""

    items: list[Kept]
    cut: bool


class KubernetesClient:
    """A client of one cluster, made once at start-up and closed with `aclose`.

    Nothing is read or sent before the first call. Every call raises UpstreamError.
    """

    def __init__(self, settings: KubernetesSettings, telemetry: Telemetry) -> None:
        # The API's clock less ours, from the last answer's Date header: good to a second.
        self.clock_difference_seconds: float | None = None
        self._settings = settings
        self._telemetry = telemetry
        self._gate = Gate(
            NAME,
            settings.protection,
            concurrency=settings.concurrency,
            attempts=settings.attempts,
            timeout_seconds=settings.timeout_seconds,
            telemetry=telemetry,
        )
        self._opening = asyncio.Lock()
        self._api: Any = None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._api is not None:
            await self._api.close()
            self._api = None

    async def get(
        self, path: str, params: Mapping[str, str], decoder: msgspec.json.Decoder[T]
    ) -> T:
        """The decoded answer to a GET."""
        return await self._ask("GET", path, params, lambda answer: _decode(answer, decoder))

    async def may(self, verb: str, resource: str, *, namespace: str = "") -> bool:
        """Whether our credentials allow `verb` on a core resource (`pods`, `pods/log`).

        A blank namespace asks for all of them, or for a resource that is in none.
        """
        name, _, part = resource.partition("/")
        attributes = {"verb": verb, "resource": name, "subresource": part, "namespace": namespace}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        review = await self._ask(
            "POST", path, {}, lambda answer: _decode(answer, _REVIEW), body=body
        )
        return review.status.allowed

    async def list_all(
        self,
        path: str,
        params: Mapping[str, str],
        decoder: msgspec.json.Decoder[Page[Item]],
        keep: Callable[[Item], Kept],
        *,
        kind: str,
        most: int,
    ) -> Listing[Kept]:
        """What `keep` makes of each item of a list, read page by page; at most `most` of them.

        Lists of another `kind` (`PodList`) are refused; `keep` raises `not_asked_for` for an item
        that does not fit the question. One whose continue token has expired starts again, a few
        times.
        """

        def understood(body: bytes) -> tuple[list[Kept], str]:
            page = _decode(body, decoder)
            if page.kind != kind:
                raise not_asked_for(f"no {kind}")
            return [keep(item) for item in page.items or ()], page.metadata.token

        for _ in range(_LIST_ATTEMPTS):
            with contextlib.suppress(_Expired):
                return await self._list_once(path, params, understood, most)
        raise UpstreamError(NAME, Reason.SERVER_ERROR, "the list expired again and again")

    @contextlib.asynccontextmanager
    async def stream(
        self, path: str, params: Mapping[str, str]
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The body of a GET in pieces, as it comes; leaving the context ends the transfer."""

        async def once() -> aiohttp.ClientResponse:
            return await self._send("GET", path, params, streamed=True)

        with self._counted(), map_kubernetes_errors():
            async with self._gate.keeping_place(once) as response:
                try:
                    yield response.content.iter_chunked(_CHUNK_BYTES)
                finally:
                    _let_go(response)

    async def _list_once(
        self,
        path: str,
        params: Mapping[str, str],
        understood: Callable[[bytes], tuple[list[Kept], str]],
        most: int,
    ) -> Listing[Kept]:
        kept: list[Kept] = []
        limit, token, empty = _PAGE_ITEMS, "", 0
        tokens: set[str] = set()
        while True:
            asked = {**params, "limit": str(limit)} | ({"continue": token} if token else {})
            try:
                items, token_after = await self._ask("GET", path, asked, understood)
            except UpstreamError as exc:
                if exc.reason is Reason.TOO_LARGE and limit > 1:
                    limit = (limit + 3) // 4
                    continue
                if token and isinstance(exc, StatusError) and exc.status in (400, 410):
                    raise _Expired from exc
                raise
            kept += items
            token = token_after
            empty += not items
            if len(kept) > most or (token and len(kept) == most):
                return Listing(items=kept[:most], cut=True)
            if not token:
                return Listing(items=kept, cut=False)
            if token in tokens or empty > _EMPTY_PAGES:
                raise not_asked_for("a list without an end")
            tokens.add(token)

    async def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        understood: Callable[[bytes], T],
        *,
        body: dict[str, Any] | None = None,
    ) -> T:
        """What `understood` makes of the answer, counted once with what became of it in the end."""

        async def once() -> bytes:
            with map_kubernetes_errors():
                response = await self._send(method, path, params, body)
                try:
                    return await self._body(response)
                finally:
                    _let_go(response)

        with self._counted():
            return understood(await self._gate.ask(once))

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: dict[str, Any] | None = None,
        *,
        streamed: bool = False,
    ) -> aiohttp.ClientResponse:
        """An answer with a good status."""
        with map_kubernetes_errors():
            api = await self._open()
            response = await self._send_as_now(api, method, path, params, body, streamed=streamed)
            if response.status == 401:
                # Credentials of a kubeconfig's command run out, and files are replaced; the token
                # of a pod is read again every minute (by the package) and here at once.
                _let_go(response)
                await load_credentials(self._settings.config, api.configuration)
                response = await self._send_as_now(
                    api, method, path, params, body, streamed=streamed
                )
            if (date := http_date(response.headers.get("Date", ""))) is not None:
                self.clock_difference_seconds = date - time.time()
            if response.status not in (200, 201):  # with 204 a log would be an empty one
                try:
                    text = await response.content.read(_ERROR_TEXT_BYTES)
                finally:
                    _let_go(response)
                refusal = StatusError(response.status, text, response.headers)
                # A proxy's page may repeat what it was sent.
                secrets = secrets_in(response.request_info.headers)
                refusal.detail = without_secrets(refusal.detail, secrets)
                raise refusal
            if (trouble := _trouble(response, streamed=streamed)) is not None:
                _let_go(response)
                raise not_asked_for(trouble)
            return response

    async def _send_as_now(
        self,
        api: Any,
        method: str,
        path: str,
        params: Mapping[str, str],
        body: dict[str, Any] | None,
        *,
        streamed: bool,
    ) -> aiohttp.ClientResponse:
        _, url, headers, content, _ = await api.param_serialize(
            method,
            path,
            query_params=dict(params),
            header_params={
                "Accept": "*/*" if streamed else "application/json",
                "Accept-Encoding": "identity",
            },
            body=body,
            auth_settings=["BearerToken"],
        )
        seconds = self._settings.timeout_seconds
        timeout = aiohttp.ClientTimeout(
            total=None if streamed else seconds,
            connect=None,
            sock_connect=min(_CONNECT_SECONDS, seconds),
            sock_read=seconds,
        )
        answer = await api.call_api(
            method, url, header_params=headers, body=content, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            size += len(chunk)
            if size > self._settings.body_bytes:
                raise UpstreamError(
                    NAME, Reason.TOO_LARGE, f"more than {self._settings.body_bytes} bytes"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    async def _open(self) -> Any:
        async with self._opening:
            if self._api is None:
                self._api = await open_api(
                    self._settings.config, connections=self._settings.concurrency
                )
            return self._api

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        began = time.perf_counter()
        reason = "cancelled"
        try:
            yield
            reason = "ok"
        except UpstreamError as exc:
            reason = exc.reason
            if reason is not Reason.OPEN:
                _log.warning(
                    "upstream call failed", upstream=NAME, reason=reason, detail=exc.detail
                )
            raise
        finally:
            self._telemetry.upstream_calls.labels(NAME, reason).observe(time.perf_counter() - began)


class _Review(msgspec.Struct, frozen=True):
    status: _ReviewStatus


class _ReviewStatus(msgspec.Struct, frozen=True):
    allowed: bool


_REVIEW = msgspec.json.Decoder(_Review)


class _Expired(Exception):
    """A list's continue token is no longer good."""


def not_asked_for(detail: str) -> UpstreamError:
    """An answer that does not fit the question; `detail` is for the log."""
    return UpstreamError(NAME, Reason.BAD_ANSWER, detail)


def _let_go(response: aiohttp.ClientResponse) -> None:
    """Give the connection back where the body was read to its end, else drop it.

    At once: closed in good order over TLS, it takes what is still sent for half a minute.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _trouble(response: aiohttp.ClientResponse, *, streamed: bool) -> str | None:
    """What in an answer's headers tells that it is of no use."""
    headers = response.headers
    if (encoding := headers.get("Content-Encoding", "identity")) != "identity":
        return shorten(f"encoded: {encoding}")
    if not streamed:
        return None  # what is cut short, or a page, is no JSON
    if response.content_type == "text/html":
        return "a page where a log was asked for"
    if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
        return "a log that does not tell where it ends"
    return None


def _decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        # The message names a field and types, never a value.
        raise UpstreamError(NAME, Reason.BAD_ANSWER, shorten(str(exc))) from None
