"""What the facts of one day say together of what is missing in them."""

from __future__ import annotations

import pytest

from oscar_metrics.facts import (
    CallKey,
    CallLog,
    CountryFrom,
    Inventory,
    Kind,
    LogStream,
    Result,
    Service,
    ServiceKey,
    Tallies,
    Usage,
)
from oscar_metrics.findings import Level
from oscar_metrics.last_day import countries, unknown_forms, without_cpu
from oscar_metrics.outcome import Ok, Outcome, Unavailable
from oscar_metrics.telemetry import Telemetry
from tests.contract.serving import World, aggregator

NONE = Unavailable(origin="kubernetes", notes=("not there",))


def log(*keys: tuple[str, str, CountryFrom, Result], times: int = 1, lost: int = 0) -> CallLog:
    tallies = Tallies()
    for namespace, service, way, result in keys:
        key = CallKey(namespace, service, "jane.doe", "ES", way, Kind.SYNC, result)
        tallies[key] += times
    total = tallies.total()
    return CallLog(tallies=tallies, lines_seen=total + lost, lines_understood=total)


def ways(**counts: int) -> CallLog:
    tallies = Tallies()
    for way, count in counts.items():
        key = CallKey("svc", "cowsay", "ann", "", CountryFrom(way), Kind.SYNC, Result.OK)
        tallies[key] = count
    return CallLog(tallies=tallies, lines_seen=0, lines_understood=0)


def called(*services: str, namespace: str = "svc", result: Result = Result.OK) -> CallLog:
    return log(*((namespace, service, CountryFrom.LABEL, result) for service in services))


@pytest.mark.parametrize(
    ("counts", "level", "said"),
    [
        ({"label": 1000}, Level.OK, "1,000 by a label"),
        ({"label": 9, "nothing": 1}, Level.OK, "9 by a label, 1 by nothing"),
        (
            {"geoip": 5, "roster": 2, "claim": 1, "nothing": 2},
            Level.WARNING,
            "5 by the GeoIP database, 1 by the user's log-in, 2 by the roster, 2 by nothing",
        ),
    ],
)
def test_ways_of_countries(counts: dict[str, int], level: Level, said: str) -> None:
    (found,) = countries([ways(**counts)], has_geoip=True)
    assert found.level is level
    assert found.says.endswith(f"the country is told: {said}")
    assert bool(found.change) is (level is Level.WARNING)


def test_what_to_change_depends_on_whether_there_is_a_database() -> None:
    for has_geoip, change in ((True, "private"), (False, "OSCAR_METRICS_GEOIP_DATABASE")):
        (found,) = countries([ways(nothing=1)], has_geoip=has_geoip)
        assert change in found.change
    assert (
        countries([CallLog(tallies=Tallies(), lines_seen=3, lines_understood=0)], has_geoip=True)
        == []
    )
    assert countries([], has_geoip=True) == []


def inventory(*names: str) -> Ok[Inventory]:
    services = tuple(Service(namespace="svc", name=name) for name in names)
    return Ok(facts=Inventory(services=services), origin="kubernetes")


def usage(**seconds: float) -> Ok[Usage]:
    cpu = {ServiceKey("svc", name): value for name, value in seconds.items()}
    return Ok(facts=Usage(cpu_seconds=cpu, gpu_seconds=None), origin="prometheus")


UNMEASURED: Ok[Usage] = Ok(facts=Usage(cpu_seconds=None, gpu_seconds=None), origin="prometheus")


@pytest.mark.parametrize(
    ("deployed", "used", "calls", "said"),
    [
        (inventory("a", "b"), usage(a=1, b=2), called("a", "b"), "all 2 services"),
        (inventory("a", "b"), usage(a=1), called("a", "b"), "1 of 2 services"),
        (inventory("a", "b"), usage(a=1, b=0), called("a", "b"), "svc/b"),
        # Older lines have no namespace; another namespace's service is another.
        (inventory("a"), usage(), called("a", namespace=""), "svc/a"),
        (inventory("a"), usage(), called("a", namespace="other"), ""),
        # A call that was refused never ran, and who was not called need not have.
        (inventory("a"), usage(), called("a", result=Result.CLIENT_ERROR), ""),
        (inventory("a", "b"), usage(a=1), called("a"), "all 1 services"),
        # What was deleted is no longer there to be looked after.
        (inventory(), usage(), called("a"), ""),
        (NONE, usage(), called("a"), ""),
        (inventory("a"), NONE, called("a"), ""),
        (inventory("a"), UNMEASURED, called("a"), ""),
    ],
)
def test_services_without_cpu(
    deployed: Outcome[Inventory], used: Outcome[Usage], calls: CallLog, said: str
) -> None:
    found = without_cpu(deployed, used, [calls])
    assert [said in one.says for one in found] == ([True] if said else [])
    assert all((one.level is Level.OK) == one.says.startswith("all ") for one in found)


def test_many_services_without_cpu_are_not_all_named() -> None:
    names = [f"s{n}" for n in range(9)]
    (found,) = without_cpu(inventory(*names), usage(), [called(*names)])
    assert found.says.endswith("svc/s0, svc/s1, svc/s2, svc/s3, svc/s4 and 4 more")
    assert "jane" not in found.says


def test_lines_that_could_not_be_read() -> None:
    logs = {LogStream.EXECUTIONS: called("a"), LogStream.EXPOSED: log(lost=2)}
    (found,) = unknown_forms(logs)
    assert found.source == "exposed-request-logs"
    assert found.says.startswith("in the last day, 2 of 2 lines recognised as calls could not")
    assert "expected is" in found.change


async def test_check_holds_sources_against_each_other() -> None:
    world = World(
        inventory=inventory("a", "b"),
        usage=usage(a=1, b=1),
        executions=Ok(facts=log(("svc", "a", CountryFrom.NOTHING, Result.OK), lost=1), origin="x"),
        exposed=NONE,
    )
    # What the usage source says is of another day, so that the last one has none.
    found = await aggregator(world, Telemetry()).check()
    said = {one.says: one.level for one in found}
    assert said["of 1 calls of the last day the country is told: 1 by nothing"] is Level.WARNING
    name = "1 of 1 services that were called in the last day have no CPU time: svc/a"
    assert said[name] is Level.WARNING
    text = "in the last day, 1 of 2 lines recognised as calls could not be understood"
    assert said[text] is Level.WARNING
    # Nobody to ask about calls: nothing to hold against.
    alone = await aggregator(World(usage=usage(a=1)), Telemetry()).check()
    assert not [one.says for one in alone if "last day" in one.says]
