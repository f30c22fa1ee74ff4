"""What of an issuer's claims is taken to attribute calls by, and nothing more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.auth.claims import person_of
from oscar_metrics.facts import CountryFrom, Person


def of(claims: dict[str, Any], name: str = "address.country") -> Person:
    return person_of("ada", ["b", "a"], claims, country_claim=name)


@pytest.mark.parametrize(
    ("claims", "name", "country"),
    [
        ({"address": {"country": "ES"}}, "address.country", "ES"),
        ({"country": " Spain "}, "country", "Spain"),
        ({"https://example.org/country": "FR"}, "https://example.org/country", "FR"),
        ({"a.b": "PT", "a": {"b": "ES"}}, "a.b", "PT"),
        ({"a": {"b.c": "PT"}}, "a.b.c", "PT"),
        ({}, "address.country", ""),
        ({"address": "ES"}, "address.country", ""),
        ({"address": {"country": ["ES"]}}, "address.country", ""),
        ({"address": {"country": {"country": "ES"}}}, "address.country", ""),
        ({"address": {"country": None}}, "address.country", ""),
        ({"address": {"country": "E" * 201}}, "address.country", ""),
        ({"address": {"country": "E\nS"}}, "address.country", ""),
        ({"": "ES"}, "country", ""),
    ],
)
def test_the_country_is_what_the_claim_says(
    claims: dict[str, Any], name: str, country: str
) -> None:
    person = of(claims, name)
    assert (person.country, person.country_from) == (country, CountryFrom.CLAIM)


@pytest.mark.parametrize(
    ("claims", "email"),
    [
        ({"email": "Ada.L@Example.EU", "email_verified": True}, "@example.eu"),
        ({"email": "ada@example.eu"}, "@example.eu"),
        ({"email": "ada@example.eu", "email_verified": False}, ""),
        ({"email": "ada@example.eu", "email_verified": "false"}, ""),
        ({"email": '"a@b"@example.eu'}, "@example.eu"),
        ({"email": "ada@"}, ""),
        ({"email": "ada"}, ""),
        ({"email": 7}, ""),
        ({}, ""),
    ],
)
def test_of_an_address_the_domain_is_taken(claims: dict[str, Any], email: str) -> None:
    assert of(claims).email == email


def test_groups_are_bounded_and_names_are_left_out() -> None:
    person = of({"name": "Ada Lovelace", "given_name": "Ada", "email": "a.l@x"})
    assert (person.id, person.groups, person.name) == ("ada", ("a", "b"), "")
    many = [f"{number:03}" for number in range(200)] + ["x" * 201, "a\x00b"]
    assert person_of("ada", many, {}, country_claim="c").groups == tuple(many[:100])


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["address", "country", "email", "email_verified", "a.b"]), VALUES
    ),
    st.sampled_from(["address.country", "country", "a.b", "", ".", "a..b"]),
)
def test_whatever_an_issuer_says_is_taken_or_left(claims: dict[str, Any], name: str) -> None:
    person = of(claims, name)
    assert person.email == "" or (person.email.count("@") == 1 and len(person.email) > 1)
    assert person.country == person.country.strip()
