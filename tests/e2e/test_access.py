"""OSCAR's users with real tokens, over a real cluster: their own numbers, and nobody else's."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oscar_metrics.discretion import WITHHELD
from oscar_metrics.facts import CallKey, LogStream
from tests.corpus import Corpus, platform
from tests.e2e.conftest import SPAN
from tests.e2e.running import NOTHING, command_line, running
from tests.servers.keycloak import Keycloak
from tests.servers.kubernetes import KubeCluster
from tests.servers.realms import PEOPLE

RANGE = {"start": "2026-02-27T00:00:00Z", "end": "2026-03-01T23:59:59Z"}
JANE = PEOPLE["egi"]["jane"].subject
NAMESPACE = next(space for space, owner in platform.NAMESPACE_OWNERS.items() if owner == JANE)


@pytest.fixture(scope="module", params=["log-files", "ledger"])
def client(
    request: pytest.FixtureRequest,
    log_folder: Path,
    cluster: KubeCluster,
    keycloak: Keycloak,
    geoip_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx.Client]:
    """A server whose users log in at two realms, over logs or over what was imported of them."""
    directory = tmp_path_factory.mktemp("access")
    settings = {
        **NOTHING,
        "INGRESS_HOST": platform.BASE_HOST,
        "OSCAR_METRICS_GEOIP_DATABASE": str(geoip_database),
        "OSCAR_METRICS_KUBERNETES": str(cluster.kubeconfig(cluster.user_token)),
        "OIDC_ENABLE": "true",
        "OIDC_ISSUERS": f"{keycloak.issuer('egi')}, {keycloak.issuer('ai4eosc')}",
        "OIDC_GROUPS": "vo.example.eu",
        "USERS_ADMIN": PEOPLE["egi"]["carol"].subject,
        "OSCAR_METRICS_OIDC_USER_SECONDS": "1",
        "OSCAR_METRICS_OIDC_TIMEOUT_SECONDS": "2",
    }
    if request.param == "log-files":
        settings["OSCAR_METRICS_LOG_FILES"] = f"{log_folder}/*"
    else:
        settings["OSCAR_METRICS_LEDGER"] = str(directory / "ledger.duckdb")
        files = [str(file) for file in sorted(log_folder.iterdir())]
        imported = command_line(["ledger", "import", *files], settings, directory)
        assert "72 sealed" in imported.stdout, imported.stderr
    with running(settings, directory) as answering:
        yield answering


@pytest.fixture(scope="module")
def own(corpus: Corpus) -> Counter[CallKey]:
    """Jane's executions: those of her namespace.

    Nobody looked at what was deployed then, so records that name no namespace are nobody's,
    also of the one service that has such a name today. Reckoned from what was generated and
    the contract's words, not from the code.
    """
    tallies = corpus.truth(LogStream.EXECUTIONS, SPAN).tallies
    return Counter({key: count for key, count in tallies.items() if key.namespace == NAMESPACE})


def bearer(keycloak: Keycloak, user: str, realm: str = "egi", client: str = "oscar") -> Any:
    return {"Authorization": f"Bearer {keycloak.token(realm, user, client)}"}


def ask(
    client: httpx.Client, path: str, headers: dict[str, str], **parameters: str
) -> httpx.Response:
    # The client of the tests logs in as the administrator unless it is told otherwise.
    return client.get(
        f"/system/metrics{path}",
        params={**RANGE, **parameters},
        headers=headers,
        auth=lambda request: request,
    )


def test_a_user_sees_their_own_and_nothing_else(
    client: httpx.Client, keycloak: Keycloak, own: Counter[CallKey]
) -> None:
    jane = bearer(keycloak, "jane")
    report = ask(client, "/summary", jane).json()
    totals = report["totals"]
    assert own.total() > 0
    assert totals["requests_count_total"] == own.total()
    assert totals["users"] == sorted({key.user for key in own} - {""})
    assert totals["services_count_active"] == 2
    said = {source["name"]: source for source in report["sources"]}
    assert WITHHELD in said["request-logs"]["notes"]

    rows = ask(client, "/breakdown", jane, group_by="service", include_users="true").json()
    assert {row["key"]: row["requests_count_total"] for row in rows["items"]} == {
        name: sum(n for key, n in own.items() if key.service == name)
        for name in {key.service for key in own}
    }
    assert {space for row in rows["items"] for space in row["namespaces"]} == {NAMESPACE}
    for group_by in ("user", "country"):
        rows = ask(client, "/breakdown", jane, group_by=group_by).json()
        assert sum(row["executions_count"] for row in rows["items"]) == own.total()


def test_what_is_foreign_and_what_is_nothing_look_the_same(
    client: httpx.Client, keycloak: Keycloak
) -> None:
    jane = bearer(keycloak, "jane")
    answers = set()
    for name in ("grayify", "nginx", "retired-model", "never-was", "wp-login.php"):
        for path, more in ((f"/{name}", {}), ("/value", {"service_id": name, "metric": "none"})):
            answer = ask(client, path, jane, **more)
            answers.add((answer.status_code, answer.content))
    assert answers == {(403, b'{"error":"forbidden"}')}
    for path, more in (("/owners", {}), ("/breakdown", {"group_by": "owner"})):
        assert ask(client, path, jane, **more).status_code == 403


def test_an_administrator_by_token_sees_what_the_administrator_sees(
    client: httpx.Client, keycloak: Keycloak, own: Counter[CallKey]
) -> None:
    carol = bearer(keycloak, "carol")
    whole = client.get("/system/metrics/summary", params=RANGE).json()
    assert ask(client, "/summary", carol).json()["totals"] == whole["totals"]
    hers = ask(client, "/summary", carol, owner=JANE).json()["totals"]
    assert hers["requests_count_total"] == own.total()
    owners = ask(client, "/breakdown", carol, group_by="owner").json()["items"]
    assert (
        sum(row["requests_count_total"] for row in owners)
        == whole["totals"]["requests_count_total"]
    )
    assert {row["key"]: row["requests_count_total"] for row in owners}[JANE] == own.total()


def test_who_is_in_no_group_or_of_another_realm_is_not_let_in(
    client: httpx.Client, keycloak: Keycloak
) -> None:
    assert ask(client, "/summary", bearer(keycloak, "dave")).status_code == 401
    assert ask(client, "/summary", bearer(keycloak, "alice", "plain")).status_code == 401
    stranger = ask(client, "/summary", bearer(keycloak, "bob", "ai4eosc")).json()
    assert stranger["totals"]["requests_count_total"] == 0
    assert stranger["totals"]["users"] == []


def test_an_issuer_that_is_gone_is_said_and_comes_back(
    client: httpx.Client, keycloak: Keycloak
) -> None:
    jane = bearer(keycloak, "jane")
    wrong = {"Authorization": jane["Authorization"][:-6] + "AAAAAA"}
    assert ask(client, "/owners", jane).status_code == 403
    keycloak.stop()
    try:
        time.sleep(1.1)  # what it last said of Jane is believed for a second
        out = ask(client, "/owners", jane)
        assert (out.status_code, out.json()["error"]) == (503, "identity provider unavailable")
        assert int(out.headers["Retry-After"]) > 0
        assert ask(client, "/owners", wrong).status_code == 401
        assert client.get("/system/metrics/summary", params=RANGE).status_code == 200
    finally:
        keycloak.restart()
    assert ask(client, "/owners", bearer(keycloak, "jane")).status_code == 403
