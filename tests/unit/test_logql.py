from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.errors import Reason
from oscar_metrics.sources.logql import (
    EXECUTIONS_QUERY,
    EXPOSED_QUERY,
    LogQuery,
    Matcher,
    by_character,
    by_label,
    lines_by_slot,
    mentioning,
    parse_template,
    quote,
    unquote,
)
from oscar_metrics.sources.loki_answers import Entry, StreamLines
from oscar_metrics.sources.loki_api import LokiSettings, duration_ns, reason_of
from oscar_metrics.sources.loki_splitting import halve
from oscar_metrics.sources.upstream_credentials import CredentialSettings
from oscar_metrics.timerange import DAY_NS, HOUR_NS, SECOND_NS

VALUES = {"namespace": "oscar", "app": "man.ager"}
QUERY = LogQuery((Matcher("app", "=", "oscar"),))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (EXECUTIONS_QUERY, '{namespace="oscar", app="man.ager"} |~ "/(job|run)/"'),
        (EXPOSED_QUERY, '{namespace="oscar", app="man.ager"} |~ "/system/services/.+/exposed"'),
        ('{app="{{ app }}"}', '{app="man.ager"}'),
        ('{app=~"{{app}}-.*",}', '{app=~"man\\\\.ager-.*"}'),
        ('{a=`b`} |= `x` != "y"', '{a="b"} |= "x" != "y"'),
        ('{a="b"}|="x" or "y"', '{a="b"} |= "x" or "y"'),
        # {{service}} is any service, wherever it stands.
        ('{a="b"} |~ "/(job|run)/{{service}}"', '{a="b"} |~ "/(job|run)/.+"'),
        ('{a="b"} |= "/run/{{service}}?x"', '{a="b"} |~ "/run/.+\\\\?x"'),
        ('{a="b"} |= "p.q" or "{{service}}"', '{a="b"} |~ "p\\\\.q" or ".+"'),
        ('{a="b", service="{{service}}"}', '{a="b", service=~".+"}'),
        ('{a="x-{{service}}-{{app}}"}', '{a=~"x\\\\-.+\\\\-man\\\\.ager"}'),
        # What follows the line filters is the operator's own.
        ('{a="b"} |= "x" | json | x=`{{.y}}`', '{a="b"} |= "x" | json | x=`{{.y}}`'),
    ],
)
def test_a_template_becomes_a_query(template: str, expected: str) -> None:
    assert str(parse_template(template, VALUES)) == expected


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "begins with a stream selector"),
        ('sum(count_over_time({a="b"}[1h]))', "begins with a stream selector"),
        ("{}", "at least one label"),
        ('{a="b"', "expected , or }"),
        ('{a="b" c="d"}', "expected , or }"),
        ("{a=b}", "expected a string"),
        ('{a~"b"}', "expected = or"),
        ('{a="{{nobody}}"}', "{{nobody}} is not a placeholder; known are {{namespace}}, {{app}}"),
        ('{a="b"} != "{{service}}"', "cannot follow !="),
        ('{a!="{{service}}"}', "cannot follow !="),
        ('{a="b"} nonsense', "expected line filters"),
        ('{a="b"} | app="{{app}}"', "expected line filters"),
        ('{a="\\d"}', "use backticks"),
    ],
)
def test_what_is_no_log_query_is_named(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_template(template, VALUES)


@given(st.text())
def test_any_text_survives_a_string_literal(text: str) -> None:
    literal = quote(text)
    assert unquote(literal) == text
    assert not re.search("[\n\r\x00]", literal)


@given(st.text())
def test_no_value_escapes_its_place(value: str) -> None:
    query = parse_template('{app="{{app}}"} |= "{{app}}"', {"app": value})
    assert query.matchers == (Matcher("app", "=", value),)
    assert query.pipeline == f"|= {quote(value)}"


@pytest.mark.parametrize(
    ("line", "mentions"),
    [
        ("POST /run/a-b | u", True),
        ("POST /run/a-b?x=1 | u", True),
        ('POST "/run/a-b" | u', True),
        ("POST /run/x | u | a-b | ns", True),
        ("POST /run/a-b", True),
        ('{"RequestHost":"a-b.example.org"}', True),
        ("POST /run/a-b-c | u", False),
        ("POST /run/xa-b | u", False),
        ("POST /run/A-B | u", False),
    ],
)
def test_lines_that_mention_a_service(line: str, mentions: bool) -> None:
    query = mentioning(QUERY, "a-b")
    literal, pattern = re.findall(r'\|[=~] ("(?:[^"\\]|\\.)*")', str(query))
    found = unquote(literal) in line and re.search(unquote(pattern), line)
    assert bool(found) is mentions


def test_slots_of_silence_are_asked_of_the_streams_without_the_filters() -> None:
    query = parse_template(EXECUTIONS_QUERY, VALUES)
    assert lines_by_slot(query) == (
        'sum(count_over_time({namespace="oscar", app="man.ager"}[15m] offset 1ms))'
    )


def test_parts_of_a_split_are_exact_opposites() -> None:
    assert [str(part) for part in by_label(QUERY, "x", 'a"b')] == [
        '{app="oscar"} | x="a\\"b"',
        '{app="oscar"} | x!="a\\"b"',
    ]
    assert [str(part) for part in by_character(QUERY, 2005, "a]")] == [
        '{app="oscar"} |~ "^(?s:.{1000})(?s:.{1000})(?s:.{5})[\\\\x{61}\\\\x{5d}]"',
        '{app="oscar"} !~ "^(?s:.{1000})(?s:.{1000})(?s:.{5})[\\\\x{61}\\\\x{5d}]"',
    ]


def page(lines: dict[str, list[str]]) -> list[StreamLines]:
    return [
        StreamLines(stream={"pod": pod}, values=[Entry(1, line) for line in texts])
        for pod, texts in lines.items()
    ]


@given(
    st.dictionaries(
        st.sampled_from("abc"), st.lists(st.text(max_size=5), min_size=1, unique=True), min_size=1
    )
)
def test_lines_that_differ_can_be_told_apart(lines: dict[str, list[str]]) -> None:
    halves = halve(QUERY, page(lines))
    if sum(map(len, lines.values())) == 1:
        assert halves is None
        return
    assert halves is not None
    part = str(halves[0]).removeprefix('{app="oscar"} ')
    inside = 0
    for pod, texts in lines.items():
        for text in texts:
            if part.startswith("| pod="):
                inside += part == f'| pod="{pod}"'
            else:
                pattern = unquote(part.removeprefix("|~ "))
                pattern = re.sub(r"\\x\{(\w+)\}", lambda m: f"\\U{int(m[1], 16):08x}", pattern)
                inside += bool(re.search(pattern, text))
    assert 0 < inside < sum(map(len, lines.values()))


def test_equal_lines_of_equal_streams_cannot_be_told_apart() -> None:
    assert halve(QUERY, [*page({"a": ["x"]}), *page({"a": ["x"]})]) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d1h", 721 * HOUR_NS),
        ("1m0s", 60 * SECOND_NS),
        ("0s", 0),
        ("1.5h", 3 * HOUR_NS // 2),
        ("2w", 14 * DAY_NS),
        ("", None),
        ("soon", None),
        ("1h?", None),
    ],
)
def test_durations_as_loki_writes_them(text: str, expected: int | None) -> None:
    assert duration_ns(text) == expected


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (400, "max entries limit per query exceeded, limit > …", Reason.LIMIT),
        (400, "maximum number of series (500) reached for a single query", Reason.LIMIT),
        (400, "the query time range exceeds the limit (query length: 800h", Reason.LIMIT),
        (400, "the query would read too many bytes (query: 1GB, limit: 1MB)", Reason.LIMIT),
        (500, "grpc: received message larger than max (5 vs. 4)", Reason.LIMIT),
        (500, "context deadline exceeded", Reason.TOO_SLOW),
        (500, "something broke", Reason.SERVER_ERROR),
        (401, "no org id", Reason.UNAUTHORIZED),
        (400, "no org id", Reason.UNAUTHORIZED),
        (400, "parse error at line 1", None),
        (504, "request timed out, decrease the duration", Reason.TOO_SLOW),
        (504, "upstream request timeout", None),
        (429, "too many outstanding requests", None),
    ],
)
def test_errors_mean_what_loki_says(status: int, text: str, expected: Reason | None) -> None:
    assert reason_of(status, text) is expected


def test_settings_do_not_show_their_secrets() -> None:
    settings = LokiSettings(
        url="http://user:hi@dden@loki:3100",
        credentials=CredentialSettings(username="u", password="hidden", token="hidden"),
    )
    assert repr(settings) == "LokiSettings(url='http://…@loki:3100', …)"
    assert "hidden" not in f"{settings} {settings.credentials}"
