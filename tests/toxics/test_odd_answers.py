"""What no proxy makes of answers: true numbers or flags, in time, and nothing of it said on.

Each way to be odd stands before one upstream for some reports. The administrator always has one,
in time; a number is the truth or flagged; the other sources are as ever; nothing of what was
answered, of our credentials or of where upstreams are is said; memory stays bounded, and nothing
is sent to where a redirect leads. Then it is over, and everything is known again.

In CI each way that is no answer at all stands before two of the upstreams; with OSCAR_TOXICS=full
(`make soak`) before all of them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

from tests.auth.made_issuer import USERINFO
from tests.servers.build import require
from tests.servers.process import wait_until
from tests.toxics import another_question
from tests.toxics.another_question import LOKI_IS_OUT, is_log
from tests.toxics.expected import CALLS, EXPOSED, INVENTORY, USAGE, Upstream, faults
from tests.toxics.odd import HARMLESS, MARK, NO_ANSWERS, Way, where, whole
from tests.toxics.odd_stack import BODY_BYTES, DEADLINE_SECONDS, OddStack, odd_stack
from tests.toxics.questions import Answer, Caller, Question
from tests.toxics.toxics import Effect

ADMINISTRATOR, USER = Caller.ADMINISTRATOR, Caller.KNOWN_USER
Asked = tuple[Question, Caller]
Truths = dict[Asked, Answer]
SUMMARY: Asked = (Question.SUMMARY, ADMINISTRATOR)
REPORTS: tuple[Asked, ...] = (SUMMARY, (Question.SUMMARY, USER))
MORE_REPORTS: Mapping[Upstream, tuple[Asked, ...]] = {
    Upstream.LOKI: ((Question.VALUE_OF_CALLS, ADMINISTRATOR), (Question.BREAKDOWN, ADMINISTRATOR)),
    Upstream.PROMETHEUS: ((Question.VALUE_OF_HOURS, ADMINISTRATOR), (Question.CSV, ADMINISTRATOR)),
    Upstream.KUBERNETES: ((Question.BREAKDOWN, ADMINISTRATOR),),
}
OF_THE_ISSUER: tuple[Asked, ...] = (SUMMARY, (Question.SUMMARY, Caller.NEW_USER))
SUPPLIED = {
    Upstream.LOKI: frozenset({CALLS, EXPOSED}),
    Upstream.PROMETHEUS: frozenset({USAGE}),
    Upstream.KUBERNETES: frozenset({INVENTORY}),
    Upstream.KEYCLOAK: frozenset[str](),
}
# How much larger the process may get: the answers in flight, twice, and what the allocator keeps.
GROWTH_BYTES = 96 * 2**20
# What the kernel takes of a body that nobody reads.
IN_BETWEEN_BYTES = 24 * 2**20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddStack]:
    for server in ("loki", "prometheus", "etcd", "kube-apiserver", "kwok"):
        require(server)
    with odd_stack(tmp_path_factory.mktemp("odd")) as running:
        yield running


@pytest.fixture(scope="module")
def user(stack: OddStack) -> str:
    """A token that our server knows the user of."""
    token = stack.token()
    assert stack.ask(Question.SUMMARY, USER, token)[0].status == 200
    return token


@pytest.fixture(scope="module")
def truths(stack: OddStack, user: str) -> Truths:
    asked = {*REPORTS, *OF_THE_ISSUER, *(each for more in MORE_REPORTS.values() for each in more)}
    found = {
        each: stack.ask(*each, stack.token() if each[1] is not USER else user)[0] for each in asked
    }
    for answer in found.values():
        assert answer.status == 200, answer
        assert {source.status for source in answer.sources.values()} == {"ok"}, answer.sources
    return found


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """One way to be odd before some upstreams, and what is asked meanwhile."""

    stack: OddStack
    truths: Truths
    user: str
    ways: Mapping[Upstream, Way]
    # Whose words may be missing; where that is more, or less, than those the ways stand before.
    upstreams: Collection[Upstream]
    effect: Effect
    # Sources that must not be said to be all there, from where they usually are.
    flagged: frozenset[str] = frozenset()

    def judge(self, asked: Collection[Asked]) -> dict[Asked, Answer]:
        """Ask while it is odd, and once more when it no longer is."""
        answers = {}
        stack, process = self.stack, Memory(self.stack.server.pid)
        with contextlib.ExitStack() as odd:
            for upstream, way in self.ways.items():
                made = way.make(stack.elsewhere.url)
                odd.enter_context(stack.betweens[upstream].answering(made))
            for question, caller in asked:
                answers[question, caller] = self._ask(question, caller)
            betweens = [stack.betweens[upstream] for upstream in self.ways]
            assert all(each.odd_answers for each in betweens), "nothing odd was answered"
            for each in betweens:
                most = (BODY_BYTES + IN_BETWEEN_BYTES) * each.odd_answers
                assert each.sent_bytes <= most or is_streamed(self.ways), each.sent_bytes
            sent_bytes = sum(each.sent_bytes for each in betweens)
        assert process.growth() <= GROWTH_BYTES
        assert stack.elsewhere.heads == []
        self._flags(answers[SUMMARY])
        recover(stack, self.truths)
        # Nobody goes on reading what nobody waits for.
        assert sum(each.sent_bytes for each in betweens) <= sent_bytes + IN_BETWEEN_BYTES
        return answers

    def _ask(self, question: Question, caller: Caller) -> Answer:
        token = self.stack.token() if caller is Caller.NEW_USER else self.user
        answer, said = self.stack.ask(question, caller, token)
        truth = self.truths[question, caller]
        assert not faults(
            answer,
            truth,
            question=question,
            caller=caller,
            upstreams=self.upstreams,
            effect=self.effect,
        ), answer
        assert answer.seconds <= 1.1 * DEADLINE_SECONDS + truth.seconds
        assert MARK not in said
        assert not [secret for secret in self.stack.secrets if secret in said]
        return answer

    def _flags(self, summary: Answer) -> None:
        for name in self.flagged:
            source, before = summary.sources[name], self.truths[SUMMARY].sources[name]
            assert source.status != "ok" or source.origin != before.origin, source


class Memory:
    """How much memory a process takes, from now on at the most."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        # The most so far is forgotten.
        (self._process / "clear_refs").write_text("5")
        self._before = self._kilobytes("VmRSS")

    def growth(self) -> int:
        """By how many bytes the most is more than at first."""
        return 1024 * (self._kilobytes("VmHWM") - self._before)

    def _kilobytes(self, name: str) -> int:
        lines = (self._process / "status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1])


def is_streamed(ways: Mapping[Upstream, Way]) -> bool:
    """Whether logs of pods are odd, which are not held: they may be as long as they like."""
    return Upstream.LOKI in ways and Upstream.KUBERNETES in ways


def recover(stack: OddStack, truths: Truths) -> None:
    """Wait until everything is known again, and every upstream asked."""

    def is_whole(question: Question, caller: Caller) -> bool:
        truth, answer = truths[question, caller], stack.ask(question, caller, stack.token())[0]
        return (answer.status, answer.rows, answer.sources) == (200, truth.rows, truth.sources)

    def is_over() -> bool:
        # Who is not an administrator is known by the issuer only, which nobody else asks.
        asked = SUMMARY if not stack.left_alone() & {stack.issuer} else OF_THE_ISSUER[1]
        return is_whole(*asked) and not stack.left_alone()

    wait_until(is_over, "the whole truth again", timeout_seconds=20)


POD_LOGS = "pod-logs"
# Two clients have them: of the one upstreams and then of the other.
TARGETS: tuple[tuple[str, ...], ...] = (
    (Upstream.LOKI, Upstream.PROMETHEUS, Upstream.KEYCLOAK),
    (Upstream.KUBERNETES, POD_LOGS),
)


# What these may be all the same: a log of nothing, and no word of a user, who is refused then.
ANSWERS = {
    (POD_LOGS, "empty"),
    (Upstream.KEYCLOAK, "another-object"),
    (Upstream.KEYCLOAK, "error-with-200"),
}


def no_answers() -> Iterator[tuple[str, Way]]:
    """What stands before what."""
    full = os.environ.get("OSCAR_TOXICS", "") == "full"
    for number, way in enumerate(NO_ANSWERS):
        for targets in TARGETS:
            for target in targets if full else targets[number % len(targets) :][:1]:
                if (target, way.name) not in ANSWERS:
                    yield target, way
    yield from ((POD_LOGS, way) for way in another_question.OF_POD_LOGS)


@pytest.mark.parametrize(
    ("target", "way"), [pytest.param(*row, id=f"{row[0]}-{row[1].name}") for row in no_answers()]
)
def test_what_is_no_answer_is_missing(
    stack: OddStack, truths: Truths, user: str, target: str, way: Way
) -> None:
    asked: tuple[Asked, ...] = (SUMMARY,)
    if target == POD_LOGS:
        upstream = Upstream.LOKI
        out = Way(name="out", make=LOKI_IS_OUT)
        of_logs = Way(name=way.name, make=where(is_log, way.make))
        ways = {Upstream.LOKI: out, Upstream.KUBERNETES: of_logs}
    else:
        upstream = Upstream(target)
        asked = OF_THE_ISSUER if upstream is Upstream.KEYCLOAK else REPORTS
        ways = {upstream: way}
    Scene(
        stack=stack,
        truths=truths,
        user=user,
        ways=ways,
        upstreams=[upstream],
        effect=Effect.OUT,
        flagged=SUPPLIED[upstream],
    ).judge(asked)


ANOTHER = [
    *((Upstream.PROMETHEUS, way) for way in another_question.OF_PROMETHEUS),
    *((Upstream.LOKI, way) for way in another_question.OF_LOKI),
    *((Upstream.KUBERNETES, way) for way in another_question.OF_KUBERNETES),
]
# What cannot be counted is read line by line, in time if the machine is quick, and whole; and each
# line twice is whole where both are no more than a page holds.
MAY_BE_WHOLE = {"value", "counts", "each"}


@pytest.mark.parametrize(
    ("upstream", "way"), [pytest.param(*row, id=f"{row[0]}-{row[1].name}") for row in ANOTHER]
)
def test_an_answer_to_another_question_is_not_counted(
    stack: OddStack, truths: Truths, user: str, upstream: Upstream, way: Way
) -> None:
    Scene(
        stack=stack,
        truths=truths,
        user=user,
        ways={upstream: way},
        upstreams=[upstream],
        effect=Effect.SOME,
        flagged=frozenset() if MAY_BE_WHOLE & {*way.name.split("-")} else SUPPLIED[upstream],
    ).judge((SUMMARY, *MORE_REPORTS[upstream]))


ODD_AND_HARMLESS = [
    *((upstream, way) for upstream in Upstream for way in HARMLESS),
    (Upstream.PROMETHEUS, another_question.REMARKS),
]


@pytest.mark.parametrize(
    ("upstream", "way"),
    [pytest.param(*row, id=f"{row[0]}-{row[1].name}") for row in ODD_AND_HARMLESS],
)
def test_what_is_odd_and_says_it_all_is_an_answer(
    stack: OddStack, truths: Truths, user: str, upstream: Upstream, way: Way
) -> None:
    asked = OF_THE_ISSUER if upstream is Upstream.KEYCLOAK else REPORTS
    Scene(
        stack=stack,
        truths=truths,
        user=user,
        ways={upstream: way},
        upstreams=[upstream],
        effect=Effect.HARMLESS,
    ).judge(asked)


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"sub": "somebody@else.example", "group_membership": ["users"]}, 401),
        ({"group_membership": ["users"]}, 401),
        ({"sub": ["a"], "group_membership": ["users"]}, 401),
        ([MARK], 503),
    ],
)
def test_a_user_of_whom_their_issuer_says_something_else_is_refused(
    stack: OddStack, claims: object, status: int
) -> None:
    body = whole(msgspec.json.encode(claims))
    odd = where(lambda request: request.path == USERINFO, body)
    with stack.betweens[Upstream.KEYCLOAK].answering(odd(stack.elsewhere.url)):
        answer, said = stack.ask(Question.SUMMARY, Caller.NEW_USER, stack.token())
    assert answer.status == status
    assert MARK not in said


@pytest.mark.parametrize("bad", ["expired", "self-signed", "of-another-host", "plain-http"])
@pytest.mark.parametrize("upstream", Upstream)
def test_who_does_not_show_a_good_certificate_is_told_nothing(
    stack: OddStack, truths: Truths, user: str, upstream: Upstream, bad: str
) -> None:
    between = stack.betweens[upstream]
    token = stack.token()
    heads = len(between.heads)
    between.tls = stack.certificates.bad[bad]
    try:
        for question, caller in OF_THE_ISSUER if upstream is Upstream.KEYCLOAK else REPORTS:
            answer, said = stack.ask(question, caller, user if caller is USER else token)
            truth = truths[question, caller]
            assert not faults(
                answer,
                truth,
                question=question,
                caller=caller,
                upstreams=[upstream],
                effect=Effect.OUT,
            ), answer
            assert not [secret for secret in stack.secrets if secret in said]
            if caller is ADMINISTRATOR and upstream is not Upstream.KEYCLOAK:
                notes = " ".join(source.notes for source in answer.sources.values())
                assert "over TLS" in notes, notes
    finally:
        between.tls = stack.certificates.good
    assert len(between.heads) == heads
    recover(stack, truths)
