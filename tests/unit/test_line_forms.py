"""Lines shown without what they say."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oscar_metrics.facts import LogStream
from oscar_metrics.sources.line_forms import LONGEST_FORM, form_of
from oscar_metrics.sources.log_lines import Unread, read_execution, read_exposed
from oscar_metrics.sources.logql import LogQuery, Matcher, of_uncommon_form
from tests.sources.loki_streams import call

FORMS = [
    (
        "[GIN-EXECUTIONS-LOGGER] 2026-04-24T10:00:00Z | 200 | POST /run/cowsay | ann@egi.eu",
        "[GIN-EXECUTIONS-LOGGER] 9999-99-99a99:99:99a | 999 | POST /run/aaaa | aaa@aaa.aa",
    ),
    (
        "2026-04-24T10:00:00.1Z stderr F [GIN] 1 | POST    /job/x-y?token=s3cret&n=Ann | ?",
        "9999-99-99a99:99:99.9a aaaa a [GIN] 9 | POST    /job/a-a?aaaa=a9aaaa&a=aaa | ?",
    ),
    (
        '10.244.0.1 "GET /system/services/demo/exposed/me@x.org HTTP/2.0" OK "Bearer eyJh.b-_="',
        '99.999.9.9 "GET /system/services/aaaa/exposed/aa@a.aaa aaaa/9.9" aa "aaaa aaaa.a-_="',
    ),
    (
        '{"ClientHost": "79.1.1.1", "RequestPath": "/system/services/d/exposed", "k": "POST"}',
        '{"ClientHost": "99.9.9.9", "RequestPath": "/system/services/a/exposed", "a": "aaaa"}',
    ),
    # Neither names in other scripts nor what a terminal would obey.
    ("Ánn Ωμέγα ٣٤ \x1b[31m \u202e \t| 🐄", "aaa aaaa 99 ?[99a ?  | ?"),
    # A decomposed letter is as long as any.
    ("e\u0301", "aa"),
    # No mark is made of what is no mark.
    ("/exposed-to-ann /running/ POSTED", "/aaaa-aa-aaa /aaaa/ aaaa"),
    ("", ""),
]


@pytest.mark.parametrize(("line", "form"), FORMS)
def test_forms(line: str, form: str) -> None:
    assert form_of(line) == form


@given(st.text() | st.text("aB9 |/[]GINrun.-\u00e9\u0301", max_size=400))
def test_no_letter_and_no_digit_of_a_line_is_in_its_form(line: str) -> None:
    form = form_of(line)
    assert len(form) <= LONGEST_FORM + 1
    rest = re.sub(
        r"\[GIN(-EXECUTIONS-LOGGER)?\]|/(run|job|system/services)/|/exposed|POST|GET|PUT|HEAD"
        r'|DELETE|PATCH|OPTIONS|"[A-Za-z]+"(?= ?:)',
        "",
        form,
    )
    assert re.fullmatch(r"[a9…\x20-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e]*", rest), rest
    assert not re.search(r"a{5}|9{5}", rest)


def test_a_long_line_is_cut() -> None:
    assert form_of("x " * 5000) == "a " * (LONGEST_FORM // 2) + "…"
    assert form_of("x" * 5000) == "aaaa…"


EXECUTION = call("ann")
LOGGED = f"{EXECUTION} | other | oscar-svc-ann"
NGINX = (
    '172.18.0.1 - - [23/Jan/2026:18:13:07 +0000] "GET /system/services/demo/exposed/ HTTP/1.1" 200'
    ' 17 "-" "curl/8.7.1" 109 0.003 [oscar-svc-demo-svc-80] [] 10.244.0.223:80 17 0.002 200 a'
)
TRAEFIK = (
    '{"ClientHost":"79.1.1.1","DownstreamStatus":200,"Duration":17,"RequestCount":3,'
    '"RequestPath":"/system/services/d/exposed/a","RouterName":"r@k","msg":""}'
)
PIECES = st.sampled_from([*' |/"?[]{}:,', " | ", "POST", "200", "99", "GET", "\n", "\x85", "x"])


@settings(max_examples=300)
@given(
    st.sampled_from(
        [
            (LogStream.EXECUTIONS, EXECUTION),
            (LogStream.EXECUTIONS, LOGGED),
            (LogStream.EXPOSED, NGINX),
            (LogStream.EXPOSED, TRAEFIK),
        ]
    ),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 12), PIECES), max_size=3),
)
def test_what_is_not_understood_is_of_uncommon_form(
    whole: tuple[LogStream, str], changes: list[tuple[int, int, str]]
) -> None:
    stream, line = whole
    for at, length, piece in changes:
        line = line[:at] + piece + line[at + length :]
    if stream is LogStream.EXECUTIONS:
        understood = read_execution(line) is not Unread.NOT_UNDERSTOOD
    else:
        understood = read_exposed(line) is not Unread.NOT_UNDERSTOOD
    query = of_uncommon_form(LogQuery((Matcher("app", "=", "oscar"),)), stream)
    pattern = query.pipeline.rpartition("!~ `")[2].removesuffix("`").replace("$", r"\Z")
    assert understood or not re.search(pattern, line)
    if not changes:
        assert re.search(pattern, line)
