"""How an answer is kept where others may read and write: names and contents that say nothing."""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_NONCE_BYTES = 12
_TAG_BYTES = 16
_NAME_BYTES = 24


class Wrapping:
    """Names and wraps answers under one key, of 32 bytes or more; `prefix` begins every name."""

    # By how many bytes what is wrapped is longer than the answer.
    more_bytes = _NONCE_BYTES + _TAG_BYTES

    def __init__(self, key: bytes, prefix: bytes) -> None:
        self._prefix = prefix
        self._name_key = _derived(key, b"names")
        self._aead = AESGCM(_derived(key, b"answers"))

    def name(self, question: bytes) -> bytes:
        """Where its answer is kept: always the same, and without the key nobody's guess."""
        digest = hashlib.blake2b(question, key=self._name_key, digest_size=_NAME_BYTES)
        return self._prefix + digest.hexdigest().encode()

    def wrap(self, name: bytes, answer: bytes) -> bytes:
        """The answer encrypted, to be unwrapped under this name only."""
        # Chance nonces do for some 2**32 answers under one key: a hundred a second for a year.
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, answer, name)

    def unwrap(self, name: bytes, wrapped: bytes) -> bytes | None:
        """The answer; None for whatever was not wrapped with this key under this name."""
        if len(wrapped) < self.more_bytes:
            return None
        try:
            return self._aead.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], name)
        except InvalidTag:
            return None


def _derived(key: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(key=key, person=purpose, digest_size=32).digest()
