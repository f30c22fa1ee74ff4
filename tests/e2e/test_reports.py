"""Every route over every origin of one traffic: the same answers, and they are the truth."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from oscar_metrics.facts import CallKey, Kind, LogStream, Result
from tests.corpus import Corpus, platform
from tests.e2e.conftest import SPAN
from tests.e2e.running import NOTHING, command_line, running

ORIGINS = ("log-files", "loki", "pod-logs")
RANGE = {"start": "2026-02-27T00:00:00Z", "end": "2026-03-01T23:59:59Z"}
MADE_BY = {Kind.SYNC: "sync", Kind.ASYNC: "async", Kind.EXPOSED: "exposed"}


@pytest.fixture(scope="module", params=ORIGINS)
def settings(
    request: pytest.FixtureRequest, geoip_database: Path, roster_file: Path
) -> dict[str, str]:
    """How an operator configures each origin."""
    common = {
        **NOTHING,
        "INGRESS_HOST": platform.BASE_HOST,
        "OSCAR_METRICS_GEOIP_DATABASE": str(geoip_database),
        "OSCAR_METRICS_ROSTER": str(roster_file),
    }
    match request.param:
        case "log-files":
            folder = request.getfixturevalue("log_folder")
            return {**common, "OSCAR_METRICS_LOG_FILES": f"{folder}/*"}
        case "loki":
            return {**common, "LOKI_URL": request.getfixturevalue("loki").url}
        case _:
            cluster = request.getfixturevalue("cluster")
            config = str(cluster.kubeconfig(cluster.user_token))
            return {**common, "OSCAR_METRICS_KUBERNETES": config}


@pytest.fixture(scope="module")
def client(
    settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    with running(settings, tmp_path_factory.mktemp("server")) as client:
        yield client


class Truth:
    """Every figure of a report, added up from what was generated and nothing else."""

    def __init__(self, corpus: Corpus) -> None:
        self.executions = corpus.truth(LogStream.EXECUTIONS, SPAN, roster=True).tallies
        self.exposed = corpus.truth(LogStream.EXPOSED, SPAN, roster=True).tallies

    def services(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = {}
        for key, count in [*self.executions.items(), *self.exposed.items()]:
            row = rows.setdefault(
                key.service,
                {"kinds": Counter(), "users": set(), "countries": Counter(), "failed": 0},
            )
            row["kinds"][key.kind] += count
            if key.kind is Kind.EXPOSED:
                continue
            row["users"] |= {key.user} - {""}
            row["failed"] += count * (key.result is not Result.OK)
            if key.country:
                row["countries"][key.country] += count
        return rows

    def by(self, field: str) -> dict[str, list[tuple[CallKey, int]]]:
        groups = defaultdict(list)
        for key, count in self.executions.items():
            groups[getattr(key, field)].append((key, count))
        return groups


@pytest.fixture(scope="module")
def truth(corpus: Corpus) -> Truth:
    return Truth(corpus)


def listed(countries: Counter[str]) -> list[dict[str, Any]]:
    return [{"country": c, "request_count": n} for c, n in sorted(countries.items())]


def get(client: httpx.Client, path: str, **parameters: str) -> Any:
    answer = client.get(path, params={**RANGE, **parameters})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("path", ["/system/metrics/summary", "/system/metrics"])
def test_the_summary_is_the_truth(client: httpx.Client, truth: Truth, path: str) -> None:
    totals = get(client, path)["totals"]
    kinds: Counter[Kind] = Counter()
    for key, count in truth.executions.items():
        kinds[key.kind] += count
    countries = Counter(
        {c: sum(n for _, n in keys) for c, keys in truth.by("country").items() if c}
    )
    users = sorted(truth.by("user").keys() - {""})
    expected = {
        "services_count_total": len(truth.services()),
        "requests_count_total": truth.executions.total(),
        "requests_count_sync": kinds[Kind.SYNC],
        "requests_count_async": kinds[Kind.ASYNC],
        "requests_count_exposed": truth.exposed.total(),
        "countries_count": len(countries),
        "countries": listed(countries),
        "users_count": len(users),
        "users": users,
        "failed_count": sum(n for k, n in truth.executions.items() if k.result is not Result.OK),
        "unknown_country_count": truth.executions.total() - countries.total(),
    }
    assert {name: totals[name] for name in expected} == expected


def test_services_are_the_truth(client: httpx.Client, truth: Truth) -> None:
    items = get(client, "/system/metrics/breakdown", group_by="service", include_users="true")[
        "items"
    ]
    expected = [
        {
            "key": name,
            "requests_count_total": row["kinds"][Kind.SYNC] + row["kinds"][Kind.ASYNC],
            "requests_count_sync": row["kinds"][Kind.SYNC],
            "requests_count_async": row["kinds"][Kind.ASYNC],
            "requests_count_exposed": row["kinds"][Kind.EXPOSED],
            "unique_users_count": len(row["users"]),
            "users": sorted(row["users"]),
            "countries": listed(row["countries"]),
            "failed_count": row["failed"],
        }
        for name, row in sorted(truth.services().items())
    ]
    assert [{name: item[name] for name in expected[0]} for item in items] == expected


def test_users_are_the_truth(client: httpx.Client, truth: Truth) -> None:
    items = get(client, "/system/metrics/breakdown", group_by="user")["items"]
    assert {item["key"]: item["executions_count"] for item in items} == {
        user: sum(count for _, count in keys) for user, keys in truth.by("user").items()
    }
    assert [item["key"] for item in items] == sorted(truth.by("user"))
    members = {row[0]: row[2] for row in platform.roster_rows() if row[2]}
    assert {i["key"]: i["membership"] for i in items if i["key"] in members} == {
        user: word for user, word in members.items() if user in truth.by("user")
    }


def test_countries_are_the_truth(client: httpx.Client, truth: Truth) -> None:
    items = get(client, "/system/metrics/breakdown", group_by="country")["items"]
    assert {
        item["key"]: (item["executions_count"], item["unique_users_count"]) for item in items
    } == {
        country or "unknown": (
            sum(count for _, count in keys),
            len({key.user for key, _ in keys} - {""}),
        )
        for country, keys in truth.by("country").items()
    }


def test_csv_says_what_json_says(client: httpx.Client) -> None:
    for group_by in ("service", "user", "country"):
        items = get(client, "/system/metrics/breakdown", group_by=group_by)["items"]
        answer = client.get(
            "/system/metrics/breakdown",
            params={**RANGE, "group_by": group_by, "format": "csv", "raw": "true"},
        )
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        figure = "requests_count_total" if group_by == "service" else "executions_count"
        assert {row["key"]: int(row[figure]) for row in rows} == {
            item["key"]: item[figure] for item in items
        }
        assert [row["countries"] for row in rows] == [
            "|".join(f"{c['country']}:{c['request_count']}" for c in item["countries"])
            for item in items
        ]


def test_values_are_the_truth_on_both_routes(client: httpx.Client, truth: Truth) -> None:
    rows = truth.services()
    for service in sorted(rows)[:6]:
        kinds, users = rows[service]["kinds"], rows[service]["users"]
        expected = {f"requests-{word}-per-service": kinds[kind] for kind, word in MADE_BY.items()}
        expected["users-per-service"] = len(users)
        for metric, figure in expected.items():
            value = get(client, "/system/metrics/value", service_id=service, metric=metric)
            assert value["value"] == figure, (service, metric)
        metrics = get(client, f"/system/metrics/{service}")["metrics"]
        assert {m["metric"]: m["value"] for m in metrics if m["metric"] in expected} == expected


def test_a_service_nobody_called_is_zero(client: httpx.Client) -> None:
    answer = get(
        client, "/system/metrics/value", service_id="idle", metric="requests-sync-per-service"
    )
    assert answer["value"] == 0


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-02-28T11:59:59Z", "2026-02-28T12:00:00Z"),
        ("2026-02-28T23:59:59.999Z", "2026-03-01T00:00:00Z"),
        ("2026-02-28T12:34:56.789Z", "2026-02-28T12:34:56.789000001Z"),
        ("2026-02-28T12:00:00Z", "2026-02-28T12:00:00.000000001Z"),
    ],
)
def test_ranges_that_meet_add_up_to_the_whole(
    client: httpx.Client, truth: Truth, first: str, second: str
) -> None:
    early = get(client, "/system/metrics/summary", end=first)["totals"]
    late = get(client, "/system/metrics/summary", start=second)["totals"]
    for name, total in (
        ("requests_count_total", truth.executions.total()),
        ("requests_count_exposed", truth.exposed.total()),
    ):
        assert early[name] + late[name] == total


def test_the_command_line_says_the_same(
    client: httpx.Client, settings: dict[str, str], tmp_path: Path
) -> None:
    asked = ["--start", RANGE["start"], "--end", RANGE["end"]]
    done = command_line(["report", "summary", *asked, "--json"], settings, tmp_path)
    # 3: Kubernetes or Prometheus is not there, and broken lines are.
    assert (done.returncode, done.stderr) == (3, "")
    assert json.loads(done.stdout)["totals"] == get(client, "/system/metrics/summary")["totals"]
    rows = command_line(["report", "summary", *asked, "--csv"], settings, tmp_path)
    assert len(rows.stdout.splitlines()) == 2
    assert "request-logs: partial: " in rows.stderr, "a table has no place for it"
