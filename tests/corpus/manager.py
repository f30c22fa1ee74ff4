"""What the OSCAR manager writes: executions in every form, and everything else in its log."""

from __future__ import annotations

from enum import StrEnum

from oscar_metrics.facts import Kind
from oscar_metrics.timerange import SECOND_NS
from tests.corpus.dice import Dice
from tests.corpus.entries import RUNTIME_DELAYS_NS, Call, Cri, Entry, Workload
from tests.corpus.times import gin_time, rfc3339

_TAG = "[GIN-EXECUTIONS-LOGGER]"
_PATHS = {Kind.SYNC: "/run/", Kind.ASYNC: "/job/"}


class Form(StrEnum):
    """The forms an execution is written in."""

    SIX = "six fields"
    EIGHT = "eight fields"
    OLD = "old time form"
    GIN = "[GIN] with six fields"


# The namespace of a call is known from this form alone.
FORM_WEIGHTS = {Form.SIX: 40.0, Form.EIGHT: 36.0, Form.OLD: 18.0, Form.GIN: 6.0}
# These write whole seconds.
SECOND_FORMS = frozenset({Form.OLD})


def execution(dice: Dice, call: Call, time_ns: int, form: Form, cri: Cri) -> Entry:
    """The entry of an execution; the namespace of `call` counts only in the eight-field form."""
    line = _line(dice, call, _own_time(dice, time_ns, form, cri), form)
    return Entry(
        workload=Workload.MANAGER, time_ns=time_ns, line=line, cri=cri, ours=True, call=call
    )


def broken(dice: Dice, call: Call, time_ns: int, cri: Cri) -> Entry:
    """An execution that cannot be understood: cut off before its user, or its status garbled."""
    line = _line(dice, call, rfc3339(time_ns), Form.SIX)
    if dice.chance(0.5):
        line = line.rpartition(" | ")[0]
    else:
        status = f"| {call.status} |"
        line = line.replace(
            status, dice.pick(("| 2x0 |", "| --- |", "| 20\N{REPLACEMENT CHARACTER} |"))
        )
    return Entry(workload=Workload.MANAGER, time_ns=time_ns, line=line, cri=cri, ours=True)


def probe(dice: Dice, time_ns: int, cri: Cri) -> Entry:
    """The access line of a health probe, a sign of life."""
    line = (
        f"[GIN] {gin_time(time_ns)} | 200 |{_latency(dice):>14} |"
        f'      10.244.0.1 | GET      "/health"'
    )
    return Entry(workload=Workload.MANAGER, time_ns=time_ns, line=line, cri=cri)


def access_line(dice: Dice, execution: Entry) -> Entry | None:
    """Gin's own five-field access line of the same call, which is not a second execution."""
    call, plain = execution.call, execution.cri is Cri.NONE
    # Gin writes whole seconds, which in a plain file are all there is.
    if call is None or (plain and execution.time_ns % SECOND_NS):
        return None
    line = (
        f"[GIN] {gin_time(execution.time_ns)} | {call.status} |{_latency(dice):>14} |"
        f'{call.ip:>16} | POST     "{_PATHS[call.kind]}{call.service}"'
    )
    cri = Cri.NONE if plain else Cri.FULL
    return Entry(workload=Workload.MANAGER, time_ns=execution.time_ns, line=line, cri=cri)


def noise(dice: Dice, time_ns: int, cri: Cri) -> Entry:
    """Something else the manager says, with words of an execution's path in it perhaps."""
    if cri is Cri.NONE:
        # Without a transport, only a line that carries its time has one.
        line = (
            f"[GIN] {gin_time(time_ns)} | 200 |{_latency(dice):>14} |"
            '        10.0.0.9 | GET      "/system/logs/job/x"'
        )
    else:
        line = dice.pick(
            (
                "\t/go/src/github.com/example/oscar/pkg/handlers/job/run.go:112 +0x1d",
                "[GIN-debug] POST   /run/:serviceName   --> handlers.MakeRunHandler (6 handlers)",
                "Job /job/ of service 'cowsay' created successfully",
                "",
            )
        )
    return Entry(workload=Workload.MANAGER, time_ns=time_ns, line=line, cri=cri)


def _line(dice: Dice, call: Call, own_time: str, form: Form) -> str:
    path = _PATHS[call.kind]
    # The path names something else where the line says which service it was.
    alias = form is Form.EIGHT and dice.chance(0.2)
    path += "path-service" if alias else call.service
    if dice.chance(0.08):
        path += dice.pick(("?delay=3", "?x=1&y=/run/other", "?q=a%20b"))
    if dice.chance(0.08):
        path = f'"{path}"'
    address = call.ip
    if dice.chance(0.06):
        port = 1024 + dice.below(60000)
        address = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    gap = dice.pick((" ", "    "))
    tag = "[GIN]" if form is Form.GIN else _TAG
    line = (
        f"{tag} {own_time} | {call.status} | {_latency(dice)} | {address} | "
        f"POST{gap}{path} | {call.user}"
    )
    if form is Form.EIGHT:
        line += f" | {call.service} | {call.namespace}"
    return line


def _own_time(dice: Dice, time_ns: int, form: Form, cri: Cri) -> str:
    if cri is not Cri.NONE:
        # The runtime stamps a line a little after its writer did; the later time counts.
        time_ns -= dice.pick(RUNTIME_DELAYS_NS)
    return gin_time(time_ns) if form in SECOND_FORMS else rfc3339(time_ns)


def _latency(dice: Dice) -> str:
    number = f"{dice.pick((7, 12, 80, 347))}.{dice.digits(3, '123456789')}"
    return dice.weighted(
        {
            f"{number}ms": 8.0,
            f" {number}ms": 8.0,
            f"{number}µs": 3.0,
            f"  1.{dice.digits(6, '123456789')}s": 3.0,
            "1m12.5s": 1.0,
        }
    )
