"""How bad the network before an upstream is made, and what that does to who asks through it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from enum import Enum, auto

import msgspec

from tests.servers.toxiproxy import Proxy


class Effect(Enum):
    """What a toxic leaves of an upstream, whatever is asked of it."""

    # It answers all the same, and in time.
    HARMLESS = auto()
    # Some of its answers may arrive.
    SOME = auto()
    # None of them does.
    OUT = auto()


class Toxic(msgspec.Struct, frozen=True, kw_only=True):
    """A toxic of Toxiproxy; a blank `kind` is an upstream that is down."""

    name: str
    effect: Effect
    kind: str = ""
    attributes: Mapping[str, int] = {}

    def on(self, proxy: Proxy) -> contextlib.AbstractContextManager[None]:
        """Have it in force until the block ends."""
        return proxy.toxic(self.kind, **self.attributes) if self.kind else proxy.down()


def _toxic(name: str, effect: Effect, kind: str = "", **attributes: int) -> Toxic:
    return Toxic(name=name, effect=effect, kind=kind, attributes=attributes)


# One of each kind; times are against a deadline of a second.
EACH = (
    _toxic("latency", Effect.OUT, "latency", latency=2500),
    _toxic("jitter", Effect.SOME, "latency", latency=60, jitter=60),
    _toxic("bandwidth", Effect.SOME, "bandwidth", rate=2),
    _toxic("slow-close", Effect.HARMLESS, "slow_close", delay=3000),
    _toxic("time-out", Effect.OUT, "timeout", timeout=200),
    _toxic("reset", Effect.OUT, "reset_peer", timeout=0),
    _toxic("slicer", Effect.SOME, "slicer", average_size=64, size_variation=32, delay=500),
    _toxic("data-limit", Effect.OUT, "limit_data", bytes=100),
    _toxic("down", Effect.OUT),
)
# Others of the same kinds, which fail earlier, later, or in the middle of an answer.
MORE = (
    _toxic("little-latency", Effect.SOME, "latency", latency=150, jitter=0),
    _toxic("more-bandwidth", Effect.SOME, "bandwidth", rate=20),
    _toxic("silence", Effect.OUT, "timeout", timeout=0),
    _toxic("late-reset", Effect.OUT, "reset_peer", timeout=400),
    _toxic("crumbs", Effect.SOME, "slicer", average_size=2, size_variation=1, delay=1000),
    _toxic("more-data", Effect.SOME, "limit_data", bytes=3000),
)
