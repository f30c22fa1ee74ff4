"""Another world that looks the same to one caller, and texts that they may never be shown."""

from __future__ import annotations

import random
from typing import Any

import msgspec
from msgspec.structs import replace

from oscar_metrics.facts import CLUSTER_ADMIN, Inventory, NamespaceOwner
from oscar_metrics.privacy import NOT_PEOPLE
from tests.scope.model import MINE, Model, Seen
from tests.scope.worlds import (
    MARK,
    ME,
    NAMES,
    NAMESPACES,
    SHARED,
    USERS,
    Called,
    Frame,
    World,
    affiliation_of,
    called_of,
    inventory_of,
    notes_of,
    of_services,
    renamed,
    service_of,
    used_of,
)


def another(world: World, frame: Frame, dice: random.Random, changes: int) -> World:
    """A world with other facts about others: of so many changes those the caller does not see."""
    view = Model(world, frame).view()
    for _ in range(changes):
        changed = _changed(world, dice)
        if Model(changed, frame).view() == view:
            world = changed
    return replace(world, notes={source: notes_of(dice) for source in world.notes})


def marked(world: World, frame: Frame, salt: str) -> World:
    """The same world in which everything the caller may not know has a text that tells.

    Other salts give other texts. Users of services of others are renamed where they are
    known to the caller from nowhere else.
    """
    return _Marking(world, frame, salt).world()


class _Marking:
    def __init__(self, world: World, frame: Frame, salt: str) -> None:
        self._world = world
        self._salt = salt
        self._model = model = Model(world, frame)
        seen = [(model.seen(one), one) for one in world.called]
        mine = [one for how, one in seen if how is Seen.MINE]
        self._users = {one.key.user for one in mine}
        self._shown = model.affiliations(self._users)
        self._spaces = {SHARED, "", *(one.key.namespace for one in mine)}
        self._names = {"", *(one.key.service for how, one in seen if how in MINE)}
        self._names |= {one.service.service for one in world.used if model.seen(one) in MINE}
        self._names |= {name for name in NAMES if model.knows(name)}

    def world(self) -> World:
        world = self._world
        marked = replace(
            world,
            now=self._inventory(world.now),
            past=tuple(map(self._inventory, world.past)),
            called=tuple(map(self._call, world.called)),
            affiliations=self._affiliations(),
            notes={
                source: tuple(note.replace(MARK, self._mark("")) for note in notes)
                for source, notes in world.notes.items()
            },
        )
        return renamed(
            marked,
            name=lambda name: name if name in self._names else self._mark(name),
            namespace=lambda space: space if space in self._spaces else self._mark(space),
        )

    def _affiliations(self) -> dict[str, tuple[str, str]]:
        """Those of the users whom the caller knows as they are; others' tell."""
        told = {
            name: (self._mark(vo), self._mark(project))
            for user, (vo, project) in self._world.affiliations.items()
            for name in (user, self._mark(user))
        }
        return {**told, **self._shown}

    def _mark(self, text: str) -> str:
        return f"{MARK}{self._salt}-{text}"

    def _call(self, one: Called) -> Called:
        seen = self._model.seen(one)
        user, country = one.key.user, one.key.country
        hidden = seen is Seen.OPEN and user not in self._users and user not in NOT_PEOPLE
        if user and (hidden or seen not in MINE):
            user = self._mark(user)
        if country and seen not in MINE:
            country = self._mark(country)
        return replace(one, key=one.key._replace(user=user, country=country))

    def _inventory(self, of: Inventory) -> Inventory:
        services = (
            replace(
                one,
                owner=self._owner(one.owner),
                owner_name=self._mark(one.owner_name),
                allowed_users=tuple(map(self._owner, one.allowed_users)),
            )
            for one in of.services
        )
        owners = (replace(one, owner=self._owner(one.owner)) for one in of.owners)
        return replace(of, services=tuple(services), owners=tuple(owners))

    def _owner(self, owner: str) -> str:
        return owner if owner in (ME, CLUSTER_ADMIN, "") else self._mark(owner)


def _changed(world: World, dice: random.Random) -> World:
    """One change to anything."""
    called, used, now, past = world.called, world.used, world.now, [*world.past]
    affiliations = world.affiliations
    match dice.randrange(9):
        case 0:
            called = tuple(sorted((*called, called_of(dice))))
        case 1 | 2:
            called = _without_or_other(called, dice)
        case 3:
            used = tuple(sorted((*used, used_of(dice))))
        case 4:
            used = _one_out(used, dice)
        case 5:
            now = _other_inventory(now, dice)
        case 6:
            affiliations = {**affiliations, dice.choice(USERS): affiliation_of(dice)}
        case 7 if past:
            at = dice.randrange(len(past))
            past[at] = _other_inventory(past[at], dice)
        case _:
            # Several at once: what they say of a namespace may only be consistent together.
            now = of_services(now, [*now.services, *inventory_of(dice, 3).services])
    return replace(
        world, called=called, used=used, now=now, past=tuple(past), affiliations=affiliations
    )


def _without_or_other(called: tuple[Called, ...], dice: random.Random) -> tuple[Called, ...]:
    if not called:
        return ()
    at = dice.randrange(len(called))
    other = called_of(dice)
    one = called[at]
    instead: tuple[Called, ...] = ()
    if dice.random() < 0.7:
        key = one.key._replace(
            user=other.key.user if one.key.user else "",
            country=other.key.country,
            country_from=other.key.country_from,
            result=other.key.result,
        )
        instead = (replace(one, key=key, count=other.count),)
    return tuple(sorted((*called[:at], *instead, *called[at + 1 :])))


def _one_out(facts: tuple[Any, ...], dice: random.Random) -> tuple[Any, ...]:
    if not facts:
        return ()
    at = dice.randrange(len(facts))
    return (*facts[:at], *facts[at + 1 :])


def _other_inventory(inventory: Inventory, dice: random.Random) -> Inventory:
    match dice.randrange(4):
        case 0:
            return of_services(inventory, [*inventory.services, service_of(dice)])
        case 1:
            return msgspec.structs.replace(inventory, services=_one_out(inventory.services, dice))
        case 2 if inventory.services:
            one = dice.choice(inventory.services)
            changed = replace(service_of(dice), namespace=one.namespace, name=one.name)
            return of_services(inventory, [*inventory.services, changed])
        case _:
            space = dice.choice([space for space in NAMESPACES if space != SHARED])
            rest = tuple(one for one in inventory.owners if one.namespace != space)
            owner = dice.choice(("olga", "otto", "nobody"))
            return replace(inventory, owners=(*rest, NamespaceOwner(namespace=space, owner=owner)))
