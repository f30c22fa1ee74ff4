"""What every call to an upstream passes: its breaker, its places, and whether to try again.

So an upstream that fails is left alone for a while and nobody waits for it, no report takes
all of its places, and what it failed to answer is asked again only where that can help, is
within a budget, and can end before the report's deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Annotated, TypeVar

import msgspec
import structlog
from msgspec import Meta

from oscar_metrics.errors import Reason, UpstreamError
from oscar_metrics.resilience.asker import asker
from oscar_metrics.resilience.breaker import Breaker, BreakerState, Result
from oscar_metrics.resilience.budget import RetryBudget
from oscar_metrics.telemetry import Telemetry

T = TypeVar("T")

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)
# The wait before a retry is anything up to this, doubled each time, unless the upstream says.
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 10.0
# The event loop may end a wait so much before its time.
_CLOCK_SECONDS = 0.01
# When the call that the running task made last was let through: never, while it waits.
_ASKED_SINCE: ContextVar[float] = ContextVar("asked since", default=0.0)
# In which nothing was asked, or nothing is said of the upstream's health.
_NOTHING_ASKED = frozenset({Reason.TLS, Reason.CREDENTIALS})


class Protection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an upstream is kept from being hammered, and reports from waiting for it."""

    # The most of its places (`concurrency`) that one report takes, in percent; at least one place.
    report_percent: Annotated[int, Meta(ge=1, le=100)] = 50
    # Tries again in a minute, in percent of its calls, and five more; 0: those five only.
    retry_percent: Annotated[int, Meta(ge=0, le=100)] = 15
    # How long it is not asked once it has failed again and again, in seconds; doubled each time
    # that it then fails the one call that is let through.
    open_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 5.0
    # The longest it is not asked, in seconds: so long may its recovery stay unnoticed.
    longest_open_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 60.0
    # A call that was unanswered for this long when the report's deadline came counts as failed,
    # in seconds; half of `timeout_seconds` where that is less.
    unanswered_seconds: Annotated[float, Meta(ge=0.01, le=3600)] = 10.0

    def places_of_one(self, concurrency: int) -> int:
        """How many of an upstream's places one report may take."""
        return max(1, concurrency * self.report_percent // 100)

    def unanswered_of(self, timeout_seconds: float) -> float:
        """After how long a call of such a time-out tells of the upstream when it is ended."""
        return min(self.unanswered_seconds, timeout_seconds / 2)


class Gate:
    """One upstream's, made once at start-up; its name is the metric label."""

    def __init__(
        self,
        upstream: str,
        settings: Protection,
        *,
        concurrency: int,
        attempts: int,
        timeout_seconds: float,
        telemetry: Telemetry,
    ) -> None:
        self._upstream = upstream
        self._attempts = attempts
        self._telemetry = telemetry
        self._places = asyncio.Semaphore(concurrency)
        self._places_of_one = settings.places_of_one(concurrency)
        self._unanswered_seconds = settings.unanswered_of(timeout_seconds)
        self._budget = RetryBudget(settings.retry_percent)
        self._breaker = Breaker(
            open_seconds=settings.open_seconds,
            longest_open_seconds=settings.longest_open_seconds,
            random=random.random,
        )
        self._openings_told = 0
        self._in_progress = telemetry.calls_in_progress.labels(upstream)
        self._waiting = telemetry.calls_waiting.labels(upstream)
        telemetry.places.labels(upstream).set(concurrency)
        # Read when they are asked for, since they change with time alone, on the clock that event
        # loops go by.
        budget = self._budget
        allowed, left = telemetry.retries_allowed, telemetry.retries_left
        allowed.labels(upstream).set_function(lambda: budget.allowed(time.monotonic()))
        left.labels(upstream).set_function(lambda: budget.left(time.monotonic()))
        self._tell()

    async def ask(self, once: Callable[[], Awaitable[T]]) -> T:
        """What `once` returns, tried again where that may help.

        Raises the UpstreamError it raises, and one with Reason.OPEN where the upstream is not to
        be asked now.
        """
        async with self.keeping_place(once) as answer:
            return answer

    @contextlib.asynccontextmanager
    async def keeping_place(self, once: Callable[[], Awaitable[T]]) -> AsyncIterator[T]:
        """The same for an answer that is still coming: its place is kept until the block ends."""
        async with contextlib.AsyncExitStack() as place:
            yield await self._ask(once, place)

    async def _ask(self, once: Callable[[], Awaitable[T]], place: contextlib.AsyncExitStack) -> T:
        now = asyncio.get_running_loop().time
        failed: UpstreamError | None = None
        self._budget.called(now())
        for tries in itertools.count(1):
            began = now()
            try:
                return await self._try(once, place)
            except UpstreamError as exc:
                if failed is not None and exc.reason is Reason.OPEN:
                    raise failed from None  # why it failed says more
                failed = exc
                wait_seconds = self._wait_seconds(exc, tries, took_seconds=now() - began)
                if wait_seconds is None:
                    raise
            await asyncio.sleep(wait_seconds)
        raise AssertionError  # pragma: no cover - the loop returns or raises

    async def _try(self, once: Callable[[], Awaitable[T]], place: contextlib.AsyncExitStack) -> T:
        now = asyncio.get_running_loop().time
        ticket = self._breaker.begin(now())
        if ticket is None:
            raise self._refusal()
        self._tell()
        began: float | None = None
        result = Result.NOTHING
        try:
            _ASKED_SINCE.set(math.inf)
            async with contextlib.AsyncExitStack() as taken:
                with self._waiting.track_inprogress():
                    if (one := asker()) is not None:
                        places = one.places(self._upstream, self._places_of_one)
                        await taken.enter_async_context(places)
                    await taken.enter_async_context(self._places)
                taken.enter_context(self._in_progress.track_inprogress())
                if not self._breaker.holds(ticket):
                    raise self._refusal()
                began = now()
                _ASKED_SINCE.set(began)
                answer = await once()
                result = Result.ANSWERED
                place.push_async_exit(taken.pop_all())
                return answer
        except UpstreamError as exc:
            if began is not None:
                result = _told_by(exc)
            raise
        except asyncio.CancelledError:
            if began is not None and went_unanswered(began, now(), self._unanswered_seconds):
                result = Result.FAILED
            raise
        finally:
            self._breaker.end(ticket, result, now())
            self._tell()

    def _wait_seconds(self, exc: UpstreamError, tries: int, *, took_seconds: float) -> float | None:
        """How long to wait before trying again; None: do not."""
        if (
            not exc.retryable
            or tries >= self._attempts
            or self._breaker.state is not BreakerState.CLOSED
        ):
            return None
        wait_seconds = exc.retry_after_seconds
        if wait_seconds is None:
            most_seconds = _FIRST_WAIT_SECONDS * 2 ** (tries - 1)
            wait_seconds = random.uniform(0, min(most_seconds, _LONGEST_WAIT_SECONDS))
        now, one = asyncio.get_running_loop().time(), asker()
        deadline = None if one is None else one.deadline
        # As long as the last try took, so long may the next.
        late = deadline is not None and now + wait_seconds + took_seconds > deadline
        if late or wait_seconds > _LONGEST_WAIT_SECONDS:
            decision = "too late"
        elif not self._budget.spend(now):
            decision = "over budget"
        else:
            decision = "made"
        self._telemetry.retries.labels(self._upstream, decision).inc()
        return wait_seconds if decision == "made" else None

    def _refusal(self) -> UpstreamError:
        self._telemetry.calls_refused.labels(self._upstream).inc()
        now = asyncio.get_running_loop().time()
        return UpstreamError(
            self._upstream, Reason.OPEN, retry_after_seconds=self._breaker.seconds_left(now)
        )

    def _tell(self) -> None:
        """Have the metrics, `/readyz` and the log say what became of the breaker."""
        state = self._breaker.state
        before = self._telemetry.breakers.get(self._upstream)
        if state == before:
            return
        self._telemetry.breakers[self._upstream] = state
        for each in BreakerState:
            self._telemetry.breaker_state.labels(self._upstream, each).set(each is state)
        openings = self._telemetry.breaker_openings.labels(self._upstream)
        if self._breaker.openings > self._openings_told:
            openings.inc(self._breaker.openings - self._openings_told)
            self._openings_told = self._breaker.openings
            _log.warning("upstream failed again and again", upstream=self._upstream)
        elif state is BreakerState.CLOSED and before is not None:
            _log.info("upstream answers again", upstream=self._upstream)


def asked_since(began: float) -> float:
    """When an upstream was asked something that was begun then: later, where it waited its turn."""
    return max(began, _ASKED_SINCE.get())


def went_unanswered(began: float, now: float, least_seconds: float) -> bool:
    """Whether it is the report's deadline that ended something, and after so long at least."""
    one = asker()
    if one is None or one.deadline is None or now < one.deadline - _CLOCK_SECONDS:
        return False
    return now - began >= least_seconds


def _told_by(exc: UpstreamError) -> Result:
    """What a failed call tells of an upstream's health: a refusal is an answer."""
    if exc.retryable or exc.reason is Reason.TIMEOUT:
        return Result.FAILED
    # What cannot be retried and is no refusal: nobody was asked (no cluster, no certificate).
    if exc.reason in _NOTHING_ASKED or exc.reason is Reason.CONNECT:
        return Result.NOTHING
    return Result.ANSWERED
