"""All users and all groups of a realm, page by page, bounded, though they change meanwhile."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec

from oscar_metrics.errors import REASON_TEXT, Reason, UpstreamError
from oscar_metrics.sources.keycloak_api import (
    ORIGIN,
    PREFIX,
    Group,
    KeycloakApi,
    KeycloakSettings,
    Member,
    User,
)
from oscar_metrics.tasks import task_group

T = TypeVar("T", User, Group, Member)

_PAGE_GROUPS = 100
# Asked for in vain, beside those that lists which change meanwhile take, before one gives up.
_SPARE_PAGES = 20


class Memberships(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of the groups each user is in, by Keycloak's id; and how many groups there are."""

    of: dict[str, tuple[str, ...]] = {}
    groups: int = 0


async def all_users(
    api: KeycloakApi,
    settings: KeycloakSettings,
    doubts: list[str],
    take: Callable[[list[User]], None],
) -> None:
    """Have every user taken once; adds to `doubts` what is left out. Raises UpstreamError."""
    room = settings.users

    def some(users: list[User]) -> bool:
        nonlocal room
        take(users[:room])
        room -= len(users)
        if room < 0:
            doubts.append(
                f"keycloak has more than {settings.users:,} users, and the others are left out"
                f" ({PREFIX}_USERS)"
            )
        return room >= 0

    await each_page(api.users, settings.page_users, some)


async def memberships(
    api: KeycloakApi, settings: KeycloakSettings, doubts: list[str]
) -> Memberships:
    """Who is in which groups; adds to `doubts` what is left out. Raises UpstreamError.

    Where groups may not be seen there are none, since users may be of use without.
    """
    if not settings.groups:
        return Memberships()
    try:
        groups = await _all_groups(api, settings.groups + 1)
        if len(groups) > settings.groups:
            doubts.append(
                f"keycloak has more than {settings.groups:,} groups, and the others are left out"
                f" ({PREFIX}_GROUPS)"
            )
            groups = groups[: settings.groups]
        return await _members_of(api, groups, settings)
    except UpstreamError as exc:
        if exc.reason is not Reason.FORBIDDEN:
            raise
    doubts.append(f"{ORIGIN} {REASON_TEXT[Reason.FORBIDDEN]}: groups are not known")
    return Memberships()


async def _all_groups(api: KeycloakApi, most: int) -> list[Group]:
    """Up to so many groups: those in no other, then those in them."""
    found = await _listed(api.groups, _PAGE_GROUPS, most)
    for group in found:  # which grows
        if len(found) >= most:
            break
        inner = group.sub_groups or []
        if not inner and group.sub_group_count:

            def children(first: int, length: int, of: str = group.id) -> Awaitable[list[Group]]:
                return api.children(of, first, length)

            inner = await _listed(children, _PAGE_GROUPS, most - len(found))
        found += inner
    return found[:most]


async def _members_of(
    api: KeycloakApi, groups: list[Group], settings: KeycloakSettings
) -> Memberships:
    found: dict[str, list[str]] = defaultdict(list)
    # As many at a time as may be asked for; the rest need not be there yet.
    places = asyncio.Semaphore(settings.limits.concurrency)

    async def members(group: Group) -> list[Member]:
        async with places:
            return await _listed(
                lambda first, most: api.members(group.id, first, most),
                settings.page_users,
                settings.users,
            )

    async with task_group(UpstreamError) as tasks:
        reading = [(group, tasks.create_task(members(group))) for group in groups]
    for group, task in reading:
        for member in task.result():
            found[member.id].append(group.path)
    # Many users are in the same ones.
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    of = {user: shared.setdefault(key := tuple(paths), key) for user, paths in found.items()}
    return Memberships(of=of, groups=len(groups))


async def _listed(ask: Callable[[int, int], Awaitable[list[T]]], length: int, most: int) -> list[T]:
    found: list[T] = []

    def some(items: list[T]) -> bool:
        found.extend(items)
        return len(found) < most

    await each_page(ask, length, some)
    return found[:most]


async def each_page(
    ask: Callable[[int, int], Awaitable[list[T]]], length: int, take: Callable[[list[T]], bool]
) -> None:
    """Have what is new in each page taken, until that says no, of a list that may change meanwhile.

    A page begins with the last one of the page before. Where it does not, some before it have
    come or gone, and those that moved are looked for further back.
    """
    seen: set[str] = set()
    first = fruitful = idle = 0
    while True:
        page = await ask(first, length)
        steps_back = bool(first) and (not page or page[0].id not in seen)
        new = [] if steps_back else [item for item in page if item.id not in seen]
        seen.update(item.id for item in new)
        if new and not take(new):
            return
        if not steps_back and len(page) < length:
            return
        fruitful += bool(new)
        idle = 0 if new else idle + 1
        # All the way back and forth again, where all but the last pages went meanwhile.
        if idle > 2 * fruitful + _SPARE_PAGES:
            raise UpstreamError(ORIGIN, Reason.BAD_ANSWER, "its pages are no pages of one list")
        first = max(0, first - length) if steps_back else first + len(page) - 1
