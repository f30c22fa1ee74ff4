"""What is kept of what somebody may not see any more, would not wait for, or asked too early."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from oscar_metrics.facts import CallLog, Inventory, LogStream, NamespaceOwner, Service, Usage
from oscar_metrics.ledger.duckdb import DuckLedger
from oscar_metrics.ledger.holder import LedgerHolder
from oscar_metrics.outcome import Gap, GapReason, Ok, Outcome, Unavailable, settle
from oscar_metrics.scope import ScopeMode
from oscar_metrics.timerange import Span, parse_instant
from tests.contract.serving import NOW_NS, RANGE, WHOLE, SaidUsage
from tests.contract.test_kept_answers import ALICE, FAILED, SUMMARY, World, get, served
from tests.servers.process import wait_until

OUT = Unavailable(origin="kubernetes", notes=("could not be reached",))
COWSAY = "/system/metrics/cowsay"
APRIL = Span(parse_instant("2026-04-01T00:00:00Z"), parse_instant("2026-05-01T00:00:00Z"))


@pytest.fixture
def world() -> World:
    return World()


def inventory(*services: Service) -> Outcome[Inventory]:
    owners = {NamespaceOwner(namespace=one.namespace, owner=one.owner) for one in services}
    return Ok(
        facts=Inventory(services=services, owners=tuple(owners)),
        origin="kubernetes",
        last_updated_ns=NOW_NS,
    )


def of_bob(visibility: str) -> Service:
    return Service(
        namespace="oscar-svc-bob", name="cowsay", owner="bob@egi.eu", visibility=visibility
    )


def cut_short(world: World) -> dict[LogStream, Outcome[CallLog]]:
    """What the logs say where the deadline came before the last days of April."""
    said = world.calls[LogStream.EXECUTIONS]
    assert isinstance(said, Ok)
    missing = Gap(
        span=Span(parse_instant("2026-04-20T00:00:00Z"), APRIL.stop_ns), reason=GapReason.DEADLINE
    )
    cut = settle(said.facts, origin="log-files", asked=APRIL, now_ns=NOW_NS, gaps=[missing])
    return dict.fromkeys(LogStream, cut)


def requests(response: httpx.Response) -> int | None:
    found: int | None = json.loads(response.content)["totals"]["requests_count_total"]
    return found


def status(client: httpx.Client, path: str, who: dict[str, str]) -> int:
    return client.get(path, params=RANGE, headers=who, auth=None).status_code


def test_who_was_refused_is_not_shown_what_was_kept_before(world: World) -> None:
    with served(world) as client:
        assert status(client, COWSAY, ALICE) == 200
        world.pass_seconds(100)
        world.inventory = inventory()
        assert status(client, COWSAY, ALICE) == 403
        world.inventory = OUT
        assert status(client, COWSAY, ALICE) == 503


def test_nor_what_was_closed_to_them_since(world: World) -> None:
    world.mode, world.inventory = ScopeMode.VISIBLE, inventory(of_bob("public"))
    with served(world) as client:
        first = get(client, **ALICE)
        assert requests(first)
        world.pass_seconds(100)
        world.calls = dict.fromkeys(LogStream, FAILED)
        assert requests(get(client, **ALICE)) == requests(first)
        world.pass_seconds(100)
        world.inventory = inventory(of_bob("private"))
        assert requests(get(client, **ALICE)) is None


def test_what_one_would_not_wait_for_is_not_shown_to_who_would(world: World) -> None:
    whole = world.calls
    with served(world) as client:
        world.calls = cut_short(world)
        get(client, Prefer="wait=1")
        world.calls = whole
        assert "age" not in get(client).headers
        # Nor does what is kept stand in for others, who can have it made.
        world.pass_seconds(1000)
        world.calls = cut_short(world)
        assert get(client, Prefer="wait=1").headers["age"] == "1000"
        world.calls = whole
        assert "age" not in get(client).headers


def test_before_its_range_had_begun_a_report_says_nothing_of_it(world: World) -> None:
    later = {"start": "2026-05-01T12:10:00Z", "end": "2026-05-01T13:00:00Z"}
    with served(world) as client:
        assert requests(client.get(SUMMARY, params=later)) is not None
        world.pass_seconds(1800)
        world.calls = dict.fromkeys(LogStream, FAILED)
        assert requests(client.get(SUMMARY, params=later)) is None


def test_a_clock_that_is_set_back_does_not_keep_it_from_being_tried(world: World) -> None:
    whole = world.calls
    with served(world) as client:
        get(client)
        world.pass_seconds(3000)
        world.calls = dict.fromkeys(LogStream, FAILED)
        assert get(client).headers["age"] == "3000"
        world.pass_seconds(-1800)
        world.calls = whole
        assert "age" not in get(client).headers


def test_what_has_just_failed_is_not_tried_with_every_request(world: World) -> None:
    today = {"start": "2026-05-01T00:00:00Z"}
    with served(world) as client:
        client.get(SUMMARY, params=today)
        world.pass_seconds(7)
        world.calls = dict.fromkeys(LogStream, FAILED)
        client.get(SUMMARY, params=today)
        wait_until(lambda: world.made == 2, "another report", timeout_seconds=10)
        for _ in range(50):
            assert client.get(SUMMARY, params=today).headers["age"] == "7"
        assert world.made == 2


class HeldUsage(SaidUsage):
    """Says nothing until it may."""

    def __init__(self, said: Outcome[Usage]) -> None:
        super().__init__(said)
        self.asked = 0
        self.may_answer = threading.Event()

    async def read(self, *asked: Any, **when: Any) -> Outcome[Usage]:
        self.asked += 1
        await asyncio.to_thread(self.may_answer.wait)
        return await super().read(*asked, **when)


def test_nobody_joins_a_report_begun_before_a_user_was_forgotten(
    world: World, tmp_path: Path
) -> None:
    assert WHOLE.usage is not None
    world.usage = held = HeldUsage(WHOLE.usage)
    store = DuckLedger.open(tmp_path / "ledger.duckdb", create=True, memory_mb=64, threads=1)
    world.ledger = LedgerHolder(store, rows_max=1000)
    with served(world) as client:
        asking = [threading.Thread(target=get, args=(client,)) for _ in range(2)]
        asking[0].start()
        wait_until(lambda: held.asked == 1, "the first", timeout_seconds=10)
        store._forgettings += 2
        asking[1].start()
        try:
            wait_until(lambda: held.asked == 2, "another report", timeout_seconds=10)
        finally:
            held.may_answer.set()
            for one in asking:
                one.join()


def test_directives_and_tags_may_stand_on_lines_of_their_own(world: World) -> None:
    with served(world) as client:
        etag = get(client).headers["etag"]
        lines = [("Cache-Control", "max-age=3"), ("Cache-Control", "no-cache")]
        afresh = client.get(SUMMARY, params=RANGE, headers=lines)
        assert "age" not in afresh.headers
        known = [("If-None-Match", '"other"'), ("If-None-Match", etag)]
        assert client.get(SUMMARY, params=RANGE, headers=known).status_code == 304
