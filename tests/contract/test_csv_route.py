"""Breakdowns as CSV, as they arrive."""

from __future__ import annotations

import httpx
import pytest

PATH = "/system/metrics/breakdown"
RANGE = "start=2026-04-01T00:00:00Z&end=2026-04-30T23:59:59%2B00:00"
USER_HEADER = "key,membership,executions_count,countries\n"
SERVICE_HEADER = (
    "key,membership,requests_count_total,requests_count_sync,requests_count_async,"
    "requests_count_exposed,unique_users_count,countries"
)


def test_rows_and_headers_per_user(whole: httpx.Client) -> None:
    response = whole.get(f"{PATH}?{RANGE}&group_by=user&format=csv")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv"
    assert response.headers["cache-control"] == "private, no-cache"
    assert response.headers["content-disposition"] == (
        'attachment; filename="oscar-metrics-user-2026-04-01T000000Z-2026-04-30T235959+0000.csv"'
    )
    assert response.content.decode() == (
        USER_HEADER
        + ",unknown,1,ES:1\n"
        + "'=odd,member,1,ES:1\n"
        + "alice@egi.eu,member,3,ES:3\n"
        + "bob@egi.eu,member,1,FR:1\n"
        + "nil,external,2,\n"
    )


def test_raw_leaves_what_looks_like_a_formula_alone(whole: httpx.Client) -> None:
    asked = f"{PATH}?{RANGE}&group_by=user&format=csv"
    assert "\n=odd," in whole.get(f"{asked}&raw=true").text
    assert "\n'=odd," in whole.get(f"{asked}&raw=yes").text


def test_rows_per_service_with_usage(whole: httpx.Client) -> None:
    response = whole.get(f"{PATH}?{RANGE}&group_by=service&format=csv&include_usage=true")
    assert response.content.decode() == (
        f"{SERVICE_HEADER},cpu_hours,gpu_hours\n"
        ",,0,0,0,0,0,,0.5,0.0\n"
        "cowsay,,4,3,1,0,2,ES:3|FR:1,12.5,0.0\n"
        "demo,,0,0,0,7,0,,0.0,0.0\n"
        "grayify,,3,1,2,0,2,ES:1,0.0,0.0\n"
        "value,,1,1,0,0,0,ES:1,0.0,0.0\n"
    )


def test_rows_per_country(whole: httpx.Client) -> None:
    response = whole.get(f"{PATH}?{RANGE}&group_by=country&format=csv")
    assert response.content.decode() == (
        "key,membership,executions_count,unique_users_count,countries\n"
        "ES,,5,2,ES:5\n"
        "FR,,1,1,FR:1\n"
        "unknown,,2,1,unknown:2\n"
    )


def test_a_series_has_a_first_column_and_the_total_last(whole: httpx.Client) -> None:
    asked = f"{PATH}?{RANGE}&group_by=country&format=csv"
    plain = whole.get(asked).text.splitlines()
    response = whole.get(f"{asked}&interval=month&tz=Asia/Tokyo")
    assert response.text.splitlines() == [
        f"period,{plain[0]}",
        *(f"2026-04,{line}" for line in plain[1:]),
        *(f"total,{line}" for line in plain[1:]),
    ]


def test_completeness_is_one_header_of_one_line(whole: httpx.Client) -> None:
    response = whole.get(f"{PATH}?{RANGE}&group_by=user&format=csv")
    (header,) = response.headers.get_list("x-completeness")
    assert header.startswith("request-logs;status=ok;coverage=1.000, country-attribution;")
    assert "user-roster;status=missing;coverage=0.000;notes=" in header


@pytest.mark.parametrize(
    ("group_by", "text"), [("user", USER_HEADER), ("service", f"{SERVICE_HEADER}\n")]
)
def test_without_a_log_there_is_a_header_line_and_the_name_says_so(
    nothing: httpx.Client, group_by: str, text: str
) -> None:
    response = nothing.get(f"{PATH}?{RANGE}&group_by={group_by}&format=csv")
    assert response.text == text
    assert response.headers["content-disposition"].endswith('-partial.csv"')
    assert "request-logs;status=missing;coverage=0.000" in response.headers["x-completeness"]


@pytest.mark.parametrize(
    ("accept", "format_", "csv"),
    [
        ("text/csv", "", True),
        ("text/csv, */*;q=0.1", "", True),
        ("text/csv, */*", "", True),
        ("application/json;q=0.5, text/csv;q=0.9", "", True),
        ("application/json, text/csv", "", False),
        ("*/*", "", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "", False),
        ("image/png", "", False),
        ("nonsense;;q=,", "", False),
        ("", "", False),
        ("text/csv", "json", False),
        ("application/json", "csv", True),
        ("application/json", "CsV", True),
    ],
)
def test_accept_works_like_format_and_format_wins(
    whole: httpx.Client, accept: str, format_: str, csv: bool
) -> None:
    response = whole.get(
        f"{PATH}?{RANGE}&group_by=user&format={format_}", headers={"Accept": accept}
    )
    assert response.headers["content-type"] == ("text/csv" if csv else "application/json")
    assert response.headers["vary"] == "Accept, Authorization"


def test_accepting_csv_of_services_with_users_is_refused_too(whole: httpx.Client) -> None:
    asked = f"{PATH}?{RANGE}&group_by=service&include_users=true"
    response = whole.get(asked, headers={"Accept": "text/csv"})
    assert response.json()["error"] == "include_users is not supported for csv"
    assert whole.get(asked).status_code == 200
