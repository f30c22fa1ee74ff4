"""What sources say, in our types, with no opinion. Pure.

A tally is a count of calls for one `CallKey` over one span; every request figure is a
sum or a distinct over tallies, so nobody carries log lines around.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

# The owner id of what belongs to the platform itself.
CLUSTER_ADMIN = "cluster_admin"


class Kind(StrEnum):
    """How a service was called: `/run` (sync), `/job` (async), or through the gateway (exposed)."""

    SYNC = "sync"
    ASYNC = "async"
    EXPOSED = "exposed"


class Result(StrEnum):
    """What became of a call, by its HTTP status: below 400, 4xx, 5xx."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    SERVER_ERROR = "server_error"


class CountryFrom(StrEnum):
    """How the country of a call was decided."""

    LABEL = "label"
    GEOIP = "geoip"
    CLAIM = "claim"
    ROSTER = "roster"
    NOTHING = "nothing"


class CallKey(NamedTuple):
    """What calls are counted by.

    `namespace` is blank where the record carries none; `country` is ISO 3166-1 alpha-2,
    a name that could not be mapped, or blank where unknown.
    """

    namespace: str
    service: str
    user: str
    country: str
    country_from: CountryFrom
    kind: Kind
    result: Result


Tallies = Counter[CallKey]


class HiddenUser:
    """A user who is counted and not shown: a caller of somebody else's service.

    It stands where a user's id does, and is neither text nor anything that an encoder or an
    order knows: what would show one by mistake fails instead.
    """

    __slots__ = ("id",)

    def __init__(self, user: str) -> None:
        self.id: Final = user

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HiddenUser) and other.id == self.id

    def __hash__(self) -> int:
        return hash((HiddenUser, self.id))

    def __repr__(self) -> str:
        return "HiddenUser(…)"

    def __str__(self) -> str:
        raise TypeError("a hidden user is not shown")


class LogStream(StrEnum):
    """The two logs calls are found in: the manager's executions, the gateway's exposed requests."""

    EXECUTIONS = "request-logs"
    EXPOSED = "exposed-request-logs"


class CallLog(msgspec.Struct, frozen=True, kw_only=True):
    """What one request log said of one span.

    `lines_seen` counts the lines recognised as ours, `lines_understood` those that
    became part of a tally; the difference was read and could not be understood.
    """

    tallies: Tallies
    lines_seen: int
    lines_understood: int


class SlotPart(NamedTuple):
    """A part of a quarter-hour (its number since the epoch): its first instant, or the rest.

    The first nanosecond stands apart so that an inclusive `end` on a boundary is exact.
    """

    slot: int
    first: bool


SlottedLog = dict[SlotPart, CallLog]


class ServiceCount(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one service over one span, and who made them (blank for nobody named)."""

    calls: dict[Kind, int]
    users: frozenset[str]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A deployed service, from its ConfigMap. `owner` and the rest are blank where unreadable."""

    namespace: str
    name: str
    owner: str = ""
    owner_name: str = ""
    visibility: str = ""
    allowed_users: tuple[str, ...] = ()
    vo: str = ""
    enable_gpu: bool = False


class NamespaceOwner(msgspec.Struct, frozen=True, kw_only=True):
    """Who a namespace belongs to; it outlives the services in it."""

    namespace: str
    owner: str


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What is deployed now, and whose each namespace is.

    `cut` is set where some services or owners are missing from it. `created_ns` is since when
    services (`<namespace>/<name>`) have been there without a break, where that is known.
    """

    services: tuple[Service, ...]
    owners: tuple[NamespaceOwner, ...] = ()
    # Unset rather than false: it then is not written, and what was sealed before stays equal.
    cut: bool | UnsetType = UNSET
    # Of what is deployed now; it is not sealed.
    created_ns: dict[str, int] | UnsetType = UNSET

    @property
    def whole(self) -> bool:
        """Whether it has every service and every owner."""
        return self.cut is not True

    def since_ns(self, namespace: str, name: str) -> int | None:
        """Since when a service has been there; None where that is not known."""
        return None if self.created_ns is UNSET else self.created_ns.get(f"{namespace}/{name}")


class ServiceKey(NamedTuple):
    """A service of a namespace; `service` is blank for what no service could be found for."""

    namespace: str
    service: str


class UsageMethod(StrEnum):
    """How usage was measured; figures of different methods need not add up."""

    CPU_ESTIMATE = "cpu-estimate"
    CPU_INCREASE = "cpu-increase"
    CPU_TEMPLATE = "cpu-template"
    GPU_ALLOCATED = "gpu-allocated"
    GPU_COUNTER = "gpu-counter"
    GPU_TEMPLATE = "gpu-template"


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """CPU core-seconds and GPU-seconds over one span.

    `None` for a measure that nothing measures, which is not the same as no usage.
    """

    cpu_seconds: dict[ServiceKey, float] | None
    gpu_seconds: dict[ServiceKey, float] | None
    methods: frozenset[UsageMethod] = frozenset()


class SlotUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of `quarters` quarter-hours (1, or 4 where windows shorter than an hour do not add up).

    `slot` is the number of the first of them since the epoch.
    """

    slot: int
    quarters: int
    usage: Usage


class Membership(StrEnum):
    """What a user is to the platform."""

    MEMBER = "member"
    EXTERNAL = "external"
    UNKNOWN = "unknown"


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """What one origin knows of a user, before rules; blank, empty or None where it says nothing."""

    id: str
    name: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    membership: Membership | None = None
    country: str = ""
    # Which kind of origin says the country: a claim, or the roster.
    country_from: CountryFrom = CountryFrom.ROSTER
    vo: str = ""
    project: str = ""


class RosterUser(msgspec.Struct, frozen=True, kw_only=True):
    """What the roster says of one user; blank or None where it says nothing.

    A user is of one VO and one project at most, so that what is grouped by them adds up.
    """

    id: str
    name: str = ""
    membership: Membership | None = None
    country: str = ""
    country_from: CountryFrom = CountryFrom.ROSTER
    vo: str = ""
    project: str = ""


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """Who the users are: those that some origin names, and what is known of others' ids."""

    users: dict[str, RosterUser] = {}
    # What rules say of an id that no origin names.
    of_id: Callable[[str], RosterUser | None] | None = None

    def of(self, user: str) -> RosterUser | None:
        """What is known of a user; None where nothing is."""
        found = self.users.get(user)
        return self.of_id(user) if found is None and self.of_id is not None else found
