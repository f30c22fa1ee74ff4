"""Bearer tokens: what one says, and whether to believe it. Pure.

A token is a signed JWT in compact form (RFC 7515, RFC 7519). The parts are read here, by the
letter, and joserfc checks the signature. Nothing a token says of where its key is to be had
(`jku`, `x5u`, `jwk`, `x5c`) is looked at.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from msgspec import UNSET, UnsetType

Key = RSAKey | ECKey | OKPKey

# No issuer's token comes near it; what is longer is not looked at.
LONGEST_TOKEN = 32 * 1024
# OpenID Connect Core 1.0, section 2: a `sub` has at most so many characters.
_LONGEST_SUBJECT = 255
# What OSCAR itself logs as users, and owns as; nobody may come by such a name.
_RESERVED_SUBJECTS = frozenset({"cluster_admin", "oscar", "nil", "minio"})
# How far ahead a token may say it was issued: its issuer's clock may be off, and that alone
# makes it no worse.
_AHEAD_SECONDS = 300.0
# A shorter RSA key can be broken.
_FEWEST_RSA_BITS = 2048


class Fault(StrEnum):
    """Why a token is not believed: bounded, for our log; the caller is told nothing of it."""

    MALFORMED = "not a signed token"
    ALGORITHM = "signed with an algorithm that is not accepted"
    ISSUER = "of an issuer that is not accepted"
    UNKNOWN_KEY = "signed with a key its issuer does not have"
    SIGNATURE = "the signature is wrong"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    AUDIENCE = "for somebody else"
    REFUSED = "its issuer does not take it"
    SUBJECT = "of a user who cannot be"
    GROUPS = "of a user in no group that is let in"


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """What a token says; nothing of it is to be believed before its signature was checked."""

    algorithm: str
    key_id: str | None
    issuer: str
    # Seconds since the epoch, as all times here.
    expires_at: float
    not_before: float | None
    issued_at: float | None
    subject: str | None
    audiences: tuple[str, ...]
    authorized_party: str | None
    signed: bytes
    signature: bytes


def read(text: str, *, algorithms: Collection[str]) -> Token | Fault:
    """The token that `text` is, signed with one of `algorithms`, or what is wrong with it.

    Encrypted ones, and those that ask to be understood beyond the standard (`crit`), are
    MALFORMED too.
    """
    if len(text) > LONGEST_TOKEN or not text.isascii():
        return Fault.MALFORMED
    try:
        header_part, claims_part, signature_part = text.encode().split(b".")
        header = _HEADER.decode(_decode(header_part))
        claims = _CLAIMS.decode(_decode(claims_part))
        signature = _decode(signature_part)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return Fault.MALFORMED
    if header.crit is not UNSET or header.b64 is not UNSET:
        return Fault.MALFORMED
    if header.alg not in algorithms:
        return Fault.ALGORITHM
    audiences = (claims.aud,) if isinstance(claims.aud, str) else tuple(claims.aud or ())
    return Token(
        algorithm=header.alg,
        key_id=header.kid,
        issuer=claims.iss,
        expires_at=claims.exp,
        not_before=claims.nbf,
        issued_at=claims.iat,
        subject=claims.sub,
        audiences=audiences,
        authorized_party=claims.azp,
        signed=header_part + b"." + claims_part,
        signature=signature,
    )


def claims_fault(
    token: Token, *, now: float, leeway_seconds: float, client_id: str
) -> Fault | None:
    """What is wrong with its times and audience, or None.

    With `client_id` blank, or where a token names no audience, any will do. It is for us if it
    names us, or was issued to us: what Keycloak puts into `aud` is `account`, or every client
    the user has roles in, and never the client that asked for it, which is in `azp`.
    """
    if token.expires_at <= now - leeway_seconds:
        return Fault.EXPIRED
    if token.not_before is not None and token.not_before > now + leeway_seconds:
        return Fault.NOT_YET
    if token.issued_at is not None and token.issued_at > now + max(leeway_seconds, _AHEAD_SECONDS):
        return Fault.NOT_YET
    if token.subject is not None and not is_subject(token.subject):
        return Fault.SUBJECT
    ours = client_id in token.audiences or client_id == token.authorized_party
    if client_id and token.audiences and not ours:
        return Fault.AUDIENCE
    return None


def signature_fault(token: Token, keys: Iterable[Key]) -> Fault | None:
    """What is wrong with its signature, or None; UNKNOWN_KEY where newer keys may say otherwise."""
    model = JWSRegistry.algorithms[token.algorithm]
    named = [key for key in keys if token.key_id in (None, key.kid)]
    for key in named:
        try:
            # The key decides too: its type, curve, use and, where it names one, algorithm.
            model.check_key(key)
            if model.verify(token.signed, token.signature, key):
                return None
        except JoseError:
            continue
    return Fault.UNKNOWN_KEY if token.key_id is None or not named else Fault.SIGNATURE


def keys_of(jwks: Iterable[Any]) -> tuple[Key, ...]:
    """The keys of a JWK set (RFC 7517) that signatures can be checked with, in its order.

    Symmetric, short, unknown and unreadable ones, and those for encryption, are left out.
    """
    return tuple(key for key in map(_key, jwks) if key is not None)


def is_subject(subject: str) -> bool:
    """Whether this can be a user's id: printable, neither blank nor too long, not OSCAR's own."""
    return (
        0 < len(subject) <= _LONGEST_SUBJECT
        and subject.isprintable()
        and subject == subject.strip()
        and subject not in _RESERVED_SUBJECTS
    )


class _Header(msgspec.Struct):
    alg: str
    kid: str | None = None
    crit: Any | UnsetType = UNSET
    b64: Any | UnsetType = UNSET


class _Claims(msgspec.Struct):
    iss: str
    exp: float
    nbf: float | None = None
    iat: float | None = None
    sub: str | None = None
    aud: str | list[str] | None = None
    azp: str | None = None


_HEADER = msgspec.json.Decoder(_Header)
_CLAIMS = msgspec.json.Decoder(_Claims)


_KINDS: Mapping[str, type[Key]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}


def _decode(part: bytes) -> bytes:
    """Base64url without padding, in the one way it may be written; raises ValueError."""
    decoded = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != part:
        raise binascii.Error
    return decoded


def _key(jwk: Any) -> Key | None:
    if not isinstance(jwk, Mapping) or jwk.get("use", "sig") != "sig":
        return None
    try:
        kind = _KINDS[jwk["kty"]]
        if kind is RSAKey and _bits(jwk["n"]) < _FEWEST_RSA_BITS:
            return None
        return kind.import_key(dict(jwk))
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _bits(number: str) -> int:
    return int.from_bytes(_decode(number.encode())).bit_length()
