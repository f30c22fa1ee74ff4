"""A small cluster of two users and the administrator, and a server all of them may ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import msgspec

from oscar_metrics.auth.access_settings import AccessSettings
from oscar_metrics.auth.caller import Caller
from oscar_metrics.errors import NotNow
from oscar_metrics.facts import (
    CLUSTER_ADMIN,
    Inventory,
    Kind,
    NamespaceOwner,
    Service,
    ServiceKey,
    Usage,
)
from oscar_metrics.outcome import Ok
from oscar_metrics.privacy import Privacy
from oscar_metrics.scope import ScopeMode
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import (
    MANY_FAILURES,
    NOW_NS,
    PASSWORD,
    SHOW_EVERYTHING,
    USERNAME,
    KnownTokens,
    World,
    aggregator,
    call,
    log,
    serving,
)

ALICE, BOB = "alice@egi.eu", "bob@egi.eu"
ALICES, BOBS, SHARED = "oscar-svc-alice", "oscar-svc-bob", "oscar-svc"

# Both users have a `cowsay`, one deleted service and one in the shared namespace.
NEIGHBOURS = World(
    inventory=Ok(
        facts=Inventory(
            services=(
                Service(namespace=ALICES, name="cowsay", owner=ALICE, owner_name="Alice"),
                Service(namespace=BOBS, name="cowsay", owner=BOB),
                Service(namespace=BOBS, name="plants", owner=BOB),
                Service(namespace=SHARED, name="alices-shared", owner=ALICE),
                Service(namespace=SHARED, name="bobs-shared", owner=BOB, visibility="private"),
                Service(namespace=SHARED, name="grayify", owner=CLUSTER_ADMIN, visibility="public"),
            ),
            owners=(
                NamespaceOwner(namespace=ALICES, owner=ALICE),
                NamespaceOwner(namespace=BOBS, owner=BOB),
                NamespaceOwner(namespace=SHARED, owner=CLUSTER_ADMIN),
            ),
            # They have been there since before everything that is reported of them.
            created_ns={
                f"{SHARED}/{name}": 0 for name in ("alices-shared", "bobs-shared", "grayify")
            },
        ),
        origin="kubernetes",
        last_updated_ns=NOW_NS,
    ),
    usage=Ok(
        facts=Usage(
            cpu_seconds={
                ServiceKey(ALICES, "cowsay"): 3600.0,
                ServiceKey(BOBS, "cowsay"): 7200.0,
                ServiceKey(BOBS, "bobs-deleted"): 36000.0,
            },
            gpu_seconds={},
        ),
        origin="prometheus",
        last_updated_ns=NOW_NS,
    ),
    executions=log(
        {
            call("cowsay", ALICE, "ES", namespace=ALICES): 3,
            call("alices-deleted", ALICE, "ES", namespace=ALICES): 2,
            call("alices-shared", BOB, "FR", namespace=SHARED): 1,
            call("cowsay", BOB, "DE", namespace=BOBS): 10,
            call("plants", "carol@egi.eu", "IT", namespace=BOBS): 20,
            call("bobs-deleted", BOB, "DE", namespace=BOBS): 30,
            call("bobs-shared", BOB, "DE", namespace=SHARED): 40,
            call("grayify", "carol@egi.eu", "IT", namespace=SHARED): 50,
            # There are two of that name: nobody's.
            call("cowsay", "carol@egi.eu", "IT", namespace=""): 100,
        }
    ),
    exposed=log({call("plants", "", "", Kind.EXPOSED, namespace=BOBS): 7}),
)
NO_INVENTORY = msgspec.structs.replace(NEIGHBOURS, inventory=None)
# What alice has of `requests_count_total`, and everybody.
ALICES_REQUESTS, ALL_REQUESTS = 6, 256

USERS = KnownTokens(
    {
        "alice": Caller(user=ALICE),
        "bob": Caller(user=BOB),
        "nobody": Caller(user="nobody@egi.eu"),
        "root": Caller(user="root@egi.eu", administrator=True),
        "out": NotNow("identity provider unavailable", detail="it is out", retry_after_seconds=7),
    }
)


def basic(username: str = USERNAME, password: str = PASSWORD) -> Mapping[str, str]:
    return {"Authorization": httpx.BasicAuth(username, password)._auth_header}


def bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


# Everybody who is let in, by the name tests call them.
CREDENTIALS: Mapping[str, Mapping[str, str]] = {
    "administrator": basic(),
    **{name: bearer(name) for name in ("root", "alice", "bob", "nobody")},
}


@contextmanager
def neighbourhood(
    world: World = NEIGHBOURS,
    *,
    mode: ScopeMode = ScopeMode.OWNED,
    privacy: Privacy = SHOW_EVERYTHING,
    access: AccessSettings = MANY_FAILURES,
) -> Iterator[httpx.Client]:
    """A client without credentials of its own."""
    telemetry = Telemetry()
    answering = aggregator(world, telemetry, mode=mode, privacy=privacy)
    with serving(answering, telemetry, admin=False, users=USERS, access=access) as client:
        yield client
