"""Who is hidden is counted once, and what would show them fails instead."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from oscar_metrics.callers import User, any_hidden, count_of, shown
from oscar_metrics.facts import HiddenUser
from oscar_metrics.handlers.csv import cell
from oscar_metrics.privacy import Privacy

ANA, BOB = HiddenUser("ana"), HiddenUser("bob")


@pytest.mark.parametrize(
    ("users", "people", "listed", "hidden"),
    [
        ([], 0, (), False),
        ([""], 0, (), False),
        (["bob", "ana", ""], 2, ("ana", "bob"), False),
        (["ana", ANA], 1, ("ana",), True),
        ([ANA, HiddenUser("ana"), BOB], 2, (), True),
        (["oscar", ANA, "ana", BOB], 3, ("ana", "oscar"), True),
    ],
)
def test_people_are_counted_once_and_only_some_are_listed(
    users: list[User], people: int, listed: tuple[str, ...], hidden: bool
) -> None:
    assert count_of(users) == people
    assert shown(users, Privacy()) == listed
    assert any_hidden(users) is hidden


def test_pseudonyms_are_listed_in_their_own_order() -> None:
    privacy = Privacy(pseudonym_key="k")
    users = [f"u{number}" for number in range(20)]
    listed = shown([*users, "oscar", ANA], privacy)
    assert list(listed) == sorted({*map(privacy.user, users), "oscar"})
    assert not set(listed) & set(users)


@pytest.mark.parametrize(
    "show",
    [
        str,
        lambda user: f"{user}",
        "{}".format,
        lambda user: "|".join(iter([user])),
        lambda user: sorted([user, BOB]),
        lambda user: sorted([user, "ana"]),
        lambda user: max(user, BOB),
        json.dumps,
        msgspec.json.encode,
        msgspec.msgpack.encode,
        msgspec.to_builtins,
        lambda user: msgspec.json.encode({"users": (user,)}),
        lambda user: msgspec.convert(user, str),
        cell,
        Privacy(pseudonym_key="k").user,
    ],
)
def test_nothing_shows_who_is_hidden(show: Callable[[Any], object]) -> None:
    with pytest.raises((TypeError, AttributeError, msgspec.ValidationError)) as told:
        show(ANA)
    assert "ana" not in str(told.value)


def test_who_is_hidden_is_not_in_what_a_log_shows() -> None:
    assert repr([ANA, {"user": (ANA,)}]) == "[HiddenUser(…), {'user': (HiddenUser(…),)}]"
    assert repr(ANA) == "HiddenUser(…)"


def test_who_is_hidden_can_be_counted_by() -> None:
    assert len({ANA, HiddenUser("ana"), BOB}) == 2
    assert copy.copy(ANA) == ANA
    assert {ANA, "ana"} == {"ana", ANA}
    assert ANA != "ana"
