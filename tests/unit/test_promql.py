from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oscar_metrics.sources import promql


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("plain", '"plain"'),
        ('say "hi"', r'"say \"hi\""'),
        ("back\\slash", r'"back\\slash"'),
        ("new\nline", r'"new\nline"'),
    ],
)
def test_strings_are_escaped(text: str, literal: str) -> None:
    assert promql.quote(text) == literal


@given(st.text())
def test_a_literal_ends_where_it_ends(text: str) -> None:
    literal = promql.quote(text)
    assert re.fullmatch(r'"(?:[^"\\\n]|\\["\\n])*"', literal)
    back = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
    assert re.sub(r'\\["\\n]', lambda m: back[m[0]], literal[1:-1]) == text


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.text())
def test_a_list_of_values_matches_them_and_nothing_else(values: list[str], other: str) -> None:
    literal = promql.one_of("a", values).removeprefix("a=~")
    back = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
    pattern = re.sub(r'\\["\\n]', lambda m: back[m[0]], literal[1:-1])
    for value in values:
        assert re.fullmatch(pattern, value)
    assert bool(re.fullmatch(pattern, other)) == (other in values)


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        ("cowsay", True),
        ("a", True),
        ("a-1", True),
        ("0190c2a8", True),
        ("", False),
        ("-a", False),
        ("a-", False),
        ("A", False),
        ("a.b", False),
        ("a_b", False),
        ('a"b', False),
        ("ä", False),
        ("a\n", False),
        ("a" * 254, False),
    ],
)
def test_names(text: str, is_name: bool) -> None:
    assert promql.is_name(text) == is_name


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(1, "1ms"), (1000, "1s"), (1001, "1001ms"), (86_400_000, "86400s")],
)
def test_durations(milliseconds: int, text: str) -> None:
    assert promql.duration(milliseconds) == text


@pytest.mark.parametrize(
    ("prefix", "others", "matcher"),
    [
        ("oscar-svc", (), 'namespace=~"oscar-svc.*"'),
        ("oscar-svc", ("team", "oscar-svc-a"), 'namespace=~"oscar-svc.*|team"'),
        ("o.s", ('bad"name', "b", "a"), 'namespace=~"o\\\\.s.*|a|b"'),
    ],
)
def test_namespaces(prefix: str, others: tuple[str, ...], matcher: str) -> None:
    assert promql.namespaces(prefix, others) == matcher


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        (
            promql.CPU_QUERY,
            (
                'sum(increase(container_cpu_usage_seconds_total{namespace=~"oscar-svc.*",'
                'service=~"cowsay"}[3600s])) / 3600'
            ),
        ),
        ("{{ namespace }}/{{service}}", "oscar-svc-a/cowsay"),
        ("{{other}} {service} {{range}}", "{{other}} {service} 3600s"),
    ],
)
def test_templates(template: str, filled: str) -> None:
    assert (
        promql.fill(
            template,
            service="cowsay",
            namespace="oscar-svc-a",
            prefix="oscar-svc",
            range_ms=3_600_000,
        )
        == filled
    )


def test_placeholders() -> None:
    assert promql.placeholders(promql.GPU_QUERY) == {"services_namespace", "service", "range"}
