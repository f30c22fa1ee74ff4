"""That whoever goes, fails or is stopped leaves no place taken and nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litestar import Request
from structlog.testing import capture_logs

from oscar_metrics import wire
from oscar_metrics.aggregator import Aggregator
from oscar_metrics.auth.caller import ADMINISTRATOR
from oscar_metrics.errors import BadRequest, Forbidden, NotNow
from oscar_metrics.handlers import time_limits
from oscar_metrics.handlers.answer import Question, Reported
from oscar_metrics.handlers.answers import Answers, Prepared
from oscar_metrics.handlers.query import Query
from oscar_metrics.handlers.streamed import Streamed
from oscar_metrics.resilience.lanes import LaneName, Lanes, LaneSettings
from oscar_metrics.resilience.report_cache import CacheSettings
from oscar_metrics.scope import Viewer
from oscar_metrics.sources.countries import GeoIP
from oscar_metrics.sources.interfaces import Sources
from oscar_metrics.sources.rosters import Rosters
from oscar_metrics.telemetry import Telemetry
from oscar_metrics.timerange import DAY_NS, SECOND_NS, Span
from oscar_metrics.wire import SourceName, SourceState

NOW_NS = 100 * DAY_NS
ENDS: tuple[Callable[[], Exception], ...] = (
    Forbidden,
    lambda: BadRequest("too many rows"),
    lambda: NotNow("the ledger cannot be read", detail="x", retry_after_seconds=1),
    ZeroDivisionError,
)
PLACES = LaneSettings(
    reports_at_once=2,
    reports_queued=3,
    long_reports_at_once=1,
    long_reports_queued=1,
    streamed_rows=10,
    streams_at_once=3,
)


class Server:
    """Answers over reports that take some turns and end in every way."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now_ns = NOW_NS
        self.telemetry = Telemetry()
        self.lanes = Lanes(PLACES, self.telemetry)
        sources = Sources(
            geoip=GeoIP(None), roster=Rosters(), inventory=None, usage=None, logs=None
        )
        self.aggregator = Aggregator(
            sources,
            telemetry=self.telemetry,
            now_ns=lambda: self.now_ns,
            deadline_seconds=30.0,
        )
        self.answers = Answers(
            self.aggregator, self.lanes, CacheSettings(memory_mb=1), self.telemetry
        )

    async def ask(self) -> None:
        """One client's request: which of few questions, how, and what it does with the answer."""
        random = self.random
        span = Span(0, random.choice((DAY_NS, 20 * DAY_NS, 2 * NOW_NS)))
        headers = [(b"cache-control", b"no-cache")] * (random.random() < 0.2)
        headers += [(b"prefer", b"wait=1")] * (random.random() < 0.2)
        request: Request[Any, Any, Any] = Request(
            {"type": "http", "headers": headers, "state": {}}  # type: ignore[arg-type]
        )
        time_limits.begin(request, self.aggregator)
        question = Question(
            route=str(random.randrange(3)),
            service="",
            viewer=Viewer(caller=ADMINISTRATOR),
            parameters=(),
            form="",
        )
        prepared = Prepared(make=lambda *_: self._make(span), span=span)
        with contextlib.suppress(Forbidden, BadRequest, NotNow, ZeroDivisionError):
            response = await self.answers.answer(
                request, Query(b"", ()), question, lambda: prepared
            )
            if isinstance(response, Streamed) and random.random() < 0.8:
                with contextlib.closing(response._pieces):
                    for _ in response._pieces:
                        await asyncio.sleep(0)

    async def _make(self, span: Span) -> Reported:
        for _ in range(self.random.randrange(6)):
            await asyncio.sleep(0)
        if self.random.random() < 0.4:
            error = self.random.choice(ENDS)()
            raise error
        state = self.random.choice(tuple(SourceState))
        source = wire.SourceStatus(
            name=SourceName.REQUEST_LOGS,
            status=state,
            origin="loki",
            coverage=0.0 if state is SourceState.MISSING else 1.0,
            gaps=(),
            affects=("items",),
        )
        report = wire.CountryBreakdown(
            start="a",
            end="b",
            group_by="country",
            items=tuple(
                wire.CountryItem(key="ES", executions_count=1, unique_users_count=1, countries=())
                for _ in range(self.random.choice((1, 50)))
            ),
            sources=(source,),
        )
        return Reported(report=report, sources=(source,), span=span, sees_everything=True)

    def metric(self, name: str) -> float:
        """The sum of a gauge over its labels."""
        metrics = (one for one in self.telemetry.registry.collect() if one.name == name)
        return sum(sample.value for metric in metrics for sample in metric.samples)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_nothing_is_left(seed: int) -> None:
    with capture_logs():
        asyncio.run(_some_come_and_go(Server(Random(seed))))


async def _some_come_and_go(server: Server) -> None:
    random, clients = server.random, list[asyncio.Task[None]]()
    async with server.answers.running():
        for _ in range(120):
            server.now_ns += random.choice((0, 0, 1, 6, 20, -3)) * SECOND_NS
            clients += [asyncio.create_task(server.ask()) for _ in range(random.randrange(4))]
            for client in random.sample(clients, min(2, len(clients))):
                # Once, or again while it goes.
                client.cancel()
            await asyncio.sleep(0)
    await asyncio.gather(*clients, return_exceptions=True)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not [client for client in clients if not client.cancelled() and client.exception()]
    gc.collect()
    assert server.metric("oscar_metrics_reports_in_progress") == 0
    assert server.metric("oscar_metrics_reports_waiting") == 0
    async with asyncio.timeout(5), contextlib.AsyncExitStack() as stack:
        for lane, places in ((LaneName.SHORT, 2), (LaneName.LONG, 1)):
            for _ in range(places):
                await stack.enter_async_context(server.lanes.place(lane, None))
        with pytest.raises(NotNow):
            async with server.lanes.place(LaneName.LONG, asyncio.get_running_loop().time()):
                raise AssertionError
