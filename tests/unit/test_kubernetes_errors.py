from __future__ import annotations

import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from kubernetes.aio.client import ApiException
from kubernetes.aio.config import ConfigException

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.sources.kubernetes_errors import NoCluster, StatusError, map_kubernetes_errors

_KEY = ConnectionKey(
    "host", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=None
)
_OS_ERROR = ConnectionRefusedError(111, "refused")


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (TimeoutError(), Reason.TIMEOUT),
        (aiohttp.SocketTimeoutError(), Reason.TIMEOUT),
        (aiohttp.ConnectionTimeoutError(), Reason.CONNECT),
        (aiohttp.ClientConnectorError(_KEY, _OS_ERROR), Reason.CONNECT),
        (aiohttp.ClientConnectorSSLError(_KEY, ssl.SSLError()), Reason.TLS),
        (aiohttp.ClientConnectorCertificateError(_KEY, ssl.CertificateError()), Reason.TLS),
        (ssl.SSLError(), Reason.TLS),
        (aiohttp.ServerDisconnectedError(), Reason.CONNECT),
        (aiohttp.ClientPayloadError(), Reason.CONNECT),
        (aiohttp.InvalidURL("x"), Reason.BAD_ANSWER),
        (ConnectionResetError(), Reason.CONNECT),
        (ApiException(status=0, reason="secret"), Reason.REFUSED),
        (ConfigException("secret"), Reason.REFUSED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_failure_means_one_thing(failure: Exception, reason: Reason) -> None:
    with pytest.raises(UpstreamError) as caught, map_kubernetes_errors():
        raise failure

    assert caught.value.reason is reason
    assert "secret" not in f"{caught.value} {caught.value.detail}"


def descendants(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for child in kind.__subclasses__() for each in descendants(child))]


@pytest.mark.parametrize("kind", descendants(aiohttp.ClientError))
def test_no_failure_of_the_transport_is_left_out(kind: type[Exception]) -> None:
    class Told(kind):  # type: ignore[misc, valid-type]
        def __str__(self) -> str:
            return "without what it is made with"

    with pytest.raises(UpstreamError), map_kubernetes_errors():
        raise Told.__new__(Told)


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (302, Reason.BAD_ANSWER, False),
        (400, Reason.REFUSED, False),
        (401, Reason.UNAUTHORIZED, False),
        (403, Reason.FORBIDDEN, False),
        (404, Reason.NOT_FOUND, False),
        (410, Reason.REFUSED, False),
        (429, Reason.RATE_LIMITED, True),
        (500, Reason.SERVER_ERROR, True),
        (503, Reason.SERVER_ERROR, True),
        (504, Reason.TIMEOUT, False),
    ],
)
def test_statuses(status: int, reason: Reason, *, retryable: bool) -> None:
    error = StatusError(status, b"text\nof\tthe upstream" * 100, {"Retry-After": "3"})

    assert (error.reason, error.retryable) == (reason, retryable)
    assert error.retry_after_seconds == 3.0
    assert len(error.detail) < 320
    assert "upstream" not in str(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0.0), ("86400", 86400.0), ("soon", None), ("-1", None), ("", None)],
)
def test_how_long_the_api_asks_to_wait(header: str, seconds: float | None) -> None:
    assert StatusError(429, b"", {"Retry-After": header}).retry_after_seconds == seconds


def test_a_missing_configuration_is_not_asked_for_again() -> None:
    assert not NoCluster("none").retryable
    assert str(NoCluster("none")) == "none"
