"""Who called: users that are shown, and users that are only counted. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from oscar_metrics.facts import HiddenUser
from oscar_metrics.privacy import Privacy

# Blank for nobody named.
User = str | HiddenUser


def count_of(users: Iterable[User]) -> int:
    """How many different people these are; one may be shown here and hidden there."""
    return len({id_of(user) for user in users} - {""})


def shown(users: Iterable[User], privacy: Privacy) -> tuple[str, ...]:
    """Those that may be shown, as they are shown, in order."""
    return tuple(sorted({privacy.user(user) for user in users if isinstance(user, str) and user}))


def any_hidden(users: Iterable[User]) -> bool:
    """Whether there are any who may not be shown."""
    return any(isinstance(user, HiddenUser) for user in users)


def id_of(user: User) -> str:
    """The id to count by, which is not to be shown."""
    return user.id if isinstance(user, HiddenUser) else user
