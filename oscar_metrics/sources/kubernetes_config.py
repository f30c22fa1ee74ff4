"""Where the cluster is and who we are in it: the pod's service account, or a kubeconfig."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yaml
from kubernetes.aio import config as kubernetes_config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException

from oscar_metrics.sources.kubernetes_errors import NoCluster, shorten

# Without types in the package.
_in_cluster: Any = kubernetes_config.load_incluster_config
_from_kubeconfig: Any = kubernetes_config.load_kube_config

_NONE = (
    "no Kubernetes cluster can be asked: this is no pod with a service account, and no default "
    "kubeconfig can be used (OSCAR_METRICS_KUBERNETES)"
)
_BAD_FILE = (
    "the kubeconfig that OSCAR_METRICS_KUBERNETES names cannot be used: it, or a file it names, "
    "is not there or not of its form"
)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Whatever reading an arbitrary file as a kubeconfig may end in.
_UNUSABLE = (
    ConfigException,
    OSError,
    yaml.YAMLError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
)


async def open_api(kubeconfig: str, *, connections: int) -> ApiClient:
    """A client of the configured cluster; raises NoCluster, saying what to change.

    `kubeconfig` is a file's path, or blank for the service account, else the default file.
    """
    configuration = Configuration(
        connection_pool_maxsize=connections,
        client_session_kwargs={
            "trust_env": False,  # only a proxy that the kubeconfig names is used
            "cookie_jar": aiohttp.DummyCookieJar(),
            "auto_decompress": False,  # what a piece unpacks to would have to be bounded too
            "middlewares": (_refuse_redirects,),
        },
    )
    await load_credentials(kubeconfig, configuration)
    try:
        return ApiClient(configuration)
    except (OSError, ValueError) as exc:
        raise NoCluster(
            "the certificates of the Kubernetes configuration cannot be read", shorten(str(exc))
        ) from exc


async def load_credentials(kubeconfig: str, configuration: Configuration) -> None:
    """Read address and credentials into `configuration`, again if need be; raises NoCluster."""
    try:
        await _load(kubeconfig, configuration)
    except _UNUSABLE as exc:
        # No more of it than its name: a parse error quotes the file, which may hold a token.
        raise NoCluster(_BAD_FILE if kubeconfig else _NONE, type(exc).__name__) from None
    url = urlsplit(configuration.host)
    if url.scheme != "https" and url.hostname not in _LOOPBACK:
        raise NoCluster("the kubeconfig's server is not https: credentials are not sent to it")
    if not configuration.verify_ssl:
        raise NoCluster(
            "the kubeconfig turns certificate verification off: name the cluster's "
            "certificate-authority there instead of insecure-skip-tls-verify"
        )


async def _load(kubeconfig: str, configuration: Configuration) -> None:
    if not kubeconfig:
        try:
            _in_cluster(configuration)
        except ConfigException:
            pass  # not in a pod
        else:
            return
    elif not await asyncio.to_thread(Path(kubeconfig).is_file):  # a pipe would be waited for
        raise FileNotFoundError(kubeconfig)
    await _from_kubeconfig(
        kubeconfig or None, client_configuration=configuration, persist_config=False
    )


async def _refuse_redirects(
    request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
) -> aiohttp.ClientResponse:
    """Answer a redirect as a failure: the API sends none, a log-in page in front of it does."""
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise aiohttp.ClientResponseError(
            response.request_info, (), status=response.status, message="redirect"
        )
    return response
