"""The administrator's log-in: HTTP Basic."""

from __future__ import annotations

import base64
import binascii
import hmac

from oscar_metrics.errors import Unauthorized

BASIC_CHALLENGE = 'Basic realm="OSCAR Metrics"'
# A Basic challenge here would open the browser's log-in box inside the dashboard.
BEARER_CHALLENGE = 'Bearer error="invalid_token"'


class BasicAuth:
    """Knows the administrator's credentials and admits nobody else."""

    def __init__(self, username: str, password: str) -> None:
        self._username = username.encode()
        self._password = password.encode()

    def check(self, authorization: str) -> None:
        """Nothing for the administrator; raises Unauthorized for anyone else.

        `authorization` is the header's value, blank where the request has none.
        """
        scheme, _, encoded = authorization.partition(" ")
        given = _credentials(encoded) if scheme.lower() == "basic" else None
        if given is None or not self._match(*given):
            raise Unauthorized(BEARER_CHALLENGE if scheme == "Bearer" else BASIC_CHALLENGE)

    def _match(self, username: bytes, password: bytes) -> bool:
        # Both are always compared, each in constant time: how long it takes tells nothing.
        same_username = hmac.compare_digest(username, self._username)
        same_password = hmac.compare_digest(password, self._password)
        return same_username and same_password


def _credentials(encoded: str) -> tuple[bytes, bytes] | None:
    """User name and password as Basic has them (RFC 7617); None where they are not."""
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    username, colon, password = decoded.partition(b":")
    return (username, password) if colon else None
