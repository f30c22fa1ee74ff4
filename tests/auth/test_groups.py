from __future__ import annotations

from typing import Any

import pytest

from oscar_metrics.auth.groups import groups_of, let_in

EGI = "https://aai.egi.eu/auth/realms/egi"
AI4EOSC = "https://login.cloud.ai4eosc.eu/realms/ai4eosc"
OTHER = "https://keycloak.example/realms/oscar"


@pytest.mark.parametrize(
    ("issuer", "claims", "expected"),
    [
        (
            EGI,
            {"entitlements": ["urn:mace:egi.eu:group:vo.a.eu:role=member#aai.egi.eu"]},
            {"vo.a.eu"},
        ),
        (EGI + "/", {"entitlements": ["urn:mace:egi.eu:group:vo.a.eu:x"]}, {"vo.a.eu"}),
        (EGI, {"entitlements": [" URN:MACE:EGI.EU:GROUP:VO.A.eu:role=x "]}, {"vo.a.eu"}),
        # No sixth field: what follows the group's name stays with it, as in OSCAR.
        (
            EGI,
            {"entitlements": ["urn:mace:egi.eu:group:vo.a.eu#aai.egi.eu"]},
            {"vo.a.eu#aai.egi.eu"},
        ),
        (EGI, {"entitlements": ["urn:mace:egi.eu:group:a:sub:role=member#x"]}, {"a"}),
        (
            EGI,
            {"entitlements": ["urn:mace:egi.eu:group:b:x", "urn:mace:egi.eu:group:a:x"] * 2},
            {"a", "b"},
        ),
        (EGI, {"entitlements": ["urn:mace:egi.eu:group:", "urn:mace:egi.eu:group"]}, set()),
        (EGI, {"entitlements": ["urn:mace:egi.eu:groups:a:x", "urn:mace:egi.eu:res:a:x"]}, set()),
        (EGI, {"entitlements": ["urn:mace:evil.eu:group:a:urn:mace:egi.eu:group:a"]}, set()),
        (EGI, {"group_membership": ["a"], "realm_access": {"roles": ["a"]}}, set()),
        (AI4EOSC, {"realm_access": {"roles": ["vo.a.eu", "Admin"]}}, {"vo.a.eu", "Admin"}),
        (
            AI4EOSC,
            {"entitlements": ["urn:mace:egi.eu:group:a:x"], "group_membership": ["a"]},
            set(),
        ),
        (AI4EOSC, {"realm_access": ["a"]}, set()),
        (AI4EOSC, {"realm_access": {"roles": {"a": 1}}}, set()),
        (OTHER, {"group_membership": ["/a", "b"]}, {"/a", "b"}),
        (OTHER, {"group_membership": "a"}, set()),
        (OTHER, {"group_membership": [None, 1, ["a"], {"a": 1}, "b"]}, {"b"}),
        (OTHER, {"group_membership": None}, set()),
        (OTHER, {}, set()),
        # Neither a realm whose name begins the same nor a name elsewhere in the URL.
        ("https://x.example/realms/egi-dev", {"group_membership": ["a"]}, {"a"}),
        ("https://x.example/realms/egi/more", {"group_membership": ["a"]}, {"a"}),
        ("https://x.example/?/realms/egi", {"group_membership": ["a"]}, {"a"}),
    ],
)
def test_groups_are_read_as_the_issuer_lays_them_out(
    issuer: str, claims: dict[str, Any], expected: set[str]
) -> None:
    assert groups_of(issuer, claims) == expected


@pytest.mark.parametrize(
    ("groups", "allowed", "expected"),
    [
        ({"a"}, ("a", "b"), True),
        ({"c", "b"}, ("a", "b"), True),
        ({"c"}, ("a", "b"), False),
        ({"A"}, ("a",), False),
        (set(), ("a",), False),
        ({"a"}, (), False),
        (set(), ("*",), True),
        ({"a"}, ("b", "*"), True),
        # Nobody lets themselves in by the name of their group.
        ({"*"}, ("a",), False),
        ({"*"}, (), False),
    ],
)
def test_one_group_must_be_let_in(
    groups: set[str], allowed: tuple[str, ...], expected: bool
) -> None:
    assert let_in(groups, allowed) is expected
