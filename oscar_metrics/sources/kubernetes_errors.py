"""What can go wrong between us and the Kubernetes API, as the UpstreamError it means."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping

import aiohttp
from kubernetes.aio.client import ApiException
from kubernetes.aio.config import ConfigException

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.sources.answer_dates import retry_after_seconds

NAME = "kubernetes"

_DETAIL_CHARACTERS = 300


class NoCluster(UpstreamError):
    """No cluster is configured, or what configures it cannot be used; the text says which."""

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(NAME, Reason.CONNECT, detail)
        self.args = (text,)

    @property
    def retryable(self) -> bool:
        """Never: a configuration does not get better by itself."""
        return False


class StatusError(UpstreamError):
    """An answer with a status that is no success."""

    def __init__(self, status: int, text: bytes, headers: Mapping[str, str]) -> None:
        super().__init__(
            NAME,
            _reason_of(status),
            shorten(f"{status} {text.decode('utf-8', 'replace')}"),
            retry_after_seconds=retry_after_seconds(headers, time.time()),
        )
        self.status = status


@contextlib.contextmanager
def map_kubernetes_errors() -> Iterator[None]:
    """Turn every failure of the client library and its transport into an UpstreamError."""
    try:
        yield
    except TimeoutError as exc:
        connecting = isinstance(exc, aiohttp.ConnectionTimeoutError)
        reason = Reason.CONNECT if connecting else Reason.TIMEOUT
        raise UpstreamError(NAME, reason, type(exc).__name__) from exc
    except (aiohttp.ClientSSLError, ssl.SSLError) as exc:
        raise UpstreamError(NAME, Reason.TLS, shorten(str(exc))) from exc
    except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as exc:
        raise UpstreamError(NAME, Reason.BAD_ANSWER, type(exc).__name__) from exc
    except (aiohttp.ClientError, OSError) as exc:
        raise UpstreamError(NAME, Reason.CONNECT, shorten(f"{type(exc).__name__} {exc}")) from exc
    except (ApiException, ConfigException) as exc:
        raise UpstreamError(NAME, Reason.REFUSED, type(exc).__name__) from exc


_STATUS_REASONS = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    404: Reason.NOT_FOUND,
    407: Reason.FORBIDDEN,
    429: Reason.RATE_LIMITED,
    504: Reason.TIMEOUT,
}


def _reason_of(status: int) -> Reason:
    if status in _STATUS_REASONS:
        return _STATUS_REASONS[status]
    if status >= 500:
        return Reason.SERVER_ERROR  # 500 too: so the API says that it cannot reach a kubelet
    return Reason.REFUSED if status >= 400 else Reason.BAD_ANSWER


def shorten(text: str) -> str:
    """A foreign text on one line and not too long, for the log."""
    text = " ".join(text.split())
    return text if len(text) <= _DETAIL_CHARACTERS else text[:_DETAIL_CHARACTERS] + "…"
