"""Keys, and tokens signed with them, honest or not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

NOW = 1_800_000_000.0
ISSUER = "https://issuer.example/realms/plain"
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "sub": "a11ce@example.org",
    "exp": int(NOW) + 300,
    "iat": int(NOW) - 10,
}

Key = RSAKey | ECKey | OKPKey | OctKey
# By algorithm: the kind of key, and its curve or size.
_KINDS: Mapping[str, tuple[str, Any]] = {
    "RS": ("RSA", 2048),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}


def key(algorithm: str = "RS256", kid: str = "first") -> RSAKey | ECKey | OKPKey:
    """The same key for the same kind and name; `algorithm` decides its kind."""
    return _key(algorithm if algorithm in _KINDS else "RS", kid)


@cache
def _key(algorithm: str, kid: str) -> RSAKey | ECKey | OKPKey:
    kind, form = _KINDS[algorithm]
    classes: Mapping[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    made: RSAKey | ECKey | OKPKey = classes[kind].generate_key(form, {"kid": kid})
    return made


def public(*keys: RSAKey | ECKey | OKPKey, **more: str) -> list[dict[str, Any]]:
    """The keys as a JWK set has them, without what is private."""
    return [dict(each.as_dict(private=False, **more)) for each in keys]


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def token(
    claims: Mapping[str, Any] | bytes = CLAIMS,
    *,
    algorithm: str = "RS256",
    signer: Key | None = None,
    header: Mapping[str, Any] | bytes | None = None,
) -> str:
    """A token; `signer` is the algorithm's own key unless given, and a header says so."""
    signer = signer or key(algorithm)
    head = {"alg": algorithm, "kid": signer.kid, "typ": "JWT"} if header is None else header
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (head, claims)
    ]
    signed = ".".join(map(encoded, parts))
    signature = JWSRegistry.algorithms[algorithm].sign(signed.encode(), signer)
    return f"{signed}.{encoded(signature)}"
