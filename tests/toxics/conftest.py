"""The one stack of the whole run, and what it answers while every upstream is well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.build import require
from tests.servers.keycloak import Keycloak
from tests.toxics.questions import Answer, Caller, Question
from tests.toxics.stack import Stack, stack

Truths = dict[tuple[Question, Caller], Answer]


@pytest.fixture(scope="package", name="stack")
def started_stack(keycloak: Keycloak, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Every upstream behind a proxy, and our server before them."""
    for server in ("loki", "prometheus", "etcd", "kube-apiserver", "kwok", "redis", "toxiproxy"):
        require(server)
    with stack(tmp_path_factory.mktemp("toxics"), keycloak) as running:
        yield running


@pytest.fixture(scope="package")
def truths(stack: Stack) -> Truths:
    """What each caller is answered, as the first test finds it to be true."""
    token = stack.token()
    return {
        (question, caller): stack.ask(question, caller, token)
        for question in Question
        for caller in Caller
    }
