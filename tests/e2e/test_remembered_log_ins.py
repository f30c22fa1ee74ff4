"""A real log-in, remembered: its user's calls have a country and a VO until it is forgotten."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from oscar_metrics.facts import LogStream
from tests.corpus import Corpus
from tests.e2e.conftest import SPAN
from tests.e2e.running import NOTHING, command_line, running
from tests.servers.keycloak import Keycloak
from tests.servers.realms import PEOPLE

RANGE = {"start": "2026-02-27T00:00:00Z", "end": "2026-03-01T23:59:59Z"}
JANE = PEOPLE["egi"]["jane"].subject
DAVE = PEOPLE["egi"]["dave"].subject
VO = "vo.example.eu"
RULES = f"""
[[rule]]
group = "{VO}"
vo = "{VO}"

[[rule]]
email_domain = "example.org"
project = "example"
"""


def rows(client: httpx.Client, group_by: str) -> dict[str, int]:
    answer = client.get("/system/metrics/breakdown", params={**RANGE, "group_by": group_by})
    assert answer.status_code == 200, answer.text
    return {row["key"]: row["executions_count"] for row in answer.json()["items"]}


def until(true: Callable[[], bool]) -> None:
    waited_until = time.monotonic() + 30
    while not true():
        assert time.monotonic() < waited_until
        time.sleep(0.05)


def log_in(client: httpx.Client, keycloak: Keycloak, user: str) -> int:
    token = keycloak.token("egi", user)
    return client.get(
        "/system/metrics/owners",
        headers={"Authorization": f"Bearer {token}"},
        auth=lambda request: request,
    ).status_code


def test_a_log_in_attributes_calls_until_it_is_forgotten(
    corpus: Corpus, log_folder: Path, keycloak: Keycloak, tmp_path: Path
) -> None:
    rules, claims = tmp_path / "rules.toml", tmp_path / "people" / "claims"
    rules.write_text(RULES)
    settings = {
        **NOTHING,
        "OSCAR_METRICS_LOG_FILES": f"{log_folder}/*",
        "OSCAR_METRICS_CACHE": "off",
        "OSCAR_METRICS_LEDGER": str(tmp_path / "ledger.duckdb"),
        # What is sealed keeps the country it had.
        "OSCAR_METRICS_LEDGER_BACKFILL_DAYS": "0",
        "OSCAR_METRICS_ROSTER_RULES": str(rules),
        "OSCAR_METRICS_REMEMBER_CLAIMS": str(claims),
        "OSCAR_METRICS_REMEMBER_WRITE_SECONDS": "0.1",
        "OIDC_ENABLE": "true",
        "OIDC_ISSUERS": keycloak.issuer("egi"),
        "OIDC_GROUPS": VO,
        "OSCAR_METRICS_OIDC_USER_SECONDS": "0",
        "OSCAR_METRICS_OIDC_TIMEOUT_SECONDS": "30",
    }
    tallies = corpus.truth(LogStream.EXECUTIONS, SPAN).tallies
    total = tallies.total()
    hers = sum(count for key, count in tallies.items() if key.user == JANE)
    assert 0 < hers < total
    known = [
        ("vo", {"": total - hers, VO: hers}),
        ("project", {"": total - hers, "example": hers}),
        ("country", {"PT": hers, "unknown": total - hers}),
    ]
    unknown: list[tuple[str, dict[str, int]]] = [
        ("vo", {"": total}),
        ("project", {"": total}),
        ("country", {"unknown": total}),
    ]

    with running(settings, tmp_path) as client:
        assert [(by, rows(client, by)) for by, _ in unknown] == unknown
        assert log_in(client, keycloak, "dave") == 401
        assert log_in(client, keycloak, "jane") == 403
        until(lambda: rows(client, "vo") == dict(known)["vo"])
        assert [(by, rows(client, by)) for by, _ in known] == known
        report: Any = client.get("/system/metrics/summary", params=RANGE).json()
        said = {source["name"]: source for source in report["sources"]}
        note = f"{hers} of {total} by a claim of the user's log-in"
        assert note in said["country-attribution"]["notes"]
        assert said["country-attribution"]["origin"] == "claim"
        until(claims.exists)
    lines = [json.loads(line) for line in claims.read_text().splitlines()]
    day = int(time.time() // 86400)
    assert lines[1]["day"] in (day, day - 1)
    assert [line | {"day": day} for line in lines[1:]] == [
        {"id": JANE, "day": day, "country": "PT", "groups": [VO], "email_domain": "example.org"}
    ]

    with running(settings, tmp_path) as client:
        # Nobody has logged in since.
        assert [(by, rows(client, by)) for by, _ in known] == known
        checked = command_line(["check"], settings, tmp_path)
        assert "log-ins of 1 users are remembered" in checked.stdout
        forgotten = command_line(["ledger", "forget", JANE, "--yes"], settings, tmp_path)
        assert forgotten.returncode == 0, forgotten.stderr
        assert f"what the log-ins of {JANE} said is forgotten" in forgotten.stdout
        assert [(by, rows(client, by)) for by, _ in unknown] == unknown
        assert JANE not in claims.read_text()
        assert log_in(client, keycloak, "jane") == 403
        assert log_in(client, keycloak, "alice") == 403
        until(lambda: PEOPLE["egi"]["alice"].subject in claims.read_text())
        assert JANE not in claims.read_text()
        assert [(by, rows(client, by)) for by, _ in unknown] == unknown
    assert [word for word in (JANE, DAVE) if word in claims.read_text()] == []
    # Where no server is there to be asked it is the same.
    alice = PEOPLE["egi"]["alice"].subject
    forgotten = command_line(["ledger", "forget", alice, "--yes"], settings, tmp_path)
    assert forgotten.returncode == 0, forgotten.stderr
    assert alice not in claims.read_text()
    again = command_line(["ledger", "forget", alice, "--yes"], settings, tmp_path)
    assert again.returncode == 1
    assert "does not know" in again.stderr
