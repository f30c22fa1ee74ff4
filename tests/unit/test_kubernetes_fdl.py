from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import Service
from oscar_metrics.sources.kubernetes_fdl import read_fdl

FULL = """\
name: cowsay
cluster_id: ""
memory: 512Mi
enable_gpu: true
token: 5ec2e75ec2e7
labels:
  owner_name: Jane_Doe
  name: not the service's
storage_providers:
  minio:
    default:
      secret_key: 5ec2e7
      owner: not the service's
expose:
  visibility: {deep: [1, 2]}
owner: 9a2c@egi.eu
visibility: restricted
allowed_users:
- 62bb@egi.eu
- "123"
vo: vo.example.eu
script: |
  owner: not the service's
"""


def read(text: str) -> Service | None:
    return read_fdl(text, namespace="ns", label="by-label")


def test_a_full_definition_is_read_and_nothing_below_its_first_level_is_mistaken_for_it() -> None:
    assert read(FULL) == Service(
        namespace="ns",
        name="cowsay",
        owner="9a2c@egi.eu",
        owner_name="Jane_Doe",
        visibility="restricted",
        allowed_users=("62bb@egi.eu", "123"),
        vo="vo.example.eu",
        enable_gpu=True,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner: o", Service(namespace="ns", name="by-label", owner="o")),
        ("name: ''\nowner: ~", Service(namespace="ns", name="by-label")),
        ("{name: flow, owner: null, allowed_users: []}", Service(namespace="ns", name="flow")),
        ('{"name": "json", "enable_gpu": false}', Service(namespace="ns", name="json")),
        ("name: a\nallowed_users: null", Service(namespace="ns", name="a")),
        ("name: a\nlabels: {}", Service(namespace="ns", name="a")),
        # What a loader that guesses types would turn into a number, a date or a truth.
        ("name: 0123\nowner: 1e3", Service(namespace="ns", name="0123", owner="1e3")),
        ("name: 2026-99-99\nvo: yes", Service(namespace="ns", name="2026-99-99", vo="yes")),
        ("? {complex: key}\n: x\nname: a", Service(namespace="ns", name="a")),
        ("name: a\nowner: 🐄", Service(namespace="ns", name="a", owner="🐄")),
    ],
)
def test_definitions_that_can_be_read(text: str, expected: Service) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "just a text",
        "- a\n- list",
        "name: a\n  owner: b",
        "name: [a]",
        "owner: {x: y}\nname: a",
        "name: a\nowner: *unknown",
        "a: &a x\nname: *a",
        "name: 'unended",
        "name: \x07",
        "<html><body>Log in</body></html>",
        "a: " + "[" * 100,
        # A loader that builds objects overruns the stack on this and takes the process with it.
        "a: " + "[" * 200_000,
        "name: a\nb: " + "[" * 200_000 + "]" * 200_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_definition_is_none(text: str) -> None:
    assert read(text) is None


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
VALUES = st.recursive(
    TEXTS | st.integers() | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(owner=TEXTS, users=st.lists(TEXTS, max_size=4), rest=st.dictionaries(TEXTS, VALUES))
def test_what_was_written_is_what_is_read(
    owner: str, users: list[str], rest: dict[str, Any]
) -> None:
    definition = {**rest, "name": "a", "owner": owner, "allowed_users": users, "labels": {}}
    definition.pop("visibility", None)
    text = yaml.dump(definition, Dumper=_NoAliases, allow_unicode=True)

    service = read(text)

    assert service is not None
    assert service.name == "a"
    assert service.owner == ("" if owner in ("~", "null") else owner)
    assert service.allowed_users == tuple(user for user in users if user)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, _data: Any) -> bool:
        return True
