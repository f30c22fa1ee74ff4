"""Pseudonyms are the same for the same user and key, and are nobody's id."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.privacy import NOT_PEOPLE, Privacy

KEYED = Privacy(pseudonym_key="a key", shared_namespace="oscar-svc")


def test_without_a_key_everything_is_as_it_is() -> None:
    plain = Privacy()
    assert plain.user("ana@x") == "ana@x"
    assert plain.namespace("oscar-svc-ana") == "oscar-svc-ana"
    assert plain.text("in oscar-svc-ana/cow") == "in oscar-svc-ana/cow"


@pytest.mark.parametrize("user", ["", "cluster_admin", *sorted(NOT_PEOPLE)])
def test_who_is_nobody_in_particular_stays(user: str) -> None:
    assert KEYED.user(user) == user


@pytest.mark.parametrize("namespace", ["", "oscar-svc"])
def test_the_shared_namespace_stays(namespace: str) -> None:
    assert KEYED.namespace(namespace) == namespace


@given(st.text(min_size=1), st.text(min_size=1))
def test_pseudonyms_are_stable_and_tell_people_apart(one: str, other: str) -> None:
    assert (KEYED.user(one) == KEYED.user(other)) is (one == other)
    assert KEYED.user(one) == Privacy(pseudonym_key="a key").user(one)
    if KEYED.user(one) != one:
        assert Privacy(pseudonym_key="another").user(one) != KEYED.user(one)
        assert KEYED.user(one) != KEYED.namespace(one)


@pytest.mark.parametrize(
    ("note", "named"),
    [
        ("unreadable: oscar-svc-ana/cow, oscar-svc-bob/cow", ["oscar-svc-ana", "oscar-svc-bob"]),
        ("shared by two: oscar-svc-ana", ["oscar-svc-ana"]),
        ("of {oscar-svc-ana}.", ["oscar-svc-ana"]),
        ("nothing in oscar-svc", []),
        ("my-oscar-svc-ana is none", []),
        ("no namespace oscar-svc- at all", []),
    ],
)
def test_notes_name_no_namespace_of_a_user(note: str, named: list[str]) -> None:
    expected = note
    for namespace in named:
        expected = expected.replace(namespace, KEYED.namespace(namespace))
    assert KEYED.text(note) == expected


def test_a_key_is_not_in_what_a_log_shows() -> None:
    assert "a key" not in repr(KEYED)
