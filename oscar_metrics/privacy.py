"""How users are shown, as they are or as pseudonyms; and which groups are too small. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re

import msgspec

from oscar_metrics.facts import CLUSTER_ADMIN

# Users that stand for a mechanism: the administrator or a rejected caller, a service
# token, a bucket event. They count as users, as they always have.
NOT_PEOPLE = frozenset({"oscar", "nil", "minio"})

# 80 bits: among a million users two are alike with a chance of one in 10^12.
_PSEUDONYM_DIGITS = 20


class Privacy(msgspec.Struct, frozen=True, kw_only=True):
    """What of users reports show.

    `pseudonym_key` is blank where users are shown as they are. A country with fewer users
    than `country_users_least` is withheld; 0 or 1 withholds none. `shared_namespace` is the
    one namespace whose name is no user's.
    """

    pseudonym_key: str = ""
    country_users_least: int = 0
    shared_namespace: str = "oscar-svc"

    @property
    def withholds_countries(self) -> bool:
        """Whether any country may be withheld."""
        return self.country_users_least > 1

    def user(self, user: str) -> str:
        """A user's id as it is shown; who is nobody in particular stays as they are."""
        if not self.pseudonym_key or not user or user in NOT_PEOPLE or user == CLUSTER_ADMIN:
            return user
        return f"user-{self._digest('user', user)}"

    def namespace(self, namespace: str) -> str:
        """A namespace's name as it is shown: OSCAR makes users' from their ids."""
        if not self.pseudonym_key or not namespace or namespace == self.shared_namespace:
            return namespace
        return f"namespace-{self._digest('namespace', namespace)}"

    def text(self, text: str) -> str:
        """A note as it is shown: it may name users' namespaces, never users.

        OSCAR's namespaces of users are the shared one's name, a hyphen and more.
        """
        if not self.pseudonym_key:
            return text
        of_users = rf"(?<![a-z0-9-]){re.escape(self.shared_namespace)}-[a-z0-9-]*[a-z0-9]"
        return re.sub(of_users, lambda found: self.namespace(found[0]), text)

    def __repr__(self) -> str:
        return f"Privacy(country_users_least={self.country_users_least!r}, …)"

    def _digest(self, kind: str, text: str) -> str:
        """A keyed digest (HMAC-SHA256, RFC 2104): without the key nobody can test a guess."""
        message = f"{kind}\0{text}".encode(errors="surrogatepass")
        digest = hmac.new(self.pseudonym_key.encode(), message, hashlib.sha256)
        return digest.hexdigest()[:_PSEUDONYM_DIGITS]
