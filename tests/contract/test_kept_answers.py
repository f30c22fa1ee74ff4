"""What is answered from what is kept: to whom, for how long, and what it says of its age."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import BadRequest
from oscar_metrics.facts import CallLog, Inventory, LogStream
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.outcome import Ok, Outcome, Unavailable
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.scope import ScopeMode
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import SECOND_NS
from tests.contract.serving import (
    NOW_NS,
    RANGE,
    WHOLE,
    KnownTokens,
    SaidInventory,
    SaidLogs,
    SaidUsage,
    serving,
)
from tests.servers.process import wait_until

SUMMARY = "/system/metrics/summary"
PATHS = (
    "/system/metrics",
    SUMMARY,
    "/system/metrics/value?service_id=cowsay&metric=requests-sync-per-service",
    "/system/metrics/cowsay",
    "/system/metrics/breakdown?group_by=user",
    "/system/metrics/breakdown?group_by=service&format=csv",
)
FAILED = Unavailable(origin="loki", notes=("Loki did not answer in time",))
ALICE, BOB = ({"Authorization": f"Bearer {name}"} for name in ("alice", "bob"))
TOKENS = KnownTokens({"alice": Caller(user="alice@egi.eu"), "bob": Caller(user="bob@egi.eu")})


class World:
    """Sources and a clock that a test may change between two requests."""

    def __init__(self) -> None:
        assert WHOLE.executions is not None
        assert WHOLE.exposed is not None
        assert WHOLE.inventory is not None
        assert WHOLE.usage is not None
        self.now_ns = NOW_NS
        self.calls: dict[LogStream, Outcome[CallLog]] = {
            LogStream.EXECUTIONS: WHOLE.executions,
            LogStream.EXPOSED: WHOLE.exposed,
        }
        self.inventory: Outcome[Inventory] = WHOLE.inventory
        self.usage = SaidUsage(WHOLE.usage)
        self.made = 0
        self.deadline: float | None = None
        self.ledger: LedgerHolder | None = None
        self.mode = ScopeMode.OWNED

    def pass_seconds(self, seconds: float) -> None:
        self.now_ns += int(seconds * SECOND_NS)

    def aggregator(self, telemetry: Telemetry) -> Aggregator:
        return Aggregator(
            Sources(
                geoip=GeoIP(None),
                roster=Rosters(),
                inventory=_Inventory(self),
                usage=self.usage,
                logs=_Logs(self),
            ),
            telemetry=telemetry,
            now_ns=lambda: self.now_ns,
            deadline_seconds=30.0,
            ledger=self.ledger,
            mode=self.mode,
        )


class _Inventory(SaidInventory):
    def __init__(self, world: World) -> None:
        super().__init__(world.inventory)
        self._world = world

    async def read(self, *, now_ns: int, deadline: float | None) -> Outcome[Inventory]:
        del now_ns, deadline
        return self._world.inventory


class _Logs(SaidLogs):
    def __init__(self, world: World) -> None:
        super().__init__(world.calls)
        self._world = world

    async def read(self, *asked: Any, **when: Any) -> dict[LogStream, Outcome[CallLog]]:
        self._world.made += 1
        self._world.deadline = when["deadline"]
        self._said = self._world.calls
        return await super().read(*asked, **when)


@pytest.fixture
def world() -> World:
    return World()


@contextmanager
def served(world: World, settings: CacheSettings | None = None) -> Iterator[httpx.Client]:
    telemetry = Telemetry()
    with serving(
        world.aggregator(telemetry), telemetry, users=TOKENS, cache=settings or CacheSettings()
    ) as client:
        yield client


@pytest.fixture
def client(world: World) -> Iterator[httpx.Client]:
    with served(world) as client:
        yield client


def get(client: httpx.Client, path: str = SUMMARY, **headers: str) -> httpx.Response:
    response = client.get(
        path,
        params={**httpx.URL(path).params, **RANGE},
        headers=headers,
        auth=None if "Authorization" in headers else httpx.USE_CLIENT_DEFAULT,
    )
    assert response.status_code == 200, response.text
    return response


def counted(client: httpx.Client, came: str) -> float:
    """How many answers came so, by the server's own metrics."""
    name = f'oscar_metrics_answers_total{{came="{came}"}} '
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


@pytest.mark.parametrize("path", PATHS)
def test_what_is_kept_is_what_was_made(client: httpx.Client, world: World, path: str) -> None:
    first = get(client, path)
    assert "age" not in first.headers
    world.pass_seconds(42.5)
    world.calls = dict.fromkeys(LogStream, FAILED)
    again = get(client, path)
    assert again.content == first.content
    assert again.headers["age"] == "42"
    same = ("etag", "content-type", "cache-control", "vary", "content-disposition")
    assert [again.headers.get(name) for name in same] == [first.headers.get(name) for name in same]
    assert counted(client, "fresh") == 1


@pytest.mark.parametrize("path", PATHS)
def test_who_has_it_already_is_told_so(client: httpx.Client, path: str) -> None:
    etag = get(client, path).headers["etag"]
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = client.get(
            path,
            params={**httpx.URL(path).params, **RANGE},
            headers={"If-None-Match": known},
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        assert again.headers["cache-control"] == "private, no-cache"
    assert get(client, path, **{"If-None-Match": '"other"'}).content


def test_another_question_has_an_answer_of_its_own(client: httpx.Client) -> None:
    bodies = [get(client, path).content for path in PATHS]
    assert len(set(bodies)) == len(PATHS) - 1  # with nothing missing, the totals are the same
    as_csv = get(client, PATHS[4], Accept="text/csv")
    assert as_csv.headers["content-type"] == "text/csv"
    assert get(client, PATHS[4]).headers["content-type"] == "application/json"


def test_nobody_gets_what_is_kept_for_another(client: httpx.Client) -> None:
    mine = get(client, **ALICE)
    assert json.loads(mine.content)["totals"]["requests_count_total"] == 0
    everyones = json.loads(get(client).content)["totals"]["requests_count_total"]
    narrowed = client.get(SUMMARY, params={**RANGE, "owner": "alice@egi.eu"})
    assert everyones == 8
    assert get(client, **BOB).content != get(client).content
    assert get(client, **ALICE).content == mine.content
    assert json.loads(narrowed.content)["totals"] == json.loads(mine.content)["totals"]
    assert (
        client.get(SUMMARY, params=RANGE, headers={"Authorization": "x"}, auth=None).status_code
        == 401
    )


def test_an_unknown_parameter_is_refused_whatever_is_kept(client: httpx.Client) -> None:
    get(client)
    refused = client.get(SUMMARY, params={**RANGE, "nope": "1"})
    assert refused.status_code == BadRequest.status_code
    assert refused.headers["cache-control"] == "no-store"
    ignored = client.get("/system/metrics", params={**RANGE, "nope": "1"})
    assert ignored.headers["x-ignored-parameters"] == "nope"
    again = client.get("/system/metrics", params=RANGE)
    assert "x-ignored-parameters" not in again.headers
    assert "age" in again.headers


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Cache-Control", "no-cache"),
        ("Cache-Control", "max-age=0, No-Cache"),
        ("Pragma", "no-cache"),
    ],
)
def test_who_wants_none_that_is_kept_gets_none(
    client: httpx.Client, world: World, header: str, value: str
) -> None:
    get(client)
    world.calls = dict.fromkeys(LogStream, FAILED)
    afresh = get(client, **{header: value})
    assert "age" not in afresh.headers
    assert json.loads(afresh.content)["totals"]["requests_count_total"] is None
    # What says less is not kept instead of what says more.
    assert json.loads(get(client).content)["totals"]["requests_count_total"] == 8


def test_an_open_range_is_shown_for_seconds_and_made_anew_meanwhile(
    client: httpx.Client, world: World
) -> None:
    open_range = {"start": "2026-04-01T00:00:00Z"}
    first = client.get(SUMMARY, params=open_range)
    assert json.loads(first.content)["end"] == "2026-05-01T12:00:00Z"
    world.pass_seconds(4)
    assert client.get(SUMMARY, params=open_range).content == first.content
    assert world.made == 1
    world.pass_seconds(4)
    stale = client.get(SUMMARY, params=open_range)
    assert (stale.content, stale.headers["age"]) == (first.content, "8")
    wait_until(lambda: world.made == 2, "another report", timeout_seconds=10)
    wait_until(
        lambda: client.get(SUMMARY, params=open_range).content != first.content,
        "the new report",
        timeout_seconds=10,
    )
    again = client.get(SUMMARY, params=open_range)
    assert json.loads(again.content)["end"] == "2026-05-01T12:00:08Z"
    assert again.headers["age"] == "0"


def test_what_failed_is_stood_in_for_and_says_so(client: httpx.Client, world: World) -> None:
    first = json.loads(get(client).content)
    world.pass_seconds(1000)
    world.calls = dict.fromkeys(LogStream, FAILED)
    made = world.made
    for _ in range(3):
        old = get(client)
        assert old.headers["age"] == "1000"
        answer = json.loads(old.content)
        assert answer["totals"] == first["totals"]
        states = {source["name"]: source for source in answer["sources"]}
        assert states["request-logs"]["status"] == "ok"  # of a range that was over
        assert "1000 seconds before 2026-05-01T12:16:40Z" in states["request-logs"]["notes"]
        assert "did not answer in time" in states["request-logs"]["notes"]
        assert "notes" not in states["usage-metrics"]
    assert world.made == made + 1  # for some seconds nobody tries again
    assert counted(client, "old") == 3
    world.calls = {LogStream.EXECUTIONS: WHOLE.executions, LogStream.EXPOSED: WHOLE.exposed}  # type: ignore[dict-item]
    world.pass_seconds(20)
    back = get(client)
    assert "age" not in back.headers
    assert json.loads(back.content)["sources"][2].get("notes") is None


def test_who_waits_longer_is_not_answered_with_what_was_cut_short(
    client: httpx.Client, world: World
) -> None:
    whole, world.calls = world.calls, dict.fromkeys(LogStream, FAILED)
    short = get(client, Prefer="wait=1")
    assert json.loads(short.content)["totals"]["requests_count_total"] is None
    assert "age" in get(client, Prefer="wait=1").headers
    assert world.made == 1
    world.calls = whole
    longer = get(client)
    assert "age" not in longer.headers
    assert json.loads(longer.content)["totals"]["requests_count_total"]
    # What is whole is for everybody, however long they would wait.
    assert get(client, Prefer="wait=120").content == longer.content
    assert get(client, Prefer="wait=1").content == longer.content
    assert world.made == 2


def test_who_waits_longer_has_it_tried_again_where_one_stands_in(
    client: httpx.Client, world: World
) -> None:
    first = get(client)
    world.pass_seconds(1000)
    whole, world.calls = world.calls, dict.fromkeys(LogStream, FAILED)
    assert get(client, Prefer="wait=1").headers["age"] == "1000"
    assert get(client, Prefer="wait=1").headers["age"] == "1000"
    assert world.made == 2
    assert get(client, Prefer="wait=2").headers["age"] == "1000"
    assert world.made == 3
    world.calls = whole
    assert get(client, Prefer="wait=1").headers["age"] == "1000"
    longer = get(client)
    assert "age" not in longer.headers
    assert json.loads(longer.content)["totals"] == json.loads(first.content)["totals"]


def test_of_an_open_range_what_was_not_seen_is_a_gap(client: httpx.Client, world: World) -> None:
    params = {"start": "2026-05-01T00:00:00Z", "end": "2026-05-01T23:59:59Z"}
    client.get(SUMMARY, params=params).raise_for_status()
    world.pass_seconds(1800)
    world.calls = dict.fromkeys(LogStream, FAILED)
    answer = json.loads(client.get(SUMMARY, params=params).content)
    logs = answer["sources"][2]
    assert (logs["name"], logs["status"]) == ("request-logs", "partial")
    assert logs["gaps"] == [
        {
            "start": "2026-05-01T12:00:00Z",
            "end": "2026-05-01T12:30:00Z",
            "reason": "the source failed",
        }
    ]
    assert logs["coverage"] == pytest.approx(12 / 12.5)
    assert "requests_count_total" in logs["affects"]


@pytest.mark.parametrize(("path", "unknown"), [(SUMMARY, None), ("/system/metrics", 0)])
def test_so_it_is_of_the_periods_of_a_series(
    client: httpx.Client, world: World, path: str, unknown: int | None
) -> None:
    params = {"start": "2026-05-01T00:00:00Z", "end": "2026-05-01T23:59:59Z", "interval": "hour"}
    world.pass_seconds(-1200)
    client.get(path, params=params).raise_for_status()
    world.pass_seconds(3000)
    world.calls = dict.fromkeys(LogStream, FAILED)
    old = client.get(path, params=params)
    assert old.headers["age"] == "3000"
    periods = json.loads(old.content)["periods"]
    logs = ["request-logs", "exposed-request-logs"]
    assert [period["incomplete"] for period in periods[10:14]] == [[], logs, logs, []]
    # Something of the hour that it was made in, and nothing of the next, which goes on.
    told = [period["totals"]["requests_count_total"] for period in periods[10:14]]
    assert told == [0, 0, unknown, 0]
    assert periods[12]["totals"]["cpu_hours_total"] == 0
    assert periods[12]["totals"]["users"] == []


def test_a_file_that_is_old_says_so_too(client: httpx.Client, world: World) -> None:
    path = "/system/metrics/breakdown?group_by=user&format=csv"
    params = {**httpx.URL(path).params, "start": "2026-05-01T00:00:00Z"}
    params["end"] = "2026-05-01T23:59:59Z"
    first = client.get(path, params=params)
    world.pass_seconds(1800)
    world.calls = dict.fromkeys(LogStream, FAILED)
    old = client.get(path, params=params)
    assert old.content == first.content
    assert old.headers["content-disposition"].endswith('-partial.csv"')
    assert "request-logs;status=partial;coverage=0.960" in old.headers["x-completeness"]


def test_users_are_answered_while_the_inventory_is_out(client: httpx.Client, world: World) -> None:
    first = get(client, **ALICE)
    assert isinstance(world.inventory, Ok)
    world.pass_seconds(600)
    world.inventory = Unavailable(origin="kubernetes", notes=("could not be reached",))
    old = get(client, **ALICE)
    assert json.loads(old.content)["totals"] == json.loads(first.content)["totals"]
    assert old.headers["age"] == "600"
    refused = client.get(SUMMARY, params=RANGE, headers=BOB, auth=None)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "15")


def test_what_is_too_old_stands_in_for_nothing(client: httpx.Client, world: World) -> None:
    get(client)
    world.pass_seconds(3601)
    world.calls = dict.fromkeys(LogStream, FAILED)
    assert json.loads(get(client).content)["totals"]["requests_count_total"] is None


def test_what_a_user_sees_is_kept_for_a_minute(client: httpx.Client, world: World) -> None:
    get(client, **ALICE)
    made = world.made
    world.pass_seconds(59)
    get(client, **ALICE)
    assert world.made == made
    world.pass_seconds(20)
    assert "age" not in get(client, **ALICE).headers
    assert world.made == made + 1


@pytest.mark.parametrize(
    "settings", [CacheSettings(store="off"), CacheSettings(answer_kb=1, memory_mb=1)]
)
def test_what_is_not_kept_is_made_each_time(world: World, settings: CacheSettings) -> None:
    with served(world, settings) as client:
        first = get(client, PATHS[1])
        assert "age" not in get(client, PATHS[1]).headers
        assert world.made == 2
        assert first.headers["etag"] == get(client, PATHS[1]).headers["etag"]


def test_what_the_ledger_changes_is_made_anew(world: World, tmp_path: Path) -> None:
    store = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=64, threads=1)
    world.ledger = LedgerHolder(store, rows_max=1000)
    with served(world) as client:
        get(client)
        assert "age" in get(client).headers
        world.pass_seconds(30)
        store._threads.changes += 2
        assert "age" not in get(client).headers
        assert "age" in get(client).headers
        # Nothing of before a user was forgotten is shown, not even where a source fails.
        store._forgettings += 2
        world.calls = dict.fromkeys(LogStream, FAILED)
        assert json.loads(get(client).content)["totals"]["requests_count_total"] is None
